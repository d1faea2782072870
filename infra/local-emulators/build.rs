//! Generates Google's contracts with protox, so that no protoc is needed.

use std::{env, fs, path::Path};

use prost::Message;
use protox::{Compiler, prost_reflect::prost_types::FileDescriptorSet};

const PROTOS: [&str; 2] = [
    "google/firestore/v1/firestore.proto",
    "google/pubsub/v1/pubsub.proto",
];

/// What is only needed to read the options in the files.
const OPTIONS: &str = "google.api";

#[allow(
    clippy::disallowed_methods,
    reason = "cargo tells build scripts where to write this way"
)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = Compiler::new(["proto"])?;
    compiler.include_imports(true).open_files(PROTOS)?;
    // With the options that say which REST path belongs to which method: these the generated code
    // does not keep.
    let encoded = compiler.encode_file_descriptor_set();
    let out = env::var("OUT_DIR")?;
    fs::write(Path::new(&out).join("descriptors.bin"), &encoded)?;

    let mut descriptors = FileDescriptorSet::decode(encoded.as_slice())?;
    descriptors.file.retain(|file| file.package() != OPTIONS);
    tonic_prost_build::configure()
        .bytes(".google.pubsub.v1")
        // Ordered maps: documents come out the same way every time.
        .btree_map(".google.firestore.v1")
        // Google's comments hold markdown that rustdoc takes for links and tests.
        .disable_comments(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
