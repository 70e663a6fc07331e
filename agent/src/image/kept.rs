//! What of images is on this node's disk: content by digest, and what references led to.
//!
//! ```text
//! sha256/HEX          content, renamed into place once its digest was verified
//! references/HEX      a reference, as JSON: the manifest and the layer that it led to, and who may use it
//! partial/…           downloads; nothing that a process left is of use to the next
//! ```
//!
//! Invariants: bytes that are read are those of their digest; content has at most [`SHARE`] of its file system, and what was not used for
//! longest makes room (a pod that runs needs it no more, one that starts has it fetched again); no more than [`REFERENCES_MAX`]
//! references are remembered, in memory and on disk; an image that was had with credentials is for those who have one of them (Kubernetes' KEP-2535), and everybody else has to
//! ask its registry.

use super::digest;
use super::files::Layer;
use super::keyring::Credential;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncWriteExt as _, BufWriter};

/// The part of its file system that content may have: one in so many.
const SHARE: u64 = 5;
/// References that a node remembers: some dozens for each of its pods.
const REFERENCES_MAX: usize = 4096;
/// Credentials of which each may use an image that was had with it.
const HOLDERS_MAX: usize = 64;
/// Largest file of a reference, in bytes.
const REFERENCE_BYTES_MAX: u64 = 64 << 10;
/// What is gathered before it is written.
const BUFFER_BYTES: usize = 256 << 10;

/// Where a reference led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Resolved {
    /// Digest of the manifest.
    pub(super) manifest: String,
    /// Digest of the layer that is the component.
    pub(super) layer: String,
    /// Of an image whose files are mounted: where those are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) files: Vec<Layer>,
    /// Fingerprints of the credentials that it was had with; nothing where none were needed.
    holders: Option<BTreeSet<String>>,
}

impl Resolved {
    pub(super) fn new(manifest: String, layer: String, by: Option<&Credential>) -> Self {
        let holders = by.map(|credential| BTreeSet::from([credential.fingerprint()]));
        Self {
            manifest,
            layer,
            files: Vec::new(),
            holders,
        }
    }

    /// Whether who has these credentials may use it without asking the registry.
    pub(super) fn is_open_to(&self, credentials: &[Credential]) -> bool {
        self.holders.as_ref().is_none_or(|holders| {
            let mut credentials = credentials.iter();
            credentials.any(|credential| holders.contains(&credential.fingerprint()))
        })
    }

