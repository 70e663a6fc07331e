//! What a volume of files shows: names below it and their bytes. Pure.
//!
//! Whose they are and who may read them is said with them, as a kubelet sets it: [`Modes`].
//!
//! Invariants: every path is relative and stays below the volume; no file is also a folder; all of them together have at most
//! [`FILES_BYTES_MAX`] bytes, however often one value is named.

use crate::configuration::References;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::KeyToPath;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Most bytes of one volume of files. A ConfigMap or a Secret has at most one MiB, but a volume may show it a thousand times.
pub const FILES_BYTES_MAX: usize = 32 << 20;

/// What a file of a volume has that says nothing.
pub(super) const MODE_DEFAULT: u32 = 0o644;
/// What the group of a volume may do with its files, whatever their modes say.
const GROUP_READS: u32 = 0o440;

/// The modes of one source's files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Modes {
    default: u32,
}

impl Modes {
    /// By the `defaultMode` of a volume.
    pub(super) fn new(default: Option<i32>) -> Self {
        let default = default.and_then(|mode| u32::try_from(mode).ok());
        Self {
            default: default.unwrap_or(MODE_DEFAULT),
        }
    }

    /// That of a file with this `mode` of its own.
    pub(super) fn of(self, mode: Option<i32>) -> u32 {
        let mode = mode.and_then(|mode| u32::try_from(mode).ok());
        mode.unwrap_or(self.default) & 0o7777
    }
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) bytes: Vec<u8>,
    pub(super) mode: u32,
    pub(super) user: u32,
}

/// Files by their paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Files {
    by_path: BTreeMap<String, Shown>,
    bytes: usize,
    /// Whom all of them belong to beside their users.
    group: Option<u32>,
}

impl Files {
    /// Adds a file; one of that path before it is replaced.
    ///
    /// # Errors
    /// A sentence about a path that leads out of the volume or through a file, or about too many bytes.
    pub(super) fn insert(&mut self, path: &str, bytes: &[u8], mode: u32) -> Result<(), String> {
        self.insert_of(path, bytes, mode, 0)
    }

    /// The same for a file that belongs to `user`.
    ///
    /// # Errors
    /// As [`Files::insert`].
    pub(super) fn insert_of(
        &mut self,
        path: &str,
        bytes: &[u8],
        mode: u32,
        user: u32,
    ) -> Result<(), String> {
        if !is_below(path) {
            return Err(format!("\"{path}\" is no path below the volume"));
        }
        let mut folders = path.match_indices('/').map(|(end, _)| &path[..end]);
        let below = format!("{path}/");
        let is_folder = self.by_path.range(below.clone()..).next();
        let is_folder = is_folder.is_some_and(|(other, _)| other.starts_with(&below));
        if is_folder || folders.any(|dir| self.by_path.contains_key(dir)) {
            return Err(format!("\"{path}\" would be a file and a folder"));
        }
        let before = self.by_path.get(path).map_or(0, |file| file.bytes.len());
        let total = self.bytes - before + bytes.len();
        if total > FILES_BYTES_MAX {
            return Err(format!("its files have more than {FILES_BYTES_MAX} bytes"));
        }
        self.bytes = total;
        let file = Shown {
            bytes: bytes.to_vec(),
            mode,
            user,
        };
        self.by_path.insert(path.to_owned(), file);
        Ok(())
    }

    /// All of them are to belong to `group`, which may read them.
    pub(super) fn give_to(&mut self, group: u32) {
        self.group = Some(group);
        for file in self.by_path.values_mut() {
            file.mode |= GROUP_READS;
        }
    }

    pub(super) fn group(&self) -> Option<u32> {
        self.group
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Shown)> {
        let all = self.by_path.iter();
        all.map(|(path, file)| (path.as_str(), file))
    }

    /// The names that the volume itself has.
    pub(super) fn top_names(&self) -> impl Iterator<Item = &str> {
        self.by_path
            .keys()
            .map(|path| path.split_once('/').map_or(path.as_str(), |(top, _)| top))
    }

    /// Equal for equal files only.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.group.map_or(u64::MAX, u64::from).to_le_bytes());
        for (path, file) in &self.by_path {
            hash.update((path.len() as u64).to_le_bytes());
            hash.update(path);
            hash.update(file.mode.to_le_bytes());
            hash.update(file.user.to_le_bytes());
            hash.update((file.bytes.len() as u64).to_le_bytes());
            hash.update(&file.bytes);
        }
        hash.finalize().into()
    }
}

/// `..` at the start of a name is how the volume itself keeps its generations.
fn is_below(path: &str) -> bool {
    !path.is_empty()
        && !path.contains('\0')
        && !path.starts_with("..")
        && path
            .split('/')
            .all(|name| !matches!(name, "" | "." | "..") && name.len() <= 255)
}

