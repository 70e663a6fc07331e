//! Who is let in, by whom, and what is asked of mirrors and of this node's own disk instead.

use super::*;
use base64::Engine as _;

fn basic(pair: &str) -> String {
    let pair = base64::engine::general_purpose::STANDARD.encode(pair);
    format!("Basic {pair}")
}

/// A pod whose Secret has this entry for this registry.
fn wish_with(image: &str, host: &str, entry: &serde_json::Value) -> Wish {
    let content = json!({"auths": {host: entry}}).to_string();
    let mut wish = wish(image);
    let added = wish.keyring.add("kubernetes.io/dockerconfigjson", |_| {
        Some(content.as_bytes())
    });
    added.expect("a sound Secret");
    wish
}

fn ann(image: &str, host: &str) -> Wish {
    wish_with(
        image,
        host,
        &json!({"username": "ann", "password": "secret"}),
    )
}

/// A registry that gives tokens to ann, at `/token`, and content to who has one.
async fn by_token() -> FakeRegistry {
    let content = artefact("x/y", COMPONENT);
    let registry = FakeRegistry::start(move |asked| {
        if asked.path.starts_with("/token") {
            let by_password = asked.authorization == Some(basic("ann:secret"));
            let by_refresh = asked.method == "POST" && asked.body.contains("refresh_token=fresh");
            return match by_password || by_refresh {
                true => Reply::body(r#"{"token": "ticket", "expires_in": 300}"#),
                false => Reply::Answer(
                    401,
                    Vec::new(),
                    br#"{"errors": [{"message": "who are you?"}]}"#.to_vec(),
                ),
            };
        }
        if asked.authorization.as_deref() != Some("Bearer ticket") {
            let scope = "repository:x/y:pull";
            return Reply::challenge(format!(
                "Bearer realm=\"http://{}/token\",service=\"reg\",scope=\"{scope}\"",
                asked.host
            ));
        }
        match content.get(asked.path.as_str()) {
            Some(body) => Reply::body(body.clone()),
            None => Reply::status(404),
        }
    });
    registry.await.expect("started")
}

#[tokio::test]
async fn a_token_is_had_for_a_password_and_used_again() {
    let registry = by_token().await;
    let world = World::naming(&[&registry]);
    let host = registry.host();
    let image = format!("{host}/x/y:1");
    let pulled = world.get(ann(&image, &host)).await.expect("pulled");
    assert_eq!(pulled.bytes.as_ref(), COMPONENT);
    let of_token = "/token?service=reg&scope=repository%3Ax%2Fy%3Apull".to_owned();
    let (of_manifest, of_blob) = (
        "/v2/x/y/manifests/1".to_owned(),
        format!("/v2/x/y/blobs/{}", sha256(COMPONENT)),
    );
    let mut expected = vec![of_manifest.clone(), of_token, of_manifest.clone(), of_blob];
    assert_eq!(registry.paths(), expected);
    // Not another token for the next, nor a connection for each request.
    world.get(ann(&image, &host)).await.expect("pulled");
    expected.push(of_manifest);
    assert_eq!(registry.paths(), expected);
    assert!(
        registry.connections() < expected.len(),
        "{}",
        registry.connections()
    );
}

#[tokio::test]
async fn every_kind_of_credential_opens_what_it_is_for() {
    let registry = by_token().await;
    let host = registry.host();
    let image = format!("{host}/x/y:1");
    for entry in [
        json!({"auth": base64::engine::general_purpose::STANDARD.encode("ann:secret")}),
        json!({"username": "<token>", "identitytoken": "fresh"}),
        json!({"registrytoken": "ticket"}),
    ] {
        let world = World::naming(&[&registry]);
        let pulled = world.get(wish_with(&image, &host, &entry)).await;
        assert!(pulled.is_ok(), "{entry}: {:?}", pulled.err());
    }
    // The node's own, from its file.
    let configs =
        json!({"configs": {host.as_str(): {"auth": {"username": "ann", "password": "secret"}}}});
    let world = World::new(&configs.to_string(), Limits::default());
    world.pull(&image).await.expect("pulled");

    let content = artefact("x/y", COMPONENT);
    let plain = FakeRegistry::start(move |asked| match content.get(asked.path.as_str()) {
        Some(body) if asked.authorization == Some(basic("ann:secret")) => Reply::body(body.clone()),
        _ => Reply::challenge("Basic realm=\"reg\""),
    });
    let plain = plain.await.expect("started");
    let world = World::naming(&[&plain]);
    let wish = ann(&format!("{}/x/y:1", plain.host()), &plain.host());
    world.get(wish).await.expect("pulled");
}

#[tokio::test]
async fn who_is_refused_learns_what_to_bring() {
    let registry = by_token().await;
    let world = World::naming(&[&registry]);
    let host = registry.host();
    let image = format!("{host}/x/y:1");
    let next = "name a Secret of type kubernetes.io/dockerconfigjson for it in imagePullSecrets";
    assert_eq!(
        world.refusal(&image).await,
        format!(
            "{host} does not let anybody without credentials pull {image}, or has no such image: 401 Unauthorized, \"who are you?\"; {next}"
        )
    );
    let wrong = wish_with(
        &image,
        &host,
        &json!({"username": "eve", "password": "guess"}),
    );
    let told = world.get(wrong).await.expect_err("refused").to_string();
    assert!(
        told.contains("does not let user \"eve\" pull") && !told.contains("guess"),
        "{told}"
    );
    // A credential for another registry is no credential.
    let elsewhere = ann(&image, "elsewhere.example");
    let told = world.get(elsewhere).await.expect_err("refused").to_string();
    assert!(told.contains("anybody without credentials"), "{told}");
    // Of several, the one that is right is found.
    let content = json!({"auths": {
        format!("{host}/x"): {"username": "eve", "password": "guess"},
        host.as_str(): {"username": "ann", "password": "secret"},
    }});
    let content = content.to_string();
    let mut both = wish(&image);
    let added = both.keyring.add("kubernetes.io/dockerconfigjson", |_| {
        Some(content.as_bytes())
    });
    added.expect("sound");
    world.get(both).await.expect("pulled");
}

/// Blobs are often elsewhere, and whoever keeps them is not to learn how they were had.
#[tokio::test]
async fn a_redirect_does_not_take_credentials_along() {
    let storage = FakeRegistry::start(|_| Reply::body(COMPONENT))
        .await
        .expect("started");
    let to = storage.url();
    let content = artefact("x/y", COMPONENT);
    let registry = FakeRegistry::start(move |asked| {
        if asked.authorization != Some(basic("ann:secret")) {
            return Reply::challenge("Basic realm=\"reg\"");
        }
        match content.get(asked.path.as_str()) {
            Some(_) if asked.path.contains("/blobs/") => Reply::redirect(format!("{to}/content")),
            Some(body) => Reply::body(body.clone()),
            None => Reply::status(404),
        }
    });
    let registry = registry.await.expect("started");
    let world = World::naming(&[&registry, &storage]);
    let wish = ann(&format!("{}/x/y:1", registry.host()), &registry.host());
    world.get(wish).await.expect("pulled");
    let asked = storage.asked();
    assert_eq!((asked.len(), asked[0].authorization.as_deref()), (1, None));
}

/// An image that one tenant's credentials had opened was there for everybody who named it.
#[tokio::test]
async fn attack_114_a_private_image_on_the_node_is_for_those_who_may_pull_it() {
    let registry = by_token().await;
    let world = World::naming(&[&registry]);
    let host = registry.host();
    let image = format!("{host}/x/y:1");
    world.get(ann(&image, &host)).await.expect("pulled");

    let present = |wish: Wish| Wish {
        policy: PullPolicy::IfNotPresent,
        ..wish
    };
    let before = registry.paths().len();
    let again = world.get(present(ann(&image, &host))).await.expect("here");
    assert_eq!((again.fetched, registry.paths().len()), (false, before));
    assert!(world.images.resolved(&ann(&image, &host)).is_some());

    assert!(world.images.resolved(&wish(&image)).is_none());
    let told = world
        .get(present(wish(&image)))
        .await
        .expect_err("refused")
        .to_string();
    assert!(
        told.contains("does not let anybody without credentials pull"),
        "{told}"
    );
    let never = Wish {
        policy: PullPolicy::Never,
        ..wish(&image)
    };
    let told = world.get(never).await.expect_err("refused").to_string();
    assert!(
        told.contains("was pulled with credentials that this pod does not have"),
        "{told}"
    );
}

#[tokio::test]
async fn pull_policies_mean_what_they_say() {
    let registry = FakeRegistry::of(artefact("x/y", COMPONENT))
        .await
        .expect("started");
    let names = named(&[&registry]);
    let world = World::naming(&[&registry]);
    let image = format!("{}/x/y:1", registry.host());
    let by = |policy: PullPolicy| Wish {
        policy,
        ..wish(&image)
    };
    let told = world
        .get(by(PullPolicy::Never))
        .await
        .expect_err("not here");
    assert_eq!(
        told,
        ImageError::Never {
            image: image.clone()
        }
    );
    assert!(
        world
            .get(by(PullPolicy::IfNotPresent))
            .await
            .expect("pulled")
            .fetched
    );
    // Asked again, though nothing has to be fetched.
    let asked = registry.paths().len();
    assert!(
        !world
            .get(by(PullPolicy::Always))
            .await
            .expect("pulled")
            .fetched
    );
    assert_eq!(registry.paths().len(), asked + 1);

    // A restart of the node, and a registry that is gone: what is here is here.
    drop(registry);
    let world = world.restarted(&names);
    for policy in [PullPolicy::Never, PullPolicy::IfNotPresent] {
        let pulled = world.get(by(policy)).await.expect("here");
        assert_eq!((pulled.bytes.as_ref(), pulled.fetched), (COMPONENT, false));
    }
    assert!(world.get(by(PullPolicy::Always)).await.is_err());
}

/// The configuration of one mirror of `registry`.
fn mirrored(
    registry: &FakeRegistry,
    mirrors: &[&FakeRegistry],
    rewrite: &serde_json::Value,
) -> String {
    let endpoints: Vec<String> = mirrors.iter().map(|mirror| mirror.url()).collect();
    json!({"mirrors": {registry.host(): {"endpoint": endpoints, "rewrite": rewrite}}}).to_string()
}

#[tokio::test]
async fn a_mirror_is_asked_first_under_its_own_name() {
    let registry = FakeRegistry::start(|_| Reply::status(500))
        .await
        .expect("started");
    let host = registry.host();
    let suffix = format!("?ns={}", host.replace(':', "%3A"));
    let content = artefact("cache/x/y", COMPONENT);
    let mirror = FakeRegistry::start(move |asked| {
        let path = asked.path.strip_suffix(suffix.as_str());
        match path.and_then(|path| content.get(path)) {
            Some(body) => Reply::body(body.clone()),
            None => Reply::status(404),
        }
    });
    let mirror = mirror.await.expect("started");
    let rewrite = json!({"^x/(.*)": "cache/x/$1"});
    let world = World::new(
        &mirrored(&registry, &[&mirror], &rewrite),
        Limits::default(),
    );
    let image = format!("{host}/x/y:1");
    // What the pod brings is for the registry, not for its mirror.
    let pulled = world.get(ann(&image, &host)).await.expect("pulled");
    assert_eq!(
        pulled.id,
        format!("{host}/x/y@{}", sha256(&manifest_of(COMPONENT)))
    );
    assert_eq!(registry.connections(), 0);
    assert!(
        mirror
            .asked()
            .iter()
            .all(|asked| asked.authorization.is_none())
    );
}

/// In every way that a mirror may fail.
#[tokio::test]
async fn when_a_mirror_fails_the_next_is_asked() {
    let registry = FakeRegistry::of(artefact("x/y", COMPONENT))
        .await
        .expect("started");
    let image = format!("{}/x/y:1", registry.host());
    let mut wrong = artefact("x/y", COMPONENT);
    wrong.insert(
        format!("/v2/x/y/blobs/{}", sha256(COMPONENT)),
        b"another".to_vec(),
    );
    let without_query = |path: &str| path.split('?').next().unwrap_or_default().to_owned();
    let failing = [
        FakeRegistry::start(|_| Reply::status(404)).await,
        FakeRegistry::start(|_| Reply::status(503)).await,
        FakeRegistry::start(|_| Reply::challenge("Basic realm=\"m\"")).await,
        FakeRegistry::start(|_| Reply::body("<html>")).await,
        FakeRegistry::start(|_| Reply::Endless(200)).await,
        FakeRegistry::start(move |asked| match wrong.get(&without_query(&asked.path)) {
            Some(body) => Reply::body(body.clone()),
            None => Reply::status(404),
        })
        .await,
    ];
    for mirror in failing {
        let mirror = mirror.expect("started");
        let world = World::new(
            &mirrored(&registry, &[&mirror], &json!({})),
            Limits::default(),
        );
        let pulled = world.pull(&image).await.expect("pulled");
        assert_eq!(pulled.bytes.as_ref(), COMPONENT);
        assert!(mirror.connections() > 0);
    }
    // One that is not there, and one that is silent or crawls: the others have their share of the time.
    let gone = FakeRegistry::start(|_| Reply::Silence)
        .await
        .expect("started");
    let address = gone.url();
    drop(gone);
    let silent = FakeRegistry::start(|_| Reply::Silence)
        .await
        .expect("started");
    let endpoints = json!({"mirrors": {registry.host(): {"endpoint": [address, silent.url()]}}});
    let limits = Limits {
        silent: Duration::from_secs(1),
        ..Limits::default()
    };
    let world = World::new(&endpoints.to_string(), limits);
    world.pull(&image).await.expect("pulled");

    let crawls = FakeRegistry::start(|_| Reply::Trickle)
        .await
        .expect("started");
    let limits = Limits {
        document: PATIENCE,
        pull: Duration::from_secs(6),
        ..Limits::default()
    };
    let world = World::new(&mirrored(&registry, &[&crawls], &json!({})), limits);
    world.pull(&image).await.expect("pulled");
}

#[tokio::test]
async fn when_all_fail_each_is_told() {
    let registry = FakeRegistry::start(|_| Reply::status(404))
        .await
        .expect("started");
    let mirror = FakeRegistry::start(|_| Reply::status(503))
        .await
        .expect("started");
    let world = World::new(
        &mirrored(&registry, &[&mirror], &json!({})),
        Limits::default(),
    );
    let (host, url) = (registry.host(), mirror.url());
    assert_eq!(
        world.refusal(&format!("{host}/x/y:1")).await,
        format!(
            "{host} has no {host}/x/y:1; check its name and tag; before, {url}: it answered 503 Service Unavailable"
        )
    );
}

#[tokio::test]
async fn a_registry_with_a_certificate_of_its_own_is_known_by_it() {
    let made =
        rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    let key =
        rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate and its key");
    let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let content = artefact("x/y", COMPONENT);
    let registry = FakeRegistry::start_with(Some(tls), move |asked| {
        // A mirror is told whose images it is asked for.
        let path = asked.path.split('?').next().unwrap_or_default();
        match content.get(path) {
            Some(body) => Reply::body(body.clone()),
            None => Reply::status(404),
        }
    });
    let registry = registry.await.expect("started");
    let folder = tempfile::tempdir().expect("a folder");
    let authority = folder.path().join("ca.crt");
    std::fs::write(&authority, made.cert.pem()).expect("written");
    let host = registry.host();
    let image = format!("{host}/x/y:1");
    let with = |tls: serde_json::Value| {
        let name = format!("https://{host}");
        json!({"configs": {name: {"tls": tls}}}).to_string()
    };
    for tls in [
        json!({"ca_file": authority}),
        json!({"insecure_skip_verify": true}),
    ] {
        let mirror = json!({"endpoint": [format!("https://{host}")]});
        let mut file: serde_json::Value = serde_json::from_str(&with(tls)).expect("JSON");
        file["mirrors"] = json!({ host.as_str(): mirror });
        let world = World::new(&file.to_string(), Limits::default());
        let pulled = world.pull(&image).await.expect("pulled");
        assert_eq!(pulled.bytes.as_ref(), COMPONENT);
    }
}

/// `Failed to pull image "short/fornt:1": failed to pull image "short/fornt:1": not found` said it twice, and not what to do.
#[tokio::test]
async fn an_image_that_was_not_pushed_says_what_to_do() {
    let mut content = artefact("short/front", COMPONENT);
    content.insert(
        "/v2/_catalog".into(),
        br#"{"repositories": ["short/api", "short/front"]}"#.to_vec(),
    );
    content.insert(
        "/v2/short/front/tags/list".into(),
        br#"{"name": "short/front", "tags": ["1"]}"#.to_vec(),
    );
    let answer = move |path: &str| match content.get(path) {
        Some(body) => (200, body.clone()),
        None => (404, Vec::new()),
    };
    let folder = tempfile::tempdir().expect("a folder");
    let images = World::open(&folder, own_registry(answer), "", Limits::default());
    let world = World { images, folder };
    let pulled = world.pull("short/front:1").await.expect("pulled");
    assert_eq!(pulled.bytes.as_ref(), COMPONENT);
    for (image, expected) in [
        (
            "short/fornt:1",
            "the cluster's registry has no short/fornt:1; put a component there with `weft push FILE short/fornt:1`; it has short/front:1",
        ),
        (
            "short/front:2",
            "the cluster's registry has no short/front:2; put a component there with `weft push FILE short/front:2`; it has short/front:1",
        ),
        (
            "nginx",
            "the cluster's registry has no nginx (a container image? weft runs WebAssembly components); put a component there with `weft push FILE nginx`",
        ),
    ] {
        assert_eq!(world.refusal(image).await, expected);
    }
}

#[tokio::test]
async fn attack_14_what_is_no_component_is_told_as_such() {
    let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
    let manifest = json!({
        "schemaVersion": 2,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(b"{}"), "size": 2},
        "layers": [{"mediaType": gzip, "digest": sha256(b"x"), "size": 1}],
    });
    let manifest = manifest.to_string();
    let registry = FakeRegistry::start(move |_| Reply::body(manifest.clone()));
    let registry = registry.await.expect("started");
    let world = World::naming(&[&registry]);
    let image = format!("{}/library/nginx:1", registry.host());
    assert_eq!(
        world.refusal(&image).await,
        format!(
            "image \"{image}\" holds no WebAssembly component: its layers are {gzip} (a container image? weft runs WebAssembly \
             components; push the .wasm file itself, with `weft push`, `wkg oci push` or `oras push`)"
        )
    );
}

