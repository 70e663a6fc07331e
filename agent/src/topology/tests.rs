//! What becomes of the objects that are watched, one by one and all at once.

use super::cluster::{Cluster, NodeFacts};
use super::slice::{Slice, service_spec};
use super::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use weft_api::annotation;
use weft_policy::PolicyKind;

/// What the watches tell, and when a table is asked for.
#[derive(Debug, Clone)]
enum Step {
    Apply(Which, u8),
    Delete(Which),
    /// The watch was opened again: a list of what there is, some of which the watch had not told.
    Relist(Sort, Vec<(u8, u8)>),
    Publish,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    Class,
    Gateway,
    Grant,
    Namespace,
    Node,
    Route,
    Service,
    Slice,
}

const SORTS: [Sort; 8] = [
    Sort::Class,
    Sort::Gateway,
    Sort::Grant,
    Sort::Namespace,
    Sort::Node,
    Sort::Route,
    Sort::Service,
    Sort::Slice,
];

/// One of a few objects of a kind.
type Which = (Sort, u8);

/// Names of a few objects: two in each of two namespaces.
fn metadata(which: u8) -> Value {
    let namespace = ["vote", "shop"][usize::from(which / 2 % 2)];
    let name = ["web", "api"][usize::from(which % 2)];
    json!({"namespace": namespace, "name": name})
}

/// The object in one of its states.
fn object((sort, which): Which, state: u8) -> Value {
    let bit = |at: u8| state >> at & 1 == 1;
    let of_cluster = |names: [&str; 2]| json!({"name": names[usize::from(which % 2)]});
    match sort {
        Sort::Service => {
            let mut ports = vec![json!({"name": "http", "port": 80})];
            if bit(0) {
                ports.push(json!({"name": "more", "port": 81}));
            }
            // Two services may not have one address, and a table does not rely on that.
            let ip = either(bit(1), "10.43.0.1".to_owned(), format!("10.43.0.{which}"));
            json!({"metadata": metadata(which), "spec": {"clusterIP": either(bit(2), "None".to_owned(), ip), "ports": ports,
                "selector": either(bit(3), json!({"app": "web"}), json!(null))}})
        }
        Sort::Slice => {
            let mut metadata = metadata(which);
            metadata["name"] = json!(format!("slice-{}", which % 2));
            metadata["labels"] = json!({annotation::SERVICE_NAME: either(bit(0), "web", "api"), "app": either(bit(1), "x", "y"),
                annotation::SLICE_MANAGED_BY: either(bit(3), annotation::SLICE_CONTROLLER, "me")});
            let endpoint = |number: u8, node: &str, ready: bool| {
                json!({
                    "addresses": [format!("10.42.0.{number}")], "nodeName": node,
                    "targetRef": {"name": format!("pod-{number}")}, "conditions": {"ready": ready, "serving": true},
                })
            };
            let endpoints = [
                endpoint(1, "a", bit(2)),
                endpoint(2 + which % 2, "b", bit(3)),
                // The address of a pod, under another's name.
                json!({"addresses": ["10.42.0.1"], "nodeName": "b", "targetRef": {"name": either(bit(4), "pod-1", "other")}}),
            ];
            let count = usize::from(state >> 5 & 3);
            let ports = [
                json!({"name": "http", "port": 8080}),
                json!({"name": "more", "port": 8080}),
            ];
            json!({
                "metadata": metadata, "addressType": "IPv4", "ports": ports[..1 + usize::from(bit(7))],
                "endpoints": endpoints[..count],
            })
        }
        Sort::Node => {
            let mut metadata = of_cluster(["a", "b"]);
            let annotations = json!({annotation::MESH_ADDRESS: format!("127.0.0.1:{}", 15000 + u16::from(state % 4)),
                annotation::GATEWAY_PORT: either(bit(3), "80", "8080")});
            metadata["annotations"] = if bit(4) { annotations } else { json!({}) };
            let range = either(bit(6), "10.42.0.0/24", "10.42.1.0/24");
            let status = json!({
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                // What a node reports all the time.
                "conditions": [{"type": "Ready", "status": either(bit(5), "True", "False"), "reason": state.to_string()}],
            });
            json!({"metadata": metadata, "spec": {"podCIDR": range}, "status": status})
        }
        Sort::Namespace => {
            let mut metadata = of_cluster(["vote", "shop"]);
            metadata["labels"] = json!({"team": either(bit(0), "t", "u")});
            json!({"metadata": metadata})
        }
        Sort::Class => {
            let controller = either(bit(0), api::CONTROLLER_NAME, "other.dev/x");
            json!({"metadata": of_cluster(["weft", "other"]), "spec": {"controllerName": controller}})
        }
        Sort::Gateway => {
            let from = ["Same", "All", "Selector", "Same"][usize::from(state & 3)];
            let listener = |name: &str, port: u16, hostname: &str| {
                json!({"name": name, "port": port, "protocol": "HTTP", "hostname": hostname, "allowedRoutes": {"namespaces":
                    {"from": from, "selector": {"matchLabels": {"team": "t"}}}}})
            };
            let listeners = [
                listener("a", 80, either(bit(2), "*.test", "")),
                listener("b", either(bit(3), 8080, 80), either(bit(4), "", "x.test")),
            ];
            let mut metadata = metadata(which);
            metadata["creationTimestamp"] = json!(format!("2026-01-01T00:00:0{}Z", state >> 5 & 3));
            json!({"metadata": metadata, "spec": {"gatewayClassName": either(bit(7), "other", "weft"), "listeners": listeners}})
        }
        Sort::Route => {
            let mut metadata = metadata(which);
            metadata["creationTimestamp"] = json!(format!("2026-01-01T00:00:0{}Z", state >> 6));
            let parents = [
                json!({"name": "web", "namespace": either(bit(0), "vote", "shop")}),
                json!({"group": "", "kind": "Service", "name": "web", "namespace": either(bit(1), "vote", "shop")}),
            ];
            let rule = json!({
                "matches": [{"path": {"type": "PathPrefix", "value": either(bit(2), "/", "/v")}}],
                "backendRefs": [{"name": "web", "port": 80, "namespace": either(bit(3), "vote", "shop")}],
            });
            let hostnames = either(bit(4), json!(["x.test"]), json!([]));
            json!({"metadata": metadata, "spec": {"parentRefs": parents, "hostnames": hostnames, "rules": [rule]}})
        }
        Sort::Grant => json!({"metadata": metadata(which), "spec": {
            "from": [{"group": api::GROUP, "kind": "HTTPRoute", "namespace": either(bit(0), "vote", "shop")}],
            "to": [{"group": "", "kind": "Service"}],
        }}),
    }
}

