//! What pods use and what is counted of calls, from how the server reads it to how autoscalers take it.

use std::collections::BTreeMap;

use weft_apiserver::http::calls::{CallRate as ReadRate, CallRates};
use weft_apiserver::http::usage::PodUsage as Read;
use weft_controllers::Key;
use weft_controllers::usage::{CallRate, Calls, ContainerUsage, PodUsage, Usage};

/// By the pod.
pub fn collect(read: Vec<Read>) -> Usage {
    let one = |read: Read| {
        let containers = read.containers.into_iter().map(|(name, rate)| {
            let usage = ContainerUsage {
                nano_cores: rate.nano_cores,
                memory_bytes: rate.memory_bytes,
            };
            (name, usage)
        });
        let usage = PodUsage {
            at: read.at,
            window: read.window,
            containers: containers.collect(),
        };
        (Key::new(&read.namespace, &read.name), usage)
    };
    read.into_iter().map(one).collect()
}

/// The same of calls.
pub fn collect_calls(read: &CallRates) -> Calls {
    let rate = |read: &ReadRate| CallRate {
        at: read.at,
        window: read.window,
        figures: read.figures,
    };
    let all = |read: &BTreeMap<(String, String), ReadRate>| {
        let all = read.iter();
        all.map(|((namespace, name), read)| (Key::new(namespace, name), rate(read)))
            .collect()
    };
    Calls {
        pods: all(&read.pods),
        services: all(&read.services),
        of_others: read.of_others.as_ref().map(rate),
        totals: read
            .totals
            .iter()
            .map(|((namespace, name), total)| (Key::new(namespace, name), total.clone()))
            .collect(),
        read: read.read,
    }
}
