//! Content negotiation: which form the client wants back, and what it sent.
//!
//! Answers may be JSON, YAML or protobuf (`super::encoding`). Bodies may be those, too; one without a Content-Type is JSON,
//! as old clients send it. All are bounded in size, and YAML also in what its aliases may expand to.

use http::{HeaderMap, header};
use serde_json::Value;
use serde_saphyr::options::DuplicateKeyPolicy;
use weft_api::gvk::GroupVersionKind;
use weft_api::status::StatusError;
use weft_kinds::decode::{self, DecodeError, Readable};
use weft_kinds::{Kind, protobuf};

use super::encoding::{Encoding, PROTOBUF, WRITTEN};
use crate::objects::undecodable;

/// What bodies may be.
const READ: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// The media type of a configuration that is applied.
pub const APPLY: &str = "application/apply-patch+yaml";

/// The form an answer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The object or list itself.
    Whole,
    /// Rows and columns, under this version of meta.k8s.io.
    Table(&'static str),
    /// Metadata only, of one object.
    Metadata,
    /// Metadata only, of a list.
    MetadataList,
    /// Aggregated discovery, under this version of apidiscovery.k8s.io.
    Discovery(&'static str),
}

impl Form {
    /// Refuses metadata of one object where a list is answered, and the other way round.
    ///
    /// # Errors
    /// 406 in Kubernetes' words.
    pub fn check(self, kind: &Kind, is_list: bool) -> Result<(), StatusError> {
        let group = kind.group.split('.').next().unwrap_or("");
        let group = if group.is_empty() { "core" } else { group };
        let sentence = match (self, is_list) {
            (Self::Metadata, true) => format!(
                "you requested PartialObjectMetadata, but the requested object is a list (*{group}.{}List)",
                kind.kind
            ),
            (Self::MetadataList, false) => format!(
                "you requested PartialObjectMetadataList, but the requested object is not a list (*{group}.{})",
                kind.kind
            ),
            _ => return Ok(()),
        };
        Err(StatusError {
            message: sentence,
            ..StatusError::not_acceptable("")
        })
    }
}

/// Chooses the form of the best range of the Accept header that this server speaks.
///
/// # Errors
/// 406 when there is none.
pub fn form(headers: &HeaderMap) -> Result<Form, StatusError> {
    let ranges = ranges(headers);
    let first = ranges.into_iter().next();
    first
        .map(|(form, _)| form)
        .ok_or_else(|| StatusError::not_acceptable(WRITTEN))
}

/// The encodings that the client takes for that form, best first; none when no range fits.
pub fn encodings(headers: &HeaderMap) -> Vec<Encoding> {
    let ranges = ranges(headers);
    let form = ranges.first().map(|(form, _)| *form);
    let alike = ranges.iter().filter(|(other, _)| Some(*other) == form);
    alike.map(|(_, encoding)| *encoding).collect()
}

/// What the client takes, best first: by quality, and at the same quality as written, wildcards last.
fn ranges(headers: &HeaderMap) -> Vec<(Form, Encoding)> {
    let accepts: Vec<&str> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    if accepts.is_empty() {
        return vec![(Form::Whole, Encoding::Json)];
    }
    let ranges = accepts.iter().flat_map(|accept| accept.split(','));
    let mut ranges: Vec<Range> = ranges.filter_map(Range::of).collect();
    ranges.sort_by_key(|range| (std::cmp::Reverse(range.thousandths), range.is_wild));
    ranges
        .iter()
        .map(|range| (range.form, range.encoding))
        .collect()
}

/// A media range of an Accept header that can be answered.
struct Range {
    form: Form,
    encoding: Encoding,
    /// Its `q`, at most 1000.
    thousandths: u16,
    is_wild: bool,
}

impl Range {
    fn of(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media_type = parts.next()?;
        let encoding = match media_type {
            "application/json" | "application/*" | "*/*" | "" => Encoding::Json,
            "application/yaml" => Encoding::Yaml,
            PROTOBUF => Encoding::Protobuf,
            _ => return None,
        };
        let (mut transform, mut group, mut version, mut thousandths) = ("", "", "", 1000);
        for parameter in parts {
            match parameter.split_once('=') {
                Some(("as", value)) => transform = value,
                Some(("g", value)) => group = value,
                Some(("v", value)) => version = value,
                Some(("q", value)) => {
                    let quality: f32 = value.parse().unwrap_or(0.0);
                    thousandths = (quality.clamp(0.0, 1.0) * 1000.0) as u16;
                }
                _ => {}
            }
        }
        let form = match (transform, group, version) {
            ("", _, _) => Form::Whole,
            ("PartialObjectMetadata", "meta.k8s.io", "v1") => Form::Metadata,
            ("PartialObjectMetadataList", "meta.k8s.io", "v1") => Form::MetadataList,
            // Tables and aggregated discovery have no binary form.
            _ if encoding == Encoding::Protobuf => return None,
            ("Table", "meta.k8s.io", "v1") => Form::Table("v1"),
            ("Table", "meta.k8s.io", "v1beta1") => Form::Table("v1beta1"),
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => Form::Discovery("v2"),
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2beta1") => {
                Form::Discovery("v2beta1")
            }
            _ => return None,
        };
        (thousandths > 0).then_some(Self {
            form,
            encoding,
            thousandths,
            is_wild: media_type.ends_with('*'),
        })
    }
}

