//! Amounts of what nodes have and pods ask for.
//!
//! What somebody wrote is cut to 64 bits and added up in 128, so a sum is exact and taking an amount away is the inverse of
//! adding it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;
use weft_api::quantity::Quantity;
use weft_api::view::{Container, PodSpec, PodStatus};

/// What Kubernetes' scoring assumes for a container that requests nothing, so that such pods spread too.
const ASSUMED_CPU_MILLI: i128 = 100;
const ASSUMED_MEMORY_BYTES: i128 = 200 << 20;

type Quantities = BTreeMap<String, QuantityText>;

/// Amounts: milli-units of `cpu`, whole units (bytes) of the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu: i128,
    pub memory: i128,
    pub storage: i128,
    /// Extended resources, by name; none is zero.
    pub other: BTreeMap<String, i128>,
}

impl Resources {
    pub(crate) fn add(&mut self, more: &Self) {
        self.cpu += more.cpu;
        self.memory += more.memory;
        self.storage += more.storage;
        for (name, amount) in &more.other {
            self.shift(name, *amount);
        }
    }

    pub(crate) fn subtract(&mut self, less: &Self) {
        self.cpu -= less.cpu;
        self.memory -= less.memory;
        self.storage -= less.storage;
        for (name, amount) in &less.other {
            self.shift(name, -*amount);
        }
    }

    fn shift(&mut self, name: &str, by: i128) {
        match self.other.get_mut(name) {
            Some(amount) => {
                *amount += by;
                if *amount == 0 {
                    self.other.remove(name);
                }
            }
            None if by != 0 => {
                self.other.insert(name.to_owned(), by);
            }
            None => {}
        }
    }

    fn raise(&mut self, other: &Self) {
        self.cpu = self.cpu.max(other.cpu);
        self.memory = self.memory.max(other.memory);
        self.storage = self.storage.max(other.storage);
        for (name, amount) in &other.other {
            let slot = self.other.entry(name.clone()).or_default();
            *slot = (*slot).max(*amount);
        }
    }

    pub fn get(&self, name: &str) -> i128 {
        match name {
            "cpu" => self.cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.storage,
            other => self.other.get(other).copied().unwrap_or(0),
        }
    }

    fn set(&mut self, name: &str, amount: i128) {
        match name {
            "cpu" => self.cpu = amount,
            "memory" => self.memory = amount,
            "ephemeral-storage" => self.storage = amount,
            other if amount == 0 => {
                self.other.remove(other);
            }
            other => {
                self.other.insert(other.to_owned(), amount);
            }
        }
    }

    /// Every amount with its name, in the order in which Kubernetes checks them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, i128)> {
        let fixed = [
            ("cpu", self.cpu),
            ("memory", self.memory),
            ("ephemeral-storage", self.storage),
        ];
        let other = self.other.iter();
        let other = other.map(|(name, amount)| (name.as_str(), *amount));
        fixed.into_iter().chain(other)
    }

    /// Amounts that do not parse were refused by validation; here they count as nothing.
    pub(crate) fn read(quantities: Option<&Quantities>) -> Self {
        let mut read = Self::default();
        for (name, text) in quantities.into_iter().flatten() {
            read.set(name, amount_of(name, text));
        }
        read
    }
}

fn amount_of(name: &str, text: &QuantityText) -> i128 {
    let quantity = Quantity::parse(&text.0).unwrap_or_else(|_| Quantity::from_value(0));
    let amount = if name == "cpu" {
        quantity.milli()
    } else {
        quantity.value()
    };
    amount.clamp(i128::from(i64::MIN), i128::from(i64::MAX))
}

/// What a container requests, by name. Requests default to limits; admission writes that down, a pod made elsewhere may lack it.
fn requested(resources: Option<&ResourceRequirements>, onto: &mut Resources) {
    let Some(resources) = resources else {
        return;
    };
    for amounts in [&resources.limits, &resources.requests] {
        for (name, text) in amounts.iter().flatten() {
            onto.set(name, amount_of(name, text));
        }
    }
}

