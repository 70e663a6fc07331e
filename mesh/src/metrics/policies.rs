//! What policies do to calls, counted: retries that were refused, second tries, faults, breakers, limits; and what of them is left.
//!
//! Invariant: labels are names of Services that are in a table, and words of this crate.

use std::{collections::BTreeMap, fmt, sync::Arc};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use super::EDGES_MAX;
use crate::table::{ServiceLabels, Table};

/// How often policies did something, by service and action. Bounded as edges are.
#[derive(Default)]
pub(super) struct Acts(Mutex<BTreeMap<(Arc<ServiceLabels>, &'static str), u64>>);

impl Acts {
    pub(super) fn add(&self, service: &Arc<ServiceLabels>, action: &'static str) {
        let mut acts = self.0.lock();
        let key = (Arc::clone(service), action);
        if let Some(count) = acts.get_mut(&key) {
            *count += 1;
            return;
        }
        let key = match acts.len() < EDGES_MAX {
            true => key,
            false => (Arc::new(ServiceLabels::new("overflow", "overflow")), action),
        };
        *acts.entry(key).or_insert(0) += 1;
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "weft_mesh_policy_actions",
            "What policies did to calls of their services.",
            None,
            MetricType::Counter,
        )?;
        for ((service, action), count) in &*self.0.lock() {
            let labels = [
                ("service", service.name.as_str()),
                ("namespace", &service.namespace),
                ("action", action),
            ];
            ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// What services of whom a policy says something have left of retries, and room for calls at the endpoints here.
pub(super) fn encode(table: &Table, now: u64, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut family = encoder.encode_descriptor(
        "weft_mesh_retry_budget_left",
        "Retries that a service's budget has left.",
        None,
        MetricType::Gauge,
    )?;
    for service in table.resilient() {
        let labels = service.labels();
        let named = [
            ("service", labels.name.as_str()),
            ("namespace", &labels.namespace),
        ];
        let left = service.budget().left(now);
        ConstGauge::new(left).encode(family.encode_family(&named)?)?;
    }
    let mut rooms: Vec<_> = table
        .doors()
        .filter_map(|(address, door)| Some((address, &door.labels, door.room()?)))
        .collect();
    rooms.sort_by_key(|(address, ..)| **address);
    type Which = fn((u32, u32)) -> u32;
    let families: [(&str, &str, Which); 2] = [
        (
            "weft_mesh_concurrency_limit",
            "Calls that an endpoint takes at once, by what was measured of it.",
            |room| room.0,
        ),
        (
            "weft_mesh_concurrency_inside",
            "Calls that are with such an endpoint.",
            |room| room.1,
        ),
    ];
    for (name, help, which) in families {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (address, labels, room) in &rooms {
            let address = address.to_string();
            let named = [
                ("service", labels.name.as_str()),
                ("namespace", &labels.namespace),
                ("endpoint", &address),
            ];
            let value = u64::from(which(*room));
            ConstGauge::new(value).encode(family.encode_family(&named)?)?;
        }
    }
    Ok(())
}
