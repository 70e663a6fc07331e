//! Conversations with the registry, as OCI clients hold them.

use http::HeaderMap;
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::blobs::BLOB_BYTES_MAX;
use super::manifests::{MANIFEST, MANIFEST_BYTES_MAX};
use super::*;

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0rest";
const MODULE: &[u8] = b"\0asm\x01\0\0\0rest";
const CONFIG: &[u8] = b"{\"architecture\":\"wasm\"}";

struct World {
    registry: Registry,
    _dir: tempfile::TempDir,
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(weft_store::Config::new(dir.path().join("store"))).await;
    World {
        registry: Registry::open(&dir.path().join("registry"), store.unwrap()).unwrap(),
        _dir: dir,
    }
}

fn master() -> Caller {
    Caller::client_certificate("jo", vec!["system:masters".to_owned()])
}

impl World {
    async fn call(
        &self,
        caller: &Caller,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> (u16, HeaderMap, Vec<u8>) {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_vec())).unwrap();
        let (head, body) = answer(&self.registry, caller, request).await.into_parts();
        (
            head.status.as_u16(),
            head.headers,
            body.collect().await.unwrap().to_bytes().to_vec(),
        )
    }

    async fn push_blob(&self, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        let path = format!("/v2/vote/web/blobs/uploads/?digest={digest}");
        assert_eq!(
            self.call(&master(), "POST", &path, &[], content).await.0,
            201
        );
        digest
    }

    async fn push_manifest(&self, tag: &str, layer: &Digest, kind: &str) -> (u16, String) {
        let config = self.push_blob(CONFIG).await;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": { "mediaType": "application/vnd.wasm.config.v0+json", "digest": config.to_string(), "size": CONFIG.len() },
            "layers": [{ "mediaType": kind, "digest": layer.to_string(), "size": 1 }],
        });
        let path = format!("/v2/vote/web/manifests/{tag}");
        let (status, _, body) = self
            .call(
                &master(),
                "PUT",
                &path,
                &[("content-type", MANIFEST)],
                manifest.to_string().as_bytes(),
            )
            .await;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        (
            status,
            body["errors"][0]["message"]
                .as_str()
                .unwrap_or("")
                .to_owned(),
        )
    }
}

