//! Archives made: each file is read and written in pieces; one that shrinks meanwhile is filled up with zeros and complained of.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;

use crate::applet::Output;
use crate::tools::call::{CHUNK_BYTES, Call, Ended, Stop, cannot_open, reason};
use crate::tools::filesystem::{self, Kind};
use crate::tools::flags::Flags;
use crate::tools::gzip::Packer;
use crate::tools::identity::Names;

use super::header::{BLOCK, headers, padding};
use super::{EXCLUDE, excluded_by, lines_of};

/// Files with several names that are remembered.
const LINKED_MAX: usize = 1 << 20;

/// How deep a tree may be.
const DEPTH_MAX: usize = 512;

struct Writer {
    output: Output,
    packer: Option<Packer>,
}

impl Writer {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        match &mut self.packer {
            None => self.output.write_all(bytes).await.map_err(Stop::Output),
            Some(packer) => {
                let packed = packer.pack(bytes).map_err(Stop::failed)?;
                self.output.write_all(&packed).await.map_err(Stop::Output)
            }
        }
    }

    async fn finish(&mut self) -> Result<(), Stop> {
        self.write(&[0; 2 * BLOCK]).await?;
        if let Some(packer) = &mut self.packer {
            let packed = packer.finish().map_err(Stop::failed)?;
            self.output.write_all(&packed).await.map_err(Stop::Output)?;
        }
        self.output.flush().await.map_err(Stop::Output)
    }
}

pub async fn create(call: &mut Call, flags: &Flags, archive: &str) -> Ended {
    let mut names = flags.rest.clone();
    if let Some(list) = flags.value('T') {
        names.extend(lines_of(call, list).await?);
    }
    if names.is_empty() {
        return Err(Stop::failed("empty archive"));
    }
    let mut excluded: Vec<String> = flags.values(EXCLUDE).map(str::to_owned).collect();
    for list in flags.values('X').map(str::to_owned).collect::<Vec<_>>() {
        excluded.extend(lines_of(call, &list).await?);
    }
    let own = match archive {
        "-" => None,
        name => {
            let file = File::create(call.path(name))
                .map_err(|error| Stop::failed(cannot_open(name, &error)))?;
            Some((file, filesystem::about(&call.path(name), true).ok()))
        }
    };
    let (output, own) = match own {
        None => (call.io.stdout.clone(), None),
        Some((file, about)) => (Output::file(file), about),
    };
    let named_own = archive != "-";
    let mut writer = Writer {
        output,
        packer: flags.has('z').then(Packer::new),
    };
    let base = match flags.value('C') {
        None => call.io.cwd.clone(),
        Some(directory) => call.path(directory),
    };
    if !base.is_dir() {
        let directory = flags.value('C').unwrap_or_default();
        return Err(Stop::failed(format!(
            "can't change directory to '{directory}': No such file or directory"
        )));
    }
    let owners = Names::of(call);
    let mut linked: BTreeMap<(u64, u64), String> = BTreeMap::new();
    let mut stripped = false;
    let mut waiting: Vec<(String, usize)> = names.into_iter().rev().map(|name| (name, 0)).collect();
    while let Some((name, depth)) = waiting.pop() {
        let path = base.join(&name);
        let about = match filesystem::about(&path, flags.has('h')) {
            Ok(about) => about,
            Err(error) => {
                call.fault(format!("{name}: {}", reason(&error))).await;
                continue;
            }
        };
        if own
            .as_ref()
            .is_some_and(|own| own.is(&about) && own.inode != 0)
        {
            call.fault(format!("{name}: file is the archive; skipping"))
                .await;
            continue;
        }
        let bare = name.trim_start_matches('/');
        if excluded_by(&excluded, bare) {
            continue;
        }
        if bare.len() < name.len() && !std::mem::replace(&mut stripped, true) {
            let text = format!("{}: removing leading '/' from member names\n", call.name);
            call.say(text).await;
        }
        let stored = if bare.is_empty() { "./" } else { bare };
        let mut stored = stored.to_owned();
        if about.is_directory() && !stored.ends_with('/') {
            stored.push('/');
        }
        if flags.has('v') {
            let line = format!("{stored}\n");
            if named_own {
                call.out(line).await?
            } else {
                call.say(line).await
            }
        }
        let mut link = String::new();
        let mut kind = match about.kind {
            Kind::Directory => b'5',
            Kind::Link => {
                link = fs::read_link(&path)
                    .map(|to| to.to_string_lossy().into_owned())
                    .unwrap_or_default();
                b'2'
            }
            Kind::File => b'0',
            Kind::Fifo => b'6',
            Kind::Character => b'3',
            Kind::Block => b'4',
            Kind::Socket => {
                call.fault(format!("{name}: socket ignored")).await;
                continue;
            }
        };
        if kind == b'0' && about.links > 1 && about.inode != 0 {
            let key = (about.device, about.inode);
            match linked.get(&key) {
                Some(first) => (kind, link) = (b'1', first.clone()),
                None if linked.len() < LINKED_MAX => drop(linked.insert(key, stored.clone())),
                None => {}
            }
        }
        if kind != b'0' {
            let head = headers(&stored, &link, kind, 0, &about, &owners);
            writer.write(&head).await?;
        } else {
            match File::open(&path) {
                Err(error) => {
                    call.fault(cannot_open(&name, &error)).await;
                    continue;
                }
                Ok(file) => {
                    let head = headers(&stored, &link, kind, about.size, &about, &owners);
                    writer.write(&head).await?;
                    let short = store(&mut writer, file, about.size).await?;
                    if short {
                        call.fault(format!("{name}: file changed as it was read"))
                            .await;
                    }
                }
            }
        }
        if about.is_directory() && depth < DEPTH_MAX {
            match filesystem::entries(&path) {
                Ok(entries) => {
                    let base = if name.ends_with('/') {
                        name
                    } else {
                        format!("{name}/")
                    };
                    waiting.extend(
                        entries
                            .into_iter()
                            .rev()
                            .map(|entry| (format!("{base}{entry}"), depth + 1)),
                    );
                }
                Err(error) => call.fault(cannot_open(&name, &error)).await,
            }
        }
    }
    writer.finish().await?;
    if call.code != 0 {
        let text = format!("{}: error exit delayed from previous errors\n", call.name);
        call.say(text).await;
    }
    Ok(call.code)
}

/// Writes exactly the bytes that the header promised; whether there were fewer.
async fn store(writer: &mut Writer, mut file: File, size: u64) -> Result<bool, Stop> {
    let mut left = size;
    let mut buf = vec![0; CHUNK_BYTES];
    let mut short = false;
    while left > 0 {
        let wanted = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = match short {
            true => 0,
            false => file
                .read(buf.get_mut(..wanted).unwrap_or_default())
                .unwrap_or(0),
        };
        let count = match read {
            0 => {
                short = true;
                buf.fill(0);
                wanted
            }
            read => read,
        };
        writer.write(buf.get(..count).unwrap_or_default()).await?;
        left -= count as u64;
    }
    let padding = padding(size);
    writer.write(&[0; BLOCK][..padding]).await?;
    Ok(short)
}
