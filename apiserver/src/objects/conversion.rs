//! Objects of users' kinds between the version that they are stored in and the one that is asked for, where a webhook converts them.
//!
//! Without a webhook there is nothing to wait for, and the kind does it ([`weft_kinds::apiextensions::Custom`]).
//!
//! Invariants: what a webhook does not convert, in time and soundly, nobody is shown and nothing is written from; a question is about a
//! bounded number of objects, and as many as are asked for are converted by as few questions as that allows.
//! Left to others: what a webhook is asked and may answer (`weft_kinds::apiextensions::conversion`), calling it (`crate::webhook`).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use weft_api::status::StatusError;
use weft_kinds::KindRef;
use weft_kinds::admission::webhook::Target;
use weft_kinds::apiextensions::Custom;
use weft_kinds::apiextensions::conversion::{self, Conversion};
use weft_kinds::lens::text;

use super::Objects;
use crate::stored::Stored;

/// How long a conversion may take, as upstream's client waits.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Objects of one question: what a webhook answers in milliseconds.
pub(super) const QUESTION_OBJECTS_MAX: usize = 500;
/// Bytes of one question, about: an answer, which may be a few times as large, is bounded at four times as much (`crate::webhook`). An object
/// that is larger is asked about alone.
const QUESTION_BYTES_MAX: usize = 4 << 20;
/// How often owners of fields may need something converted that follows from what was converted before.
const ROUNDS_MAX: usize = 16;

/// The webhook of a kind that has one.
fn webhook_of<'k>(kind: KindRef<'k>) -> Option<(&'k Custom, &'k Value, &'static str)> {
    let custom = kind.custom.as_ref()?;
    match &custom.definition().conversion {
        Conversion::None => None,
        Conversion::Webhook { client, review } => Some((custom, client, review)),
    }
}

/// Whether objects of a kind have to be converted by somebody else before they are shown.
pub(super) fn needs_webhook(kind: KindRef<'_>) -> bool {
    webhook_of(kind).is_some()
}

impl Objects {
    /// What a stored object is in the version of its kind.
    ///
    /// # Errors
    /// 500 when the webhook does not convert it.
    pub(crate) async fn converted(&self, stored: Stored) -> Result<Stored, StatusError> {
        if !needs_webhook(stored.kind()) {
            return Ok(stored);
        }
        let mut one = self.converted_all(vec![stored]).await?;
        one.pop()
            .ok_or_else(|| StatusError::internal("a conversion lost its object"))
    }

    /// As [`Objects::converted`], of all objects of an answer.
    pub(crate) async fn converted_all(
        &self,
        mut all: Vec<Stored>,
    ) -> Result<Vec<Stored>, StatusError> {
        let Some(kind) = all.first().map(|stored| stored.kind().clone()) else {
            return Ok(all);
        };
        let Some((custom, _, _)) = webhook_of(&kind) else {
            return Ok(all);
        };
        let wanted = kind.api_version();
        let mut places = Vec::new();
        let mut asked = Vec::new();
        for (place, stored) in all.iter().enumerate() {
            if !stored.is_stored_in(&wanted) {
                let mut value = stored.raw_value();
                custom.settle(&mut value);
                value["metadata"]["resourceVersion"] = stored.revision().to_string().into();
                places.push(place);
                asked.push(value);
            }
        }
        let made = self.ask_to_convert(&kind, &wanted, asked).await?;
        for (place, mut value) in places.into_iter().zip(made) {
            custom.fit(&mut value);
            if let Some(stored) = all.get_mut(place) {
                *stored = stored.clone().converted_to(value);
            }
        }
        Ok(all)
    }

