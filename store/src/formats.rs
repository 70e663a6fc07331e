//! An older program meets newer data: every kind of record of every file, one at a time. This one meets the folders of each before it.

use std::path::Path;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::checkpoint::{decode_entry, encode_entry};
use crate::codec::{Reader, Writer};
use crate::command::{Mutation, Precondition};
use crate::event::{Event, EventKind};
use crate::key::{Entry, Key};
use crate::log::Record;
use crate::machine::{Members, Position};
use crate::tables::{
    EVENTS, FORMAT, LOG, META, OBJECTS, PACKED_SINCE, SHARES_SINCE, context, index_context,
    meta_context,
};
use crate::{Config, Store};

/// A record as the next version of this program could have written it.
fn newer(record: &[u8], context: &[u8], format: u8) -> Vec<u8> {
    let body = Reader::open(Bytes::copy_from_slice(record), context, format).expect("sound");
    let mut writer = Writer::new(format + 1);
    writer.tail(&body.tail());
    writer.finish(context)
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}

/// Replaces a record, and returns the one that was there.
fn exchange<K: redb::Key + 'static>(
    file: &Path,
    table: TableDefinition<'static, K, &'static [u8]>,
    key: K::SelfType<'_>,
    change: impl FnOnce(&[u8]) -> Vec<u8>,
) -> Vec<u8>
where
    for<'a> K::SelfType<'a>: Clone,
{
    let database = Database::open(file).expect("opens");
    let transaction = database.begin_write().expect("begins");
    let before = {
        let mut table = transaction.open_table(table).expect("table");
        let before = {
            let found = table.get(key.clone()).expect("read").expect("there");
            found.value().to_vec()
        };
        table.insert(key, change(&before).as_slice()).expect("put");
        before
    };
    transaction.commit().expect("commits");
    before
}

async fn refusal(dir: &Path) -> String {
    match Store::open(Config::new(dir)).await {
        Ok(store) => {
            store.shutdown().await;
            "it opened".to_owned()
        }
        Err(error) => chain(&error),
    }
}

#[tokio::test]
async fn newer_data_is_refused_in_a_sentence_whatever_file_it_is_in() {
    let dir = tempfile::tempdir().expect("tempdir");
    let dir = dir.path();
    let store = Store::open(Config::new(dir)).await.expect("opens");
    let put = |key: &str| vec![Mutation::put(key, Precondition::None, "v")];
    store.write(put("/k"), None).await.expect("written");
    store.shutdown().await;

    let (log, state) = (dir.join("log.redb"), dir.join("state.redb"));
    let first_entry = {
        let database = Database::open(&log).expect("opens");
        let transaction = database.begin_read().expect("begins");
        let table = transaction.open_table(LOG).expect("table");
        let (index, _) = table.first().expect("read").expect("one");
        index.value()
    };
    let told = format!(
        "it has format {}, and this program reads formats up to {FORMAT}; use a newer weft",
        FORMAT + 1
    );
    for (file, key) in [
        (&log, "identity"),
        (&log, "vote"),
        (&log, "committed"),
        (&state, "identity"),
        (&state, "state"),
    ] {
        let change = |record: &[u8]| newer(record, &meta_context(key), FORMAT);
        let before = exchange(file, META, key, change);
        let refused = refusal(dir).await;
        assert!(refused.contains(&told), "{key}: {refused}");
        assert!(refused.contains(&file.display().to_string()), "{refused}");
        exchange(file, META, key, |_| before);
    }
    let change = |record: &[u8]| newer(record, &index_context("log", first_entry), FORMAT);
    let before = exchange(&log, LOG, first_entry, change);
    let refused = refusal(dir).await;
    assert!(refused.contains(&told), "an entry of the log: {refused}");
    exchange(&log, LOG, first_entry, |_| before);
    let change = |record: &[u8]| newer(record, &index_context("events", 1), FORMAT);
    let before = exchange(&state, EVENTS, 1, change);
    let refused = refusal(dir).await;
    assert!(refused.contains(&told), "an event: {refused}");
    exchange(&state, EVENTS, 1, |_| before);
    let change = |record: &[u8]| newer(record, &context("objects", b"/k"), FORMAT);
    let before = exchange(&state, OBJECTS, b"/k".as_slice(), change);
    let refused = refusal(dir).await;
    assert!(refused.contains(&told), "an object: {refused}");
    exchange(&state, OBJECTS, b"/k".as_slice(), |_| before);

    // As it was before it opens, and nothing is lost.
    let store = Store::open(Config::new(dir)).await.expect("opens");
    assert_eq!(store.snapshot().revision(), 1);
    let backup = dir.join("backup");
    store.backup(&backup).await.expect("backed up");
    store.shutdown().await;
    let mut bytes = std::fs::read(&backup).expect("read");
    // The first record is the head, behind its length.
    let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    let head = newer(&bytes[4..4 + length], b"head", 1);
    bytes[4..4 + length].copy_from_slice(&head);
    std::fs::write(&backup, bytes).expect("written");
    let config = Config {
        cluster_id: "restored".to_owned(),
        ..Config::new(dir.join("restored"))
    };
    let refused = crate::restore(&backup, &config).expect_err("refused");
    let told = "it has format 2, and this program reads formats up to 1; use a newer weft";
    assert!(chain(&refused).contains(told), "{}", chain(&refused));
}

