//! The kinds this server knows: one [`Kind`] an entry, and everything else follows from it.
//!
//! Router, discovery, OpenAPI, Table output, field selectors, defaulting and validation all read this table;
//! adding a kind is adding one entry. Some kinds are views: another API group's spelling of the same stored
//! objects (`events.k8s.io/v1` over `v1` Event), converted on the way in and out.
//!
//! Invariants: (group, version, resource) and (group, version, kind) are unique; a view's target is no view.
//! Left to others: what the fields mean ([`schema`]), the verbs (`weft_apiserver::objects`).

mod columns;
pub mod defaults;
pub mod lens;
pub mod patch;
pub mod protobuf;
pub mod schema;
mod table;
pub mod validate;

use std::fmt;

use serde_json::Value;
use weft_api::gvk::GroupVersionKind;

use crate::validate::Problems;

pub use columns::Row;
pub use table::*;

/// How everybody names a kind: entries are static, so a reference is enough.
pub type KindRef = &'static Kind;

/// One kind of object: names, scope, what can be asked of it, and its pure functions.
pub struct Kind {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    /// Plural, as in URLs and store keys.
    pub resource: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    pub subresources: &'static [Subresource],
    pub columns: &'static [Column],
    /// Fields a selector may name, beyond `metadata.name` and `metadata.namespace`.
    pub selectable: &'static [Selectable],
    /// Whether `metadata.generation` counts changes of the desired state.
    pub counts_generations: bool,
    /// Which names are valid.
    pub name_rule: NameRule,
    /// Fills what the client left out. Runs on create and on every update.
    pub defaults: fn(&mut Value),
    /// Judges a defaulted object; the second argument is the stored one on update.
    pub validate: fn(&Value, Option<&Value>, &mut Problems),
    /// Set when this kind is another spelling of a stored one.
    pub view: Option<View>,
}

impl Kind {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind {
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            kind: self.kind.to_owned(),
        }
    }

    /// `deployments.apps` or `pods`: how messages name the resource.
    pub fn qualified_resource(&self) -> String {
        if self.group.is_empty() {
            self.resource.to_owned()
        } else {
            format!("{}.{}", self.resource, self.group)
        }
    }

    /// The kind whose objects are in the store: itself, unless it is a view.
    pub fn stored(&'static self) -> KindRef {
        match &self.view {
            Some(view) => view.of,
            None => self,
        }
    }

    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }

    /// Whether deletion waits for a node to stop what the object describes.
    pub fn deletes_gracefully(&self) -> bool {
        self.group.is_empty() && self.resource == "pods"
    }

    /// Start of every store key of this kind: `/core/pods/`.
    pub fn key_prefix(&self) -> String {
        let stored = self.view.as_ref().map_or(self, |view| view.of);
        let group = if stored.group.is_empty() {
            "core"
        } else {
            stored.group
        };
        format!("/{group}/{}/", stored.resource)
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}/{}/{}",
            self.group, self.version, self.resource
        )
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.group == other.group
            && self.version == other.version
            && self.resource == other.resource
    }
}

impl Eq for Kind {}

/// What an object of a kind may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// Up to 253 characters with dots.
    Subdomain,
    /// Up to 63 characters without dots.
    Label,
    /// As [`NameRule::Label`], and starting with a letter (Services).
    Dns1035Label,
    /// Anything that is one path segment.
    PathSegment,
}

/// A column of Table output.
pub struct Column {
    pub name: &'static str,
    /// OpenAPI type of the cell: `string`, `integer`, `date`.
    pub kind: &'static str,
    pub format: &'static str,
    pub description: &'static str,
    /// 0 is always shown, 1 only with `-o wide`.
    pub priority: i32,
    pub cell: fn(&Row<'_>) -> Value,
}

/// A field that selectors may name.
pub struct Selectable {
    pub field: &'static str,
    /// JSON pointer into the stored object.
    pub pointer: &'static str,
    /// What an absent field counts as.
    pub absent: &'static str,
}

/// Another spelling of a stored kind.
pub struct View {
    pub of: KindRef,
    /// Stored form to this spelling.
    pub read: fn(&mut Value),
    /// This spelling to the stored form.
    pub write: fn(&mut Value),
}

/// A path below an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    Status,
    Scale,
    Binding,
    Eviction,
    Log,
    Finalize,
    Proxy,
    Approval,
}