/// A decoded body, and what only its text shows: keys that stood in it twice, fields that no JSON name is known for.
#[derive(Debug)]
pub struct Decoded {
    pub value: Value,
    /// In the words of Kubernetes' strict decoder.
    pub faults: Vec<String>,
}

/// The media type of the body without parameters; empty when the client named none.
pub fn media_type(headers: &HeaderMap) -> &str {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map_or("", |value| value.split(';').next().unwrap_or("").trim())
}

/// Decodes an object of a kind by its Content-Type: what is sent to be stored. Its text is read along the kind's schema, so
/// that faults come in the order in which they stand there.
///
/// # Errors
/// As [`decode`]; 400 for what does not fit the kind.
pub fn decode_object(
    headers: &HeaderMap,
    body: &[u8],
    gvk: &GroupVersionKind,
    of: &impl Readable,
) -> Result<Decoded, StatusError> {
    let (decoded, mut faults) = match media_type(headers) {
        "" | "application/json" => (decode::text(of, body), Vec::new()),
        _ => {
            let parsed = self::decode(headers, body)?;
            (decode::value(of, &parsed.value), parsed.faults)
        }
    };
    let decoded = decoded.map_err(|error| match error {
        DecodeError::Syntax(_) => StatusError::bad_request(error.to_string()),
        DecodeError::Unfit(_) => undecodable(gvk, &error),
    })?;
    faults.extend(decoded.faults);
    Ok(Decoded {
        value: decoded.value,
        faults,
    })
}

/// Decodes a body by its Content-Type.
///
/// # Errors
/// 400 for a body that does not parse, 415 for a format this server does not read.
pub fn decode(headers: &HeaderMap, body: &[u8]) -> Result<Decoded, StatusError> {
    match media_type(headers) {
        "" | "application/json" => decode_json(body),
        "application/yaml" | "application/x-yaml" | "text/yaml" => decode_yaml(body),
        PROTOBUF => decode_protobuf(body),
        other => Err(StatusError::unsupported_media_type(format!(
            "the body of the request was in an unknown format ({other}) - accepted media types include: {READ}"
        ))),
    }
}

/// What the client calls itself.
pub fn user_agent(headers: &HeaderMap) -> &str {
    let agent = headers.get(header::USER_AGENT);
    agent.and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// A configuration that is to be applied.
#[derive(Debug)]
pub struct Applied {
    pub value: Value,
    /// The first key that stood in it twice, in the words of Kubernetes' YAML reader.
    pub fault: Option<String>,
}

/// Decodes a configuration that is to be applied: YAML, which JSON is, too. Of keys that stand in it twice the last wins.
///
/// # Errors
/// 400 for what does not parse or is no object.
pub fn decode_applied(body: &[u8]) -> Result<Applied, StatusError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| StatusError::bad_request(format!("error encoding patch: {error}")))?;
    // Most clients send JSON, and its reader takes a fraction of the time.
    let (value, fault) = match serde_json::from_str(text) {
        Ok(value) if decode::duplicate_fields(body).is_empty() => (value, None),
        Ok(value) => (value, read_yaml(text).err().and_then(|error| twice(&error))),
        Err(_) if text.trim().is_empty() => (Value::Null, None),
        Err(_) => match read_yaml(text) {
            Ok(value) => (value, None),
            Err(error) => {
                let unreadable = |error: serde_saphyr::Error| {
                    StatusError::bad_request(format!("error encoding patch: yaml: {error}"))
                };
                let Some(fault) = twice(&error) else {
                    return Err(unreadable(error));
                };
                let lenient = serde_saphyr::options! {
                    duplicate_keys: DuplicateKeyPolicy::LastWins,
                };
                let value = serde_saphyr::from_str_with_options(text, lenient);
                (value.map_err(unreadable)?, Some(fault))
            }
        },
    };
    if !decode::is_bounded(&value) {
        return Err(StatusError::bad_request(
            "error decoding patch: exceeded max depth",
        ));
    }
    let given = match &value {
        Value::Object(_) => return Ok(Applied { value, fault }),
        // As empty as an empty object.
        Value::Null => {
            let value = Value::Object(serde_json::Map::new());
            return Ok(Applied { value, fault });
        }
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
    };
    Err(StatusError::bad_request(format!(
        "error decoding patch: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {given} into Go value of type \
         map[string]interface {{}}"
    )))
}

