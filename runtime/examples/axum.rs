//! A component among the routes of an axum server.
//!
//! `cargo xtask guests && cargo run --example axum [COMPONENT] [ADDRESS]`, then `curl http://127.0.0.1:8080/guest` (the
//! component) and `curl http://127.0.0.1:8080/health` (this program).
//!
//! Bodies stream both ways. What goes wrong in the component is an answer of this server; the `EventSink` tells of it.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http_body_util::BodyExt;
use tokio::net::TcpListener;
use weft_runtime::{Engine, EventSink, Limits, Workload};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/guests/hello.wasm");
    let mut args = std::env::args().skip(1);
    let component = args.next().unwrap_or(built.to_owned());
    let address = args.next().unwrap_or("127.0.0.1:8080".to_owned());

    let engine = Engine::builder().build()?;
    let artifact = engine.load(std::fs::read(component)?).await?;
    let workload = Workload::builder(&engine, &artifact)
        .limits(Limits {
            memory_bytes: 64 << 20,
            in_flight_max: 100,
            ..Limits::default()
        })
        .events(EventSink::new(|event| eprintln!("{event:?}")))
        .build()?;

    let app = axum::Router::new()
        .route("/health", get(async || "ok\n"))
        .route("/guest", any(guest))
        .route("/guest/{*path}", any(guest))
        .with_state(workload);
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

async fn guest(State(workload): State<Workload>, request: Request) -> Response {
    let request = request.map(|body| weft_runtime::Body::new(body.map_err(Into::into)));
    match workload.call(request).await {
        Ok(response) => response.map(Body::new),
        Err(error) => (error.status(), format!("{error}\n")).into_response(),
    }
}
