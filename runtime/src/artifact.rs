//! Compiled components: made once per digest, shared by everyone who runs them, kept on disk between runs.
//!
//! The cache is a directory of mode 0700. `<sha256>-<compatibility>.cwasm` is machine code, mapped into memory when
//! loaded and evictable from there; beside it lies `.mac`, which authenticates digest, compatibility and code with a key
//! that only this machine has (`key`, mode 0600). The compatibility hash covers the engine's version, its settings and
//! the CPU, so that an update never runs old code. Files appear by rename, and are never changed.
//!
//! Code that nobody has called for a while is unloaded while those who run it stay ([`Engine::unload_cold`]); the next call maps
//! it again from the cache and waits for that.
//!
//! Invariants: equal bytes are compiled once, however many ask; code is executed only if we compiled it here, in this
//! process or behind a valid MAC; an [`Artifact`] can be instantiated, since all of its imports were found.
#![allow(
    unsafe_code,
    reason = "loading machine code is unsafe by nature; see `deserialize`"
)]

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rand::TryRngCore;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use wasmtime::component::{Component, InstancePre};
use wasmtime_wasi_http::handler::ProxyPre;

use crate::account::Amounts;
use crate::capability::Capabilities;
use crate::compile::{Compiled, Compiler, one_line, sentence};
use crate::engine::{Calls, Engine};
use crate::host::{HostState, LINKED};

/// Why a component was not accepted, or could not be made ready.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactError {
    #[error("this is not WebAssembly: it starts with {found}, not with \\0asm")]
    NotWasm { found: String },
    #[error(
        "this is a core WebAssembly module, not a component; build it for wasm32-wasip2, or wrap it with \
         `wasm-tools component new`"
    )]
    CoreModule,
    #[error(
        "this is machine code, not WebAssembly; only components that are compiled on this machine are run"
    )]
    Precompiled,
    #[error("the component has {bytes} bytes, and {max} is the most accepted")]
    TooLarge { bytes: usize, max: usize },
    #[error("the component is not valid: {reason}")]
    Invalid { reason: String },
    #[error("the component imports {import}, which this host does not offer; {offer}")]
    MissingImport { import: String, offer: String },
    #[error("the component does not fit this host: {reason}")]
    Mismatch { reason: String },
    #[error(
        "the component exports neither wasi:http/incoming-handler@0.2, wasi:http/handler@0.3 nor wasi:cli/run"
    )]
    NothingToRun,
    #[error("compiling the component takes more {what} than is allowed")]
    CompileLimit { what: &'static str },
    #[error("the compiler failed: {reason}")]
    Compiler { reason: String },
    #[error("the cache of compiled components failed: {reason}")]
    Cache { reason: String },
}

impl ArtifactError {
    /// Whether the component is at fault, so that trying again cannot help.
    pub fn is_permanent(&self) -> bool {
        !matches!(
            self,
            ArtifactError::Compiler { .. } | ArtifactError::Cache { .. }
        )
    }
}

/// The SHA-256 of a component's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// Reads `sha256:<64 hexadecimal digits>`; the prefix may be left out.
    pub fn parse(text: &str) -> Option<Digest> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
        let mut digest = [0; 32];
        if hex.len() != 64 {
            return None;
        }
        for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            *byte = u8::try_from(high << 4 | low).ok()?;
        }
        Some(Digest(digest))
    }

    fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A generation of WASI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wasi {
    /// 0.2: one call an instance at a time.
    P2,
    /// 0.3: an instance can handle several calls at once.
    P3,
}

/// What a component can be used for. At least one is set, unless it is a plug-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// It answers HTTP requests.
    pub http: Option<Wasi>,
    /// It can be run as a command.
    pub command: Option<Wasi>,
}

/// One compiled component. Cheap to clone; the code is unmapped when the last clone is gone.
#[derive(Clone)]
pub struct Artifact {
    inner: Arc<Inner>,
}

