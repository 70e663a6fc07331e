//! Whether a node can take a pod, and if not, why.
//!
//! The checks run in Kubernetes' order and the first that refuses answers, so the counts in messages agree with what users
//! know (features alone come before what other pods have to do with it). Only the resource check gives several reasons at once. What a node says of itself is here; what the pods of other nodes
//! have to do with it is in [`crate::rules`].
//!
//! Pods that wait for their victims to leave a node count there, for all who are not more urgent.

use std::fmt;
use std::sync::Arc;

use weft_api::toleration::tolerates;
use weft_api::view::Taint;

use crate::class::{Class, ClassId};
use crate::node::NodeFacts;
use crate::pod::PodNeeds;
use crate::snapshot::Snapshot;
use crate::topology::{Slot, selects_node, untolerated};

/// Why a node refuses a pod. Displays in Kubernetes' words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    Unschedulable,
    Taint {
        key: String,
        value: String,
        effect: String,
    },
    /// `nodeSelector` or required node affinity.
    NotSelected,
    /// The pod's affinity names other nodes.
    NotNamed,
    PortTaken,
    TooManyPods,
    Insufficient {
        resource: String,
        /// What the pod requests, what is free, and what the node has; milli-units of `cpu`.
        requested: i128,
        free: i128,
        of: i128,
    },
    /// A claim that is for one pod alone has another user.
    ClaimTaken,
    /// The node is not where one of its volumes can be reached.
    OutOfReach,
    /// Nor in that volume's zone.
    OtherZone,
    /// Nobody allocates devices here.
    NoDevices,
    /// Its kubelet does not declare what the pod needs.
    LacksFeature,
    /// A hard spread constraint would be violated.
    Skew,
    /// The node lacks the label a hard spread constraint is about.
    NoTopologyLabel,
    /// No pod that the pod must stand near is in the node's domain.
    NotNear,
    /// A pod that it must keep away from is.
    NotApart,
    /// A pod that must keep away from it is.
    Avoided,
}

impl Reason {
    /// Whether fewer pods could make this node take the pod.
    pub(crate) fn is_about_pods(&self) -> bool {
        match self {
            Self::Unschedulable
            | Self::Taint { .. }
            | Self::NotSelected
            | Self::NotNamed
            | Self::OutOfReach
            | Self::OtherZone
            | Self::NoDevices
            | Self::LacksFeature
            | Self::NoTopologyLabel
            | Self::NotNear => false,
            Self::Insufficient { requested, of, .. } => requested <= of,
            Self::PortTaken
            | Self::TooManyPods
            | Self::ClaimTaken
            | Self::Skew
            | Self::NotApart
            | Self::Avoided => true,
        }
    }

    /// What could end it.
    pub(crate) fn ends_with(&self) -> Hints {
        match self {
            Self::Unschedulable
            | Self::Taint { .. }
            | Self::NotSelected
            | Self::NotNamed
            | Self::NoDevices
            | Self::LacksFeature
            | Self::NoTopologyLabel => Hints::NODE,
            Self::ClaimTaken => Hints::LESS | Hints::VOLUMES,
            Self::OutOfReach | Self::OtherZone => Hints::NODE | Hints::VOLUMES,
            Self::PortTaken | Self::TooManyPods | Self::Insufficient { .. } => {
                Hints::NODE | Hints::LESS
            }
            Self::NotApart | Self::Avoided => Hints::NODE | Hints::LESS | Hints::LABELS,
            Self::NotNear => Hints::NODE | Hints::MORE | Hints::LABELS,
            Self::Skew => Hints::NODE | Hints::LESS | Hints::MORE | Hints::LABELS,
        }
    }

    /// Without what differs from node to node; whether fewer pods could help is kept.
    pub(crate) fn without_amounts(self) -> Self {
        let helps = self.is_about_pods();
        match self {
            Self::Insufficient { resource, .. } => Self::Insufficient {
                resource,
                requested: i128::from(!helps),
                free: 0,
                of: 0,
            },
            other => other,
        }
    }

