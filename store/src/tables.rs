//! The two redb files: their tables, their identity record, and how a file comes into being.
//!
//! `log.redb`: `meta` (identity, vote, purged, committed) and `log` (index → record).
//! `state.redb`: `meta` (identity, state), `objects` (key → entry) and `events` (revision → event).
//! Every value is a framed record (`codec.rs`), its context the table's name and the key.
//!
//! Invariants: a file under its final name is complete (it is built beside, synced, renamed, and the folder synced);
//! a file of another cluster, another server or a newer format is refused before anything in it is used.

use std::fs::File;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, TableDefinition, WriteTransaction};

use crate::codec::{Reader, Writer};
use crate::error::{DecodeError, OpenError};
use crate::key::ServerId;

/// Version of every record body this program writes, and the newest it reads.
pub(crate) const FORMAT: u8 = 1;

pub(crate) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
pub(crate) const LOG: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log");
pub(crate) const OBJECTS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("objects");
pub(crate) const EVENTS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("events");

const IDENTITY: &str = "identity";

/// The context under which a record's checksum is taken.
pub(crate) fn context(table: &str, key: &[u8]) -> Vec<u8> {
    let mut context = Vec::with_capacity(table.len() + 1 + key.len());
    context.extend_from_slice(table.as_bytes());
    context.push(0);
    context.extend_from_slice(key);
    context
}

pub(crate) fn meta_context(key: &str) -> Vec<u8> {
    context("meta", key.as_bytes())
}

pub(crate) fn index_context(table: &str, index: u64) -> Vec<u8> {
    context(table, &index.to_be_bytes())
}

/// Whose folder this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub cluster_id: String,
    pub server_id: ServerId,
}

impl Identity {
    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(FORMAT);
        writer.bytes(self.cluster_id.as_bytes());
        writer.u64(self.server_id);
        writer.finish(&meta_context(IDENTITY))
    }

    fn decode(record: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(record, &meta_context(IDENTITY), FORMAT)?;
        let identity = Identity {
            cluster_id: String::from_utf8_lossy(&reader.bytes()?).into_owned(),
            server_id: reader.u64()?,
        };
        reader.finish()?;
        Ok(identity)
    }

    fn text(&self) -> String {
        format!("server {} of cluster {}", self.server_id, self.cluster_id)
    }
}

/// Errors of one file, with the file's name put in.
pub(crate) struct InFile<'a>(pub &'a Path);

impl InFile<'_> {
    pub(crate) fn database(&self, error: impl Into<redb::Error>) -> OpenError {
        OpenError::Database {
            path: self.0.to_owned(),
            source: Box::new(error.into()),
        }
    }

    pub(crate) fn io(&self, source: std::io::Error) -> OpenError {
        OpenError::Io {
            path: self.0.to_owned(),
            source,
        }
    }

    pub(crate) fn record(&self, record: impl Into<String>, source: DecodeError) -> OpenError {
        OpenError::Record {
            path: self.0.to_owned(),
            record: record.into(),
            source,
        }
    }

    pub(crate) fn inconsistent(&self, reason: impl Into<String>) -> OpenError {
        OpenError::Inconsistent {
            path: self.0.to_owned(),
            reason: reason.into(),
        }
    }
}

fn beside(path: &Path) -> PathBuf {
    path.with_extension("redb.new")
}

/// Makes a complete file at `path`, in place of one that may be there. `fill` writes the content of its first
/// transaction.
pub(crate) fn create(
    path: &Path,
    identity: &Identity,
    cache_bytes: usize,
    fill: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
) -> Result<Database, OpenError> {
    let file = InFile(path);
    let new = beside(path);
    match std::fs::remove_file(&new) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(InFile(&new).io(error)),
    }
    let database = Database::builder()
        .set_cache_size(cache_bytes)
        .create(&new)
        .map_err(|error| file.database(error))?;
    let write = || -> Result<(), redb::Error> {
        let mut transaction = database.begin_write()?;
        transaction.set_quick_repair(true);
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert(IDENTITY, identity.encode().as_slice())?;
        }
        fill(&transaction)?;
        transaction.commit()?;
        Ok(())
    };
    write().map_err(|error| file.database(error))?;
    std::fs::rename(&new, path).map_err(|error| file.io(error))?;
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| InFile(dir).io(error))?;
    Ok(database)
}

/// Opens the file at `path` and checks whose it is; `None` where there is none.
pub(crate) fn open(
    path: &Path,
    identity: &Identity,
    cache_bytes: usize,
) -> Result<Option<Database>, OpenError> {
    let file = InFile(path);
    if !path.try_exists().map_err(|error| file.io(error))? {
        return Ok(None);
    }
    let database = Database::builder()
        .set_cache_size(cache_bytes)
        .open(path)
        .map_err(|error| file.database(error))?;
    let read = || -> Result<Option<Bytes>, redb::Error> {
        let transaction = database.begin_read()?;
        let meta = transaction.open_table(META)?;
        let record = meta.get(IDENTITY)?;
        Ok(record.map(|record| Bytes::copy_from_slice(record.value())))
    };
    let record = read()
        .map_err(|error| file.database(error))?
        .ok_or_else(|| file.inconsistent("it does not say which server wrote it"))?;
    let found = Identity::decode(record).map_err(|error| file.record("its identity", error))?;
    if found != *identity {
        return Err(OpenError::Foreign {
            dir: path.parent().unwrap_or(path).to_owned(),
            found: found.text(),
            expected: identity.text(),
        });
    }
    Ok(Some(database))
}