struct Inner {
    digest: Digest,
    calls: Calls,
    kind: Kind,
    imports: Vec<String>,
    initial_memory_bytes: u64,
    amounts: Amounts,
    /// `None` while it is unloaded.
    code: RwLock<Option<Arc<Code>>>,
    /// Whether an instance was made of it since the last look.
    used: AtomicBool,
    /// Held while it is loaded again, so that one loads and the others find.
    loading: tokio::sync::Mutex<()>,
}

/// What instances are made from. Lives as long as somebody holds it, whatever was unloaded meanwhile.
pub(crate) struct Code {
    http: Option<ProxyPre<HostState>>,
    pre: InstancePre<HostState>,
}

impl Code {
    pub(crate) fn http(&self) -> Option<&ProxyPre<HostState>> {
        self.http.as_ref()
    }

    /// The engine that it runs on.
    pub(crate) fn engine(&self) -> &wasmtime::Engine {
        self.pre.engine()
    }

    pub(crate) fn pre(&self) -> &InstancePre<HostState> {
        &self.pre
    }
}

impl Artifact {
    pub fn digest(&self) -> Digest {
        self.inner.digest
    }

    pub fn kind(&self) -> Kind {
        self.inner.kind
    }

    pub(crate) fn calls(&self) -> Calls {
        self.inner.calls
    }

    /// The interfaces it imports, with versions.
    pub fn imports(&self) -> &[String] {
        &self.inner.imports
    }

    /// The largest linear memory that it starts with.
    pub fn initial_memory_bytes(&self) -> u64 {
        self.inner.initial_memory_bytes
    }

    /// Bytes of machine code; none while that is not in memory.
    pub fn code_bytes(&self) -> Option<usize> {
        let code = self.inner.code.read();
        let range = code.as_ref()?.pre.component().image_range();
        Some(range.end.addr().saturating_sub(range.start.addr()))
    }

    /// What an instance takes of what the engine has a fixed number of.
    pub(crate) fn amounts(&self) -> Amounts {
        self.inner.amounts
    }

    /// Whether its machine code is in memory.
    pub fn is_loaded(&self) -> bool {
        self.inner.code.read().is_some()
    }

    /// The machine code, loaded again if it was unloaded.
    ///
    /// # Errors
    /// When it is not in the cache any more.
    pub(crate) async fn code(&self, engine: &Engine) -> Result<Arc<Code>, ArtifactError> {
        // Looked at first: a store for each call would pull the line from core to core.
        if !self.inner.used.load(Relaxed) {
            self.inner.used.store(true, Relaxed);
        }
        let found = self.inner.code.read().clone();
        match found {
            Some(code) => Ok(code),
            None => engine.artifacts().load_again(engine, &self.inner).await,
        }
    }
}

impl fmt::Debug for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Artifact")
            .field("digest", &self.inner.digest)
            .field("kind", &self.inner.kind)
            .finish()
    }
}

/// Refusals that are remembered, so that a component which costs minutes to refuse costs them once. A few hundred bytes
/// each; beyond that, all are forgotten.
const REFUSALS_MAX: usize = 1024;

/// Components hashed at the same time: each takes a thread, and thousands may be asked for at once.
const HASHING_MAX: usize = 4;

/// All artefacts of one engine.
pub(crate) struct Artifacts {
    compiler: Compiler,
    cache: Option<Cache>,
    component_bytes_max: usize,
    hashing: Semaphore,
    /// One entry for each digest that is loaded or being loaded.
    known: Mutex<HashMap<Digest, Arc<Entry>>>,
    /// Components that cannot be run here, and why.
    refused: Mutex<HashMap<Digest, ArtifactError>>,
}

/// Held while the digest is being loaded, so that one loads and the others find.
type Entry = tokio::sync::Mutex<Weak<Inner>>;

