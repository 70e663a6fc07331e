//! What a volume of files shows: names below it and their bytes. Pure.
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

/// Files by their paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Files {
    by_path: BTreeMap<String, Vec<u8>>,
    bytes: usize,
}

impl Files {
    /// Adds a file; one of that path before it is replaced.
    ///
    /// # Errors
    /// A sentence about a path that leads out of the volume or through a file, or about too many bytes.
    pub(super) fn insert(&mut self, path: &str, bytes: &[u8]) -> Result<(), String> {
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
        let before = self.by_path.get(path).map_or(0, Vec::len);
        let total = self.bytes - before + bytes.len();
        if total > FILES_BYTES_MAX {
            return Err(format!("its files have more than {FILES_BYTES_MAX} bytes"));
        }
        self.bytes = total;
        self.by_path.insert(path.to_owned(), bytes.to_vec());
        Ok(())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let all = self.by_path.iter();
        all.map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
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
        for (path, bytes) in &self.by_path {
            hash.update((path.len() as u64).to_le_bytes());
            hash.update(path);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
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
                .try_for_each(|(key, bytes)| files.insert(key, bytes));
        };
        for item in items {
            match self.values.get(item.key.as_str()) {
                Some(bytes) => files.insert(&item.path, bytes)?,
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
            assert_eq!(files.insert(path, b"x"), Ok(()), "{path}");
        }
        for path in [
            "", "/etc", "../x", "..data", "a/../b", "a/./b", "a//b", "x/", "n\0l",
        ] {
            let told = files.insert(path, b"x").expect_err("no path");
            assert!(told.ends_with("is no path below the volume"), "{told}");
        }
        for path in ["a/b", "b", "b/c", "b/c/d/e"] {
            let told = files.insert(path, b"x").expect_err("both");
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
            assert_eq!(files.insert(&format!("f{number}"), &much), Ok(()));
        }
        assert!(files.insert("f5", b"x").is_err());
        assert_eq!(files.insert("f0", b"replaced"), Ok(()));
        assert_eq!(files.insert("f5", b"x"), Ok(()));
    }

    #[test]
    fn a_digest_tells_files_apart() {
        let of = |all: &[(&str, &[u8])]| {
            let mut files = Files::default();
            for (path, bytes) in all {
                files.insert(path, bytes).expect("a file");
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
}