/// The first of two if the condition holds.
fn either<T>(is_first: bool, one: T, other: T) -> T {
    if is_first { one } else { other }
}

/// The watch of a kind.
struct Watch<K>(List<K>);

impl<K: kube::Resource + DeserializeOwned> Watch<K> {
    fn step(&self, cluster: &mut Cluster, step: &Step) {
        let typed = |which, state| -> K {
            serde_json::from_value(object(which, state)).expect("an object of the kind")
        };
        match step {
            Step::Apply(which, state) => {
                (self.0.apply)(cluster, typed(*which, *state));
            }
            Step::Delete(which) => {
                (self.0.delete)(cluster, &name_of(&typed(*which, 0)));
            }
            Step::Relist(sort, listed) => {
                let listed = listed.iter();
                let listed = listed.map(|(which, state)| typed((*sort, *which), *state));
                self.0.replace(cluster, listed.collect());
            }
            Step::Publish => {}
        }
    }
}

fn take(cluster: &mut Cluster, step: &Step) {
    let sort = match step {
        Step::Apply((sort, _), _) | Step::Delete((sort, _)) | Step::Relist(sort, _) => *sort,
        Step::Publish => return,
    };
    match sort {
        Sort::Class => Watch(CLASSES).step(cluster, step),
        Sort::Gateway => Watch(GATEWAYS).step(cluster, step),
        Sort::Grant => Watch(GRANTS).step(cluster, step),
        Sort::Namespace => Watch(NAMESPACES).step(cluster, step),
        Sort::Node => Watch(NODES).step(cluster, step),
        Sort::Route => Watch(ROUTES).step(cluster, step),
        Sort::Service => Watch(SERVICES).step(cluster, step),
        Sort::Slice => Watch(SLICES).step(cluster, step),
    }
}

