//! `apiextensions.k8s.io`: kinds that users define.
//!
//! A CustomResourceDefinition is an object like any other ([`definition`]), judged by rules of its own ([`validation`], [`structural`]);
//! what the cluster says of it is decided in [`status`]. From one that is accepted come [`Kind`](crate::Kind)s, one for each version that is
//! served ([`custom`]), whose objects are stored in one version and read in any ([`conversion`]).
//!
//! Invariants: pure; a definition that was stored never panics whoever reads it: what cannot be served is left out.
//! Left to others: acting on definitions, and the registry in force (`weft_apiserver`).

pub mod conversion;
pub mod custom;
mod definition;
pub mod json_path;
pub mod status;
mod structural;
mod validation;

use std::cmp::Ordering;

pub use custom::{Custom, Definition, Scale};
pub use definition::CUSTOM_RESOURCE_DEFINITION;

/// The finalizer that keeps a definition until its objects are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The order of versions, the most mature first: `v2`, `v1`, `v1beta1`, `v1alpha1`, then other names.
pub fn by_maturity(one: &str, other: &str) -> Ordering {
    match (maturity(one), maturity(other)) {
        (Some(one), Some(other)) => other.cmp(&one),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => one.cmp(other),
    }
}

/// How mature a version calls itself: 2 for GA, its number, the number of its beta or alpha.
fn maturity(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit());
    let (major, rest) = rest.split_at(digits.unwrap_or(rest.len()));
    let major = major.parse().ok()?;
    if rest.is_empty() {
        return Some((2, major, 0));
    }
    let (level, minor) = match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
        (Some(minor), _) => (1, minor),
        (None, Some(minor)) => (0, minor),
        (None, None) => return None,
    };
    let plain = minor.bytes().all(|byte| byte.is_ascii_digit());
    Some((level, major, minor.parse().ok().filter(|_| plain)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_clients_prefer_them() {
        let mut versions = [
            "v1alpha1",
            "foo1",
            "v11alpha2",
            "v1beta1",
            "v10",
            "v2",
            "v12beta1",
            "v3beta1",
            "v1",
            "foo10",
            "v",
            "v1gamma",
        ];
        versions.sort_by(|one, other| by_maturity(one, other));
        assert_eq!(
            versions,
            [
                "v10",
                "v2",
                "v1",
                "v12beta1",
                "v3beta1",
                "v1beta1",
                "v11alpha2",
                "v1alpha1",
                "foo1",
                "foo10",
                "v",
                "v1gamma",
            ]
        );
    }
}
