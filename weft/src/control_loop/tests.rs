//! The whole loop over the real object verbs and a store on disk: what controllers ask for becomes writes that the server
//! judges, and what goes wrong over one object stays with it.

use futures::future::BoxFuture;
use serde_json::{Value, json};
use weft_api::Object;
use weft_apiserver::objects::{self, ListOptions, WriteOptions};
use weft_apiserver::stored;
use weft_controllers::write::{CONFIG_MAPS, NAMESPACES};
use weft_controllers::{Outcome, Row, Write};
use weft_kinds::KindRef;
use weft_kinds::patch::PatchKind;
use weft_store::{Mutation, Precondition, Store};

use super::*;

/// Far more than anything here takes: a test that waits in vain ends.
const PATIENCE: Duration = Duration::from_secs(120);

struct World {
    objects: Objects,
    term: Term,
    admin: Caller,
    loops: Option<tokio::task::JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(weft_store::Config::new(dir.path().join("store")));
        let store = store.await.unwrap();
        let mut leadership = store.leadership();
        let term = leadership.wait_for(Option::is_some).await.unwrap().unwrap();
        let objects = Objects::new(store, objects::Config::default());
        let admin = Caller::system("test", None);
        objects.ensure_permanent_namespaces(&admin).await.unwrap();
        Self {
            objects,
            term,
            admin,
            loops: None,
            _dir: dir,
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
            served: served(&self.objects),
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
        let created = self
            .objects
            .create(&self.admin, kind, namespace, object, &options);
        created.await.unwrap()
    }

    async fn patch(&self, kind: KindRef<'_>, name: &str, patch: Value) -> Object {
        let namespace = kind.namespaced.then_some("default");
        let options = WriteOptions::default();
        let patched = self.objects.patch(
            &self.admin,
            kind,
            namespace,
            name,
            None,
            PatchKind::Merge,
            &patch,
            &options,
        );
        patched.await.unwrap()
    }

    async fn all(&self, kind: KindRef<'_>) -> Vec<Value> {
        let options = ListOptions::default();
        let page = self.objects.list(&self.admin, kind, None, &options);
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
static FRAIL: &[Controller] = &[Controller {
    name: "frail-controller",
    reads: |reads| {
        reads.kind::<Marked>();
    },
    keys: |_, touched| match touched.resource {
        CONFIG_MAPS if touched.key.name == "unseen" => panic!("no keys for {}", touched.key),
        CONFIG_MAPS => vec![touched.key.clone()],
        _ => Vec::new(),
    },
    seeds: |_| Vec::new(),
    subject: |view, key| Some(view.entry_of(CONFIG_MAPS, key)?.reference()),
    reconcile: |view, key, _| {
        assert_ne!(key.name, "bad", "the test asks for it");
        let row = view.get::<Marked>(key).filter(|row| !row.body.0);
        let mark = |row: &std::sync::Arc<Row<Marked>>| {
            Write::patch(row, json!({"metadata": {"labels": {"seen": "yes"}}}))
        };
        Outcome {
            writes: row.map(mark).into_iter().collect(),
            requeue_after: None,
        }
    },
}];

#[derive(Debug)]
struct Marked(bool);

impl weft_controllers::table::Kind for Marked {
    const RESOURCE: Resource = CONFIG_MAPS;

    fn wants(key: &Key) -> bool {
        key.namespace == "default"
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
    world
        .until("the good one is marked", |world| {
            Box::pin(async move {
                let maps = world.all(&weft_kinds::CONFIG_MAP).await;
                maps.iter()
                    .any(|map| map["metadata"]["labels"]["seen"] == "yes")
            })
        })
        .await;
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
        resource: CONFIG_MAPS,
        namespace: Some("default".to_owned()),
        name: name.to_owned(),
        uid: Some(uid.to_owned()),
    };
    let delete = || Write::Delete {
        resource: CONFIG_MAPS,
        namespace: Some("default".to_owned()),
        name: "owned".to_owned(),
        uid: owned.uid().to_owned(),
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
        resource: NAMESPACES,
        namespace: None,
        name: "shop".to_owned(),
        subresource: Some("finalize"),
        patch: json!({"spec": {"finalizers": []}}),
        uid: Some(uid.to_owned()),
        revision: None,
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
