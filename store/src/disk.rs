//! What a store asks of the machine below it: files, and threads to write them with.
//!
//! The seam through which the simulation loses power, tears writes and fills disks. [`Machine`] is the real thing.
//!
//! Invariants: a rename is durable when it returns; what a backend synced survives a power cut; whatever blocks runs in
//! [`Disk::spawn`] or [`Disk::blocking`], never on a thread of the async runtime.

use std::any::Any;
use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use futures::future::BoxFuture;
use redb::StorageBackend;
use redb::backends::FileBackend;
use tokio::sync::oneshot;

use crate::error::OpenError;
use crate::lock::FolderLock;

/// Holds a folder until dropped.
pub(crate) type Held = Box<dyn Any + Send>;

/// The files of one server, and its threads.
pub(crate) trait Disk: Debug + Send + Sync + 'static {
    /// Creates the folder where needed and holds it against other processes.
    fn hold(&self, dir: &Path) -> Result<Held, OpenError>;

    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Opens an existing file.
    fn open(&self, path: &Path) -> io::Result<Box<dyn StorageBackend>>;

    /// Makes an empty file, in place of one that may be there.
    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageBackend>>;

    /// Gives a complete, synced file its final name; returns when a power cut can no longer take that back.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file, if it is there.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a file that takes `bytes` of space, whatever it holds.
    fn fill(&self, path: &Path, bytes: u64) -> io::Result<()>;

    /// Runs `work`, which may block, beside everything else.
    fn spawn(&self, name: &'static str, work: BoxFuture<'static, ()>) -> io::Result<Worker>;

    /// Runs `work`, which may block, and waits for it.
    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()>;

    /// Waited for before each transaction: nothing, on a machine that is slow by itself.
    fn pace(&self) -> BoxFuture<'static, ()>;

    /// Called when nothing was written for a while after a lot was.
    fn rest(&self) {}
}

/// Something that runs beside: it can be waited for.
pub(crate) struct Worker(oneshot::Receiver<()>);

impl Worker {
    /// The handle, and what the worker drops or sends on when it is done.
    pub(crate) fn pair() -> (oneshot::Sender<()>, Worker) {
        let (done, worker) = oneshot::channel();
        (done, Worker(worker))
    }

    /// Waits for it to end.
    pub(crate) async fn join(self, name: &str) {
        if self.0.await.is_err() {
            tracing::error!(name, "a worker of the store panicked");
        }
    }
}

/// The machine this process runs on.
#[derive(Debug)]
pub(crate) struct Machine;

fn sync_folder(path: &Path) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

fn backend(file: File) -> io::Result<Box<dyn StorageBackend>> {
    let backend = FileBackend::new(file).map_err(io::Error::other)?;
    Ok(Box::new(backend))
}

impl Disk for Machine {
    fn hold(&self, dir: &Path) -> Result<Held, OpenError> {
        Ok(Box::new(FolderLock::take(dir)?))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn StorageBackend>> {
        backend(OpenOptions::new().read(true).write(true).open(path)?)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageBackend>> {
        self.remove(path)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        backend(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)?;
        sync_folder(to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn fill(&self, path: &Path, bytes: u64) -> io::Result<()> {
        use nix::errno::Errno;
        use nix::fcntl::{FallocateFlags, fallocate};

        let file = File::create(path)?;
        let length = i64::try_from(bytes).map_err(io::Error::other)?;
        match fallocate(&file, FallocateFlags::empty(), 0, length) {
            Ok(()) => {}
            // Space that cannot be claimed in one call is claimed by writing.
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut &file)?;
            }
            Err(error) => return Err(error.into()),
        }
        file.sync_all()
    }

    fn spawn(&self, name: &'static str, work: BoxFuture<'static, ()>) -> io::Result<Worker> {
        let (done, worker) = Worker::pair();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                futures::executor::block_on(work);
                // Nobody may be waiting.
                let _ = done.send(());
            })?;
        Ok(worker)
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        let work = tokio::task::spawn_blocking(work);
        Box::pin(async {
            if work.await.is_err() {
                tracing::error!("blocking work of the store panicked or was cancelled");
            }
        })
    }

    fn pace(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    /// The product's allocator gives memory that was freed a second ago back to the system when a thread ends, or in the course
    /// of later work; where none comes, what a burst of writes took would stay.
    fn rest(&self) {
        let thread = std::thread::Builder::new().name("weft-rest".to_owned());
        if let Ok(thread) = thread.spawn(|| ()) {
            let _ = thread.join();
        }
    }
}
