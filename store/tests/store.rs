//! The store through its public face, on real files.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use weft_store::{
    Config, Event, EventKind, HistoryShare, Key, Mutation, OpenError, Precondition, Revision,
    Store, WatchError, WriteError,
};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("tempdir")
}

/// No checkpoint but the one at shutdown.
fn lazy(dir: &Path) -> Config {
    Config {
        checkpoint_interval: Duration::from_secs(3600),
        ..Config::new(dir)
    }
}

async fn put(store: &Store, key: &str, value: &str) -> Revision {
    let mutation = Mutation::put(key, Precondition::None, value.to_owned());
    store.write(vec![mutation], None).await.expect("written")
}

fn text(event: &Event) -> String {
    let sign = match event.kind {
        EventKind::Put => '+',
        EventKind::Delete => '-',
    };
    let value = event.entry.value();
    let value = value.escape_ascii();
    let previous = match event.previous_entry() {
        Some(previous) => format!(
            " was {}@{}",
            previous.value().escape_ascii(),
            previous.revision
        ),
        None => String::new(),
    };
    format!(
        "{sign}{}={value}@{}{previous}",
        event.entry.key, event.revision
    )
}

async fn events(store: &Store, prefix: &'static str, after: Revision, count: usize) -> Vec<String> {
    let mut watch = store.watch(prefix, after).expect("kept");
    let mut seen = Vec::new();
    for _ in 0..count {
        seen.push(text(
            &watch.next().await.expect("open").expect("not lagging"),
        ));
    }
    seen
}

#[tokio::test]
async fn writes_are_conditional_fenced_and_all_or_nothing() {
    let dir = folder();
    let store = Store::open(Config::new(dir.path())).await.expect("opens");
    let term = store.leadership().borrow().expect("leads");
    let create = |key: &'static str| Mutation::put(key, Precondition::Absent, "1");

    assert_eq!(store.write(vec![create("/a")], Some(term)).await, Ok(1));
    assert_eq!(
        store.write(vec![create("/b"), create("/a")], None).await,
        Err(WriteError::Conflict {
            key: Key::from("/a"),
            found: Some(1)
        })
    );
    assert_eq!(
        store.write(vec![create("/b")], Some(term + 1)).await,
        Err(WriteError::Fenced {
            fence: term + 1,
            term
        })
    );
    let delete = Mutation::delete("/a", Precondition::Revision(1));
    assert_eq!(
        store
            .write(vec![create("/b"), create("/c"), delete], None)
            .await,
        Ok(4)
    );
    let snapshot = store.read().await.expect("leads");
    assert_eq!(snapshot.revision(), 4);
    assert!(snapshot.get(&Key::from("/a")).is_none());
    assert_eq!(snapshot.len_of(b"/"), 2);
    store.shutdown().await;
    assert_eq!(
        store.write(vec![create("/d")], None).await,
        Err(WriteError::Closed)
    );
    assert!(store.read().await.is_err());
}

#[tokio::test]
async fn a_folder_in_use_is_refused_by_name_and_free_after_shutdown() {
    let dir = folder();
    let store = Store::open(Config::new(dir.path())).await.expect("opens");
    let refused = Store::open(Config::new(dir.path()))
        .await
        .err()
        .expect("in use");
    assert_eq!(
        refused.to_string(),
        format!(
            "data folder {} is in use by process {}",
            dir.path().display(),
            std::process::id()
        )
    );
    store.shutdown().await;
    let other = Config {
        cluster_id: "other".to_owned(),
        ..Config::new(dir.path())
    };
    let refused = Store::open(other).await.err().expect("foreign");
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
    let store = Store::open(Config::new(dir.path()))
        .await
        .expect("opens again");
    store.shutdown().await;
    std::fs::remove_file(dir.path().join("log.redb")).expect("removed");
    let refused = Store::open(Config::new(dir.path()))
        .await
        .err()
        .expect("half");
    assert!(
        refused.to_string().ends_with("it has a state but no log"),
        "{refused}"
    );
}

#[tokio::test]
async fn history_is_served_across_a_restart_from_checkpoint_and_log() {
    let dir = folder();
    let store = Store::open(lazy(dir.path())).await.expect("opens");
    put(&store, "/a/1", "x").await;
    put(&store, "/b/1", "y").await;
    put(&store, "/a/1", "z").await;
    store.shutdown().await; // 1 to 3 are in the checkpoint

    let store = Store::open(lazy(dir.path())).await.expect("opens");
    let delete = Mutation::delete("/a/1", Precondition::Revision(3));
    store.write(vec![delete], None).await.expect("written");
    // The files as a crash now would leave them: 4 is in the log only.
    let crashed = folder();
    for file in ["log.redb", "state.redb"] {
        std::fs::copy(dir.path().join(file), crashed.path().join(file)).expect("copied");
    }
    let all = ["+/a/1=x@1", "+/a/1=z@3 was x@1", "-/a/1=z@4 was z@3"];
    assert_eq!(events(&store, "/a/", 0, 3).await, all);
    store.shutdown().await;

    for dir in [&crashed, &dir] {
        let store = Store::open(lazy(dir.path())).await.expect("opens");
        assert_eq!(events(&store, "/a/", 0, 3).await, all);
        assert_eq!(events(&store, "/a/", 1, 2).await, all[1..]);
        assert_eq!(events(&store, "/a/", 3, 1).await, all[2..]);
        assert_eq!(
            store.watch("/", 5).err(),
            Some(WatchError::Future {
                asked: 5,
                current: 4
            })
        );
        let mut watch = store.watch("/", 4).expect("newest");
        assert_eq!(put(&store, "/c", "1").await, 5);
        let event = watch.next().await.expect("open").expect("not lagging");
        assert_eq!(text(&event), "+/c=1@5");
        store.shutdown().await;
        assert!(watch.next().await.is_none(), "shutdown ends a watch");
    }
}