#[tokio::test]
async fn what_is_pushed_can_be_pulled() {
    let world = world().await;
    let node = Caller::client_certificate("system:node:a", vec!["system:nodes".to_owned()]);
    // In chunks, as docker and crane send it.
    let (status, headers, _) = world
        .call(&master(), "POST", "/v2/vote/web/blobs/uploads/", &[], b"")
        .await;
    let location = headers["location"].to_str().unwrap().to_owned();
    assert_eq!(status, 202);
    let (status, headers, _) = world
        .call(
            &master(),
            "PATCH",
            &location,
            &[("content-range", "0-7")],
            &COMPONENT[..8],
        )
        .await;
    assert_eq!((status, headers["range"].to_str().unwrap()), (202, "0-7"));
    assert_eq!(
        world
            .call(
                &master(),
                "PATCH",
                &location,
                &[("content-range", "4-9")],
                b"x"
            )
            .await
            .0,
        416
    );
    let layer = Digest::of(COMPONENT);
    let (status, headers, _) = world
        .call(
            &master(),
            "PUT",
            &format!("{location}?digest=sha256%3A{}", layer.0),
            &[],
            &COMPONENT[8..],
        )
        .await;
    assert_eq!(
        (status, headers["docker-content-digest"].to_str().unwrap()),
        (201, layer.to_string().as_str())
    );

    assert_eq!(
        world.push_manifest("1", &layer, "application/wasm").await,
        (201, String::new())
    );
    let (status, headers, body) = world
        .call(&node, "GET", "/v2/vote/web/manifests/1", &[], b"")
        .await;
    assert_eq!(
        (status, headers["content-type"].to_str().unwrap()),
        (200, MANIFEST)
    );
    let digest = headers["docker-content-digest"]
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        world.registry.tags.get("vote/web", "1").await,
        Digest::parse(&digest)
    );
    assert_eq!(
        world
            .call(
                &node,
                "GET",
                &format!("/v2/vote/web/manifests/{digest}"),
                &[],
                b""
            )
            .await
            .2,
        body
    );
    let blob = format!("/v2/vote/web/blobs/{layer}");
    assert_eq!(world.call(&node, "GET", &blob, &[], b"").await.2, COMPONENT);
    let (status, headers, body) = world
        .call(&node, "GET", &blob, &[("range", "bytes=8-")], b"")
        .await;
    assert_eq!(
        (
            status,
            headers["content-range"].to_str().unwrap(),
            body.as_slice()
        ),
        (206, "bytes 8-11/12", &b"rest"[..])
    );
    let (status, headers, body) = world.call(&node, "HEAD", &blob, &[], b"").await;
    assert_eq!(
        (
            status,
            headers["content-length"].to_str().unwrap(),
            body.len()
        ),
        (200, "12", 0)
    );
    let (_, _, tags) = world
        .call(&node, "GET", "/v2/vote/web/tags/list", &[], b"")
        .await;
    assert_eq!(tags, br#"{"name":"vote/web","tags":["1"]}"#);
    let (_, _, catalog) = world.call(&node, "GET", "/v2/_catalog", &[], b"").await;
    assert_eq!(catalog, br#"{"repositories":["vote/web"]}"#);
}

#[tokio::test]
async fn refusals() {
    let world = world().await;
    let node = Caller::client_certificate("system:node:a", vec!["system:nodes".to_owned()]);
    let user = Caller::client_certificate("jo", vec![]);
    let unknown = format!("/v2/vote/web/blobs/sha256:{}", "0".repeat(64));
    let wrong = format!(
        "/v2/vote/web/blobs/uploads/?digest=sha256:{}",
        "0".repeat(64)
    );
    for (caller, method, path, headers, status, code) in [
        (
            &Caller::anonymous(),
            "GET",
            "/v2/",
            &[][..],
            401,
            "UNAUTHORIZED",
        ),
        (&user, "GET", "/v2/", &[], 403, "DENIED"),
        (
            &node,
            "POST",
            "/v2/vote/web/blobs/uploads/",
            &[],
            403,
            "DENIED",
        ),
        (&node, "GET", unknown.as_str(), &[], 404, "BLOB_UNKNOWN"),
        (
            &node,
            "GET",
            "/v2/vote/web/blobs/sha256:xyz",
            &[],
            400,
            "DIGEST_INVALID",
        ),
        (
            &node,
            "GET",
            "/v2/vote/web/manifests/1",
            &[],
            404,
            "MANIFEST_UNKNOWN",
        ),
        (
            &node,
            "GET",
            "/v2/vote/../etc/manifests/1",
            &[],
            400,
            "NAME_INVALID",
        ),
        (
            &node,
            "GET",
            "/v2/Vote/manifests/1",
            &[],
            400,
            "NAME_INVALID",
        ),
        (
            &node,
            "GET",
            "/v2/vote/web/tags/list",
            &[],
            404,
            "NAME_UNKNOWN",
        ),
        (&master(), "POST", &wrong, &[], 400, "DIGEST_INVALID"),
        (
            &master(),
            "PATCH",
            "/v2/vote/web/blobs/uploads/no",
            &[],
            404,
            "BLOB_UPLOAD_UNKNOWN",
        ),
        (&master(), "DELETE", &unknown, &[], 405, "UNSUPPORTED"),
    ] {
        let (got, _, body) = world.call(caller, method, path, headers, b"").await;
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (got, body["errors"][0]["code"].as_str().unwrap()),
            (status, code),
            "{method} {path}"
        );
    }
    let (_, headers, _) = world
        .call(&master(), "POST", "/v2/a/blobs/uploads/", &[], b"")
        .await;
    let location = headers["location"].to_str().unwrap().to_owned();
    let huge = (BLOB_BYTES_MAX + 1).to_string();
    assert_eq!(
        world
            .call(
                &master(),
                "PATCH",
                &location,
                &[("content-length", &huge)],
                b""
            )
            .await
            .0,
        413
    );
    let large = vec![b' '; MANIFEST_BYTES_MAX + 1];
    assert_eq!(
        world
            .call(
                &master(),
                "PUT",
                "/v2/a/manifests/1",
                &[("content-type", MANIFEST)],
                &large
            )
            .await
            .0,
        413
    );
}

