//! What a program asks of the machine it runs on: its name, and the files that its image brings.
//!
//! A component has no image with files. What upstream's image has at its root and tests look for is written there when a server starts, if
//! there is a root to write to; where there is none, the servers that need a file have it all the same.

use std::path::Path;

/// A certificate and its key for `localhost`, of nobody.
pub(crate) const LOCALHOST_CRT: &str = include_str!("../files/localhost.crt");
pub(crate) const LOCALHOST_KEY: &str = include_str!("../files/localhost.key");

/// The files of the image, and what is in them.
const FILES: [(&str, &str); 3] = [
    ("/localhost.crt", LOCALHOST_CRT),
    ("/localhost.key", LOCALHOST_KEY),
    ("/data.json", "{\n\t\"image\": \"nautilus.jpg\"\n}\n"),
];

/// The host's name, as the pod has it.
pub(crate) fn host_name() -> String {
    if let Ok(name) = std::env::var("HOSTNAME")
        && !name.is_empty()
    {
        return name;
    }
    let file = std::fs::read_to_string("/etc/hostname");
    let name = file.unwrap_or_default().trim().to_owned();
    match name.is_empty() {
        true => "localhost".to_owned(),
        false => name,
    }
}

/// Puts the image's files where tests look for them, once: what a test takes away stays away.
pub(crate) fn unpack() {
    for (path, text) in FILES {
        if !Path::new(path).exists() {
            // Without a root, or with one that is not for writing, there are none.
            let _ = std::fs::write(path, text);
        }
    }
    let _ = std::fs::create_dir_all("/uploads");
}

/// A file, or what the image has in its place where the machine has no root at all.
///
/// # Errors
/// As `std::fs::read`.
pub(crate) fn read(path: &str) -> std::io::Result<Vec<u8>> {
    match std::fs::read(path) {
        Err(error) if !Path::new("/").exists() => {
            let packed = FILES
                .iter()
                .find(|(known, _)| known.trim_start_matches('/') == path.trim_start_matches('/'));
            packed
                .map(|(_, text)| text.as_bytes().to_vec())
                .ok_or(error)
        }
        found => found,
    }
}
