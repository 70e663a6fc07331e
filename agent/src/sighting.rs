//! What both `tap` and `spans` tell of a call, in JSON: the service that was called, when the call began, and what was tried before.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use weft_mesh::Sighting;

#[derive(Serialize)]
pub(crate) struct Service<'s> {
    namespace: &'s str,
    name: &'s str,
}

impl<'s> Service<'s> {
    pub(crate) fn of(sighting: &'s Sighting) -> Self {
        let (namespace, name) = sighting.service();
        Self { namespace, name }
    }
}

/// An attempt that another one followed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Retry {
    after_micros: u64,
    address: String,
    reason: &'static str,
}

impl Retry {
    pub(crate) fn all_of(sighting: &Sighting) -> Vec<Self> {
        let retries = sighting.retries().iter();
        let told = retries.map(|retry| Self {
            after_micros: micros(retry.after),
            address: retry.address.to_string(),
            reason: retry.reason,
        });
        told.collect()
    }
}

/// When it began.
pub(crate) fn began(sighting: &Sighting) -> String {
    let began = Timestamp::try_from(sighting.began).unwrap_or_default();
    weft_api::time::rfc3339_micros(began)
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