/// What a pod requests: its containers together, or its neediest init container where that is more. Sidecars (init containers
/// that stay) count with the containers, and with every init container after them. What the pod requests as a whole stands for
/// the sum. Plus overhead.
///
/// A container that is being resized counts by the most of what it asks for, what its node has given it and what it has; one whose node never has
/// so much, by the two latter.
pub(crate) fn requests_of(spec: &PodSpec, status: Option<&PodStatus>) -> Resources {
    total(spec, status, &Resources::default())
}

/// The same with assumed amounts where a container is silent; for scores only.
pub(crate) fn weight_of(spec: &PodSpec, status: Option<&PodStatus>) -> Resources {
    let assumed = Resources {
        cpu: ASSUMED_CPU_MILLI,
        memory: ASSUMED_MEMORY_BYTES,
        ..Resources::default()
    };
    total(spec, status, &assumed)
}

fn total(spec: &PodSpec, status: Option<&PodStatus>, assumed: &Resources) -> Resources {
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let is_in_vain = conditions.into_iter().flatten().any(|condition| {
        condition.type_ == "PodResizePending" && condition.reason.as_deref() == Some("Infeasible")
    });
    let init = status.and_then(|status| status.init_container_statuses.as_ref());
    let main = status.and_then(|status| status.container_statuses.as_ref());
    let told = || init.into_iter().chain(main).flatten();
    let request = |container: &Container| {
        let mut request = assumed.clone();
        let told = told().find(|told| told.name == container.name);
        let has = told.and_then(|told| told.resources.as_ref());
        if has.is_none() || !is_in_vain {
            requested(container.resources.as_ref(), &mut request);
        }
        if let Some(has) = has {
            let allocated = told.and_then(|told| told.allocated_resources.as_ref());
            for amounts in [has.requests.as_ref(), allocated] {
                request.raise(&Resources::read(amounts));
            }
        }
        request
    };
    let mut sidecars = Resources::default();
    let mut start = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut needed = request(container);
        needed.add(&sidecars);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = needed.clone();
        }
        start.raise(&needed);
    }
    let mut sum = sidecars;
    for container in &spec.containers {
        sum.add(&request(container));
    }
    sum.raise(&start);
    let whole = spec.resources.as_ref();
    for (name, text) in whole
        .and_then(|whole| whole.requests.as_ref())
        .into_iter()
        .flatten()
    {
        sum.set(name, amount_of(name, text));
    }
    sum.add(&Resources::read(spec.overhead.as_ref()));
    sum
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weft_api::view::Pod;

    use super::*;

    /// What a pod counts as that asks for 2 cores, has 1.5, and was given 1, and whose other container is told of by nobody.
    fn counted(conditions: Value) -> i128 {
        let pod: Pod = serde_json::from_value(json!({
            "spec": {"containers": [
                {"name": "a", "resources": {"requests": {"cpu": "2"}}},
                {"name": "b", "resources": {"requests": {"cpu": "10"}}},
            ]},
            "status": {"conditions": conditions, "containerStatuses": [{
                "name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "allocatedResources": {"cpu": "1"}, "resources": {"requests": {"cpu": "1500m"}},
            }]},
        }))
        .unwrap();
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!(requests_of(spec, None).cpu, 12_000);
        requests_of(spec, pod.status.as_ref()).cpu
    }

    #[test]
    fn a_pod_that_is_being_resized_counts_by_the_most_that_it_may_take() {
        let condition = |reason: &str| json!([{"type": "PodResizePending", "status": "True", "reason": reason}]);
        assert_eq!(counted(json!([])), 12_000);
        assert_eq!(counted(condition("Deferred")), 12_000);
        // It will not get what it asks for.
        assert_eq!(counted(condition("Infeasible")), 11_500);
    }
}
