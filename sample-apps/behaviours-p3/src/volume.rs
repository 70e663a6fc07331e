//! What a volume takes: a script of steps in one of the directories, each said with what came of it. The steps are those of
//! `sample-apps/behaviours/src/volume.rs`; 0.3 has no `write` but by a stream.

use wasip3::filesystem::preopens::get_directories;
use wasip3::filesystem::types::{Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags};
use wasip3::wit_stream;

const CHUNK: usize = 4096;

pub async fn script(directory: &str, steps: impl Iterator<Item = String>) {
    let mut at = lent(directory);
    let mut open = Vec::new();
    for step in steps {
        let words: Vec<&str> = step.split(' ').collect();
        let saw = run(&mut at, &mut open, &words).await;
        println!("{step}: {}", saw.unwrap_or_else(|| "no such step".into()));
    }
}

async fn run(at: &mut Descriptor, open: &mut Vec<Descriptor>, words: &[&str]) -> Option<String> {
    let number = words.last().and_then(|word| word.parse::<usize>().ok());
    Some(match (words, number) {
        (["write" | "stream", file, _], Some(bytes)) => match created(at, file).await {
            Ok(file) => streamed(&file, bytes, Some(0)).await,
            Err(code) => name(&code),
        },
        (["append", file, _], Some(bytes)) => match created(at, file).await {
            Ok(file) => streamed(&file, bytes, None).await,
            Err(code) => name(&code),
        },
        (["size", file, _], Some(bytes)) => said(match created(at, file).await {
            Ok(file) => file.set_size(bytes as u64).await,
            Err(code) => Err(code),
        }),
        (["files", name, _], Some(many)) => {
            let make = async |one| created(at, &format!("{name}{one}")).await.map(drop);
            several(many, make).await
        }
        (["directories", name, _], Some(many)) => {
            let make = async |one| at.create_directory_at(format!("{name}{one}")).await;
            several(many, make).await
        }
        (["symlinks", name, _], Some(many)) => {
            let make = async |one| {
                at.symlink_at("nowhere".into(), format!("{name}{one}"))
                    .await
            };
            several(many, make).await
        }
        (["links", file, name, _], Some(many)) => {
            let make = async |one| {
                let (old, new) = (file.to_string(), format!("{name}{one}"));
                at.link_at(PathFlags::empty(), old, at, new).await
            };
            several(many, make).await
        }
        (["open", file], _) => said(created(at, file).await.map(|file| open.push(file))),
        (["enter", name], _) => said(match at.create_directory_at(name.to_string()).await {
            Ok(()) => {
                let flags = DescriptorFlags::READ | DescriptorFlags::MUTATE_DIRECTORY;
                let (path, kind) = (name.to_string(), OpenFlags::DIRECTORY);
                let entered = at.open_at(PathFlags::empty(), path, kind, flags).await;
                entered.map(|entered| *at = entered)
            }
            Err(code) => Err(code),
        }),
        (["close"], _) => {
            open.clear();
            "ok".into()
        }
        (["unlink", name], _) => said(at.unlink_file_at(name.to_string()).await),
        (["rmdir", name], _) => said(at.remove_directory_at(name.to_string()).await),
        (["rename", from, to], _) => said(at.rename_at(from.to_string(), at, to.to_string()).await),
        (["move", name, directory], _) => {
            let (name, there) = (name.to_string(), lent(directory));
            said(at.rename_at(name.clone(), &there, name).await)
        }
        (["link", name, directory], _) => {
            let (name, there) = (name.to_string(), lent(directory));
            said(
                at.link_at(PathFlags::empty(), name.clone(), &there, name)
                    .await,
            )
        }
        _ => return None,
    })
}

async fn created(at: &Descriptor, path: &str) -> Result<Descriptor, ErrorCode> {
    let flags = DescriptorFlags::READ | DescriptorFlags::WRITE;
    at.open_at(PathFlags::empty(), path.into(), OpenFlags::CREATE, flags)
        .await
}

async fn several(many: usize, mut make: impl AsyncFnMut(usize) -> Result<(), ErrorCode>) -> String {
    for one in 0..many {
        if let Err(code) = make(one).await {
            return format!("{one}, then {}", name(&code));
        }
    }
    many.to_string()
}

/// Writes at an offset, or at the end, until all is done or something is in the way.
async fn streamed(file: &Descriptor, bytes: usize, offset: Option<u64>) -> String {
    let (mut writer, reader) = wit_stream::new();
    let ended = match offset {
        Some(offset) => file.write_via_stream(reader, offset),
        None => file.append_via_stream(reader),
    };
    let mut done = 0;
    while done < bytes {
        let chunk = (bytes - done).min(CHUNK);
        let left = writer.write_all(vec![7; chunk]).await.len();
        done += chunk - left;
        if left > 0 {
            break;
        }
    }
    drop(writer);
    match ended.await {
        Ok(()) => done.to_string(),
        Err(code) => format!("{done}, then {}", name(&code)),
    }
}

fn said(result: Result<(), ErrorCode>) -> String {
    match result {
        Ok(()) => "ok".into(),
        Err(code) => name(&code),
    }
}

/// The error's name as the interface spells it.
fn name(code: &ErrorCode) -> String {
    super::filesystem::name(code)
}

fn lent(name: &str) -> Descriptor {
    let found = get_directories().into_iter().find(|(_, path)| path == name);
    found.expect("the test lends it").0
}