#[tokio::test]
async fn only_components_are_taken_as_wasm_layers() {
    let world = world().await;
    let module = world.push_blob(MODULE).await;
    let text = world.push_blob(b"hello").await;
    let absent = Digest::of(b"absent");
    for (layer, kind, status, ending) in [
        (
            &module,
            "application/wasm",
            400,
            "is a core module, not a component; build it for wasm32-wasip2, or wrap it with `wasm-tools component new`",
        ),
        (&text, "application/wasm", 400, "is not WebAssembly"),
        (
            &absent,
            "application/wasm",
            404,
            "which has not been uploaded",
        ),
        (&text, "text/plain", 201, ""),
    ] {
        let (got, message) = world.push_manifest("2", layer, kind).await;
        assert_eq!(got, status, "{message}");
        assert!(message.ends_with(ending), "{message}");
    }
}

#[test]
fn names_and_paths() {
    for name in ["a", "vote/web", "a.b_c__d-e--f/0"] {
        assert!(is_name(name), "{name}");
    }
    for name in [
        "",
        "/a",
        "a/",
        "a//b",
        "..",
        ".a",
        "a..b",
        "a___b",
        "_manifests",
        "A",
        "a b",
    ] {
        assert!(!is_name(name), "{name}");
    }
    assert!(
        is_tag("v1.0-rc_1")
            && !is_tag("")
            && !is_tag("-a")
            && !is_tag("a/b")
            && !is_tag(&"a".repeat(129))
    );
    assert_eq!(resource("/v2"), Some(Resource::Ping));
    assert_eq!(
        resource("/v2/a/b/blobs/uploads/"),
        Some(Resource::Uploads { name: "a/b" })
    );
    assert_eq!(
        resource("/v2/a/b/blobs/uploads/x"),
        Some(Resource::Upload {
            name: "a/b",
            id: "x"
        })
    );
    assert_eq!(
        resource("/v2/a/b/manifests/1"),
        Some(Resource::Manifest {
            name: "a/b",
            reference: "1"
        })
    );
    assert_eq!(
        resource("/v2/a/tags/manifests/tags/list"),
        Some(Resource::Tags {
            name: "a/tags/manifests"
        })
    );
    assert_eq!(resource("/v2/a"), None);
}

#[tokio::test]
async fn a_tag_is_removed_and_what_it_stood_for_stays() {
    let world = world().await;
    let layer = world.push_blob(COMPONENT).await;
    let (status, _) = world.push_manifest("1", &layer, "application/wasm").await;
    assert_eq!(status, 201);
    let one = "/v2/vote/web/manifests/1";
    let (status, headers, _) = world.call(&master(), "GET", one, &[], b"").await;
    assert_eq!(status, 200);
    let digest = headers[CONTENT_DIGEST].to_str().unwrap().to_owned();
    let by_digest = format!("/v2/vote/web/manifests/{digest}");
    let node = Caller::client_certificate("system:node:a", vec!["system:nodes".to_owned()]);
    for (caller, path, expected) in [
        // Who only pulls removes nothing.
        (&node, one, 403),
        (&master(), by_digest.as_str(), 405),
        (&master(), one, 202),
        (&master(), one, 404),
    ] {
        let (status, _, _) = world.call(caller, "DELETE", path, &[], b"").await;
        assert_eq!(status, expected, "{path}");
    }
    for (path, expected) in [
        (one, 404),
        (by_digest.as_str(), 200),
        ("/v2/vote/web/tags/list", 404),
    ] {
        let (status, _, _) = world.call(&master(), "GET", path, &[], b"").await;
        assert_eq!(status, expected, "{path}");
    }
}
