//! The stack that scripts need: the component's own would be 1 MiB. Pods of tests have limits of 20 MiB, so that it is no more.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = std::env::var("CARGO_CFG_TARGET_FAMILY");
    if target.is_ok_and(|family| family.contains("wasm")) {
        println!("cargo:rustc-link-arg-bins=-zstack-size=4194304");
    }
}