    /// An object of the write path as it is to be stored: in the version that its definition stores.
    ///
    /// # Errors
    /// 500 when the webhook does not convert it.
    pub(super) async fn to_store<'v>(
        &self,
        kind: KindRef<'_>,
        value: &'v Value,
    ) -> Result<Cow<'v, Value>, StatusError> {
        let Some(custom) = &kind.custom else {
            return Ok(Cow::Borrowed(value));
        };
        let wanted = custom.definition().storage_api_version();
        if text(value, "/apiVersion") == wanted {
            return Ok(Cow::Borrowed(value));
        }
        let mut stored = value.clone();
        if webhook_of(kind).is_some() {
            let mut made = self.ask_to_convert(kind, &wanted, vec![stored]).await?;
            stored = made.pop().unwrap_or_default();
        }
        custom.write(&mut stored);
        Ok(Cow::Owned(stored))
    }

    /// What a read shows of an object that is about to be written: it goes through the version that it is stored in, which may give defaults, and may
    /// not know everything.
    ///
    /// # Errors
    /// 500 when the webhook does not convert it.
    pub(super) async fn as_read<'v>(
        &self,
        kind: KindRef<'_>,
        written: &'v Value,
        stored: &Value,
    ) -> Result<Cow<'v, Value>, StatusError> {
        let other = written.get("apiVersion") != stored.get("apiVersion");
        let Some(custom) = kind.custom.as_ref().filter(|_| other) else {
            return Ok(Cow::Borrowed(written));
        };
        let mut value = stored.clone();
        if webhook_of(kind).is_some() {
            custom.settle(&mut value);
            let wanted = kind.api_version();
            let mut made = self.ask_to_convert(kind, &wanted, vec![value]).await?;
            value = made.pop().unwrap_or_default();
            custom.fit(&mut value);
        } else {
            custom.read(&mut value);
        }
        Ok(Cow::Owned(value))
    }

    /// What `make` makes with the objects that it asks to be converted: it is run again once they are.
    ///
    /// # Errors
    /// Those of `make`.
    pub(super) async fn with_conversions<T>(
        &self,
        kind: KindRef<'_>,
        conversions: &Conversions,
        make: impl Fn() -> Result<T, StatusError>,
    ) -> Result<T, StatusError> {
        let mut made = make();
        for _ in 0..ROUNDS_MAX {
            let wanted = conversions.take_wanted();
            if wanted.is_empty() {
                break;
            }
            for (value, version) in wanted {
                let converted = self
                    .ask_to_convert(kind, &version, vec![value.clone()])
                    .await;
                let converted = converted.map(|mut made| made.pop().unwrap_or_default());
                conversions.put(value, version, converted.map_err(|error| error.message));
            }
            made = make();
        }
        made
    }

    async fn ask_to_convert(
        &self,
        kind: KindRef<'_>,
        wanted: &str,
        objects: Vec<Value>,
    ) -> Result<Vec<Value>, StatusError> {
        let Some((_, client, version)) = webhook_of(kind) else {
            return Ok(objects);
        };
        let mut made = Vec::with_capacity(objects.len());
        for part in questions(&objects) {
            let uid = (self.inner.config.new_uid)();
            let review = conversion::review(version, &uid, wanted, part);
            let answer = match Target::of(client) {
                Some(target) => self.ask_webhook(&target, &review, TIMEOUT).await,
                None => Err(crate::webhook::WebhookError::Configuration(
                    "its clientConfig has neither url nor service".to_owned(),
                )),
            };
            let found = match answer {
                Ok(answer) => conversion::converted(version, &uid, wanted, part, &answer),
                Err(why) => {
                    let of = part.first().unwrap_or(&Value::Null);
                    Err(conversion::failure(of, &why.cause()))
                }
            };
            made.extend(found.map_err(StatusError::unknown)?);
        }
        Ok(made)
    }
}

/// Objects as they are asked about together.
fn questions(objects: &[Value]) -> impl Iterator<Item = &[Value]> {
    let mut rest = objects;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = rest.iter().take(QUESTION_OBJECTS_MAX).take_while(|object| {
            bytes += weight(object);
            bytes <= QUESTION_BYTES_MAX
        });
        let count = fitting.count().max(1).min(rest.len());
        let (part, others) = rest.split_at(count);
        rest = others;
        (!part.is_empty()).then_some(part)
    })
}

/// About how many bytes of JSON a value has.
fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 3,
        Value::Array(items) => 3 + items.iter().map(weight).sum::<usize>(),
        Value::Object(map) => {
            let members = map.iter();
            3 + members
                .map(|(name, value)| name.len() + 4 + weight(value))
                .sum::<usize>()
        }
    }
}

/// An object, the version that it is wanted in, and what a webhook made of it.
type Made = (Value, String, Result<Value, String>);

/// What one write needs converted to tell who owns which fields, which is decided where nothing can be waited for: what is not there yet is noted
/// as wanted. Cheap to clone; clones share everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conversions(Arc<Mutex<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    made: Vec<Made>,
    wanted: Vec<(Value, String)>,
}

impl Conversions {
    /// An object in another version.
    ///
    /// # Errors
    /// Why it is not there: it may be in a moment.
    pub(super) fn find(&self, value: &Value, version: &str) -> Result<Value, String> {
        let mut memory = self.0.lock();
        let known = |(of, to, _): &&Made| to == version && of == value;
        if let Some((_, _, made)) = memory.made.iter().find(known) {
            return made.clone();
        }
        memory.wanted.push((value.clone(), version.to_owned()));
        Err(format!("it has yet to be converted to {version}"))
    }

    /// Whether something is wanted that is not there.
    pub(super) fn waits(&self) -> bool {
        !self.0.lock().wanted.is_empty()
    }

    fn take_wanted(&self) -> Vec<(Value, String)> {
        std::mem::take(&mut self.0.lock().wanted)
    }

    fn put(&self, value: Value, version: String, made: Result<Value, String>) {
        self.0.lock().made.push((value, version, made));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_asked_about_in_parts_that_fit() {
        let sizes = |objects: &[Value]| questions(objects).map(<[Value]>::len).collect::<Vec<_>>();
        assert_eq!(sizes(&[]), [0; 0]);
        assert_eq!(sizes(&vec![json!({ "a": 1 }); 1100]), [500, 500, 100]);
        let large = json!({ "a": "x".repeat(3 << 20) });
        let huge = json!({ "a": "x".repeat(5 << 20) });
        let small = json!({});
        let objects = [
            small.clone(),
            large.clone(),
            large,
            huge,
            small.clone(),
            small,
        ];
        assert_eq!(sizes(&objects), [2, 1, 1, 2]);
    }
}
