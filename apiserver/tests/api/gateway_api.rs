//! The kinds of the Gateway API: custom kinds that a cluster has from its beginning, and that are its users' from then on.

use http::header;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use weft_apiserver::informer::Change;
use weft_apiserver::stored;
use weft_kinds::gateway_api::{HTTP_ROUTE, definitions};
use weft_store::{Mutation, Precondition};

use crate::world::*;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes";
const ROUTES_OF: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/httproutes.gateway.networking.k8s.io";
const MEMORY: &str = "/api/v1/namespaces/kube-system/configmaps/weft-gateway-api";

fn route(name: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": { "name": name },
        "spec": { "parentRefs": [{ "name": "web" }], "rules": [{ "backendRefs": [{ "name": "web", "port": 80 }] }] },
    })
}

/// A definition of this kind as somebody else has it: of another version, described, with a field less and one more.
fn of_somebody(plural: &str) -> Value {
    let all = definitions().into_iter();
    let mut found = all.filter(|one| one["spec"]["names"]["plural"] == plural);
    let mut definition = found.next().unwrap();
    let annotations = &mut definition["metadata"]["annotations"];
    annotations["gateway.networking.k8s.io/bundle-version"] = "v1.2.0".into();
    annotations["gateway.networking.k8s.io/channel"] = "standard".into();
    for version in definition["spec"]["versions"].as_array_mut().unwrap() {
        let schema = &mut version["schema"]["openAPIV3Schema"];
        schema["description"] = "Somebody's own.".into();
        let spec = schema["properties"]["spec"]["properties"].as_object_mut();
        let spec = spec.unwrap();
        spec.remove("useDefaultGateways");
        spec.insert("older".to_owned(), json!({ "type": "string" }));
    }
    definition
}

async fn revision(world: &World) -> u64 {
    world.objects.store().read().await.unwrap();
    world.objects.store().snapshot().revision()
}

