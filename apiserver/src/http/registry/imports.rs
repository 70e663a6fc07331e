//! What the components of this registry import: read from their bytes, compiled by nobody.
//!
//! A component's imports stand in sections of its outermost level. Those are read, and all else, which is nearly all of its bytes,
//! is passed over. Done once for each manifest.
//!
//! Invariants: what is read, remembered and done at a time is bounded; what is not here, is no component, or is over a limit is not
//! known, which refuses nothing: the node that runs it judges what it has pulled.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Semaphore;
use wasmparser::{BinaryReader, ComponentImportSectionReader};
use weft_api::image::ImageReference;

use super::manifests::{MANIFEST_BYTES_MAX, WASM_LAYERS};
use super::{Digest, Registry};

/// Largest component that is looked into, in bytes: what a node accepts.
const COMPONENT_BYTES_MAX: u64 = 64 << 20;
/// Longest section of imports, in bytes. A component with fifty imports has some KiB.
const SECTION_BYTES_MAX: u32 = 1 << 20;
/// Sections of the outermost level; a component made of parts has some hundred.
const SECTIONS_MAX: usize = 10_000;
/// Imports of one component that are remembered.
const IMPORTS_MAX: usize = 1000;
/// Longest name of an import, in bytes; `wasi:keyvalue/store@0.2.0-draft2` has 32.
const NAME_BYTES_MAX: usize = 256;
/// Images whose imports are remembered, the newest: some KiB each.
const KEPT_MAX: usize = 1024;
/// Components that are read at a time.
const READS_MAX: usize = 2;

const COMPONENT: &[u8; 8] = b"\0asm\x0d\0\x01\0";
const IMPORT_SECTION: u8 = 10;
/// The longest 32 bit number in LEB128.
const NUMBER_BYTES_MAX: u64 = 5;

/// What is known of images, by the digest of their manifest. Clones share it.
#[derive(Clone)]
pub(super) struct Known(Arc<Inner>);

struct Inner {
    kept: Mutex<Kept>,
    reads: Semaphore,
}

#[derive(Default)]
struct Kept {
    imports: BTreeMap<Digest, Arc<[String]>>,
    /// Oldest first.
    order: VecDeque<Digest>,
}

impl Default for Known {
    fn default() -> Self {
        Self(Arc::new(Inner {
            kept: Mutex::default(),
            reads: Semaphore::new(READS_MAX),
        }))
    }
}

impl Kept {
    fn keep(&mut self, digest: Digest, imports: Arc<[String]>) {
        if self.imports.insert(digest.clone(), imports).is_none() {
            self.order.push_back(digest);
        }
        while self.order.len() > KEPT_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.imports.remove(&oldest);
            }
        }
    }
}

