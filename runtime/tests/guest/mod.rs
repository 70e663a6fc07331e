//! Components that `cargo xtask guests` built.

/// The bytes of one.
pub fn bytes(name: &str) -> Vec<u8> {
    let path = format!(
        "{}/../target/guests/{name}.wasm",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{path}: {error}; run `cargo xtask guests` first"))
}
