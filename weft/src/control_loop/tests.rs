//! The whole loop over the real object verbs and a store on disk: what controllers ask for becomes writes that the server
//! judges, and what goes wrong over one object stays with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use weft_api::{Object, StatusError};
use weft_apiserver::http::registry::Registry;
use weft_apiserver::objects::{self, ListOptions, Patch, WriteOptions};
use weft_apiserver::request::ObjectRef;
use weft_apiserver::stored;
use weft_controllers::{Cached, Lens, Outcome, Write};
use weft_kinds::patch::PatchKind;
use weft_kinds::{CONFIG_MAP, Kind, KindRef, NAMESPACE, Subresource};
use weft_store::{Mutation, Precondition, Store};

use super::execute::Failure;
use super::*;

/// Far more than anything here takes: a test that waits in vain ends.
const PATIENCE: Duration = Duration::from_secs(120);

struct World {
    objects: Objects,
    term: Term,
    admin: Caller,
    loops: Option<tokio::task::JoinHandle<Ended>>,
    dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(weft_store::Config::new(dir.path().join("store")));
        let store = store.await.unwrap();
        let mut leadership = store.leadership();
        let term = leadership.wait_for(Option::is_some).await.unwrap().unwrap();
        let images = Registry::open(&dir.path().join("registry"), store.clone()).unwrap();
        let config = objects::Config {
            images: Some(images),
            ..objects::Config::default()
        };
        let objects = Objects::new(store, config);
        let admin = Caller::system("test", None);
        objects.ensure_permanent_namespaces(&admin).await.unwrap();
        Self {
            objects,
            term,
            admin,
            loops: None,
            dir,
        }
    }

    /// As a server that has come to lead: with nothing but what is stored.
    async fn lead(&mut self, controllers: &'static [Controller]) {
        if let Some(before) = self.loops.take() {
            before.abort();
            let _ = before.await;
        }
        let cluster = Cluster {
            ca_pem: "PEM".to_owned(),
        };
        let recorder = Recorder::start(self.objects.clone(), self.term);
        let objects = self.objects.clone();
        let driver = Driver::new(objects, cluster, controllers, self.term, recorder);
        self.loops = Some(tokio::spawn(driver.drive()));
    }

    async fn create(&self, kind: KindRef<'_>, object: Value) -> Object {
        let namespace = kind.namespaced.then_some("default");
        let object = Object::from_value(object).unwrap();
        let options = WriteOptions::default();
        let client = self.objects.client(&self.admin);
        let created = client.create(kind, namespace, object, &options);
        created.await.unwrap()
    }

    async fn patch(&self, kind: KindRef<'_>, name: &str, patch: Value) -> Object {
        let namespace = kind.namespaced.then_some("default");
        let options = WriteOptions::default();
        let object = ObjectRef::new(kind, namespace, name);
        let client = self.objects.client(&self.admin);
        let patched = client.patch(object, None, Patch::merge(&patch), &options);
        patched.await.unwrap()
    }

    async fn all(&self, kind: KindRef<'_>) -> Vec<Value> {
        let options = ListOptions::default();
        let client = self.objects.client(&self.admin);
        let page = client.list(kind, None, &options);
        let items = page.await.unwrap().items;
        items
            .iter()
            .map(weft_apiserver::stored::Stored::value)
            .collect()
    }

    /// Waits until something holds, looking after each change of anything.
    async fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> BoxFuture<'_, bool>) {
        let mut changes = self.objects.informer(|_| true);
        let waited = tokio::time::timeout(PATIENCE, async {
            while !holds(self).await {
                changes.next().await.unwrap();
            }
        });
        assert!(waited.await.is_ok(), "in vain: {what}");
    }

    async fn until_pods(&self, count: usize) {
        self.until(&format!("{count} pods"), |world| {
            Box::pin(async move { world.all(&weft_kinds::POD).await.len() == count })
        })
        .await;
    }

    /// ConfigMaps that a controller has marked.
    async fn marked(&self) -> usize {
        let maps = self.all(&CONFIG_MAP).await;
        let marked = maps.iter();
        marked
            .filter(|map| map["metadata"]["labels"]["seen"] == "yes")
            .count()
    }

    async fn until_marked(&self, count: usize) {
        self.until(&format!("{count} are marked"), |world| {
            Box::pin(async move { world.marked().await == count })
        })
        .await;
    }

    async fn until_event(&self, reason: &'static str) -> Value {
        self.until(reason, |world| {
            Box::pin(async move {
                let events = world.all(&weft_kinds::EVENT).await;
                events.iter().any(|event| event["reason"] == reason)
            })
        })
        .await;
        let events = self.all(&weft_kinds::EVENT).await;
        let found = events.into_iter().find(|event| event["reason"] == reason);
        found.unwrap()
    }

    /// Carries out writes as the loop does.
    async fn execute(&self, writes: Vec<Write>) -> Executed {
        let recorder = Recorder::start(self.objects.clone(), self.term);
        let caller = Caller::system("test", Some(self.term));
        execute(&self.objects, &caller, &recorder.handle("test"), writes).await
    }
}