fn step() -> impl Strategy<Value = Step> {
    let sort = proptest::sample::select(SORTS.to_vec());
    let which = (sort.clone(), 0_u8..4);
    let listed = proptest::collection::btree_map(0_u8..4, any::<u8>(), 0..4);
    let listed = (sort, listed).prop_map(|(sort, listed)| match sort {
        // There are two of these.
        Sort::Class | Sort::Namespace | Sort::Node => (
            sort,
            listed.into_iter().filter(|(which, _)| *which < 2).collect(),
        ),
        _ => (sort, listed.into_iter().collect()),
    });
    prop_oneof![
        8 => (which.clone(), any::<u8>()).prop_map(|(which, state)| Step::Apply(which, state)),
        2 => which.prop_map(Step::Delete),
        1 => listed.prop_map(|(sort, listed)| Step::Relist(sort, listed)),
        3 => Just(Step::Publish),
    ]
}

/// What the server has after these steps, in the order of kinds and names.
fn outcome(steps: &[Step]) -> Vec<Step> {
    let same = |(sort, which): Which| match sort {
        Sort::Class | Sort::Namespace | Sort::Node => (sort, which % 2),
        _ => (sort, which),
    };
    let mut objects: BTreeMap<Which, u8> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Apply(which, state) => {
                objects.insert(same(*which), *state);
            }
            Step::Delete(which) => {
                objects.remove(&same(*which));
            }
            Step::Relist(sort, listed) => {
                objects.retain(|(of, _), _| of != sort);
                objects.extend(
                    listed
                        .iter()
                        .map(|(which, state)| ((*sort, *which), *state)),
                );
            }
            Step::Publish => {}
        }
    }
    let applied = objects.into_iter();
    applied
        .map(|(which, state)| Step::Apply(which, state))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..crate::properties::config() })]

    /// The table that changed by what changed is the table that is made of everything at once.
    #[test]
    fn a_table_that_grew_is_a_table_made_anew(steps in proptest::collection::vec(step(), 1..60)) {
        let mut cluster = Cluster::new("cluster.local");
        let (mut grown, mut compiler) = (Table::builder("a", 0), Compiler::default());
        for step in &steps {
            take(&mut cluster, step);
            if matches!(step, Step::Publish) {
                cluster.take_change().apply(&mut grown, &mut compiler);
            }
        }
        cluster.take_change().apply(&mut grown, &mut compiler);
        let mut anew = Cluster::new("cluster.local");
        outcome(&steps).iter().for_each(|step| take(&mut anew, step));
        let mut made = Table::builder("a", 0);
        anew.take_change().apply(&mut made, &mut Compiler::default());
        let (grown, made) = (grown.table(1), made.table(1));
        prop_assert!(grown == made, "grown:\n{:#?}\nmade:\n{:#?}", grown, made);
        // And nothing is left to be done.
        prop_assert!(cluster.take_change().is_empty());
    }
}

proptest! {
    #![proptest_config(crate::properties::config())]

    #[test]
    fn annotations_of_a_slice_are_read_or_left(accounts in any::<String>(), ip in "[0-9.:]{1,12}|10\\.42\\.0\\.2", port in any::<i32>()) {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"namespace": "vote", "annotations": {annotation::ENDPOINT_SERVICE_ACCOUNTS: accounts}},
            "addressType": "IPv4", "ports": [{"port": port}], "endpoints": [{"addresses": [ip]}],
        })).expect("a slice");
        for found in Slice::read(&slice, "cluster.local").behind(None, true, &BTreeMap::new()) {
            prop_assert_eq!((i32::from(found.port), found.ip.to_string().is_empty()), (port, false));
            // The pod's, as far as somebody says whose it is.
            let whose = ["vote", "weft-system"].contains(&&*found.identity.namespace);
            prop_assert!(whose, "{}", found.identity);
        }
    }
}

