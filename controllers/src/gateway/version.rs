//! Which version of the Gateway API the definitions in the cluster are of, and whether it is one that is served.
//!
//! Users may put other definitions in the place of those that a cluster begins with. What of a version is known here is served in any case;
//! the classes say whether that is all there is to it.

use std::collections::BTreeSet;
use std::sync::Arc;

use weft_api::object::{Object, ObjectError};
use weft_gateway::{Condition, api};
use weft_kinds::{CUSTOM_RESOURCE_DEFINITION, Kind};

use crate::indexer::Lens;
use crate::metadata::Key;
use crate::view::View;

/// Where a definition says its version.
const BUNDLE_VERSION: &str = "gateway.networking.k8s.io/bundle-version";
/// The newest that is known: those of `v1` up to this one.
const MINOR_MAX: u32 = 6;
const MINOR_WITH_FEATURES: u32 = 2;

/// A definition of the Gateway API; what is read of it is in its metadata.
#[derive(Debug)]
pub(super) struct Definition;

impl Lens for Definition {
    fn kind() -> &'static Arc<Kind> {
        &CUSTOM_RESOURCE_DEFINITION
    }

    fn wants(key: &Key) -> bool {
        let plural = key.name.strip_suffix(api::GROUP);
        plural.is_some_and(|plural| plural.ends_with('.'))
    }

    fn read(_: &Object) -> Result<Self, ObjectError> {
        Ok(Self)
    }
}

/// `SupportedVersion`, as each class of ours has it.
pub(super) fn supported(view: &View) -> Condition {
    judged(&versions(view))
}

/// Whether the definitions are of versions in which a class has features with names: before, they were plain text, or nothing.
pub(super) fn names_features(view: &View) -> bool {
    let versions = versions(view);
    let mut minors = versions.iter().map(|version| minor(version));
    minors
        .all(|minor| minor.is_some_and(|minor| (MINOR_WITH_FEATURES..=MINOR_MAX).contains(&minor)))
}

fn versions(view: &View) -> BTreeSet<&str> {
    let definitions = view.list::<Definition>();
    definitions
        .map(|definition| {
            let version = definition.meta.annotations.get(BUNDLE_VERSION);
            version.map_or("none", String::as_str)
        })
        .collect()
}

fn judged(versions: &BTreeSet<&str>) -> Condition {
    const KIND: &str = "SupportedVersion";
    let shown: Vec<&str> = versions.iter().copied().collect();
    let shown = shown.join(", ");
    let mut foreign = versions.iter().filter(|version| !is_known(version));
    if foreign.next().is_none() {
        let told = format!("The definitions of the Gateway API are of version {shown}.");
        return Condition::holds(KIND, KIND, told);
    }
    let told = format!(
        "The definitions of the Gateway API are of version {shown}; known are v1.0 to v1.{MINOR_MAX}, and what is known of them is served."
    );
    Condition::fails(KIND, "UnsupportedVersion", told)
}

fn is_known(version: &str) -> bool {
    minor(version).is_some_and(|minor| minor <= MINOR_MAX)
}

/// The second number of a version whose first is 1.
fn minor(version: &str) -> Option<u32> {
    let rest = version.strip_prefix("v1.")?;
    rest.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_that_were_read_about() {
        for (versions, expected) in [
            (&["v1.6.3"][..], Ok("are of version v1.6.3.")),
            (&["v1.2.0", "v1.6.3"], Ok("are of version v1.2.0, v1.6.3.")),
            (&["v1.6.0-rc.1"], Ok("are of version v1.6.0-rc.1.")),
            (&["v0.8.1"], Err("are of version v0.8.1; known")),
            (
                &["v1.6.3", "v1.7.0"],
                Err("are of version v1.6.3, v1.7.0; known"),
            ),
            (&["none"], Err("are of version none; known")),
            (&["v1."], Err("are of version v1.; known")),
        ] {
            let told = judged(&versions.iter().copied().collect());
            let (holds, words) = match expected {
                Ok(words) => (true, words),
                Err(words) => (false, words),
            };
            assert_eq!(told.holds, holds, "{versions:?}");
            assert!(told.message.contains(words), "{}", told.message);
        }
    }
}
