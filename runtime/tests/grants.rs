//! What a workload is granted: settings and key-value stores, for components of WASI 0.2 and 0.3, here and in worker processes.

mod example;
mod guest;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use weft_runtime::host::keyvalue::{Entry, Operation, Page, Swap};
use weft_runtime::worker::{RemoteWorkload, Worker, WorkerCommand, WorkerError};
use weft_runtime::{
    Artifact, Body, CallContext, Config, Cores, Engine, Failure, GrantError, Grants, KeyValueStore,
    Limits, MemoryStore, Setup, Workload, WorkloadBuilder, WorkloadError,
};

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    // A cache on disk is where a worker process gets code from. It goes with the machine's temporary files.
    let dir = std::env::temp_dir().join(format!("weft-grants-{}", std::process::id()));
    let engine = Engine::builder().instances_max(64).cache_dir(dir);
    engine.build().unwrap()
});

async fn artifact(name: &str) -> Artifact {
    ENGINE.load(guest::bytes(name)).await.unwrap()
}

fn store() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(64 << 20, 20_000))
}

fn settings(pairs: &[(&str, &str)]) -> Config {
    let pairs = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::fixed(pairs.collect()).unwrap()
}

async fn builder(name: &str) -> WorkloadBuilder {
    Workload::builder(&ENGINE, &artifact(name).await).config(settings(&[("greeting", "hello")]))
}

async fn granted() -> Workload {
    let builder = builder("granted").await;
    builder.key_value("default", store()).build().unwrap()
}

fn get(path: &str) -> Request<Body> {
    let uri = format!("http://guest{path}");
    Request::builder().uri(uri).body(Body::empty()).unwrap()
}

async fn answer(answered: Result<Response<Body>, Failure>) -> String {
    match answered {
        Ok(response) => {
            let status = response.status().as_u16();
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            format!("{status} {}", String::from_utf8_lossy(&bytes))
        }
        Err(error) => format!("{:?}: {error}", error.kind),
    }
}

async fn say(workload: &Workload, path: &str) -> String {
    answer(workload.call(get(path)).await).await
}

async fn say_apart(workload: &RemoteWorkload, path: &str) -> String {
    answer(workload.call(get(path)).await).await
}

/// A key or a setting that there is none of.
const NONE: &str = "404 404 Not Found\n";

/// The one story, wherever the guest runs.
const STORY: [(&str, &str); 21] = [
    ("/config", "200 greeting=hello\n"),
    ("/config?name=greeting", "200 hello"),
    ("/config?name=missing", NONE),
    ("/get?key=a", NONE),
    ("/set?key=a&value=1", "200 set"),
    ("/get?key=a", "200 1"),
    ("/exists?key=a", "200 true"),
    ("/increment?key=a&delta=41", "200 42"),
    ("/increment?key=new&delta=-3", "200 -3"),
    ("/append?key=log&value=x", "200 x"),
    ("/append?key=log&value=y", "200 xy"),
    (
        "/race?key=race",
        "200 None refused, then theirs swapped true, now mine",
    ),
    (
        "/race?key=a",
        "200 Some([52, 50]) refused, then theirs swapped true, now mine",
    ),
    ("/many?keys=log,missing", "200 [Some(\"xy\"), None]"),
    ("/set?key=raw&bytes=3", "200 set"),
    ("/many?keys=raw", "200 [Some(\"\u{fffd}\u{fffd}\u{fffd}\")]"),
    ("/keys", "200 5 Some(\"a\") Some(\"raw\")"),
    ("/delete?key=raw", "200 deleted"),
    ("/exists?key=raw", "200 false"),
    ("/get?bucket=other&key=a", "400 NoSuchStore"),
    ("/hold?key=a&count=20", "200 held 20"),
];

/// What guests try that they should not.
const EVIL: [(&str, &str); 12] = [
    (
        "/set?key=big&bytes=524289",
        "400 Other(\"the value has 524289 bytes, and 524288 is the most that one may have\")",
    ),
    ("/set?key=big&bytes=524288", "200 set"),
    ("/set?key=&value=x", "400 Other(\"the key is empty\")"),
    ("/get?key=", "400 Other(\"the key is empty\")"),
    ("/set?key=text&value=abc", "200 set"),
    (
        "/increment?key=text",
        "400 Other(\"the value is not a decimal number\")",
    ),
    ("/set?key=max&value=9223372036854775807", "200 set"),
    (
        "/increment?key=max",
        "400 Other(\"the number would leave the range of 64 bits\")",
    ),
    ("/increment?key=max&delta=-1", "200 9223372036854775806"),
    (
        "/batch?count=1001",
        "400 Other(\"the batch has 1001 keys, and 1000 is the most that one may have\")",
    ),
    (
        "/batch?count=3&bytes=400000",
        "400 Other(\"the values of the batch have 1200000 bytes, and 1048576 is the most that they may have together\")",
    ),
    // Nothing of what was refused is there.
    ("/keys", "200 3 Some(\"big\") Some(\"text\")"),
];