#[tokio::test]
async fn values_from_before_they_were_compressed_are_read() {
    let dir = tempfile::tempdir().expect("tempdir");
    let dir = dir.path();
    let store = Store::open(Config::new(dir)).await.expect("opens");
    let new = r#"{"apiVersion":"v1","kind":"Pod"}"#.repeat(20);
    let put = Mutation::put("/k", Precondition::None, new.clone());
    store.write(vec![put], None).await.expect("written");
    store.shutdown().await;

    let old = r#"{"apiVersion":"v1","kind":"Service"}"#.repeat(20);
    let state = dir.join("state.redb");
    let mut object = Writer::new(2);
    object.u64(1);
    object.u64(1);
    object.tail(old.as_bytes());
    let object = object.finish(&context("objects", b"/k"));
    let written = exchange(&state, OBJECTS, b"/k".as_slice(), |_| object);
    assert!(written.len() * 3 < new.len(), "{} bytes", written.len());
    let mut event = Writer::new(2);
    event.u8(0);
    event.bytes(b"/k");
    event.u64(1);
    event.bytes(old.as_bytes());
    event.u8(0);
    let event = event.finish(&index_context("events", 1));
    exchange(&state, EVENTS, 1, |_| event);

    let store = Store::open(Config::new(dir)).await.expect("opens");
    let entry = store.snapshot().get(&"/k".into()).expect("there");
    assert_eq!(entry.value(), old);
    let mut watch = store.watch("/", 0).expect("watches");
    let event = watch.next().await.expect("events").expect("no end");
    assert_eq!(event.entry.value(), old);
    let put = Mutation::put("/k", Precondition::Revision(1), new.clone());
    store.write(vec![put], None).await.expect("written over");
    store.shutdown().await;

    let store = Store::open(Config::new(dir)).await.expect("opens again");
    let entry = store.snapshot().get(&"/k".into()).expect("there");
    assert_eq!((entry.value(), entry.revision), (new.into(), 2));
    store.shutdown().await;
}

/// The state as a program of an earlier format wrote it.
fn former_state(record: Bytes, format: u8) -> Vec<u8> {
    let mut reader = Reader::open(record, &meta_context("state"), FORMAT).expect("sound");
    let mut writer = Writer::new(format);
    for _ in ["revision", "compacted"] {
        writer.u64(reader.u64().expect("a revision"));
    }
    for _ in ["applied", "members"] {
        let position = Position::decode_option(&mut reader).expect("a position");
        Position::encode_option(position, &mut writer);
    }
    let members = Members::decode(&mut reader).expect("members");
    members.encode(&mut writer);
    if format >= 2 {
        writer.u64(reader.u64().expect("the highest number"));
    }
    assert!(format < SHARES_SINCE);
    writer.finish(&meta_context("state"))
}

/// An event in the same way.
fn former_event(event: &Event, format: u8) -> Vec<u8> {
    let mut writer = Writer::new(format);
    let value = |entry: &Entry, writer: &mut Writer| match format < PACKED_SINCE {
        true => writer.bytes(&entry.value()),
        false => entry.stored_value().encode(writer),
    };
    writer.u8(u8::from(event.kind == EventKind::Delete));
    writer.bytes(event.entry.key.as_bytes());
    writer.u64(event.entry.create_revision);
    value(&event.entry, &mut writer);
    let previous = event.previous_entry();
    writer.u8(u8::from(previous.is_some()));
    if let Some(previous) = previous {
        writer.u64(previous.create_revision);
        writer.u64(previous.revision);
        value(&previous, &mut writer);
    }
    writer.finish(&index_context("events", event.revision))
}