impl Artifacts {
    pub(crate) fn open(
        engines: [&wasmtime::Engine; 2],
        compiler: Compiler,
        dir: Option<PathBuf>,
        component_bytes_max: usize,
    ) -> io::Result<Artifacts> {
        let cache = dir
            .map(|dir| Cache::open(dir, engines.map(compatibility)))
            .transpose()?;
        Ok(Artifacts {
            compiler,
            cache,
            component_bytes_max,
            hashing: Semaphore::new(HASHING_MAX),
            known: Mutex::default(),
            refused: Mutex::default(),
        })
    }

    pub(crate) async fn load(
        &self,
        engine: &Engine,
        bytes: Bytes,
    ) -> Result<Artifact, ArtifactError> {
        if bytes.len() > self.component_bytes_max {
            return Err(ArtifactError::TooLarge {
                bytes: bytes.len(),
                max: self.component_bytes_max,
            });
        }
        check_header(&bytes)?;
        // Closed never.
        let place = self.hashing.acquire().await;
        let hashed = bytes.clone();
        let digest = tokio::task::spawn_blocking(move || Digest::of(&hashed))
            .await
            .map_err(|error| ArtifactError::Compiler {
                reason: error.to_string(),
            })?;
        drop(place);
        let found = self.find_or(engine, digest, Some(bytes)).await?;
        found.ok_or_else(|| ArtifactError::Compiler {
            reason: "it returned nothing".into(),
        })
    }

    pub(crate) async fn load_cached(
        &self,
        engine: &Engine,
        digest: Digest,
    ) -> Result<Option<Artifact>, ArtifactError> {
        self.find_or(engine, digest, None).await
    }

    /// The file that [`Artifacts::load`] has verified and loaded the digest from.
    pub(crate) fn open_code(&self, artifact: &Artifact) -> io::Result<fs::File> {
        let cache = self.cache.as_ref();
        let cache = cache.ok_or_else(|| io::Error::other("this engine has no cache directory"))?;
        fs::File::open(cache.paths(artifact.digest(), artifact.calls()).0)
    }

    /// Loads code from whoever started this process, unless it is loaded. It must not be called from async code.
    pub(crate) fn adopt(
        &self,
        engine: &Engine,
        digest: Digest,
        calls: Calls,
        code: impl FnOnce() -> io::Result<Vec<u8>>,
    ) -> Result<Artifact, ArtifactError> {
        let entry = self.entry(digest);
        let mut loaded = entry.blocking_lock();
        if let Some(inner) = loaded.upgrade() {
            return Ok(Artifact { inner });
        }
        let code = code().map_err(|error| ArtifactError::Cache {
            reason: error.to_string(),
        })?;
        let component = Compiled {
            calls,
            code: deserialize(engine, calls, &code)?,
        };
        let inner = Arc::new(prelink(engine, digest, component)?);
        *loaded = Arc::downgrade(&inner);
        Ok(Artifact { inner })
    }

    async fn find_or(
        &self,
        engine: &Engine,
        digest: Digest,
        bytes: Option<Bytes>,
    ) -> Result<Option<Artifact>, ArtifactError> {
        let entry = self.entry(digest);
        let mut loaded = entry.lock().await;
        if let Some(inner) = loaded.upgrade() {
            return Ok(Some(Artifact { inner }));
        }
        if let Some(error) = self.refused.lock().get(&digest) {
            return Err(error.clone());
        }
        let made = match (self.read_cache(engine, digest).await, bytes) {
            (Some(component), _) => prelink(engine, digest, component),
            (None, Some(bytes)) => match self.compile(engine, digest, bytes).await {
                Ok(component) => prelink(engine, digest, component),
                Err(error) => Err(error),
            },
            (None, None) => return Ok(None),
        };
        let inner = made
            .map(Arc::new)
            .inspect_err(|error| self.refuse(digest, error))?;
        *loaded = Arc::downgrade(&inner);
        Ok(Some(Artifact { inner }))
    }

    /// What is loaded already, without waiting for anything.
    pub(crate) fn loaded(&self, digest: Digest) -> Option<Artifact> {
        let entry = self.known.lock().get(&digest)?.clone();
        let inner = entry.try_lock().ok()?.upgrade()?;
        Some(Artifact { inner })
    }