#[tokio::test]
async fn a_new_cluster_has_them_and_serves_them() {
    let world = World::new().await;
    assert_eq!(world.get(ROUTES).await.status, 404);
    world.define_gateway_api().await;
    let listed = world.get(DEFINITIONS).await.body;
    let told: Vec<String> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|definition| {
            let group = definition["spec"]["group"].as_str().unwrap();
            group.starts_with("gateway.networking")
        })
        .map(|definition| {
            let status = &definition["status"];
            let conditions = status["conditions"].as_array().unwrap().iter();
            let conditions: Vec<String> = conditions
                .map(|condition| format!("{}={}", condition["type"], condition["status"]))
                .collect();
            let annotations = &definition["metadata"]["annotations"];
            format!(
                "{} {} {} {} {}",
                definition["spec"]["names"]["plural"],
                annotations["gateway.networking.k8s.io/bundle-version"],
                annotations["gateway.networking.k8s.io/channel"],
                status["storedVersions"],
                conditions.join(" "),
            )
            .replace('"', "")
        })
        .collect();
    let all_well = " NamesAccepted=True Established=True";
    let approved = " KubernetesAPIApprovalPolicyConformant=True";
    let shown: Vec<String> = told
        .iter()
        .map(|line| {
            let rest = line
                .strip_suffix(all_well)
                .unwrap_or_else(|| panic!("{line}"));
            // Groups of `x-k8s.io` need nobody's approval.
            rest.strip_suffix(approved)
                .map_or_else(|| format!("{rest} of its own"), str::to_owned)
        })
        .collect();
    insta::assert_snapshot!(shown.join("\n"), @r"
    backendtlspolicies v1.6.3 experimental [v1]
    gatewayclasses v1.6.3 experimental [v1]
    gateways v1.6.3 experimental [v1]
    grpcroutes v1.6.3 experimental [v1]
    httproutes v1.6.3 experimental [v1]
    listenersets v1.6.3 experimental [v1]
    referencegrants v1.6.3 experimental [v1beta1]
    tcproutes v1.6.3 experimental [v1]
    tlsroutes v1.6.3 experimental [v1]
    udproutes v1.6.3 experimental [v1]
    xmeshes v1.6.3 experimental [v1alpha1] of its own
    ");
    // What is well is not written.
    let before = revision(&world).await;
    world.define_gateway_api().await;
    assert_eq!(revision(&world).await, before);

    let group = world.get("/apis/gateway.networking.k8s.io").await.body;
    let versions: Vec<&str> = group["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| version["version"].as_str().unwrap())
        .collect();
    assert_eq!(versions, ["v1", "v1beta1", "v1alpha3", "v1alpha2"]);

    // As custom kinds everywhere: each version shows the same objects, defaults are filled in, rules judge, nothing comes in protobuf.
    let made = world.ask(&format!("POST {ROUTES}"), route("a")).await;
    assert_eq!(made.line(), "201 HTTPRoute a");
    let rule = &made.body["spec"]["rules"][0];
    assert_eq!(rule["matches"][0]["path"]["type"], "PathPrefix");
    assert_eq!(rule["backendRefs"][0]["weight"], 1);
    let older = world
        .get("/apis/gateway.networking.k8s.io/v1beta1/namespaces/default/httproutes/a")
        .await;
    assert_eq!(
        older.body["apiVersion"],
        "gateway.networking.k8s.io/v1beta1"
    );
    assert_eq!(older.body["spec"], made.body["spec"]);
    let mut broken = route("b");
    broken["spec"]["rules"][0]["backendRefs"][0] = json!({ "name": "web" });
    let refused = world.ask(&format!("POST {ROUTES}"), broken).await;
    insta::assert_snapshot!(refused.line(), @r#"422 Invalid: HTTPRoute.gateway.networking.k8s.io "b" is invalid: spec.rules[0].backendRefs[0]: Invalid value: Must have port for Service reference"#);
    let binary = [(header::CONTENT_TYPE, "application/vnd.kubernetes.protobuf")];
    let sent = world.request(&format!("POST {ROUTES}"), &binary, "k8s\0");
    assert_eq!(world.send(sent).await.status, 400);
    let binary = [(header::ACCEPT, "application/vnd.kubernetes.protobuf")];
    let asked = world.request(&format!("GET {ROUTES}"), &binary, "");
    assert_eq!(world.send(asked).await.status, 406);
    let table = world
        .table("/apis/gateway.networking.k8s.io/v1/httproutes")
        .await;
    let columns = table.body["columnDefinitions"].as_array().unwrap().iter();
    let columns: Vec<&str> = columns.map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Name", "Hostnames", "Age"]);
    let deprecated = world
        .get("/apis/gateway.networking.k8s.io/v1alpha2/tcproutes")
        .await;
    assert_eq!(
        deprecated.headers[header::WARNING],
        "299 - \"The v1alpha2 version of TCPRoute has been deprecated and will be removed in a future release of the API. Please upgrade to v1.\""
    );
}

#[tokio::test]
async fn definitions_of_others_take_their_place_and_stay() {
    let world = World::new().await;
    world.define_gateway_api().await;
    let made = world.ask(&format!("POST {ROUTES}"), route("a")).await;
    assert_eq!(made.status, 201);

    // Nobody has to force anything: the cluster owns none of it.
    let line = format!("PATCH {ROUTES_OF}?fieldManager=somebody");
    let apply = [(header::CONTENT_TYPE, "application/apply-patch+yaml")];
    let body = of_somebody("httproutes").to_string();
    let applied = world.send(world.request(&line, &apply, &body)).await;
    assert_eq!(applied.status, 200, "{}", applied.line());
    let served = world.get(&format!("{ROUTES}/a")).await;
    assert_eq!(served.body["metadata"]["uid"], made.body["metadata"]["uid"]);
    let mut older = route("older");
    older["spec"]["older"] = "x".into();
    older["spec"]["useDefaultGateways"] = "All".into();
    // The server goes by it a moment later.
    let tried = format!("POST {ROUTES}?dryRun=All");
    let mut tries = 0;
    while world.ask(&tried, older.clone()).await.body["spec"]["older"].is_null() && tries < 500 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        tries += 1;
    }
    let stored = world.ask(&format!("POST {ROUTES}"), older).await;
    assert_eq!(
        (stored.status, &stored.body["spec"]["older"]),
        (201, &json!("x"))
    );
    assert!(stored.body["spec"]["useDefaultGateways"].is_null());

    // A server of another version, which would make others, leaves it alone; what nobody changed it brings up to date.
    let gateways = format!("{DEFINITIONS}/gateways.gateway.networking.k8s.io");
    let as_before = json!({
        "metadata": { "annotations": { "weft.dev/made-generation": "2" } },
        "spec": { "names": { "shortNames": ["gtw", "gateofbefore"] } },
    });
    let before = world.patch(&gateways, "merge-patch", as_before).await;
    assert_eq!(before.body["metadata"]["generation"], 2);
    let forget = json!({ "data": null });
    world.patch(MEMORY, "merge-patch", forget).await;
    world.define_gateway_api().await;
    let now = world.get(&gateways).await.body;
    assert_eq!(now["spec"]["names"]["shortNames"], json!(["gtw"]));
    assert_eq!(
        now["metadata"]["annotations"]["weft.dev/made-generation"],
        now["metadata"]["generation"].to_string()
    );
    let kept = world.get(ROUTES_OF).await.body;
    assert_eq!(
        kept["metadata"]["annotations"]["gateway.networking.k8s.io/bundle-version"],
        "v1.2.0"
    );
    assert_eq!(kept["spec"], applied.body["spec"]);
    let still = world.get(&format!("{ROUTES}/older")).await;
    assert_eq!(still.body["spec"]["older"], "x");
}

#[tokio::test]
async fn what_is_deleted_stays_away_until_somebody_defines_it() {
    let world = World::new().await;
    world.define_gateway_api().await;
    let closing = CancellationToken::new();
    tokio::spawn(world.objects.clone().follow_definitions(closing.clone()));
    tokio::spawn(world.objects.clone().tend_definitions(closing));
    assert_eq!(
        world
            .ask(&format!("POST {ROUTES}"), route("a"))
            .await
            .status,
        201
    );
    let mut told = world
        .watch(&format!(
            "{DEFINITIONS}?watch=true&fieldSelector=metadata.name=httproutes.gateway.networking.k8s.io"
        ))
        .await;
    world.ask(&format!("DELETE {ROUTES_OF}"), Value::Null).await;
    while told.next().await.expect("an event")["type"] != "DELETED" {}
    assert_eq!(world.get(ROUTES).await.status, 404);
    world.define_gateway_api().await;
    assert_eq!(world.get(ROUTES_OF).await.status, 404, "it was deleted");

    let defined = world
        .ask(&format!("POST {DEFINITIONS}"), of_somebody("httproutes"))
        .await;
    assert_eq!(defined.status, 201, "{}", defined.line());
    loop {
        let event = told.next().await.expect("an event");
        let conditions = event["object"]["status"]["conditions"].as_array().cloned();
        let is_served = |one: &Value| one["type"] == "Established" && one["status"] == "True";
        if conditions.into_iter().flatten().any(|one| is_served(&one)) {
            break;
        }
    }
    assert_eq!(world.get(ROUTES).await.line(), "200 HTTPRouteList []");

    // Who forgets what was made gets back what is missing, and nothing else.
    let classes = format!("{DEFINITIONS}/gatewayclasses.gateway.networking.k8s.io");
    world.ask(&format!("DELETE {classes}"), Value::Null).await;
    while world.get(&classes).await.status != 404 {
        tokio::task::yield_now().await;
    }
    world.ask(&format!("DELETE {MEMORY}"), Value::Null).await;
    world.define_gateway_api().await;
    assert_eq!(world.get(&classes).await.status, 200);
    let kept = world.get(ROUTES_OF).await.body;
    assert!(kept["metadata"]["annotations"]["weft.dev/made-generation"].is_null());
}

/// As a store has them in which these kinds were not custom kinds yet.
#[tokio::test]
async fn objects_from_before_there_were_definitions_are_theirs() {
    let world = World::new().await;
    let closing = CancellationToken::new();
    tokio::spawn(world.objects.clone().follow_definitions(closing));
    let mut informer = world
        .objects
        .informer(|kind| kind.group.contains("gateway"));
    let mut old = route("old");
    old["metadata"]["namespace"] = "default".into();
    old["metadata"]["uid"] = "0a".into();
    old["metadata"]["generation"] = 1.into();
    let key = stored::key(&HTTP_ROUTE, Some("default"), "old");
    let put = Mutation::put(key, Precondition::None, stored::encode(&old).unwrap());
    world.objects.store().write(vec![put], None).await.unwrap();

    // Somebody listens already: the objects come once their kind is there.
    let mut told = Vec::new();
    while !matches!(informer.next().await, Some(Change::Synced { .. })) {}
    world.define_gateway_api().await;
    loop {
        match informer.next().await {
            Some(Change::Upsert { kind, object }) => {
                assert!(kind.custom.is_some());
                told.push(object.name().to_owned());
            }
            Some(Change::Synced { .. }) if !told.is_empty() => break,
            Some(_) => {}
            None => panic!("the store is open"),
        }
    }
    assert_eq!(told, ["old"]);
    let seen = world.get(&format!("{ROUTES}/old")).await.body;
    assert_eq!(seen["metadata"]["uid"], "0a");
    assert_eq!(seen["spec"]["parentRefs"][0]["kind"], "Gateway");
    assert_eq!(world.get(ROUTES).await.line(), "200 HTTPRouteList [old]");
}

/// As the policy that is published with the definitions, which lets nobody put older ones in their place.
#[tokio::test]
async fn a_policy_over_definitions_lets_those_of_the_cluster_be() {
    let world = World::new().await;
    world.define_gateway_api().await;
    let policies = "/apis/admissionregistration.k8s.io/v1";
    let version = "object.metadata.annotations['gateway.networking.k8s.io/bundle-version']";
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": "safe-upgrades.gateway.networking.k8s.io" },
        "spec": {
            "matchConstraints": { "resourceRules": [{
                "apiGroups": ["apiextensions.k8s.io"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["*"],
            }] },
            "validations": [{
                "expression": format!("object.spec.group != 'gateway.networking.k8s.io' || !matches({version}, 'v1.[0-4].\\\\d+')"),
                "message": "older definitions are not taken", "reason": "Invalid",
            }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": "safe-upgrades.gateway.networking.k8s.io" },
        "spec": { "policyName": "safe-upgrades.gateway.networking.k8s.io", "validationActions": ["Deny"] },
    });
    for (resource, object) in [
        ("validatingadmissionpolicies", policy),
        ("validatingadmissionpolicybindings", binding),
    ] {
        let made = world
            .ask(&format!("POST {policies}/{resource}"), object)
            .await;
        assert_eq!(made.status, 201, "{}", made.line());
    }
    let mut older = of_somebody("httproutes");
    let present = world.get(ROUTES_OF).await.body;
    older["metadata"]["resourceVersion"] = present["metadata"]["resourceVersion"].clone();
    let refused = world.ask(&format!("PUT {ROUTES_OF}"), older).await;
    assert!(
        refused.line().contains("older definitions are not taken"),
        "{}",
        refused.line()
    );
    // The cluster's own are brought up to date all the same.
    let as_before = json!({
        "metadata": { "annotations": { "weft.dev/made-generation": "2" } },
        "spec": { "names": { "shortNames": ["gateofbefore"] } },
    });
    let before = world.patch(ROUTES_OF, "merge-patch", as_before).await;
    assert_eq!(before.body["metadata"]["generation"], 2);
    world.ask(&format!("DELETE {MEMORY}"), Value::Null).await;
    world.define_gateway_api().await;
    let now = world.get(ROUTES_OF).await.body;
    assert!(now["spec"]["names"]["shortNames"].is_null());
}

/// What Argo Rollouts' traffic router for the Gateway API asks, in the words of Go's typed clients: it reads a route, changes the weights of two
/// backends it knows by name, marks the route, and puts all of it back; a rule for a header comes last and goes again, and which one that is it
/// keeps in a ConfigMap.
#[tokio::test]
async fn a_traffic_router_reads_a_route_and_puts_it_back() {
    let world = World::new().await;
    world.define_gateway_api().await;
    let one = format!("{ROUTES}/web");
    let backend = |name: &str| json!({ "group": "", "kind": "Service", "name": name, "port": 80 });
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": { "name": "web" },
        "spec": {
            "parentRefs": [{ "name": "edge" }],
            "rules": [{
                "matches": [{ "path": { "type": "PathPrefix", "value": "/" } }],
                "backendRefs": [backend("web-stable"), backend("web-canary")],
            }],
        },
    });
    assert_eq!(
        world.ask(&format!("POST {ROUTES}"), route).await.status,
        201
    );
    let put = async |change: &dyn Fn(&mut Value)| {
        let mut read = world.get(&one).await.body;
        change(&mut read);
        // Go writes what it knows of a type, with a list that is none as null.
        if read["status"].is_null() {
            read["status"] = json!({ "parents": null });
        }
        world.ask(&format!("PUT {one}"), read).await
    };
    let weights = |route: &Value| {
        let rules = route["spec"]["rules"].as_array().unwrap().iter();
        let rules = rules.map(|rule| {
            let backends = rule["backendRefs"].as_array().unwrap().iter();
            let shares = backends.map(|one| format!("{}={}", one["name"], one["weight"]));
            shares.collect::<Vec<_>>().join(" ").replace('"', "")
        });
        rules.collect::<Vec<_>>().join(" | ")
    };
    let read = world.get(&one).await.body;
    assert_eq!(
        weights(&read),
        "web-stable=1 web-canary=1",
        "as the definition has it"
    );
    for canary in [10, 50, 100] {
        let answer = put(&|route| {
            route["metadata"]["labels"] =
                json!({ "rollouts.argoproj.io/gatewayapi-canary": "in-progress" });
            let backends = &mut route["spec"]["rules"][0]["backendRefs"];
            backends[1]["weight"] = canary.into();
            backends[0]["weight"] = (100 - canary).into();
        })
        .await;
        let expected = format!("web-stable={} web-canary={canary}", 100 - canary);
        assert_eq!((answer.status, weights(&answer.body)), (200, expected));
    }
    let read = world.get(&one).await.body;
    assert_eq!(read["metadata"]["generation"], 4);
    assert_eq!(
        read["status"],
        Value::Null,
        "a status is somebody else's to write"
    );

    // Who has read it before that is told so, and reads it again.
    let mut stale = read.clone();
    stale["metadata"]["resourceVersion"] = "1".into();
    assert_eq!(world.ask(&format!("PUT {one}"), stale).await.status, 409);

    let maps = "/api/v1/namespaces/default/configmaps";
    let map = format!("{maps}/argo-gatewayapi-configmap");
    assert_eq!(world.get(&map).await.status, 404);
    let made = json!({ "metadata": { "name": "argo-gatewayapi-configmap" } });
    assert_eq!(world.ask(&format!("POST {maps}"), made).await.status, 201);
    let header =
        |kind: &str, value: &str| json!({ "name": "x-version", "type": kind, "value": value });
    for header in [header("Exact", "v2"), header("RegularExpression", "v2.*")] {
        let answer = put(&|route| {
            let path = route["spec"]["rules"][0]["matches"][0]["path"].clone();
            let rule = json!({
                "matches": [{ "path": path, "headers": [header] }], "backendRefs": [backend("web-canary")],
            });
            route["spec"]["rules"].as_array_mut().unwrap().push(rule);
        })
        .await;
        let told = weights(&answer.body);
        assert_eq!(
            (answer.status, &*told),
            (200, "web-stable=0 web-canary=100 | web-canary=1")
        );
        let mut kept = world.get(&map).await.body;
        kept["data"] = json!({ "httpManagedRoutes": r#"{"canary":{"web":1}}"# });
        assert_eq!(world.ask(&format!("PUT {map}"), kept).await.status, 200);
        let answer =
            put(&|route| drop(route["spec"]["rules"].as_array_mut().unwrap().remove(1))).await;
        assert_eq!(weights(&answer.body), "web-stable=0 web-canary=100");
    }
    let answer = put(&|route| {
        let backends = &mut route["spec"]["rules"][0]["backendRefs"];
        backends[0]["weight"] = 100.into();
        backends[1]["weight"] = 0.into();
        route["metadata"].as_object_mut().unwrap().remove("labels");
    })
    .await;
    assert_eq!(weights(&answer.body), "web-stable=100 web-canary=0");
    assert!(answer.body["metadata"].get("labels").is_none());
}
