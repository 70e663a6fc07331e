//! A list as a stream of bytes: made from stored bytes while it is sent, so that it is never whole in memory.
//!
//! The page holds on to the objects as the kind's cache does; a chunk of them is encoded when the client has taken the one
//! before. A list that fits into one chunk is sent with its length, as any other answer; the chunks of longer ones are made in turns
//! (`crate::turns`). Values that are not in memory are read from the store chunk by chunk, on a thread that nobody waits for.
//!
//! JSON is copied from what is stored; rows, YAML and protobuf are made of one parsed object after the other. Protobuf tells the length of a
//! list before its items: those are encoded once to know it, and, beyond [`KEPT_BYTES_MAX`], once more to be sent, as kube-apiserver
//! does with what it streams.
//!
//! Invariant: a body that ends well is one whole document of one revision.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, header};
use serde_json::{Value, json};
use tokio::time::Instant;
use weft_api::status::StatusError;
use weft_kinds::protobuf::{EncodeError, ListEncoder};

use super::encoding::{Answer, Encoding, Encodings, PROTOBUF, YAML};
use super::error::ApiError;
use super::negotiate::Form;
use super::table::{self, Style};
use crate::cache::Missed;
use crate::objects::{Page, Stored};
use crate::turns::Bulk;
use weft_kinds::{Kind, KindRef};

/// A chunk is sent when it has this many bytes: some fifty pods, a fraction of a millisecond to make. Larger ones make no list
/// faster, and others wait longer.
const CHUNK_BYTES: usize = 64 << 10;
/// What is made of parsed objects takes some tens of microseconds each: so many are about a millisecond.
const CHUNK_PARSED: usize = 32;
/// Items of a list in protobuf that are kept from when its length was found out: all of them in most lists.
const KEPT_BYTES_MAX: usize = if cfg!(test) { 64 << 10 } else { 4 << 20 };
/// How long a list waits for a cache that has to hear first of what happened to one of its objects.
const MISSED_MAX: Duration = Duration::from_secs(10);
/// Between two looks.
const MISSED_PAUSE: Duration = Duration::from_millis(2);

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
            Form::Metadata | Form::MetadataList => Self::Metadata,
            Form::Table(version) => Self::Table(style(version)),
        }
    }
}

/// What the bytes of a list are.
enum Written {
    Json,
    Yaml,
    Protobuf(Binary),
}

/// A list in protobuf whose length is known.
struct Binary {
    encoder: ListEncoder,
    before: Vec<u8>,
    behind: Vec<u8>,
    /// The first items, encoded.
    kept: VecDeque<Vec<u8>>,
    /// Bytes that the rest must have.
    left: usize,
}

/// The rest of a list on its way out.
struct Chunks {
    kind: Arc<Kind>,
    shape: Shape,
    written: Written,
    head: Option<Vec<u8>>,
    items: std::vec::IntoIter<Stored>,
    first: bool,
}

/// Why a chunk cannot be made.
#[derive(Debug)]
enum Failed {
    /// Not yet.
    Missed,
    /// Never.
    Broken(io::Error),
}

impl From<Missed> for Failed {
    fn from(_: Missed) -> Self {
        Self::Missed
    }
}

impl Failed {
    fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Broken(io::Error::other(error))
    }
}

