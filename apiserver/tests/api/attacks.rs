//! Bad input to the API from whoever may send some. The numbers are those of `docs/attacks.md`; what is done to connections is in
//! `tests/connections.rs`, who pretends to be somebody else in `impostors.rs`.
//!
//! Each is refused, or taken as what it says and no more, and the server answers the next request.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::join_all;
use http::header;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use weft_apiserver::objects::WatchBounds;

use crate::world::*;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Sends a body of a media type.
async fn send(world: &World, line: &str, kind: &str, body: &[u8]) -> Answer {
    let mut request = world.request(line, &[(header::CONTENT_TYPE, kind)], "");
    *request.body_mut() = axum::body::Body::from(body.to_vec());
    world.send(request).await
}

/// It is refused with a code, and the server is as it was.
async fn refused(world: &World, line: &str, kind: &str, body: &[u8], code: u16) -> String {
    let answer = send(world, line, kind, body).await;
    assert_eq!(answer.status, code, "{line} {kind}: {}", answer.line());
    assert_eq!(answer.body["kind"], "Status", "{line} {kind}");
    assert_eq!(world.get("/livez").await.status, 200);
    answer.body["message"].as_str().unwrap().to_owned()
}

async fn with_map() -> World {
    let world = World::new().await;
    let post = format!("POST {MAPS}");
    let made = world.ask(&post, config_map("a", "1")).await;
    assert_eq!(made.status, 201);
    world
}

#[tokio::test]
async fn attack_60_aliases_are_not_multiplied_out() {
    let world = with_map().await;
    let mut bomb = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n".to_owned();
    bomb.push_str("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{items}]").unwrap();
    }
    let (post, item) = (format!("POST {MAPS}"), format!("{MAPS}/a"));
    for (line, kind) in [
        (post.clone(), "application/yaml"),
        (format!("PUT {item}"), "application/yaml"),
        (
            format!("PATCH {item}?fieldManager=m"),
            "application/apply-patch+yaml",
        ),
        (format!("DELETE {item}"), "application/yaml"),
    ] {
        refused(&world, &line, kind, bomb.as_bytes(), 400).await;
    }
    // An alias of itself has no end at all.
    let itself = b"apiVersion: v1\nkind: ConfigMap\nmetadata: &m {name: b, labels: *m}\n";
    refused(&world, &post, "application/yaml", itself, 400).await;
}

/// Fields of protobuf within each other: of each its number.
fn nested(fields: &[u8], innermost: Vec<u8>) -> Vec<u8> {
    fields.iter().rev().fold(innermost, |inner, field| {
        // From the inside out, so lengths grow: each is written before what it measures.
        let mut out = vec![field << 3 | 2];
        let mut length = inner.len();
        while length >= 128 {
            out.push((length % 128) as u8 | 128);
            length /= 128;
        }
        out.push(length as u8);
        out.extend(inner);
        out
    })
}

#[tokio::test]
async fn attack_61_a_hundred_thousand_levels_are_too_many() {
    const LEVELS: usize = 100_000;
    let world = with_map().await;
    let (post, item) = (format!("POST {MAPS}"), format!("{MAPS}/a"));
    let patch = format!("PATCH {item}?fieldManager=m");
    for deep in [
        "[".repeat(LEVELS),
        "{\"a\":".repeat(LEVELS),
        format!("{}{}", "[".repeat(LEVELS), "]".repeat(LEVELS)),
        format!("{}1{}", "{\"data\":".repeat(LEVELS), "}".repeat(LEVELS)),
    ] {
        for (line, kind) in [
            (&post, "application/json"),
            (&post, "application/yaml"),
            (&patch, "application/merge-patch+json"),
            (&patch, "application/json-patch+json"),
            (&patch, "application/strategic-merge-patch+json"),
            (&patch, "application/apply-patch+yaml"),
            (&format!("DELETE {item}"), "application/json"),
        ] {
            refused(&world, line, kind, deep.as_bytes(), 400).await;
        }
    }
    // A value of a JSON patch that is deep by itself, and one that becomes deep step by step.
    let value = format!(
        "[{{\"op\":\"add\",\"path\":\"/data\",\"value\":{}}}]",
        "[".repeat(LEVELS)
    );
    let json_patch = "application/json-patch+json";
    refused(&world, &patch, json_patch, value.as_bytes(), 400).await;
    let steps: Vec<Value> = (0..2000)
        .map(|_| json!({"op": "copy", "from": "/metadata", "path": "/metadata/annotations"}))
        .collect();
    let steps = Value::from(steps).to_string();
    refused(&world, &patch, json_patch, steps.as_bytes(), 422).await;
    // A schema within schemas, in protobuf: spec, versions, schema, openAPIV3Schema, and `not` from there on. Bytes of
    // lengths grow with the levels, so there are fewer than the body has room for.
    let levels = [&[2, 7, 4, 1][..], &[28; 20_000][..]].concat();
    let object = nested(&levels, Vec::new());
    let form = [
        nested(&[1], b"apiextensions.k8s.io/v1".to_vec()),
        nested(&[2], b"CustomResourceDefinition".to_vec()),
    ];
    let envelope = [
        b"k8s\0".to_vec(),
        nested(&[1], form.concat()),
        nested(&[2], object),
    ];
    let body = envelope.concat();
    let definitions = format!("POST {DEFINITIONS}");
    refused(&world, &definitions, PROTOBUF, &body, 400).await;
}

