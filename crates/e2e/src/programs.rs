//! The programs, as they were built beside the tests.

use std::path::PathBuf;

/// A program that `cargo build --workspace --bins` made.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let built = programs().join(name);
    assert!(
        built.exists(),
        "{} is missing: run `cargo build --workspace --bins` first",
        built.display()
    );
    built
}

/// Where the programs are.
///
/// # Panics
/// When this test's own place can't be found.
#[must_use]
pub fn programs() -> PathBuf {
    let test = std::env::current_exe().expect("this test's path");
    // Test programs are in `deps`, beside the others.
    test.ancestors()
        .nth(2)
        .expect("the target's folder")
        .to_owned()
}