fn deployment(name: &str, replicas: i64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "x:1"}]},
            },
        },
    })
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployments_become_pods_whatever_number_somebody_asks_for() {
    let mut world = World::new().await;
    world.lead(CONTROLLERS).await;
    world
        .create(&weft_kinds::DEPLOYMENT, deployment("web", 3))
        .await;
    world.until_pods(3).await;
    let largest = json!({"spec": {"replicas": i32::MAX}});
    world.patch(&weft_kinds::DEPLOYMENT, "web", largest).await;
    world.until_event("TooManyUnplaced").await;
    assert_eq!(world.all(&weft_kinds::POD).await.len(), 2000);
    // Nobody else waits for that.
    world
        .create(&weft_kinds::DEPLOYMENT, deployment("other", 1))
        .await;
    world.until_pods(2001).await;
    let none = json!({"spec": {"replicas": 0}});
    world.patch(&weft_kinds::DEPLOYMENT, "web", none).await;
    world.until_pods(1).await;
}

/// An image in the world's registry, whose component imports a key-value store.
async fn push_component(world: &World, image: &str) {
    let import = b"wasi:keyvalue/store@0.2.0-draft2";
    let name = [
        &[1, 0, u8::try_from(import.len()).unwrap()],
        import.as_slice(),
        &[5, 0],
    ]
    .concat();
    let head = b"\0asm\x0d\0\x01\0\x07\x03\x01\x42\0\x0a";
    let component = [head.as_slice(), &[u8::try_from(name.len()).unwrap()], &name].concat();
    let keep = |bytes: &[u8]| {
        let hex = format!("{:x}", Sha256::digest(bytes));
        let path = world.dir.path().join("registry/blobs/sha256").join(&hex);
        std::fs::write(path, bytes).unwrap();
        format!("sha256:{hex}")
    };
    let layer = json!({"mediaType": "application/wasm", "digest": keep(&component), "size": component.len()});
    let digest = keep(json!({"layers": [layer]}).to_string().as_bytes());
    let tag = format!("/weft.dev/imagetags/-/{image}");
    let put = Mutation::put(tag, Precondition::None, digest);
    world.objects.store().write(vec![put], None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_want_for_a_grant_are_made_once_there_is_one() {
    let mut world = World::new().await;
    push_component(&world, "shop/counts:1").await;
    world.lead(CONTROLLERS).await;
    let mut counts = deployment("counts", 2);
    counts["spec"]["template"]["spec"]["containers"][0]["image"] = "shop/counts:1".into();
    world.create(&weft_kinds::DEPLOYMENT, counts).await;
    let told = world.until_event("FailedCreate").await;
    let message = told["message"].as_str().unwrap();
    assert!(
        message.contains("no CapabilityGrant of namespace default"),
        "{message}"
    );
    world
        .until("the condition", |world| {
            Box::pin(async move {
                let sets = world.all(&weft_kinds::REPLICA_SET).await;
                let conditions = sets
                    .iter()
                    .map(|set| set["status"]["conditions"].to_string());
                conditions
                    .into_iter()
                    .any(|told| told.contains("ReplicaFailure") && told.contains("CapabilityGrant"))
            })
        })
        .await;
    assert_eq!(world.all(&weft_kinds::POD).await.len(), 0);
    let grant = json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "CapabilityGrant",
        "metadata": {"name": "counts", "namespace": "default"},
        "spec": {"serviceAccountNames": ["default"], "keyValue": [{"store": "counts"}]},
    });
    world.create(&weft_kinds::CAPABILITY_GRANT, grant).await;
    world.until_pods(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_unreadable_object_owns_is_there_for_the_next_leader() {
    let mut world = World::new().await;
    world.lead(CONTROLLERS).await;
    let kind = &weft_kinds::DEPLOYMENT;
    let mut object = world.create(kind, deployment("web", 3)).await;
    world.until_pods(3).await;
    // Past every check: as an older version, or a bug, would have stored it.
    let value = object.as_value_mut();
    value["spec"]["replicas"] = json!(3_000_000_000_i64);
    let put = Mutation::put(
        stored::key(kind, Some("default"), "web"),
        Precondition::None,
        stored::encode(value).unwrap(),
    );
    world.objects.store().write(vec![put], None).await.unwrap();
    world.lead(CONTROLLERS).await;
    let event = world.until_event("Unreadable").await;
    assert_eq!(event["involvedObject"]["name"], "web");
    // Whoever looks at everything once more has looked at its sets and pods as well.
    world
        .create(&weft_kinds::DEPLOYMENT, deployment("other", 1))
        .await;
    world.until_pods(4).await;
    assert_eq!(world.all(&weft_kinds::REPLICA_SET).await.len(), 2);
}

/// Panics over one ConfigMap, over the writes of a second, and marks all others.
const FRAIL_CONTROLLER: Controller = Controller {
    name: "frail-controller",
    reads: |reads| {
        reads.kind::<Marked>();
    },
    keys: |_, touched| {
        if !touched.is_of(&CONFIG_MAP) {
            return Vec::new();
        }
        assert_ne!(&*touched.key.name, "unseen", "no keys for this one");
        vec![touched.key.clone()]
    },
    relieved: |_, _| Vec::new(),
    seeds: |_| Vec::new(),
    subject: |view, key| Some(view.object_of(&CONFIG_MAP, key)?.reference()),
    reconcile: |view, key, _| {
        assert_ne!(&*key.name, "bad", "the test asks for it");
        let row = view.get::<Marked>(key).filter(|row| !row.body.0);
        let mark = |row: &Arc<Cached<Marked>>| {
            Write::patch(row, json!({"metadata": {"labels": {"seen": "yes"}}}))
        };
        Outcome {
            writes: row.map(mark).into_iter().collect(),
            requeue_after: None,
            ..Outcome::default()
        }
    },
};

static FRAIL: &[Controller] = &[FRAIL_CONTROLLER];

#[derive(Debug)]
struct Marked(bool);

impl Lens for Marked {
    fn kind() -> &'static Arc<Kind> {
        &CONFIG_MAP
    }

    fn wants(key: &Key) -> bool {
        &*key.namespace == "default"
    }

    fn read(object: &Object) -> Result<Self, weft_api::object::ObjectError> {
        Ok(Self(object.label("seen").is_some()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_parks_its_key_and_no_other() {
    let mut world = World::new().await;
    world.lead(FRAIL).await;
    for name in ["unseen", "bad", "good"] {
        world
            .create(&weft_kinds::CONFIG_MAP, config_map(name))
            .await;
    }
    world.until_marked(1).await;
    let event = world.until_event("ControllerPanicked").await;
    assert_eq!(event["involvedObject"]["name"], "bad");
    let message = event["message"].as_str().unwrap();
    assert!(message.contains("the test asks for it"), "{message}");
    assert_eq!(event["type"], "Warning");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rests_on_absence_asks_the_store_first() {
    let world = World::new().await;
    let owner = world
        .create(&weft_kinds::CONFIG_MAP, config_map("owner"))
        .await;
    let owned = world
        .create(&weft_kinds::CONFIG_MAP, config_map("owned"))
        .await;
    let confirm = |name: &str, uid: &str| Write::ConfirmGone {
        kind: Arc::clone(&CONFIG_MAP),
        key: Key::new("default", name),
        uid: Some(uid.into()),
    };
    let delete = || Write::Delete {
        kind: Arc::clone(&CONFIG_MAP),
        key: Key::new("default", "owned"),
        uid: owned.uid().into(),
        resource_version: None,
        grace_seconds: None,
        propagation: weft_controllers::write::Propagation::Background,
        note: None,
    };
    let refused = world.execute(vec![confirm("owner", owner.uid()), delete()]);
    let failure = refused.await.failure.unwrap();
    assert!(failure.expected, "{failure:?}");
    assert_eq!(failure.message, "ConfigMap owner is there after all");
    // Another of that name, and none.
    for (name, uid) in [("owner", "predecessor"), ("nobody", owner.uid())] {
        let done = world.execute(vec![confirm(name, uid)]).await;
        assert!(done.failure.is_none(), "{name}: {:?}", done.failure);
    }
    assert_eq!(world.all(&weft_kinds::CONFIG_MAP).await.len(), 2);
    let done = world.execute(vec![confirm("nobody", "x"), delete()]).await;
    assert!(done.failure.is_none(), "{:?}", done.failure);
    assert_eq!(world.all(&weft_kinds::CONFIG_MAP).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_ends_for_the_decision_that_was_made_for_it() {
    let world = World::new().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    let namespace = world.create(&weft_kinds::NAMESPACE, namespace).await;
    let finalize = |uid: &str| Write::Patch {
        kind: Arc::clone(&NAMESPACE),
        key: Key::cluster("shop"),
        subresource: Some(Subresource::Finalize),
        patch_kind: PatchKind::Merge,
        patch: json!({"spec": {"finalizers": []}}),
        uid: Some(uid.into()),
        resource_version: None,
        note: None,
    };
    let finalizers = |all: Vec<Value>| {
        let found = all
            .into_iter()
            .find(|one| one["metadata"]["name"] == "shop");
        found.map(|one| one["spec"]["finalizers"].clone())
    };
    let done = world.execute(vec![finalize("predecessor")]).await;
    assert!(done.failure.is_none() && done.changes.is_empty());
    let left = finalizers(world.all(&weft_kinds::NAMESPACE).await);
    assert_eq!(left, Some(json!(["kubernetes"])));
    let done = world.execute(vec![finalize(namespace.uid())]).await;
    assert_eq!(done.changes.len(), 1, "{:?}", done.failure);
    let left = finalizers(world.all(&weft_kinds::NAMESPACE).await);
    assert_ne!(left, Some(json!(["kubernetes"])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_writes_ends_with_its_first_refusal() {
    let world = World::new().await;
    let create =
        |name: &str| Write::create(&CONFIG_MAP, Object::from_value(config_map(name)).unwrap());
    let absent = |name: &str| Write::Delete {
        kind: Arc::clone(&CONFIG_MAP),
        key: Key::new("default", name),
        uid: "none".into(),
        resource_version: None,
        grace_seconds: None,
        propagation: weft_controllers::write::Propagation::Background,
        note: None,
    };
    let writes = vec![
        create("a"),
        create("b"),
        // That it is gone is what the delete wanted.
        absent("nobody"),
        create("c"),
        create("a"),
        create("beside"),
        absent("nobody"),
        create("after"),
    ];
    let executed = world.execute(writes).await;
    // Neighbours of one sort run side by side: what stands beside the refused one is done, what comes after is not.
    let mut names: Vec<String> = world
        .all(&CONFIG_MAP)
        .await
        .iter()
        .map(|map| map["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["a", "b", "beside", "c"]);
    assert_eq!(executed.changes.len(), 4);
    let failure = executed.failure.unwrap();
    assert!(failure.expected, "somebody else was faster: {failure:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_for_a_kind_that_went_are_refused_and_nothing_is_taken_for_gone() {
    let world = World::new().await;
    let kind = Arc::new(Kind::new("example.com", "v1", "Widget", "widgets"));
    let object = json!({"apiVersion": "example.com/v1", "kind": "Widget",
        "metadata": {"name": "w", "namespace": "default"}});
    let create = Write::create(&kind, Object::from_value(object).unwrap());
    let failure = world.execute(vec![create]).await.failure.unwrap();
    assert!(!failure.expected, "{failure:?}");
    let confirm = Write::ConfirmGone {
        kind: Arc::clone(&kind),
        key: Key::new("default", "w"),
        uid: None,
    };
    let failure = world.execute(vec![confirm]).await.failure.unwrap();
    assert!(failure.expected, "{failure:?}");
}

/// Looks of the controller that never rests.
static CROWD_LOOKS: AtomicUsize = AtomicUsize::new(0);

/// One controller with more keys than can be looked at, each due again at once, and one with a single key.
static CROWDED: &[Controller] = &[
    Controller {
        name: "crowd-controller",
        reads: |_| {},
        keys: |_, _| Vec::new(),
        relieved: |_, _| Vec::new(),
        seeds: |_| {
            (0..20_000)
                .map(|number| Key::cluster(&number.to_string()))
                .collect()
        },
        subject: |_, _| None,
        reconcile: |_, _, _| {
            CROWD_LOOKS.fetch_add(1, Ordering::Relaxed);
            Outcome {
                writes: Vec::new(),
                requeue_after: Some(Duration::ZERO),
                ..Outcome::default()
            }
        },
    },
    FRAIL_CONTROLLER,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_controller_with_a_crowd_of_keys() {
    let mut world = World::new().await;
    world.lead(CROWDED).await;
    for number in 0..20 {
        let name = format!("map-{number}");
        let before = CROWD_LOOKS.load(Ordering::Relaxed);
        world.create(&CONFIG_MAP, config_map(&name)).await;
        world.until_marked(number + 1).await;
        // News come in between, and so does the other controller: within some turns, each of them bounded.
        let looks = CROWD_LOOKS.load(Ordering::Relaxed) - before;
        assert!(looks > 0, "the crowd goes on");
    }
}

/// Asks for what the server refuses until it is told why, and then marks the object with that.
static STUBBORN: &[Controller] = &[Controller {
    name: "stubborn-controller",
    reads: |reads| {
        reads.kind::<Marked>();
    },
    keys: FRAIL_CONTROLLER.keys,
    relieved: |_, _| Vec::new(),
    seeds: |_| Vec::new(),
    subject: |_, _| None,
    reconcile: |view, key, cx| {
        let Some(row) = view.get::<Marked>(key).filter(|row| !row.body.0) else {
            return Outcome::default();
        };
        let write = match cx.last_failure {
            None => {
                let nowhere = json!({"apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": "x", "namespace": "nowhere"}});
                Write::create(&CONFIG_MAP, Object::from_value(nowhere).unwrap())
            }
            Some(why) => {
                let metadata = json!({"labels": {"seen": "yes"}, "annotations": {"why": why}});
                Write::patch(row, json!({ "metadata": metadata }))
            }
        };
        Outcome {
            writes: vec![write],
            requeue_after: None,
            ..Outcome::default()
        }
    },
}];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_key_comes_again_and_knows_why() {
    let mut world = World::new().await;
    world.lead(STUBBORN).await;
    world.create(&CONFIG_MAP, config_map("a")).await;
    world.until_marked(1).await;
    let maps = world.all(&CONFIG_MAP).await;
    let why = maps[0]["metadata"]["annotations"]["why"].as_str().unwrap();
    assert_eq!(why, "namespaces \"nowhere\" not found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_reset_nothing_is_decided_before_the_whole_list_is_there() {
    let world = World::new().await;
    let recorder = Recorder::start(world.objects.clone(), world.term);
    let cluster = Cluster {
        ca_pem: "PEM".to_owned(),
    };
    let mut driver = Driver::new(world.objects.clone(), cluster, FRAIL, world.term, recorder);
    let at = Timestamp::UNIX_EPOCH;
    let upsert = |name: &str, revision: u64| {
        let mut value = config_map(name);
        value["metadata"]["uid"] = json!(name);
        value["metadata"]["resourceVersion"] = json!(revision.to_string());
        News::Upsert {
            kind: Arc::clone(&CONFIG_MAP),
            object: Object::from_value(value).unwrap(),
        }
    };
    driver.apply_news(upsert("old", 1), at);
    driver.apply_news(upsert("good", 2), at);
    assert!(!driver.start_work(), "the list is not complete");
    assert!(driver.tasks.is_empty() && driver.next_due().is_none());
    driver.apply_news(News::Synced { revision: 2 }, at);
    assert_eq!(driver.view.list::<Marked>().count(), 2);
    driver.apply_news(upsert("good", 3), at);

    // The informer fell behind: meanwhile one object went, and nobody told of it.
    driver.apply_news(News::Reset, at);
    assert_eq!(driver.view.list::<Marked>().count(), 0);
    driver.start_work();
    assert!(
        driver.tasks.is_empty(),
        "what waits is not decided on half a view"
    );
    driver.apply_news(upsert("good", 4), at);
    driver.apply_news(News::Synced { revision: 9 }, at);
    let names: Vec<String> = driver
        .view
        .list::<Marked>()
        .map(|row| row.key.name.to_string())
        .collect();
    assert_eq!(names, ["good"]);
    driver.start_work();
    assert_eq!(
        driver.tasks.len(),
        1,
        "the key that had waited is looked at"
    );
}

/// What a track panics over, once: a panic that belongs to no key.
#[derive(Debug, Default)]
struct Poisoned;

static POISON: AtomicUsize = AtomicUsize::new(0);

impl weft_controllers::view::Track for Poisoned {
    fn notice(&mut self, touched: &Touched, _: bool, _: Timestamp) {
        if &*touched.key.name == "poison" {
            let before = POISON.fetch_add(1, Ordering::Relaxed);
            assert!(before > 0, "the first time it hurts");
        }
    }
}

static POISONED: &[Controller] = &[Controller {
    reads: |reads| {
        reads.kind::<Marked>().track::<Poisoned>();
    },
    seeds: |view| view.list::<Marked>().map(|row| row.key.clone()).collect(),
    ..FRAIL_CONTROLLER
}];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_starts_and_stops_the_loop_and_its_term_fences_it() {
    let world = World::new().await;
    let (leadership, leads) = watch::channel(None);
    let shutdown = CancellationToken::new();
    let info = ClusterInfo {
        ca_pem: watch::Sender::new("PEM".into()).subscribe(),
        usage: None,
    };
    let running = tokio::spawn(run(
        world.objects.clone(),
        leads,
        info,
        POISONED,
        shutdown.clone(),
    ));
    world.create(&CONFIG_MAP, config_map("before")).await;
    // A term that is not in force: the loop believes it, the store does not.
    leadership.send_replace(Some(world.term + 1));
    world.create(&CONFIG_MAP, config_map("poison")).await;
    while POISON.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    leadership.send_replace(None);
    assert_eq!(world.marked().await, 0, "no write of that term was taken");
    // The real one. The panic of before belonged to no key, and ends nothing.
    leadership.send_replace(Some(world.term));
    world.until_marked(2).await;
    leadership.send_replace(None);
    world.create(&CONFIG_MAP, config_map("meanwhile")).await;
    leadership.send_replace(Some(world.term));
    world.until_marked(3).await;
    shutdown.cancel();
    tokio::time::timeout(PATIENCE, running)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loop_ends_with_the_store() {
    let mut world = World::new().await;
    world.lead(FRAIL).await;
    world.create(&CONFIG_MAP, config_map("a")).await;
    world.until_marked(1).await;
    let running = world.loops.take().unwrap();
    world.objects.store().shutdown().await;
    let ended = tokio::time::timeout(PATIENCE, running).await.unwrap();
    assert_eq!(ended.unwrap(), Ended::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_decided_after_a_write_of_which_it_is_not_known_whether_it_was_done() {
    let world = World::new().await;
    for (fails, ends) in [(false, false), (true, true)] {
        let recorder = Recorder::start(world.objects.clone(), world.term);
        let cluster = Cluster {
            ca_pem: "PEM".to_owned(),
        };
        let mut driver = Driver::new(world.objects.clone(), cluster, FRAIL, world.term, recorder);
        let key = Key::new("default", "a");
        driver.workers[0].writing = 1;
        driver.tasks.spawn(std::future::pending());
        let failure = Failure {
            expected: false,
            in_doubt: fails,
            message: "it takes its time".to_owned(),
        };
        let executed = Executed {
            failure: Some(failure),
            ..Executed::default()
        };
        let next = Next {
            again: None,
            past: None,
        };
        driver.finish_task(Ok(Done::Key((0, key), Ok(executed), next)));
        assert_eq!(driver.in_doubt, ends);
        if ends {
            // What was under way ends with it.
            let ended = tokio::time::timeout(PATIENCE, driver.drive()).await;
            assert_eq!(ended.unwrap(), Ended::InDoubt);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_was_not_answered_in_time_is_in_doubt() {
    let world = World::new().await;
    let recorder = Recorder::start(world.objects.clone(), world.term);
    let handle = recorder.handle("test");
    for (error, expected, in_doubt) in [
        (StatusError::timeout("slow"), false, true),
        (
            StatusError::conflict("pods", "", "a", "changed"),
            true,
            false,
        ),
        (StatusError::unavailable("closed"), false, false),
        (StatusError::too_many_requests("full", 1), false, false),
    ] {
        let failure = execute::refused(&handle, None, "creating", &error);
        let told = (failure.expected, failure.in_doubt);
        assert_eq!(told, (expected, in_doubt), "{error}");
    }
}
