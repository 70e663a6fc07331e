//! Which component a command in a container is: the container's own, or the toolbox that every node has.
//!
//! ```text
//! the container's own entrypoint: its image's name, /NAME, or the first word of its command   ─► its own component
//! an applet that its own component says it has                                                 ─► its own component
//! an applet of the toolbox, unless the namespace turned it off                                 ─► the toolbox
//! anything else                                                                                ─► not found, in a container runtime's words
//! ```
//!
//! A component says which applets it has in a custom section of one of its modules, [`SECTION`]: their names, each on a line of its
//! own. It is read from the component as it is, without running it.
//!
//! Left to others: running it (`context`), the toolbox itself (`sample-apps/toolbox`).

use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use weft_runtime::{Artifact, ArtifactError, Cores, Digest, Engine};

/// The custom section with the names of a component's applets.
const SECTION: &[u8] = b"weft:applets";
/// Longest list that is read.
const SECTION_BYTES_MAX: usize = 64 << 10;
/// Modules and components within components.
const DEPTH_MAX: u32 = 8;
/// Where programs are, as `$PATH` of a container has it.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Names of applets.
pub(crate) type Applets = Arc<BTreeSet<String>>;

/// The toolbox of a node, and what the components that came here say of themselves.
pub struct Toolbox {
    engine: Engine,
    cores: Cores,
    /// Spreads commands over the cores.
    next_core: AtomicUsize,
    /// Empty in a program that was built without one.
    component: Bytes,
    loaded: OnceCell<Artifact>,
    applets: Option<Applets>,
    of_images: Mutex<HashMap<Digest, Applets>>,
}

/// Why there is no component for a command; a sentence as a container runtime's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotFound {
    #[error("exec: \"{name}\": executable file not found in $PATH")]
    InPath { name: String },
    #[error("exec: \"{path}\": stat {path}: no such file or directory")]
    AtPath { path: String },
}

/// Whose component a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    Own,
    Toolboxs,
}

impl Toolbox {
    /// `component` is empty where there is none.
    pub fn new(component: Bytes, engine: Engine, cores: Cores) -> Self {
        let applets = applets(&component).map(Arc::new);
        Self {
            engine,
            cores,
            next_core: AtomicUsize::new(0),
            component,
            loaded: OnceCell::new(),
            applets,
            of_images: Mutex::default(),
        }
    }

    /// Notes what a component says of itself that came here as `bytes`.
    pub(crate) fn note(&self, digest: Digest, bytes: &[u8]) {
        if let Some(applets) = applets(bytes) {
            let mut noted = self.of_images.lock();
            noted.insert(digest, Arc::new(applets));
        }
    }

    /// The applets that a component said it has.
    fn of(&self, digest: Digest) -> Option<Applets> {
        self.of_images.lock().get(&digest).cloned()
    }

    /// The toolbox, compiled for this node by the first who wants it.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub(crate) async fn artifact(&self) -> Result<Artifact, ArtifactError> {
        let load = || self.engine.load(self.component.clone());
        self.loaded.get_or_try_init(load).await.cloned()
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Runs a command's guest on one of the cores.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        guest: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let core = self.next_core.fetch_add(1, Ordering::Relaxed);
        self.cores.spawn_on(core, guest)
    }

    /// Whose component `word`, the first of a command, names in a container of `own`, whose `entrypoint` has the names that it is
    /// called by. `allowed`: the toolbox may be used here.
    ///
    /// # Errors
    /// When nobody's.
    pub(crate) fn find(
        &self,
        word: &str,
        own: &Artifact,
        entrypoint: &[String],
        allowed: bool,
    ) -> Result<Whose, NotFound> {
        let own_applets = self.of(own.digest());
        let runs = own.kind().command.is_some();
        if runs && is_own(word, entrypoint, own_applets.as_deref()) {
            return Ok(Whose::Own);
        }
        let is_there = allowed && !self.component.is_empty();
        match applet(word) {
            Some(name) if is_there && has(self.applets.as_deref(), name) => Ok(Whose::Toolboxs),
            _ => Err(not_found(word)),
        }
    }
}

/// Whether it is among them; a toolbox that does not say what it has says so when it is run.
fn has(applets: Option<&BTreeSet<String>>, name: &str) -> bool {
    applets.is_none_or(|applets| applets.contains(name))
}

fn is_own(word: &str, entrypoint: &[String], applets: Option<&BTreeSet<String>>) -> bool {
    let same = |name: &String| {
        word == name
            || word.strip_prefix('/') == Some(name.as_str())
            || applet(word).is_some_and(|word| word == name)
    };
    entrypoint.iter().any(same)
        || applet(word)
            .zip(applets)
            .is_some_and(|(name, applets)| applets.contains(name))
}

/// The program's name in a word that names it, or its path where programs are.
fn applet(word: &str) -> Option<&str> {
    let Some((folder, name)) = word.rsplit_once('/') else {
        return (!word.is_empty()).then_some(word);
    };
    let known = folder.is_empty() || PATH.split(':').any(|known| known == folder);
    (known && !name.is_empty()).then_some(name)
}

