//! The wire vocabulary of weft: what a Kubernetes object, selector, quantity or error *is*.
//!
//! Everything here is a value or a function from values to values. No clock, no I/O, no async runtime,
//! and no dependency on any other crate of the workspace, so every other crate may depend on this one.
//!
//! - [`object::Object`] is a lossless JSON object: fields nobody here knows survive a round trip.
//! - [`meta::Meta`] is the parsed metadata that routing, selectors, ownership and deletion decide on.
//! - [`view`] holds the typed lenses (`k8s-openapi`) for code that needs fields, not fidelity.
//! - [`status::StatusError`] is the one error of the API, worded as Kubernetes words it.

pub mod annotation;
pub mod event_filter;
pub mod gvk;
pub mod hash;
pub mod identity;
pub mod image;
pub mod meta;
pub mod name;
pub mod names;
pub mod node_selector;
pub mod object;
pub mod quantity;
pub mod selector;
pub mod status;
pub mod time;
pub mod toleration;
pub mod view;
pub mod workload;

pub use gvk::{GroupVersionKind, GroupVersionResource};
pub use identity::SpiffeId;
pub use image::ImageReference;
pub use meta::{Meta, OwnerReference};
pub use object::Object;
pub use quantity::Quantity;
pub use selector::{FieldSelector, LabelSelector};
pub use status::StatusError;
