//! From what a client sent to what is stored: one pipeline for bodies, results of patches, and old objects.
//!
//! `depth → type and format → unknown and duplicate fields dropped and told → nulls and zeros as they are always
//! written`: [`text`] for a body's JSON, [`value`] for what has been parsed or patched already. Built-in kinds are read as
//! Kubernetes' Go types are ([`typed`]), others by their structural schema ([`structural`]); both by one
//! [`Schema`]. The result is canonical: equal objects are equal values, so that equality, generations and immutability can be
//! judged by comparing. What a client left out is filled in after this by the kind, and [`fill`] by the schema.
//!
//! Invariants: pure; bytes from outside never panic and are bounded in depth; `value(canonical)` changes nothing (each
//! test of it looks); no unknown field ever gets past here.
//! Left to others: rules of kinds (`crate::validate`), and whether unknown fields are refused, told or ignored.

mod convert;
mod duplicates;
pub(crate) mod findings;
mod scalar;
mod strfmt;
pub(crate) mod structural;
mod typed;

use std::sync::Arc;

use serde_json::Value;
use weft_api::gvk::GroupVersionKind;
use weft_api::status::Cause;

use crate::Kind;
use crate::cel::rules;
use crate::schema::{Node, Schema};

pub use duplicates::duplicate_fields;
pub(crate) use scalar::url_bytes;

/// How deep objects and lists may stand in one another, in what is stored and in every step on the way there. Below the
/// 128 levels at which this server's own JSON reader stops, by what a list or a watch event puts around an object; the
/// deepest path of a kind has about 20.
pub const DEPTH_MAX: usize = 100;

/// Faults that are told of one body; one made of mistakes must not make the answer large.
const FAULTS_MAX: usize = 100;

/// An object as it is stored, and what was dropped to make it so.
#[derive(Debug, PartialEq)]
pub struct Decoded {
    pub value: Value,
    /// In the words of Kubernetes' strict decoder: `unknown field "spec.replcas"`, `duplicate field "metadata.name"`.
    pub faults: Vec<String>,
}

/// Why something is no object of its kind.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the request body is not valid JSON: {0}")]
    Syntax(String),
    /// In the words of Go's decoder.
    #[error("{0}")]
    Unfit(String),
}

/// How objects are read.
#[derive(Clone, Copy)]
pub enum Reading<'a> {
    /// As a Go type of Kubernetes.
    Typed(Schema<'static>),
    /// By a structural schema.
    Structural(Schema<'a>),
    /// As they are: no schema is known.
    Free,
}

/// What says how objects are read: the name of a kind that is compiled in, or a kind.
pub trait Readable {
    fn reading(&self) -> Reading<'_>;
}

impl Readable for GroupVersionKind {
    fn reading(&self) -> Reading<'_> {
        reading_by(Schema::of(self))
    }
}

/// By a schema of the committed table, or by none.
fn reading_by(schema: Option<Schema<'static>>) -> Reading<'static> {
    match schema {
        Some(schema) if schema.is_typed() => Reading::Typed(schema),
        Some(schema) => Reading::Structural(schema),
        None => Reading::Free,
    }
}

impl Readable for Kind {
    fn reading(&self) -> Reading<'_> {
        match &self.custom {
            Some(version) => Reading::Structural(Schema::at(version.node())),
            None => {
                let schema = Schema::of_kind(&self.group, &self.version, &self.kind);
                reading_by(schema)
            }
        }
    }
}

impl<T: Readable> Readable for Arc<T> {
    fn reading(&self) -> Reading<'_> {
        (**self).reading()
    }
}

/// A structural schema alone.
impl Readable for Node {
    fn reading(&self) -> Reading<'_> {
        Reading::Structural(Schema::at(self))
    }
}

/// Decodes a body in JSON.
///
/// # Errors
/// [`DecodeError::Syntax`] for what is no JSON, else for the first value that does not fit.
pub fn text(of: &impl Readable, body: &[u8]) -> Result<Decoded, DecodeError> {
    match of.reading() {
        Reading::Typed(schema) => {
            let mut deserializer = serde_json::Deserializer::from_slice(body);
            let decoded = typed::read(schema, &mut deserializer)?;
            deserializer
                .end()
                .map_err(|error| DecodeError::Syntax(error.to_string()))?;
            Ok(decoded)
        }
        _ => {
            let parsed: Value = serde_json::from_slice(body)
                .map_err(|error| DecodeError::Syntax(error.to_string()))?;
            let mut decoded = owned(of, parsed)?;
            let mut faults: Vec<String> = duplicate_fields(body)
                .iter()
                .map(|field| format!("duplicate field {field:?}"))
                .collect();
            faults.append(&mut decoded.faults);
            decoded.faults = faults;
            Ok(decoded)
        }
    }
}

/// Decodes what is JSON already. A kind that no schema is known for keeps all its fields.
///
/// # Errors
/// [`DecodeError::Unfit`] for the first value that does not fit.
pub fn value(of: &impl Readable, value: &Value) -> Result<Decoded, DecodeError> {
    match of.reading() {
        Reading::Typed(schema) if !typed::is_read(schema, value) => Ok(typed::read(schema, value)?),
        _ => owned(of, value.clone()),
    }
}

