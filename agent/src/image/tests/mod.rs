//! Pulls from registries that fail in every way that a registry can, each as a story.

mod access;
mod registry;

use self::registry::*;
use super::*;
use serde_json::json;
use tokio::task::JoinHandle;

/// Far above what anything here takes: a test that hangs fails instead.
const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    images: Images,
    folder: tempfile::TempDir,
}

/// What the node has for the image of that name.
const OWN_TOOLBOX: &[u8] = b"the node's own";

/// An API server that has no registry.
fn nowhere() -> Link {
    own_registry(|_| (404, Vec::new()))
}

/// An API server whose registry answers as told.
fn own_registry(answer: impl Fn(&str) -> (u16, Vec<u8>) + Clone + Send + 'static) -> Link {
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let path = request.uri().path_and_query().map(ToString::to_string);
        let (status, body) = answer(&path.unwrap_or_default());
        let body = http_body_util::Full::new(Bytes::from(body));
        let response = http::Response::builder().status(status).body(body);
        std::future::ready(response)
    });
    Link::of(kube::Client::new(service, "default"))
}

impl World {
    fn new(registries: &str, limits: Limits) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let images = Self::open(&folder, nowhere(), registries, limits);
        Self { images, folder }
    }

    /// A node whose owner named these registries.
    fn naming(registries: &[&FakeRegistry]) -> Self {
        Self::new(&named(registries), Limits::default())
    }

    fn open(folder: &tempfile::TempDir, link: Link, registries: &str, limits: Limits) -> Images {
        let registries = Registries::parse(registries).expect("sound registries");
        let toolbox = Bytes::from_static(OWN_TOOLBOX);
        Images::open_limited(link, folder.path(), false, registries, toolbox, limits)
            .expect("opened")
    }

    /// The same node after a restart.
    fn restarted(self, registries: &str) -> Self {
        let Self { images, folder } = self;
        drop(images);
        let images = Self::open(&folder, nowhere(), registries, Limits::default());
        Self { images, folder }
    }

    async fn pull(&self, image: &str) -> Result<Image, ImageError> {
        self.get(wish(image)).await
    }

    async fn get(&self, wish: Wish) -> Result<Image, ImageError> {
        tokio::time::timeout(PATIENCE, self.images.get(wish))
            .await
            .expect("a pull ends")
    }

    async fn refusal(&self, image: &str) -> String {
        match self.pull(image).await {
            Ok(image) => panic!("pulled {}", image.id),
            Err(error) => error.to_string(),
        }
    }

    fn begin(&self, wish: Wish) -> JoinHandle<Result<Image, ImageError>> {
        let images = self.images.clone();
        tokio::spawn(async move { images.get(wish).await })
    }

    fn under_way(&self) -> usize {
        self.images.inner.under_way.lock().pulls.len()
    }

    async fn nothing_is_under_way(&self) {
        let ended = async {
            while self.under_way() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, ended)
            .await
            .expect("all pulls end");
    }
}

fn named(registries: &[&FakeRegistry]) -> String {
    let named = registries
        .iter()
        .map(|registry| (registry.host(), json!({})));
    let named: serde_json::Map<_, _> = named.collect();
    json!({"mirrors": named}).to_string()
}

fn wish(image: &str) -> Wish {
    Wish {
        image: image.to_owned(),
        policy: PullPolicy::Always,
        namespace: "default".to_owned(),
        keyring: Keyring::default(),
        toolbox: true,
    }
}

/// Serves `x/good:1`, and is silent about everything else.
async fn silent_but_for_good() -> FakeRegistry {
    let content = artefact("x/good", COMPONENT);
    let registry = FakeRegistry::start(move |asked| match content.get(asked.path.as_str()) {
        Some(body) => Reply::body(body.clone()),
        None => Reply::Silence,
    });
    registry.await.expect("started")
}

/// H1: the place of a pull that was cancelled was never given back, and the node stopped pulling.
#[tokio::test]
async fn pulls_that_were_cancelled_leave_no_place_taken() {
    let registry = silent_but_for_good().await;
    let world = World::naming(&[&registry]);
    let host = registry.host();
    // More than may run at once, so that some wait for a place.
    let pods: Vec<_> = (0..12)
        .map(|n| world.begin(wish(&format!("{host}/x/hangs:{n}"))))
        .collect();
    registry.was_asked(4).await;
    for pod in pods {
        pod.abort();
        assert!(pod.await.is_err(), "it was cancelled");
    }
    world.nothing_is_under_way().await;
    let image = world
        .pull(&format!("{host}/x/good:1"))
        .await
        .expect("pulled");
    assert_eq!((image.bytes.as_ref(), image.fetched), (COMPONENT, true));
}