fn slice() -> EndpointSlice {
    serde_json::from_value(json!({
        "metadata": {
            "name": "web-abc", "namespace": "vote",
            "labels": {"kubernetes.io/service-name": "web", "app": "web"},
            "annotations": {annotation::ENDPOINT_SERVICE_ACCOUNTS: "{\"web-1\":\"web\"}"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [
            {"addresses": ["10.42.0.2"], "nodeName": "a", "targetRef": {"name": "web-1"}, "conditions": {"ready": true}},
            {"addresses": ["10.42.1.2"], "nodeName": "b", "targetRef": {"name": "web-2"},
             "conditions": {"ready": false, "serving": true, "terminating": true}},
        ],
    }))
    .expect("a slice")
}

#[test]
fn endpoints_take_port_node_and_identity_from_where_they_are() {
    let slice = Slice::read(&slice(), "cluster.local");
    let facts = NodeFacts {
        mesh_address: Some("127.0.0.1:15444".parse().expect("an address")),
        address: None,
        pod_range: None,
    };
    let nodes = BTreeMap::from([("b".to_owned(), facts)]);
    let text: Vec<String> = slice
        .behind(Some("http"), true, &nodes)
        .map(|e| {
            format!(
                "{} {}:{} on {} {:?} {} ready={} serving={}",
                e.pod, e.ip, e.port, e.node, e.node_address, e.identity, e.ready, e.serving
            )
        })
        .collect();
    insta::assert_snapshot!(text.join("\n"), @r"
    web-1 10.42.0.2:8080 on a None spiffe://cluster.local/ns/vote/sa/web ready=true serving=true
    web-2 10.42.1.2:8080 on b Some(127.0.0.1:15444) spiffe://cluster.local/ns/vote/sa/default ready=false serving=true
    ");
    assert_eq!(slice.behind(Some("other"), true, &nodes).count(), 0);
}

#[test]
fn a_service_is_its_ports_with_the_endpoints_of_all_its_slices() {
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "vote"},
        "spec": {"clusterIP": "10.43.0.7", "ports": [{"name": "http", "port": 80}, {"name": "none", "port": 81}, {"port": 0}]},
    }))
    .expect("a service");
    let slices = [slice(), slice()].map(|slice| Arc::new(Slice::read(&slice, "cluster.local")));
    let name = NamespacedName::new("vote", "web");
    let spec = service_spec(name, &service, &slices, &BTreeMap::new());
    let ports: Vec<(u16, usize)> = spec
        .ports
        .iter()
        .map(|port| (port.port, port.endpoints.len()))
        .collect();
    assert_eq!(ports, [(80, 4), (81, 0)]);
    assert_eq!(spec.cluster_ip, Some([10, 43, 0, 7].into()));
}

/// A node that begins serves the table of what was told when it ran last, whichever state that was.
#[tokio::test]
async fn what_was_known_is_the_table_that_is_begun_with() {
    let folder = tempfile::tempdir().expect("a folder");
    let begin = |mesh: &Mesh| {
        let topology = Topology::new("a", "cluster.local");
        topology.taken_up(folder.path(), b"authority", mesh)
    };
    let mesh = || Mesh::builder("a", "cluster.local").build();
    let nothing = mesh();
    let mut first = begin(&nothing);
    assert_eq!(nothing.table().generation(), 0, "nothing was known");
    let kept = first.kept.take().expect("where it is kept");
    let mut cluster = Cluster::new("cluster.local").seen_from("a");
    // Each of one state and of another: the last counts.
    for (sort, which, state) in SORTS
        .iter()
        .flat_map(|sort| [(*sort, 0, 3_u8), (*sort, 1, 12), (*sort, 0, 60)])
    {
        let told = object((sort, which), state);
        take(&mut cluster, &Step::Apply((sort, which), state));
        fn one<K>(kept: &Kept, list: &List<K>, told: Value)
        where
            K: kube::Resource + DeserializeOwned + serde::Serialize,
        {
            let object: K = serde_json::from_value(told).expect("an object of the kind");
            kept.one(list.name, &object);
        }
        match sort {
            Sort::Class => one(&kept, &CLASSES, told),
            Sort::Gateway => one(&kept, &GATEWAYS, told),
            Sort::Grant => one(&kept, &GRANTS, told),
            Sort::Namespace => one(&kept, &NAMESPACES, told),
            Sort::Node => one(&kept, &NODES, told),
            Sort::Route => one(&kept, &ROUTES, told),
            Sort::Service => one(&kept, &SERVICES, told),
            Sort::Slice => one(&kept, &SLICES, told),
        }
    }
    drop(kept);
    let keeper = first.keeper.lock().take().expect("who writes");
    keeper.run().await;
    let (again, expected) = (mesh(), mesh());
    let _second = begin(&again);
    assert_eq!(again.table().generation(), 1);
    let mut begun = first.begin();
    first.apply(cluster.take_change(), &mut begun, &expected);
    assert!(
        *again.table() == begun.builder.table(1),
        "{:#?}",
        again.table()
    );
    assert!(again.table().services_len() > 0);
}

