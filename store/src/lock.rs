//! One process per data folder.
//!
//! The holder keeps an advisory lock on `DIR/lock` and writes its process number into it, so that the next one can say
//! who is in the way. The system drops the lock with the process, however it ends.
//!
//! A process that is being started shares the open files of its parent until its program is loaded. So closing the file does
//! not let go of the folder at once: the lock is given up, not only closed.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::error::OpenError;

/// Holds the folder until dropped.
pub(crate) struct FolderLock {
    file: File,
}

impl FolderLock {
    /// Creates the folder where needed and takes it.
    pub(crate) fn take(dir: &Path) -> Result<Self, OpenError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        if !dir.try_exists().map_err(io(dir))? {
            std::fs::create_dir_all(dir).map_err(io(dir))?;
            // A power cut must not take back the folder's name after the first write was acknowledged.
            if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent)
                    .and_then(|parent| parent.sync_all())
                    .map_err(io(parent))?;
            }
        }
        let path = dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who holds it is a courtesy; that it is held is certain.
                let _ = file.read_to_string(&mut holder);
                let holder = holder.trim();
                let known = !holder.is_empty() && holder.bytes().all(|byte| byte.is_ascii_digit());
                return Err(OpenError::InUse {
                    dir: dir.to_owned(),
                    process: if known { holder } else { "unknown" }.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(OpenError::Io { path, source }),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(io(&path))?;
        Ok(FolderLock { file })
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Where that fails, closing does it a moment later.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_is_told_who_is_first() {
        let dir = tempfile::tempdir().expect("tempdir");
        let first = FolderLock::take(dir.path()).expect("free");
        let refused = FolderLock::take(dir.path())
            .err()
            .expect("taken")
            .to_string();
        let expected = format!(
            "data folder {} is in use by process {}",
            dir.path().display(),
            std::process::id()
        );
        assert_eq!(refused, expected);
        drop(first);
        FolderLock::take(dir.path()).expect("free again");
    }

    #[test]
    fn a_process_that_is_being_started_does_not_keep_the_folder() {
        let dir = tempfile::tempdir().expect("tempdir");
        let first = FolderLock::take(dir.path()).expect("free");
        // What a child has between its start and the loading of its program: the same open file.
        let inherited = first.file.try_clone().expect("copied");
        drop(first);
        FolderLock::take(dir.path()).expect("free again");
        drop(inherited);
    }
}
