//! Gives the component a stack for scripts that nest as deep as the shell allows.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // 16 MiB: the deepest script of the tests takes under a quarter.
    if std::env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "wasm") {
        println!("cargo:rustc-link-arg-bins=-zstack-size=16777216");
    }
}
