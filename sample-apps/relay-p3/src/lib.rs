//! A relay for WASI 0.3: passes each call on to `http://next` with the path it came with, and tells what it knew about
//! its own call before, during and after. A path with `key=` in it is also the key of the call that it makes. Called with `/truncate`, it panics before its body's end. One instance handles several calls at once, and must not mix them up.

use wasip3::exports::http::handler::Guest;
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Request, Response, Scheme};
use wasip3::{wit_bindgen, wit_future, wit_stream};

mod bindings {
    wasip3::wit_bindgen::generate!({
        path: "../../wit/mesh",
        world: "weft:mesh/imports",
        runtime_path: "wasip3::wit_bindgen::rt",
    });
}
use bindings::weft::mesh::{context, outgoing};

struct Relay;

impl Guest for Relay {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let truncate = request.get_path_with_query().as_deref() == Some("/truncate");
        let before = whoami();
        let status = pass_on(request.get_path_with_query()).await?;
        let after = whoami();
        let (mut body, arriving) = wit_stream::new();
        let (trailers, no_trailers) = wit_future::new(|| Ok(None));
        let (response, _sent) = Response::new(Fields::new(), Some(arriving), no_trailers);
        drop(trailers); // the default, `Ok(None)`, stands
        wit_bindgen::spawn_local(async move {
            let late = whoami();
            let text = format!("{before}\n{after}\n{late}\nnext answered {status}\n");
            // What is left over belongs to a caller that went away.
            let _ = body.write_all(text.into_bytes()).await;
            assert!(!truncate, "asked to panic in the middle of the body");
        });
        Ok(response)
    }
}

async fn pass_on(path: Option<String>) -> Result<u16, ErrorCode> {
    let (trailers, no_trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, no_trailers, None);
    drop(trailers);
    let built = request
        .set_scheme(Some(&Scheme::Http))
        .and_then(|()| request.set_authority(Some("next")))
        .and_then(|()| request.set_path_with_query(path.as_deref()));
    built.map_err(|()| ErrorCode::HttpRequestUriInvalid)?;
    if let Some(path) = path.filter(|path| path.contains("key=")) {
        outgoing::hash_key(path.as_bytes());
    }
    Ok(client::send(request).await?.get_status_code())
}

/// What the mesh knows about the call that asks.
fn whoami() -> String {
    const HOUR_NANOS: u64 = 3_600_000_000_000;
    let caller = context::caller().map_or("nobody".to_owned(), |peer| peer.workload);
    let trace = context::trace_id().unwrap_or_default();
    let hours = context::remaining().map_or(0, |nanos| nanos.div_ceil(HOUR_NANOS));
    format!(
        "{caller} {trace} within {hours} h, attempt {}",
        context::attempt()
    )
}

wasip3::http::service::export!(Relay);
