//! What the claims of a pod ask of nodes, and why they may keep it from all of them.
//!
//! A volume that lies somewhere is reached from there: where its own affinity says, and, as the former way of saying it, in the zone and
//! region of its labels. A claim for one pod alone (`ReadWriteOncePod`) keeps every other pod from every node, until its user goes; a more
//! urgent pod may have it go. A claim whose class waits for a consumer asks for nothing: its volume is made where the pod goes.
//!
//! Left to others: which claims a pod uses is [`crate::PodNeeds`]', who uses them now is counted by [`crate::Snapshot`].

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::NodeSelector;
use serde_json::Value;
use weft_api::node_selector::selects;

use crate::filter::Reason;
use crate::node::NodeFacts;

const ZONE: &str = "topology.kubernetes.io/zone";
const REGION: &str = "topology.kubernetes.io/region";
/// Labels that place a node or a volume, each with its name of today.
const PLACES: [[&str; 2]; 4] = [
    ["failure-domain.beta.kubernetes.io/zone", ZONE],
    ["failure-domain.beta.kubernetes.io/region", REGION],
    [ZONE, ZONE],
    [REGION, REGION],
];
/// Between the zones of a volume that lies in several.
const BETWEEN_ZONES: &str = "__";

/// A claim as placement needs it.
pub struct ClaimFacts<'a> {
    pub spec: &'a Value,
    pub is_deleting: bool,
}

/// A volume as placement needs it.
pub struct VolumeFacts<'a> {
    pub spec: &'a Value,
    pub labels: &'a BTreeMap<String, String>,
}

/// Where claims, volumes and their classes are looked up.
pub trait Storage {
    /// The claim of a name, in the pod's namespace.
    fn claim(&self, name: &str) -> Option<ClaimFacts<'_>>;
    fn volume(&self, name: &str) -> Option<VolumeFacts<'_>>;
    /// Whether volumes of the class are made only where a pod goes.
    fn waits(&self, class: &str) -> bool;
}