    /// Adds who could use the same before.
    fn merge(&mut self, before: &Self) {
        let is_same = before.manifest == self.manifest && before.layer == self.layer;
        if !is_same || before.files != self.files {
            return;
        }
        match (&mut self.holders, &before.holders) {
            (Some(holders), Some(earlier)) => {
                let room = HOLDERS_MAX.saturating_sub(holders.len());
                holders.extend(earlier.iter().take(room).cloned());
            }
            _ => self.holders = None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Record {
    image: String,
    #[serde(flatten)]
    resolved: Resolved,
}

#[derive(Default)]
struct References {
    of: HashMap<String, Resolved>,
    /// Oldest first.
    order: VecDeque<String>,
}

impl References {
    /// Remembers one, and gives those that had to make room.
    fn insert(&mut self, image: &str, resolved: Resolved) -> Vec<String> {
        if self.of.insert(image.to_owned(), resolved).is_none() {
            self.order.push_back(image.to_owned());
        }
        let excess = self.order.len().saturating_sub(REFERENCES_MAX);
        let forgotten: Vec<String> = self.order.drain(..excess).collect();
        for image in &forgotten {
            self.of.remove(image);
        }
        forgotten
    }
}

/// What content there is, and what was used last.
#[derive(Default)]
struct Shelf {
    /// By digest: bytes, and the turn of its last use.
    of: HashMap<String, (u64, u64)>,
    bytes: u64,
    turn: u64,
}

impl Shelf {
    fn used(&mut self, digest: &str, size: u64) {
        self.forget(digest);
        self.turn += 1;
        self.bytes += size;
        self.of.insert(digest.to_owned(), (size, self.turn));
    }

    fn forget(&mut self, digest: &str) {
        if let Some((size, _)) = self.of.remove(digest) {
            self.bytes -= size;
        }
    }

    /// Takes off what was not used for longest, until there is no more than `most` bytes. What was used last stays.
    fn take_excess(&mut self, most: u64) -> Vec<String> {
        let mut taken = Vec::new();
        while self.bytes > most && self.of.len() > 1 {
            let oldest = self.of.iter().min_by_key(|(_, (_, turn))| *turn);
            let Some(oldest) = oldest.map(|(digest, _)| digest.clone()) else {
                break;
            };
            self.forget(&oldest);
            taken.push(oldest);
        }
        taken
    }
}

/// What is in the folder of content, the oldest first.
fn contents(folder: &Path) -> io::Result<Shelf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let digest = format!("sha256:{}", entry.file_name().to_string_lossy());
        if weft_api::image::is_digest(&digest) {
            let about = entry.metadata()?;
            found.push((about.modified()?, digest, about.len()));
        } else {
            // Of an older version, which downloaded to here.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    found.sort();
    let mut shelf = Shelf::default();
    for (_, digest, size) in found {
        shelf.used(&digest, size);
    }
    Ok(shelf)
}

/// How many bytes of content a folder may have.
fn most_in(folder: &Path) -> io::Result<u64> {
    let about = nix::sys::statvfs::statvfs(folder)?;
    Ok(about.blocks().saturating_mul(about.fragment_size()) / SHARE)
}

/// The images on disk.
pub(super) struct Kept {
    folder: PathBuf,
    shelf: Mutex<Shelf>,
    /// Bytes of content.
    most: u64,
    references: Mutex<References>,
    /// Files of references are written one after the other, so that the last one that is remembered is the one on disk.
    writing: tokio::sync::Mutex<()>,
}

impl Kept {
    /// # Errors
    /// When a folder cannot be made or read.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        match std::fs::remove_dir_all(folder.join("partial")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        for name in ["sha256", "references", "partial"] {
            std::fs::create_dir_all(folder.join(name))?;
        }
        let mut references = References::default();
        for entry in std::fs::read_dir(folder.join("references"))? {
            let path = entry?.path();
            let record = read_reference(&path);
            let is_its_own = |record: &Record| path.ends_with(file_name(&record.image));
            match record.filter(is_its_own) {
                Some(record) => drop(references.insert(&record.image, record.resolved)),
                // Left half-written by a crash, or of another version: the image is asked for again.
                None => {
                    let _ = std::fs::remove_file(&path);
                }
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            shelf: Mutex::new(contents(&folder.join("sha256"))?),
            most: most_in(folder)?,
            references: Mutex::new(references),
            writing: tokio::sync::Mutex::new(()),
        })
    }

    pub(super) fn resolved(&self, image: &str) -> Option<Resolved> {
        self.references.lock().of.get(image).cloned()
    }

    /// Remembers where a reference led to, in the next process too.
    pub(super) async fn remember(&self, image: &str, mut resolved: Resolved) {
        let _writing = self.writing.lock().await;
        if let Some(before) = self.resolved(image) {
            resolved.merge(&before);
            if resolved == before {
                return;
            }
        }
        let forgotten = self.references.lock().insert(image, resolved.clone());
        let folder = self.folder.join("references");
        for image in forgotten {
            let _ = tokio::fs::remove_file(folder.join(file_name(&image))).await;
        }
        let record = Record {
            image: image.to_owned(),
            resolved,
        };
        let written = async {
            let beside = self.folder.join("partial").join(file_name(image));
            tokio::fs::write(&beside, serde_json::to_vec(&record)?).await?;
            tokio::fs::rename(&beside, folder.join(file_name(image))).await
        };
        if let Err(error) = written.await {
            // The image is here all the same; only the next process asks again.
            tracing::warn!(image, %error, "where an image's name leads to is not kept");
        }
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.folder.join(digest.replacen(':', "/", 1))
    }

    /// The content of a digest, if it is on disk and sound.
    pub(super) async fn content(&self, wanted: &str) -> Option<Bytes> {
        if !weft_api::image::is_digest(wanted) {
            return None;
        }
        let path = self.path(wanted);
        let Ok(bytes) = tokio::fs::read(&path).await else {
            self.shelf.lock().forget(wanted);
            return None;
        };
        let (actual, bytes) = digest(Bytes::from(bytes)).await;
        if actual == wanted {
            self.shelf.lock().used(wanted, bytes.len() as u64);
            return Some(bytes);
        }
        tracing::warn!(path = %path.display(), "a cached image was damaged and is fetched again");
        self.shelf.lock().forget(wanted);
        let _ = tokio::fs::remove_file(&path).await;
        None
    }

    /// The content of a digest to be read piece by piece, if it is on disk. Whether it is sound, whoever reads it finds out.
    pub(super) async fn open_content(&self, wanted: &str, size: u64) -> Option<std::fs::File> {
        if !weft_api::image::is_digest(wanted) {
            return None;
        }
        let opened = tokio::fs::File::open(self.path(wanted)).await;
        let file = opened.ok()?.into_std().await;
        let is_whole = file.metadata().is_ok_and(|about| about.len() == size);
        let mut shelf = self.shelf.lock();
        if !is_whole {
            shelf.forget(wanted);
            return None;
        }
        shelf.used(wanted, size);
        Some(file)
    }

    /// Takes away what was found to be damaged.
    pub(super) async fn discard(&self, digest: &str) {
        self.shelf.lock().forget(digest);
        let _ = tokio::fs::remove_file(self.path(digest)).await;
    }

    /// Begins to write content.
    pub(super) async fn begin(&self) -> io::Result<Partial> {
        let name = format!("{:016x}", rand::random::<u64>());
        let path = self.folder.join("partial").join(name);
        let file = tokio::fs::File::create_new(&path).await?;
        Ok(Partial {
            file: BufWriter::with_capacity(BUFFER_BYTES, file),
            hash: Sha256::new(),
            length: 0,
            path: Some(path),
        })
    }

    /// Puts content into its place, and takes away what there is no room for beside it.
    pub(super) async fn finish(&self, mut partial: Partial) -> io::Result<()> {
        partial.file.flush().await?;
        let digest = partial.digest();
        if let Some(path) = &partial.path {
            tokio::fs::rename(path, self.path(&digest)).await?;
        }
        partial.path = None;
        let excess = {
            let mut shelf = self.shelf.lock();
            shelf.used(&digest, partial.length);
            shelf.take_excess(self.most)
        };
        for digest in excess {
            tracing::info!(%digest, "an image made room for others");
            let _ = tokio::fs::remove_file(self.path(&digest)).await;
        }
        Ok(())
    }
}

/// Content that is being fetched; dropped, it is gone.
pub(super) struct Partial {
    file: BufWriter<tokio::fs::File>,
    hash: Sha256,
    length: u64,
    /// Nothing once it is in its place.
    path: Option<PathBuf>,
}

impl Partial {
    pub(super) async fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.hash.update(piece);
        self.length += piece.len() as u64;
        self.file.write_all(piece).await
    }