    async fn load_again(&self, engine: &Engine, inner: &Inner) -> Result<Arc<Code>, ArtifactError> {
        let _loading = inner.loading.lock().await;
        let found = inner.code.read().clone();
        if let Some(code) = found {
            return Ok(code);
        }
        let component = self.read_cache(engine, inner.digest).await;
        let component = component.ok_or_else(|| ArtifactError::Cache {
            reason: format!("{} is not in it any more", inner.digest),
        })?;
        let code = Arc::new(link(engine, component, inner.kind, &inner.imports)?);
        *inner.code.write() = Some(code.clone());
        tracing::debug!(digest = %inner.digest, "loaded again");
        Ok(code)
    }

    /// See [`Engine::unload_cold`].
    pub(crate) fn unload_cold(&self) -> usize {
        let Some(cache) = &self.cache else {
            return 0;
        };
        let entries: Vec<Arc<Entry>> = self.known.lock().values().cloned().collect();
        let loaded = entries
            .iter()
            // One that is being loaded is not cold.
            .filter_map(|entry| entry.try_lock().ok()?.upgrade());
        let cold = loaded.filter(|inner| {
            let used = inner.used.swap(false, Relaxed);
            !used && inner.code.read().is_some() && cache.holds(inner.digest, inner.calls)
        });
        let unloaded = cold.filter(|inner| {
            tracing::debug!(digest = %inner.digest, "unloaded, nobody calls it");
            // Unmapped after the lock is free again.
            let code = inner.code.write().take();
            code.is_some()
        });
        unloaded.count()
    }

    fn refuse(&self, digest: Digest, error: &ArtifactError) {
        if !error.is_permanent() {
            return;
        }
        let mut refused = self.refused.lock();
        if refused.len() >= REFUSALS_MAX {
            refused.clear();
        }
        refused.insert(digest, error.clone());
    }

    fn entry(&self, digest: Digest) -> Arc<Entry> {
        let mut known = self.known.lock();
        if !known.contains_key(&digest) {
            // Forget what nobody holds or waits for, so that the table does not grow with every image ever seen.
            known.retain(|_, entry| {
                Arc::strong_count(entry) > 1
                    || entry.try_lock().is_ok_and(|inner| inner.strong_count() > 0)
            });
        }
        known.entry(digest).or_default().clone()
    }

    async fn read_cache(&self, engine: &Engine, digest: Digest) -> Option<Compiled<Component>> {
        let cache = self.cache.clone()?;
        let engine = engine.clone();
        let found = tokio::task::spawn_blocking(move || cache.get(&engine, digest)).await;
        match found {
            Ok(Ok(component)) => component,
            // Compiling again costs time; running what is not ours would cost everything.
            Ok(Err(error)) => {
                tracing::warn!(%digest, %error, "a compiled component in the cache was not used");
                None
            }
            Err(error) => {
                tracing::warn!(%digest, %error, "reading the cache of compiled components failed");
                None
            }
        }
    }

    async fn compile(
        &self,
        engine: &Engine,
        digest: Digest,
        bytes: Bytes,
    ) -> Result<Compiled<Component>, ArtifactError> {
        let started = std::time::Instant::now();
        let size = bytes.len();
        let compiled = self.compiler.compile(engine, bytes).await?;
        let Compiled { calls, code } = compiled;
        tracing::info!(%digest, component_bytes = size, code_bytes = code.len(), ?calls, took = ?started.elapsed(), "compiled");
        let cache = self.cache.clone();
        let engine = engine.clone();
        let loaded = tokio::task::spawn_blocking(move || {
            if let Some(cache) = cache {
                match cache
                    .put(digest, calls, &code)
                    .and_then(|()| cache.get(&engine, digest))
                {
                    // Mapped from the file, its pages are shared and evictable.
                    Ok(Some(component)) => return Ok(component),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(%digest, %error, "keeping a compiled component failed")
                    }
                }
            }
            let code = deserialize(&engine, calls, &code)?;
            Ok(Compiled { calls, code })
        });
        loaded.await.map_err(|error| ArtifactError::Compiler {
            reason: error.to_string(),
        })?
    }
}