impl Registry {
    /// What the component of an image imports: `wasi:keyvalue/store@0.2.0-draft2`. None for images of other registries, and for
    /// those of which this server has not all.
    pub(crate) async fn imports(&self, image: &str) -> Option<Arc<[String]>> {
        let ImageReference::Registry(image) = image.parse().ok()? else {
            return None;
        };
        if image.host.is_some() {
            return None;
        }
        let manifest = match &image.digest {
            Some(digest) => Digest::parse(digest)?,
            None => self.tags.applied(&image.repository, image.reference())?,
        };
        let known = self.known.0.kept.lock().imports.get(&manifest).cloned();
        if known.is_some() {
            return known;
        }
        // Never closed.
        let _place = self.known.0.reads.acquire().await.ok()?;
        let root = Arc::clone(&self.root);
        let asked = manifest.clone();
        let read = tokio::task::spawn_blocking(move || imports_of_image(&root, &asked)).await;
        match read {
            Ok(Ok(imports)) => {
                let imports: Arc<[String]> = imports.into();
                let kept = Arc::clone(&imports);
                self.known.0.kept.lock().keep(manifest, kept);
                Some(imports)
            }
            Ok(Err(error)) => {
                tracing::debug!(%manifest, %error, "an image is not looked into");
                None
            }
            Err(error) => {
                tracing::error!(%manifest, %error, "looking into an image ended early");
                None
            }
        }
    }
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// What the one component of a manifest imports.
fn imports_of_image(root: &Path, manifest: &Digest) -> io::Result<Vec<String>> {
    let blob = |digest: &Digest| File::open(root.join("blobs/sha256").join(&digest.0));
    let file = blob(manifest)?;
    if file.metadata()?.len() > MANIFEST_BYTES_MAX as u64 {
        return Err(refused("its manifest is too large"));
    }
    let mut text = Vec::new();
    file.take(MANIFEST_BYTES_MAX as u64)
        .read_to_end(&mut text)?;
    let manifest: Value = serde_json::from_slice(&text)?;
    let layers = manifest.get("layers").and_then(Value::as_array);
    let layers = layers.into_iter().flatten().filter(|layer| {
        let kind = layer.get("mediaType").and_then(Value::as_str);
        kind.is_some_and(|kind| WASM_LAYERS.contains(&kind) || kind.ends_with("+wasm"))
    });
    let mut digests = layers.filter_map(|layer| Digest::parse(layer.get("digest")?.as_str()?));
    match (digests.next(), digests.next()) {
        (Some(component), None) => imports_of_component(blob(&component)?),
        _ => Err(refused("its manifest has not one component")),
    }
}

/// The names of what a component imports, in its order.
fn imports_of_component(mut file: File) -> io::Result<Vec<String>> {
    let end = file.metadata()?.len();
    if end > COMPONENT_BYTES_MAX {
        return Err(refused("it is larger than a node accepts"));
    }
    let mut magic = [0; COMPONENT.len()];
    file.read_exact(&mut magic)?;
    if magic != *COMPONENT {
        return Err(refused("it is no component"));
    }
    let invalid =
        |error: wasmparser::BinaryReaderError| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut imports = Vec::new();
    let mut at = COMPONENT.len() as u64;
    for _ in 0..SECTIONS_MAX {
        if at >= end {
            return Ok(imports);
        }
        file.seek(SeekFrom::Start(at))?;
        let mut head = Vec::new();
        (&file).take(1 + NUMBER_BYTES_MAX).read_to_end(&mut head)?;
        let mut reader = BinaryReader::new(&head, 0);
        let id = reader.read_u8().map_err(invalid)?;
        let bytes = reader.read_var_u32().map_err(invalid)?;
        let content = at + reader.original_position() as u64;
        at = content + u64::from(bytes);
        if at > end {
            return Err(refused("a section is longer than the component"));
        }
        if id != IMPORT_SECTION {
            continue;
        }
        if bytes > SECTION_BYTES_MAX {
            return Err(refused("it has too many imports"));
        }
        let mut section = vec![0; bytes as usize];
        file.seek(SeekFrom::Start(content))?;
        file.read_exact(&mut section)?;
        let reader = BinaryReader::new(&section, 0);
        for import in ComponentImportSectionReader::new(reader).map_err(invalid)? {
            if imports.len() == IMPORTS_MAX {
                return Err(refused("it has too many imports"));
            }
            let name = import.map_err(invalid)?.name.name;
            if name.len() > NAME_BYTES_MAX {
                return Err(refused("the name of an import is too long"));
            }
            imports.push(name.to_owned());
        }
    }
    Err(refused("it has too many sections"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn imports(bytes: &[u8]) -> io::Result<Vec<String>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        imports_of_component(file)
    }

    /// A section, with its length in five bytes.
    fn section(id: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap();
        let seven = |shift: u32| (length >> shift) as u8 & 0x7f | 0x80;
        let last = (length >> 28) as u8 & 0x0f;
        let head = [id, seven(0), seven(7), seven(14), seven(21), last];
        [&head, content].concat()
    }

    /// Imports of instances of type 0.
    fn import_section(names: &[&str]) -> Vec<u8> {
        let mut content = vec![u8::try_from(names.len()).unwrap()];
        for name in names {
            content.extend([0, u8::try_from(name.len()).unwrap()]);
            content.extend(name.as_bytes());
            content.extend([5, 0]);
        }
        section(IMPORT_SECTION, &content)
    }

    #[test]
    fn imports_are_found_between_all_else() {
        let store = "wasi:keyvalue/store@0.2.0-draft2";
        let (config, http) = ("wasi:config/store@0.2.0-rc.1", "wasi:http/types@0.2.3");
        // What is passed over is not looked at: neither a module's bytes nor an import within another component.
        let inner = [COMPONENT.as_slice(), &import_section(&["inner:one/x"])].concat();
        let component = [
            COMPONENT.as_slice(),
            &section(0, &[0xff; 3 << 20]),
            &import_section(&[http, store]),
            &section(1, b"\0asm\x01\0\0\0garbage"),
            &section(4, &inner),
            &import_section(&[config]),
        ]
        .concat();
        assert_eq!(imports(&component).unwrap(), [http, store, config]);
        assert_eq!(imports(COMPONENT).unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_no_component_is_not_known() {
        let whole = [COMPONENT.as_slice(), &import_section(&["a:b/c"])].concat();
        for cut in 1..whole.len() {
            let known = imports(&whole[..cut]);
            assert!(known.is_err() || cut == COMPONENT.len(), "{cut}");
        }
        let huge = [COMPONENT.as_slice(), &[10, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
        let endless = [COMPONENT.as_slice(), &[10, 0xff, 0xff, 0xff, 0xff, 0xff]].concat();
        let many = [COMPONENT.as_slice(), &[7, 0].repeat(SECTIONS_MAX + 1)].concat();
        let counted = [
            COMPONENT.as_slice(),
            &section(10, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ]
        .concat();
        for bytes in [&huge, &endless, &many, &counted] {
            assert!(imports(bytes).is_err());
        }
        assert!(imports(b"\0asm\x01\0\0\0").is_err());
        assert!(imports(b"").is_err());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut kept = Kept::default();
        for number in 0..2 * KEPT_MAX {
            let digest = Digest::of(&number.to_be_bytes());
            kept.keep(digest.clone(), Arc::new([]));
            kept.keep(digest, Arc::new([]));
        }
        assert_eq!((kept.imports.len(), kept.order.len()), (KEPT_MAX, KEPT_MAX));
        assert!(
            kept.imports
                .contains_key(&Digest::of(&(2 * KEPT_MAX - 1).to_be_bytes()))
        );
    }
}
