//! `wasi:filesystem`, in a directory that may be written (`/rw`) and one that may not (`/ro`). Both hold the same:
//! `file` with five bytes, `folder` with `inside` in it, and the links `in` (to `file`), `out` (to `../secret`) and `root`
//! (to `/etc`).

use wasip3::filesystem::preopens::get_directories;
use wasip3::filesystem::types::{
    Descriptor, DescriptorFlags, ErrorCode, NewTimestamp, OpenFlags, PathFlags,
};
use wasip3::wit_stream;

const READ: DescriptorFlags = DescriptorFlags::READ;
const WRITE: DescriptorFlags = DescriptorFlags::WRITE;
const FOLLOW: PathFlags = PathFlags::SYMLINK_FOLLOW;
const STAY: PathFlags = PathFlags::empty();
const ANY: OpenFlags = OpenFlags::empty();

pub async fn row(row: &str) -> Option<String> {
    let (ro, rw) = (directory("/ro"), directory("/rw"));
    if let Some(saw) = across(row, &ro, &rw).await {
        return Some(saw);
    }
    let (ro, rw) = (one(row, &ro).await?, one(row, &rw).await?);
    Some(format!("ro {ro}, rw {rw}"))
}

/// What is the same in both directories.
async fn one(row: &str, dir: &Descriptor) -> Option<String> {
    Some(match row {
        "flags" => format!("{:?}", dir.get_flags().await),
        "open-missing" => open(dir, "missing", ANY, READ).await,
        "open-to-read" => open(dir, "file", ANY, READ).await,
        "open-to-write" => open(dir, "file", ANY, WRITE).await,
        "open-create" => open(dir, "new", OpenFlags::CREATE, WRITE).await,
        "open-create-to-read" => open(dir, "new-too", OpenFlags::CREATE, READ).await,
        "open-exclusive" => {
            open(dir, "file", OpenFlags::CREATE | OpenFlags::EXCLUSIVE, WRITE).await
        }
        "open-truncate" => {
            let opened = open(dir, "file", OpenFlags::TRUNCATE, WRITE).await;
            format!("{opened} {}", size(dir, "file").await)
        }
        "open-file-as-directory" => open(dir, "file", OpenFlags::DIRECTORY, READ).await,
        "within" => opened(dir, &["folder/../file", "./file", "folder/./inside", "in"]).await,
        "escapes" => {
            let paths = [
                "../secret",
                "folder/../../secret",
                "..",
                "/etc",
                "out",
                "root",
                "root/passwd",
                "out/",
                "/proc/self/root",
            ];
            opened(dir, &paths).await
        }
        "escapes-by-change" => [
            said(dir.create_directory_at("../made".into()).await),
            said(dir.unlink_file_at("../secret".into()).await),
            said(dir.rename_at("file".into(), dir, "../file".into()).await),
            said(
                dir.rename_at("../secret".into(), dir, "secret".into())
                    .await,
            ),
            said(
                dir.link_at(STAY, "../secret".into(), dir, "secret".into())
                    .await,
            ),
            said(dir.symlink_at("file".into(), "../link".into()).await),
            said(dir.remove_directory_at("../ro".into()).await),
        ]
        .join(" "),
        "open-link-itself" => said(dir.open_at(STAY, "in".into(), ANY, READ).await),
        "empty-path" => open(dir, "", ANY, READ).await,
        "readlink" => {
            let mut links = Vec::new();
            for path in ["in", "out", "root", "file"] {
                links.push(match dir.readlink_at(path.into()).await {
                    Ok(link) => link,
                    Err(code) => name(&code),
                });
            }
            links.join(" ")
        }
        "symlink" => format!(
            "{} {}",
            said(dir.symlink_at("file".into(), "link".into()).await),
            said(dir.symlink_at("/etc".into(), "rooted".into()).await)
        ),
        "link" => {
            let mut links = Vec::new();
            for (old, new) in [
                ("missing", "a"),
                ("file", "in"),
                ("folder", "b"),
                ("file", "hard"),
            ] {
                links.push(said(dir.link_at(STAY, old.into(), dir, new.into()).await));
            }
            links.join(" ")
        }
        "rename" => format!(
            "{} {}",
            said(dir.rename_at("file".into(), dir, "moved".into()).await),
            said(dir.rename_at("missing".into(), dir, "moved".into()).await)
        ),
        "create-directory" => format!(
            "{} {}",
            said(dir.create_directory_at("made".into()).await),
            said(dir.create_directory_at("folder".into()).await)
        ),
        "remove" => [
            said(dir.unlink_file_at("folder".into()).await),
            said(dir.remove_directory_at("folder".into()).await),
            said(dir.remove_directory_at("file".into()).await),
            said(dir.unlink_file_at("missing".into()).await),
            said(dir.unlink_file_at("in".into()).await),
        ]
        .join(" "),
        "set-times" => {
            let (now, keep) = (NewTimestamp::Now, NewTimestamp::NoChange);
            said(dir.set_times_at(FOLLOW, "file".into(), now, keep).await)
        }
        "set-size" => {
            let read_only = match dir.open_at(FOLLOW, "file".into(), ANY, READ).await {
                Ok(file) => said(file.set_size(2).await),
                Err(code) => name(&code),
            };
            let grown = match dir.open_at(FOLLOW, "file".into(), ANY, READ | WRITE).await {
                Ok(file) => said(file.set_size(8).await),
                Err(code) => name(&code),
            };
            format!("{read_only} {grown} {}", size(dir, "file").await)
        }
        "stat" => {
            let mut stats = Vec::new();
            for path in ["file", "folder", "in"] {
                stats.push(match dir.stat_at(STAY, path.into()).await {
                    Ok(stat) => format!("{:?} {}", stat.type_, stat.size.min(9)),
                    Err(code) => name(&code),
                });
            }
            stats.join(" ").replace("DescriptorType::", "")
        }
        "read-directory" => {
            let (entries, end) = dir.read_directory();
            let entries = entries.collect().await.into_iter();
            let mut names: Vec<String> = entries.map(|entry| entry.name).collect();
            names.sort();
            format!("{} {:?}", names.join(" "), end.await)
        }
        "read-stream" => {
            let file = dir.open_at(FOLLOW, "file".into(), ANY, READ).await.ok()?;
            let mut reads = Vec::new();
            for offset in [0, 3, 99] {
                let (bytes, end) = file.read_via_stream(offset);
                reads.push(format!("{} {:?}", bytes.collect().await.len(), end.await));
            }
            reads.join(", ")
        }
        "read-stream-dropped" => {
            let file = dir.open_at(FOLLOW, "file".into(), ANY, READ).await.ok()?;
            let (bytes, end) = file.read_via_stream(0);
            drop(bytes);
            format!("{:?}", end.await)
        }
        "read-directory-as-file" => {
            let (bytes, end) = dir.read_via_stream(0);
            format!("{} {:?}", bytes.collect().await.len(), end.await)
        }
        "read-file-as-directory" => {
            let file = dir.open_at(FOLLOW, "file".into(), ANY, READ).await.ok()?;
            let (entries, end) = file.read_directory();
            format!("{} {:?}", entries.collect().await.len(), end.await)
        }
        _ => return None,
    })
}