    /// In bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn digest(&self) -> String {
        format!("sha256:{:x}", self.hash.clone().finalize())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // One that cannot be removed now is removed at the next start.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The name of a reference's file: references have slashes, and may be long.
fn file_name(image: &str) -> String {
    format!("{:x}", Sha256::digest(image))
}

fn read_reference(path: &Path) -> Option<Record> {
    if std::fs::metadata(path).ok()?.len() > REFERENCE_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(username: &str) -> Credential {
        Credential {
            username: username.to_owned(),
            ..Credential::default()
        }
    }

    fn resolved(by: Option<&str>) -> Resolved {
        let by = by.map(credential);
        Resolved::new("sha256:m".into(), "sha256:l".into(), by.as_ref())
    }

    #[tokio::test]
    async fn what_a_node_pulled_it_knows_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = Kept::open(folder.path()).expect("opened");
        let mut partial = kept.begin().await.expect("begun");
        partial.write(b"component").await.expect("written");
        let digest = partial.digest();
        kept.finish(partial).await.expect("finished");
        let known = Resolved::new("sha256:m".into(), digest.clone(), None);
        kept.remember("vote/web:1", known.clone()).await;
        let left = kept.begin().await.expect("begun");
        std::mem::forget(left);

        let again = Kept::open(folder.path()).expect("opened");
        assert_eq!(again.resolved("vote/web:1"), Some(known));
        assert_eq!(again.resolved("vote/web:2"), None);
        assert_eq!(
            again.content(&digest).await.as_deref(),
            Some(b"component".as_slice())
        );
        let partial = std::fs::read_dir(folder.path().join("partial")).expect("a folder");
        assert_eq!(partial.count(), 0);

        // Damage is noticed, and not served.
        std::fs::write(again.path(&digest), b"compomemt").expect("written");
        assert_eq!(again.content(&digest).await, None);
        std::fs::write(
            folder
                .path()
                .join("references")
                .join(file_name("vote/web:1")),
            b"{",
        )
        .expect("written");
        let again = Kept::open(folder.path()).expect("opened");
        assert_eq!(again.resolved("vote/web:1"), None);
    }

