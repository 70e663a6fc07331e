//! The class that an object is given that names none: of those that are marked as default, the newest.
//!
//! After Kubernetes' admission plugins `DefaultIngressClass` and `DefaultStorageClass`.

use std::cmp::Reverse;

use serde_json::Value;

use crate::KindRef;
use crate::lens::{object, text, time};
use crate::strategy::Surroundings;

/// Whether one of these annotations says `true`.
pub(crate) fn is_marked(class: &Value, annotations: &[&str]) -> bool {
    object(class, "/metadata/annotations").is_some_and(|own| {
        let mut own = annotations.iter().map(|annotation| own.get(*annotation));
        own.any(|value| value == Some(&Value::from("true")))
    })
}

/// The name of the newest of the classes of a kind that one of these annotations marks; of those of one second, the first by name.
pub(crate) fn newest(
    around: &dyn Surroundings,
    kind: KindRef<'_>,
    annotations: &[&str],
) -> Option<String> {
    let classes = around.objects(kind, None);
    let marked = classes
        .iter()
        .filter(|class| is_marked(class, annotations))
        .map(|class| {
            let name = text(class, "/metadata/name");
            (Reverse(time(class, "/metadata/creationTimestamp")), name)
        });
    marked.min().map(|(_, name)| name.to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::cel::Question;
    use crate::strategy::{Claim, Requester};
    use crate::{Kind, ServiceRange};

    /// A cluster with these classes, of whichever kind is asked for, and nothing else.
    pub struct Classes(pub Vec<Value>);

    impl Surroundings for Classes {
        fn requester(&self) -> Requester<'_> {
            Requester {
                user: "u",
                groups: &[],
                uid: None,
                extra: None,
            }
        }

        fn allows(&self, _: &Question) -> bool {
            true
        }

        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn has(&self, _: &Kind, _: Option<&str>, _: &str) -> bool {
            false
        }

        fn object(&self, _: KindRef<'_>, _: Option<&str>, _: &str) -> Option<Value> {
            None
        }

        fn objects(&self, kind: KindRef<'_>, namespace: Option<&str>) -> Vec<Value> {
            assert!(!kind.namespaced && namespace.is_none(), "{kind:?}");
            self.0.clone()
        }

        fn imports(&self, _: &str) -> Option<Arc<[String]>> {
            None
        }

        fn is_claimed(&self, _: &Claim) -> bool {
            false
        }

        fn service_range(&self) -> ServiceRange {
            ServiceRange::default()
        }
    }
}