/// What takes both directories, or just the one that may be written.
async fn across(row: &str, ro: &Descriptor, rw: &Descriptor) -> Option<String> {
    Some(match row {
        "preopens" => {
            let mut names: Vec<String> = get_directories().into_iter().map(|(_, n)| n).collect();
            names.sort();
            format!("{names:?}")
        }
        "open-below-unmutable" => {
            let folder = rw
                .open_at(FOLLOW, "folder".into(), OpenFlags::DIRECTORY, READ)
                .await;
            match folder {
                Ok(folder) => open(&folder, "inside", ANY, WRITE).await,
                Err(code) => name(&code),
            }
        }
        "link-across" => format!(
            "into ro {}, out of ro {}",
            said(rw.link_at(STAY, "file".into(), ro, "hard".into()).await),
            said(ro.link_at(STAY, "file".into(), rw, "hard".into()).await)
        ),
        "rename-across" => format!(
            "into ro {}, out of ro {}",
            said(rw.rename_at("file".into(), ro, "moved".into()).await),
            said(ro.rename_at("file".into(), rw, "moved".into()).await)
        ),
        "write-past-end" => {
            let file = rw
                .open_at(FOLLOW, "file".into(), ANY, READ | WRITE)
                .await
                .ok()?;
            let written = write(&file, b"!", Some(7)).await;
            format!("{written} {:?}", file.read_via_stream(0).0.collect().await)
        }
        "write-streams" => {
            let file = rw
                .open_at(FOLLOW, "file".into(), ANY, READ | WRITE)
                .await
                .ok()?;
            let over = write(&file, b"E", Some(1)).await;
            let append = write(&file, b"!", None).await;
            let bytes = file.read_via_stream(0).0.collect().await;
            format!("{over}; {append}; {}", String::from_utf8_lossy(&bytes))
        }
        "write-without-permission" => {
            let file = rw.open_at(FOLLOW, "file".into(), ANY, READ).await.ok()?;
            let written = write(&file, b"!", Some(0)).await;
            format!("{written}; {}", size(rw, "file").await)
        }
        "same-object" => {
            let file = ro.open_at(FOLLOW, "file".into(), ANY, READ).await.ok()?;
            let link = ro.open_at(FOLLOW, "in".into(), ANY, READ).await.ok()?;
            let other = rw.open_at(FOLLOW, "file".into(), ANY, READ).await.ok()?;
            let hashes = file
                .metadata_hash()
                .await
                .ok()
                .zip(link.metadata_hash().await.ok());
            let equal = hashes.is_some_and(|(a, b)| (a.lower, a.upper) == (b.lower, b.upper));
            format!(
                "{} {} {equal}",
                file.is_same_object(&link).await,
                file.is_same_object(&other).await
            )
        }
        _ => return None,
    })
}

