//! What a workload has to be granted, from a component of WASI 0.3, and by both drafts of `wasi:keyvalue`. The same story each time:
//! `/tell` counts, swaps, lists and gets in the bucket `default`, and tells what came of it; `/slow` counts only.

use wasip3::exports::http::handler::Guest;
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::{wit_bindgen, wit_future, wit_stream};

mod config {
    wasip3::wit_bindgen::generate!({
        path: "../../wit/config",
        world: "wasi:config/imports",
        runtime_path: "wasip3::wit_bindgen::rt",
    });
}
mod draft2 {
    wasip3::wit_bindgen::generate!({
        path: "../../wit/keyvalue",
        world: "wasi:keyvalue/imports",
        runtime_path: "wasip3::wit_bindgen::rt",
    });
}
mod draft {
    wasip3::wit_bindgen::generate!({
        path: "../../wit/keyvalue-draft",
        world: "wasi:keyvalue/imports",
        runtime_path: "wasip3::wit_bindgen::rt",
    });
}
use config::wasi::config::store as settings;

struct Granted;

impl Guest for Granted {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let path = request.get_path_with_query().unwrap_or_default();
        let text = match path.as_str() {
            "/slow" => format!("{:?}", count()),
            _ => format!(
                "{:?}\n{}\n{}\n",
                settings::get("greeting"),
                by_draft2().unwrap_or_else(|error| format!("{error:?}")),
                by_draft().unwrap_or_else(|error| format!("{error:?}"))
            ),
        };
        let (mut body, arriving) = wit_stream::new();
        let (trailers, no_trailers) = wit_future::new(|| Ok(None));
        let (response, _sent) = Response::new(Fields::new(), Some(arriving), no_trailers);
        drop(trailers); // the default, `Ok(None)`, stands
        wit_bindgen::spawn_local(async move {
            // What is left over belongs to a caller that went away.
            let _ = body.write_all(text.into_bytes()).await;
        });
        Ok(response)
    }
}

fn count() -> Result<i64, draft2::wasi::keyvalue::store::Error> {
    use draft2::wasi::keyvalue::{atomics, store};
    atomics::increment(&store::open("default")?, "count", 1)
}

fn by_draft2() -> Result<String, draft2::wasi::keyvalue::store::Error> {
    use draft2::wasi::keyvalue::{atomics, batch, store};
    let bucket = store::open("default")?;
    let count = atomics::increment(&bucket, "count", 1)?;
    let cas = atomics::Cas::new(&bucket, "text")?;
    let swapped = atomics::swap(cas, b"a").is_ok();
    batch::set_many(
        &bucket,
        &[("x".to_owned(), vec![0xff]), ("y".to_owned(), vec![])],
    )?;
    let many = batch::get_many(&bucket, &["x".to_owned(), "none".to_owned()])?;
    let page = bucket.list_keys(None)?;
    Ok(format!(
        "draft2 {count} {swapped} {many:?} {:?} {:?}",
        page.keys, page.cursor
    ))
}

fn by_draft() -> Result<String, draft::wasi::keyvalue::store::Error> {
    use draft::wasi::keyvalue::{atomics, batch, store};
    let bucket = store::open("default")?;
    let count = atomics::increment(&bucket, "count", 1)?;
    bucket.set("text", b"b")?;
    batch::delete_many(&bucket, &["y".to_owned()])?;
    let many = batch::get_many(&bucket, &["x".to_owned(), "none".to_owned()])?;
    let (mut keys, mut pages, mut cursor) = (0, 0, None);
    loop {
        let page = bucket.list_keys(cursor)?;
        (keys, pages) = (keys + page.keys.len(), pages + 1);
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    Ok(format!(
        "draft {count} {many:?} {keys} keys on {pages} pages"
    ))
}

wasip3::http::service::export!(Granted);
