//! Secrets at rest: nothing that is written to disk, or sent to other servers, tells what is in them.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use weft_api::object::Object;

use weft_apiserver::caller::Caller;
use weft_apiserver::encryption::{EncryptionError, KeyFile, KeyFileError};
use weft_apiserver::listing::{ListOptions, WatchEvent, WatchOptions};
use weft_apiserver::objects::{self, Objects, Patch, REWRAP_PATH, WriteOptions};
use weft_apiserver::request::{ObjectRef, RequestInfo};
use weft_store::{Mutation, Precondition, Store};

/// "swordfish" in base64, as it lies in the object.
const DATA: &str = "c3dvcmRmaXNo";

async fn open(dir: &Path) -> Store {
    let store = Store::open(weft_store::Config::new(dir.join("store")))
        .await
        .unwrap();
    let mut leadership = store.leadership();
    leadership.wait_for(Option::is_some).await.unwrap();
    store
}

fn objects(store: &Store, key_file: Option<&Path>) -> Objects {
    let keys = key_file.map(|path| Arc::new(KeyFile::load_or_create(path).unwrap()));
    let config = objects::Config {
        keys,
        ..objects::Config::default()
    };
    Objects::new(store.clone(), config)
}

const NS: Option<&str> = Some("default");

fn caller() -> Caller {
    Caller::client_certificate("root", vec!["system:masters".to_owned()])
}

fn secret(name: &str) -> Object {
    Object::from_value(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": {"app": "shop"}},
        "data": {"password": DATA},
    }))
    .unwrap()
}

async fn create(objects: &Objects, name: &str) {
    let (caller, options) = (caller(), WriteOptions::default());
    let client = objects.client(&caller);
    let created = client.create(&weft_kinds::SECRET, NS, secret(name), &options);
    created.await.unwrap();
}

async fn read(objects: &Objects, name: &str) -> Value {
    let caller = caller();
    let client = objects.client(&caller);
    let found = client.get(&weft_kinds::SECRET, NS, name).await;
    found.unwrap().value()
}