#[tokio::test]
async fn attack_62_a_body_of_three_mebibytes_and_one_byte_is_too_large() {
    let world = with_map().await;
    let (post, item) = (format!("POST {MAPS}"), format!("{MAPS}/a"));
    let head = "{\"metadata\":{\"name\":\"large\"},\"data\":{\"a\":\"";
    let body = format!("{head}{}\"}}}}", "x".repeat((3 << 20) - head.len() - 2));
    assert_eq!(body.len(), (3 << 20) + 1);
    for (line, kind) in [
        (&post, "application/json"),
        (&post, "application/yaml"),
        (&post, PROTOBUF),
        (&format!("PUT {item}"), "application/json"),
        (&format!("PATCH {item}"), "application/merge-patch+json"),
        (
            &format!("PATCH {item}?fieldManager=m"),
            "application/apply-patch+yaml",
        ),
        (&format!("DELETE {item}"), "application/json"),
        (&format!("DELETE {MAPS}"), "application/json"),
        (
            &"POST /apis/authentication.k8s.io/v1/selfsubjectreviews".to_owned(),
            "application/json",
        ),
    ] {
        let message = refused(&world, line, kind, body.as_bytes(), 413).await;
        assert_eq!(message, "Request entity too large: limit is 3145728");
    }
    // A byte less is read, and what it says is judged.
    let less = format!("{head}{}\"}}}}", "x".repeat((3 << 20) - head.len() - 3));
    let answer = send(&world, &post, "application/json", less.as_bytes()).await;
    assert_eq!(answer.status, 422, "{}", answer.body["reason"]);
}

