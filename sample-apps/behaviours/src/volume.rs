//! What a volume takes: a script of steps in one of the directories, each said with what came of it.
//!
//! | step | does |
//! | --- | --- |
//! | `write FILE BYTES` | writes that many, from the start, with `write` |
//! | `stream FILE BYTES`, `append FILE BYTES` | the same with a stream at the start, or at the end |
//! | `size FILE BYTES` | sets the file's size |
//! | `files`, `directories`, `symlinks` `NAME NUMBER` | makes `NAME0`, `NAME1`, … |
//! | `links FILE NAME NUMBER` | gives the file further names |
//! | `open FILE` | opens it and keeps it open, creating it if need be |
//! | `enter NAME` | makes a directory, and is in it from then on |
//! | `close` | closes all that is open |
//! | `unlink`, `rmdir` `NAME`; `rename NAME NAME` | |
//! | `move NAME DIRECTORY`, `link NAME DIRECTORY` | into another of the directories that it was lent |

use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{
    Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags, filesystem_error_code,
};
use wasip2::io::streams::{OutputStream, StreamError};

/// No more than a stream takes at once.
const CHUNK: usize = 4096;

pub fn script(directory: &str, steps: impl Iterator<Item = String>) {
    let mut at = lent(directory);
    let mut open = Vec::new();
    for step in steps {
        let words: Vec<&str> = step.split(' ').collect();
        let saw = run(&mut at, &mut open, &words);
        println!("{step}: {}", saw.unwrap_or_else(|| "no such step".into()));
    }
}

fn run(at: &mut Descriptor, open: &mut Vec<Descriptor>, words: &[&str]) -> Option<String> {
    let number = words.last().and_then(|word| word.parse().ok());
    Some(match (words, number) {
        (["write", file, _], Some(bytes)) => match created(at, file) {
            Ok(file) => all(bytes, |from, chunk| {
                let written = file.write(&vec![7; chunk], from as u64);
                written.map(|bytes| bytes as usize)
            }),
            Err(code) => code.name().into(),
        },
        (["stream", file, _], Some(bytes)) => match created(at, file) {
            Ok(file) => streamed(file.write_via_stream(0), bytes),
            Err(code) => code.name().into(),
        },
        (["append", file, _], Some(bytes)) => match created(at, file) {
            Ok(file) => streamed(file.append_via_stream(), bytes),
            Err(code) => code.name().into(),
        },
        (["size", file, _], Some(bytes)) => {
            said(created(at, file).and_then(|file| file.set_size(bytes as u64)))
        }
        (["files", name, _], Some(many)) => {
            several(many, |one| created(at, &format!("{name}{one}")).map(drop))
        }
        (["directories", name, _], Some(many)) => {
            several(many, |one| at.create_directory_at(&format!("{name}{one}")))
        }
        (["symlinks", name, _], Some(many)) => several(many, |one| {
            at.symlink_at("nowhere", &format!("{name}{one}"))
        }),
        (["links", file, name, _], Some(many)) => several(many, |one| {
            at.link_at(PathFlags::empty(), file, at, &format!("{name}{one}"))
        }),
        (["open", file], _) => said(created(at, file).map(|file| open.push(file))),
        (["enter", name], _) => {
            let entered = at.create_directory_at(name).and_then(|()| {
                let flags = DescriptorFlags::READ | DescriptorFlags::MUTATE_DIRECTORY;
                at.open_at(PathFlags::empty(), name, OpenFlags::DIRECTORY, flags)
            });
            said(entered.map(|entered| *at = entered))
        }
        (["close"], _) => {
            open.clear();
            "ok".into()
        }
        (["unlink", name], _) => said(at.unlink_file_at(name)),
        (["rmdir", name], _) => said(at.remove_directory_at(name)),
        (["rename", from, to], _) => said(at.rename_at(from, at, to)),
        (["move", name, directory], _) => said(at.rename_at(name, &lent(directory), name)),
        (["link", name, directory], _) => {
            said(at.link_at(PathFlags::empty(), name, &lent(directory), name))
        }
        _ => return None,
    })
}

fn created(at: &Descriptor, path: &str) -> Result<Descriptor, ErrorCode> {
    let flags = DescriptorFlags::READ | DescriptorFlags::WRITE;
    at.open_at(PathFlags::empty(), path, OpenFlags::CREATE, flags)
}

/// Does it in parts until all is done, or something is in the way.
fn all(bytes: usize, mut part: impl FnMut(usize, usize) -> Result<usize, ErrorCode>) -> String {
    let mut done = 0;
    while done < bytes {
        match part(done, (bytes - done).min(CHUNK)) {
            Ok(more) => done += more,
            Err(code) => return format!("{done}, then {}", code.name()),
        }
    }
    done.to_string()
}

fn several(many: usize, mut make: impl FnMut(usize) -> Result<(), ErrorCode>) -> String {
    for one in 0..many {
        if let Err(code) = make(one) {
            return format!("{one}, then {}", code.name());
        }
    }
    many.to_string()
}

fn streamed(stream: Result<OutputStream, ErrorCode>, bytes: usize) -> String {
    match stream {
        Ok(stream) => all(bytes, |_, chunk| {
            match stream.blocking_write_and_flush(&vec![7; chunk]) {
                Ok(()) => Ok(chunk),
                Err(StreamError::Closed) => Err(ErrorCode::Pipe),
                Err(StreamError::LastOperationFailed(error)) => {
                    Err(filesystem_error_code(&error).unwrap_or(ErrorCode::Io))
                }
            }
        }),
        Err(code) => code.name().into(),
    }
}

fn said(result: Result<(), ErrorCode>) -> String {
    match result {
        Ok(()) => "ok".into(),
        Err(code) => code.name().into(),
    }
}

fn lent(name: &str) -> Descriptor {
    let found = get_directories().into_iter().find(|(_, path)| path == name);
    found.expect("the test lends it").0
}