/// Whether any file below holds the bytes.
fn on_disk(dir: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return on_disk(&path, bytes);
        }
        std::fs::read(&path)
            .unwrap()
            .windows(bytes.len())
            .any(|window| window == bytes)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_ciphertext_before_they_are_stored_and_text_for_who_may_read_them() {
    let dir = tempfile::tempdir().unwrap();
    let key_file = dir.path().join("encryption.key");
    let store = open(dir.path()).await;
    let objects = objects(&store, Some(&key_file));
    let system = Caller::system("apiserver", None);
    objects.ensure_permanent_namespaces(&system).await.unwrap();
    let root = caller();
    let client = objects.client(&root);
    let watching = client.watch(&weft_kinds::SECRET, None, WatchOptions::default());
    let mut watch = watching.await.unwrap();
    create(&objects, "shop").await;

    assert_eq!(read(&objects, "shop").await["data"]["password"], DATA);
    let everything = ListOptions::default();
    let page = client.list(&weft_kinds::SECRET, None, &everything).await;
    let page = page.unwrap();
    assert_eq!(page.items[0].value()["data"]["password"], DATA);
    match watch.next().await.unwrap() {
        WatchEvent::Added(object) => assert_eq!(object.value()["data"]["password"], DATA),
        _ => panic!("it was added"),
    }
    // What stays as it is is not written, although every ciphertext is another one.
    let before = read(&objects, "shop").await;
    let same = Object::from_value(before.clone()).unwrap();
    let options = WriteOptions::default();
    let updated = client.update(&weft_kinds::SECRET, NS, same, &options);
    updated.await.unwrap();
    assert_eq!(read(&objects, "shop").await, before);

    store.shutdown().await;
    let files = dir.path().join("store");
    assert!(!on_disk(&files, DATA.as_bytes()));
    // The search does find what is not a secret.
    assert!(on_disk(&files, b"kube-node-lease"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rewrap_brings_all_under_a_new_key_and_the_first_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let key_file = dir.path().join("encryption.key");
    let store = open(dir.path()).await;
    let plain = objects(&store, None);
    let system = Caller::system("apiserver", None);
    plain.ensure_permanent_namespaces(&system).await.unwrap();
    // From before encryption.
    create(&plain, "old").await;
    let first = objects(&store, Some(&key_file));
    create(&first, "shop").await;

    // A new key in front; the old one is still needed.
    let old = std::fs::read_to_string(&key_file).unwrap();
    let new = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=";
    std::fs::write(&key_file, format!("{new} # new\n{old}")).unwrap();
    let second = objects(&store, Some(&key_file));
    second.check_readable().unwrap();
    let asked = |caller| {
        let request = RequestInfo::of_path("post", REWRAP_PATH);
        second.authorizer().authorize(caller, request)
    };
    let mallory = Caller::client_certificate("mallory", Vec::new());
    assert_eq!(asked(mallory).unwrap_err().code, 403);
    let asked = asked(caller()).unwrap();
    let done = second.rewrap(&asked).await.unwrap();
    assert_eq!((done.data_key, done.values, done.removed), (2, 2, vec![]));

    // The old one is not needed any more, by servers that were there all along neither.
    std::fs::write(&key_file, new).unwrap();
    let third = objects(&store, Some(&key_file));
    third.check_readable().unwrap();
    for objects in [&second, &third] {
        for name in ["old", "shop"] {
            assert_eq!(read(objects, name).await["data"]["password"], DATA);
        }
    }
    let done = third.rewrap(&asked).await.unwrap();
    assert_eq!((done.data_key, done.values), (3, 2));

    // With the old one alone, a server says so before it serves.
    std::fs::write(&key_file, &old).unwrap();
    match objects(&store, Some(&key_file)).check_readable() {
        Err(EncryptionError::MissingKey { .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(plain.check_readable(), Err(EncryptionError::NoKeys));
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_was_damaged_or_moved_is_shown_as_such_and_can_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let key_file = dir.path().join("encryption.key");
    let store = open(dir.path()).await;
    let objects = objects(&store, Some(&key_file));
    let system = Caller::system("apiserver", None);
    objects.ensure_permanent_namespaces(&system).await.unwrap();
    create(&objects, "shop").await;
    create(&objects, "admin").await;
    let value = |name: &str| {
        let key = format!("/core/secrets/default/{name}");
        store.snapshot().get(&key.into()).unwrap().value()
    };
    let put = |value: Vec<u8>| {
        let put = Mutation::put("/core/secrets/default/shop", Precondition::None, value);
        store.write(vec![put], None)
    };
    let genuine = value("shop").to_vec();
    let mut flipped = genuine.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for bad in [
        value("admin").to_vec(),
        flipped,
        genuine[..10].to_vec(),
        vec![2, 9, 9, 9, 9],
    ] {
        put(bad).await.unwrap();
        let shown = read(&objects, "shop").await;
        assert!(shown["data"].is_null(), "{shown}");
        let why = shown["metadata"]["annotations"]["weft.dev/unreadable"].as_str();
        assert!(
            why.unwrap().contains("damaged") || why.unwrap().contains("data key"),
            "{why:?}"
        );
    }
    put(genuine).await.unwrap();
    assert_eq!(read(&objects, "shop").await["data"]["password"], DATA);
    // Nothing takes the place of what cannot be read: a label once stored the stand-in over the ciphertext.
    let sealed = vec![2; 100];
    put(sealed.clone()).await.unwrap();
    let (caller, options) = (caller(), WriteOptions::default());
    let client = objects.client(&caller);
    let kind = &weft_kinds::SECRET;
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    let shop = ObjectRef::new(kind, NS, "shop");
    let patched = client.patch(shop, None, Patch::merge(&label), &options);
    let patched = patched.await;
    let mut unchanged = secret("shop").into_value();
    unchanged["metadata"]["namespace"] = "default".into();
    let unchanged = Object::from_value(unchanged).unwrap();
    let updated = client.update(kind, NS, unchanged, &options).await;
    let foreground = objects::DeleteOptions {
        propagation: Some(objects::Propagation::Foreground),
        ..objects::DeleteOptions::default()
    };
    let marked = client.delete(kind, NS, "shop", &foreground).await;
    for refused in [patched.err(), updated.err(), marked.err()] {
        let refused = refused.unwrap();
        assert_eq!(refused.code, 500);
        assert!(refused.message.contains("not overwritten"), "{refused}");
    }
    assert_eq!(value("shop").to_vec(), sealed);
    let now = objects::DeleteOptions::default();
    let deleted = client.delete(kind, NS, "shop", &now);
    deleted.await.unwrap();
    store.shutdown().await;
}

#[test]
fn a_key_file_that_cannot_be_used_is_refused_in_a_sentence() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    KeyFile::load_or_create(&path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for (text, said) in [
        ("", "holds no key"),
        ("# only a remark\n", "holds no key"),
        ("c2hvcnQ=\n", "line 1 of"),
        ("\nnot base64!\n", "line 2 of"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = KeyFile::load_or_create(&path).err().unwrap();
        assert!(error.to_string().contains(said), "{error}");
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    match KeyFile::load_or_create(&path) {
        Err(KeyFileError::Exposed { .. }) => {}
        _ => panic!("others can read it"),
    }
}

#[tokio::test]
async fn an_object_of_a_newer_program_is_refused_at_the_start_and_shown_without_its_contents() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let objects = objects(&store, None);
    objects
        .ensure_permanent_namespaces(&caller())
        .await
        .unwrap();
    create(&objects, "s").await;
    let map = Object::from_value(json!({"metadata": {"name": "s"}, "data": {"key": DATA}}));
    let options = WriteOptions::default();
    let caller = caller();
    let client = objects.client(&caller);
    let created = client.create(&weft_kinds::CONFIG_MAP, NS, map.unwrap(), &options);
    created.await.unwrap();
    objects.check_readable().unwrap();
    let told = "has format 3, and this program reads formats up to 2; use a newer weft";
    for (kind, key) in [
        (&weft_kinds::CONFIG_MAP, "/core/configmaps/default/s"),
        (&weft_kinds::SECRET, "/core/secrets/default/s"),
    ] {
        let mut value = store.snapshot().get(&key.into()).unwrap().value().to_vec();
        value[0] = 3;
        let put = Mutation::put(key, Precondition::None, value);
        store.write(vec![put], None).await.unwrap();
        let refused = objects.check_readable().unwrap_err().to_string();
        assert!(refused.contains(told), "{refused}");
        let shown = client.get(kind, NS, "s").await;
        let shown = shown.unwrap().object().as_value().to_string();
        assert!(shown.contains(told) && !shown.contains(DATA), "{shown}");
    }
}