#[tokio::test]
async fn attack_63_what_json_leaves_open_is_no_way_in() {
    let world = with_map().await;
    let strict = format!("POST {MAPS}?fieldValidation=Strict");
    let post = format!("POST {MAPS}");
    let json = "application/json";
    for (line, body) in [
        (
            &strict,
            r#"{"metadata":{"name":"b","name":"c"},"data":{"k":"1"}}"#,
        ),
        (
            &strict,
            r#"{"metadata":{"name":"b"},"data":{"k":"1","k":"2"}}"#,
        ),
        (
            &strict,
            r#"{"metadata":{"name":"b"},"DATA":{"k":"1"},"data":{"k":"2"}}"#,
        ),
        (&post, r#"{"metadata":{"name":"b"},"data":NaN}"#),
        (
            &post,
            r#"{"metadata":{"name":"b","generation":18446744073709551616}}"#,
        ),
        (&post, r#"{"metadata":{"name":"b","generation":1e400}}"#),
        (&post, r#"{"metadata":{"name":"b","generation":Infinity}}"#),
        (&post, r#"{"metadata":{"name":"b"},"data":{"k":"\ud800"}}"#),
        (&post, r#"{"metadata":{"name":"b"},"data":{"k":"\udc00x"}}"#),
        (&post, "{\"metadata\":{\"name\":\"b\"}}{}"),
    ] {
        refused(&world, line, json, body.as_bytes(), 400).await;
    }
    let no_utf8 = b"{\"metadata\":{\"name\":\"b\"},\"data\":{\"k\":\"\xed\xa0\x80\"}}";
    refused(&world, &post, json, no_utf8, 400).await;
    // Without Strict the last one counts, and the writer is told.
    let twice = br#"{"metadata":{"name":"b"},"data":{"k":"1","k":"2"}}"#;
    let answer = send(&world, &post, json, twice).await;
    assert_eq!(answer.line(), "201 ConfigMap b");
    assert_eq!(answer.body["data"]["k"], "2");
    let warning = answer.headers[header::WARNING].to_str().unwrap();
    assert!(warning.contains("duplicate field"), "{warning}");
}

#[tokio::test]
async fn attack_64_a_json_patch_is_bounded_in_operations_and_in_what_it_copies() {
    let world = with_map().await;
    let patch = format!("PATCH {MAPS}/a");
    let kind = "application/json-patch+json";
    let many = vec![json!({"op": "test", "path": "/data/k", "value": "1"}); 10_001];
    let many = Value::from(many).to_string();
    assert_eq!(
        refused(&world, &patch, kind, many.as_bytes(), 413).await,
        "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"
    );
    // Each copy holds all of those before it.
    let doubling: Vec<Value> = (0..60)
        .map(|turn| json!({"op": "copy", "from": "/data", "path": format!("/data/{turn}")}))
        .collect();
    let doubling = Value::from(doubling).to_string();
    refused(&world, &patch, kind, doubling.as_bytes(), 422).await;
    let kept = world.get(&format!("{MAPS}/a")).await;
    assert_eq!(kept.body["data"], json!({"k": "1"}));
}

#[tokio::test]
async fn attack_65_a_status_is_not_changed_through_the_object_nor_the_object_through_its_status() {
    let world = World::new().await;
    assert_eq!(
        world.ask(&format!("POST {PODS}"), pod("p")).await.status,
        201
    );
    assert_eq!(
        world
            .ask(&format!("POST {DEPLOYMENTS}"), deployment(1))
            .await
            .status,
        201
    );
    for (path, status, spec) in [
        (
            format!("{PODS}/p"),
            json!({"phase": "Running", "podIP": "10.0.0.9"}),
            json!({"nodeName": "mine", "serviceAccountName": "other"}),
        ),
        (
            format!("{DEPLOYMENTS}/web"),
            json!({"replicas": 7, "readyReplicas": 7}),
            json!({"replicas": 9}),
        ),
    ] {
        let before = world.get(&path).await.body;
        for kind in ["merge-patch", "strategic-merge-patch"] {
            let answer = world.patch(&path, kind, json!({"status": status})).await;
            assert_eq!(answer.status, 200, "{path} {kind}: {}", answer.line());
            assert_eq!(answer.body["status"], before["status"], "{path} {kind}");
            let below = format!("{path}/status");
            let answer = world.patch(&below, kind, json!({"spec": spec})).await;
            assert_eq!(answer.status, 200, "{below} {kind}: {}", answer.line());
            assert_eq!(answer.body["spec"], before["spec"], "{below} {kind}");
        }
        let mut whole = world.get(&path).await.body;
        whole["status"] = status;
        let answer = world.ask(&format!("PUT {path}"), whole).await;
        assert_eq!(answer.body["status"], before["status"], "{path}");
    }
}

#[tokio::test]
async fn attack_66_names_stay_within_their_segment_and_labels_within_their_length() {
    let world = World::new().await;
    let post = format!("POST {MAPS}");
    for name in [
        "../x",
        "..",
        ".",
        "a/b",
        "a\0b",
        "a%2fb",
        "-",
        "A",
        "ä",
        "a\nb",
        &"x".repeat(254),
    ] {
        let body = json!({"metadata": {"name": name}});
        let answer = world.ask(&post, body).await;
        let told = (answer.status, answer.body["reason"].as_str());
        assert_eq!(told, (422, Some("Invalid")), "{name:?}");
    }
    for name in ["..%2fx", "%2e%2e", "a%00b", "a%2fb", "%ff"] {
        let answer = world.get(&format!("{MAPS}/{name}")).await;
        assert_eq!(answer.status, 404, "{name}: {}", answer.line());
    }
    let long = "x".repeat(1 << 20);
    for metadata in [
        json!({"name": "a", "labels": {"a": long}}),
        json!({"name": "a", "labels": {&long: "a"}}),
        json!({"name": "a", "labels": {"a": "\0"}}),
        json!({"name": "a", "annotations": {&long: "a"}}),
        json!({"name": "a", "annotations": {"a": long}}),
        json!({"name": "a", "finalizers": [&long]}),
        json!({"generateName": &long}),
    ] {
        let answer = world.ask(&post, json!({"metadata": metadata})).await;
        assert_eq!(answer.status, 422, "{}", answer.body["reason"]);
    }
    assert_eq!(world.get(MAPS).await.line(), "200 ConfigMapList []");
}

#[tokio::test]
async fn attack_67_no_version_is_one_that_the_server_did_not_give() {
    let world = with_map().await;
    let item = format!("{MAPS}/a");
    for version in ["-1", "9e9", "0x10", "1.0", " 1", "18446744073709551616"] {
        let encoded = version.replace(' ', "%20");
        for query in ["", "&watch=1", "&resourceVersionMatch=Exact"] {
            if query.ends_with("Exact") && version == "-1" {
                continue;
            }
            let answer = world
                .get(&format!("{MAPS}?resourceVersion={encoded}{query}"))
                .await;
            let refused = matches!(answer.status, 400 | 422);
            assert!(refused, "{version} {query}: {}", answer.line());
        }
        let answer = world
            .get(&format!("{item}?resourceVersion={encoded}"))
            .await;
        assert_eq!(answer.status, 400, "{version}: {}", answer.line());
        let mut body = config_map("a", "2");
        body["metadata"]["resourceVersion"] = version.into();
        let answer = world.ask(&format!("PUT {item}"), body).await;
        let refused = matches!(answer.status, 400 | 409 | 422);
        assert!(refused, "{version}: {}", answer.line());
    }
    let now = world.get(MAPS).await.body["metadata"]["resourceVersion"].clone();
    let now: u64 = now.as_str().unwrap().parse().unwrap();
    let future = now + 1_000_000;
    for path in [
        format!("{MAPS}?resourceVersion={future}"),
        format!("{item}?resourceVersion={future}"),
        format!("{MAPS}?resourceVersion={}", u64::MAX),
    ] {
        let answer = world.get(&path).await;
        let told = (answer.status, answer.body["reason"].as_str());
        assert_eq!(told, (504, Some("Timeout")), "{path}");
        let cause = &answer.body["details"]["causes"][0]["reason"];
        assert_eq!(cause, "ResourceVersionTooLarge", "{path}");
    }
    let mut body = config_map("a", "2");
    body["metadata"]["resourceVersion"] = future.to_string().into();
    let answer = world.ask(&format!("PUT {item}"), body).await;
    assert_eq!(answer.status, 409, "{}", answer.line());
}

#[tokio::test]
async fn attack_68_a_token_leads_through_its_own_list_only() {
    let world = with_map().await;
    world
        .ask(
            "POST /api/v1/namespaces/kube-system/secrets",
            json!({"metadata": {"name": "s"}}),
        )
        .await;
    let now = world.get(MAPS).await.body["metadata"]["resourceVersion"].clone();
    let now: i64 = now.as_str().unwrap().parse().unwrap();
    let forged = |token: Value| URL_SAFE_NO_PAD.encode(token.to_string());
    for token in [
        "zzz".to_owned(),
        "%25%25".to_owned(),
        forged(json!([])),
        forged(json!({"rv": "1", "start": "a"})),
        forged(json!({"rv": 0, "start": "/core/configmaps/default/a"})),
        forged(json!({"rv": now, "start": ""})),
        forged(json!({"rv": now, "start": "/core/secrets/kube-system/a"})),
        forged(json!({"rv": now, "start": "/"})),
        forged(json!({"rv": now, "start": "/core/configmaps/kube-system/a"})),
        forged(json!({"rv": -1, "start": "../secrets/kube-system/"})),
    ] {
        let answer = world.get(&format!("{MAPS}?limit=1&continue={token}")).await;
        let told = (answer.status, answer.body["reason"].as_str());
        assert_eq!(told, (400, Some("BadRequest")), "{token}");
    }
    // One of another's is no more than a place in a list that its holder may read.
    let other = forged(json!({"rv": now, "start": "/core/configmaps/default/0"}));
    let path = format!("{MAPS}?limit=1&continue={other}");
    assert_eq!(world.get(&path).await.line(), "200 ConfigMapList [a]");
    let mut request = world.request(&format!("GET {path}"), &[], "");
    let token = "Bearer user".parse().unwrap();
    request.headers_mut().insert(header::AUTHORIZATION, token);
    assert_eq!(world.send(request).await.status, 403);
}

#[tokio::test]
async fn attack_69_selectors_and_patterns_cost_what_they_are_long() {
    let world = with_map().await;
    let terms = |of: &dyn Fn(usize) -> String| (0..10_000).map(of).collect::<Vec<_>>().join(",");
    for (name, selector, code) in [
        ("labelSelector", terms(&|n| format!("k{n}!=v{n}")), 200),
        ("labelSelector", terms(&|_| "v=1".to_owned()), 200),
        ("labelSelector", terms(&|n| format!("k{n}")), 200),
        (
            "labelSelector",
            format!("v in ({})", terms(&|n| format!("x{n}"))),
            200,
        ),
        ("labelSelector", "(".repeat(50_000), 400),
        ("labelSelector", "!".repeat(50_000), 400),
        (
            "fieldSelector",
            terms(&|n| format!("metadata.name!=x{n}")),
            200,
        ),
        ("fieldSelector", "\\".repeat(50_001), 400),
    ] {
        let encoded: String = selector
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'.' => char::from(byte).to_string(),
                byte => format!("%{byte:02X}"),
            })
            .collect();
        // A head has room for that much and no more: what does not fit into a URI was refused before.
        let uri = format!("{MAPS}?{name}={encoded}");
        let request = http::Request::get(&uri).header(header::AUTHORIZATION, "Bearer secret");
        match request.body(axum::body::Body::empty()) {
            Ok(request) => assert_eq!(world.send(request).await.status, code, "{name}"),
            Err(_) => assert!(uri.len() > u16::MAX.into(), "{name}: {}", uri.len()),
        }
    }
    // Of the patterns in rules and schemas none is matched by trying again.
    let schema = json!({
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "string", "maxLength": 100_000, "pattern": "^(a+)+$"},
            "b": {"type": "string", "maxLength": 50_000, "x-kubernetes-validations": [
                {"rule": "self.matches('^(([a-z])+.)+[A-Z]([a-z])+$')", "message": "no"},
            ]},
        }}},
    });
    let definition = json!({
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    });
    let closing = tokio_util::sync::CancellationToken::new();
    tokio::spawn(world.objects.clone().tend_definitions(closing.clone()));
    tokio::spawn(world.objects.clone().follow_definitions(closing));
    let made = world.ask(&format!("POST {DEFINITIONS}"), definition).await;
    assert_eq!(made.status, 201, "{}", made.line());
    let watch = format!("{DEFINITIONS}?watch=1");
    let mut watch = world.watch(&watch).await;
    while !watch.next().await.expect("an event")["object"]["status"]["conditions"]
        .to_string()
        .contains("\"Established\"")
    {}
    let things = "POST /apis/example.com/v1/namespaces/default/things";
    for (field, length) in [("a", 99_999), ("b", 49_999)] {
        let text = format!("{}!", "a".repeat(length));
        let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {field: text}});
        let answer = world.ask(things, thing).await;
        assert_eq!(answer.status, 422, "{field}: {}", answer.body["reason"]);
    }
}

