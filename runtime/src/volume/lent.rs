//! Directories as they are lent to guests: opened once, for all instances of a workload.
//!
//! Which of them belong to a volume, and which are held to it, is known by their place in the list.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::OFlags;
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi::{FsPerms, WasiCtx};

use super::{Access, Volume, open_dir};
use crate::ownership::{Identity, Ownership};
use crate::workload::WorkloadError;

/// A directory of the host under a name of the guest's.
pub(crate) struct Preopen {
    pub(crate) host_dir: PathBuf,
    pub(crate) guest_path: String,
    pub(crate) access: Access,
    /// With its account, if it has one.
    pub(crate) volume: Option<Volume>,
}

/// A directory that guests were lent.
#[derive(Clone)]
pub(crate) struct Lent {
    pub(crate) guest_path: String,
    pub(crate) access: Access,
    root: Arc<File>,
    pub(crate) volume: Option<Volume>,
    /// Whether what is done in it goes by way of the volume: it has limits, or there is something that its guest may not.
    pub(crate) is_held: bool,
}

impl Lent {
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    pub(crate) fn file(&self) -> &Arc<File> {
        &self.root
    }

    /// The volume that it is held to.
    pub(crate) fn held(&self) -> Option<&Volume> {
        self.volume.as_ref().filter(|_| self.is_held)
    }

    pub(crate) fn ownership(&self) -> Ownership {
        let volume = self.volume.as_ref();
        volume.map_or(Ownership::Host, |volume| volume.shared.told.ownership)
    }

    /// What the kind of its file system is called. Blocks.
    pub(crate) fn kind(&self) -> String {
        let told = self.volume.as_ref();
        let told = told.and_then(|volume| volume.shared.told.file_system);
        told.unwrap_or_else(|| kind_of_file_system(self.root()))
            .to_owned()
    }
}

/// As the kernel's table of mounts calls those that are met.
fn kind_of_file_system(dir: BorrowedFd<'_>) -> &'static str {
    let kind = rustix::fs::fstatfs(dir).map(|found| found.f_type as u64 & 0xffff_ffff);
    match kind {
        Ok(0xef53) => "ext4",
        Ok(0x5846_5342) => "xfs",
        Ok(0x9123_683e) => "btrfs",
        Ok(0x0102_1994) => "tmpfs",
        Ok(0x794c_7630) => "overlay",
        Ok(0x2fc1_2fc1) => "zfs",
        Ok(0xf2f5_2010) => "f2fs",
        Ok(0x6969) => "nfs",
        _ => "unknown",
    }
}

/// Opens the directories, once for all instances.
pub(crate) fn lend(
    preopens: Vec<Preopen>,
    identity: &Identity,
) -> Result<(WasiFilesystemCtx, Vec<Lent>), WorkloadError> {
    let mut wasi = WasiCtx::builder();
    let mut all = Vec::with_capacity(preopens.len());
    for preopen in preopens {
        if preopen.guest_path.contains('\0') {
            return Err(WorkloadError::Nul {
                what: "the name of a directory".into(),
            });
        }
        let perms = match preopen.access {
            Access::ReadOnly => FsPerms::ReadOnly,
            Access::ReadWrite => FsPerms::ReadWrite,
        };
        let failed = |reason: String| WorkloadError::Preopen {
            host_dir: preopen.host_dir.clone(),
            reason,
        };
        let root = match &preopen.volume {
            Some(volume) => volume.root().clone(),
            None => open_dir(rustix::fs::CWD, &preopen.host_dir, OFlags::empty())
                .map(|dir| Arc::new(dir.into()))
                .map_err(|error| failed(error.to_string()))?,
        };
        // What was found below a volume is lent as it was found: by now its path may lead elsewhere.
        let host_dir = match preopen
            .volume
            .as_ref()
            .and_then(|volume| volume.from.as_ref())
        {
            Some(from) => PathBuf::from(format!("/proc/self/fd/{}", from.as_raw_fd())),
            None => preopen.host_dir.clone(),
        };
        wasi.preopened_dir(&host_dir, &preopen.guest_path, perms)
            .map_err(|error| failed(error.root_cause().to_string()))?;
        let is_limited = |volume: &Volume| volume.limits().any();
        all.push(Lent {
            is_held: !identity.is_root() || preopen.volume.as_ref().is_some_and(is_limited),
            guest_path: preopen.guest_path,
            access: preopen.access,
            root,
            volume: preopen.volume,
        });
    }
    Ok((wasi.build().filesystem().clone(), all))
}