/// As [`value`], of a value that is given away: what is canonical comes back as it is.
///
/// # Errors
/// As [`value`].
pub fn owned(of: &impl Readable, value: Value) -> Result<Decoded, DecodeError> {
    match of.reading() {
        Reading::Typed(schema) if !typed::is_read(schema, &value) => {
            return typed::read(schema, &value);
        }
        Reading::Typed(_) => {}
        Reading::Structural(schema) => return structured(schema, value),
        Reading::Free => bounded(&value)?,
    }
    Ok(Decoded {
        value,
        faults: Vec::new(),
    })
}

/// As [`value`], for the result of a strategic merge patch: what does not fit is told as Kubernetes tells it there.
///
/// # Errors
/// As [`value`].
pub fn merged(of: &impl Readable, merged: &Value) -> Result<Decoded, DecodeError> {
    let decoded = value(of, merged);
    let told = match (&decoded, of.reading()) {
        (Err(DecodeError::Unfit(_)), Reading::Typed(schema)) => {
            bounded(merged)?;
            convert::fault(schema, "", merged)
        }
        _ => None,
    };
    match (decoded, told) {
        (Err(_), Some(told)) => Err(DecodeError::Unfit(told)),
        (Ok(mut decoded), _) => {
            decoded.faults.sort();
            Ok(decoded)
        }
        (decoded, None) => decoded,
    }
}

fn structured(schema: Schema<'_>, mut value: Value) -> Result<Decoded, DecodeError> {
    bounded(&value)?;
    structural::shorten_numbers(&mut value);
    let mut faults = Vec::new();
    // Metadata is Kubernetes' own type in every kind.
    if let (Some(metadata), Some(meta)) = (value.get_mut("metadata"), Schema::named(OBJECT_META))
        && !metadata.is_null()
        && !typed::is_read(meta, metadata)
    {
        let decoded = typed::read_below(meta, "metadata", &*metadata)?;
        *metadata = decoded.value;
        faults = decoded.faults;
    }
    let unknown = structural::prune(schema, &mut value)?;
    faults.extend(
        unknown
            .iter()
            .map(|path| format!("unknown field \"{path}\"")),
    );
    faults.truncate(FAULTS_MAX);
    Ok(Decoded { value, faults })
}

/// What an object of a kind is read as that says nothing, not even its kind.
pub(crate) fn blank(schema: Option<Schema<'_>>) -> Option<&Value> {
    schema.filter(Schema::is_typed).map(typed::blank)
}

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Whether a value is nested no deeper than objects may be.
pub fn is_bounded(value: &Value) -> bool {
    is_within(value, DEPTH_MAX, &mut 0)
}

fn bounded(value: &Value) -> Result<(), DecodeError> {
    match is_bounded(value) {
        true => Ok(()),
        false => Err(DecodeError::Unfit(format!(
            "exceeded max depth of {DEPTH_MAX}"
        ))),
    }
}

/// Fills in the defaults that the schema of a kind carries.
pub fn fill(of: &impl Readable, value: &mut Value) {
    if let Reading::Structural(schema) = of.reading() {
        structural::default(schema, value);
    }
}

/// Whether values of a type are held to a format; others are told of.
pub(crate) fn knows_format(kind: &str, format: &str) -> bool {
    match kind {
        "" | "string" => strfmt::is(format, "").is_some() || format == "email",
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

/// Reads what was stored by a structural schema of before, whatever it holds: what does not fit is left for others to judge.
pub(crate) fn repair(schema: Schema<'_>, value: &mut Value) {
    // What no metadata can be stays as it is.
    let _ = structural::prune(schema, value);
}

/// Adds to `causes` the constraints and rules of the schema that an object of a structural kind breaks, as an update of `old` or as a
/// new object; none for built-in kinds, whose constraints Kubernetes judges in code.
///
/// What an update leaves as it was is not held against it.
pub fn violations(of: &impl Readable, value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let Reading::Structural(schema) = of.reading() else {
        return;
    };
    causes.extend(findings::validate(schema, value, old));
    // Where there are no rules, none is missed.
    match findings::unchecked(causes).filter(|_| schema.has_rules()) {
        Some(unchecked) => causes.push(unchecked),
        None => {
            let judgement = rules::judge(schema, value, old, rules::Options::default());
            causes.extend(judgement.causes);
        }
    }
}

/// Whether a value of a structural kind has a null that its schema neither allows nor replaces: what is read loses it, what was made here has it still.
pub fn has_unfit_null(of: &impl Readable, value: &Value) -> bool {
    match of.reading() {
        Reading::Structural(schema) => structural::has_unfit_null(schema, value),
        Reading::Typed(_) | Reading::Free => false,
    }
}

/// Whether `value` has at most `levels` of objects and lists in one another. `looked_at` counts the values visited.
pub(crate) fn is_within(value: &Value, levels: usize, looked_at: &mut usize) -> bool {
    *looked_at += 1;
    match value {
        Value::Object(map) => {
            levels > 0
                && map
                    .values()
                    .all(|value| is_within(value, levels - 1, looked_at))
        }
        Value::Array(items) => {
            levels > 0
                && items
                    .iter()
                    .all(|value| is_within(value, levels - 1, looked_at))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests;
