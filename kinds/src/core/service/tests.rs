//! Each rule fires alone; addresses and ports stay.

use jiff::Timestamp;

use super::allocation::RESERVED_ADDRESSES;
use super::*;
use crate::cel::Question;
use crate::validate::told;

#[test]
fn candidates_cover_the_range_once_and_never_its_ends() {
    let range = ServiceRange("10.0.0.0/26".parse().unwrap());
    let all: BTreeSet<_> = range.candidates("a/b").collect();
    assert_eq!(all.len(), 64 - 1 - RESERVED_ADDRESSES as usize);
    assert!(all.iter().all(|address| range.contains(*address)));
}

fn service() -> Value {
    json!({
        "metadata": {"name": "1st", "namespace": "default"},
        "spec": {"ports": [{"port": 80}]},
    })
}

/// Names may begin with a digit since 1.37.
#[test]
fn each_rule_is_told_of_by_itself() {
    told::check(
        &SERVICE,
        &service(),
        &[
            ("/spec/ports", json!([]), &["spec.ports: Required value"]),
            (
                "/spec/ports/0/port",
                json!(0),
                &[
                    "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                    "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                "/spec/ports/0/targetPort",
                json!("Http"),
                &[
                    "spec.ports[0].targetPort: Invalid value: \"Http\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                ],
            ),
            (
                "/spec/ports/1",
                json!({"port": 80}),
                &[
                    "spec.ports[0].name: Required value",
                    "spec.ports[1].name: Required value",
                    "spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\"TargetPort\":0,\"NodePort\":0}",
                ],
            ),
            (
                "/spec/type",
                json!("Internal"),
                &[
                    "spec.type: Unsupported value: \"Internal\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
                ],
            ),
            (
                "/spec/type",
                json!("ExternalName"),
                &["spec.externalName: Required value"],
            ),
            (
                "/spec/clusterIP",
                json!("10.43.0"),
                &[
                    "spec.clusterIPs[0]: Invalid value: \"10.43.0\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ],
            ),
            (
                "/spec/sessionAffinity",
                json!("Cookie"),
                &[
                    "spec.sessionAffinity: Unsupported value: \"Cookie\": supported values: \"ClientIP\", \"None\"",
                ],
            ),
            (
                "/spec/ports/0/nodePort",
                json!(30000),
                &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
            ),
            (
                "/spec/externalIPs",
                json!(["127.0.0.1"]),
                &[
                    "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                ],
            ),
        ],
    );
}

/// What an update leaves out, or still says of its former type, is no wish.
#[test]
fn addresses_stay_and_fields_of_a_former_type_go() {
    let given = json!({"clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9"], "type": "NodePort",
        "ports": [{"port": 80, "nodePort": 30001}], "externalTrafficPolicy": "Cluster"});
    let old = told::with(&service(), "/spec", given);
    assert_eq!(told::of_update(&SERVICE, &service(), &old, None), [""; 0]);
    let inner = told::with(&old, "/spec/type", json!("ClusterIP"));
    assert_eq!(told::of_update(&SERVICE, &inner, &old, None), [""; 0]);
    let external = told::with(&old, "/spec/type", json!("ExternalName"));
    let external = told::with(&external, "/spec/externalName", json!("example.com."));
    assert_eq!(told::of_update(&SERVICE, &external, &old, None), [""; 0]);
    // Whoever changes his mind about affinity sends back how long it was.
    let sticky = json!({"clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9"], "ports": [{"port": 80}],
        "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}});
    let sticky = told::with(&service(), "/spec", sticky);
    let free = told::with(&sticky, "/spec/sessionAffinity", json!("None"));
    assert_eq!(told::of_update(&SERVICE, &free, &sticky, None), [""; 0]);
    let moved = told::with(&old, "/spec/clusterIP", json!("10.43.0.10"));
    assert_eq!(
        told::of_update(&SERVICE, &moved, &old, None),
        ["spec.clusterIPs[0]: Invalid value: [\"10.43.0.10\"]: may not change once set"]
    );
}

struct Cluster(BTreeSet<Claim>);

impl Surroundings for Cluster {
    fn requester(&self) -> crate::strategy::Requester<'_> {
        crate::strategy::Requester {
            user: "",
            groups: &[],
            uid: None,
            extra: None,
        }
    }

    fn allows(&self, _: &Question) -> bool {
        true
    }

    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn has(&self, _: &Kind, _: Option<&str>, _: &str) -> bool {
        false
    }

    fn object(&self, _: crate::KindRef<'_>, _: Option<&str>, _: &str) -> Option<Value> {
        None
    }

    fn objects(&self, _: crate::KindRef<'_>, _: Option<&str>) -> Vec<Value> {
        Vec::new()
    }

    fn imports(&self, _: &str) -> Option<std::sync::Arc<[String]>> {
        None
    }

    fn is_claimed(&self, claim: &Claim) -> bool {
        self.0.contains(claim)
    }

    fn service_range(&self) -> ServiceRange {
        ServiceRange::default()
    }
}

/// A node port that is asked for is checked, whether or not ports are given out to the rest.
#[test]
fn ports_and_addresses_that_others_hold_are_refused() {
    let taken = Cluster([port_claim(30001), address_claim("10.43.0.9")].into());
    let cases = [
        (
            json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 1, "nodePort": 30001}]}),
            Err("spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated"),
        ),
        (
            json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 1}]}),
            Ok(1),
        ),
        (
            json!({"type": "NodePort", "ports": [{"port": 1}, {"port": 2, "nodePort": 80}]}),
            Err(
                "spec.ports[1].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767",
            ),
        ),
        (
            json!({"clusterIP": "10.43.0.9", "ports": [{"port": 1}]}),
            Err(
                "spec.clusterIPs: Invalid value: [\"10.43.0.9\"]: failed to allocate IP 10.43.0.9: provided IP is already allocated",
            ),
        ),
        (
            json!({"clusterIP": "fd00::9", "ipFamilies": ["IPv6"], "ports": [{"port": 1}]}),
            Err("spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"),
        ),
        (json!({"clusterIP": "None"}), Ok(0)),
        (json!({"type": "NodePort", "ports": [{"port": 1}]}), Ok(2)),
        // What balances before the nodes asks each of them at one more port.
        (
            json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 1}]}),
            Ok(3),
        ),
        (
            json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30002, "ports": [{"port": 1}]}),
            Ok(3),
        ),
        (
            json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30001, "ports": [{"port": 1}]}),
            Err(
                "failed to allocate requested HealthCheck NodePort 30001: provided port is already allocated",
            ),
        ),
        (
            json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 80, "ports": [{"port": 1}]}),
            Err(
                "failed to allocate requested HealthCheck NodePort 80: provided port is not in the valid range. The range of valid ports is 30000-32767",
            ),
        ),
    ];
    for (spec, expected) in cases {
        let mut new = json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec});
        Services.default(&mut new);
        let outcome = Services
            .allocate(&mut new, None, &taken)
            .map(|()| Services.claims(&new).len())
            .map_err(|error| error.message);
        match (outcome, expected) {
            (Ok(claims), Ok(expected)) => assert_eq!(claims, expected, "{new}"),
            (Err(message), Err(expected)) => {
                assert!(message.contains(expected), "{message}");
            }
            (outcome, expected) => panic!("{outcome:?} and not {expected:?}: {new}"),
        }
    }
}

