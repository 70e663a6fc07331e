//! The target that `WEFT_FUZZ_TARGET` names, for libFuzzer; its seeds go to the folder `WEFT_FUZZ_SEEDS`, if there is one.

#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use weft_fuzz::{TARGETS, Target};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("WEFT_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|target| target.name == name);
    let found = found.unwrap_or_else(|| panic!("WEFT_FUZZ_TARGET={name:?} is no target"));
    if let Some(folder) = std::env::var_os("WEFT_FUZZ_SEEDS").map(PathBuf::from) {
        for (number, seed) in (found.seeds)().iter().enumerate() {
            std::fs::write(folder.join(format!("{number:05}")), seed).expect("the folder is there");
        }
    }
    found
});

libfuzzer_sys::fuzz_target!(init: { LazyLock::force(&TARGET); }, |input: &[u8]| (TARGET.run)(input));
