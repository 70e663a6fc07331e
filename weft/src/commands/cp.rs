//! `weft cp`: files to and from a container, as an archive that `tar` there makes or takes apart.
//!
//! Invariant: what a container sends is written below the place that was named, and nowhere else: neither by names that lead out, nor by links.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use tokio_util::io::SyncIoBridge;

use super::pods;
use crate::exit::Failure;
use crate::kubeconfig::ClientArgs;
use crate::session::{Session, Wanted};

/// Bytes on their way between the archive and the connection.
const PIPE_BYTES: usize = 256 << 10;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// FILE, POD:FILE or NAMESPACE/POD:FILE
    #[arg(value_name = "FROM")]
    from: String,
    /// The same; one of both is a container's
    #[arg(value_name = "TO")]
    to: String,
    /// In this namespace [default: the one of the kubeconfig]
    #[arg(short, long)]
    namespace: Option<String>,
    /// The container, where the pod has several
    #[arg(short, long)]
    container: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

/// An end of a copy.
#[derive(Debug, PartialEq, Eq)]
enum End<'a> {
    Here(&'a Path),
    There {
        namespace: Option<&'a str>,
        pod: &'a str,
        path: &'a str,
    },
}

impl<'a> End<'a> {
    fn of(text: &'a str) -> Result<Self, String> {
        // `./a:b` is a file.
        let is_file = text.starts_with(['.', '/']);
        let Some((pod, path)) = text.split_once(':').filter(|_| !is_file) else {
            return Ok(Self::Here(Path::new(text)));
        };
        let (namespace, pod) = match pod.split_once('/') {
            Some((namespace, pod)) => (Some(namespace), pod),
            None => (None, pod),
        };
        if pod.is_empty() || pod.contains('/') || path.is_empty() {
            return Err(format!("{text:?} is no file of a container: say POD:FILE"));
        }
        Ok(Self::There {
            namespace,
            pod,
            path,
        })
    }
}

/// # Errors
/// When a file cannot be read or written, here or there.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let wrong = |why: String| {
        let next = "for example `weft cp notes.txt web-1:/tmp/notes.txt`";
        Failure::new("cannot copy that", why, next).usage()
    };
    let (from, to) = (
        End::of(&args.from).map_err(wrong)?,
        End::of(&args.to).map_err(wrong)?,
    );
    match (from, to) {
        (
            End::Here(file),
            End::There {
                namespace,
                pod,
                path,
            },
        ) => {
            if !file.exists() {
                return Err(wrong(format!("there is no {}", file.display())).into());
            }
            let (parent, name) = match path.trim_end_matches('/').rsplit_once('/') {
                Some(("", name)) => ("/", name),
                Some((parent, name)) => (parent, name),
                None => (".", path),
            };
            // A folder that is named as such gets the file in it.
            let (parent, name) = match path.ends_with('/') {
                true => (path, file_name(file)),
                false => (parent, name.to_owned()),
            };
            let command = ["tar", "-xmf", "-", "-C", parent].map(str::to_owned);
            upload(&args, namespace, pod, &command, file, &name).await
        }
        (
            End::There {
                namespace,
                pod,
                path,
            },
            End::Here(file),
        ) => {
            let command = ["tar", "cf", "-", path].map(str::to_owned);
            download(&args, namespace, pod, &command, path, file).await
        }
        (End::Here(_), End::Here(_)) => {
            Err(wrong("both files are of this machine".to_owned()).into())
        }
        (End::There { .. }, End::There { .. }) => {
            Err(wrong("both files are of containers".to_owned()).into())
        }
    }
}

fn file_name(path: &Path) -> String {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| ".".to_owned())
}

async fn open(
    args: &Args,
    namespace: Option<&str>,
    pod: &str,
    command: &[String],
    stdin: bool,
    cannot: &str,
) -> anyhow::Result<Session> {
    let client = args.client.client().await?;
    let namespace = namespace.or(args.namespace.as_deref());
    let namespace = namespace.unwrap_or_else(|| client.default_namespace());
    let found = pods::one(&client, namespace, pod, cannot).await?;
    let container = pods::container(&found, args.container.as_deref());
    let wanted = Wanted {
        namespace,
        pod,
        container: &container,
        command: Some(command),
        stdin,
        tty: false,
    };
    Ok(Session::open(&client, &wanted, cannot).await?)
}

async fn upload(
    args: &Args,
    namespace: Option<&str>,
    pod: &str,
    command: &[String],
    file: &Path,
    name: &str,
) -> anyhow::Result<()> {
    let cannot = format!("cannot copy {} to {pod}", file.display());
    let session = open(args, namespace, pod, command, true, &cannot).await?;
    let (read, write) = tokio::io::duplex(PIPE_BYTES);
    let (file, name) = (file.to_owned(), name.to_owned());
    let packing = tokio::task::spawn_blocking(move || pack(SyncIoBridge::new(write), &file, &name));
    let (mut out, err) = (tokio::io::sink(), tokio::io::stderr());
    session.run(Some(read), &mut out, err, &cannot).await?;
    match packing.await? {
        // It had all of it, but for what ends an archive.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        packed => Ok(packed?),
    }
}