#[tokio::test]
async fn a_guest_of_wasi_0_2_has_what_its_workload_is_granted() {
    for script in [&STORY[..], &EVIL[..]] {
        let workload = granted().await;
        for (path, expected) in script {
            assert_eq!(say(&workload, path).await, *expected, "{path}");
        }
    }
}

const TOLD: &str = "200 Ok(Some(\"hello\"))\n\
    draft2 1 true [(\"x\", Some([255])), (\"none\", None)] [\"count\", \"text\", \"x\", \"y\"] None\n\
    draft 2 [Some((\"x\", [255])), None] 3 keys on 1 pages\n";

#[tokio::test]
async fn a_guest_of_wasi_0_3_has_it_by_both_drafts() {
    let store = store();
    let workload = builder("granted-p3").await;
    let workload = workload
        .key_value("default", store.clone())
        .build()
        .unwrap();
    assert_eq!(say(&workload, "/tell").await, TOLD);
    // A page has a thousand keys, and the older draft numbers its cursors.
    for number in 0..2_500 {
        store.set(&format!("{number}"), Bytes::new()).await.unwrap();
    }
    let told = say(&workload, "/tell").await;
    assert!(told.ends_with("2503 keys on 3 pages\n"), "{told}");
    // Many at once, in instances that take several calls.
    let calls = (0..40).map(|_| say(&workload, "/slow"));
    for said in futures::future::join_all(calls).await {
        assert!(said.starts_with("200 Ok("), "{said}");
    }
    let count = store.get("count").await.unwrap().unwrap().value;
    assert_eq!(count, "44");
}

#[tokio::test]
async fn attack_115_what_is_not_granted_is_refused_before_it_runs() {
    for name in ["granted", "granted-p3"] {
        let artifact = artifact(name).await;
        let config = || settings(&[]);
        let store = || store() as Arc<dyn KeyValueStore>;
        let bare = || Workload::builder(&ENGINE, &artifact);
        for (builder, missing) in [
            (bare().key_value("default", store()), "wasi:config"),
            (bare().config(config()), "wasi:keyvalue"),
        ] {
            match builder.build().map(drop) {
                Err(WorkloadError::Grant(GrantError::NotGranted {
                    interface,
                    capability,
                })) => {
                    assert_eq!(capability, missing, "{name}");
                    assert!(interface.starts_with(missing), "{name}: {interface}");
                }
                other => panic!("{name}: {other:?}"),
            }
        }
        // Nobody has to use what is granted.
        let all = bare().config(config()).key_value("", store());
        assert!(all.build().is_ok(), "{name}");
    }
    let hello = artifact("hello").await;
    let workload = Workload::builder(&ENGINE, &hello).key_value("", store());
    assert!(
        say(&workload.build().unwrap(), "/")
            .await
            .starts_with("200 ")
    );
}

#[tokio::test]
async fn an_import_that_no_host_offers_says_what_there_is() {
    let watcher = r#"(component
        (import "wasi:keyvalue/watcher@0.2.0-draft2" (instance (export "go" (func))))
        (core module $m (func (export "run") (result i32) (i32.const 0)))
        (core instance $i (instantiate $m))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $c (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $c)))"#;
    let error = ENGINE.load(wat::parse_str(watcher).unwrap()).await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "the component imports wasi:keyvalue/watcher@0.2.0-draft2, which this host does not offer; of wasi:keyvalue it offers \
         store@0.2.0-draft2, atomics@0.2.0-draft2, batch@0.2.0-draft2, store@0.2.0-draft, atomics@0.2.0-draft, batch@0.2.0-draft"
    );
}

#[tokio::test]
async fn two_tenants_have_stores_of_their_own_and_may_share_one() {
    let (shared, ours) = (store(), store());
    let one = builder("granted").await;
    let one = one
        .key_value("default", ours)
        .key_value("shared", shared.clone());
    let one = one.build().unwrap();
    let two = builder("granted").await;
    let two = two
        .key_value("default", store())
        .key_value("shared", shared);
    let two = two.build().unwrap();
    assert_eq!(say(&one, "/set?key=k&value=secret").await, "200 set");
    assert_eq!(say(&two, "/get?key=k").await, NONE);
    assert_eq!(say(&two, "/keys").await, "200 0 None None");
    assert_eq!(say(&one, "/increment?bucket=shared&key=n").await, "200 1");
    assert_eq!(say(&two, "/increment?bucket=shared&key=n").await, "200 2");
}

