//! A copy of the state in one file, and a new cluster made from it.
//!
//! The file is a row of framed records (`codec.rs`), each behind its length: a head, every entry in key order, and a tail
//! that says how many there were. It is written beside, synced and renamed, so a file under its name is complete.
//!
//! A restored store belongs to a new cluster, so that servers and clients of the old one are refused instead of
//! believed, and its revision is far ahead of the backup's: no revision that was handed out after the backup was taken
//! comes up again with another meaning. Watches from before find their revision compacted, and list anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::{self, decode_entry, encode_entry};
use crate::codec::{Reader, Writer};
use crate::disk::{Disk, Machine};
use crate::error::{BackupError, DecodeError};
use crate::key::{Key, Revision};
use crate::machine::{Members, Position, State};
use crate::tables::{self, Identity};
use crate::volume::Volume;
use crate::{Config, LOG_FILE, STATE_FILE, log};

/// Version of the records of a backup.
const FORMAT: u8 = 1;

/// What a restore adds to the revision: more mutations than sixteen days of 3,000 a second.
const REVISION_BUMP: Revision = 1 << 32;

/// Largest record: an entry of the largest command, with room for its frame.
const RECORD_BYTES_MAX: u32 = 8 << 20;

/// The restored state's place in the log of the new cluster, before its first entry: a learner that has nothing is
/// behind it, and so is sent the state instead of the log.
const BASE: Position = Position {
    term: 0,
    server: 0,
    index: 1,
};

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// The cluster it was taken from.
    pub cluster_id: String,
    /// The revision it shows.
    pub revision: Revision,
    /// How many keys it holds.
    pub entries: u64,
}

fn at(path: &Path) -> impl Fn(io::Error) -> BackupError + '_ {
    |source| BackupError::Io {
        path: path.to_owned(),
        source,
    }
}

fn put(out: &mut impl Write, record: &[u8]) -> io::Result<()> {
    let length = u32::try_from(record.len()).map_err(io::Error::other)?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(record)
}

fn take(input: &mut impl Read) -> Result<Bytes, io::Error> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > RECORD_BYTES_MAX {
        return Err(io::Error::other("a record is longer than any can be"));
    }
    let mut record = Vec::new();
    let read = input.take(u64::from(length)).read_to_end(&mut record)?;
    if read < length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Bytes::from(record))
}

/// Writes a backup. Blocks.
pub(crate) fn write(path: &Path, state: &State, cluster_id: &str) -> Result<Backup, BackupError> {
    let new = PathBuf::from(format!("{}.new", path.display()));
    let file = File::create(&new).map_err(at(&new))?;
    let entries = state.entries.len() as u64;
    let write = |out: &mut BufWriter<&File>| -> io::Result<()> {
        let mut head = Writer::new(FORMAT);
        head.bytes(cluster_id.as_bytes());
        head.u64(state.revision);
        head.u64(entries);
        put(out, &head.finish(b"head"))?;
        for entry in state.entries.copy(Bound::Unbounded) {
            let entry = entry?;
            let mut record = Writer::new(FORMAT);
            record.bytes(entry.key.as_bytes());
            record.tail(&encode_entry(&entry, tables::FORMAT));
            put(out, &record.finish(b"entry"))?;
        }
        let mut tail = Writer::new(FORMAT);
        tail.u64(entries);
        put(out, &tail.finish(b"tail"))?;
        out.flush()
    };
    write(&mut BufWriter::new(&file))
        .and_then(|()| file.sync_all())
        .map_err(at(&new))?;
    Machine.rename(&new, path).map_err(at(path))?;
    Ok(Backup {
        cluster_id: cluster_id.to_owned(),
        revision: state.revision,
        entries,
    })
}

fn read(path: &Path) -> Result<(Backup, State), BackupError> {
    let unsound = |source| BackupError::Record {
        path: path.to_owned(),
        source,
    };
    let mut input = BufReader::new(File::open(path).map_err(at(path))?);
    let mut next = |context: &[u8]| -> Result<Reader, BackupError> {
        let record = take(&mut input).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => unsound(DecodeError::Truncated),
            _ => at(path)(error),
        })?;
        Reader::open(record, context, FORMAT).map_err(unsound)
    };
    let mut head = next(b"head")?;
    let mut read_head = || {
        Ok(Backup {
            cluster_id: String::from_utf8_lossy(&head.bytes()?).into_owned(),
            revision: head.u64()?,
            entries: head.u64()?,
        })
    };
    let backup: Backup = read_head().map_err(unsound)?;
    let mut state = State {
        revision: backup.revision,
        ..State::default()
    };
    for _ in 0..backup.entries {
        let mut record = next(b"entry")?;
        let key = Key::new(record.bytes().map_err(unsound)?);
        let entry = decode_entry(key, record.tail()).map_err(unsound)?;
        state.bytes += entry.bytes();
        state.entries.insert(Arc::new(entry));
    }
    let counted = next(b"tail")?.u64().map_err(unsound)?;
    if counted != backup.entries || state.entries.len() as u64 != backup.entries {
        return Err(unsound(DecodeError::Truncated));
    }
    Ok((backup, state))
}

/// Makes the store of a new cluster in `config.dir` from a backup, with `config.server_id` as its only server.
///
/// `config.cluster_id` must be a new name. The store is opened as any other afterwards. Blocks.
///
/// # Errors
/// [`BackupError`]: the backup is not sound, or the folder already holds a store. No store is there then.
pub fn restore(backup: &Path, config: &Config) -> Result<Backup, BackupError> {
    let invalid = |path: &Path, reason: &str| BackupError::Invalid {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let (found, mut state) = read(backup)?;
    if found.cluster_id == config.cluster_id {
        let reason =
            "the new cluster has the old one's name; servers of both would believe each other";
        return Err(invalid(backup, reason));
    }
    let disk = Arc::new(Machine);
    let _held = disk.hold(&config.dir).map_err(BackupError::Write)?;
    let (log_path, state_path) = (config.dir.join(LOG_FILE), config.dir.join(STATE_FILE));
    for path in [&log_path, &state_path] {
        if disk.exists(path).map_err(at(path))? {
            return Err(invalid(
                &config.dir,
                "the folder holds a store already; use an empty one",
            ));
        }
    }
    state.revision += REVISION_BUMP;
    state.applied = Some(BASE);
    state.members_position = Some(BASE);
    state.members = Members {
        voters: vec![BTreeSet::from([config.server_id])],
        addresses: BTreeMap::from([(config.server_id, config.address.clone())]),
    };
    state.servers_ever = config.server_id;
    let identity = Identity {
        cluster_id: config.cluster_id.clone(),
        server_id: config.server_id,
    };
    let volume = Volume::open(disk, &config.dir).map_err(at(&config.dir))?;
    // A log without a state would be opened as an empty store, a state without a log is refused: so the state first.
    checkpoint::create(&volume, &state_path, &identity, &state).map_err(BackupError::Write)?;
    log::create(&volume, &log_path, &identity, Some(BASE)).map_err(BackupError::Write)?;
    Ok(found)
}
