# InfraChat: `make help` lists what there is.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

SERVER ?= localhost:8001
BUS ?= pubsub
ARGS ?=
# $(USER) is the login name unless it is given on the command line: make chat USER=alice
CHAT_USER := $(shell echo '$(USER)' | tr 'A-Z' 'a-z')

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: run
run: ## Build and start both regions in one process, on embedded parts (ARGS="--cross-region-delay 120ms")
	@cargo build --package infrachat-local --package infrachat-client
	@./target/debug/infrachat-local $(ARGS)

.PHONY: chat
chat: ## Open the terminal client: make chat USER=alice SERVER=localhost:8001
	@cargo build --quiet --package infrachat-client
	@./target/debug/infrachat --server $(SERVER) --user $(CHAT_USER) chat $(ARGS)

.PHONY: emulators
emulators: ## Start the Pub/Sub and Firestore emulators and Redis, and print what to export (GOOGLE=1: Google's)
	@infra/local-emulators/run.sh $(ARGS)

.PHONY: stack
stack: services ## Start both regions as separate processes, on emulators and Redis (BUS=redis-streams; ARGS="...")
	@cargo build --workspace --bins
	@infra/local-emulators/run.sh --run ./target/debug/infrachat-stack --bus $(BUS) $(ARGS)

.PHONY: dashboards
dashboards: ## Show the deployed dashboards on a running make stack: by Grafana with Docker, else on a page of ours (ARGS="--help")
	@infra/local-dashboards/run.sh $(ARGS)

.PHONY: canary
canary: ## Talk to oneself through every pair of regions of make stack, for the dashboards (SERVER=localhost:8001)
	@cargo build --quiet --package infrachat-client
	@./target/debug/infrachat --server $(SERVER) --user canary canary --register --metrics-listen 127.0.0.1:9031 $(ARGS)

.PHONY: services
services: ## Install what tests and emulators need from the system's packages: redis-server, Python's venv
	@missing=(); \
	command -v redis-server >/dev/null || missing+=(redis-server); \
	python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv); \
	for program in $(ALSO); do command -v $$program >/dev/null || missing+=($$program); done; \
	[ "$${#missing[@]}" = 0 ] || { \
	    echo "installing $${missing[*]}"; \
	    sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	    if command -v apt-get >/dev/null; then \
	        $$sudo apt-get update -qq && $$sudo apt-get install -y -qq "$${missing[@]}" >/dev/null; \
	    else \
	        echo "install $${missing[*]} with this system's package manager, then try again" >&2; exit 1; \
	    fi; }

.PHONY: test
test: services ## Run all tests, after installing what they need
	cargo build --workspace --bins
	cargo test --workspace
	$(MAKE) test-backends
	$(MAKE) test-python