#[tokio::test]
async fn a_store_that_is_full_says_so_and_keeps_what_it_has() {
    let full = Arc::new(MemoryStore::new(10_000, 100));
    let workload = builder("granted").await;
    let workload = workload.key_value("default", full.clone()).build().unwrap();
    assert_eq!(say(&workload, "/set?key=a&bytes=9000").await, "200 set");
    assert_eq!(
        say(&workload, "/set?key=b&bytes=9000").await,
        "400 Other(\"the store is full: it would have 18002 bytes, and may have 10000\")"
    );
    let refused = say(&workload, "/fill?count=200").await;
    assert!(refused.contains("the store is full"), "{refused}");
    assert_eq!((full.keys(), full.bytes()), (1, 9_001));
}

#[tokio::test]
async fn ten_thousand_keys_are_listed_page_by_page() {
    let workload = granted().await;
    assert_eq!(
        say(&workload, "/fill?count=10000&bytes=10").await,
        "200 10000 keys"
    );
    assert_eq!(
        say(&workload, "/keys").await,
        "200 10000 Some(\"000000\") Some(\"009999\")"
    );
}

#[tokio::test]
async fn settings_are_the_newest_at_each_question() {
    let value = |value: &str| [("greeting".to_owned(), value.to_owned())].into();
    let (sender, config) = Config::channel(value("hello")).unwrap();
    let builder = Workload::builder(&ENGINE, &artifact("granted").await);
    let workload = builder.config(config).key_value("default", store());
    let workload = workload.build().unwrap();
    assert_eq!(say(&workload, "/config").await, "200 greeting=hello\n");
    sender.set(value("good day")).unwrap();
    assert_eq!(say(&workload, "/config").await, "200 greeting=good day\n");
}

#[tokio::test]
async fn attack_115_what_handles_and_buckets_hold_is_the_workloads_memory() {
    let workload = builder("granted").await.key_value("default", store());
    let workload = workload.limits(Limits {
        memory_bytes: 24 << 20,
        ..Limits::default()
    });
    let workload = workload.build().unwrap();
    assert_eq!(say(&workload, "/set?key=big&bytes=524288").await, "200 set");
    assert_eq!(say(&workload, "/hold?key=big&count=4").await, "200 held 4");
    // 512 KiB each, of which the store's memory is only lent: it could be anywhere.
    let held = say(&workload, "/hold?key=big&count=100").await;
    assert!(held.starts_with("OutOfMemory:"), "{held}");
    let opened = say(&workload, "/open?count=5000").await;
    assert_eq!(
        opened,
        "400 Other(\"the instance holds as many resources as it may\")"
    );
    assert_eq!(say(&workload, "/get?key=missing").await, NONE);
    // The last instance ends just after its answer.
    eventually(|| workload.usage().memory_bytes == 0).await;
}

/// A store that never answers, and counts how many ask it.
#[derive(Default)]
struct Silent {
    asked: AtomicUsize,
    asking: Arc<AtomicUsize>,
}

struct Asking(Arc<AtomicUsize>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Silent {
    fn silence<T: Send + 'static>(&self) -> Operation<'_, T> {
        self.asked.fetch_add(1, SeqCst);
        self.asking.fetch_add(1, SeqCst);
        let asking = Asking(self.asking.clone());
        Box::pin(async move {
            let _asking = asking;
            std::future::pending().await
        })
    }
}

impl KeyValueStore for Silent {
    fn get<'a>(&'a self, _: &'a str) -> Operation<'a, Option<Entry>> {
        self.silence()
    }
    fn get_many<'a>(&'a self, _: &'a [String]) -> Operation<'a, Vec<Option<Entry>>> {
        self.silence()
    }
    fn set<'a>(&'a self, _: &'a str, _: Bytes) -> Operation<'a, ()> {
        self.silence()
    }
    fn set_many(&self, _: Vec<(String, Bytes)>) -> Operation<'_, ()> {
        self.silence()
    }
    fn delete<'a>(&'a self, _: &'a str) -> Operation<'a, ()> {
        self.silence()
    }
    fn delete_many<'a>(&'a self, _: &'a [String]) -> Operation<'a, ()> {
        self.silence()
    }
    fn exists<'a>(&'a self, _: &'a str) -> Operation<'a, bool> {
        self.silence()
    }
    fn list_keys<'a>(&'a self, _: Option<&'a str>) -> Operation<'a, Page> {
        self.silence()
    }
    fn increment<'a>(&'a self, _: &'a str, _: i64) -> Operation<'a, i64> {
        self.silence()
    }
    fn compare_and_set<'a>(&'a self, _: &'a str, _: u64, _: Bytes) -> Operation<'a, Swap> {
        self.silence()
    }
}