    #[tokio::test]
    async fn a_download_that_ends_early_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = Kept::open(folder.path()).expect("opened");
        let mut partial = kept.begin().await.expect("begun");
        partial.write(b"half").await.expect("written");
        drop(partial);
        let files = std::fs::read_dir(folder.path().join("partial")).expect("a folder");
        assert_eq!(files.count(), 0);
    }

    #[tokio::test]
    async fn an_image_that_was_had_with_credentials_is_for_those_who_have_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = Kept::open(folder.path()).expect("opened");
        let may = |name: &str| {
            let of = |names: &[&str]| {
                let credentials: Vec<_> = names.iter().map(|name| credential(name)).collect();
                kept.resolved(name).expect("known").is_open_to(&credentials)
            };
            [of(&[]), of(&["ann"]), of(&["bob"]), of(&["eve", "bob"])]
        };
        kept.remember("private", resolved(Some("ann"))).await;
        assert_eq!(may("private"), [false, true, false, false]);
        kept.remember("private", resolved(Some("bob"))).await;
        assert_eq!(may("private"), [false, true, true, true]);
        // It is another image now, and who could have the old one is no reason to have this one.
        let moved = Resolved::new(
            "sha256:n".into(),
            "sha256:l".into(),
            Some(&credential("bob")),
        );
        kept.remember("private", moved).await;
        assert_eq!(may("private"), [false, false, true, true]);
        kept.remember("public", resolved(Some("ann"))).await;
        kept.remember("public", resolved(None)).await;
        kept.remember("public", resolved(Some("bob"))).await;
        assert_eq!(may("public"), [true; 4]);
    }

    async fn keep(kept: &Kept, content: &[u8]) -> String {
        let mut partial = kept.begin().await.expect("begun");
        partial.write(content).await.expect("written");
        let digest = partial.digest();
        kept.finish(partial).await.expect("finished");
        digest
    }

    /// Whoever pulled one image after the other filled the node's disk.
    #[tokio::test]
    async fn what_was_not_used_for_longest_makes_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut kept = Kept::open(folder.path()).expect("opened");
        kept.most = 10;
        let (one, two) = (keep(&kept, b"1111").await, keep(&kept, b"2222").await);
        assert!(kept.content(&one).await.is_some());
        let three = keep(&kept, b"3333").await;
        assert_eq!(kept.content(&two).await, None);
        assert!(kept.content(&one).await.is_some() && kept.content(&three).await.is_some());
        // One that is larger than all the room is had all the same: a pod waits for it.
        let large = keep(&kept, b"larger than all").await;
        assert!(kept.content(&large).await.is_some());
        let files = std::fs::read_dir(folder.path().join("sha256")).expect("a folder");
        assert_eq!(files.count(), 1);

        let again = Kept::open(folder.path()).expect("opened");
        assert_eq!(again.shelf.lock().bytes, "larger than all".len() as u64);
    }

    #[test]
    fn no_more_references_are_remembered_than_fit() {
        let mut references = References::default();
        for n in 0..REFERENCES_MAX {
            assert!(references.insert(&n.to_string(), resolved(None)).is_empty());
        }
        assert!(references.insert("0", resolved(None)).is_empty());
        assert_eq!(references.insert("new", resolved(None)), ["0"]);
        assert_eq!(references.of.len(), REFERENCES_MAX);
    }
}