    /// As [`fmt::Display`], with what is known of this node alone.
    pub fn in_detail(&self) -> String {
        match self {
            Self::Taint { key, value, effect } if value.is_empty() => {
                format!("{self}: {key}:{effect}")
            }
            Self::Taint { key, value, effect } => format!("{self}: {key}={value}:{effect}"),
            Self::Insufficient {
                resource,
                requested,
                free,
                of,
            } => {
                let unit = if resource == "cpu" { "m" } else { "" };
                format!("{self}: {requested}{unit} requested, {free}{unit} of {of}{unit} free")
            }
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unschedulable => f.write_str("node(s) were unschedulable"),
            Self::Taint { .. } => f.write_str("node(s) had untolerated taint(s)"),
            Self::NotSelected => f.write_str("node(s) didn't match Pod's node affinity/selector"),
            Self::NotNamed => f.write_str("node(s) didn't satisfy plugin(s) [NodeAffinity]"),
            Self::PortTaken => {
                f.write_str("node(s) didn't have free ports for the requested pod ports")
            }
            Self::TooManyPods => f.write_str("Too many pods"),
            Self::Insufficient { resource, .. } => write!(f, "Insufficient {resource}"),
            Self::ClaimTaken => f.write_str(
                "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod",
            ),
            Self::OutOfReach => {
                f.write_str("node(s) didn't match PersistentVolume's node affinity")
            }
            Self::OtherZone => f.write_str("node(s) had no available volume zone"),
            Self::NoDevices => f.write_str("cannot allocate all claims"),
            Self::LacksFeature => f.write_str("node(s) didn't match Pod's required features"),
            Self::Skew => f.write_str("node(s) didn't match pod topology spread constraints"),
            Self::NoTopologyLabel => f.write_str(
                "node(s) didn't match pod topology spread constraints (missing required label)",
            ),
            Self::NotNear => f.write_str("node(s) didn't match pod affinity rules"),
            Self::NotApart => f.write_str("node(s) didn't match pod anti-affinity rules"),
            Self::Avoided => {
                f.write_str("node(s) didn't satisfy existing pods anti-affinity rules")
            }
        }
    }
}

/// Changes that may let a pod in that was refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hints(u8);

