//! `hello` for WASI 0.3: the same fixed line, from an instance that serves many calls, several at once.

use wasip3::exports::http::handler::Guest;
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::{wit_bindgen, wit_future, wit_stream};

struct Hello;

impl Guest for Hello {
    async fn handle(_request: Request) -> Result<Response, ErrorCode> {
        let (mut body, arriving) = wit_stream::new();
        let (trailers, no_trailers) = wit_future::new(|| Ok(None));
        let (response, _sent) = Response::new(Fields::new(), Some(arriving), no_trailers);
        drop(trailers); // the default, `Ok(None)`, stands
        wit_bindgen::spawn_local(async move {
            // What is left over belongs to a caller that went away.
            let _ = body.write_all(b"hello\n".to_vec()).await;
        });
        Ok(response)
    }
}

wasip3::http::service::export!(Hello);