/// What one source of files reads its keys from.
pub(super) struct Keyed<'a> {
    /// What a missing one is called: `configmap "settings"`.
    pub(super) called: String,
    pub(super) is_there: bool,
    pub(super) optional: bool,
    pub(super) items: Option<&'a [KeyToPath]>,
    pub(super) modes: Modes,
    pub(super) values: BTreeMap<&'a str, &'a [u8]>,
}

impl Keyed<'_> {
    /// Every key as a file of its name, or those of `items` under their paths.
    ///
    /// # Errors
    /// A sentence about what is missing and not optional, and those of [`Files::insert`].
    pub(super) fn show(&self, files: &mut Files) -> Result<(), String> {
        if !self.is_there && !self.optional {
            return Err(format!("{} not found", self.called));
        }
        let Some(items) = self.items.filter(|items| !items.is_empty()) else {
            return self
                .values
                .iter()
                .try_for_each(|(key, bytes)| files.insert(key, bytes, self.modes.of(None)));
        };
        for item in items {
            match self.values.get(item.key.as_str()) {
                Some(bytes) => files.insert(&item.path, bytes, self.modes.of(item.mode))?,
                None if self.optional => {}
                None => return Err(format!("{} has no key \"{}\"", self.called, item.key)),
            }
        }
        Ok(())
    }
}

pub(super) fn bytes_of(
    data: Option<&BTreeMap<String, ByteString>>,
) -> impl Iterator<Item = (&str, &[u8])> {
    let data = data.into_iter().flatten();
    data.map(|(key, value)| (key.as_str(), value.0.as_slice()))
}

pub(super) fn config_map_named(name: &str) -> References {
    References {
        config_maps: [name.to_owned()].into(),
        ..References::default()
    }
}

pub(super) fn secret_named(name: &str) -> References {
    References {
        secrets: [name.to_owned()].into(),
        ..References::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_volume_and_are_files_or_folders() {
        let mut files = Files::default();
        for path in ["a", "b/c/d", "b/c/e", "a.b..c", ".hidden", "b/..c"] {
            assert_eq!(files.insert(path, b"x", MODE_DEFAULT), Ok(()), "{path}");
        }
        for path in [
            "", "/etc", "../x", "..data", "a/../b", "a/./b", "a//b", "x/", "n\0l",
        ] {
            let told = files.insert(path, b"x", MODE_DEFAULT).expect_err("no path");
            assert!(told.ends_with("is no path below the volume"), "{told}");
        }
        for path in ["a/b", "b", "b/c", "b/c/d/e"] {
            let told = files.insert(path, b"x", MODE_DEFAULT).expect_err("both");
            assert!(told.ends_with("would be a file and a folder"), "{told}");
        }
        let top: std::collections::BTreeSet<&str> = files.top_names().collect();
        assert_eq!(
            top.into_iter().collect::<Vec<_>>(),
            [".hidden", "a", "a.b..c", "b"]
        );
    }

    #[test]
    fn one_value_shown_many_times_ends_at_a_bound() {
        let mut files = Files::default();
        let much = vec![0; FILES_BYTES_MAX / 4];
        for number in 0..4 {
            assert_eq!(
                files.insert(&format!("f{number}"), &much, MODE_DEFAULT),
                Ok(())
            );
        }
        assert!(files.insert("f5", b"x", MODE_DEFAULT).is_err());
        assert_eq!(files.insert("f0", b"replaced", MODE_DEFAULT), Ok(()));
        assert_eq!(files.insert("f5", b"x", MODE_DEFAULT), Ok(()));
    }

    #[test]
    fn a_digest_tells_files_apart() {
        let of = |all: &[(&str, &[u8])]| {
            let mut files = Files::default();
            for (path, bytes) in all {
                files.insert(path, bytes, MODE_DEFAULT).expect("a file");
            }
            files.digest()
        };
        assert_eq!(
            of(&[("a", b"1"), ("b", b"2")]),
            of(&[("b", b"2"), ("a", b"1")])
        );
        assert_ne!(of(&[("a", b"1b")]), of(&[("a", b"1"), ("b", b"")]));
        assert_ne!(of(&[("a", b"")]), of(&[]));
    }

    #[test]
    fn a_group_reads_whatever_the_modes_say_and_is_told_apart() {
        let modes = Modes::new(Some(0o400));
        let mut files = Files::default();
        for (path, mode) in [("a", None), ("b", Some(0o600)), ("c", Some(0))] {
            files.insert(path, b"x", modes.of(mode)).expect("a file");
        }
        let of = |files: &Files| -> Vec<u32> { files.iter().map(|(_, file)| file.mode).collect() };
        assert_eq!(of(&files), [0o400, 0o600, 0]);
        let before = files.digest();
        files.give_to(1001);
        assert_eq!(of(&files), [0o440, 0o640, 0o440]);
        assert_ne!(files.digest(), before);
        assert_eq!(Modes::new(None).of(None), 0o644);
    }
}
