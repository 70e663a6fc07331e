//! Puts the toolbox into the program: the component of commands that a container's own component does not know.
//!
//! `cargo xtask guests` builds it before the program is built. A program that is built without it works, and says of a command
//! that needs it that it is not there.

use std::env;
use std::fs;
use std::path::PathBuf;

/// The component, among those that are built for guests.
const TOOLBOX: &str = "guests/toolbox.wasm";

/// Where else it is.
const VARIABLE: &str = "WEFT_TOOLBOX";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else {
        return;
    };
    println!("cargo:rerun-if-env-changed={VARIABLE}");
    let named = env::var_os(VARIABLE).map(PathBuf::from);
    // The folder of all that is built is four levels above, or five where a target is named.
    let above = out.ancestors().skip(4).take(2);
    let above = above.map(|folder| folder.join(TOOLBOX));
    let places: Vec<PathBuf> = named.into_iter().chain(above).collect();
    for place in &places {
        println!("cargo:rerun-if-changed={}", place.display());
    }
    let component = places.iter().find_map(|place| fs::read(place).ok());
    let component = component.unwrap_or_default();
    let copy = out.join("toolbox.wasm");
    // A newer file of the same content would have the program built again.
    if fs::read(&copy).ok().as_ref() != Some(&component)
        && let Err(error) = fs::write(&copy, &component)
    {
        println!("cargo::error=writing {}: {error}", copy.display());
    }
}
