//! The encoding of an answer: JSON as handlers write it, or YAML or Kubernetes' protobuf made of that on its way out.
//!
//! A handler knows forms (the object, a table, metadata only) and writes JSON; which encoding the client gets is decided
//! here, once, for objects, watches and refusals alike. The first range of the Accept header that the object has an
//! encoding for wins; a kind without a binary form (custom resources) has JSON and YAML.
//!
//! Invariants: what is no object (a log, metrics, a proxied answer, a health check) is left alone; no more than
//! [`GATHERED_BYTES_MAX`] of an answer is there at once; a watch is recoded event by event, and ends after a whole frame.
//! Left to others: which form (`super::negotiate`), lists of objects, which are made item by item in each encoding (`super::list`), the
//! bytes of the binary form (`weft_kinds::protobuf`).

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{HeaderMap, HeaderValue, header};
use http_body::Body as _;
use serde_json::Value;
use weft_api::status::StatusError;
use weft_kinds::protobuf;

use super::error::ApiError;
use super::negotiate;
use crate::request::Params;

pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const PROTOBUF_WATCH: &str = "application/vnd.kubernetes.protobuf;stream=watch";
pub const YAML: &str = "application/yaml";
/// What answers can be.
pub const WRITTEN: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// Most JSON that is made something else of: all of it is there as values meanwhile, ten times as large. An object is at most a fifth of
/// that, discovery a tenth; what is larger (the usage of very many pods) can be had as JSON.
pub(super) const GATHERED_BYTES_MAX: usize = 16 << 20;
/// What is larger takes milliseconds to be made something else of: not on a thread that others wait for.
const SMALL_BYTES_MAX: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

/// The encodings that a client takes, best first, and whether a person reads what it gets.
#[derive(Clone, Debug)]
pub struct Encodings {
    ranges: Vec<Encoding>,
    pretty: bool,
}

/// What an answer is, in its extensions: an answer without it is left as it is.
#[derive(Clone, Debug)]
pub enum Answer {
    /// One object, a computed list, or a refusal, as JSON.
    Whole,
    /// A line of JSON an event, about objects of this version and kind.
    Watch { api_version: String, kind: String },
}

impl Encodings {
    /// What the Accept header says. A header that no encoding fits leaves JSON, in which that is told.
    pub fn of(headers: &HeaderMap) -> Self {
        let client = headers.get(header::USER_AGENT);
        let client = client.and_then(|value| value.to_str().ok()).unwrap_or("");
        let read_by_people = ["curl", "Wget", "Mozilla/5.0"];
        Self {
            ranges: negotiate::encodings(headers),
            pretty: read_by_people.iter().any(|name| client.starts_with(name)),
        }
    }

    /// As the query says: JSON with line breaks, or without for those who get it so.
    pub fn with(mut self, params: &Params) -> Self {
        if let Some(wanted) = params.get("pretty") {
            self.pretty = matches!(wanted, "1" | "t" | "T" | "true" | "TRUE" | "True");
        }
        self
    }

    /// A whole document of JSON as the client reads it best.
    pub fn laid_out(&self, json: Bytes) -> Bytes {
        if !self.pretty {
            return json;
        }
        let value: Result<Value, _> = serde_json::from_slice(&json);
        let laid_out = value.and_then(|value| serde_json::to_vec_pretty(&value));
        laid_out.map_or(json, Bytes::from)
    }

    /// Best first, and at least one.
    pub fn iter(&self) -> impl Iterator<Item = Encoding> + '_ {
        let json = self.ranges.is_empty().then_some(Encoding::Json);
        self.ranges.iter().copied().chain(json)
    }

    fn wants_json(&self) -> bool {
        self.ranges
            .first()
            .is_none_or(|first| *first == Encoding::Json)
    }

    /// The answer in the first encoding that there is for it.
    pub async fn recode(&self, mut response: Response) -> Response {
        let answer = response.extensions_mut().remove::<Answer>();
        match answer {
            None => response,
            Some(Answer::Whole) if self.wants_json() && !(self.pretty && is_small(&response)) => {
                response
            }
            Some(Answer::Watch { .. }) if self.wants_json() => response,
            Some(Answer::Whole) => self.recode_whole(response).await,
            Some(Answer::Watch { api_version, kind }) => {
                self.recode_watch(response, &api_version, &kind)
            }
        }
    }

    fn recode_watch(&self, response: Response, api_version: &str, kind: &str) -> Response {
        let has_form = protobuf::has_form(api_version, kind);
        for encoding in &self.ranges {
            match encoding {
                Encoding::Json => return response,
                Encoding::Protobuf if has_form => return watch_frames(response),
                // YAML documents one after the other are nobody's stream.
                Encoding::Protobuf | Encoding::Yaml => {}
            }
        }
        let written = match has_form {
            true => {
                "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
            }
            false => "application/json;stream=watch",
        };
        ApiError(StatusError::not_acceptable(written)).into_response()
    }

    async fn recode_whole(&self, response: Response) -> Response {
        let (mut parts, body) = response.into_parts();
        let json = match axum::body::to_bytes(body, GATHERED_BYTES_MAX).await {
            Ok(json) => json,
            Err(error) => {
                tracing::debug!(%error, "an answer is too large for another encoding");
                return ApiError(StatusError::not_acceptable("application/json")).into_response();
            }
        };
        let recoded = if json.len() <= SMALL_BYTES_MAX {
            self.first_form(&json)
        } else {
            let (encodings, json) = (self.clone(), json.clone());
            let work = move || encodings.first_form(&json);
            match tokio::task::spawn_blocking(work).await {
                Ok(recoded) => recoded,
                Err(error) => return ApiError(StatusError::internal(error)).into_response(),
            }
        };
        if let Some((bytes, media_type)) = recoded {
            // Discovery has a longer name of its own, which stays.
            let known = parts.headers.get(header::CONTENT_TYPE);
            if known.is_none_or(|known| !known.as_bytes().starts_with(media_type.as_bytes())) {
                let media_type = HeaderValue::from_static(media_type);
                parts.headers.insert(header::CONTENT_TYPE, media_type);
            }
            parts.headers.remove(header::CONTENT_LENGTH);
            return Response::from_parts(parts, Body::from(bytes));
        }
        // A refusal is told in JSON rather than replaced by another one; so is what is no object.
        if !parts.status.is_success() || !is_object(&json) {
            return Response::from_parts(parts, Body::from(json));
        }
        let written = "application/json, application/yaml";
        ApiError(StatusError::not_acceptable(written)).into_response()
    }

    /// An answer in the first encoding that there is for it, and what that is called.
    fn first_form(&self, json: &Bytes) -> Option<(Bytes, &'static str)> {
        self.iter().find_map(|encoding| match encoding {
            Encoding::Json => Some((self.laid_out(json.clone()), "application/json")),
            Encoding::Yaml => Some((yaml(json)?, YAML)),
            Encoding::Protobuf => Some((binary(json)?, PROTOBUF)),
        })
    }
}