/// Makes of a folder what a program of an earlier format would have left behind: each record of both files.
fn write_as_before(dir: &Path, format: u8) {
    for file in ["log.redb", "state.redb"] {
        let database = Database::open(dir.join(file)).expect("opens");
        let transaction = database.begin_write().expect("begins");
        let mut meta = transaction.open_table(META).expect("table");
        let records: Vec<(String, Bytes)> = (meta.iter().expect("read"))
            .map(|record| record.expect("read"))
            .map(|(key, value)| {
                (
                    key.value().to_owned(),
                    Bytes::copy_from_slice(value.value()),
                )
            })
            .collect();
        for (key, record) in records {
            let context = meta_context(&key);
            let former = if key == "state" {
                former_state(record, format)
            } else {
                let body = Reader::open(record, &context, FORMAT).expect("sound");
                let mut writer = Writer::new(format);
                writer.tail(&body.tail());
                writer.finish(&context)
            };
            meta.insert(key.as_str(), former.as_slice()).expect("put");
        }
        drop(meta);
        let numbered = match file {
            "log.redb" => LOG,
            _ => EVENTS,
        };
        let mut table = transaction.open_table(numbered).expect("table");
        let records: Vec<(u64, Bytes)> = (table.iter().expect("read"))
            .map(|record| record.expect("read"))
            .map(|(key, value)| (key.value(), Bytes::copy_from_slice(value.value())))
            .collect();
        assert!(!records.is_empty(), "{file}");
        for (number, record) in records {
            let former = if file == "log.redb" {
                let record = Record::from_disk(number, record).expect("sound");
                let mut writer = match format < PACKED_SINCE {
                    true => Writer::unpacking(format),
                    false => Writer::new(format),
                };
                record.encode(&mut writer);
                writer.finish(&index_context("log", number))
            } else {
                let event = Event::from_disk(number, record).expect("sound");
                former_event(&event, format)
            };
            table.insert(number, former.as_slice()).expect("put");
        }
        drop(table);
        if file == "state.redb" {
            let mut objects = transaction.open_table(OBJECTS).expect("table");
            let records: Vec<(Bytes, Bytes)> = (objects.iter().expect("read"))
                .map(|record| record.expect("read"))
                .map(|(key, value)| {
                    let key = Bytes::copy_from_slice(key.value());
                    (key, Bytes::copy_from_slice(value.value()))
                })
                .collect();
            for (key, record) in records {
                let entry = decode_entry(Key::new(key.clone()), record).expect("sound");
                let former = encode_entry(&entry, format);
                objects.insert(&key[..], former.as_slice()).expect("put");
            }
        }
        transaction.commit().expect("commits");
    }
}

#[tokio::test]
async fn a_folder_of_each_earlier_format_opens_and_has_what_it_had() {
    for format in 1..FORMAT {
        let dir = tempfile::tempdir().expect("tempdir");
        let dir = dir.path();
        let value = |number: u64| format!(r#"{{"number":{number},"kind":"ConfigMap"}}"#).repeat(20);
        let store = Store::open(Config::new(dir)).await.expect("opens");
        for number in 0..20 {
            let put = Mutation::put(
                format!("/k/{}", number % 8),
                Precondition::None,
                value(number),
            );
            store.write(vec![put], None).await.expect("written");
        }
        let gone = Mutation::delete("/k/7", Precondition::None);
        store.write(vec![gone], None).await.expect("deleted");
        let told = async |store: &Store| {
            let snapshot = store.snapshot();
            let objects: Vec<(String, u64, Bytes)> = (0..8)
                .filter_map(|key| snapshot.get(&format!("/k/{key}").as_str().into()))
                .map(|entry| (entry.key.to_string(), entry.revision, entry.value()))
                .collect();
            let mut watch = store.watch("/k/", 0).expect("watches");
            let mut events = Vec::new();
            for _ in 0..21 {
                let event = watch.next().await.expect("events").expect("no end");
                let replaced = event.previous_entry().map(|entry| entry.value());
                events.push((event.revision, event.entry.key.to_string(), replaced));
            }
            (snapshot.revision(), objects, events)
        };
        let before = told(&store).await;
        assert_eq!((before.0, before.1.len()), (21, 7));
        store.shutdown().await;

        write_as_before(dir, format);
        let store = Store::open(Config::new(dir)).await.expect("opens");
        assert_eq!(told(&store).await, before, "format {format}");
        // It goes on from there, also after a start that reads some of each.
        let put = Mutation::put("/k/0", Precondition::Revision(17), "new");
        store.write(vec![put], None).await.expect("written over");
        store.shutdown().await;
        let store = Store::open(Config::new(dir)).await.expect("opens again");
        let snapshot = store.snapshot();
        let entry = snapshot.get(&"/k/0".into()).expect("there");
        assert_eq!((entry.value(), entry.revision), ("new".into(), 22));
        let kept = snapshot.get(&"/k/3".into()).expect("there");
        assert_eq!(kept.value(), value(19));
        store.shutdown().await;
    }
}