impl Subresource {
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::Log => "log",
            Self::Finalize => "finalize",
            Self::Proxy => "proxy",
            Self::Approval => "approval",
        }
    }

    pub fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Status | Self::Scale | Self::Approval => &["get", "patch", "update"],
            Self::Binding | Self::Eviction => &["create"],
            Self::Log => &["get"],
            Self::Finalize => &["update"],
            Self::Proxy => &["get"],
        }
    }

    /// Group, version and kind of what the subresource exchanges, when it is not its parent's.
    pub fn own_kind(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::Scale => Some(("autoscaling", "v1", "Scale")),
            Self::Binding => Some(("", "v1", "Binding")),
            Self::Eviction => Some(("policy", "v1", "Eviction")),
            Self::Proxy => Some(("", "v1", "NodeProxyOptions")),
            Self::Status | Self::Log | Self::Finalize | Self::Approval => None,
        }
    }
}

/// Verbs that every kind of the table answers.
pub const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// A kind that only answers a question: created, never stored.
pub struct Review {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub resource: &'static str,
    pub singular: &'static str,
}

/// The reviews served.
pub static REVIEWS: &[Review] = &[
    Review {
        group: "authentication.k8s.io",
        version: "v1",
        kind: "SelfSubjectReview",
        resource: "selfsubjectreviews",
        singular: "selfsubjectreview",
    },
    Review {
        group: "authorization.k8s.io",
        version: "v1",
        kind: "SelfSubjectAccessReview",
        resource: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
    },
    Review {
        group: "authorization.k8s.io",
        version: "v1",
        kind: "SelfSubjectRulesReview",
        resource: "selfsubjectrulesreviews",
        singular: "selfsubjectrulesreview",
    },
];

/// A kind that is made when it is read, and never stored.
pub struct Computed {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub resource: &'static str,
    pub namespaced: bool,
}

impl Computed {
    pub const VERBS: &[&str] = &["get", "list"];
}

/// Usage of nodes and pods, for `kubectl top`. In discovery after the kinds of the same names, so that those are meant
/// where no group is named.
pub static COMPUTED: &[Computed] = &[
    Computed {
        group: "metrics.k8s.io",
        version: "v1beta1",
        kind: "NodeMetrics",
        resource: "nodes",
        namespaced: false,
    },
    Computed {
        group: "metrics.k8s.io",
        version: "v1beta1",
        kind: "PodMetrics",
        resource: "pods",
        namespaced: true,
    },
];

/// Every kind, in the order of discovery.
pub fn all() -> &'static [KindRef] {
    ALL
}

pub fn by_resource(group: &str, version: &str, resource: &str) -> Option<KindRef> {
    ALL.iter()
        .copied()
        .find(|kind| kind.group == group && kind.version == version && kind.resource == resource)
}

/// Finds a kind by `apiVersion` and `kind` as objects spell them.
pub fn by_kind(api_version: &str, kind: &str) -> Option<KindRef> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ALL.iter()
        .copied()
        .find(|entry| entry.group == group && entry.version == version && entry.kind == kind)
}

/// The kind a store key belongs to: the inverse of [`Kind::key_prefix`].
pub fn by_key(key: &[u8]) -> Option<KindRef> {
    let mut parts = key.strip_prefix(b"/")?.splitn(3, |byte| *byte == b'/');
    let group = parts.next()?;
    let resource = parts.next()?;
    let group = if group == b"core" { b"" } else { group };
    ALL.iter().copied().find(|kind| {
        kind.view.is_none()
            && kind.resource.as_bytes() == resource
            && kind.group.as_bytes() == group
    })
}

/// Groups other than core with their versions, in the order of discovery.
pub fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&'static str, Vec<&'static str>)> = Vec::new();
    let named = ALL
        .iter()
        .map(|kind| (kind.group, kind.version))
        .chain(REVIEWS.iter().map(|review| (review.group, review.version)))
        .chain(COMPUTED.iter().map(|one| (one.group, one.version)));
    for (group, version) in named.filter(|(group, _)| !group.is_empty()) {
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, versions)) => {
                if !versions.contains(&version) {
                    versions.push(version);
                }
            }
            None => groups.push((group, vec![version])),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_views_point_at_stored_kinds() {
        for (index, kind) in ALL.iter().enumerate() {
            for other in &ALL[index + 1..] {
                assert!(kind != other, "{kind:?} twice");
                assert!(
                    (kind.group, kind.version, kind.kind)
                        != (other.group, other.version, other.kind),
                    "{kind:?} and {other:?} share a kind"
                );
            }
            if let Some(view) = &kind.view {
                assert!(view.of.view.is_none(), "{kind:?} is a view of a view");
            }
            assert_eq!(
                by_key(format!("{}ns/name", kind.key_prefix()).as_bytes()),
                Some(kind.stored())
            );
        }
    }
}
