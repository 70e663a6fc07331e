//! Bodies in Kubernetes' protobuf.

use axum::body::Body;
use http::header;
use serde_json::json;

use crate::world::*;

/// A message of Kubernetes' binary form: fields of bytes by tag, each shorter than 128.
fn message(fields: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (tag, bytes) in fields {
        out.extend([tag << 3 | 2, u8::try_from(bytes.len()).unwrap()]);
        out.extend_from_slice(bytes);
    }
    out
}

fn enveloped(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let kind = message(&[(1, api_version.as_bytes()), (2, kind.as_bytes())]);
    [&b"k8s\0"[..], &message(&[(1, &kind), (2, raw)])].concat()
}

#[tokio::test]
async fn typed_clients_write_in_protobuf_and_read_json() {
    let world = World::new().await;
    let send = async |line: &str, body: Vec<u8>| {
        let mut request = world.request(
            line,
            &[
                (header::CONTENT_TYPE, "application/vnd.kubernetes.protobuf"),
                (header::ACCEPT, JSON),
            ],
            "",
        );
        *request.body_mut() = Body::from(body);
        world.send(request).await
    };
    let post = format!("POST {MAPS}");
    let entry = message(&[(1, b"colour"), (2, b"blue")]);
    let map = message(&[(1, &message(&[(1, b"settings")])), (2, &entry)]);
    let created = send(&post, enveloped("v1", "ConfigMap", &map)).await;
    assert_eq!(created.status, 201);
    assert_eq!(created.headers[header::CONTENT_TYPE], JSON);
    assert_eq!(created.body["data"], json!({"colour": "blue"}));

    // A field that this server has no name for is told, and refused where the client insists.
    let newer = message(&[(1, &message(&[(1, b"newer")])), (15, b"x")]);
    let newer = enveloped("v1", "ConfigMap", &newer);
    let warned = send(&post, newer.clone()).await;
    assert_eq!(
        warned.headers["warning"],
        r##"299 - "unknown field \"#15\"""##
    );
    let lines = [
        send(&format!("{post}?fieldValidation=Strict"), newer)
            .await
            .line(),
        send(&post, enveloped("v1", "Secret", &map)).await.line(),
        send(&post, b"k8s".to_vec()).await.line(),
        // DeleteOptions travel under the group of what they delete.
        send(
            &format!("DELETE {MAPS}/settings"),
            enveloped(
                "v1",
                "DeleteOptions",
                &message(&[(2, &message(&[(1, b"another")]))]),
            ),
        )
        .await
        .line()
        .replace(created.body["metadata"]["uid"].as_str().unwrap(), "UID"),
    ];
    insta::assert_snapshot!(lines.join("\n"), @r##"
    400 BadRequest: ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "#15"
    400 BadRequest: the object provided is v1, Kind=Secret, but this URL takes v1, Kind=ConfigMap
    400 BadRequest: the request body is no object in protobuf: it does not begin with the four bytes of Kubernetes' envelope
    409 Conflict: Operation cannot be fulfilled on ConfigMap "settings": the UID in the precondition (another) does not match the UID in record (UID). The object might have been deleted and then recreated
    "##);
}