/// Refuses what cannot be a component, with the sentence that helps most.
fn check_header(bytes: &[u8]) -> Result<(), ArtifactError> {
    const ELF: &[u8] = b"\x7fELF";
    match bytes {
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Err(ArtifactError::CoreModule),
        [0, b'a', b's', b'm', version, _, layer, ..] => Err(ArtifactError::Invalid {
            reason: format!("binary format version {version}, layer {layer} is not known"),
        }),
        _ if bytes.starts_with(ELF) => Err(ArtifactError::Precompiled),
        [] => Err(ArtifactError::NotWasm {
            found: "nothing".into(),
        }),
        _ => {
            let start = &bytes[..bytes.len().min(8)];
            Err(ArtifactError::NotWasm {
                found: format!("\"{}\"", start.escape_ascii()),
            })
        }
    }
}

fn prelink(
    engine: &Engine,
    digest: Digest,
    component: Compiled<Component>,
) -> Result<Inner, ArtifactError> {
    let calls = component.calls;
    let (imports, exports) = interfaces(&component.code);
    let has = |interface: &str| exports.iter().any(|name| name.starts_with(interface));
    let kind = Kind {
        http: match (
            has("wasi:http/handler@0.3"),
            has("wasi:http/incoming-handler@0.2"),
        ) {
            (true, _) => Some(Wasi::P3),
            (false, true) => Some(Wasi::P2),
            (false, false) => None,
        },
        command: match (has("wasi:cli/run@0.3"), has("wasi:cli/run@0.2")) {
            (true, _) => Some(Wasi::P3),
            (false, true) => Some(Wasi::P2),
            (false, false) => None,
        },
    };
    if kind.http.is_none() && kind.command.is_none() && !engine.accepts_plugins() {
        return Err(ArtifactError::NothingToRun);
    }
    let required = component.code.resources_required();
    // Counted in pages of 64 KiB; other sizes are switched off.
    let initial_pages = required
        .as_ref()
        .and_then(|required| required.max_initial_memory_size);
    let (memories, tables) = required.map_or((0, 0), |required| {
        (required.num_memories, required.num_tables)
    });
    let initial_memory_bytes = initial_pages.unwrap_or(0).saturating_mul(64 << 10);
    let code = link(engine, component, kind, &imports)?;
    Ok(Inner {
        digest,
        calls,
        kind,
        imports,
        initial_memory_bytes,
        amounts: Amounts::of_instance(memories, tables),
        code: RwLock::new(Some(Arc::new(code))),
        used: AtomicBool::new(true),
        loading: tokio::sync::Mutex::default(),
    })
}

/// Finds everything that the component imports.
fn link(
    engine: &Engine,
    component: Compiled<Component>,
    kind: Kind,
    imports: &[String],
) -> Result<Code, ArtifactError> {
    let pre = engine
        .machine(component.calls)
        .linker
        .instantiate_pre(&component.code)
        .map_err(|error| link_error(&error, imports, engine.capabilities()))?;
    let mismatch = |error: wasmtime::Error| ArtifactError::Mismatch {
        reason: sentence(&error),
    };
    let http = match kind.http {
        None => None,
        Some(Wasi::P2) => Some(ProxyPre::P2(
            wasmtime_wasi_http::p2::bindings::ProxyPre::new(pre.clone()).map_err(mismatch)?,
        )),
        Some(Wasi::P3) => Some(ProxyPre::P3(
            wasmtime_wasi_http::p3::bindings::ServicePre::new(pre.clone()).map_err(mismatch)?,
        )),
    };
    Ok(Code { http, pre })
}

/// The names of what a component imports, and of what it exports.
pub(crate) fn interfaces(component: &Component) -> (Vec<String>, Vec<String>) {
    let (engine, ty) = (component.engine(), component.component_type());
    (
        ty.imports(engine)
            .map(|(name, _)| name.to_owned())
            .collect(),
        ty.exports(engine)
            .map(|(name, _)| name.to_owned())
            .collect(),
    )
}

