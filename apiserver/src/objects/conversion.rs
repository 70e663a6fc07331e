//! Objects of users' kinds between the version that they are stored in and the one that is asked for, where a webhook converts them.
//!
//! Without a webhook there is nothing to wait for, and the kind does it ([`weft_kinds::apiextensions::Custom`]).
//!
//! Invariants: one call for all objects of an answer; what a webhook does not convert, in time and soundly, nobody is shown and nothing is
//! written from. Left to others: what a webhook is asked and may answer (`weft_kinds::apiextensions::conversion`), calling it (`crate::webhook`).

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Value;
use weft_api::status::StatusError;
use weft_kinds::KindRef;
use weft_kinds::admission::webhook::Target;
use weft_kinds::apiextensions::Custom;
use weft_kinds::apiextensions::conversion::{self, Conversion};
use weft_kinds::lens::text;

use super::Objects;
use crate::stored::Stored;
use crate::webhook::WebhookError;

/// How long a conversion may take, as upstream's client waits.
const TIMEOUT: Duration = Duration::from_secs(30);

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
            let mut value = stored.raw_value();
            if text(&value, "/apiVersion") != wanted {
                custom.settle(&mut value);
                value["metadata"]["resourceVersion"] = stored.revision().to_string().into();
                places.push(place);
                asked.push(value);
            }
        }
        let made = self.ask_to_convert(&kind, &wanted, &asked).await?;
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
        let other = text(value, "/apiVersion") != wanted;
        let mut stored = value.clone();
        if other && webhook_of(kind).is_some() {
            let mut made = self
                .ask_to_convert(kind, &wanted, std::slice::from_ref(value))
                .await?;
            stored = made.pop().unwrap_or_default();
        }
        custom.write(&mut stored);
        Ok(Cow::Owned(stored))
    }

    async fn ask_to_convert(
        &self,
        kind: KindRef<'_>,
        wanted: &str,
        objects: &[Value],
    ) -> Result<Vec<Value>, StatusError> {
        let Some((_, client, version)) = webhook_of(kind).filter(|_| !objects.is_empty()) else {
            return Ok(objects.to_vec());
        };
        let uid = (self.inner.config.new_uid)();
        let review = conversion::review(version, &uid, wanted, objects);
        let answer = match Target::of(client) {
            Some(target) => self.ask_webhook(&target, &review, TIMEOUT).await,
            None => Err(WebhookError::Configuration(
                "its clientConfig has neither url nor service".to_owned(),
            )),
        };
        let made = answer
            .map_err(|why| why.to_string())
            .and_then(|answer| conversion::converted(version, &uid, wanted, objects, &answer));
        made.map_err(|why| {
            let of = kind.gvk();
            StatusError::internal(format!("conversion webhook for {of} failed: {why}"))
        })
    }
}
