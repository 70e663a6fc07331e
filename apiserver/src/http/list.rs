//! A list as a stream of bytes: made from stored bytes while it is sent, so that it is never whole in memory.
//!
//! The page holds on to the objects as they are in the store; a chunk of them is encoded when the client has taken the one
//! before. A list that fits into one chunk is sent with its length, as any other answer.
//!
//! Invariant: a body that ends well is one whole JSON document of one revision.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, header};
use serde_json::{Value, json};

use super::encoding::Answer;
use super::negotiate::Form;
use super::table::{self, Style};
use crate::objects::{Page, Stored};
use weft_kinds::{Kind, KindRef};

/// A chunk is sent when it has this many bytes: some fifty pods, a fraction of a millisecond to make. Larger ones make no list
/// faster, and others wait longer.
const CHUNK_BYTES: usize = 64 << 10;
/// Rows of a table are made from parsed objects, some tens of microseconds each: so many are about a millisecond.
const CHUNK_ROWS: usize = 32;

/// How a list looks.
#[derive(Clone, Copy)]
pub enum Shape {
    Whole,
    Metadata,
    Table(Style),
}

impl Shape {
    pub fn of(form: Form, style: impl FnOnce(&'static str) -> Style) -> Self {
        match form {
            Form::Whole | Form::Discovery(_) => Self::Whole,
            Form::Metadata => Self::Metadata,
            Form::Table(version) => Self::Table(style(version)),
        }
    }
}

/// The rest of a list on its way out.
struct Chunks {
    kind: Arc<Kind>,
    shape: Shape,
    head: Option<String>,
    items: std::vec::IntoIter<Stored>,
    first: bool,
}

/// The response that carries a page.
pub fn respond(kind: KindRef<'_>, page: Page, shape: Shape) -> Response {
    let metadata = metadata_of(&page);
    let head = match shape {
        Shape::Whole => format!(
            "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
            kind.kind,
            kind.api_version(),
        ),
        Shape::Metadata => format!(
            "{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata},\"items\":["
        ),
        Shape::Table(style) => format!(
            "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/{}\",\"metadata\":{metadata},\"columnDefinitions\":{},\"rows\":[",
            style.version,
            table::definitions(&kind.columns),
        ),
    };
    let mut chunks = Chunks {
        kind: kind.clone(),
        shape,
        head: Some(head),
        items: page.items.into_iter(),
        first: true,
    };
    let begin = chunks.next_chunk().unwrap_or_default();
    let body = if chunks.is_over() {
        Body::from(begin)
    } else {
        let rest = stream::unfold((Some(begin), chunks), |(begin, mut chunks)| async {
            let chunk = match begin {
                Some(chunk) => chunk,
                None => {
                    // Whoever reads as fast as this is made would keep the thread for the whole list, and all others, leases among
                    // them, wait for it at each step of theirs.
                    tokio::task::yield_now().await;
                    chunks.next_chunk()?
                }
            };
            Some((Ok::<_, Infallible>(chunk), (None, chunks)))
        });
        Body::from_stream(rest)
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response.extensions_mut().insert(Answer::Whole);
    response
}

fn metadata_of(page: &Page) -> Value {
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if let Some(next) = &page.next {
        metadata["continue"] = next.as_str().into();
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}

impl Chunks {
    fn is_over(&self) -> bool {
        self.head.is_none() && self.items.as_slice().is_empty()
    }

    fn next_chunk(&mut self) -> Option<Bytes> {
        if self.is_over() {
            return None;
        }
        let mut out = Vec::with_capacity(CHUNK_BYTES.min(1024 * (1 + self.items.len())));
        out.extend_from_slice(self.head.take().unwrap_or_default().as_bytes());
        let rows = match self.shape {
            Shape::Table(_) => CHUNK_ROWS,
            Shape::Whole | Shape::Metadata => usize::MAX,
        };
        for item in self.items.by_ref().take(rows) {
            if !std::mem::take(&mut self.first) {
                out.push(b',');
            }
            match self.shape {
                Shape::Whole => item.write_json(&mut out),
                Shape::Metadata => item.write_metadata("v1", &mut out),
                Shape::Table(style) => {
                    let row = table::row_of(&self.kind, &item, style);
                    // Writing to a Vec cannot fail.
                    let _ = serde_json::to_writer(&mut out, &row);
                }
            }
            if out.len() >= CHUNK_BYTES {
                break;
            }
        }
        if self.items.as_slice().is_empty() {
            out.extend_from_slice(b"]}\n");
        }
        Some(Bytes::from(out))
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use http_body_util::BodyExt as _;
    use jiff::Timestamp;
    use weft_api::Object;
    use weft_store::{Config, Store};

    use super::*;
    use crate::caller::Caller;
    use crate::http::table::Include;
    use crate::objects::{self, ListOptions, Objects, WriteOptions};

    #[tokio::test]
    async fn a_list_is_made_while_it_is_sent_and_says_the_same_in_every_form() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Config::new(dir.path())).await.unwrap();
        let objects = Objects::new(store, objects::Config::default());
        let caller = Caller::system("apiserver", None);
        objects.ensure_permanent_namespaces(&caller).await.unwrap();
        let kind = &weft_kinds::CONFIG_MAP;
        for number in 0..100 {
            let map = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {
                    "name": format!("m{number:03}"), "namespace": "default",
                    // What a careless search for the end of the metadata stumbles over.
                    "annotations": {"note": "}\"\\{[", "number": number.to_string()},
                    "labels": {"a": "b"},
                },
                "data": {"k": "x".repeat(2048)},
            });
            let map = Object::from_value(map).unwrap();
            let options = WriteOptions::default();
            let created = objects.create(&caller, kind, Some("default"), map, &options);
            created.await.unwrap();
        }
        let list = |limit| {
            let options = ListOptions {
                limit: Some(limit),
                ..ListOptions::default()
            };
            let (objects, caller) = (&objects, &caller);
            async move {
                let page = objects.list(caller, kind, Some("default"), &options).await;
                page.unwrap()
            }
        };
        let whole: Vec<Value> = list(0).await.items.iter().map(Stored::value).collect();
        let style = Style {
            version: "v1",
            include: Include::Object,
            now: Timestamp::UNIX_EPOCH,
        };
        for shape in [Shape::Whole, Shape::Metadata, Shape::Table(style)] {
            let mut body = respond(kind, list(0).await, shape).into_body();
            let (mut bytes, mut frames) = (Vec::new(), 0);
            while let Some(frame) = body.frame().await {
                let data = frame.unwrap().into_data().unwrap();
                assert!(
                    data.len() < 2 * CHUNK_BYTES + 8192,
                    "{} bytes at once",
                    data.len()
                );
                bytes.extend_from_slice(&data);
                frames += 1;
            }
            let said: Value = serde_json::from_slice(&bytes).unwrap();
            match shape {
                Shape::Whole => {
                    assert!(frames >= 3, "{frames}");
                    assert_eq!(said["items"], json!(whole));
                }
                Shape::Metadata => {
                    let metadata = whole.iter().map(|value| table::metadata_only(value, "v1"));
                    assert_eq!(said["items"], metadata.collect::<Value>());
                }
                Shape::Table(_) => {
                    assert!(frames >= 3, "{frames}");
                    let rows = said["rows"].as_array().unwrap();
                    let objects: Value = rows.iter().map(|row| row["object"].clone()).collect();
                    assert_eq!(objects, json!(whole));
                }
            }
        }
        // A short one says how long it is.
        let body = respond(kind, list(2).await, Shape::Whole).into_body();
        let length = body.size_hint().exact().unwrap();
        let bytes = body.collect().await.unwrap().to_bytes();
        assert_eq!(length, bytes.len() as u64);
        let said: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(said["metadata"]["remainingItemCount"], 98);
    }
}