fn directory(name: &str) -> Descriptor {
    let found = get_directories().into_iter().find(|(_, path)| path == name);
    found.expect("the table lends both").0
}

async fn open(dir: &Descriptor, path: &str, open: OpenFlags, flags: DescriptorFlags) -> String {
    said(dir.open_at(FOLLOW, path.into(), open, flags).await)
}

async fn opened(dir: &Descriptor, paths: &[&str]) -> String {
    let mut seen = Vec::new();
    for path in paths {
        seen.push(open(dir, path, ANY, READ).await);
    }
    seen.join(" ")
}

/// Writes at an offset, or at the end.
async fn write(file: &Descriptor, bytes: &[u8], offset: Option<u64>) -> String {
    let (mut writer, reader) = wit_stream::new();
    let written = match offset {
        Some(offset) => file.write_via_stream(reader, offset),
        None => file.append_via_stream(reader),
    };
    let left = writer.write_all(bytes.to_vec()).await;
    drop(writer);
    format!("{left:?} left, {:?}", written.await)
}

/// `ok`, or the error's name.
fn said<T>(result: Result<T, ErrorCode>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(code) => name(&code),
    }
}

/// The error's name as the interface spells it.
pub fn name(code: &ErrorCode) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}")
        .trim_start_matches("ErrorCode::")
        .chars()
    {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

async fn size(dir: &Descriptor, path: &str) -> String {
    match dir.stat_at(STAY, path.into()).await {
        Ok(stat) => stat.size.to_string(),
        Err(code) => name(&code),
    }
}