#[tokio::test]
async fn attack_70_ten_thousand_watches_that_nobody_reads_end_and_hold_nothing() {
    const WATCHES: usize = 10_000;
    let world = World::with(Setup {
        watch: WatchBounds {
            queue_changes_max: 8,
            ..WatchBounds::default()
        },
        ..Setup::default()
    })
    .await;
    world
        .ask(&format!("POST {MAPS}"), config_map("a", "1"))
        .await;
    let mut bodies = Vec::with_capacity(WATCHES);
    for _ in 0..WATCHES {
        let request = world.request(&format!("GET {MAPS}?watch=1&resourceVersion=0"), &[], "");
        let response = world.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        bodies.push(response.into_body());
    }
    for turn in 0..32 {
        let label = json!({"metadata": {"labels": {"v": turn.to_string()}}});
        let answer = world
            .patch(&format!("{MAPS}/a"), "merge-patch", label)
            .await;
        assert_eq!(answer.status, 200, "{}", answer.line());
    }
    // Who reads is told all of it; who did not is cut off after whole lines, far fewer than there were.
    let mut reads = world.watch(&format!("{MAPS}?watch=1")).await;
    assert_eq!(reads.told(1).await, "ADDED a 31");
    for body in bodies {
        let bytes = body.collect().await.unwrap().to_bytes();
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        assert!(lines <= 10, "{lines} lines were held for who read none");
        assert!(bytes.is_empty() || bytes.ends_with(b"\n"));
    }
}