/// The response that carries a page, in the first encoding that it has.
pub async fn respond(
    kind: KindRef<'_>,
    page: Page,
    shape: Shape,
    encodings: &Encodings,
    bulk: &Bulk,
) -> Response {
    let head = head_of(kind, &page, shape);
    let mut items = page.items;
    let mut found = None;
    for encoding in encodings.iter() {
        found = match encoding {
            Encoding::Json => Some((Written::Json, "application/json")),
            Encoding::Yaml => Some((Written::Yaml, YAML)),
            Encoding::Protobuf => {
                let (back, measured) = Binary::of(kind, items, shape, &head).await;
                items = back;
                match measured {
                    Ok(binary) => binary.map(|binary| (Written::Protobuf(binary), PROTOBUF)),
                    Err(error) => return ApiError(error).into_response(),
                }
            }
        };
        if found.is_some() {
            break;
        }
    }
    let Some((written, media_type)) = found else {
        let written = "application/json, application/yaml";
        let mut refusal = ApiError(StatusError::not_acceptable(written)).into_response();
        // In JSON, as all that is told of what has no other encoding.
        refusal.extensions_mut().remove::<Answer>();
        return refusal;
    };
    let chunks = Chunks {
        kind: kind.clone(),
        shape,
        head: Some(written.begin(&head, items.is_empty(), shape)),
        written,
        items: items.into_iter(),
        first: true,
    };
    // The first at once: most lists have no more.
    let (begin, chunks) = match chunks.next(None).await {
        Ok((begin, chunks)) => (begin.unwrap_or_default(), chunks),
        Err(error) => {
            let text = format!("the list cannot be made now: {error}");
            return ApiError(StatusError::try_again(text, 1)).into_response();
        }
    };
    let body = if chunks.is_over() {
        // Longer lists are for programs.
        Body::from(match chunks.written {
            Written::Json => encodings.laid_out(begin),
            Written::Yaml | Written::Protobuf(_) => begin,
        })
    } else {
        let bulk = bulk.clone();
        Body::from_stream(stream::unfold(
            (Some(begin), Some(chunks)),
            move |(begin, chunks)| {
                let bulk = bulk.clone();
                async move {
                    if let Some(begin) = begin {
                        return Some((Ok(begin), (None, chunks)));
                    }
                    // Whoever reads as fast as this is made would keep the thread for the whole list, and all others, leases
                    // among them, wait for it at each step of theirs.
                    tokio::task::yield_now().await;
                    match chunks?.next(Some(&bulk)).await {
                        Ok((chunk, rest)) => Some((Ok(chunk?), (None, Some(rest)))),
                        Err(error) => {
                            tracing::warn!(%error, "a list breaks off");
                            Some((Err(error), (None, None)))
                        }
                    }
                }
            },
        ))
    };
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// The list without its items.
fn head_of(kind: KindRef<'_>, page: &Page, shape: Shape) -> Value {
    let mut metadata = metadata_of(page);
    if let (Shape::Whole, Some(_), None) = (shape, &kind.custom, &page.next) {
        // Where there are no more of a user's kind, the list says so.
        metadata["continue"] = "".into();
    }
    match shape {
        Shape::Whole => json!({
            "kind": kind.list_kind(), "apiVersion": kind.api_version(), "metadata": metadata,
        }),
        Shape::Metadata => json!({
            "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        }),
        Shape::Table(style) => json!({
            "kind": "Table", "apiVersion": format!("meta.k8s.io/{}", style.version),
            "metadata": metadata, "columnDefinitions": table::definitions(&kind.columns),
        }),
    }
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

impl Shape {
    /// The member that the items are in.
    const fn member(self) -> &'static str {
        match self {
            Self::Table(_) => "rows",
            Self::Whole | Self::Metadata => "items",
        }
    }

    /// An item as a value.
    fn value(self, kind: KindRef<'_>, item: &Stored) -> Value {
        match self {
            Self::Whole => item.item_value(),
            Self::Metadata => table::metadata_only(&item.stored_value(), "v1"),
            Self::Table(style) => table::row_of(kind, item, style),
        }
    }
}

impl Written {
    /// What stands before the items.
    fn begin(&self, head: &Value, empty: bool, shape: Shape) -> Vec<u8> {
        match self {
            Self::Json => {
                let mut out = head.to_string();
                // The brace that closes it.
                out.pop();
                out += &format!(",\"{}\":[", shape.member());
                out.into_bytes()
            }
            Self::Yaml => {
                let mut out = serde_saphyr::to_string(head).unwrap_or_default();
                out += shape.member();
                out += if empty { ": []\n" } else { ":\n" };
                out.into_bytes()
            }
            Self::Protobuf(binary) => binary.before.clone(),
        }
    }

    /// What stands behind them.
    fn end(&self) -> &[u8] {
        match self {
            Self::Json => b"]}\n",
            Self::Yaml => b"",
            Self::Protobuf(binary) => &binary.behind,
        }
    }
}

impl Binary {
    /// Finds out how long the list is; `None` for one without a binary form. The items come back.
    async fn of(
        kind: KindRef<'_>,
        items: Vec<Stored>,
        shape: Shape,
        head: &Value,
    ) -> (Vec<Stored>, Result<Option<Self>, StatusError>) {
        let text = |member: &str| head[member].as_str().unwrap_or_default();
        let Ok(encoder) = ListEncoder::new(text("apiVersion"), text("kind")) else {
            return (items, Ok(None));
        };
        let (kind, head) = (Arc::clone(kind), head.clone());
        // Each object is parsed and encoded: some tens of microseconds, and maybe read from disk.
        let measured = tokio::task::spawn_blocking(move || {
            let measured = Self::measured(encoder, &kind, &items, shape, &head);
            (items, measured)
        });
        match measured.await {
            Ok((items, Ok(binary))) => (items, Ok(Some(binary))),
            Ok((items, Err(Failed::Missed))) => {
                let error = StatusError::try_again(Missed.to_string(), 1);
                (items, Err(error))
            }
            Ok((items, Err(Failed::Broken(error)))) => {
                tracing::debug!(%error, "a list has no binary form");
                (items, Ok(None))
            }
            Err(error) => (Vec::new(), Err(StatusError::internal(error))),
        }
    }

    /// Blocks.
    fn measured(
        encoder: ListEncoder,
        kind: KindRef<'_>,
        items: &[Stored],
        shape: Shape,
        head: &Value,
    ) -> Result<Self, Failed> {
        let until = std::time::Instant::now() + MISSED_MAX;
        let (mut kept, mut kept_bytes, mut bytes) = (VecDeque::new(), 0, 0);
        for item in items {
            let item = loop {
                match item.pinned() {
                    Err(_) if std::time::Instant::now() < until => std::thread::sleep(MISSED_PAUSE),
                    pinned => break pinned?,
                }
            };
            let encoded = encoded(&encoder, &shape.value(kind, &item))?;
            bytes += encoded.len();
            if kept_bytes + encoded.len() <= KEPT_BYTES_MAX && kept_bytes + encoded.len() == bytes {
                kept_bytes = bytes;
                kept.push_back(encoded);
            }
        }
        let (before, behind) = encoder.around(head, bytes).map_err(Failed::broken)?;
        Ok(Self {
            encoder,
            before,
            behind,
            kept,
            left: bytes,
        })
    }

    /// The next item, which is `value`.
    fn next(&mut self, value: impl FnOnce() -> Value) -> Result<Vec<u8>, Failed> {
        let encoded = match self.kept.pop_front() {
            Some(kept) => kept,
            None => encoded(&self.encoder, &value())?,
        };
        let changed = || Failed::broken("an object cannot be read any more as it was");
        self.left = self.left.checked_sub(encoded.len()).ok_or_else(changed)?;
        Ok(encoded)
    }
}

fn encoded(encoder: &ListEncoder, value: &Value) -> Result<Vec<u8>, Failed> {
    encoder
        .item(value)
        .map_err(|error: EncodeError| Failed::broken(error))
}

impl Chunks {
    fn is_over(&self) -> bool {
        self.head.is_none() && self.items.as_slice().is_empty()
    }

    /// The next chunk, `None` behind the last, and what comes after it; in its turn where there is a gate.
    async fn next(mut self, bulk: Option<&Bulk>) -> io::Result<(Option<Bytes>, Self)> {
        let until = Instant::now() + MISSED_MAX;
        loop {
            let made = if self.is_away() {
                let work = move || {
                    let made = self.next_chunk();
                    (made, self)
                };
                let (made, rest) = tokio::task::spawn_blocking(work)
                    .await
                    .map_err(io::Error::other)?;
                self = rest;
                made
            } else if let Some(bulk) = bulk {
                bulk.turn(|| self.next_chunk()).await
            } else {
                self.next_chunk()
            };
            match made {
                Ok(chunk) => return Ok((chunk, self)),
                Err(Failed::Missed) if Instant::now() < until => {
                    tokio::time::sleep(MISSED_PAUSE).await;
                }
                Err(Failed::Missed) => return Err(io::Error::other(Missed)),
                Err(Failed::Broken(error)) => return Err(error),
            }
        }
    }

    /// Whether the next chunk may have to read the disk.
    fn is_away(&self) -> bool {
        let next = self.items.as_slice().iter().take(2 * CHUNK_PARSED);
        next.clone().any(Stored::is_away)
    }

    /// What is made of what the items are: `Missed` only where nothing was.
    fn next_chunk(&mut self) -> Result<Option<Bytes>, Failed> {
        if self.is_over() {
            return Ok(None);
        }
        let mut out = Vec::with_capacity(CHUNK_BYTES.min(1024 * (1 + self.items.len())));
        let most = match (self.shape, &self.written) {
            (Shape::Whole | Shape::Metadata, Written::Json) => usize::MAX,
            _ => CHUNK_PARSED,
        };
        let mut made = 0;
        while made < most
            && out.len() < CHUNK_BYTES
            && let Some(item) = self.items.as_slice().first()
        {
            let item = match item.pinned() {
                Ok(item) => item,
                Err(_) if made > 0 => break,
                Err(missed) => return Err(missed.into()),
            };
            // Not before: what comes back without a chunk must still have all of it.
            out.extend(self.head.take().unwrap_or_default());
            self.write(&item, &mut out)?;
            self.items.next();
            made += 1;
        }
        out.extend(self.head.take().unwrap_or_default());
        if self.items.as_slice().is_empty() {
            if let Written::Protobuf(Binary { left: 1.., .. }) = &self.written {
                return Err(Failed::broken("the list is shorter than it was"));
            }
            out.extend_from_slice(self.written.end());
        }
        Ok(Some(Bytes::from(out)))
    }

    fn write(&mut self, item: &Stored, out: &mut Vec<u8>) -> Result<(), Failed> {
        let (kind, shape) = (&self.kind, self.shape);
        let first = std::mem::take(&mut self.first);
        match &mut self.written {
            Written::Json => {
                if !first {
                    out.push(b',');
                }
                match shape {
                    Shape::Whole => item.write_item(out),
                    Shape::Metadata => item.write_metadata("v1", out),
                    // Writing to a Vec cannot fail.
                    Shape::Table(_) => {
                        let _ = serde_json::to_writer(out, &shape.value(kind, item));
                    }
                }
            }
            Written::Yaml => {
                let text = serde_saphyr::to_string(&[shape.value(kind, item)]);
                out.extend(
                    text.map_err(|error| Failed::broken(error.to_string()))?
                        .bytes(),
                );
            }
            Written::Protobuf(binary) => out.extend(binary.next(|| shape.value(kind, item))?),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http_body::Body as _;
    use http_body_util::BodyExt as _;
    use jiff::Timestamp;
    use weft_api::Object;
    use weft_store::{Config, Store};

    use super::*;
    use crate::caller::Caller;
    use crate::http::table::Include;
    use crate::objects::{self, ListOptions, Objects, WriteOptions};

    fn encodings(accept: &'static str) -> Encodings {
        let accept = (header::ACCEPT, HeaderValue::from_static(accept));
        Encodings::of(&HeaderMap::from_iter([accept]))
    }

    /// The bytes of an answer, and in how many chunks they came: none was a large part of it.
    async fn sent(response: Response) -> (Vec<u8>, usize) {
        let mut body = response.into_body();
        let (mut bytes, mut frames) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            let length = data.len();
            assert!(length < 2 * CHUNK_BYTES + 8192, "{length} bytes at once");
            bytes.extend_from_slice(&data);
            frames += 1;
        }
        (bytes, frames)
    }

    #[tokio::test]
    async fn a_list_is_made_while_it_is_sent_and_says_the_same_in_every_form() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Config::new(dir.path())).await.unwrap();
        // Most values are read from the store.
        let mut config = objects::Config::default();
        config.watch.values_bytes_max = 4 << 10;
        let objects = Objects::new(store, config);
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
            let client = objects.client(&caller);
            let created = client.create(kind, Some("default"), map, &options);
            created.await.unwrap();
        }
        let list = |limit| {
            let options = ListOptions {
                limit: Some(limit),
                ..ListOptions::default()
            };
            let (objects, caller) = (&objects, &caller);
            async move {
                let client = objects.client(caller);
                let page = client.list(kind, Some("default"), &options).await;
                page.unwrap()
            }
        };
        let whole: Vec<Value> = list(0).await.items.iter().map(Stored::value).collect();
        let items: Vec<Value> = (list(0).await.items.iter())
            .map(Stored::item_value)
            .collect();
        assert_eq!(items[0]["kind"], json!(null));
        let style = Style {
            version: "v1",
            include: Include::Object,
            now: Timestamp::UNIX_EPOCH,
        };
        let json = encodings("application/json");
        let bulk = Bulk::default();
        for shape in [Shape::Whole, Shape::Metadata, Shape::Table(style)] {
            let (bytes, frames) =
                sent(respond(kind, list(0).await, shape, &json, &bulk).await).await;
            let said: Value = serde_json::from_slice(&bytes).unwrap();
            match shape {
                Shape::Whole => {
                    assert!(frames >= 3, "{frames}");
                    assert_eq!(said["items"], json!(items));
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
            let yaml = encodings("application/yaml");
            let (bytes, yaml_frames) =
                sent(respond(kind, list(0).await, shape, &yaml, &bulk).await).await;
            let text = std::str::from_utf8(&bytes).unwrap();
            let read: Value = serde_saphyr::from_str(text).unwrap();
            assert_eq!(read, said);
            assert!(yaml_frames >= frames.min(3), "{yaml_frames}");
            if let Shape::Table(_) = shape {
                continue;
            }
            // The same bytes as of the list at once, although most items were encoded twice.
            let binary = encodings(PROTOBUF);
            let (bytes, _) = sent(respond(kind, list(0).await, shape, &binary, &bulk).await).await;
            assert_eq!(bytes, weft_kinds::protobuf::encode(&said).unwrap());
        }
        // An empty one is whole, too.
        for accept in ["application/json", "application/yaml"] {
            let mut page = list(1).await;
            page.items.clear();
            let response = respond(kind, page, Shape::Whole, &encodings(accept), &bulk).await;
            let (bytes, _) = sent(response).await;
            let text = std::str::from_utf8(&bytes).unwrap();
            let read: Value = serde_saphyr::from_str(text).unwrap();
            assert_eq!(read["items"], json!([]), "{text}");
        }
        // A short one says how long it is.
        let body = respond(kind, list(2).await, Shape::Whole, &json, &bulk)
            .await
            .into_body();
        let length = body.size_hint().exact().unwrap();
        let bytes = body.collect().await.unwrap().to_bytes();
        assert_eq!(length, bytes.len() as u64);
        let said: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(said["metadata"]["remainingItemCount"], 98);
    }
}