#[test]
fn policies_of_a_service_are_told_to_the_mesh() {
    let told = |spec: Value| {
        let service: Service = serde_json::from_value(json!({"spec": spec})).expect("a service");
        let name = NamespacedName::new("vote", "web");
        let spec = service_spec(name, &service, &[], &BTreeMap::new());
        (spec.external_local, spec.internal_local, spec.health_port)
    };
    for (spec, expected) in [
        (json!({}), (false, false, None)),
        (
            json!({"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Cluster"}),
            (false, true, None),
        ),
        (
            json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30001}),
            (true, false, Some(30001)),
        ),
        (
            json!({"type": "NodePort", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30001}),
            (true, false, None),
        ),
    ] {
        assert_eq!(told(spec.clone()), expected, "{spec}");
    }
}

#[test]
fn only_the_cluster_gives_pods_their_addresses() {
    let facts = NodeFacts {
        mesh_address: None,
        address: None,
        pod_range: Some("10.42.0.0/24".parse().expect("a range")),
    };
    let nodes = BTreeMap::from(["a", "b"].map(|node| (node.to_owned(), facts)));
    let assigned = |manager: &str, selector: Value| {
        let mut slice = slice();
        let labels = slice.metadata.labels.get_or_insert_default();
        labels.insert(annotation::SLICE_MANAGED_BY.to_owned(), manager.to_owned());
        let service: Service = serde_json::from_value(json!({
            "spec": {"ports": [{"name": "http", "port": 80}], "selector": selector},
        }))
        .expect("a service");
        let slices = [Arc::new(Slice::read(&slice, "cluster.local"))];
        let spec = service_spec(
            NamespacedName::new("vote", "web"),
            &service,
            &slices,
            &nodes,
        );
        let endpoints = spec.ports[0].endpoints.iter();
        let told: Vec<bool> = endpoints.map(|endpoint| endpoint.assigned).collect();
        told
    };
    let selector = json!({"app": "web"});
    // The second pod's address is of another node's range.
    assert_eq!(
        assigned(annotation::SLICE_CONTROLLER, selector.clone()),
        [true, false]
    );
    assert_eq!(assigned("me", selector), [false, false]);
    assert_eq!(
        assigned(annotation::SLICE_CONTROLLER, json!(null)),
        [false, false]
    );
}

#[test]
fn only_the_cluster_says_which_services_are_woken() {
    let wakes = |manager: &str, waker: Option<&str>| {
        let mut slice = slice();
        let labels = slice.metadata.labels.get_or_insert_default();
        labels.insert(annotation::SLICE_MANAGED_BY.to_owned(), manager.to_owned());
        // As it is where nobody is behind the Service.
        slice.endpoints = Some(Vec::new());
        let annotations = slice.metadata.annotations.get_or_insert_default();
        if let Some(waker) = waker {
            annotations.insert(annotation::SCALED_FROM_ZERO_BY.to_owned(), waker.to_owned());
        }
        let slices = [Arc::new(Slice::read(&slice, "cluster.local"))];
        let name = NamespacedName::new("vote", "web");
        service_spec(name, &Service::default(), &slices, &BTreeMap::new()).wakes
    };
    assert!(wakes(annotation::SLICE_CONTROLLER, Some("web")));
    assert!(!wakes(annotation::SLICE_CONTROLLER, None));
    assert!(!wakes("me", Some("web")));
}

