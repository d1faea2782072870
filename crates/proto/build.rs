//! Generates the contracts' Rust code with protox, so that no protoc is needed.

use std::path::Path;

use tonic_build::manual;

const PROTOS: [&str; 4] = [
    "infrachat/bus/v1/bus.proto",
    "infrachat/chat/v1/chat.proto",
    "infrachat/gatekeeper/v1/gatekeeper.proto",
    "infrachat/switchboard/v1/switchboard.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let descriptors = protox::compile(PROTOS, [root])?;
    let config = || tonic_prost_build::configure().bytes(".");
    let (chat, others): (Vec<_>, Vec<_>) = descriptors
        .file
        .into_iter()
        .partition(|file| file.package() == "infrachat.chat.v1");
    // The chat service's server is put together by hand below, without its stream: that carries bytes
    // that are encoded once for all readers.
    config()
        .build_server(false)
        .compile_fds(protox::prost_reflect::prost_types::FileDescriptorSet { file: chat })?;
    config().compile_fds(protox::prost_reflect::prost_types::FileDescriptorSet { file: others })?;
    manual::Builder::new()
        .build_client(false)
        .compile(&[chat_server()]);
    Ok(())
}

fn chat_server() -> manual::Service {
    const PREFIX: &str = "crate::chat::v1::";
    let unary = |name: &str, route: &str| {
        manual::Method::builder()
            .name(name)
            .route_name(route)
            .input_type(format!("{PREFIX}{route}Request"))
            .output_type(format!("{PREFIX}{route}Response"))
            .codec_path("tonic_prost::ProstCodec")
            .build()
    };
    manual::Service::builder()
        .name("ChatService")
        .package("infrachat.chat.v1")
        .comment("The chat service without its stream, which carries bytes that are encoded once for all readers.")
        .method(unary("create_channel", "CreateChannel"))
        .method(unary("get_history", "GetHistory"))
        .method(unary("list_members", "ListMembers"))
        .build()
}
