//! `wasi:filesystem`, in a directory that may be written (`/rw`) and one that may not (`/ro`). Both hold the same:
//! `file` with five bytes, `folder` with `inside` in it, and the links `in` (to `file`), `out` (to `../secret`) and `root`
//! (to `/etc`).

use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{
    Descriptor, DescriptorFlags, ErrorCode, NewTimestamp, OpenFlags, PathFlags,
    filesystem_error_code,
};
use wasip2::io::streams::StreamError;

const READ: DescriptorFlags = DescriptorFlags::READ;
const WRITE: DescriptorFlags = DescriptorFlags::WRITE;
const FOLLOW: PathFlags = PathFlags::SYMLINK_FOLLOW;
const STAY: PathFlags = PathFlags::empty();
const ANY: OpenFlags = OpenFlags::empty();

pub fn row(row: &str) -> Option<String> {
    let (ro, rw) = (directory("/ro"), directory("/rw"));
    // The same in both directories.
    let both = |act: &dyn Fn(&Descriptor) -> String| format!("ro {}, rw {}", act(&ro), act(&rw));
    let open = |dir: &Descriptor, path: &str, open: OpenFlags, flags: DescriptorFlags| {
        said(dir.open_at(FOLLOW, path, open, flags))
    };
    Some(match row {
        "preopens" => {
            let mut names: Vec<String> = get_directories().into_iter().map(|(_, n)| n).collect();
            names.sort();
            format!("{names:?}")
        }
        "flags" => both(&|dir| format!("{:?}", dir.get_flags().map_err(named))),
        "open-missing" => both(&|dir| open(dir, "missing", ANY, READ)),
        "open-to-read" => both(&|dir| open(dir, "file", ANY, READ)),
        "open-to-write" => both(&|dir| open(dir, "file", ANY, WRITE)),
        "open-create" => both(&|dir| open(dir, "new", OpenFlags::CREATE, WRITE)),
        "open-create-to-read" => both(&|dir| open(dir, "new-too", OpenFlags::CREATE, READ)),
        "open-exclusive" => {
            both(&|dir| open(dir, "file", OpenFlags::CREATE | OpenFlags::EXCLUSIVE, WRITE))
        }
        "open-truncate" => both(&|dir| {
            let opened = open(dir, "file", OpenFlags::TRUNCATE, WRITE);
            format!("{opened} {}", size(dir, "file"))
        }),
        "open-file-as-directory" => both(&|dir| open(dir, "file", OpenFlags::DIRECTORY, READ)),
        "open-directory-mutably" => both(&|dir| {
            let flags = READ | DescriptorFlags::MUTATE_DIRECTORY;
            open(dir, "folder", OpenFlags::DIRECTORY, flags)
        }),
        "open-below-unmutable" => {
            let folder = rw.open_at(FOLLOW, "folder", OpenFlags::DIRECTORY, READ);
            match folder {
                Ok(folder) => open(&folder, "inside", ANY, WRITE),
                Err(code) => code.name().to_owned(),
            }
        }
        "within" => both(&|dir| {
            let paths = ["folder/../file", "./file", "folder/./inside", "in"];
            paths.map(|path| open(dir, path, ANY, READ)).join(" ")
        }),
        "escapes" => both(&|dir| {
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
            paths.map(|path| open(dir, path, ANY, READ)).join(" ")
        }),
        "escapes-by-stat" => both(&|dir| {
            ["../secret", "/etc", "out", "root/passwd"]
                .map(|path| said(dir.stat_at(FOLLOW, path)))
                .join(" ")
        }),
        "escapes-by-change" => both(&|dir| {
            [
                dir.create_directory_at("../made"),
                dir.unlink_file_at("../secret"),
                dir.rename_at("file", dir, "../file"),
                dir.rename_at("../secret", dir, "secret"),
                dir.link_at(STAY, "../secret", dir, "secret"),
                dir.symlink_at("file", "../link"),
                dir.remove_directory_at("../ro"),
            ]
            .map(said)
            .join(" ")
        }),
        "open-link-itself" => both(&|dir| said(dir.open_at(STAY, "in", ANY, READ))),
        "empty-path" => both(&|dir| open(dir, "", ANY, READ)),
        "readlink" => both(&|dir| {
            ["in", "out", "root", "file"]
                .map(|path| {
                    dir.readlink_at(path)
                        .unwrap_or_else(|code| code.name().to_owned())
                })
                .join(" ")
        }),
        "symlink" => both(&|dir| {
            let relative = said(dir.symlink_at("file", "link"));
            format!("{relative} {}", said(dir.symlink_at("/etc", "rooted")))
        }),
        "link" => both(&|dir| {
            [
                ("missing", "a"),
                ("file", "in"),
                ("folder", "b"),
                ("file", "hard"),
            ]
            .map(|(old, new)| said(dir.link_at(STAY, old, dir, new)))
            .join(" ")
        }),
        "link-across" => format!(
            "into ro {}, out of ro {}",
            said(rw.link_at(STAY, "file", &ro, "hard")),
            said(ro.link_at(STAY, "file", &rw, "hard"))
        ),
        "rename" => both(&|dir| {
            let renamed = said(dir.rename_at("file", dir, "moved"));
            format!("{renamed} {}", said(dir.rename_at("missing", dir, "moved")))
        }),
        "rename-across" => format!(
            "into ro {}, out of ro {}",
            said(rw.rename_at("file", &ro, "moved")),
            said(ro.rename_at("file", &rw, "moved"))
        ),
        "create-directory" => both(&|dir| {
            let made = said(dir.create_directory_at("made"));
            format!("{made} {}", said(dir.create_directory_at("folder")))
        }),
        "remove" => both(&|dir| {
            [
                dir.unlink_file_at("folder"),
                dir.remove_directory_at("folder"),
                dir.remove_directory_at("file"),
                dir.unlink_file_at("missing"),
                dir.unlink_file_at("in"),
            ]
            .map(said)
            .join(" ")
        }),
        "set-times" => both(&|dir| {
            let (now, keep) = (NewTimestamp::Now, NewTimestamp::NoChange);
            said(dir.set_times_at(FOLLOW, "file", now, keep))
        }),
        "set-size" => both(&|dir| {
            let file = dir.open_at(FOLLOW, "file", ANY, READ);
            let read_only = said(file.and_then(|file| file.set_size(2)));
            let file = dir.open_at(FOLLOW, "file", ANY, READ | WRITE);
            let grown = said(file.and_then(|file| file.set_size(8)));
            format!("{read_only} {grown} {}", size(dir, "file"))
        }),
        "stat" => both(&|dir| {
            ["file", "folder", "in"]
                .map(|path| match dir.stat_at(STAY, path) {
                    Ok(stat) => {
                        let kind = format!("{:?}", stat.type_);
                        kind.trim_start_matches("DescriptorType::").to_owned()
                    }
                    Err(code) => code.name().to_owned(),
                })
                .join(" ")
                + &format!(" {} {}", size(dir, "file"), size(dir, "in"))
        }),
        "read-directory" => both(&|dir| match dir.read_directory() {
            Ok(entries) => {
                let next = || entries.read_directory_entry().ok().flatten();
                let mut names: Vec<String> =
                    std::iter::from_fn(next).map(|entry| entry.name).collect();
                names.sort();
                names.join(" ")
            }
            Err(code) => code.name().to_owned(),
        }),
        "read-at-end" => {
            let file = ro.open_at(FOLLOW, "file", ANY, READ).ok()?;
            let read = |length, offset| {
                file.read(length, offset)
                    .map(|(bytes, end)| (bytes.len(), end))
                    .map_err(named)
            };
            format!("{:?} {:?} {:?}", read(3, 0), read(9, 3), read(9, 99))
        }
        "read-directory-as-file" => format!("{:?}", ro.read(1, 0).map_err(named)),
        "read-stream" => {
            let file = ro.open_at(FOLLOW, "file", ANY, READ).ok()?;
            let stream = file.read_via_stream(3).ok()?;
            let reads = [(); 3].map(|()| stream.blocking_read(9).map(|bytes| bytes.len()));
            format!("{reads:?}")
        }
        "write-past-end" => {
            let file = rw.open_at(FOLLOW, "file", ANY, READ | WRITE).ok()?;
            let written = file.write(b"!", 7).map_err(named);
            let read = file.read(99, 0).map_err(named);
            format!("{written:?} {read:?}")
        }
        "write-streams" => {
            let file = rw.open_at(FOLLOW, "file", ANY, READ | WRITE).ok()?;
            let over = file
                .write_via_stream(1)
                .ok()?
                .blocking_write_and_flush(b"E");
            let append = file
                .append_via_stream()
                .ok()?
                .blocking_write_and_flush(b"!");
            let (bytes, _) = file.read(99, 0).ok()?;
            format!("{over:?} {append:?} {}", String::from_utf8_lossy(&bytes))
        }
        "write-without-permission" => {
            let file = rw.open_at(FOLLOW, "file", ANY, READ).ok()?;
            let direct = file.write(b"!", 0).map_err(named);
            let stream = file.write_via_stream(0).map_err(named);
            let streamed = stream.map(|stream| match stream.blocking_write_and_flush(b"!") {
                Ok(()) => "written".to_owned(),
                Err(error) => why(&error),
            });
            format!("{direct:?} {streamed:?} {}", size(&rw, "file"))
        }
        "stream-fails-then-is-closed" => {
            let folder = ro
                .open_at(FOLLOW, "folder", OpenFlags::DIRECTORY, READ)
                .ok()?;
            match folder.read_via_stream(0) {
                Err(code) => format!("no stream: {}", code.name()),
                Ok(stream) => {
                    let reads = [(); 2].map(|()| match stream.blocking_read(9) {
                        Ok(bytes) => format!("{} bytes", bytes.len()),
                        Err(error) => why(&error),
                    });
                    reads.join(", ")
                }
            }
        }
        "same-object" => {
            let file = ro.open_at(FOLLOW, "file", ANY, READ).ok()?;
            let link = ro.open_at(FOLLOW, "in", ANY, READ).ok()?;
            let other = rw.open_at(FOLLOW, "file", ANY, READ).ok()?;
            let hashes = file.metadata_hash().ok().zip(link.metadata_hash().ok());
            let equal = hashes.is_some_and(|(a, b)| (a.lower, a.upper) == (b.lower, b.upper));
            format!(
                "{} {} {equal}",
                file.is_same_object(&link),
                file.is_same_object(&other)
            )
        }
        _ => return None,
    })
}

fn directory(name: &str) -> Descriptor {
    let found = get_directories().into_iter().find(|(_, path)| path == name);
    found.expect("the table lends both").0
}

fn why(error: &StreamError) -> String {
    match error {
        StreamError::Closed => "closed".to_owned(),
        StreamError::LastOperationFailed(error) => {
            format!("failed {:?}", filesystem_error_code(error).map(named))
        }
    }
}

/// `ok`, or the error's name.
fn said<T>(result: Result<T, ErrorCode>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(code) => code.name().to_owned(),
    }
}

fn named(code: ErrorCode) -> &'static str {
    code.name()
}

fn size(dir: &Descriptor, path: &str) -> String {
    match dir.stat_at(STAY, path) {
        Ok(stat) => stat.size.to_string(),
        Err(code) => code.name().to_owned(),
    }
}
