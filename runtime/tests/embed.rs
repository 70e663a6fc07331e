//! The example of the front page: it does what it says, and stays short enough to be read.

use std::process::Command;

#[test]
fn the_example_hosts_a_component_in_under_sixty_lines() {
    // This program is target/<profile>/deps/<name>; cargo builds the examples beside it.
    let exe = std::env::current_exe().unwrap();
    let example = exe.ancestors().nth(2).unwrap().join("examples/embed");
    let output = Command::new(&example).output().unwrap_or_else(|error| {
        panic!(
            "{}: {error}; run `cargo build --examples` first",
            example.display()
        )
    });
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "five letters of apple cost 40\n"
    );
    let lines = include_str!("../examples/embed.rs").lines().count();
    assert!(lines < 60, "{lines} lines");
}
