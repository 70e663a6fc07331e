//! The files of an image: which of its layers have any, and how they become a folder.
//!
//! Read are the layers of a container image (tar archives, plain or by gzip, each on top of those before, with OCI's whiteouts) and of an artefact
//! as `oras push` makes it (a file a layer, by its title). A layer that is a component has no files, and is passed over.
//!
//! Invariants: nothing is written outside of the folder, whatever an archive says; bytes, names and layers are bounded; what is written is what
//! the digests name, or nothing stays; of an archive's entries, devices and pipes are left out.
//!
//! Left to others: fetching (`super`), whose the folder is (`crate::volumes`).

use super::manifest::{self, TITLE, start_of};
use flate2::read::GzDecoder;
use oci_spec::image::{Descriptor, ImageManifest};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};
use tar::EntryType;
use weft_runtime::ownership::{self, Attributes};

/// Layers of an image; as many as Docker's.
const LAYERS_MAX: usize = 127;
/// What an image may have once it is unpacked: files, folders and links, and their bytes.
const NAMES_MAX: u64 = 1 << 18;
const BYTES_MAX: u64 = 4 << 30;
/// Links on the way to a name; as in Linux.
const LINKS_MAX: usize = 40;
/// What is read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// How a layer says that something of those before is not there, and that nothing of a folder is.
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
/// What `oras push FOLDER` says of a layer.
const UNPACK: &str = "io.deis.oras.content.unpack";

/// A layer that has files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layer {
    /// `sha256:…`.
    pub(super) digest: String,
    /// In bytes.
    pub(super) size: u64,
    form: Form,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Form {
    Tar,
    TarGzip,
    /// One file, of this name.
    File(String),
}

/// A layer as it lies on the node's disk.
#[derive(Debug)]
pub(crate) struct Held {
    pub(super) layer: Layer,
    pub(super) file: File,
}

/// The layers of a manifest that have files, the lowest first. Pure.
///
/// # Errors
/// Why there are none, or they are not to be had, as the end of a sentence.
pub(super) fn layers(manifest: &ImageManifest) -> Result<Vec<Layer>, String> {
    let all = manifest.layers();
    if all.len() > LAYERS_MAX {
        return Err(format!(
            "it has {} layers, more than {LAYERS_MAX}",
            all.len()
        ));
    }
    let is_container = manifest::is_container(manifest);
    let mut found = Vec::new();
    for layer in all {
        if let Some(form) = form(layer, is_container)? {
            let content = manifest::content(layer)?;
            found.push(Layer {
                digest: content.digest,
                size: content.size,
                form,
            });
        }
    }
    if !found.is_empty() {
        return Ok(found);
    }
    let mut kinds: Vec<String> = all
        .iter()
        .map(|layer| layer.media_type().to_string())
        .collect();
    kinds.dedup();
    Err(match kinds.is_empty() {
        true => "it has no layers".to_owned(),
        false => format!("its layers are {}", manifest::listed(kinds.into_iter())),
    })
}

fn form(layer: &Descriptor, is_container: bool) -> Result<Option<Form>, String> {
    const ARCHIVES: [&str; 4] = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ];
    let annotation = |name: &str| {
        let annotations = layer.annotations().as_ref();
        annotations.and_then(|annotations| annotations.get(name).map(String::as_str))
    };
    let kind = manifest::base(layer.media_type().as_ref());
    let is_unpacked = annotation(UNPACK) == Some("true");
    if let Some(title) = annotation(TITLE).filter(|_| !is_container && !is_unpacked) {
        return match normal(Path::new(title)) {
            Some(_) => Ok(Some(Form::File(title.to_owned()))),
            None => Err(format!("a file of it is called {:?}", start_of(title))),
        };
    }
    for archive in ARCHIVES {
        match kind.strip_prefix(archive) {
            Some("") if !is_unpacked => return Ok(Some(Form::Tar)),
            Some("" | "+gzip" | ".gzip") => return Ok(Some(Form::TarGzip)),
            Some("+zstd") => {
                return Err("a layer of it is compressed by zstd, and nodes unpack gzip".to_owned());
            }
            _ => {}
        }
    }
    // A component, or what nobody can mount.
    Ok(None)
}

