//! What a workload counts itself, beside what its node counts of its calls: the guest's side of `weft:mesh/metrics`.
//!
//! The node shows it with its own metrics, as `app_NAME` and with the labels `namespace`, `pod` and `container`; nothing has to be served.
//!
//! ```
//! # use weft_sdk as weft;
//! #[weft::http]
//! async fn handle(_: weft::Request) -> Result<weft::Response, weft::mesh::Refusal> {
//!     weft::metrics::add("orders_total", &[("kind", "tea")], 1.0)?;
//!     weft::metrics::observe("order_items", &[], 3.0)?;
//!     Ok(weft::http::status(200))
//! }
//! # weft::block_on(handle(weft::Request::new(weft::Body::empty()))).unwrap();
//! # assert_eq!(weft::metrics::value("orders_total", &[("kind", "tea")]), Some(1.0));
//! ```
//!
//! A series is a metric with values of its labels. A container may have 128 of them, each with 8 labels of 128 bytes: labels are for what
//! there are few of. Natively, as under `cargo test`, [`value`] says what was counted on the same thread.

use crate::host;
use crate::mesh::Refusal;

/// Adds `more` to the counter `name`.
///
/// # Errors
/// [`Refusal`]; it is no reason to fail a request.
pub fn add(name: &str, labels: &[(&str, &str)], more: f64) -> Result<(), Refusal> {
    host::metric_add(name, labels, more)
}

/// Sets the gauge `name`.
///
/// # Errors
/// As [`add`].
pub fn set(name: &str, labels: &[(&str, &str)], value: f64) -> Result<(), Refusal> {
    host::metric_set(name, labels, value)
}

/// Counts `value` in the histogram `name`, in buckets from a thousandth to ten thousand: of seconds, for instance, or of items.
///
/// # Errors
/// As [`add`].
pub fn observe(name: &str, labels: &[(&str, &str)], value: f64) -> Result<(), Refusal> {
    host::metric_observe(name, labels, value)
}

/// What a counter or gauge is at, or the sum of a histogram. Natively only: for tests.
#[cfg(not(target_family = "wasm"))]
pub fn value(name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    host::metric_value(name, labels)
}
