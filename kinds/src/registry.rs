//! Which kinds there are, and how each of their names finds them.
//!
//! Router, discovery, OpenAPI, tables, selectors, informer, garbage collection, encryption and admission all ask a
//! [`Registry`]. It never changes: [`Registries`] is swapped as a whole, so one request sees one set of kinds from its first
//! line to its last.
//!
//! Invariants: (group, version, resource) and (group, version, kind) are unique; of the kinds that stand for what is stored, (group,
//! resource) is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;

use crate::apiextensions::by_maturity;
use crate::kind::CORE_IN_KEYS;
use crate::{Kind, Name};

/// The kinds served at one moment.
pub struct Registry {
    /// In the order of discovery.
    kinds: Vec<Arc<Kind>>,
    /// Places in `kinds`: few kinds share a plural or a name, so what else is asked is compared.
    by_resource: BTreeMap<Name, Vec<usize>>,
    by_kind: BTreeMap<Name, Vec<usize>>,
}

impl Registry {
    /// # Panics
    /// When two kinds share a name: the caller made sure that they do not.
    pub fn new(kinds: Vec<Arc<Kind>>) -> Self {
        let mut registry = Self {
            by_resource: BTreeMap::new(),
            by_kind: BTreeMap::new(),
            kinds: Vec::with_capacity(kinds.len()),
        };
        for kind in kinds {
            let known = registry.by_resource(&kind.group, &kind.version, &kind.resource);
            assert!(known.is_none(), "{kind:?} twice");
            let known = registry.by_kind(&kind.group, &kind.version, &kind.kind);
            assert!(known.is_none(), "{kind:?} shares its kind with {known:?}");
            let place = registry.kinds.len();
            let by_resource = registry.by_resource.entry(kind.resource.clone());
            by_resource.or_default().push(place);
            let by_kind = registry.by_kind.entry(kind.kind.clone());
            by_kind.or_default().push(place);
            registry.kinds.push(kind);
        }
        registry
    }

    /// The kinds that are compiled in, and those of users. One that shares a name or the keys of its objects with another is left out, and
    /// returned.
    pub fn extended(kinds: impl IntoIterator<Item = Arc<Kind>>) -> (Self, Vec<Arc<Kind>>) {
        let mut all = Self::builtin().kinds.clone();
        // One by one they are many: looked up by what may not be shared.
        let mut resources: BTreeMap<(Name, Name), Option<String>> = BTreeMap::new();
        let mut names: BTreeSet<(Name, Name, Name)> = BTreeSet::new();
        for kind in &all {
            resources.insert((kind.group.clone(), kind.resource.clone()), None);
            names.insert((kind.group.clone(), kind.version.clone(), kind.kind.clone()));
        }
        let mut left_out = Vec::new();
        for kind in kinds {
            let definition = kind.custom.as_ref().map(|custom| custom.definition());
            let definition = definition.map(|definition| definition.uid.clone());
            let keys = (kind.group.clone(), kind.resource.clone());
            let name = (kind.group.clone(), kind.version.clone(), kind.kind.clone());
            let same_keys = match resources.get(&keys) {
                None => true,
                // Versions of one definition share the keys.
                Some(owner) => owner.is_some() && *owner == definition,
            };
            if !same_keys || names.contains(&name) {
                left_out.push(kind);
                continue;
            }
            resources.insert(keys, definition);
            names.insert(name);
            all.push(kind);
        }
        (Self::new(all), left_out)
    }

    /// The kinds that are compiled in.
    pub fn builtin() -> Arc<Self> {
        static BUILTIN: LazyLock<Arc<Registry>> =
            LazyLock::new(|| Arc::new(Registry::new(crate::builtin())));
        BUILTIN.clone()
    }

    /// Every kind, in the order of discovery; `kubectl get all` prints in this order too.
    pub fn all(&self) -> &[Arc<Kind>] {
        &self.kinds
    }

    /// The kinds that are stored under their own names: neither spellings of others, nor further versions, nor reviews, nor computed.
    pub fn stored(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds.iter().filter(|kind| kind.stands_for_stored())
    }

    pub fn by_resource(&self, group: &str, version: &str, resource: &str) -> Option<&Arc<Kind>> {
        self.of_resource(resource)
            .find(|kind| kind.group == group && kind.version == version)
    }

    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Kind>> {
        self.of_kind(kind)
            .find(|entry| entry.group == group && entry.version == version)
    }

    /// A kind of a group in any version, as owner references are resolved: the one that stored objects are seen as, if there is.
    pub fn by_group_kind(&self, group: &str, kind: &str) -> Option<&Arc<Kind>> {
        self.of_kind(kind)
            .filter(|entry| entry.group == group)
            .min_by_key(|entry| !entry.stands_for_stored())
    }

    /// The kind that a store key belongs to: the inverse of [`Kind::key_prefix`].
    pub fn by_key(&self, key: &[u8]) -> Option<&Arc<Kind>> {
        let text = std::str::from_utf8(key).ok()?;
        let mut parts = text.strip_prefix('/')?.splitn(3, '/');
        let group = parts.next()?;
        let resource = parts.next()?;
        let group = if group == CORE_IN_KEYS { "" } else { group };
        self.of_resource(resource)
            .find(|kind| kind.group == group && kind.stands_for_stored())
    }