#[test]
fn an_address_that_somebody_wrote_by_hand_leads_to_the_node_whose_it_is() {
    let facts = |address: &str, range: &str| NodeFacts {
        mesh_address: Some(address.parse().expect("an address")),
        address: None,
        pod_range: Some(range.parse().expect("a range")),
    };
    let nodes = BTreeMap::from([
        ("a".to_owned(), facts("192.0.2.1:15444", "10.42.0.0/24")),
        ("b".to_owned(), facts("192.0.2.2:15444", "10.42.1.0/24")),
    ]);
    let slice = json!({
        "metadata": {"name": "by-hand", "namespace": "vote", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        // What it says of nodes is not believed.
        "endpoints": [{"addresses": ["10.42.1.2"], "nodeName": "a"}, {"addresses": ["192.0.2.9"]}],
    });
    let slice: EndpointSlice = serde_json::from_value(slice).expect("a slice");
    let slice = Slice::read(&slice, "cluster.local");
    assert!(slice.is_on("a") && slice.is_on("b"));
    let found = slice.behind(Some("http"), false, &nodes);
    let text: Vec<String> = found
        .map(|e| {
            format!(
                "{} on {:?} {:?} {}",
                e.ip, e.node, e.node_address, e.identity
            )
        })
        .collect();
    insta::assert_snapshot!(text.join("\n"), @r#"
    10.42.1.2 on "b" Some(192.0.2.2:15444) spiffe://cluster.local/ns/weft-system/sa/gateway
    192.0.2.9 on "" None spiffe://cluster.local/ns/weft-system/sa/gateway
    "#);
}

/// A node reports its state every few seconds; ten thousand pods are not looked at for that.
#[test]
fn what_says_nothing_new_changes_no_table() {
    let mut cluster = Cluster::new("cluster.local");
    let node = |reason: &str| {
        json!({
            "metadata": {"name": "a", "annotations": {annotation::MESH_ADDRESS: "127.0.0.1:15000"}},
            "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "conditions": [{"type": "Ready", "status": "True", "reason": reason}]},
        })
    };
    let from = |value: Value| serde_json::from_value(value).expect("a node");
    cluster.apply_node(from(node("first")));
    cluster.apply_slice(slice());
    assert!(!cluster.take_change().is_empty());
    cluster.apply_node(from(node("second")));
    cluster.apply_slice(slice());
    assert!(cluster.take_change().is_empty());
    // It moved: the services with pods on it are made again.
    let mut moved = node("third");
    moved["metadata"]["annotations"][annotation::MESH_ADDRESS] = json!("127.0.0.1:15001");
    cluster.apply_node(from(moved));
    let change = format!("{:?}", cluster.take_change());
    assert!(change.contains("\"web\""), "{change}");
}

#[test]
fn an_object_that_cannot_be_read_is_as_good_as_not_there() {
    let mut cluster = Cluster::new("cluster.local");
    let route = |rules: Value| -> DynamicObject {
        let metadata = json!({"name": "web", "namespace": "vote"});
        let route = json!({"metadata": metadata, "spec": {"rules": rules}});
        serde_json::from_value(route).expect("an object")
    };
    (ROUTES.apply)(&mut cluster, route(json!([{}])));
    assert_eq!((ROUTES.names)(&cluster).len(), 1);
    (ROUTES.apply)(&mut cluster, route(json!("all of them")));
    assert_eq!((ROUTES.names)(&cluster).len(), 0);
}

/// Definitions of another version may take the place of those that there are, and may be taken away.
#[tokio::test(start_paused = true)]
async fn a_kind_is_read_in_the_version_that_is_served() {
    let served = watch::Sender::new(Some("v1beta1"));
    let asked = served.subscribe();
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let mut served = asked.clone();
        async move {
            let uri = request.uri().to_string();
            let version = *served.borrow_and_update();
            let is_served = version.is_some_and(|version| uri.contains(&format!("/{version}/")));
            let is_watch = uri.contains("watch=true");
            if is_served && is_watch {
                // The watch ends with the version.
                served.changed().await.expect("the test goes on");
            }
            let (code, body) = match is_served && !is_watch {
                true => (
                    200,
                    json!({
                        "metadata": {"resourceVersion": "5"},
                        "items": [{"metadata": {"name": "web", "namespace": "vote"}, "spec": {}}],
                    }),
                ),
                false => (
                    404,
                    json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": "no"}),
                ),
            };
            let response = http::Response::builder()
                .status(code)
                .body(kube::client::Body::from(body.to_string().into_bytes()));
            Ok::<_, std::convert::Infallible>(response.expect("a response"))
        }
    });
    let link = Link::of(kube::Client::new(service, "default"));
    let topology = Topology::new("a", "cluster.local");
    let following = topology.clone();
    tokio::spawn(async move {
        let api = all_of("HTTPRoute", ROUTES.name);
        following.follow(&link, ROUTES, api).await;
    });
    let routes = || (ROUTES.names)(&topology.seen.lock().cluster).len();
    let has = async |count: usize| {
        while routes() != count || !topology.seen.lock().arrived.contains(ROUTES.name) {
            topology.changed.notified().await;
        }
        tokio::time::Instant::now()
    };
    let begun = has(1).await;

    served.send_replace(Some("v1"));
    tokio::time::sleep(UNSERVED_AFTER * 2).await;
    assert_eq!(routes(), 1, "the newer version has them");

    // For a moment it may be a server that was just started.
    served.send_replace(None);
    let gone = tokio::time::Instant::now();
    let seen_gone = has(0).await;
    assert!(seen_gone - gone >= UNSERVED_AFTER && seen_gone - gone < UNSERVED_AFTER * 3);
    served.send_replace(Some("v1"));
    assert!(has(1).await > begun);
}

