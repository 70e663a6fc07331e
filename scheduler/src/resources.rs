//! Amounts of what nodes have and pods ask for.
//!
//! What somebody wrote is cut to 64 bits and added up in 128, so a sum is exact and taking an amount away is the inverse of
//! adding it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;
use weft_api::quantity::Quantity;
use weft_api::view::{Container, PodSpec};

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
pub(crate) fn requests_of(spec: &PodSpec) -> Resources {
    total(spec, &Resources::default())
}

/// The same with assumed amounts where a container is silent; for scores only.
pub(crate) fn weight_of(spec: &PodSpec) -> Resources {
    let assumed = Resources {
        cpu: ASSUMED_CPU_MILLI,
        memory: ASSUMED_MEMORY_BYTES,
        ..Resources::default()
    };
    total(spec, &assumed)
}

fn total(spec: &PodSpec, assumed: &Resources) -> Resources {
    let request = |container: &Container| {
        let mut request = assumed.clone();
        requested(container.resources.as_ref(), &mut request);
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