fn link_error(
    error: &wasmtime::Error,
    imports: &[String],
    capabilities: &Capabilities,
) -> ArtifactError {
    let reason = sentence(error);
    // The engine quotes the import that it could not satisfy.
    let Some(import) = imports
        .iter()
        .find(|import| reason.contains(&format!("`{import}`")))
    else {
        return ArtifactError::Mismatch { reason };
    };
    let offer = offer(import, capabilities);
    if reason.contains("implementation is missing") {
        ArtifactError::MissingImport {
            import: one_line(import),
            offer,
        }
    } else {
        ArtifactError::Mismatch { reason }
    }
}

/// What this host offers in the place of `import`.
fn offer(import: &str, capabilities: &Capabilities) -> String {
    let package = package_of(import);
    if let Some((package, versions)) = LINKED.iter().find(|(linked, _)| *linked == package) {
        return format!("of {package} it offers {versions}");
    }
    let interfaces = capabilities.interfaces();
    let of_package: Vec<&str> = interfaces
        .filter(|interface| package_of(interface) == package)
        .map(|interface| {
            interface
                .split_once('/')
                .map_or(interface, |(_, name)| name)
        })
        .collect();
    if !of_package.is_empty() {
        return format!("of {package} it offers {}", of_package.join(", "));
    }
    let linked = LINKED.iter().map(|(package, _)| *package);
    let packages: BTreeSet<&str> = linked
        .chain(capabilities.interfaces().map(package_of))
        .collect();
    let packages: Vec<&str> = packages.into_iter().collect();
    format!("it offers {}", packages.join(", "))
}

fn package_of(interface: &str) -> &str {
    interface.split(['/', '@']).next().unwrap_or(interface)
}

fn compatibility(engine: &wasmtime::Engine) -> [u8; 32] {
    struct Feed(blake3::Hasher);
    impl Hasher for Feed {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0 // Only the long hash is used.
        }
    }
    let mut feed = Feed(blake3::Hasher::new_derive_key(
        "weft-runtime compatibility v1",
    ));
    engine.precompile_compatibility_hash().hash(&mut feed);
    *feed.0.finalize().as_bytes()
}

fn deserialize(engine: &Engine, calls: Calls, code: &[u8]) -> Result<Component, ArtifactError> {
    let engine = &engine.machine(calls).wasm;
    // SAFETY: `code` was produced by our own compiler. Either a moment ago, in this process or in a child that runs our own
    // program, and has not left our memory; or it was handed to this worker by the process that started it, over a socket
    // that only the two of them have, from a file that it has verified as below.
    unsafe { Component::deserialize(engine, code) }.map_err(|error| {
        let reason = sentence(&error);
        // The engine has no type for it: what the pool of instances has no room for is the component's doing.
        if reason.contains("pooling allocator") {
            ArtifactError::Mismatch { reason }
        } else {
            ArtifactError::Compiler { reason }
        }
    })
}

/// Machine code on disk.
#[derive(Clone)]
struct Cache {
    dir: PathBuf,
    key: [u8; 32],
    /// Of serial code, and of concurrent code.
    compatibility: [[u8; 32]; 2],
}

#[derive(Debug, thiserror::Error)]
enum CacheError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} was not written by this host, or was changed since")]
    Forged { path: PathBuf },
    #[error("{path}: {reason}")]
    Unusable { path: PathBuf, reason: String },
}

