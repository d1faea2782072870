//! One seed, one process: with all that the kernel would give it by chance given to it by the seed.

use std::{
    path::PathBuf,
    process::{Command, Output},
    sync::OnceLock,
};

/// Builds what is loaded before the system's library, and says where it is.
fn library() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/simulation/chance.c");
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let fresh = directory.join(format!("chance-{}.so", std::process::id()));
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(&fresh)
            .arg(source)
            .output()
            .expect("cc starts: a C compiler is needed");
        assert!(built.status.success(), "{source}: {built:?}");
        // Others may be using the one that is there.
        let library = directory.join("chance.so");
        std::fs::rename(fresh, &library).expect("renamed");
        library
    })
}

/// Runs the test of one seed in a process of its own. A seed replays exactly on Linux; elsewhere its faults
/// are the same, and the order of things that happen at once is not.
pub(crate) fn process_of(seed: u64) -> Output {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command
        .args(["--ignored", "--exact", "one_seed", "--nocapture"])
        .env("INFRACHAT_SEEDS", seed.to_string())
        .env("INFRACHAT_CHANCE", seed.to_string());
    if cfg!(target_os = "linux") {
        command.env("LD_PRELOAD", library());
    }
    command.output().expect("starts")
}
