//! Which endpoints of a Service are meant for callers of this node, as the hints of its slices say (`trafficDistribution`). Pure.
//!
//! Hints hold where every endpoint that is ready has one and one of them is for here: those for the node go before those for its zone. Else
//! nobody is preferred, lest one endpoint that was hinted at takes all calls of a Service whose others were not looked at yet. Besides, calls stay
//! in the zone as long as somebody there has room.
//! Source: kube-proxy 1.37 `pkg/proxy/topology.go`.

use super::slice::Slice;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// Where this node is.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Here {
    pub(super) node: String,
    /// As its label says.
    pub(super) zone: Option<String>,
}

/// For whom an endpoint is meant.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Hints {
    pub(super) nodes: Vec<String>,
    pub(super) zones: Vec<String>,
}

impl Here {
    /// Where the endpoints are that callers of this node prefer; nobody where that is the same to them.
    pub(super) fn preferred(&self, slices: &[Arc<Slice>]) -> BTreeSet<IpAddr> {
        let ready = || slices.iter().flat_map(|slice| slice.hinted());
        let by_zone = || {
            let zone = self.zone.as_ref()?;
            chosen(ready(), |hints| &hints.zones, zone)
        };
        let by_node = chosen(ready(), |hints| &hints.nodes, &self.node);
        by_node.or_else(by_zone).unwrap_or_default()
    }

    /// Where the endpoints are that are in this node's zone.
    pub(super) fn same_zone(&self, slices: &[Arc<Slice>]) -> BTreeSet<IpAddr> {
        let zone = self.zone.iter();
        let found = zone.flat_map(|zone| slices.iter().flat_map(|slice| slice.in_zone(zone)));
        found.collect()
    }
}

/// Those whose hint is `wanted`, if each has one.
fn chosen<'s>(
    ready: impl Iterator<Item = (IpAddr, &'s Hints)>,
    of: impl Fn(&'s Hints) -> &'s Vec<String>,
    wanted: &String,
) -> Option<BTreeSet<IpAddr>> {
    let mut found = BTreeSet::new();
    for (ip, hints) in ready {
        let hints = of(hints);
        if hints.is_empty() {
            return None;
        }
        if hints.contains(wanted) {
            found.insert(ip);
        }
    }
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use serde_json::json;

    #[test]
    fn hints_hold_where_all_have_them_and_one_is_for_here() {
        // Each endpoint: what its last number is, whether it is ready, and its node and zone.
        let slice = |endpoints: &[(u8, bool, &str, &str)]| {
            let endpoints = endpoints.iter().map(|(last, ready, node, zone)| {
                let mut hints = json!({});
                if !node.is_empty() {
                    hints["forNodes"] = json!([{ "name": node }]);
                }
                if !zone.is_empty() {
                    hints["forZones"] = json!([{ "name": zone }]);
                }
                json!({
                    "addresses": [format!("10.42.0.{last}")], "conditions": {"ready": ready}, "hints": hints,
                })
            });
            let slice: EndpointSlice = serde_json::from_value(json!({
                "metadata": {"name": "web", "namespace": "shop"}, "addressType": "IPv4",
                "endpoints": endpoints.collect::<Vec<_>>(),
            }))
            .expect("a slice");
            Arc::new(Slice::read(&slice, "cluster.local"))
        };
        let here = Here {
            node: "a".to_owned(),
            zone: Some("east".to_owned()),
        };
        for (endpoints, expected) in [
            (
                &[(1, true, "", "east"), (2, true, "", "west")][..],
                &[1][..],
            ),
            (&[(1, true, "a", "east"), (2, true, "b", "east")], &[1]),
            (&[(1, true, "c", "east"), (2, true, "b", "east")], &[1, 2]),
            (&[(1, true, "", "west"), (2, true, "", "west")], &[]),
            (&[(1, true, "", "east"), (2, true, "", "")], &[]),
            (&[(1, true, "", "east"), (2, false, "", "")], &[1]),
            (&[(1, true, "a", ""), (2, true, "", "")], &[]),
            (&[], &[]),
        ] {
            let found = here.preferred(&[slice(endpoints)]);
            let expected = expected.iter().map(|last| IpAddr::from([10, 42, 0, *last]));
            assert_eq!(found, expected.collect(), "{endpoints:?}");
        }
        let slices = [Arc::new(Slice::read(&zoned(), "cluster.local"))];
        assert_eq!(
            here.same_zone(&slices),
            [IpAddr::from([10, 42, 0, 1])].into()
        );
        let nowhere = Here {
            node: "a".to_owned(),
            zone: None,
        };
        assert_eq!(nowhere.same_zone(&slices), BTreeSet::new());
        let slices = [slice(&[(1, true, "", "east")])];
        assert_eq!(nowhere.preferred(&slices), BTreeSet::new());
    }

    fn zoned() -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop"}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.42.0.1"], "zone": "east"}, {"addresses": ["10.42.0.2"], "zone": "west"}, {"addresses": ["10.42.0.3"]}],
        }))
        .expect("a slice")
    }
}