/// Reads YAML as bodies are read: bounded in nodes, depth and the expansion of aliases; a key that stands twice is an error.
fn read_yaml(text: &str) -> Result<Value, serde_saphyr::Error> {
    serde_saphyr::from_str(text)
}

/// The fault of a text whose only one, up to there, is a key that stands twice.
fn twice(error: &serde_saphyr::Error) -> Option<String> {
    match error.without_snippet() {
        serde_saphyr::Error::DuplicateMappingKey { key, location } => {
            let key = key.as_deref().unwrap_or_default();
            Some(format!(
                "line {}: key {key:?} already set in map",
                location.line()
            ))
        }
        _ => None,
    }
}

/// Decodes JSON, whatever the Content-Type says: the JSON patch formats.
///
/// # Errors
/// 400 for a body that does not parse.
pub fn decode_json(body: &[u8]) -> Result<Decoded, StatusError> {
    let value = serde_json::from_slice(body).map_err(|error| {
        StatusError::bad_request(format!("the request body is not valid JSON: {error}"))
    })?;
    Ok(Decoded {
        value,
        faults: decode::duplicate_fields(body)
            .iter()
            .map(|field| format!("duplicate field {field:?}"))
            .collect(),
    })
}

fn decode_yaml(body: &[u8]) -> Result<Decoded, StatusError> {
    let refuse = |error: &dyn std::fmt::Display| {
        StatusError::bad_request(format!("the request body is not valid YAML: {error}"))
    };
    let text = std::str::from_utf8(body).map_err(|error| refuse(&error))?;
    let value = read_yaml(text).map_err(|error| refuse(&error))?;
    Ok(Decoded {
        value,
        faults: Vec::new(),
    })
}

fn decode_protobuf(body: &[u8]) -> Result<Decoded, StatusError> {
    let decoded = protobuf::decode(body).map_err(|error| {
        StatusError::bad_request(format!(
            "the request body is no object in protobuf: {error}"
        ))
    })?;
    Ok(Decoded {
        value: decoded.value,
        faults: decoded
            .unknown
            .iter()
            .map(|field| format!("unknown field {field:?}"))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn accept_headers_of_real_clients() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        for (accept, expected) in [
            ("application/json, */*", Some(Form::Whole)),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Some(Form::Whole),
            ),
            (kubectl, Some(Form::Table("v1"))),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
                Some(Form::Discovery("v2")),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
                Some(Form::Metadata),
            ),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Some(Form::MetadataList),
            ),
            ("application/yaml", Some(Form::Whole)),
            ("application/cbor", None),
            (
                "application/json;q=0, application/yaml;q=0.2",
                Some(Form::Whole),
            ),
            ("*/*;q=0", None),
            (
                "*/*, application/json;as=Table;g=meta.k8s.io;v=v1",
                Some(Form::Table("v1")),
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(form(&headers).ok(), expected, "{accept}");
        }
    }

    #[test]
    fn the_encoding_is_that_of_the_best_range_and_its_likes() {
        use Encoding::{Json, Protobuf, Yaml};
        for (accept, expected) in [
            ("application/yaml", vec![Yaml]),
            ("application/json, application/yaml", vec![Json, Yaml]),
            (
                "application/cbor, application/yaml;q=0.9, application/json",
                vec![Json, Yaml],
            ),
            (
                "*/*, application/vnd.kubernetes.protobuf",
                vec![Protobuf, Json],
            ),
            (
                "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1, application/json",
                vec![Json],
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json",
                vec![Protobuf],
            ),
            ("text/html", vec![]),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(encodings(&headers), expected, "{accept}");
        }
        assert_eq!(encodings(&HeaderMap::new()), [Json]);
    }

    #[test]
    fn bodies_decode_by_their_type_and_bombs_do_not() {
        let decoded = |kind: &'static str, body: &str| {
            let mut headers = HeaderMap::new();
            if !kind.is_empty() {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            }
            decode(&headers, body.as_bytes())
        };
        assert_eq!(decoded("", r#"{"a":1}"#).unwrap().value["a"], 1);
        let yaml = decoded("application/yaml", "a: {b: [1, x, true]}\nc: '1'\n").unwrap();
        assert_eq!(
            yaml.value,
            serde_json::json!({"a": {"b": [1, "x", true]}, "c": "1"})
        );
        assert_eq!(decoded("application/cbor", "").unwrap_err().code, 415);
        assert_eq!(decoded(PROTOBUF, "k8s").unwrap_err().code, 400);
        // An empty Namespace: the envelope with its type and nothing else.
        let namespace = "k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace";
        assert_eq!(
            decoded(PROTOBUF, namespace).unwrap().value,
            serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {}, "spec": {}, "status": {}})
        );
        assert_eq!(decoded("", "{").unwrap_err().code, 400);
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let before = format!("*a{}", level - 1);
            let items = vec![before; 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
        }
        assert_eq!(decoded("application/yaml", &bomb).unwrap_err().code, 400);
    }
}
