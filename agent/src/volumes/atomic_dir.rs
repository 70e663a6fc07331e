//! A folder that shows one set of files, and from one moment to the next another one.
//!
//! ```text
//! DIR/..1/app.yaml    the files as they are now
//! DIR/..data          → ..1
//! DIR/app.yaml        → ..data/app.yaml
//! ```
//!
//! A new set is written beside the old one, and `..data` is renamed to it: whoever opens a file sees one set or the other, and
//! what was opened before stays as it was. The layout is the kubelet's, which programs know. Blocks.
//!
//! Source: k8s.io/kubernetes `pkg/volume/util/atomic_writer.go`.

use super::files::{Files, MODE_DEFAULT};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::Path;
use weft_runtime::ownership::{self, Attributes};

/// What a file has that nothing is written down of.
const PLAIN: Attributes = Attributes {
    mode: MODE_DEFAULT,
    user: 0,
    group: 0,
};
const CURRENT: &str = "..data";
const NEXT: &str = "..data_tmp";

/// Has `dir`, which is there, show `files` and nothing else.
///
/// # Errors
/// What the file system says; then `dir` shows what it did before, or the files without names that are new in it.
pub(super) fn show(dir: &Path, files: &Files) -> io::Result<()> {
    let before = current(dir)?;
    let name = format!("..{}", before.unwrap_or(0) + 1);
    let generation = dir.join(&name);
    // A node that died while it wrote may have left one.
    remove_dir(&generation)?;
    // Not with its parents: a folder that went with its pod stays away.
    DirBuilder::new().mode(0o755).create(&generation)?;
    for (path, shown) in files.iter() {
        let path = generation.join(path);
        if let Some(folder) = path.parent() {
            make_dir(folder)?;
        }
        let mut options = File::options();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(MODE_DEFAULT)
            .open(&path)?;
        file.write_all(&shown.bytes)?;
        let attributes = Attributes {
            mode: shown.mode,
            user: shown.user,
            group: files.group().unwrap_or(0),
        };
        if attributes != PLAIN {
            ownership::set_attributes(&path, attributes)?;
        }
    }
    let next = dir.join(NEXT);
    remove_file(&next)?;
    symlink(&name, &next)?;
    fs::rename(&next, dir.join(CURRENT))?;
    let names: BTreeSet<&str> = files.top_names().collect();
    for name in &names {
        let shown = dir.join(name);
        if fs::symlink_metadata(&shown).is_err() {
            symlink(Path::new(CURRENT).join(name), shown)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let found = entry.file_name();
        match found.to_str() {
            Some(found) if found == CURRENT || found == name || names.contains(found) => {}
            Some(found) if found.starts_with("..") => remove_dir(&entry.path())?,
            _ => remove_file(&entry.path())?,
        }
    }
    Ok(())
}

/// The number of the set that is shown.
fn current(dir: &Path) -> io::Result<Option<u64>> {
    match fs::read_link(dir.join(CURRENT)) {
        Ok(target) => Ok(number(target.as_os_str())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn number(name: &OsStr) -> Option<u64> {
    name.to_str()?.strip_prefix("..")?.parse().ok()
}

fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(dir)
}

fn remove_dir(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn remove_file(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn files(all: &[(&str, &str)]) -> Files {
        let mut files = Files::default();
        for (path, text) in all {
            files
                .insert(path, text.as_bytes(), MODE_DEFAULT)
                .expect("a file");
        }
        files
    }

    /// What a program sees that does not look at names of two dots.
    fn seen(dir: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![dir.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("readable") {
                let path = entry.expect("an entry").path();
                let name = path.strip_prefix(dir).expect("below").display().to_string();
                if name.starts_with("..") {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let text = fs::read_to_string(&path).expect("a file");
                    found.push(format!("{name}: {text}"));
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn a_new_set_takes_the_place_of_the_old_one_as_a_whole() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path();
        show(dir, &files(&[("app.yaml", "one"), ("tls/key", "k1")])).expect("shown");
        assert_eq!(seen(dir), ["app.yaml: one", "tls/key: k1"]);
        let mut open = File::open(dir.join("app.yaml")).expect("a file");
        let old = fs::read_link(dir.join(CURRENT)).expect("a link");

        show(dir, &files(&[("app.yaml", "two"), ("more", "m")])).expect("shown");
        assert_eq!(seen(dir), ["app.yaml: two", "more: m"]);
        // Who has a file open reads on in it, and nothing of the old set is left.
        let mut text = String::new();
        open.read_to_string(&mut text).expect("readable");
        assert_eq!(text, "one");
        assert!(!dir.join(old).exists());

        show(dir, &files(&[])).expect("shown");
        assert_eq!(seen(dir), [""; 0]);
    }

    #[test]
    fn what_a_node_left_behind_that_died_in_the_middle_is_no_obstacle() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path();
        show(dir, &files(&[("a", "1")])).expect("shown");
        fs::create_dir_all(dir.join("..2/deep")).expect("made");
        fs::write(dir.join("..2/deep/file"), "half").expect("written");
        symlink("..2", dir.join(NEXT)).expect("a link");
        show(dir, &files(&[("a", "2")])).expect("shown");
        assert_eq!(seen(dir), ["a: 2"]);
        assert!(!dir.join("..2/deep").exists() && !dir.join(NEXT).exists());
    }
}
