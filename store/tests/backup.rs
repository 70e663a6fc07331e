//! Backup and restore through the crate's public face.

use weft_store::{BackupError, Config, Key, Mutation, Precondition, Store, WatchError, restore};

fn put(key: &str, value: &str) -> Vec<Mutation> {
    vec![Mutation::put(key, Precondition::None, value.to_owned())]
}

#[tokio::test]
async fn a_restored_store_is_a_new_cluster_with_the_old_content_and_a_later_revision() {
    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("backup");
    let store = Store::open(Config::new(dir.path().join("old")))
        .await
        .expect("opens");
    for turn in 0..50 {
        let key = format!("/k/{turn:02}");
        store
            .write(put(&key, "before"), None)
            .await
            .expect("written");
    }
    let backup = store.backup(&file).await.expect("backed up");
    assert_eq!((backup.revision, backup.entries), (50, 50));
    store
        .write(put("/late", "after"), None)
        .await
        .expect("written");
    store.shutdown().await;

    let same_name = Config::new(dir.path().join("new"));
    let refused = restore(&file, &same_name).expect_err("the old name");
    assert!(matches!(refused, BackupError::Invalid { .. }), "{refused}");
    let config = Config {
        cluster_id: "second".to_owned(),
        ..Config::new(dir.path().join("new"))
    };
    assert_eq!(restore(&file, &config).expect("restored"), backup);
    let refused = restore(&file, &config).expect_err("a store is there");
    assert!(
        refused.to_string().ends_with("use an empty one"),
        "{refused}"
    );

    let store = Store::open(config.clone()).await.expect("opens");
    let snapshot = store.read().await.expect("leads");
    assert_eq!(snapshot.len_of(b"/k/"), 50);
    assert!(snapshot.get(&Key::from("/late")).is_none(), "it came later");
    let first = snapshot.get(&Key::from("/k/00")).expect("there");
    assert_eq!(
        (first.value().as_ref(), first.revision),
        (b"before".as_slice(), 1)
    );
    let restored = snapshot.revision();
    assert!(restored > 1_000_000_000, "ahead of all that was handed out");
    assert_eq!(
        store.watch("", 51).err(),
        Some(WatchError::Compacted { oldest: restored })
    );
    let revision = store.write(put("/new", "1"), None).await.expect("written");
    assert_eq!(revision, restored + 1);
    store.shutdown().await;
    let store = Store::open(config).await.expect("opens again");
    assert_eq!(store.snapshot().revision(), restored + 1);
    store.shutdown().await;
}

#[tokio::test]
async fn a_damaged_backup_is_refused_at_every_byte() {
    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("backup");
    let store = Store::open(Config::new(dir.path().join("old")))
        .await
        .expect("opens");
    store.write(put("/a", "1"), None).await.expect("written");
    store.backup(&file).await.expect("backed up");
    store.shutdown().await;
    let sound = std::fs::read(&file).expect("there");
    let config = Config {
        cluster_id: "second".to_owned(),
        ..Config::new(dir.path().join("new"))
    };
    let bad = dir.path().join("bad");
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        std::fs::write(&bad, &bytes).expect("written");
        assert!(restore(&bad, &config).is_err(), "byte {at}");
        std::fs::write(&bad, &sound[..at]).expect("written");
        assert!(restore(&bad, &config).is_err(), "cut at {at}");
    }
    restore(&file, &config).expect("sound");
}
