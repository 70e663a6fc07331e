//! What lists and watches take of a query, held to what kube-apiserver 1.37 answered to the same.

use http::header;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use weft_apiserver::objects::WatchBounds;

use crate::world::*;

#[tokio::test]
async fn parameters_are_refused_in_kubernetes_words() {
    let world = World::new().await;
    world
        .ask(&format!("POST {MAPS}"), config_map("a", "1"))
        .await;
    for (query, expected) in [
        ("limit=-1", "200 ConfigMapList [a]"),
        (
            "limit=abc",
            "400 BadRequest: strconv.ParseInt: parsing \"abc\": invalid syntax",
        ),
        (
            "limit=99999999999999999999",
            "400 BadRequest: strconv.ParseInt: parsing \"99999999999999999999\": value out of range",
        ),
        (
            "resourceVersion=abc",
            "400 BadRequest: invalid resource version: resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax",
        ),
        (
            "resourceVersion=-1",
            "400 BadRequest: invalid resource version: resourceVersion: Invalid value: \"-1\": strconv.ParseUint: parsing \"-1\": invalid syntax",
        ),
        (
            "resourceVersionMatch=Exact",
            "422 Invalid: ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (
            "resourceVersionMatch=Exact&resourceVersion=0",
            "422 Invalid: ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        ),
        (
            "resourceVersionMatch=Foo",
            "422 Invalid: ListOptions.meta.k8s.io \"\" is invalid: [resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided, resourceVersionMatch: Unsupported value: \"Foo\": supported values: \"Exact\", \"NotOlderThan\", \"\"]",
        ),
        (
            "resourceVersionMatch=Foo&resourceVersion=0",
            "422 Invalid: ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Unsupported value: \"Foo\": supported values: \"Exact\", \"NotOlderThan\", \"\"",
        ),
        (
            "resourceVersionMatch=Exact&continue=zzz",
            "422 Invalid: ListOptions.meta.k8s.io \"\" is invalid: [resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided, resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided]",
        ),
        (
            "resourceVersionMatch=NotOlderThan&resourceVersion=abc",
            "400 BadRequest: invalid resource version: resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax",
        ),
        (
            "sendInitialEvents=true",
            "422 Invalid: ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
        ),
        (
            "sendInitialEvents=false&resourceVersionMatch=Foo",
            "422 Invalid: ListOptions.meta.k8s.io \"\" is invalid: [resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided, resourceVersionMatch: Unsupported value: \"Foo\": supported values: \"Exact\", \"NotOlderThan\", \"\", sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list]",
        ),
        (
            "watch=True&sendInitialEvents=true",
            "422 Invalid: ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        (
            "watch=1&sendInitialEvents=true&resourceVersionMatch=Exact",
            "422 Invalid: ListOptions.meta.k8s.io \"\" is invalid: [resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan, resourceVersionMatch: Unsupported value: \"Exact\": supported values: \"NotOlderThan\"]",
        ),
        (
            "watch=1&resourceVersionMatch=Exact",
            "422 Invalid: ListOptions.meta.k8s.io \"\" is invalid: [resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided, resourceVersionMatch: Unsupported value: \"Exact\": supported values: \"NotOlderThan\"]",
        ),
        (
            "watch=1&resourceVersionMatch=NotOlderThan",
            "422 Invalid: ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        (
            "watch=1&timeoutSeconds=abc",
            "400 BadRequest: strconv.ParseInt: parsing \"abc\": invalid syntax",
        ),
        (
            "watch=1&continue=abc",
            "422 Invalid: ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided",
        ),
        ("timeoutSeconds=99999999999", "200 ConfigMapList [a]"),
        ("timeoutSeconds=-1", "200 ConfigMapList [a]"),
        (
            "fieldSelector=x",
            "400 BadRequest: invalid selector: 'x'; can't understand 'x'",
        ),
        (
            "fieldSelector=spec.x%3D1",
            "400 BadRequest: \"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        ),
        ("fieldSelector=metadata.name%3D", "200 ConfigMapList []"),
        ("fieldSelector=metadata.name!%3Db", "200 ConfigMapList [a]"),
        (
            "fieldSelector=a%3D%3D%3Db",
            "400 BadRequest: invalid field selector: unescaped character in value: 61",
        ),
        (
            "fieldSelector=metadata.name%3Da%5C",
            "400 BadRequest: invalid field selector: invalid escape sequence: \\",
        ),
        (
            "labelSelector=!",
            "400 BadRequest: unable to parse requirement: found '', expected: identifier",
        ),
        (
            "labelSelector=a+in+b",
            "400 BadRequest: unable to parse requirement: found 'b' expected: '('",
        ),
        (
            "labelSelector=a%3D%3D%3Db",
            "400 BadRequest: unable to parse requirement: found '=', expected: identifier",
        ),
        ("labelSelector=v+in+(),v", "200 ConfigMapList []"),
        ("labelSelector=v%3E0", "200 ConfigMapList [a]"),
        ("labelSelector=%zz", "200 ConfigMapList [a]"),
        ("%ff=1", "200 ConfigMapList [a]"),
        ("limit=1;x", "200 ConfigMapList [a]"),
        ("includeObject=Foo", "200 ConfigMapList [a]"),
        ("unknown=1", "200 ConfigMapList [a]"),
        (
            "timeout=abc",
            "400 BadRequest: invalid timeout specified in the request URL - time: invalid duration \"abc\"",
        ),
        (
            "timeout=10",
            "400 BadRequest: invalid timeout specified in the request URL - time: missing unit in duration \"10\"",
        ),
        ("timeout=-1s", "200 ConfigMapList [a]"),
        ("timeout=1h", "200 ConfigMapList [a]"),
    ] {
        let answer = world.get(&format!("{MAPS}?{query}")).await;
        assert_eq!(answer.line(), expected, "{query}");
    }
    let pods = world.get(&format!("{PODS}?fieldSelector=spec.x%3D1")).await;
    assert_eq!(
        pods.line(),
        "400 BadRequest: field label not supported: spec.x"
    );
}

#[tokio::test]
async fn a_list_at_a_revision_is_of_it_and_says_when_that_is_gone() {
    let world = World::with(Setup {
        watch: WatchBounds {
            history_changes_max: 3,
            ..WatchBounds::default()
        },
        ..Setup::default()
    })
    .await;
    let post = format!("POST {MAPS}");
    world.ask(&post, config_map("a", "1")).await;
    world.ask(&post, config_map("b", "1")).await;
    let listed = world.get(MAPS).await;
    let revision = listed.body["metadata"]["resourceVersion"].as_str().unwrap();
    world.ask(&post, config_map("c", "1")).await;
    for (query, expected) in [
        ("", "200 ConfigMapList [a b c]"),
        (
            "&resourceVersionMatch=NotOlderThan",
            "200 ConfigMapList [a b c]",
        ),
        ("&resourceVersionMatch=Exact", "200 ConfigMapList [a b]"),
        // A first page at a revision is of it, too.
        ("&limit=5", "200 ConfigMapList [a b]"),
        (
            "&limit=5&resourceVersionMatch=NotOlderThan",
            "200 ConfigMapList [a b c]",
        ),
    ] {
        let answer = world
            .get(&format!("{MAPS}?resourceVersion={revision}{query}"))
            .await;
        assert_eq!(answer.line(), expected, "{query}");
    }
    for name in ["d", "e", "f", "g"] {
        world.ask(&post, config_map(name, "1")).await;
    }
    let gone = world
        .get(&format!(
            "{MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact"
        ))
        .await;
    assert_eq!(
        gone.line(),
        "410 Expired: The resourceVersion for the provided list is too old."
    );
    let bad = world
        .get(&format!("{MAPS}?continue=eyJydiI6MCwic3RhcnQiOiJ4In0"))
        .await;
    assert_eq!(
        bad.line(),
        "400 BadRequest: invalid continue token: continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)"
    );
    assert_eq!(world.get(&format!("{MAPS}?continue=zzz")).await.status, 400);
}

#[tokio::test]
async fn watches_of_the_first_kind_are_watches() {
    let world = World::new().await;
    for name in ["a", "b"] {
        world
            .ask(&format!("POST {MAPS}"), config_map(name, "1"))
            .await;
    }
    let path = "/api/v1/watch/namespaces/default/configmaps";
    let mut all = world.watch(path).await;
    assert_eq!(all.told(2).await, "ADDED a 1, ADDED b 1");
    let mut one = world.watch(&format!("{path}/b?watch=false")).await;
    world.ask(&format!("DELETE {MAPS}/a"), Value::Null).await;
    world.ask(&format!("DELETE {MAPS}/b"), Value::Null).await;
    assert_eq!(one.told(2).await, "ADDED b 1, DELETED b 1");
    for (line, expected) in [
        (
            format!("GET {path}/b?fieldSelector=metadata.name%3Da"),
            "400 BadRequest: fieldSelector metadata.name doesn't match requested name",
        ),
        (
            format!("POST {path}"),
            "405 MethodNotAllowed: the server does not allow this method on the requested resource",
        ),
        (
            "GET /api/v1/watch/nothing".to_owned(),
            "404 NotFound: the server could not find the requested resource",
        ),
    ] {
        assert_eq!(
            world.ask(&line, Value::Null).await.line(),
            expected,
            "{line}"
        );
    }
    // The rights are those of a watch.
    let mut request = world.request(&format!("GET {path}"), &[], "");
    let token = "Bearer user".parse().unwrap();
    request.headers_mut().insert(header::AUTHORIZATION, token);
    assert_eq!(
        world.send(request).await.line(),
        "403 Forbidden: configmaps is forbidden: User \"jo\" cannot watch resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
}

#[tokio::test]
async fn the_end_of_what_was_there_is_marked_for_who_takes_bookmarks() {
    let world = World::new().await;
    world
        .ask(&format!("POST {MAPS}"), config_map("a", "1"))
        .await;
    let initial = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    for (query, expected) in [
        // A watch from anywhere begins with what is there, and asks for it so.
        ("allowWatchBookmarks=true", "ADDED a 1, BOOKMARK -"),
        (
            "allowWatchBookmarks=true&resourceVersion=0",
            "ADDED a 1, BOOKMARK -",
        ),
        (
            &format!("{initial}&allowWatchBookmarks=1&resourceVersion=1"),
            "ADDED a 1, BOOKMARK -",
        ),
        (initial, "ADDED a 1, MODIFIED a 2"),
        (
            "sendInitialEvents=false&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=1",
            "MODIFIED a 2, MODIFIED a 3",
        ),
    ] {
        let mut watch = world.watch(&format!("{MAPS}?watch=1&{query}")).await;
        for v in ["2", "3", "1"] {
            let label = json!({"metadata": {"labels": {"v": v}}});
            world
                .patch(&format!("{MAPS}/a"), "merge-patch", label)
                .await;
        }
        assert_eq!(watch.told(2).await, expected, "{query}");
    }
    let mut marked = world
        .watch(&format!("{MAPS}?watch=1&allowWatchBookmarks=true"))
        .await;
    marked.next().await;
    let mark = marked.next().await.unwrap();
    assert_eq!(
        mark["object"]["metadata"]["annotations"],
        json!({"k8s.io/initial-events-end": "true"})
    );
    // A watch without any time ends when it began.
    let ended = world
        .get(&format!("{MAPS}?watch=1&timeoutSeconds=-5"))
        .await;
    assert_eq!((ended.status, ended.body), (200, Value::from("")));
}

#[tokio::test]
async fn each_form_is_asked_for_by_its_name() {
    let world = World::new().await;
    world
        .ask(&format!("POST {MAPS}"), config_map("a", "1"))
        .await;
    let of = |kind: &str| format!("application/json;as={kind};g=meta.k8s.io;v=v1");
    let (one, list) = (of("PartialObjectMetadata"), of("PartialObjectMetadataList"));
    let item = format!("{MAPS}/a");
    for (path, accept, expected) in [
        (MAPS, &list, "200 PartialObjectMetadataList [a]"),
        (
            MAPS,
            &one,
            "406 NotAcceptable: you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)",
        ),
        (&item, &one, "200 PartialObjectMetadata a"),
        (
            &item,
            &list,
            "406 NotAcceptable: you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)",
        ),
    ] {
        let request = world.request(&format!("GET {path}"), &[(header::ACCEPT, accept)], "");
        assert_eq!(
            world.send(request).await.line(),
            expected,
            "{path} {accept}"
        );
    }
    let table = |query: &str| {
        let line = format!("GET {MAPS}?{query}");
        world.send(world.request(&line, &[(header::ACCEPT, TABLE)], ""))
    };
    assert_eq!(
        table("includeObject=Foo").await.line(),
        "400 BadRequest: Unable to convert to Table as requested: includeObject: Invalid value: \"Foo\": must be 'Metadata', 'Object', 'None', or empty"
    );
    let row = |answer: Answer| answer.body["rows"][0]["object"]["kind"].clone();
    assert_eq!(row(table("includeObject=Object").await), "ConfigMap");
    assert_eq!(row(table("includeObject=None").await), Value::Null);
    // What answers a question has no row.
    let line = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let review = json!({"spec": {"nonResourceAttributes": {"verb": "get", "path": "/"}}});
    let only = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let request = world.request(line, &[(header::ACCEPT, only)], &review.to_string());
    assert_eq!(
        world.send(request).await.line(),
        "406 NotAcceptable: the resource selfsubjectaccessreviews.authorization.k8s.io does not support being converted to a Table"
    );
    let watch = format!("GET {MAPS}?watch=1");
    let request = world.request(&watch, &[(header::ACCEPT, &one)], "");
    let response = world.router.clone().oneshot(request).await.unwrap();
    let mut lines = Lines {
        body: response.into_body(),
        rest: Vec::new(),
    };
    let event = lines.next().await.unwrap();
    assert_eq!(event["object"]["kind"], "PartialObjectMetadata");
}

#[tokio::test]
async fn odd_requests_are_refused_and_never_fail_the_server() {
    let world = World::new().await;
    world
        .ask(&format!("POST {MAPS}"), config_map("a", "1"))
        .await;
    let item = format!("{MAPS}/a");
    let queries = [
        "",
        "limit=1&limit=2",
        "limit=-9223372036854775808",
        "limit=1&continue=%00",
        "continue=eyJydiI6LTksInN0YXJ0IjoiXHUwMDAwIn0",
        "continue=eyJydiI6OSwic3RhcnQiOiIifQ",
        "resourceVersion=18446744073709551616",
        "timeoutSeconds=9223372036854775807",
        "timeoutSeconds=-9223372036854775808&watch=1",
        "timeout=-1s",
        "timeout=999999999h",
        "labelSelector=%ff%fe",
        "labelSelector=((((",
        "fieldSelector=%00",
        "dryRun=&dryRun=All",
        "dryRun=x",
        "fieldValidation=x",
        "fieldManager=%01",
        "gracePeriodSeconds=-1",
        "gracePeriodSeconds=99999999999999999999",
        "propagationPolicy=x",
        "orphanDependents=x",
        "pretty=x&pretty",
        "includeObject=%ff",
        "=&&=;&%",
        "exclude=%zz&verbose",
    ];
    let bodies: [(&str, &[u8]); 14] = [
        ("", b""),
        ("application/json", b"[]"),
        ("application/json", b"null"),
        ("application/json", b"3"),
        ("application/json", b"{\"kind\":3,\"apiVersion\":[]}"),
        ("application/json", b"{\"metadata\":\"x\",\"data\":[1]}"),
        ("application/json", b"\xff\xfe{}"),
        (
            "application/json;charset=x;;=",
            b"{\"metadata\":{\"name\":\"\\u0000\"}}",
        ),
        ("application/yaml", b"a: : b\n\t"),
        ("application/vnd.kubernetes.protobuf", b"k8s\0\xff\xff\xff"),
        ("application/merge-patch+json", b"\"x\""),
        ("application/json-patch+json", b"[{\"op\":\"move\"}]"),
        ("application/strategic-merge-patch+json", b"[[]]"),
        ("text/é", b"{}"),
    ];
    let paths = [
        MAPS,
        &item,
        "/api/v1/namespaces/%2e%2e/configmaps",
        "/api/v1/namespaces/default/configmaps/%ff",
        "/api/v1/watch/configmaps",
        "/apis//v1",
        "/openapi/v3/apis/%ff",
        "/openapi/v3",
        "/livez",
        "/version",
        "//",
    ];
    let mut sent = 0;
    for path in paths {
        for query in queries {
            for method in [
                "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW",
            ] {
                // Each body with some queries, each query with some bodies.
                let (content_type, body) = bodies[sent % bodies.len()];
                sent += 1;
                let watches = path.contains("/watch/") && method == "GET";
                let query = if watches { "timeoutSeconds=-1" } else { query };
                let request = http::Request::builder()
                    .method(method)
                    .uri(format!("{path}?{query}"))
                    .header(header::AUTHORIZATION, "Bearer secret")
                    .header(header::CONTENT_TYPE, content_type.as_bytes())
                    .body(axum::body::Body::from(body));
                let Ok(request) = request else {
                    continue;
                };
                let status = world.send(request).await.status;
                let is_taken = (200..500).contains(&status);
                assert!(
                    is_taken,
                    "{status} {method} {path}?{query} {content_type} {body:?}"
                );
            }
        }
    }
    assert!(sent > 2000, "{sent}");
}