fn is_small(response: &Response) -> bool {
    let bytes = response.body().size_hint().upper();
    bytes.is_some_and(|bytes| bytes <= GATHERED_BYTES_MAX as u64)
}

fn is_object(json: &[u8]) -> bool {
    let object: Option<Value> = serde_json::from_slice(json).ok();
    object.is_some_and(|object| object["kind"].as_str().is_some_and(|kind| !kind.is_empty()))
}

fn yaml(json: &[u8]) -> Option<Bytes> {
    let value: Value = serde_json::from_slice(json).ok()?;
    if value["kind"].is_null() {
        return None;
    }
    serde_saphyr::to_string(&value).ok().map(Bytes::from)
}

/// The binary form, if the object's kind has one.
fn binary(json: &[u8]) -> Option<Bytes> {
    let object: Value = serde_json::from_slice(json).ok()?;
    protobuf::encode(&object).ok().map(Bytes::from)
}

/// Each line of a watch as a frame. A line that is none ends the stream: half an event would be worse.
fn watch_frames(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    parts.headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(PROTOBUF_WATCH),
    );
    let chunks = body.into_data_stream();
    let lines = stream::unfold(
        (chunks, BytesMut::new()),
        |(mut chunks, mut rest)| async move {
            loop {
                if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line = rest.split_to(end + 1).freeze();
                    return Some((Ok(line), (chunks, rest)));
                }
                match chunks.next().await? {
                    Ok(chunk) if rest.len() + chunk.len() > GATHERED_BYTES_MAX => {
                        let error = axum::Error::new("an event is too large");
                        return Some((Err(error), (chunks, BytesMut::new())));
                    }
                    Ok(chunk) => rest.extend_from_slice(&chunk),
                    Err(error) => return Some((Err(error), (chunks, rest))),
                }
            }
        },
    );
    let frames = lines.and_then(|line| async move {
        frame(&line).ok_or_else(|| axum::Error::new("an event has no binary form"))
    });
    Response::from_parts(parts, Body::from_stream(frames))
}

fn frame(line: &[u8]) -> Option<Bytes> {
    let event: Value = serde_json::from_slice(line).ok()?;
    let frame = protobuf::encode_watch_frame(event["type"].as_str()?, &event["object"]);
    frame.ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_is_read_again_as_the_same_object() {
        let words = proptest::sample::select(vec![
            "yes",
            "null",
            "~",
            "1",
            "0x1",
            "1e3",
            "-",
            "- a",
            "a: b",
            "#",
            "",
            " a",
            "a\nb",
            "a\n",
            "\t",
            "'",
            "\"",
            "*a",
            "&a",
            "!a",
            "%",
            "@",
            "2026-11-22",
            ".5",
            ".inf",
            "NaN",
            "on",
            "=",
            "<<",
            "{}",
            "[",
            "\u{85}",
            "\u{feff}",
            "\0",
        ]);
        let text = prop_oneof![
            words.prop_map(str::to_owned),
            any::<String>(),
            "[ -~\n]{0,200}"
        ];
        let leaf = prop_oneof![
            4 => text.clone().prop_map(Value::from),
            1 => any::<i64>().prop_map(Value::from),
            1 => any::<bool>().prop_map(Value::from),
            1 => Just(Value::Null),
        ];
        let value = leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                proptest::collection::btree_map(text.clone(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        });
        let mut runner = TestRunner::deterministic();
        for _ in 0..2000 {
            let inner = value.new_tree(&mut runner).unwrap().current();
            let object = json!({"kind": "Thing", "data": inner});
            let written = yaml(object.to_string().as_bytes()).unwrap();
            let written = std::str::from_utf8(&written).unwrap();
            let read: Result<Value, _> = serde_saphyr::from_str(written);
            assert_eq!(
                read.unwrap_or_else(|error| panic!("{error}\n{written:?}")),
                object,
                "{written}"
            );
        }
    }
}