/// Writes the files of an image to `dir`, which must not be there. Blocks.
///
/// # Errors
/// A sentence; then nothing is there.
pub(crate) fn unpack<'a>(
    layers: impl IntoIterator<Item = &'a Held>,
    dir: &Path,
) -> Result<(), String> {
    let mut unpacking = Unpacking {
        dir,
        names: 0,
        bytes: 0,
    };
    unpacking.all(layers).map_err(|error| {
        // Whatever was written is no image.
        let _ = fs::remove_dir_all(dir);
        format!("its files cannot be unpacked: {error}")
    })
}

struct Unpacking<'a> {
    dir: &'a Path,
    names: u64,
    bytes: u64,
}

impl Unpacking<'_> {
    fn all<'h>(&mut self, layers: impl IntoIterator<Item = &'h Held>) -> io::Result<()> {
        fs::create_dir_all(self.dir)?;
        layers.into_iter().try_for_each(|held| self.layer(held))
    }

    fn layer(&mut self, held: &Held) -> io::Result<()> {
        let mut source = Hashed::new(&held.file);
        match &held.layer.form {
            Form::Tar => self.archive(&mut source)?,
            Form::TarGzip => self.archive(GzDecoder::new(&mut source))?,
            Form::File(title) => {
                let name = normal(Path::new(title)).ok_or_else(strange)?;
                let at = self.place(&name)?;
                self.file(&mut source, &at, PLAIN)?;
            }
        }
        match source.digest()? == held.layer.digest {
            true => Ok(()),
            false => Err(io::Error::other("a layer was damaged on this node's disk")),
        }
    }

    fn archive(&mut self, source: impl Read) -> io::Result<()> {
        let mut archive = tar::Archive::new(source);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            let name = normal(&path).ok_or_else(strange)?;
            if name.as_os_str().is_empty() {
                continue;
            }
            let last = name.file_name().and_then(OsStr::to_str).unwrap_or_default();
            if last == OPAQUE {
                let folder = self.resolved(name.parent().unwrap_or(Path::new("")))?;
                for entry in fs::read_dir(&folder)? {
                    remove(&entry?.path())?;
                }
                continue;
            }
            if let Some(gone) = last.strip_prefix(WHITEOUT) {
                let at = self.place(&name.with_file_name(gone))?;
                remove(&at)?;
                continue;
            }
            let header = entry.header();
            let id = |id: io::Result<u64>| id.ok().and_then(|id| u32::try_from(id).ok());
            let attributes = Attributes {
                mode: header.mode().unwrap_or(PLAIN.mode) & 0o7777,
                user: id(header.uid()).unwrap_or_default(),
                group: id(header.gid()).unwrap_or_default(),
            };
            let kind = header.entry_type();
            let link = entry.link_name()?.map(|link| link.into_owned());
            let at = self.place(&name)?;
            match (kind, link) {
                (EntryType::Directory, _) => {
                    let is_there = fs::symlink_metadata(&at).is_ok_and(|found| found.is_dir());
                    if !is_there {
                        remove(&at)?;
                        fs::create_dir(&at)?;
                    }
                    ownership::set_attributes(&at, attributes)?;
                }
                (EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse, _) => {
                    remove(&at)?;
                    self.file(&mut entry, &at, attributes)?;
                }
                (EntryType::Symlink, Some(link)) => {
                    remove(&at)?;
                    symlink(link, &at)?;
                }
                (EntryType::Link, Some(link)) => {
                    let from = self.place(&normal(&link).ok_or_else(strange)?)?;
                    if from != at {
                        remove(&at)?;
                        fs::hard_link(from, &at)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn file(&mut self, from: &mut impl Read, at: &Path, attributes: Attributes) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(at)?;
        let left = BYTES_MAX - self.bytes;
        // One more than there may be tells that there are too many.
        let written = io::copy(&mut from.take(left + 1), &mut file)?;
        if written > left {
            let why = format!("it has more than {BYTES_MAX} bytes");
            return Err(io::Error::other(why));
        }
        self.bytes += written;
        drop(file);
        ownership::set_attributes(at, attributes)
    }

    /// Where something of that name is to be: its folder is made, and is one below the image's own, whatever links lead there.
    fn place(&mut self, name: &Path) -> io::Result<PathBuf> {
        self.names += 1;
        if self.names > NAMES_MAX {
            let why = format!("it has more than {NAMES_MAX} files");
            return Err(io::Error::other(why));
        }
        let folder = self.resolved(name.parent().unwrap_or(Path::new("")))?;
        Ok(folder.join(name.file_name().ok_or_else(strange)?))
    }

    /// The folder of that name, as a program would find it whose root the image is; made where it is not there.
    fn resolved(&self, name: &Path) -> io::Result<PathBuf> {
        let mut at = self.dir.to_owned();
        let mut rest: Vec<PathBuf> = vec![name.to_owned()];
        let mut links = 0;
        while let Some(next) = rest.pop() {
            let mut parts = next.components();
            let Some(part) = parts.next() else { continue };
            rest.push(parts.as_path().to_owned());
            match part {
                Component::RootDir => at = self.dir.to_owned(),
                Component::ParentDir if at != self.dir => {
                    at.pop();
                }
                Component::ParentDir | Component::CurDir | Component::Prefix(_) => {}
                Component::Normal(part) => {
                    at.push(part);
                    match fs::symlink_metadata(&at) {
                        Ok(found) if found.is_symlink() => {
                            links += 1;
                            if links > LINKS_MAX {
                                return Err(strange());
                            }
                            rest.push(fs::read_link(&at)?);
                            at.pop();
                        }
                        Ok(found) if found.is_dir() => {}
                        Ok(_) => return Err(strange()),
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {
                            fs::create_dir(&at)?;
                            ownership::set_attributes(&at, FOLDER)?;
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(at)
    }
}

const PLAIN: Attributes = Attributes {
    mode: 0o644,
    user: 0,
    group: 0,
};
const FOLDER: Attributes = Attributes {
    mode: 0o755,
    user: 0,
    group: 0,
};

fn strange() -> io::Error {
    io::Error::other("it has a name that leads nowhere")
}

/// A name below the image's root; none for one that would lead out of it.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut name = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => name.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(name)
}

/// Removes whatever is there, if anything is.
fn remove(at: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(at) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(at),
        Ok(_) => fs::remove_file(at),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Reads a file from its beginning, whoever else does, and what it reads is what its digest is of.
struct Hashed<'a> {
    file: &'a File,
    at: u64,
    hash: Sha256,
}

impl<'a> Hashed<'a> {
    fn new(file: &'a File) -> Self {
        Self {
            file,
            at: 0,
            hash: Sha256::new(),
        }
    }

    /// Of all of it, the end that nobody read included.
    fn digest(mut self) -> io::Result<String> {
        let mut chunk = vec![0; CHUNK_BYTES];
        while self.read(&mut chunk)? > 0 {}
        Ok(format!("sha256:{:x}", self.hash.finalize()))
    }
}

impl Read for Hashed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.at)?;
        self.at += read as u64;
        self.hash.update(into.get(..read).unwrap_or_default());
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use serde_json::{Value, json};
    use std::io::Write as _;

    const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
    const IMAGE: &str = "application/vnd.oci.image.config.v1+json";
    const EMPTY: &str = "application/vnd.oci.empty.v1+json";

    fn forms(config: &str, all: Value) -> Result<Vec<Form>, String> {
        let digest = format!("sha256:{:064x}", 1);
        let layers: Vec<Value> = all
            .as_array()
            .expect("layers")
            .iter()
            .map(|layer| {
                json!({"mediaType": layer[0], "digest": digest, "size": 9, "annotations": layer[1]})
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "layers": layers,
            "config": {"mediaType": config, "digest": digest, "size": 2},
        });
        let manifest: ImageManifest = serde_json::from_value(manifest).expect("a manifest");
        let layers = super::layers(&manifest)?;
        Ok(layers.into_iter().map(|layer| layer.form).collect())
    }

    #[test]
    fn files_are_found_in_images_and_artefacts() {
        let gzip = format!("{TAR}+gzip");
        let titled = json!({TITLE: "data/a.json"});
        for (config, layers, expected) in [
            (
                IMAGE,
                json!([[TAR, {}], [gzip, {}]]),
                vec![Form::Tar, Form::TarGzip],
            ),
            (
                IMAGE,
                json!([["application/vnd.docker.image.rootfs.diff.tar.gzip", {}]]),
                vec![Form::TarGzip],
            ),
            (
                EMPTY,
                json!([[TAR, titled]]),
                vec![Form::File("data/a.json".into())],
            ),
            (
                EMPTY,
                json!([["text/plain", titled]]),
                vec![Form::File("data/a.json".into())],
            ),
            (
                EMPTY,
                json!([[TAR, {TITLE: "data", UNPACK: "true"}]]),
                vec![Form::TarGzip],
            ),
            (
                EMPTY,
                json!([["application/wasm", {}], [TAR, {}]]),
                vec![Form::Tar],
            ),
        ] {
            assert_eq!(forms(config, layers.clone()), Ok(expected), "{layers}");
        }
        for (layers, why) in [
            (
                json!([["application/wasm", {}]]),
                "its layers are application/wasm",
            ),
            (json!([]), "it has no layers"),
            (
                json!([[format!("{TAR}+zstd"), {}]]),
                "a layer of it is compressed by zstd, and nodes unpack gzip",
            ),
            (
                json!([["text/plain", {TITLE: "../a"}]]),
                "a file of it is called \"../a\"",
            ),
        ] {
            assert_eq!(
                forms(EMPTY, layers.clone()),
                Err(why.to_owned()),
                "{layers}"
            );
        }
    }

    fn held(form: Form, bytes: &[u8]) -> Held {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        let layer = Layer {
            digest: format!("sha256:{:x}", Sha256::digest(bytes)),
            size: bytes.len() as u64,
            form,
        };
        Held { layer, file }
    }

    /// A tar archive of files, folders (`NAME/`), links (`NAME -> TO`) and hard links (`NAME => TO`).
    fn tar(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o640);
            header.set_uid(7);
            header.set_size(0);
            let link = name
                .split_once(" -> ")
                .map(|link| (EntryType::Symlink, link));
            let link = link.or_else(|| Some((EntryType::Link, name.split_once(" => ")?)));
            if let Some((kind, (name, to))) = link {
                header.set_entry_type(kind);
                builder.append_link(&mut header, name, to).expect("added");
            } else if name.ends_with('/') {
                header.set_entry_type(EntryType::Directory);
                header.set_mode(0o750);
                builder
                    .append_data(&mut header, name, io::empty())
                    .expect("added");
            } else {
                header.set_size(text.len() as u64);
                // As it is written, which the builder would refuse for some.
                let bytes = name.as_bytes();
                header.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
                header.set_cksum();
                builder.append(&header, text.as_bytes()).expect("added");
            }
        }
        builder.into_inner().expect("an archive")
    }

    #[test]
    fn layers_lie_on_top_of_each_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("image");
        let first = tar(&[
            ("usr/", ""),
            ("usr/lib/os-release", "one"),
            ("etc -> usr/lib", ""),
            ("old/a", "gone"),
            ("old/b", "gone"),
            ("kept", "here"),
            ("same => kept", ""),
        ]);
        let second = tar(&[
            ("etc/hosts", "through a link"),
            ("usr/lib/.wh.os-release", ""),
            ("old/.wh..wh..opq", ""),
            ("old/c", "new"),
            ("kept", "replaced"),
        ]);
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&second).expect("packed");
        let layers = [
            held(Form::Tar, &first),
            held(Form::TarGzip, &packed.finish().expect("packed")),
            held(Form::File("data/x".into()), b"by its title"),
        ];
        unpack(&layers, &dir).expect("unpacked");
        let read = |name: &str| fs::read_to_string(dir.join(name)).expect("a file");
        assert_eq!(read("usr/lib/hosts"), "through a link");
        assert_eq!(
            (read("kept"), read("same")),
            ("replaced".into(), "here".into())
        );
        assert_eq!(read("data/x"), "by its title");
        assert!(!dir.join("usr/lib/os-release").exists());
        let left: Vec<_> = fs::read_dir(dir.join("old")).expect("a folder").collect();
        assert_eq!(left.len(), 1);
        let attributes = ownership::attributes(&dir.join("kept")).expect("read");
        assert_eq!((attributes.mode, attributes.user), (0o640, 7));
    }

    #[test]
    fn nothing_leads_out_of_the_folder_and_what_is_damaged_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).expect("made");
        let dir = folder.path().join("image");
        let to = outside.to_str().expect("text");
        let linked = tar(&[
            (&format!("out -> {to}"), ""),
            ("out/file", "x"),
            ("up -> ../..", ""),
            ("up/file", "x"),
        ]);
        unpack(&[held(Form::Tar, &linked)], &dir).expect("unpacked");
        assert_eq!(fs::read_dir(&outside).expect("a folder").count(), 0);
        assert!(!folder.path().join("file").exists() && dir.join("file").exists());
        fs::remove_dir_all(&dir).expect("removed");
        let escaping = tar(&[("../evil", "x")]);
        let mut damaged = held(Form::Tar, &tar(&[("a", "x")]));
        damaged.layer.digest = format!("sha256:{:064x}", 1);
        for layer in [held(Form::Tar, &escaping), damaged] {
            assert!(unpack(&[layer], &dir).is_err());
            assert!(!dir.exists() && !folder.path().join("evil").exists());
        }
    }
}