#[test]
fn an_account_that_is_gone_is_told_until_it_comes_back() {
    let account = |name: &str| {
        let account = json!({ "metadata": { "namespace": "shop", "name": name } });
        serde_json::from_value::<ServiceAccount>(account).expect("an account")
    };
    let mut cluster = Cluster::new("cluster.local");
    let name = NamespacedName::new("shop", "web");
    let mut gone = |act: &dyn Fn(&mut Cluster)| {
        act(&mut cluster);
        let gone = cluster.take_change().take_gone();
        gone.map(|gone| gone.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(
        gone(&|cluster| cluster.apply_account(&account("web"))),
        None
    );
    let never = NamespacedName::new("shop", "never");
    assert_eq!(gone(&|cluster| cluster.delete_account(&never)), None);
    assert_eq!(
        gone(&|cluster| cluster.delete_account(&name)),
        Some(vec!["spiffe://cluster.local/ns/shop/sa/web".to_owned()])
    );
    assert_eq!(gone(&|_| {}), None, "told once");
    assert_eq!(
        gone(&|cluster| cluster.apply_account(&account("web"))),
        Some(Vec::new())
    );
}

#[test]
fn policies_are_told_when_something_could_come_of_them() {
    let mut cluster = Cluster::new("cluster.local");
    cluster.take_change();
    let metadata = |name: &str| ObjectMeta {
        namespace: Some("shop".into()),
        name: Some(name.into()),
        ..ObjectMeta::default()
    };
    let mut told = |act: &dyn Fn(&mut Cluster)| {
        act(&mut cluster);
        cluster.take_change().take_policies().is_some()
    };
    let apply = |name: &'static str, spec: serde_json::Value| {
        move |cluster: &mut Cluster| {
            cluster.apply_policy(PolicyKind::Authorization, &metadata(name), &spec);
        }
    };
    assert!(told(&apply(
        "a",
        json!({ "action": "DENY", "rules": [{}] })
    )));
    assert!(!told(&apply(
        "a",
        json!({ "action": "DENY", "rules": [{}] })
    )));
    assert!(told(&apply(
        "a",
        json!({ "action": "ALLOW", "rules": [{}] })
    )));
    let name = NamespacedName::new("shop", "a");
    assert!(told(
        &|cluster| cluster.delete_policy(PolicyKind::Authorization, &name)
    ));
    assert!(!told(
        &|cluster| cluster.delete_policy(PolicyKind::Authorization, &name)
    ));
}