/// The image that every node has, in a cluster to which nothing was pushed.
#[tokio::test]
async fn the_toolbox_is_there_from_the_beginning_for_whoever_may_have_it() {
    let world = World::new("{}", Limits::default());
    let wish = |image: &str, policy: PullPolicy, toolbox: bool| Wish {
        policy,
        toolbox,
        ..wish(image)
    };
    let id = format!("toolbox@{}", sha256(OWN_TOOLBOX));
    for policy in [
        PullPolicy::Always,
        PullPolicy::IfNotPresent,
        PullPolicy::Never,
    ] {
        for image in ["toolbox", "toolbox:latest"] {
            let found = world.get(wish(image, policy, true)).await;
            let found = found.expect("it is there");
            assert_eq!(
                (&found.id, &found.bytes[..], found.fetched),
                (&id, OWN_TOOLBOX, false)
            );
        }
        for (image, toolbox) in [("toolbox", false), ("toolbox:1", true), ("x/toolbox", true)] {
            let refused = world.get(wish(image, policy, toolbox)).await;
            assert!(refused.is_err(), "{image} {policy:?} {toolbox}");
        }
    }
    let known = |toolbox| {
        let wish = wish("toolbox", PullPolicy::IfNotPresent, toolbox);
        world.images.resolved(&wish)
    };
    assert_eq!(known(true), Some((id, sha256(OWN_TOOLBOX))));
    assert_eq!(known(false), None);
}

/// What somebody pushed under that name is what the registry answers with; who does not ask it has the node's.
#[tokio::test]
async fn a_toolbox_that_was_pushed_is_taken_where_the_registry_is_asked() {
    let content = artefact("toolbox", COMPONENT);
    let link = own_registry(move |path| {
        let path = path.replace("/manifests/latest", "/manifests/1");
        let found = content.get(path.as_str());
        found.map_or((404, Vec::new()), |body| (200, body.to_vec()))
    });
    let folder = tempfile::tempdir().expect("a folder");
    let images = World::open(&folder, link, "{}", Limits::default());
    let world = World { images, folder };
    let mut wished = wish("toolbox");
    wished.policy = PullPolicy::IfNotPresent;
    let own = world.get(wished.clone()).await.expect("it is there");
    assert_eq!(&own.bytes[..], OWN_TOOLBOX);
    let pushed = world.pull("toolbox").await.expect("it was pushed");
    assert_eq!((&pushed.bytes[..], pushed.fetched), (COMPONENT, true));
    // From then on it is present.
    let present = world.get(wished).await.expect("it is there");
    assert_eq!(&present.bytes[..], COMPONENT);
}