/// It stays as long as the policy does, goes with it, and is nobody's to change.
#[test]
fn the_port_of_health_checks_stays_with_its_policy() {
    let spec = json!({"clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9"], "type": "LoadBalancer",
        "ports": [{"port": 80, "nodePort": 30001}], "externalTrafficPolicy": "Local", "healthCheckNodePort": 30005});
    let old = told::with(&service(), "/spec", spec);
    let unsaid = told::with(&old, "/spec/healthCheckNodePort", Value::Null);
    let mut kept = unsaid.clone();
    let allocated = Services.allocate(&mut kept, Some(&old), &Cluster(BTreeSet::new()));
    allocated.expect("it is there");
    assert_eq!(kept["spec"]["healthCheckNodePort"], 30005);
    assert_eq!(told::of_update(&SERVICE, &kept, &old, None), [""; 0]);
    let other = told::with(&old, "/spec/healthCheckNodePort", json!(30006));
    assert_eq!(
        told::of_update(&SERVICE, &other, &old, None),
        ["spec.healthCheckNodePort: Forbidden: field is immutable"]
    );
    let everywhere = told::with(&old, "/spec/externalTrafficPolicy", json!("Cluster"));
    assert_eq!(told::of_update(&SERVICE, &everywhere, &old, None), [""; 0]);
}