impl Hints {
    /// A node came, or has other labels, taints or room.
    pub const NODE: Self = Self(1);
    /// A pod left its node.
    pub const LESS: Self = Self(2);
    /// A pod has got a node.
    pub const MORE: Self = Self(4);
    /// Labels of pods or namespaces.
    pub const LABELS: Self = Self(8);
    /// What a pod claims of storage, or what there is of it.
    pub const VOLUMES: Self = Self(16);
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self(31);

    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl std::ops::BitOr for Hints {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Hints {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// What refuses, in full: never empty.
pub(crate) type Refused = Vec<Reason>;

/// Whether fewer pods could help against all of it.
pub(crate) fn is_about_pods(refused: &Refused) -> bool {
    refused.iter().all(Reason::is_about_pods)
}

impl Snapshot {
    /// What the node itself has against pods of the class; `None`: nothing. `but`: whose own claim does not count.
    pub(crate) fn node_refusal(
        &self,
        class: &Class,
        slot: Slot,
        but: Option<&str>,
    ) -> Option<Refused> {
        let refused = self.fit_refusal(class, slot, but);
        refused.or_else(|| self.place_refusal(class, slot))
    }

    /// Another pod has a claim that is for one alone. The same on every node.
    pub(crate) fn claim_refusal(&self, class: &Class) -> Option<Refused> {
        let mut alone = class.needs.volumes.alone.iter();
        let is_taken = |claim: &String| {
            let key = (Arc::clone(&class.namespace), claim.clone());
            self.claims.contains_key(&key)
        };
        alone.any(is_taken).then(|| vec![Reason::ClaimTaken])
    }

    /// Where the node is, for the pod's volumes, and what it cannot do.
    pub(crate) fn place_refusal(&self, class: &Class, slot: Slot) -> Option<Refused> {
        let facts = self.nodes[slot].facts.as_ref()?;
        let needs = &*class.needs;
        let volumes = (!needs.volumes.is_empty()).then(|| needs.volumes.refusal(facts));
        let lacks = |feature: &str| !facts.features.iter().any(|has| has == feature);
        let reason = volumes.flatten();
        let reason = reason.or_else(|| needs.uses_devices.then_some(Reason::NoDevices));
        let is_lacking = || needs.features.iter().any(|feature| lacks(feature));
        let reason = reason.or_else(|| is_lacking().then_some(Reason::LacksFeature));
        reason.map(|reason| vec![reason])
    }

    /// What its own state, its labels, ports and room, has against them.
    pub(crate) fn fit_refusal(
        &self,
        class: &Class,
        slot: Slot,
        but: Option<&str>,
    ) -> Option<Refused> {
        let node = &self.nodes[slot];
        let facts = node.facts.as_ref()?;
        let needs = &*class.needs;
        if let Some(reason) = refused_for_good(needs, facts) {
            return Some(vec![reason]);
        }
        let nominees = self.nominees(needs.priority, slot, but);
        if !needs.host_ports.is_empty() {
            let taken = node.host_ports.iter().map(|(_, port)| port);
            let claimed = nominees.clone();
            let claimed = claimed.flat_map(|class| &self.class(class).needs.host_ports);
            let mut taken = taken.chain(claimed);
            if taken.any(|taken| needs.host_ports.iter().any(|port| port.clashes(taken))) {
                return Some(vec![Reason::PortTaken]);
            }
        }
        let mut used = std::borrow::Cow::Borrowed(&node.used);
        let mut pods = node.pods.len();
        for class in nominees {
            used.to_mut().add(&self.class(class).needs.requests);
            pods += 1;
        }
        let is_full = i64::try_from(pods).is_ok_and(|pods| pods >= facts.pods_max);
        let lacks = |(resource, requested): (&str, i128)| {
            let of = facts.allocatable.get(resource);
            let free = of - used.get(resource);
            (requested > 0 && requested > free).then(|| Reason::Insufficient {
                resource: resource.to_owned(),
                requested,
                free,
                of,
            })
        };
        let mut reasons = Vec::new();
        reasons.extend(is_full.then_some(Reason::TooManyPods));
        reasons.extend(needs.requests.iter().filter_map(lacks));
        (!reasons.is_empty()).then_some(reasons)
    }

    /// Classes of pods that claim room on the node and are at least as urgent.
    pub(crate) fn nominees(
        &self,
        priority: i32,
        slot: Slot,
        but: Option<&str>,
    ) -> impl Iterator<Item = ClassId> + Clone {
        let here = self.nominees.get(&slot).into_iter().flatten();
        let others = here.filter(move |(uid, _)| but != Some(&**uid));
        let classes = others.map(|(_, class)| *class);
        classes.filter(move |class| self.class(*class).needs.priority >= priority)
    }
}

/// What no other pod has to do with.
fn refused_for_good(needs: &PodNeeds, node: &NodeFacts) -> Option<Reason> {
    if node.unschedulable && !tolerates_unschedulable(needs) {
        return Some(Reason::Unschedulable);
    }
    if let Some(taint) = untolerated(&needs.tolerations, node) {
        return Some(Reason::Taint {
            key: taint.key.clone(),
            value: taint.value.clone().unwrap_or_default(),
            effect: taint.effect.clone(),
        });
    }
    let selected = selects_node(&needs.node_selector, needs.required.as_ref(), node);
    (!selected).then_some(Reason::NotSelected)
}

fn tolerates_unschedulable(needs: &PodNeeds) -> bool {
    if needs.tolerations.is_empty() {
        return false;
    }
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        effect: "NoSchedule".into(),
        ..Taint::default()
    };
    needs.tolerations.iter().any(|t| tolerates(t, &taint))
}