/// Writes of a mebibyte each, twice to each key.
const LARGE_WRITES: usize = 240;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_states_file_shrinks_to_what_it_holds_while_the_store_goes_on() {
    let dir = folder();
    let config = Config {
        checkpoint_interval: Duration::from_millis(50),
        history_bytes_max: 1 << 20,
        ..Config::new(dir.path())
    };
    let store = Store::open(config.clone()).await.expect("opens");
    let length = |file: &str| {
        let metadata = std::fs::metadata(dir.path().join(file));
        metadata.expect("there").len() >> 20
    };
    // Letters without a pattern: nothing to compress.
    let mut state = 1_u32;
    let letter = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'0' + (state >> 25) as u8 % 64)
    };
    let large: String = (0..1 << 20).map(letter).collect();
    for write in 0..LARGE_WRITES {
        put(&store, &format!("/large/{}", write % 120), &large).await;
    }
    let deletes = (0..120).map(|key| Mutation::delete(format!("/large/{key}"), Precondition::None));
    let deletes = deletes.collect();
    while length("state.redb") < 100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let grown = length("state.redb");
    store.write(deletes, None).await.expect("deleted");
    // Nobody asks for it, and every write is answered meanwhile.
    let mut writes = 0;
    loop {
        writes += 1;
        put(&store, "/small", &writes.to_string()).await;
        if length("state.redb") <= 32 {
            break;
        }
    }
    let now = length("state.redb");
    println!("{grown} MiB, then {now}, with {writes} writes meanwhile");
    let revision = store.snapshot().revision();
    store.shutdown().await;
    let store = Store::open(config).await.expect("opens");
    assert_eq!(store.snapshot().revision(), revision);
    assert_eq!(store.snapshot().len_of(b"/"), 1);
    store.shutdown().await;
}

#[tokio::test]
async fn a_short_history_says_where_it_begins() {
    let dir = folder();
    let config = Config {
        history_events_max: 3,
        ..lazy(dir.path())
    };
    let store = Store::open(config.clone()).await.expect("opens");
    for _ in 0..5 {
        put(&store, "/k", "v").await;
    }
    let compacted = Some(WatchError::Compacted { oldest: 2 });
    assert_eq!(store.watch("/", 1).err(), compacted);
    store.shutdown().await;
    let store = Store::open(config).await.expect("opens");
    assert_eq!(store.watch("/", 1).err(), compacted);
    let first = events(&store, "/", 2, 1).await;
    assert_eq!(first, ["+/k=v@3 was v@2"]);
    store.shutdown().await;
}

#[tokio::test]
async fn what_changes_often_has_a_history_of_its_own_that_ends_with_the_process() {
    let dir = folder();
    let config = Config {
        history_events_max: 5,
        history_shares: vec![HistoryShare {
            prefix: "/lease/".into(),
            events_max: 2,
            bytes_max: 1 << 20,
        }],
        ..lazy(dir.path())
    };
    let store = Store::open(config.clone()).await.expect("opens");
    put(&store, "/pod/a", "1").await;
    for _ in 0..20 {
        put(&store, "/lease/a", "x").await;
    }
    put(&store, "/pod/b", "2").await;
    let both = ["+/pod/a=1@1", "+/pod/b=2@22"];
    assert_eq!(events(&store, "/pod/", 0, 2).await, both);
    let lease = events(&store, "/lease/", 20, 1).await;
    assert_eq!(lease, ["+/lease/a=x@21 was x@20"]);
    store.shutdown().await;

    let store = Store::open(config.clone()).await.expect("opens");
    assert_eq!(*store.dispatched().borrow(), 22);
    assert_eq!(events(&store, "/pod/", 0, 2).await, both);
    let anew = Some(WatchError::Compacted { oldest: 22 });
    assert_eq!(store.watch("/lease/", 21).err(), anew);
    assert_eq!(store.watch("/", 21).err(), anew);
    store.shutdown().await;

    // What was not written down is not known to be nothing.
    let config = Config {
        history_shares: Vec::new(),
        ..config
    };
    let store = Store::open(config).await.expect("opens");
    assert_eq!(store.watch("/pod/", 21).err(), anew);
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_and_watchers_agree_on_every_revision() {
    let dir = folder();
    let store = Store::open(Config::new(dir.path())).await.expect("opens");
    let (writers, writes) = (32_u64, 20_u64);
    let watchers: Vec<_> = (0..4)
        .map(|_| {
            let mut watch = store.watch("/", 0).expect("newest");
            let store = store.clone();
            tokio::spawn(async move {
                for expected in 1..=writers * writes {
                    let event = watch.next().await.expect("open").expect("not lagging");
                    assert_eq!(event.revision, expected);
                    assert!(
                        store.snapshot().revision() >= expected,
                        "event before state"
                    );
                }
            })
        })
        .collect();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut held = None;
                for _ in 0..writes {
                    let precondition = match held {
                        None => Precondition::Absent,
                        Some(revision) => Precondition::Revision(revision),
                    };
                    let mutation = Mutation::put(format!("/{writer}"), precondition, "v");
                    let revision = store.write(vec![mutation], None).await.expect("own key");
                    let read = store.read().await.expect("leads");
                    assert!(
                        read.revision() >= revision,
                        "a read misses an acknowledged write"
                    );
                    held = Some(revision);
                }
            })
        })
        .collect();
    for task in tasks.into_iter().chain(watchers) {
        task.await.expect("task");
    }
    store.shutdown().await;
}

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<(u8, u8, Option<u8>)>),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Key, kind of precondition (right, absent, wrong, none), and a value to put or nothing to delete.
    let mutation = (0_u8..6, 0_u8..4, proptest::option::of(any::<u8>()));
    let step = prop_oneof![
        12 => prop::collection::vec(mutation, 0..4).prop_map(Step::Write),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..40)
}

