# The programs' images, one target each: docker build --target gatekeeper .
# gatekeeper, switchboard, chat-shard, infrachat (the client, which the canary runs), emulators (for compose.yaml).

FROM rust:1.95-bookworm AS chef
# Plans and builds the dependencies alone, so that they are a layer of their own.
RUN cargo install --locked cargo-chef@0.1.78
WORKDIR /build

FROM chef AS plan
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS build
# Panics name their line without it.
ENV CARGO_PROFILE_RELEASE_STRIP=debuginfo
COPY --from=plan /build/recipe.json recipe.json
RUN cargo chef cook --release --locked --recipe-path recipe.json
COPY . .
RUN cargo build --release --locked --bin gatekeeper --bin switchboard --bin chat-shard --bin infrachat \
    --bin infrachat-emulators

# No shell, no package manager, not root (65532). Certificates and time zones are in it.
FROM gcr.io/distroless/cc-debian12:nonroot AS runtime
USER 65532:65532
EXPOSE 8080

FROM runtime AS gatekeeper
COPY --from=build /build/target/release/gatekeeper /usr/local/bin/gatekeeper
ENTRYPOINT ["/usr/local/bin/gatekeeper"]

FROM runtime AS switchboard
COPY --from=build /build/target/release/switchboard /usr/local/bin/switchboard
ENTRYPOINT ["/usr/local/bin/switchboard"]

FROM runtime AS chat-shard
COPY --from=build /build/target/release/chat-shard /usr/local/bin/chat-shard
ENTRYPOINT ["/usr/local/bin/chat-shard"]

FROM runtime AS infrachat
COPY --from=build /build/target/release/infrachat /usr/local/bin/infrachat
ENTRYPOINT ["/usr/local/bin/infrachat"]

FROM runtime AS emulators
COPY --from=build /build/target/release/infrachat-emulators /usr/local/bin/infrachat-emulators
ENTRYPOINT ["/usr/local/bin/infrachat-emulators"]