/// One tenant's pulls that hang were every tenant's: the places of the node were one for all.
#[tokio::test]
async fn pulls_of_one_namespace_that_hang_stop_no_other() {
    let registry = silent_but_for_good().await;
    let world = World::naming(&[&registry]);
    let host = registry.host();
    let _greedy: Vec<_> = (0..100)
        .map(|n| {
            let mut wish = wish(&format!("{host}/x/hangs:{n}"));
            wish.namespace = "greedy".to_owned();
            world.begin(wish)
        })
        .collect();
    registry.was_asked(4).await;
    for n in 0..10 {
        let mut wish = wish(&format!("{host}/x/good:1"));
        wish.namespace = format!("other-{n}");
        world.get(wish).await.expect("pulled");
    }
}

/// What waits is bounded, and told.
#[tokio::test]
async fn a_namespace_has_a_bounded_queue() {
    let registry = silent_but_for_good().await;
    let world = World::naming(&[&registry]);
    let host = registry.host();
    let pods: Vec<_> = (0..200)
        .map(|n| world.begin(wish(&format!("{host}/x/hangs:{n}"))))
        .collect();
    let told = async {
        let (first, _, _) = futures::future::select_all(pods).await;
        first.expect("no panic").expect_err("crowded").to_string()
    };
    let told = tokio::time::timeout(PATIENCE, told).await.expect("told");
    assert_eq!(
        told,
        "128 pulls of this namespace wait already on this node; this one is tried again"
    );
}

#[tokio::test]
async fn containers_share_a_pull_until_the_last_one_goes() {
    let registry = silent_but_for_good().await;
    let world = World::naming(&[&registry]);
    let image = format!("{}/x/hangs:1", registry.host());
    let (one, two) = (world.begin(wish(&image)), world.begin(wish(&image)));
    registry.was_asked(1).await;
    one.abort();
    assert!(one.await.is_err());
    assert_eq!((world.under_way(), registry.paths().len()), (1, 1));
    two.abort();
    assert!(two.await.is_err());
    world.nothing_is_under_way().await;
}

fn hasty() -> Limits {
    Limits {
        silent: Duration::from_millis(100),
        document: Duration::from_millis(400),
        ..Limits::default()
    }
}

/// H2: a registry that takes the request and says nothing held its place for ever.
#[tokio::test]
async fn attack_112_a_registry_that_says_nothing_is_given_up() {
    let registry = FakeRegistry::start(|_| Reply::Silence)
        .await
        .expect("started");
    let world = World::new(&named(&[&registry]), hasty());
    let host = registry.host();
    assert_eq!(
        world.refusal(&format!("{host}/x/y:1")).await,
        format!("{host}: it said nothing for 0.1 s")
    );
}

/// A byte now and then is no answer either.
#[tokio::test]
async fn attack_112_a_registry_that_crawls_is_given_up() {
    let registry = FakeRegistry::start(|_| Reply::Trickle)
        .await
        .expect("started");
    let world = World::new(
        &named(&[&registry]),
        Limits {
            silent: PATIENCE,
            ..hasty()
        },
    );
    let host = registry.host();
    assert_eq!(
        world.refusal(&format!("{host}/x/y:1")).await,
        format!("{host}: its manifest is not here after 0.4 s")
    );
    // A layer has until the pull's own end.
    let big = vec![0; 1 << 20];
    let registry = FakeRegistry::start(move |asked| {
        if asked.path.contains("/blobs/") {
            Reply::Trickle
        } else {
            Reply::body(manifest_of(&big))
        }
    });
    let registry = registry.await.expect("started");
    let limits = Limits {
        silent: PATIENCE,
        pull: Duration::from_millis(500),
        ..Limits::default()
    };
    let world = World::new(&named(&[&registry]), limits);
    let told = world.refusal(&format!("{}/x/y:1", registry.host())).await;
    assert!(told.contains(": the image is not here after 0."), "{told}");
}

/// What a client may have taken of a body that it refuses: its bound, and what lay in the kernel's buffers.
const TAKEN_MAX: usize = 64 << 20;

