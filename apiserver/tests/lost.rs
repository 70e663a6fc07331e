//! A value that this server's disk has lost: it is there, nobody is told another thing of it, and nothing is written over it.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use serde_json::{Value, json};
use weft_api::object::Object;
use weft_api::status::StatusError;
use weft_apiserver::caller::Caller;
use weft_apiserver::objects::{
    self, DeleteOptions, ListOptions, Objects, Patch, WatchEvent, WatchOptions, WriteOptions,
};
use weft_apiserver::request::ObjectRef;
use weft_store::{Config, Store};

const NAMESPACE: Option<&str> = Some("default");
/// More than the store's caches hold together.
const MAPS: usize = 200;
const MAP_BYTES: usize = 200_000;

async fn open(dir: &Path) -> (Store, Objects) {
    let store = Store::open(Config::new(dir)).await.unwrap();
    let mut leadership = store.leadership();
    leadership.wait_for(Option::is_some).await.unwrap();
    let objects = Objects::new(store.clone(), objects::Config::default());
    (store, objects)
}

fn caller() -> Caller {
    Caller::client_certificate("root", vec!["system:masters".to_owned()])
}

/// Text that does not compress, of which no two maps have the same.
fn noise(number: usize) -> String {
    let mut seed = number as u64 * 2 + 1;
    let mut next = || {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + ((seed >> 33) % 75) as u8)
    };
    let text: String = (0..MAP_BYTES).map(|_| next()).collect();
    text.replace('\\', "_")
}

fn map(number: usize) -> Object {
    Object::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": format!("m{number:03}"), "namespace": "default"},
        "data": {"noise": noise(number)},
    }))
    .unwrap()
}

/// Damages every place of a file that holds these bytes, and says how many there were.
fn damage(path: &Path, bytes: &[u8]) -> usize {
    let mut file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut content = Vec::new();
    file.read_to_end(&mut content).unwrap();
    let places = content
        .windows(bytes.len())
        .enumerate()
        .filter(|(_, window)| window == &bytes);
    let places: Vec<usize> = places.map(|(at, _)| at).collect();
    for at in &places {
        file.seek(SeekFrom::Start(*at as u64)).unwrap();
        file.write_all(&vec![b'!'; bytes.len()]).unwrap();
    }
    file.sync_all().unwrap();
    places.len()
}

fn unreadable(value: &Value) -> &str {
    value["metadata"]["annotations"]["weft.dev/unreadable"]
        .as_str()
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_the_disk_lost_is_neither_absent_nor_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let (store, objects) = open(dir.path()).await;
    let (caller, kind) = (caller(), &weft_kinds::CONFIG_MAP);
    let system = Caller::system("apiserver", None);
    objects.ensure_permanent_namespaces(&system).await.unwrap();
    let options = WriteOptions::default();
    for number in 0..MAPS {
        objects
            .client(&caller)
            .create(kind, NAMESPACE, map(number), &options)
            .await
            .unwrap();
    }
    objects.shutdown().await;
    store.shutdown().await;
    drop((store, objects));

    // Opened again, everything is whole; then the disk loses one of the values.
    let (store, objects) = open(dir.path()).await;
    let text = noise(0);
    let lost = damage(&dir.path().join("state.redb"), &text.as_bytes()[1000..1100]);
    assert!(lost > 0, "the value is in the file");
    let client = objects.client(&caller);
    let get = |name: &'static str| client.get_at(kind, NAMESPACE, name, Some(0));
    let told = |error: StatusError| (error.code, error.message);

    // Who reads it is told which it is, and what to do; what else there is can be read.
    let (code, message) = told(get("m000").await.err().unwrap());
    assert_eq!(code, 500);
    for part in [
        "/core/configmaps/default/m000",
        "another server",
        "--replace",
        "backup",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(
        get("m001").await.unwrap().value()["data"]["noise"],
        noise(1)
    );

    // Lists and watches show that it is there, and that it cannot be read.
    let list = ListOptions {
        resource_version: Some(0),
        ..ListOptions::default()
    };
    let page = client.list(kind, NAMESPACE, &list).await.unwrap();
    assert_eq!(page.items.len(), MAPS);
    for (number, item) in page.items.iter().enumerate() {
        let (name, value) = (format!("m{number:03}"), item.value());
        assert_eq!(value["metadata"]["name"], name.as_str());
        let is_lost = unreadable(&value).contains("could not be read from this server's disk");
        assert_eq!(is_lost, number == 0, "{name}");
        assert_eq!(value["data"].is_null(), number == 0, "{name}");
    }
    let watch = WatchOptions {
        resource_version: Some(0),
        ..WatchOptions::default()
    };
    let mut watch = client.watch(kind, NAMESPACE, watch).await.unwrap();
    match watch.next().await {
        Some(WatchEvent::Added(object)) => {
            assert_eq!(object.name(), "m000");
            assert!(!unreadable(&object.value()).is_empty());
        }
        _ => panic!("the first object"),
    }

    // Nothing takes its place, by whatever verb: what was not read cannot be merged, and its name is not free. The server's store has ended
    // by then, as it does for a disk that loses what it was given; so a deletion, which needs no value, has to be asked of another one.
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    let named = ObjectRef::new(kind, NAMESPACE, "m000");
    let patched = client.patch(named, None, Patch::merge(&label), &options);
    let patched = told(patched.await.err().unwrap());
    let updated = client.update(kind, NAMESPACE, map(0), &options);
    let updated = told(updated.await.err().unwrap());
    for (code, message) in [patched, updated] {
        assert_eq!(code, 500, "{message}");
        assert!(message.contains("cannot be read"), "{message}");
    }
    let created = client.create(kind, NAMESPACE, map(0), &options);
    let (code, message) = told(created.await.err().unwrap());
    assert!(matches!(code, 409 | 503), "{code} {message}");
    let deletion = DeleteOptions::default();
    let deleted = client.delete(kind, NAMESPACE, "m000", &deletion);
    let (code, message) = told(deleted.await.err().unwrap());
    assert_eq!(code, 503, "{message}");
    let (code, _) = told(get("m000").await.err().unwrap());
    assert_eq!(code, 500, "it is not gone");

    objects.shutdown().await;
    store.shutdown().await;
}