    /// Groups other than core with their listed versions, in the order of discovery; the first version is the preferred one.
    pub fn groups(&self) -> Vec<(&str, Vec<&str>)> {
        let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
        let listed = self.kinds.iter().filter(|kind| kind.listed);
        for kind in listed.filter(|kind| !kind.group.is_empty()) {
            let version = &*kind.version;
            match groups.iter_mut().find(|(known, _)| *known == kind.group) {
                Some((_, versions)) if versions.contains(&version) => {}
                Some((_, versions)) => versions.push(version),
                None => groups.push((&kind.group, vec![version])),
            }
        }
        // Definitions of one group may each have other versions: clients prefer the most mature.
        for (group, versions) in &mut groups {
            let defined = |kind: &Arc<Kind>| kind.custom.is_some() && kind.group == *group;
            if versions.len() > 1 && self.kinds.iter().any(defined) {
                versions.sort_by(|one, other| by_maturity(one, other));
            }
        }
        groups
    }

    /// The listed kinds of one version of a group, in the order of discovery.
    pub fn of_version(&self, group: &str, version: &str) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds
            .iter()
            .filter(move |kind| kind.listed && kind.group == group && kind.version == version)
    }

    fn of_resource(&self, resource: &str) -> impl Iterator<Item = &Arc<Kind>> {
        let places = self.by_resource.get(resource).into_iter().flatten();
        places.map(|place| &self.kinds[*place])
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Arc<Kind>> {
        let places = self.by_kind.get(kind).into_iter().flatten();
        places.map(|place| &self.kinds[*place])
    }
}

/// The registry in force. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Registries {
    current: Arc<ArcSwap<Registry>>,
}

impl Default for Registries {
    fn default() -> Self {
        Self {
            current: Arc::new(ArcSwap::new(Registry::builtin())),
        }
    }
}

impl Registries {
    /// What is served now; to be taken once for a request.
    pub fn current(&self) -> Arc<Registry> {
        self.current.load_full()
    }

    /// Serves `registry` from now on; requests that hold the one of before end with it.
    pub fn replace(&self, registry: Arc<Registry>) {
        self.current.store(registry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Served;

    #[test]
    fn every_kind_is_found_by_each_of_its_names() {
        let registry = Registry::builtin();
        for kind in registry.all() {
            let by_resource = registry.by_resource(&kind.group, &kind.version, &kind.resource);
            assert_eq!(by_resource, Some(kind));
            let by_kind = registry.by_kind(&kind.group, &kind.version, &kind.kind);
            assert_eq!(by_kind, Some(kind));
            assert!(registry.by_group_kind(&kind.group, &kind.kind).is_some());
            if let Some(spelling) = &kind.spelling {
                assert!(spelling.of.spelling.is_none(), "{kind:?}: of a spelling");
            }
            if kind.served == Served::Stored {
                let key = format!("{}ns/name", kind.key_prefix());
                assert_eq!(registry.by_key(key.as_bytes()), Some(kind.stored()));
            }
        }
        for key in ["", "/", "/core", "/core/widgets/ns/x", "/\u{ff}/pods/a/b"] {
            assert_eq!(registry.by_key(key.as_bytes()), None, "{key:?}");
        }
        assert_eq!(registry.by_key(b"/core/pods\xff/a/b"), None);
    }

    #[test]
    fn groups_come_once_and_in_the_order_of_their_first_kind() {
        let registry = Registry::builtin();
        let groups: Vec<String> = registry
            .groups()
            .into_iter()
            .map(|(group, versions)| format!("{group}/{}", versions.join(",")))
            .collect();
        assert_eq!(
            groups,
            [
                "apiregistration.k8s.io/v1",
                "apps/v1",
                "events.k8s.io/v1",
                "authentication.k8s.io/v1",
                "authorization.k8s.io/v1",
                "autoscaling/v2,v1",
                "batch/v1",
                "certificates.k8s.io/v1",
                "networking.k8s.io/v1",
                "policy/v1",
                "rbac.authorization.k8s.io/v1",
                "storage.k8s.io/v1",
                "admissionregistration.k8s.io/v1",
                "apiextensions.k8s.io/v1",
                "scheduling.k8s.io/v1",
                "coordination.k8s.io/v1",
                "node.k8s.io/v1",
                "discovery.k8s.io/v1",
                "resource.k8s.io/v1",
                "flowcontrol.apiserver.k8s.io/v1",
                "storagemigration.k8s.io/v1",
                "weft.dev/v1alpha1",
                "mesh.weft.dev/v1",
                "metrics.k8s.io/v1beta1",
                "custom.metrics.k8s.io/v1beta2",
            ]
        );
    }

    /// As kube-apiserver lists the kinds of a group.
    #[test]
    fn kinds_of_a_group_come_in_the_order_of_their_names() {
        let registry = Registry::builtin();
        for (group, version) in [
            ("", "v1"),
            ("storage.k8s.io", "v1"),
            ("networking.k8s.io", "v1"),
        ] {
            let resources = registry.of_version(group, version);
            let resources: Vec<&str> = resources.map(|kind| &*kind.resource).collect();
            assert!(resources.is_sorted(), "{resources:?}");
        }
        // Where no group is named, the first kind of a name is meant: the stored one.
        let nodes = registry.all().iter().find(|kind| kind.resource == "nodes");
        assert_eq!(nodes.map(|kind| &*kind.group), Some(""));
    }

    #[test]
    fn a_kind_made_at_run_time_is_a_kind_like_any_other() {
        let registries = Registries::default();
        let before = registries.current();
        let mut kinds = before.all().to_vec();
        let group = "example.com".to_owned();
        kinds.push(Arc::new(Kind::new(group, "v1", "Widget", "widgets")));
        registries.replace(Arc::new(Registry::new(kinds)));
        let now = registries.current();
        let widget = now.by_resource("example.com", "v1", "widgets").unwrap();
        assert_eq!(widget.singular, "widget");
        assert_eq!(now.by_key(b"/example.com/widgets/a/b"), Some(widget));
        assert_eq!(now.groups().last().unwrap().0, "example.com");
        assert!(before.by_group_kind("example.com", "Widget").is_none());
    }
}