/// H2: a manifest, a token and a refusal without end took all of the node's memory.
#[tokio::test]
async fn attack_112_what_a_registry_sends_without_end_is_cut_off() {
    let manifest = FakeRegistry::start(|_| Reply::Endless(200))
        .await
        .expect("started");
    let world = World::naming(&[&manifest]);
    let host = manifest.host();
    assert_eq!(
        world.refusal(&format!("{host}/x/y:1")).await,
        format!("{host}: it sends more than 4194304 bytes where a short answer is due")
    );
    assert!(manifest.sent() < TAKEN_MAX);

    let service = FakeRegistry::start(|_| Reply::Endless(200))
        .await
        .expect("started");
    let realm = service.url();
    let token =
        FakeRegistry::start(move |_| Reply::challenge(format!("Bearer realm=\"{realm}/token\"")));
    let token = token.await.expect("started");
    let world = World::naming(&[&token, &service]);
    let told = world.refusal(&format!("{}/x/y:1", token.host())).await;
    assert!(told.contains("it sends more than 65536 bytes"), "{told}");
    assert!(service.sent() < TAKEN_MAX);

    let refusal = FakeRegistry::start(|_| Reply::Endless(403))
        .await
        .expect("started");
    let world = World::naming(&[&refusal]);
    let told = world.refusal(&format!("{}/x/y:1", refusal.host())).await;
    assert!(told.contains("403 Forbidden"), "{told}");
    assert!(refusal.sent() < TAKEN_MAX);

    let blob = FakeRegistry::start(|asked| match asked.path.contains("/blobs/") {
        true => Reply::Endless(200),
        false => Reply::body(manifest_of(COMPONENT)),
    });
    let blob = blob.await.expect("started");
    let world = World::naming(&[&blob]);
    let told = world.refusal(&format!("{}/x/y:1", blob.host())).await;
    assert!(
        told.contains("it sends more than the 12 bytes that its manifest says"),
        "{told}"
    );
    assert!(blob.sent() < TAKEN_MAX);
    let partial = std::fs::read_dir(world.folder.path().join("partial")).expect("a folder");
    assert_eq!(partial.count(), 0);

    // Nothing is set aside, or waited for, that is known to be too much.
    let announced = FakeRegistry::start(|_| Reply::Announced(u64::MAX / 2))
        .await
        .expect("started");
    let world = World::naming(&[&announced]);
    let told = world.refusal(&format!("{}/x/y:1", announced.host())).await;
    assert!(told.contains("it sends more than 4194304 bytes"), "{told}");
}

#[tokio::test]
async fn a_layer_that_no_node_takes_is_not_asked_for() {
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&manifest_of(COMPONENT)).expect("JSON");
    manifest["layers"][0]["size"] = json!(COMPONENT_BYTES_MAX + 1);
    let manifest = manifest.to_string();
    let registry = FakeRegistry::start(move |_| Reply::body(manifest.clone()));
    let registry = registry.await.expect("started");
    let world = World::naming(&[&registry]);
    let told = world.refusal(&format!("{}/x/y:1", registry.host())).await;
    assert!(
        told.ends_with("has 67108865 bytes, more than the 67108864 a node accepts"),
        "{told}"
    );
    assert_eq!(registry.paths(), ["/v2/x/y/manifests/1"]);
}

fn index_of(digest: &str, size: usize) -> Vec<u8> {
    let index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [{"mediaType": MANIFEST, "digest": digest, "size": size, "platform": {"os": "wasip2", "architecture": "wasm"}}],
    });
    index.to_string().into_bytes()
}

