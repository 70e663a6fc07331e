//! Puts components into the program: the toolbox, whose commands containers have that do not know them themselves, and those of the
//! applications that `weft demo` runs.
//!
//! `cargo xtask guests` builds them before the program is built. A program that is built without one works, and says of what needs it
//! that it is not there.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The components, among those that are built for guests.
const COMPONENTS: [&str; 5] = ["toolbox", "web", "emoji", "voting", "bot"];
/// Where they are.
const GUESTS: &str = "guests";

/// Where else the toolbox is, and the others beside it.
const VARIABLE: &str = "WEFT_TOOLBOX";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else {
        return;
    };
    println!("cargo:rerun-if-env-changed={VARIABLE}");
    let named = env::var_os(VARIABLE).map(PathBuf::from);
    let named = named.and_then(|toolbox| toolbox.parent().map(Path::to_path_buf));
    // The folder of all that is built is four levels above, or five where a target is named.
    let above = out.ancestors().skip(4).take(2);
    let above = above.map(|folder| folder.join(GUESTS));
    let folders: Vec<PathBuf> = named.into_iter().chain(above).collect();
    for component in COMPONENTS {
        let file = format!("{component}.wasm");
        let places: Vec<PathBuf> = folders.iter().map(|folder| folder.join(&file)).collect();
        for place in &places {
            println!("cargo:rerun-if-changed={}", place.display());
        }
        let found = places.iter().find_map(|place| fs::read(place).ok());
        let found = found.unwrap_or_default();
        let copy = out.join(&file);
        // A newer file of the same content would have the program built again.
        if fs::read(&copy).ok().as_ref() != Some(&found)
            && let Err(error) = fs::write(&copy, &found)
        {
            println!("cargo::error=writing {}: {error}", copy.display());
        }
    }
}
