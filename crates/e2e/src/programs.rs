//! The programs, as they were built beside the tests.

use std::{
    path::PathBuf,
    process::{Output, Stdio},
    time::Duration,
};

use tokio::process::Command;

/// Nothing takes this long: it only bounds a test that fails.
const AT_LAST: Duration = Duration::from_secs(60);

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

/// Runs a program that must end by itself, and not well. What it says.
///
/// # Panics
/// When it does not end, or ends well, or says what is not for people.
pub async fn refusal(command: &mut Command) -> String {
    let running = command
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = tokio::time::timeout(AT_LAST, running).await;
    let Output { status, stderr, .. } = ended.expect("ends by itself").expect("runs");
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert!(!status.success(), "it did not refuse: {said}");
    assert!(!said.contains("backtrace"), "not for people: {said}");
    said
}