/// What the volumes of a pod ask of its node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VolumeNeeds {
    /// Claims that no other pod may use.
    pub(crate) alone: Vec<String>,
    affinity: Vec<NodeSelector>,
    /// Labels, each with its name of today and the values that will do.
    places: Vec<([&'static str; 2], BTreeSet<String>)>,
}

impl VolumeNeeds {
    /// Of claims by name, each with whether the pod brings it along.
    ///
    /// # Errors
    /// Why the pod can go nowhere yet, in Kubernetes' words.
    pub fn of<'a>(
        claims: impl Iterator<Item = (&'a str, bool)>,
        storage: &impl Storage,
    ) -> Result<Self, String> {
        let mut needs = Self::default();
        for (name, is_brought) in claims {
            let Some(claim) = storage.claim(name) else {
                return Err(match is_brought {
                    false => format!("persistentvolumeclaim \"{name}\" not found"),
                    true => format!(
                        "waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\""
                    ),
                });
            };
            if claim.is_deleting {
                return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
            }
            let mut modes = claim.spec["accessModes"].as_array().into_iter().flatten();
            if !is_brought && modes.any(|mode| mode == "ReadWriteOncePod") {
                needs.alone.push(name.to_owned());
            }
            let named = claim.spec["volumeName"].as_str().unwrap_or_default();
            if named.is_empty() {
                let class = claim.spec["storageClassName"].as_str();
                if !storage.waits(class.unwrap_or_default()) {
                    return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
                }
                continue;
            }
            let volume = storage.volume(named);
            let volume = volume.ok_or_else(|| format!("persistentvolume \"{named}\" not found"))?;
            needs.reach(named, &volume)?;
        }
        Ok(needs)
    }

    fn reach(&mut self, name: &str, volume: &VolumeFacts<'_>) -> Result<(), String> {
        let required = &volume.spec["nodeAffinity"]["required"];
        if !required.is_null() {
            let read = serde_json::from_value(required.clone());
            let read = read
                .map_err(|error| format!("persistentvolume \"{name}\" cannot be read: {error}"))?;
            self.affinity.push(read);
        }
        for names in PLACES {
            let Some(values) = volume.labels.get(names[0]) else {
                continue;
            };
            let values = values.split(BETWEEN_ZONES).map(str::trim);
            let values: BTreeSet<String> = values.map(str::to_owned).collect();
            // A value that cannot be read says nothing.
            if !values.contains("") {
                self.places.push((names, values));
            }
        }
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What the node's place has against them.
    pub(crate) fn refusal(&self, node: &NodeFacts) -> Option<Reason> {
        let mut affinity = self.affinity.iter();
        if !affinity.all(|selector| selects(selector, &node.name, &node.labels)) {
            return Some(Reason::OutOfReach);
        }
        // A node that is nowhere is in a cluster of one zone.
        let is_placed = || {
            PLACES
                .iter()
                .any(|[label, _]| node.labels.contains_key(*label))
        };
        if self.places.is_empty() || !is_placed() {
            return None;
        }
        let mut places = self.places.iter();
        let is_there = |([label, today], values): &([&str; 2], BTreeSet<String>)| {
            let value = node.labels.get(*label).or_else(|| node.labels.get(*today));
            value.is_some_and(|value| values.contains(value))
        };
        (!places.all(is_there)).then_some(Reason::OtherZone)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Objects by name.
    #[derive(Default)]
    struct There {
        claims: BTreeMap<&'static str, (Value, bool)>,
        volumes: BTreeMap<&'static str, (Value, BTreeMap<String, String>)>,
    }

    impl Storage for There {
        fn claim(&self, name: &str) -> Option<ClaimFacts<'_>> {
            let (spec, is_deleting) = self.claims.get(name)?;
            Some(ClaimFacts {
                spec,
                is_deleting: *is_deleting,
            })
        }

        fn volume(&self, name: &str) -> Option<VolumeFacts<'_>> {
            let (spec, labels) = self.volumes.get(name)?;
            Some(VolumeFacts { spec, labels })
        }

        fn waits(&self, class: &str) -> bool {
            class == "waits"
        }
    }

    fn of(claim: Value, volume: Option<(Value, &[(&str, &str)])>) -> Result<VolumeNeeds, String> {
        let mut there = There::default();
        let is_deleting = claim["deleting"] == true;
        there.claims.insert("data", (claim, is_deleting));
        if let Some((spec, labels)) = volume {
            let labels = labels.iter();
            let labels = labels.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            there.volumes.insert("pv", (spec, labels.collect()));
        }
        VolumeNeeds::of([("data", false)].into_iter(), &there)
    }

    #[test]
    fn what_keeps_a_pod_from_every_node() {
        let nothing = There::default();
        for (is_brought, told) in [
            (false, "persistentvolumeclaim \"data\" not found"),
            (
                true,
                "waiting for ephemeral volume controller to create the persistentvolumeclaim \"data\"",
            ),
        ] {
            let held = VolumeNeeds::of([("data", is_brought)].into_iter(), &nothing);
            assert_eq!(held, Err(told.to_owned()));
        }
        for (claim, told) in [
            (
                json!({"deleting": true}),
                "persistentvolumeclaim \"data\" is being deleted",
            ),
            (
                json!({"storageClassName": "now"}),
                "pod has unbound immediate PersistentVolumeClaims",
            ),
            (
                json!({"volumeName": "pv"}),
                "persistentvolume \"pv\" not found",
            ),
        ] {
            assert_eq!(of(claim, None), Err(told.to_owned()));
        }
        assert!(of(json!({"storageClassName": "waits"}), None).is_ok_and(|needs| needs.is_empty()));
    }

    #[test]
    fn a_volume_is_reached_where_it_lies() {
        let on = |value: &str| {
            json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions":
                [{"key": "disk", "operator": "In", "values": [value]}]}]}}})
        };
        let beta = "failure-domain.beta.kubernetes.io/zone";
        for (spec, labels, node, reason) in [
            (on("a"), vec![], vec![("disk", "a")], None),
            (
                on("a"),
                vec![],
                vec![("disk", "b")],
                Some(Reason::OutOfReach),
            ),
            (json!({}), vec![(ZONE, "1")], vec![(ZONE, "1")], None),
            (
                json!({}),
                vec![(ZONE, "1")],
                vec![(ZONE, "2")],
                Some(Reason::OtherZone),
            ),
            (json!({}), vec![(ZONE, "1__2")], vec![(ZONE, "2")], None),
            (json!({}), vec![(ZONE, "1__")], vec![(ZONE, "2")], None),
            // By the former name, and with a volume of that time.
            (json!({}), vec![(beta, "1")], vec![(ZONE, "1")], None),
            (json!({}), vec![(beta, "1")], vec![(beta, "1")], None),
            (
                json!({}),
                vec![(beta, "1")],
                vec![(ZONE, "2")],
                Some(Reason::OtherZone),
            ),
            (
                json!({}),
                vec![(ZONE, "1")],
                vec![(beta, "1")],
                Some(Reason::OtherZone),
            ),
            // The node tells of its region only, or of nothing.
            (
                json!({}),
                vec![(ZONE, "1")],
                vec![(REGION, "r")],
                Some(Reason::OtherZone),
            ),
            (json!({}), vec![(ZONE, "1")], vec![], None),
        ] {
            let needs = of(json!({"volumeName": "pv"}), Some((spec.clone(), &labels))).unwrap();
            let node: BTreeMap<&str, &str> = node.into_iter().collect();
            let node = json!({"metadata": {"name": "n", "labels": node}});
            let node = NodeFacts::of(&serde_json::from_value(node).unwrap());
            assert_eq!(needs.refusal(&node), reason, "{spec} {labels:?}");
        }
    }
}
