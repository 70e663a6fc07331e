//! The two redb files: their tables, their identity record, and how a file comes into being.
//!
//! `log.redb`: `meta` (identity, vote, purged, committed) and `log` (index → record).
//! `state.redb`: `meta` (identity, state), `objects` (key → entry) and `events` (revision → event).
//! Every value is a framed record (`codec.rs`), its context the table's name and the key.
//!
//! Invariants: a file under its final name is complete (it is built beside, synced, renamed, and the folder synced);
//! a file of another cluster, another server or a newer format is refused before anything in it is used.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, TableDefinition, WriteTransaction};

use crate::codec::{Reader, Writer};
use crate::error::{DecodeError, OpenError};
use crate::key::ServerId;
use crate::planted::{Bug, planted};
use crate::volume::{Length, Volume};

/// Version of every record body this program writes, and the newest it reads. 2 added the highest server number to the
/// state, 3 that values may be compressed, 4 that a write may check and that the history
/// may leave keys out; everything else reads as in 1.
pub(crate) const FORMAT: u8 = 4;

/// The first in which values may be compressed.
pub(crate) const PACKED_SINCE: u8 = 3;

/// The first in which the history may leave keys out.
pub(crate) const SHARES_SINCE: u8 = 4;

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
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(FORMAT);
        writer.bytes(self.cluster_id.as_bytes());
        writer.u64(self.server_id);
        writer.finish(&meta_context(IDENTITY))
    }

    pub(crate) fn decode(record: Bytes) -> Result<Self, DecodeError> {
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

/// An open file: its database, and how long it has become.
pub(crate) struct Table {
    /// Held by those who still read an older content, too (`entries.rs`).
    pub database: Arc<Database>,
    pub length: Length,
}

/// Makes a complete file at `path`, in place of one that may be there. `fill` writes the content of its first
/// transaction.
pub(crate) fn create(
    volume: &Arc<Volume>,
    path: &Path,
    identity: &Identity,
    cache_bytes: usize,
    fill: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
) -> Result<Table, OpenError> {
    let file = InFile(path);
    let new = beside(path);
    let backend = volume
        .create_file(&new)
        .map_err(|error| InFile(&new).io(error))?;
    let length = backend.length();
    let database = Database::builder()
        .set_cache_size(cache_bytes)
        .create_with_backend(backend)
        .map_err(|error| file.database(error))?;
    let write = || -> Result<(), redb::Error> {
        let mut transaction = database.begin_write()?;
        transaction.set_quick_repair(true);
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert(IDENTITY, identity.encode().as_slice())?;
        }
        fill(&transaction)?;
        if planted(Bug::RenameBeforeSync) {
            transaction.set_quick_repair(false);
            transaction.set_durability(redb::Durability::None)?;
        }
        transaction.commit()?;
        Ok(())
    };
    write().map_err(|error| file.database(error))?;
    volume
        .disk
        .rename(&new, path)
        .map_err(|error| file.io(error))?;
    Ok(Table {
        database: Arc::new(database),
        length,
    })
}

/// Opens the file at `path`; `None` where there is none.
fn open_file(
    volume: &Arc<Volume>,
    path: &Path,
    cache_bytes: usize,
) -> Result<Option<Table>, OpenError> {
    let file = InFile(path);
    if !volume.disk.exists(path).map_err(|error| file.io(error))? {
        return Ok(None);
    }
    let backend = volume.open_file(path).map_err(|error| file.io(error))?;
    let length = backend.length();
    if length.bytes() == 0 {
        // An empty file would become an empty database; this one had a name, so it had content once.
        return Err(file.inconsistent("it is empty"));
    }
    let database = Database::builder()
        .set_cache_size(cache_bytes)
        .create_with_backend(backend)
        .map_err(|error| file.database(error))?;
    Ok(Some(Table {
        database: Arc::new(database),
        length,
    }))
}

fn identity_in(table: &Table, file: &InFile<'_>) -> Result<Identity, OpenError> {
    let read = || -> Result<Option<Bytes>, redb::Error> {
        let transaction = table.database.begin_read()?;
        let meta = transaction.open_table(META)?;
        let record = meta.get(IDENTITY)?;
        Ok(record.map(|record| Bytes::copy_from_slice(record.value())))
    };
    let record = read()
        .map_err(|error| file.database(error))?
        .ok_or_else(|| file.inconsistent("it does not say which server wrote it"))?;
    Identity::decode(record).map_err(|error| file.record("its identity", error))
}

/// Opens the file at `path` and checks whose it is; `None` where there is none.
pub(crate) fn open(
    volume: &Arc<Volume>,
    path: &Path,
    identity: &Identity,
    cache_bytes: usize,
) -> Result<Option<Table>, OpenError> {
    let Some(table) = open_file(volume, path, cache_bytes)? else {
        return Ok(None);
    };
    let found = identity_in(&table, &InFile(path))?;
    if found != *identity {
        return Err(OpenError::Foreign {
            dir: path.parent().unwrap_or(path).to_owned(),
            found: found.text(),
            expected: identity.text(),
        });
    }
    Ok(Some(table))
}