#[tokio::test]
async fn attack_71_lists_of_everything_by_many_at_once_are_answered_or_put_off() {
    const OBJECTS: usize = 200;
    let world = World::new().await;
    for number in 0..OBJECTS {
        let mut map = config_map(&format!("m{number}"), "1");
        map["data"]["noise"] = "x".repeat(4096).into();
        let answer = world.ask(&format!("POST {MAPS}"), map).await;
        assert_eq!(answer.status, 201);
    }
    let ask = |token: &'static str| {
        let mut request = world.request("GET /api/v1/configmaps", &[], "");
        let token = header::HeaderValue::from_static(token);
        request.headers_mut().insert(header::AUTHORIZATION, token);
        world.send(request)
    };
    let answers = join_all((0..300).map(|_| ask("Bearer secret"))).await;
    let (mut whole, mut put_off) = (0, 0);
    for answer in answers {
        match answer.status {
            200 => {
                assert!(answer.body["items"].as_array().unwrap().len() >= OBJECTS);
                whole += 1;
            }
            429 => {
                assert!(answer.headers.contains_key(header::RETRY_AFTER));
                put_off += 1;
            }
            other => panic!("{other}: {}", answer.line()),
        }
    }
    assert!(whole > 0, "{put_off} were put off, and none answered");
    assert_eq!(ask("Bearer secret").await.status, 200);
}