/// An archive of a file, or of a folder with all that is in it, under another name.
fn pack(out: impl Write, file: &Path, name: &str) -> io::Result<()> {
    let mut archive = tar::Builder::new(out);
    archive.follow_symlinks(false);
    if file.is_dir() {
        archive.append_dir_all(name, file)?;
    } else {
        archive.append_path_with_name(file, name)?;
    }
    archive.into_inner()?.flush()
}

async fn download(
    args: &Args,
    namespace: Option<&str>,
    pod: &str,
    command: &[String],
    path: &str,
    file: &Path,
) -> anyhow::Result<()> {
    let cannot = format!("cannot copy {path} of {pod}");
    let session = open(args, namespace, pod, command, false, &cannot).await?;
    let (read, write) = tokio::io::duplex(PIPE_BYTES);
    let prefix = inside(Path::new(path));
    let to = match file.is_dir() {
        true => file.join(prefix.file_name().unwrap_or_default()),
        false => file.to_owned(),
    };
    let unpacking =
        tokio::task::spawn_blocking(move || unpack(SyncIoBridge::new(read), &prefix, &to));
    let ran = session.run(
        None::<tokio::io::Empty>,
        write,
        tokio::io::stderr(),
        &cannot,
    );
    ran.await?;
    match unpacking.await?? {
        0 => Err(Failure::new(
            cannot,
            "there was nothing in what it sent",
            "look there with `weft exec`",
        )
        .into()),
        _ => Ok(()),
    }
}

/// A path without what leads up or to the root.
fn inside(path: &Path) -> PathBuf {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(part) => Some(part),
        _ => None,
    });
    parts.collect()
}

/// Writes what of an archive is below `prefix` to `to`; how many files and folders those were.
fn unpack(archive: impl Read, prefix: &Path, to: &Path) -> io::Result<usize> {
    let mut archive = tar::Archive::new(archive);
    let mut count = 0;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let is_sound = name
            .components()
            .all(|part| !matches!(part, Component::ParentDir));
        let below = inside(&name);
        let Ok(below) = below.strip_prefix(prefix) else {
            continue;
        };
        if !is_sound {
            eprintln!(
                "warning: skipping {}: it leads out of what was asked for",
                name.display()
            );
            continue;
        }
        let target = match below.as_os_str().is_empty() {
            true => to.to_owned(),
            false => to.join(below),
        };
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            fs::create_dir_all(&target)?;
        } else if kind.is_file() {
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            // Not through a link that was there before.
            if target.is_symlink() {
                fs::remove_file(&target)?;
            }
            io::copy(&mut entry, &mut fs::File::create(&target)?)?;
        } else {
            eprintln!(
                "warning: skipping {}: it is neither a file nor a folder",
                name.display()
            );
            continue;
        }
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_file_here_or_there() {
        for (text, expected) in [
            ("a.txt", Ok(End::Here(Path::new("a.txt")))),
            ("./a:b", Ok(End::Here(Path::new("./a:b")))),
            (
                "web-1:/tmp/a",
                Ok(End::There {
                    namespace: None,
                    pod: "web-1",
                    path: "/tmp/a",
                }),
            ),
            (
                "shop/web-1:a:b",
                Ok(End::There {
                    namespace: Some("shop"),
                    pod: "web-1",
                    path: "a:b",
                }),
            ),
            ("web-1:", Err(())),
            (":/a", Err(())),
        ] {
            assert_eq!(End::of(text).map_err(drop), expected, "{text}");
        }
    }

    #[test]
    fn files_come_back_as_they_went_and_nothing_leads_out() {
        let dir = tempfile::tempdir().expect("a folder");
        let from = dir.path().join("from");
        fs::create_dir_all(from.join("sub")).expect("a folder");
        fs::write(from.join("a"), "one").expect("written");
        fs::write(from.join("sub/b"), "two").expect("written");
        std::os::unix::fs::symlink("/etc/passwd", from.join("link")).expect("a link");
        let mut packed = Vec::new();
        pack(&mut packed, &from, "data").expect("packed");
        let to = dir.path().join("to");
        assert_eq!(
            unpack(&packed[..], Path::new("data"), &to).expect("unpacked"),
            4
        );
        assert_eq!(fs::read_to_string(to.join("a")).expect("a"), "one");
        assert_eq!(fs::read_to_string(to.join("sub/b")).expect("b"), "two");
        assert!(!to.join("link").exists());
        // One that a container made up.
        let mut evil = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_old();
        let name = b"data/../../out";
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_size(4);
        header.set_cksum();
        evil.append(&header, &b"evil"[..]).expect("appended");
        let evil = evil.into_inner().expect("an archive");
        assert_eq!(
            unpack(&evil[..], Path::new("data"), &to).expect("unpacked"),
            0
        );
        assert!(!dir.path().join("out").exists());
    }
}
