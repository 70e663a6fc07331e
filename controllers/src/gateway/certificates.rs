//! Secrets and ConfigMaps as far as certificates go: whether they can be used. Keys are looked at and not kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_api::object::{Object, ObjectError};
use weft_gateway::api;
use weft_kinds::{CONFIG_MAP, Kind, SECRET};

use crate::indexer::Lens;

/// A Secret, if it has a certificate.
#[derive(Debug)]
pub(super) struct KeyPair(pub(super) Option<api::Secret>);

impl Lens for KeyPair {
    fn kind() -> &'static Arc<Kind> {
        &SECRET
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let secret: weft_api::view::Secret = object.view()?;
        let data = secret.data.unwrap_or_default().into_iter();
        let data: BTreeMap<String, Vec<u8>> = data.map(|(name, bytes)| (name, bytes.0)).collect();
        let has_one = data.contains_key("tls.crt");
        Ok(Self(has_one.then(|| api::Secret::read(&data, false))))
    }
}

/// The authorities of a ConfigMap, if it has any.
#[derive(Debug)]
pub(super) struct Authorities(pub(super) Option<api::Bundle>);

impl Lens for Authorities {
    fn kind() -> &'static Arc<Kind> {
        &CONFIG_MAP
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let pem = object.as_value()["data"]["ca.crt"].as_str();
        Ok(Self(pem.map(|pem| api::Bundle::read(pem.as_bytes()))))
    }
}