#[tokio::test]
async fn attack_77_no_endpoint_is_the_node_or_its_link() {
    let world = World::new().await;
    for address in [
        "127.0.0.1",
        "127.1.2.3",
        "::1",
        "169.254.169.254",
        "224.0.0.1",
        "0.0.0.0",
    ] {
        let endpoints = json!({
            "metadata": {"name": "e"},
            "subsets": [{"addresses": [{"ip": address}], "ports": [{"port": 80}]}],
        });
        let answer = world
            .ask("POST /api/v1/namespaces/default/endpoints", endpoints)
            .await;
        assert_eq!(answer.status, 422, "{address}: {}", answer.line());
        let family = if address.contains(':') {
            "IPv6"
        } else {
            "IPv4"
        };
        let slice = json!({
            "metadata": {"name": "e"}, "addressType": family,
            "endpoints": [{"addresses": [address]}], "ports": [{"port": 80}],
        });
        let slices = "POST /apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
        let answer = world.ask(slices, slice).await;
        assert_eq!(answer.status, 422, "{address}: {}", answer.line());
        let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "externalIPs": [address]}});
        let answer = world.ask(&format!("POST {SERVICES}"), service).await;
        assert_eq!(answer.status, 422, "{address}: {}", answer.line());
    }
}

#[tokio::test]
async fn attack_78_a_storm_of_conflicts_changes_nothing() {
    let world = World::new().await;
    let apply = |manager: String, value: &'static str| {
        let body = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": value},
        });
        let line = format!("PATCH {MAPS}/a?fieldManager={manager}");
        let kind = [(header::CONTENT_TYPE, "application/apply-patch+yaml")];
        let request = world.request(&line, &kind, &body.to_string());
        world.send(request)
    };
    assert_eq!(apply("owner".to_owned(), "1").await.status, 201);
    let before = world.get(&format!("{MAPS}/a")).await.body;
    let storm = (0..100).map(|number| apply(format!("m{number}"), "2"));
    for answer in join_all(storm).await {
        assert_eq!(
            answer.line(),
            "409 Conflict: Apply failed with 1 conflict: conflict with \"owner\": .data.k"
        );
    }
    assert_eq!(world.get(&format!("{MAPS}/a")).await.body, before);
}