# Those in a folder of their own choose their backends themselves.
ON_BACKENDS = $(patsubst crates/e2e/tests/%.rs,--test %,$(wildcard crates/e2e/tests/*.rs))

.PHONY: test-backends
test-backends: services ## Run the end-to-end tests on Pub/Sub, and on Redis Streams, with Firestore and Redis (they run embedded in make test)
	cargo build --workspace --bins
	INFRACHAT_BACKENDS=pubsub cargo test --package infrachat-e2e $(ON_BACKENDS)
	INFRACHAT_BACKENDS=redis-streams cargo test --package infrachat-e2e $(ON_BACKENDS)

.PHONY: bench-services
bench-services:
	@$(MAKE) --no-print-directory services ALSO=nats-server

# With the package that is built before, so that what was built for it serves here too.
PIECES = --package infrachat-local --package infrachat-bench --features infrachat-bench/pieces --bench pieces

.PHONY: bench
bench: bench-services ## Measure InfraChat beside nats-server, Redis and a bare TCP write: docs/performance.md (about 15 minutes, and the build)
	cargo build --release --package infrachat-local --package infrachat-bench
	./target/release/infrachat-bench fanout
	./target/release/infrachat-bench slow-readers
	./target/release/infrachat-bench idle
	./target/release/infrachat-bench arrivals
	./target/release/infrachat-bench growth
	./target/release/infrachat-bench channels
	./target/release/infrachat-bench hostile
	cargo bench $(PIECES) -- --warm-up-time 1 --measurement-time 2
	cargo build --release $(patsubst %,--package infrachat-%,emulators gatekeeper switchboard shard)
	./target/release/infrachat-bench path

# Small and unoptimised: it tells whether the benches run, and nothing about speed.
.PHONY: bench-short
bench-short: bench-services ## Run every bench for a moment, to see that it works
	cargo build --package infrachat-local --package infrachat-bench
	./target/debug/infrachat-bench fanout --connections 20 --seconds 1 --rounds 1
	./target/debug/infrachat-bench slow-readers --connections 20 --senders 2 --rates 50 --seconds 1
	./target/debug/infrachat-bench idle --sessions 50
	./target/debug/infrachat-bench arrivals --sessions 100
	./target/debug/infrachat-bench growth --members 2,20 --seconds 1
	./target/debug/infrachat-bench channels --channels 1,30 --seconds 1
	./target/debug/infrachat-bench hostile --connections 20 --senders 2 --rate 20 --seconds 1 --attackers 2 --channels 50
	cargo test $(PIECES)
	cargo build --workspace --bins
	./target/debug/infrachat-bench path --messages 20

ROUNDS ?= 20

.PHONY: chaos
chaos: services ## Kill, freeze, restart and cut off real processes under load, each story ROUNDS times, and print how long recovering took
	cargo build --workspace --bins
	INFRACHAT_CHAOS_ROUNDS=$(ROUNDS) INFRACHAT_CHAOS_LONG=true cargo test --package infrachat-e2e --test chaos -- --nocapture --test-threads 1 $(ARGS)

SEEDS ?= 1-26

.PHONY: simulate
simulate: ## Run the whole stack on paused time under the faults that each of SEEDS chooses (SEEDS=7 or 1,5,9 or 1-100; TRACE=/tmp/events writes what happens in one)
	INFRACHAT_SEEDS=$(SEEDS) $(if $(TRACE),INFRACHAT_TRACE=$(TRACE)) cargo test --package infrachat-e2e --test simulation -- --nocapture whatever_goes_wrong

.PHONY: planted
planted: ## Plant known bugs into a copy, one after the other, and see that the simulation notices each (SEEDS=1-8)
	crates/e2e/planted/run.sh $(if $(filter file,$(origin SEEDS)),1-8,$(SEEDS)) $(ARGS)

.PHONY: test-python
test-python: services ## Run Google's Python clients against the emulators
	infra/local-emulators/run.sh --run infra/local-emulators/tests/python/run.sh

.PHONY: test-google-emulators
test-google-emulators: services ## Run clients, tests and backends against Google's own emulators (Docker or gcloud)
	GOOGLE=1 infra/local-emulators/run.sh --run infra/local-emulators/tests/google.sh

# Offline but for the packages, which are installed when their list has changed.
infra/pulumi/node_modules/.package-lock.json: infra/pulumi/package-lock.json
	@cd infra/pulumi && npm ci --ignore-scripts --no-audit --no-fund
	@touch $@

.PHONY: infra-test
infra-test: infra/pulumi/node_modules/.package-lock.json ## Test what would be deployed, its policies, dashboards and alerts (needs Node 20)
	@cd infra/pulumi && npm test --silent
	@node --test --test-reporter=spec infra/local-dashboards/test/*.test.mjs

.PHONY: configuration-docs
configuration-docs: ## Write docs/configuration.md anew from what the programs say
	cargo build --workspace --bins
	INFRACHAT_WRITE_DOCS=true cargo test --package infrachat-e2e --test configuration

.PHONY: format
format: ## Format the code
	cargo fmt --all

.PHONY: lint
lint: ## Check formatting, lints and documentation, with warnings denied
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --features infrachat-bench/pieces -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --document-private-items --quiet

.PHONY: deny
deny: ## Check licences, sources, duplicates and who may use which driver (installs cargo-deny once)
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny --all-features check bans licenses sources

.PHONY: ci
ci: ## Run what CI runs
	.ci/run

.PHONY: clean
clean: ## Remove what was built
	cargo clean