impl Cache {
    fn open(dir: PathBuf, compatibility: [[u8; 32]; 2]) -> io::Result<Cache> {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let path = dir.join("key");
        let key = match fs::read(&path) {
            Ok(key) => key,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut key = [0; 32];
                rand::rngs::OsRng
                    .try_fill_bytes(&mut key)
                    .map_err(io::Error::other)?;
                create_once(&path, &key)?;
                fs::read(&path)?
            }
            Err(error) => return Err(error),
        };
        let key = key
            .try_into()
            .map_err(|_| io::Error::other("the key file does not hold 32 bytes"))?;
        Ok(Cache {
            dir,
            key,
            compatibility,
        })
    }

    fn compatibility(&self, calls: Calls) -> &[u8; 32] {
        let [serial, concurrent] = &self.compatibility;
        match calls {
            Calls::Serial => serial,
            Calls::Concurrent => concurrent,
        }
    }

    fn paths(&self, digest: Digest, calls: Calls) -> (PathBuf, PathBuf) {
        let compatibility: String = self.compatibility(calls)[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let stem = self.dir.join(format!("{}-{compatibility}", digest.hex()));
        (stem.with_extension("cwasm"), stem.with_extension("mac"))
    }

    /// Whether [`Cache::get`] will find it.
    fn holds(&self, digest: Digest, calls: Calls) -> bool {
        let (code, mac) = self.paths(digest, calls);
        code.exists() && mac.exists()
    }

    fn mac(&self, digest: Digest, calls: Calls, code: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher
            .update(b"weft-runtime artifact v1")
            .update(&digest.0)
            .update(self.compatibility(calls))
            .update(code);
        hasher.finalize()
    }

    /// The component's code, of whichever kind it is.
    fn get(
        &self,
        engine: &Engine,
        digest: Digest,
    ) -> Result<Option<Compiled<Component>>, CacheError> {
        for calls in Calls::ALL {
            if let Some(code) = self.get_as(engine, digest, calls)? {
                return Ok(Some(Compiled { calls, code }));
            }
        }
        Ok(None)
    }

    fn get_as(
        &self,
        engine: &Engine,
        digest: Digest,
        calls: Calls,
    ) -> Result<Option<Component>, CacheError> {
        let (code_path, mac_path) = self.paths(digest, calls);
        let read = |path: &Path| match fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CacheError::Io {
                path: path.to_owned(),
                source,
            }),
        };
        let (Some(code), Some(mac)) = (read(&code_path)?, read(&mac_path)?) else {
            return Ok(None);
        };
        // Comparing hashes this way takes constant time.
        let genuine =
            <[u8; 32]>::try_from(mac).is_ok_and(|mac| self.mac(digest, calls, &code) == mac);
        if !genuine {
            return Err(CacheError::Forged { path: code_path });
        }
        drop(code);
        // SAFETY: the file is exactly what our compiler wrote, which its MAC has just proved; it lies in a directory
        // that only our own user may write to, and we never change a file after its rename.
        let component =
            unsafe { Component::deserialize_file(&engine.machine(calls).wasm, &code_path) };
        match component {
            Ok(component) => Ok(Some(component)),
            Err(error) => Err(CacheError::Unusable {
                path: code_path,
                reason: sentence(&error),
            }),
        }
    }

    fn put(&self, digest: Digest, calls: Calls, code: &[u8]) -> Result<(), CacheError> {
        let (code_path, mac_path) = self.paths(digest, calls);
        let mac = self.mac(digest, calls, code);
        // The code first: a MAC without code is a miss, code without a MAC as well.
        for (path, bytes) in [(code_path, code), (mac_path, mac.as_bytes().as_slice())] {
            replace(&path, bytes).map_err(|source| CacheError::Io { path, source })?;
        }
        Ok(())
    }
}

/// Writes a file that nobody ever sees half of.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut unique = [0; 8];
    rand::rngs::OsRng
        .try_fill_bytes(&mut unique)
        .map_err(io::Error::other)?;
    let temporary = path.with_extension(format!("{:016x}.tmp", u64::from_ne_bytes(unique)));
    let written = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Creates a file with these bytes, unless another process was faster: then its bytes are as good.
fn create_once(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let created = write_new(&temporary, bytes).and_then(|()| fs::hard_link(&temporary, path));
    let _ = fs::remove_file(&temporary);
    match created {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created,
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)
}
