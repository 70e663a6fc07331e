//! What pods use, from how the server reads it to how autoscalers take it.

use weft_apiserver::http::usage::PodUsage as Read;
use weft_controllers::Key;
use weft_controllers::usage::{ContainerUsage, PodUsage, Usage};

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
