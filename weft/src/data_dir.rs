//! Where a weft keeps its data: `--data-dir`, else `$WEFT_DATA_DIR`, else the platform's place.

use std::path::{Path, PathBuf};

use crate::exit::Failure;

/// The folder for this user when none is named: `/var/lib/weft` for root, else the XDG data folder.
pub fn default() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/weft");
    }
    let home = |rest: &str| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(rest));
    std::env::var_os("XDG_DATA_HOME")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from)
        .or_else(|| home(".local/share"))
        .unwrap_or_else(|| PathBuf::from("."))
        .join("weft")
}

/// The kubeconfig that a server writes into its data folder.
pub fn kubeconfig(data_dir: &Path) -> PathBuf {
    data_dir.join("kubeconfig")
}

/// From now on, whatever this process and its children create is for this user only, also in a folder that others may
/// enter: the store holds Secrets, and the logs and components are nobody else's business.
pub fn keep_private() {
    let others = nix::sys::stat::Mode::from_bits_truncate(0o077);
    nix::sys::stat::umask(others);
}

/// Creates a folder that only this user may enter.
///
/// # Errors
/// A [`Failure`] naming the folder.
pub fn create_private(dir: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| {
            Failure::new(
                format!("cannot create the folder {}", dir.display()),
                error,
                "name another folder with --data-dir",
            )
        })
}

/// Writes a file that only this user may read, all of it or nothing.
///
/// # Errors
/// What the file system answers.
pub fn write_private(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let fresh = path.with_extension("new");
    // A leftover of a crash could have other permissions.
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(contents)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}