/// Runs the steps on the store and on a plain map side by side.
async fn agrees_with_a_map(steps: Vec<Step>) {
    let dir = folder();
    let mut store = Store::open(lazy(dir.path())).await.expect("opens");
    let mut model: BTreeMap<String, (Vec<u8>, Revision, Revision)> = BTreeMap::new();
    let mut revision = 0;
    for step in steps {
        let Step::Write(mutations) = step else {
            store.shutdown().await;
            store = Store::open(lazy(dir.path())).await.expect("opens");
            continue;
        };
        let (mut after, mut next) = (model.clone(), revision);
        let mut conflict = None;
        let mut write = Vec::new();
        for (key, kind, value) in mutations {
            let key = format!("/{key}");
            let found = after.get(&key).map(|entry| entry.2);
            let precondition = match (kind, found) {
                (0, Some(found)) => Precondition::Revision(found),
                (0, None) | (1, _) => Precondition::Absent,
                (2, _) => Precondition::Revision(found.unwrap_or(0) + 1),
                _ => Precondition::None,
            };
            let holds = match precondition {
                Precondition::None => true,
                Precondition::Absent => found.is_none(),
                Precondition::Revision(revision) => found == Some(revision),
            };
            if !holds && conflict.is_none() {
                conflict = Some((key.clone(), found));
            }
            if conflict.is_none() {
                match value {
                    Some(value) => {
                        next += 1;
                        let create = after.get(&key).map_or(next, |entry| entry.1);
                        after.insert(key.clone(), (vec![value], create, next));
                    }
                    None => next += u64::from(after.remove(&key).is_some()),
                }
            }
            write.push(match value {
                Some(value) => Mutation::put(key, precondition, vec![value]),
                None => Mutation::delete(key, precondition),
            });
        }
        let result = store.write(write, None).await;
        match conflict {
            None => {
                assert_eq!(result, Ok(next));
                (model, revision) = (after, next);
            }
            Some((key, found)) => {
                assert_eq!(
                    result,
                    Err(WriteError::Conflict {
                        key: Key::from(key),
                        found
                    })
                );
            }
        }
        let snapshot = store.snapshot();
        assert_eq!(snapshot.revision(), revision);
        let stored: BTreeMap<_, _> = snapshot
            .range(b"", None)
            .map(|entry| {
                let parts = (
                    entry.value().to_vec(),
                    entry.create_revision,
                    entry.revision,
                );
                (entry.key.to_string(), parts)
            })
            .collect();
        assert_eq!(stored, model);
    }
    // The history, replayed on nothing, gives the state.
    let mut replayed = BTreeMap::new();
    let mut watch = store.watch("", 0).expect("all kept");
    for expected in 1..=revision {
        let event = watch.next().await.expect("open").expect("not lagging");
        assert_eq!(event.revision, expected);
        let key = event.entry.key.to_string();
        let before = match event.kind {
            EventKind::Put => replayed.insert(key, event.entry.clone()),
            EventKind::Delete => replayed.remove(&key),
        };
        assert_eq!(before, event.previous_entry());
    }
    let revisions: Vec<_> = replayed.values().map(|entry| entry.revision).collect();
    let expected: Vec<_> = model.values().map(|entry| entry.2).collect();
    assert_eq!(revisions, expected);
    drop(watch);
    store.shutdown().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_store_behaves_like_a_map(steps in steps()) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime")
            .block_on(agrees_with_a_map(steps));
    }
}
