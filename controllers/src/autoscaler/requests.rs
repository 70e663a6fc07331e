//! What a pod asks for, of the resources that usage is told of.

use serde_json::Value;
use weft_api::quantity::Quantity;
use weft_kinds::lens::{items, text};

/// What a pod asks for. Amounts are in thousandths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests {
    /// Containers that stay, in order.
    pub containers: Vec<ContainerRequests>,
    /// What the pod asks for as a whole, if it says so.
    pub pod: Option<Amounts>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerRequests {
    pub name: String,
    pub amounts: Amounts,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    cpu: Option<i64>,
    memory: Option<i64>,
}

impl Requests {
    /// Reads a pod. What is no quantity is not asked for.
    pub fn of(pod: &Value) -> Self {
        let inits = items(pod, "/spec/initContainers").iter();
        let sidecars = inits.filter(|init| init["restartPolicy"] == "Always");
        let all = items(pod, "/spec/containers").iter().chain(sidecars);
        let containers: Vec<ContainerRequests> = all
            .filter(|container| container["name"].is_string())
            .map(|container| ContainerRequests {
                name: text(container, "/name").to_owned(),
                amounts: Amounts::of(&container["resources"]["requests"]),
            })
            .collect();
        let whole = Amounts::of(&pod["spec"]["resources"]["requests"]);
        let overhead = Amounts::of(&pod["spec"]["overhead"]);
        let pod = (whole != Amounts::default()).then(|| {
            let sum = |resource: &str| {
                let amounts = containers.iter().map(|c| c.amounts.of_resource(resource));
                amounts.flatten().reduce(i64::saturating_add)
            };
            let with = |resource: &str| {
                let amount = whole.of_resource(resource).or_else(|| sum(resource))?;
                Some(amount.saturating_add(overhead.of_resource(resource).unwrap_or(0)))
            };
            Amounts {
                cpu: with("cpu"),
                memory: with("memory"),
            }
        });
        Self { containers, pod }
    }
}

impl Amounts {
    fn of(list: &Value) -> Self {
        let amount = |resource: &str| {
            let quantity: Quantity = list[resource].as_str()?.parse().ok()?;
            i64::try_from(quantity.milli()).ok()
        };
        Self {
            cpu: amount("cpu"),
            memory: amount("memory"),
        }
    }

    pub fn of_resource(&self, resource: &str) -> Option<i64> {
        match resource {
            "cpu" => self.cpu,
            "memory" => self.memory,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_asks_by_its_containers_or_as_a_whole() {
        let requests = |cpu: &str| json!({"name": "a", "resources": {"requests": {"cpu": cpu, "memory": "1Mi"}}});
        let mut pod = json!({"spec": {
            "containers": [requests("100m"), {"name": "b"}],
            "initContainers": [requests("9"), {"name": "s", "restartPolicy": "Always",
                "resources": {"requests": {"cpu": "0.2"}}}],
        }});
        let found = Requests::of(&pod);
        let cpu: Vec<Option<i64>> = found
            .containers
            .iter()
            .map(|c| c.amounts.of_resource("cpu"))
            .collect();
        assert_eq!((cpu, found.pod), (vec![Some(100), None, Some(200)], None));
        assert_eq!(
            found.containers[0].amounts.of_resource("memory"),
            Some(1_048_576_000)
        );
        assert_eq!(found.containers[2].name, "s");
        pod["spec"]["resources"] = json!({"requests": {"cpu": "2"}});
        pod["spec"]["overhead"] = json!({"cpu": "50m", "memory": "1Mi"});
        let whole = Requests::of(&pod).pod.unwrap();
        assert_eq!(whole.of_resource("cpu"), Some(2050));
        assert_eq!(whole.of_resource("memory"), Some(2_097_152_000));
    }
}
