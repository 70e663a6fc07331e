//! What is known of each kind: names, schema, defaults, validation, allocation, deletion, patches, Table columns.
//!
//! A kind is a file in the folder of its group ([`core`], [`apps`], …) with its [`Kind`], its [`strategy::Strategy`], its
//! columns and their tests; to add one, write the file and name it in the list below. Router, discovery, OpenAPI, tables,
//! selectors, informer, garbage collection, encryption and admission find kinds in a [`Registry`], which can be replaced
//! while the server runs.
//!
//! Invariants: pure functions over JSON values; nothing outside a kind's own file asks which kind it deals with.
//! Left to others: the verbs (`weft_apiserver::objects`), what controllers make of objects (`weft_controllers`).

pub mod apps;
pub mod cel;
pub mod certificates;
pub mod columns;
pub mod coordination;
pub mod core;
pub mod decode;
pub mod discovery;
mod field;
pub mod gateway_api;
mod kind;
pub mod lens;
pub mod patch;
pub mod protobuf;
mod registry;
mod reviews;
pub mod schema;
pub mod strategy;
pub mod validate;
pub mod walk;
pub mod weft;

use std::sync::Arc;

use serde_json::Value;
use weft_api::quantity::Quantity;

pub use self::core::{
    CONFIG_MAP, EVENT, EVENT_V1, NAMESPACE, NODE, POD, SECRET, SERVICE, SERVICE_ACCOUNT,
    ServiceRange,
};
pub use apps::{DEPLOYMENT, REPLICA_SET};
pub use certificates::CERTIFICATE_SIGNING_REQUEST;
pub use columns::{Column, Row};
pub use coordination::LEASE;
pub use discovery::ENDPOINT_SLICE;
pub use gateway_api::{GATEWAY, GATEWAY_CLASS, HTTP_ROUTE, REFERENCE_GRANT};
pub use kind::{Kind, Name, NameRule, Selectable, Served, Spelling, Subresource};
pub use registry::{Registries, Registry};
pub use weft::{CAPABILITY_GRANT, KEY_VALUE_STORE};

/// How functions are handed a kind.
pub type KindRef<'a> = &'a Arc<Kind>;

/// The kinds that are compiled in, in the order of discovery; `kubectl get all` prints in this order too.
fn builtin() -> Vec<Arc<Kind>> {
    let stored = [
        &POD,
        &SERVICE,
        &NAMESPACE,
        &NODE,
        &CONFIG_MAP,
        &SECRET,
        &SERVICE_ACCOUNT,
        &EVENT,
        &DEPLOYMENT,
        &REPLICA_SET,
        &ENDPOINT_SLICE,
        &EVENT_V1,
        &LEASE,
        &CERTIFICATE_SIGNING_REQUEST,
        &HTTP_ROUTE,
        &GATEWAY,
        &GATEWAY_CLASS,
        &REFERENCE_GRANT,
        &CAPABILITY_GRANT,
        &KEY_VALUE_STORE,
    ];
    let stored = stored.into_iter().map(|kind| Arc::clone(kind));
    stored
        .chain(reviews::reviews())
        .chain(reviews::usage())
        .collect()
}

/// A quantity as clients write it: text, or a bare number.
pub(crate) fn quantity_of(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}