/// Waits for what happens elsewhere. The bound only keeps a failing test from hanging.
async fn eventually(mut happened: impl FnMut() -> bool) {
    for _ in 0..4_000 {
        if happened() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not happen");
}

#[tokio::test]
async fn an_operation_ends_with_its_call_and_no_more_than_some_are_under_way() {
    let silent = Arc::new(Silent::default());
    let workload = builder("granted")
        .await
        .key_value("default", silent.clone());
    let workload = workload.limits(Limits {
        key_value_max: 2,
        ..Limits::default()
    });
    let workload = workload.build().unwrap();
    let mut request = get("/get?key=a");
    request.extensions_mut().insert(CallContext {
        deadline: Some(Instant::now() + Duration::from_millis(200)),
        ..CallContext::default()
    });
    let late = answer(workload.call(request).await).await;
    assert!(
        late.starts_with("Deadline:") || late.contains("no answer in time"),
        "{late}"
    );
    eventually(|| silent.asking.load(SeqCst) == 0).await;
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let workload = workload.clone();
        waiting.push(tokio::spawn(
            async move { say(&workload, "/get?key=a").await },
        ));
    }
    eventually(|| workload.usage().instances == 4).await;
    eventually(|| silent.asking.load(SeqCst) == 2).await;
    assert_eq!(silent.asked.load(SeqCst), 3);
    // Who leaves makes room for those who wait.
    for call in &waiting[..2] {
        call.abort();
    }
    for call in &waiting[2..] {
        call.abort();
    }
    eventually(|| silent.asking.load(SeqCst) == 0 && workload.usage().instances == 0).await;
}

// In a worker process ------------------------------------------------------------------------------------------------

async fn worker() -> (Worker, Cores) {
    let cores = Cores::start(2).unwrap();
    let command = WorkerCommand {
        program: example::path("worker"),
        args: Vec::new(),
    };
    (Worker::start(&command, &cores).await.unwrap(), cores)
}

fn setup(config: Config, buckets: &[(&str, Arc<dyn KeyValueStore>)]) -> Setup {
    let mut grants = Grants::default();
    grants.config(config);
    for (identifier, store) in buckets {
        grants.key_value(*identifier, store.clone());
    }
    Setup {
        grants,
        ..Setup::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_in_a_worker_process_have_the_same() {
    let (worker, _cores) = worker().await;
    let hello = || settings(&[("greeting", "hello")]);
    for script in [&STORY[..], &EVIL[..]] {
        let store = store();
        let setup = setup(hello(), &[("default", store.clone())]);
        let artifact = artifact("granted").await;
        let guest = worker.build(&ENGINE, &artifact, setup).await.unwrap();
        for (path, expected) in script {
            assert_eq!(say_apart(&guest, path).await, *expected, "{path}");
        }
        // It is here that the data is.
        assert!(store.keys() >= 3);
    }
    let setup = setup(hello(), &[("default", store())]);
    let artifact = artifact("granted-p3").await;
    let guest = worker.build(&ENGINE, &artifact, setup).await.unwrap();
    assert_eq!(say_apart(&guest, "/tell").await, TOLD);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_process_hears_of_newer_settings() {
    let (worker, _cores) = worker().await;
    let value = |value: &str| [("greeting".to_owned(), value.to_owned())].into();
    let (sender, config) = Config::channel(value("hello")).unwrap();
    let artifact = artifact("granted").await;
    let setup = setup(config, &[("default", store())]);
    let guest = worker.build(&ENGINE, &artifact, setup).await.unwrap();
    assert_eq!(say_apart(&guest, "/config").await, "200 greeting=hello\n");
    sender.set(value("good day")).unwrap();
    for _ in 0..1_000 {
        if say_apart(&guest, "/config").await == "200 greeting=good day\n" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not hear of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_process_is_not_told_of_what_is_not_granted() {
    let (worker, _cores) = worker().await;
    let artifact = artifact("granted").await;
    let refused = worker.build(&ENGINE, &artifact, Setup::default()).await;
    match refused.map(drop) {
        Err(WorkerError::Workload(WorkloadError::Grant(GrantError::NotGranted { .. }))) => {}
        other => panic!("{other:?}"),
    }
    // An operation there ends with its call, too, and the one here with it.
    let silent = Arc::new(Silent::default());
    let mut setup = setup(settings(&[]), &[("default", silent.clone())]);
    setup.config.limits.request_timeout = Duration::from_millis(300);
    let guest = worker.build(&ENGINE, &artifact, setup).await.unwrap();
    let late = say_apart(&guest, "/get?key=a").await;
    assert!(
        late.starts_with("Deadline:") || late.contains("no answer in time"),
        "{late}"
    );
    assert_eq!(silent.asked.load(SeqCst), 1);
    eventually(|| silent.asking.load(SeqCst) == 0).await;
}
