//! The size of a workload as its `scale` subresource tells it, whatever the kind.

use serde_json::Value;
use weft_api::selector::LabelSelector;

use crate::KindRef;
use crate::apiextensions;
use crate::lens::{integer, text};

/// What a Scale tells of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scale {
    /// Wanted.
    pub replicas: i64,
    /// There.
    pub observed: i64,
    /// Of the pods, as a text; empty where none is told.
    pub selector: String,
}

/// Where objects of a user's kind keep their size.
pub fn paths_of(kind: KindRef<'_>) -> Option<&apiextensions::Scale> {
    kind.custom.as_ref()?.scale()
}

/// The Scale of a workload.
pub fn of(kind: KindRef<'_>, workload: &Value) -> Scale {
    let paths = paths_of(kind);
    let selector = match paths {
        // As text already.
        Some(paths) => {
            let pointer = paths.selector.as_deref();
            pointer.map_or("", |at| text(workload, at)).to_owned()
        }
        None => workload
            .pointer("/spec/selector")
            .and_then(selector_of)
            .map(|selector| selector.to_string())
            .unwrap_or_default(),
    };
    let (spec, status) = match paths {
        Some(paths) => (&*paths.spec_replicas, &*paths.status_replicas),
        None => ("/spec/replicas", "/status/replicas"),
    };
    Scale {
        replicas: integer(workload, spec).unwrap_or(0),
        observed: integer(workload, status).unwrap_or(0),
        selector,
    }
}

/// A label selector; the oldest kind has plain labels in its place.
fn selector_of(selector: &Value) -> Option<LabelSelector> {
    let members = selector.as_object()?;
    let labels = members
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    let plain: Option<Vec<(&str, &str)>> = labels.map(|(key, value)| Some((key, value?))).collect();
    match plain {
        Some(labels) => Some(LabelSelector::from_labels(labels)),
        None => LabelSelector::from_object(selector).ok(),
    }
}