/// A manifest that an index named by another algorithm than SHA-256 was taken unread.
#[tokio::test]
async fn attack_15_everything_is_what_its_digest_says() {
    let (manifest, other) = (manifest_of(COMPONENT), manifest_of(b"other"));
    let of_child = sha256(&manifest);
    let sha512 = format!("sha512:{}", "a".repeat(128));
    let mut content = artefact("x/sound", COMPONENT);
    content.insert(
        "/v2/x/sound/manifests/index".into(),
        index_of(&of_child, manifest.len()),
    );
    // The tag is sound, what it leads to is not.
    content.extend(artefact("x/layer", COMPONENT));
    content.insert(
        format!("/v2/x/layer/blobs/{}", sha256(COMPONENT)),
        b"\0asm\x0d\0\x01\0resu".to_vec(),
    );
    content.extend(artefact("x/short", COMPONENT));
    content.insert(
        format!("/v2/x/short/blobs/{}", sha256(COMPONENT)),
        b"\0asm".to_vec(),
    );
    content.insert(format!("/v2/x/pinned/manifests/{of_child}"), other.clone());
    content.insert(
        "/v2/x/child/manifests/1".into(),
        index_of(&of_child, manifest.len()),
    );
    content.insert(format!("/v2/x/child/manifests/{of_child}"), other);
    content.insert(
        "/v2/x/size/manifests/1".into(),
        index_of(&of_child, manifest.len() + 1),
    );
    content.insert(format!("/v2/x/size/manifests/{of_child}"), manifest.clone());
    content.insert(
        "/v2/x/sha512/manifests/1".into(),
        index_of(&sha512, manifest.len()),
    );
    content.insert(format!("/v2/x/sha512/manifests/{sha512}"), manifest.clone());
    content.insert(
        format!("/v2/x/sha512/blobs/{}", sha256(COMPONENT)),
        COMPONENT.to_vec(),
    );
    let registry = FakeRegistry::of(content).await.expect("started");
    let world = World::naming(&[&registry]);
    let host = registry.host();

    let by_index = world
        .pull(&format!("{host}/x/sound:index"))
        .await
        .expect("pulled");
    assert_eq!(by_index.id, format!("{host}/x/sound@{of_child}"));
    let pinned = world
        .pull(&format!("{host}/x/sound@{of_child}"))
        .await
        .expect("pulled");
    assert_eq!((pinned.id, pinned.fetched), (by_index.id, false));

    // Each from a node that has nothing yet.
    let fresh = || World::naming(&[&registry]);
    let (of_layer, mismatch) = (
        sha256(COMPONENT),
        "sent content that does not match its digest",
    );
    for (image, expected) in [
        ("x/layer:1".to_owned(), format!("{mismatch} {of_layer}")),
        ("x/short:1".to_owned(), format!("{mismatch} {of_layer}")),
        (
            format!("x/pinned@{of_child}"),
            format!("{mismatch} {of_child}"),
        ),
        ("x/child:1".to_owned(), format!("{mismatch} {of_child}")),
        ("x/size:1".to_owned(), format!("{mismatch} {of_child}")),
        (
            "x/sha512:1".to_owned(),
            "its manifest names content by sha512, and nodes verify sha256 only".to_owned(),
        ),
    ] {
        let told = fresh().refusal(&format!("{host}/{image}")).await;
        assert!(told.ends_with(&expected), "{image}: {told}");
    }
}

/// H2: whoever may create pods had the node connect to anything that the node can reach.
#[tokio::test]
async fn attack_113_a_pod_reaches_nothing_of_the_node_through_a_pull() {
    let here = FakeRegistry::of(artefact("x/y", COMPONENT))
        .await
        .expect("started");
    let world = World::new("", Limits::default());
    let port = here.address.port();
    for (host, kind) in [
        (
            format!("127.0.0.1:{port}"),
            "this machine (a loopback address)",
        ),
        (
            format!("localhost:{port}"),
            "this machine (a loopback address)",
        ),
        (format!("0.0.0.0:{port}"), "an unspecified address"),
        ("169.254.169.254".to_owned(), "a link-local address"),
    ] {
        let told = world.refusal(&format!("{host}/x/y:1")).await;
        let expected = format!(
            "is {kind}, where no pod may have a node connect to; if it is meant, name it in the node's --private-registry file"
        );
        assert!(told.ends_with(&expected), "{host}: {told}");
    }
    assert_eq!(here.connections(), 0);
}

/// The same by way of a registry that may be asked, and leads on.
#[tokio::test]
async fn attack_113_a_registry_leads_nowhere_that_a_pod_may_not_go() {
    let inside = FakeRegistry::of(HashMap::new()).await.expect("started");
    let in_the_clear =
        "is not encrypted; if it is meant, name it in the node's --private-registry file";
    for (location, expected) in [
        (
            "https://169.254.169.254/latest/meta-data".to_owned(),
            "169.254.169.254 is a link-local address",
        ),
        (
            "https://[::ffff:a9fe:a9fe]/".to_owned(),
            "is a link-local address",
        ),
        ("https://localhost/".to_owned(), "localhost is this machine"),
        (format!("{}/x", inside.url()), in_the_clear),
        (
            "file:///etc/passwd".to_owned(),
            "it leads to a file: address",
        ),
    ] {
        let (by_answer, by_token) = (location.clone(), location);
        let redirects = FakeRegistry::start(move |_| Reply::redirect(by_answer.clone()));
        let challenges =
            FakeRegistry::start(move |_| Reply::challenge(format!("Bearer realm=\"{by_token}\"")));
        for registry in [redirects.await, challenges.await] {
            let registry = registry.expect("started");
            let world = World::naming(&[&registry]);
            let told = world.refusal(&format!("{}/x/y:1", registry.host())).await;
            assert!(told.contains(expected), "{told}");
        }
    }
    assert_eq!(inside.connections(), 0);

    let circle = FakeRegistry::start(|asked| Reply::redirect(asked.path.clone()))
        .await
        .expect("started");
    let told = World::naming(&[&circle])
        .refusal(&format!("{}/x/y:1", circle.host()))
        .await;
    assert!(told.ends_with("it redirects more than 5 times"), "{told}");
}
