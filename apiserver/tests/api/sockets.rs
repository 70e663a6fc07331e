//! Watches over WebSocket, through a connection as a browser makes one.

use std::time::Duration;

use axum::body::Body;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::{Error, Message};
use tower::ServiceExt as _;

use crate::world::*;

const TOKEN: &str = "base64url.bearer.authorization.k8s.io.c2VjcmV0";

type Opened = Result<(WebSocketStream<DuplexStream>, Response), Error>;

/// Opens a WebSocket with these headers beside those that every one has.
async fn open(world: &World, path: &str, headers: &[(header::HeaderName, &str)]) -> Opened {
    let (client, server) = tokio::io::duplex(16 << 10);
    let router = world.router.clone();
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        router.clone().oneshot(request.map(Body::new))
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(server), service)
        .with_upgrades();
    tokio::spawn(connection);
    let mut request = format!("ws://weft{path}").into_client_request().unwrap();
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).unwrap();
        request.headers_mut().insert(name, value);
    }
    tokio_tungstenite::client_async(request, client).await
}

async fn next(socket: &mut WebSocketStream<DuplexStream>) -> Option<Message> {
    let message = tokio::time::timeout(Duration::from_secs(20), socket.next());
    message.await.expect("a message in time")?.ok()
}

/// What an event says; it is a line of JSON.
fn told(message: Option<Message>) -> String {
    let Some(Message::Text(text)) = message else {
        panic!("no text: {message:?}");
    };
    assert!(text.ends_with('\n'), "{text}");
    let event: Value = serde_json::from_str(&text).unwrap();
    let text = |pointer: &str| {
        event
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or("-")
    };
    format!("{} {}", text("/type"), text("/object/metadata/name"))
}

#[tokio::test]
async fn a_browser_watches_with_its_token_among_the_subprotocols() {
    let world = World::new().await;
    world
        .ask(&format!("POST {MAPS}"), config_map("a", "1"))
        .await;
    let watch = format!("{MAPS}?watch=true&fieldSelector=metadata.name%3Da");
    let protocols = format!("{TOKEN}, base64.binary.k8s.io");
    let offered = [(header::SEC_WEBSOCKET_PROTOCOL, protocols.as_str())];
    let (mut socket, response) = open(&world, &watch, &offered).await.unwrap();
    assert_eq!(
        response.headers()[header::SEC_WEBSOCKET_PROTOCOL],
        "base64.binary.k8s.io"
    );
    assert_eq!(told(next(&mut socket).await), "ADDED a");
    // What it says is dropped, and pings are answered.
    socket.send(Message::text("hello")).await.unwrap();
    socket.send(Message::Ping("p".into())).await.unwrap();
    let patch = json!({"data": {"k": "2"}});
    world
        .patch(&format!("{MAPS}/a"), "merge-patch", patch)
        .await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        match next(&mut socket).await {
            Some(Message::Pong(payload)) => assert_eq!(&payload[..], b"p"),
            message => seen.push(told(message)),
        }
        if seen.len() == 1 {
            world.ask(&format!("DELETE {MAPS}/a"), Value::Null).await;
        }
    }
    assert_eq!(seen, ["MODIFIED a", "DELETED a"]);
}

#[tokio::test]
async fn a_watch_ends_with_a_closing_message_at_its_time() {
    let world = World::new().await;
    let admin = [(header::AUTHORIZATION, "Bearer secret")];
    let watch = format!("{MAPS}?watch=1&timeoutSeconds=1&allowWatchBookmarks=true");
    let (mut socket, response) = open(&world, &watch, &admin).await.unwrap();
    assert!(
        !response
            .headers()
            .contains_key(header::SEC_WEBSOCKET_PROTOCOL)
    );
    // The end of what is there, and how far the watch came.
    assert_eq!(told(next(&mut socket).await), "BOOKMARK -");
    assert_eq!(told(next(&mut socket).await), "BOOKMARK -");
    let Some(Message::Close(Some(frame))) = next(&mut socket).await else {
        panic!("no closing message");
    };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1000, ""));
    assert_eq!(next(&mut socket).await, None);
}

#[tokio::test]
async fn who_takes_protobuf_gets_binary_messages() {
    let world = World::new().await;
    world
        .ask(&format!("POST {MAPS}"), config_map("a", "1"))
        .await;
    let headers = [
        (header::AUTHORIZATION, "Bearer secret"),
        (header::ACCEPT, "application/vnd.kubernetes.protobuf"),
    ];
    let (mut socket, _) = open(&world, &format!("{MAPS}?watch=1"), &headers)
        .await
        .unwrap();
    let Some(Message::Binary(event)) = next(&mut socket).await else {
        panic!("no binary message");
    };
    // A WatchEvent without a length before it.
    assert!(event.starts_with(b"\x0a\x05ADDED\x12"), "{event:?}");
    let object = event.windows(4).position(|part| part == b"k8s\0").unwrap();
    let read = weft_kinds::protobuf::decode(&event[object..])
        .unwrap()
        .value;
    assert_eq!(read["metadata"]["name"], "a");
}

#[tokio::test]
async fn what_is_refused_is_refused_before_the_handshake() {
    let world = World::new().await;
    let refused = async |path: &str, headers: &[(header::HeaderName, &str)]| match open(
        &world, path, headers,
    )
    .await
    {
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(error) => panic!("{error}"),
        Ok(_) => 101,
    };
    let watch = format!("{MAPS}?watch=1");
    let admin = [(header::AUTHORIZATION, "Bearer secret")];
    let alone = [(header::SEC_WEBSOCKET_PROTOCOL, TOKEN)];
    assert_eq!(refused(&watch, &admin).await, 101);
    assert_eq!(refused(&watch, &[]).await, 403);
    assert_eq!(refused(&watch, &alone).await, 401);
    let selects = format!("{watch}&fieldSelector=spec.x%3D1");
    assert_eq!(refused(&selects, &admin).await, 400);
    // What is no watch goes on over HTTP.
    assert_eq!(refused(MAPS, &admin).await, 200);
    // A request that nobody can hand over a connection for.
    let headers = [
        (header::CONNECTION, "upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_VERSION, "13"),
        (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let request = world.request(&format!("GET {watch}"), &headers, "");
    assert_eq!(world.send(request).await.status, 400);
}

#[tokio::test]
async fn a_client_without_a_sign_of_life_loses_its_watch() {
    let world = World::new().await;
    let admin = [(header::AUTHORIZATION, "Bearer secret")];
    let (mut socket, _) = open(&world, &format!("{MAPS}?watch=1"), &admin)
        .await
        .unwrap();
    tokio::time::pause();
    // Nothing is read, so no ping is answered.
    tokio::time::sleep(Duration::from_secs(200)).await;
    let mut pings = 0;
    loop {
        match socket.next().await {
            Some(Ok(Message::Ping(_))) => pings += 1,
            Some(Ok(other)) => panic!("{other:?}"),
            Some(Err(_)) | None => break,
        }
    }
    // The answer to the first found nobody.
    assert!(pings > 0, "it was asked");
}
