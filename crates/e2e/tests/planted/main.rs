//! Every bug that `make planted` plants can still be planted: a change of the code it stands in changes its
//! patch as well.
#![allow(clippy::expect_used)]

use std::{path::Path, process::Command};

#[test]
fn every_planted_bug_applies_and_says_what_notices_it() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = here.join("../..");
    let mut patches = 0;
    for entry in std::fs::read_dir(here.join("planted")).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path
            .extension()
            .is_none_or(|extension| extension != "patch")
        {
            continue;
        }
        patches += 1;
        let text = std::fs::read_to_string(&path).expect("text");
        for line in ["Bug: ", "Noticed: "] {
            assert!(
                text.lines().any(|text| text.starts_with(line)),
                "{path:?} has no line {line:?}"
            );
        }
        let applied = Command::new("git")
            .args(["apply", "--check"])
            .arg(&path)
            .current_dir(&workspace)
            .output()
            .expect("git starts");
        let why = String::from_utf8_lossy(&applied.stderr);
        assert!(applied.status.success(), "{path:?} does not apply: {why}");
    }
    assert!(patches > 0, "there are no patches");
}