fn not_found(word: &str) -> NotFound {
    match word.contains('/') {
        true => NotFound::AtPath { path: word.into() },
        false => NotFound::InPath { name: word.into() },
    }
}

/// The names by which a container's own component is called: its image's, and the first word of its command.
pub(crate) fn entrypoint(image: &str, command: Option<&[String]>) -> Vec<String> {
    let path = image.split(['@']).next().unwrap_or(image);
    let name = path.rsplit('/').next().unwrap_or(path);
    let name = name.split(':').next().unwrap_or(name);
    let name = name.strip_suffix(".wasm").unwrap_or(name);
    let mut names = vec![name.to_owned()];
    names.extend(command.and_then(|words| words.first()).cloned());
    names.retain(|name| !name.is_empty());
    names
}

/// The applets that a component says it has.
fn applets(component: &[u8]) -> Option<BTreeSet<String>> {
    let list = section(component, 0)?;
    let text = std::str::from_utf8(list).ok()?;
    Some(
        text.lines()
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
    )
}

/// Looks for the section in a component, and in the modules and components in it.
fn section(binary: &[u8], depth: u32) -> Option<&[u8]> {
    const CUSTOM: u8 = 0;
    let layer = *binary.get(6)?;
    let mut rest = binary.get(8..)?;
    while let Some((id, after)) = rest.split_first() {
        let (length, after) = number(after)?;
        let content = after.get(..length)?;
        rest = after.get(length..)?;
        let found = match (*id, layer) {
            (CUSTOM, _) => {
                let (length, content) = number(content)?;
                let (name, content) = (content.get(..length)?, content.get(length..)?);
                (name == SECTION && content.len() <= SECTION_BYTES_MAX).then_some(content)
            }
            // A module, and a component.
            (1 | 4, 1) if depth < DEPTH_MAX => section(content, depth + 1),
            _ => None,
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// A number in LEB128, and what comes after it.
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value: u32 = 0;
    for (index, byte) in bytes.iter().take(5).enumerate() {
        let bits = u32::from(byte & 0x7F);
        value |= bits.checked_shl(u32::try_from(index).ok()? * 7)?;
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, &bytes[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_the_containers_own_by_any_of_its_names() {
        let names = entrypoint(
            "registry.test:5000/team/words:1.2@sha256:00",
            Some(&["/srv/count".to_owned(), "-v".to_owned()]),
        );
        assert_eq!(names, ["words", "/srv/count"]);
        assert_eq!(entrypoint("file:///tmp/words.wasm", None), ["words"]);
        let applets: BTreeSet<String> = ["sh".to_owned(), "ls".to_owned()].into();
        for (word, own) in [
            ("words", true),
            ("/words", true),
            ("/bin/words", true),
            ("/srv/count", true),
            ("count", false),
            ("/srv/words", false),
            ("sh", true),
            ("/bin/sh", true),
            ("/opt/sh", false),
            ("cat", false),
            ("", false),
            ("/", false),
        ] {
            assert_eq!(is_own(word, &names, Some(&applets)), own, "{word}");
        }
    }

    #[test]
    fn what_is_not_there_is_told_as_a_container_runtime_does() {
        assert_eq!(
            not_found("foo").to_string(),
            "exec: \"foo\": executable file not found in $PATH"
        );
        assert_eq!(
            not_found("/x/foo").to_string(),
            "exec: \"/x/foo\": stat /x/foo: no such file or directory"
        );
    }

    /// A section with its length before it.
    fn framed(id: u8, content: &[u8]) -> Vec<u8> {
        let mut all = vec![id];
        let mut length = content.len();
        loop {
            let byte = (length & 0x7F) as u8;
            length >>= 7;
            all.push(if length > 0 { byte | 0x80 } else { byte });
            if length == 0 {
                break;
            }
        }
        all.extend_from_slice(content);
        all
    }

    #[test]
    fn a_component_says_what_it_has_and_nonsense_says_nothing() {
        let list = "sh\nls\n".repeat(50);
        let custom = |name: &[u8], content: &[u8]| {
            let mut all = framed(0, &[]);
            all.truncate(0);
            all.push(name.len() as u8);
            all.extend_from_slice(name);
            all.extend_from_slice(content);
            framed(0, &all)
        };
        let module = [
            b"\0asm\x01\0\0\0".to_vec(),
            framed(1, b"types"),
            custom(b"name", b"x"),
            custom(SECTION, list.as_bytes()),
        ]
        .concat();
        let component = [b"\0asm\x0d\0\x01\0".to_vec(), framed(1, &module)].concat();
        let outer = [b"\0asm\x0d\0\x01\0".to_vec(), framed(4, &component)].concat();
        for binary in [&module, &component, &outer] {
            let found = applets(binary).expect("it says so");
            assert_eq!(found.into_iter().collect::<Vec<_>>(), ["ls", "sh"]);
        }
        for length in 0..outer.len() {
            assert_eq!(applets(&outer[..length]), None, "cut at {length}");
        }
        assert_eq!(
            applets(b"\0asm\x0d\0\x01\0\x01\xff\xff\xff\xff\xff\xff"),
            None
        );
    }
}
