//! One store's part of the disk, and what happens when that is full.
//!
//! A file of [`RESERVE_BYTES`] holds space back. The first write that finds the disk full gives it up and goes on, so
//! neither the log nor the checkpoint ever fails at that point; from then on the store takes no more puts
//! ([`Volume::full`]), and deletes live on the space that was held back. Once a second the store tries to take it again;
//! where that succeeds the disk has room, and puts go on without a restart.
//!
//! Invariants: `full` is set before the write that found the disk full returns; a file's length is known without asking
//! the system.
//! Left to others: refusing puts (`proposer.rs`) and entries of a leader (`answer.rs`) while it is full.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use redb::StorageBackend;
use tokio::sync::watch;

use crate::disk::Disk;

/// Space held back: a checkpoint of ten thousand deleted objects rewrites 40 MiB of pages, and a delete takes about
/// 200 bytes of log.
pub(crate) const RESERVE_BYTES: u64 = 64 << 20;

const RESERVE: &str = "reserve";

/// The disk of one store.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) disk: Arc<dyn Disk>,
    reserve: PathBuf,
    /// Whether the reserve is there. Locked while it is made or given up.
    held: Mutex<bool>,
    full: watch::Sender<bool>,
}

impl Volume {
    /// The volume of the store in `dir`. A disk that is full already opens as full. Blocks.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path) -> io::Result<Arc<Volume>> {
        let reserve = dir.join(RESERVE);
        let held = disk.exists(&reserve)?;
        let volume = Volume {
            held: Mutex::new(held),
            disk,
            reserve,
            full: watch::channel(false).0,
        };
        volume.recover()?;
        if !*volume.held.lock() {
            tracing::warn!(
                "the disk is full; the store takes deletes but no puts until it has room"
            );
            volume.full.send_replace(true);
        }
        Ok(Arc::new(volume))
    }

    /// Whether puts have to wait for space.
    pub(crate) fn full(&self) -> bool {
        *self.full.borrow()
    }

    /// Tries to hold space back again after it was given up. Blocks.
    pub(crate) fn recover(&self) -> io::Result<()> {
        let mut held = self.held.lock();
        if *held {
            return Ok(());
        }
        match self.disk.fill(&self.reserve, RESERVE_BYTES) {
            Ok(()) => {
                *held = true;
                if self.full.send_replace(false) {
                    tracing::info!("the disk has room again; the store takes puts");
                }
                Ok(())
            }
            Err(error) if is_full(&error) => self.disk.remove(&self.reserve),
            Err(error) => Err(error),
        }
    }

    /// Gives the reserve up; whether there was one.
    fn release(&self) -> bool {
        let mut held = self.held.lock();
        if !*held {
            return false;
        }
        *held = false;
        if !self.full.send_replace(true) {
            tracing::warn!(
                "the disk is full; the store takes deletes but no puts until it has room"
            );
        }
        self.disk.remove(&self.reserve).is_ok()
    }

    /// Opens an existing file.
    pub(crate) fn open_file(self: &Arc<Self>, path: &Path) -> io::Result<Backend> {
        self.backend(self.disk.open(path)?)
    }

    /// Makes an empty file, in place of one that may be there.
    pub(crate) fn create_file(self: &Arc<Self>, path: &Path) -> io::Result<Backend> {
        self.backend(self.disk.create(path)?)
    }

    fn backend(self: &Arc<Self>, inner: Box<dyn StorageBackend>) -> io::Result<Backend> {
        let bytes = Arc::new(AtomicU64::new(inner.len()?));
        Ok(Backend {
            inner,
            volume: Arc::clone(self),
            bytes,
        })
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// A file of the volume, as redb wants it.
#[derive(Debug)]
pub(crate) struct Backend {
    inner: Box<dyn StorageBackend>,
    volume: Arc<Volume>,
    bytes: Arc<AtomicU64>,
}

impl Backend {
    /// The file's length, as it will be from now on.
    pub(crate) fn length(&self) -> Length {
        Length(Arc::clone(&self.bytes))
    }

    fn with_reserve(&self, write: impl Fn() -> io::Result<()>) -> io::Result<()> {
        match write() {
            Err(error) if is_full(&error) && self.volume.release() => write(),
            other => other,
        }
    }
}

/// The length of a file.
#[derive(Debug, Clone)]
pub(crate) struct Length(Arc<AtomicU64>);

impl Length {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.with_reserve(|| self.inner.set_len(bytes))?;
        self.bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with_reserve(|| self.inner.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
}
