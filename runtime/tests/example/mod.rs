//! The examples of this crate, which cargo builds beside the tests.

use std::path::PathBuf;

/// Where one is.
pub fn path(name: &str) -> PathBuf {
    // This program is target/<profile>/deps/<name>.
    let exe = std::env::current_exe().unwrap();
    let path = exe.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(
        path.exists(),
        "{} is missing; run `cargo build --examples` first",
        path.display()
    );
    path
}
