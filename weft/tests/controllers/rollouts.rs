//! Rollouts on the real server, with the controllers around them: what is made for a revision, where calls are led at each step, and what
//! becomes of a revision that is well, of one that fails calls, and of somebody's word.

use serde_json::{Value, json};
use weft_controllers::Key;
use weft_controllers::usage::Counted;
use weft_kinds::{HTTP_ROUTE, REPLICA_SET, ROLLOUT, SERVICE};

use crate::world::World;

const HASH: &str = "pod-template-hash";

fn world(strategy: &Value) -> World {
    let mut world = World::new(1);
    world.define_gateway_api();
    world.create_nodes();
    world.create(
        &SERVICE,
        json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        }),
    );
    world.create(
        &ROLLOUT,
        json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {
                "replicas": 4,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "main", "image": "x:1"}]}},
                "traffic": {"service": "web"},
                "scaleDownDelaySeconds": 5,
                "progressDeadlineSeconds": 60,
                "analysis": {"intervalSeconds": 10, "successPercent": 99, "minRequests": 20},
                "strategy": strategy,
            },
        }),
    );
    world.settle();
    assert_eq!(told(&world), "Healthy 0 % x:1=4");
    world
}

fn canary() -> Value {
    json!({"canary": {"steps": [
        {"setWeight": 20}, {"analysis": {"rounds": 2}}, {"setWeight": 50}, {"pause": {}}]}})
}

fn bring_out(world: &mut World, image: &str) {
    let containers = json!([{"name": "main", "image": image}]);
    let body = json!({"spec": {"template": {"spec": {"containers": containers}}}});
    world.patch(&ROLLOUT, "web", body);
    world.settle();
}

/// Time passes, in which nodes live; `failing` of a hundred calls of the revision on its way fail.
fn pass(world: &mut World, seconds: i64, failing: u64) {
    for _ in 0..seconds {
        world.pass_time(1);
        for node in ["n0", "n1", "n2"] {
            world.renew_lease(node);
        }
        let status = &world.get(&ROLLOUT, "web")["status"];
        let current = status["currentRevision"].as_str().unwrap_or_default();
        let key = Key::new("default", &format!("web-{current}"));
        let total = world.calls.totals.entry(key).or_insert_with(|| Counted {
            since: 1,
            ..Counted::default()
        });
        total.begun += 100;
        total.failed += failing;
        world.calls.read = Some(world.now);
        world.settle();
    }
}

/// Phase, weight, and the pods that each image is to have.
fn told(world: &World) -> String {
    let status = &world.get(&ROLLOUT, "web")["status"];
    let mut sets: Vec<String> = world
        .all(&REPLICA_SET)
        .into_iter()
        .filter(|set| set["spec"]["replicas"] != 0)
        .map(|set| {
            let image = &set["spec"]["template"]["spec"]["containers"][0]["image"];
            format!("{}={}", image.as_str().unwrap(), set["spec"]["replicas"])
        })
        .collect();
    sets.sort();
    let phase = status["phase"].as_str().unwrap_or("nowhere");
    // Nothing is not written down.
    let weight = status["weight"].as_i64().unwrap_or(0);
    format!("{phase} {weight} % {}", sets.join(" "))
}

fn message(world: &World) -> String {
    let message = &world.get(&ROLLOUT, "web")["status"]["message"];
    message.as_str().unwrap_or_default().to_owned()
}

/// Marks and, by their images, the shares that the route has.
fn led(world: &World) -> Vec<String> {
    let image_of = |service: &str| {
        let sets = world.all(&REPLICA_SET).into_iter();
        let mut of = sets.filter(|set| set["metadata"]["name"] == *service);
        let set = of.next().unwrap_or(&Value::Null);
        let image = &set["spec"]["template"]["spec"]["containers"][0]["image"];
        image.as_str().unwrap_or("nobody").to_owned()
    };
    let rules = world.get(&HTTP_ROUTE, "web")["spec"]["rules"].as_array();
    let rules = rules.into_iter().flatten();
    rules
        .map(|rule| {
            let headers = rule["matches"][0]["headers"].as_array();
            let headers = headers.into_iter().flatten();
            let marks = headers.map(|header| {
                let text = |name: &str| header[name].as_str().unwrap_or_default();
                format!("{} {} ", text("name"), text("value"))
            });
            let backends = rule["backendRefs"].as_array().unwrap().iter();
            let shares = backends.map(|backend| {
                let service = backend["name"].as_str().unwrap();
                format!("{}:{}", image_of(service), backend["weight"])
            });
            let (marks, shares): (String, Vec<String>) = (marks.collect(), shares.collect());
            format!("{marks}{}", shares.join(" "))
        })
        .collect()
}

#[test]
fn a_canary_that_is_well_is_promoted_by_its_steps() {
    let mut world = world(&canary());
    assert_eq!(led(&world), ["x:1:1"]);
    bring_out(&mut world, "x:2");
    assert_eq!(told(&world), "Progressing 20 % x:1=4 x:2=1");
    assert_eq!(led(&world), ["x:1:80 x:2:20"]);
    assert_eq!(message(&world), "step 1: 0 of 2 rounds passed");
    pass(&mut world, 14, 0);
    assert_eq!(message(&world), "step 1: 1 of 2 rounds passed");
    pass(&mut world, 14, 0);
    assert_eq!(told(&world), "Paused 50 % x:1=4 x:2=2");
    assert_eq!(led(&world), ["x:1:50 x:2:50"]);
    // It waits for somebody, however long.
    pass(&mut world, 90, 0);
    assert_eq!(told(&world), "Paused 50 % x:1=4 x:2=2");
    let revision = world.get(&ROLLOUT, "web")["status"]["currentRevision"].clone();
    let word = json!({"spec": {"promote": {"revision": revision, "step": 3}}});
    world.patch(&ROLLOUT, "web", word);
    world.settle();
    assert_eq!(told(&world), "Healthy 0 % x:1=4 x:2=4");
    assert_eq!(led(&world), ["x:2:1"]);
    pass(&mut world, 8, 0);
    assert_eq!(told(&world), "Healthy 0 % x:2=4");
    // What was made for the revision of before goes with its pods.
    pass(&mut world, 8, 0);
    let services = world.names(&SERVICE);
    assert_eq!(
        services
            .iter()
            .filter(|name| name.starts_with("web-"))
            .count(),
        1
    );
    let conditions = world.get(&ROLLOUT, "web")["status"]["conditions"].clone();
    for condition in conditions.as_array().unwrap() {
        assert_eq!(condition["status"], "True", "{condition}");
    }
}

#[test]
fn a_canary_that_fails_is_rolled_back_within_two_intervals() {
    let mut world = world(&canary());
    bring_out(&mut world, "x:2");
    assert_eq!(led(&world), ["x:1:80 x:2:20"]);
    let mut seconds = 0;
    while told(&world).starts_with("Progressing") {
        pass(&mut world, 1, 5);
        seconds += 1;
        assert!(seconds <= 20, "{}", message(&world));
    }
    assert_eq!(told(&world), "RolledBack 0 % x:1=4 x:2=1");
    assert_eq!(led(&world), ["x:1:100"]);
    let status = world.get(&ROLLOUT, "web")["status"].clone();
    let because = status["rolledBackBecause"].as_str().unwrap();
    assert!(
        because.ends_with("calls failed, and 99 % have to succeed"),
        "{because}"
    );
    assert_eq!(status["rolledBackRevision"], status["currentRevision"]);
    pass(&mut world, 10, 5);
    assert_eq!(told(&world), "RolledBack 0 % x:1=4");
    // It stays so, until somebody has it tried again.
    pass(&mut world, 60, 0);
    assert_eq!(told(&world), "RolledBack 0 % x:1=4");
    world.patch(&ROLLOUT, "web", json!({"spec": {"retry": "again"}}));
    world.settle();
    assert_eq!(told(&world), "Progressing 20 % x:1=4 x:2=1");
    // And the template of before ends it.
    bring_out(&mut world, "x:1");
    assert_eq!(led(&world), ["x:1:1"]);
    pass(&mut world, 10, 0);
    assert_eq!(told(&world), "Healthy 0 % x:1=4");
}

#[test]
fn blue_and_green_change_places_at_once() {
    let mut world =
        world(&json!({"blueGreen": {"previewService": "web-next", "autoPromotionSeconds": 15}}));
    let selects = |world: &World| world.get(&SERVICE, "web-next")["spec"]["selector"][HASH].clone();
    let blue = selects(&world);
    bring_out(&mut world, "x:2");
    assert_eq!(told(&world), "Paused 0 % x:1=4 x:2=4");
    assert_eq!(led(&world), ["x:1:100 x:2:0"]);
    assert_ne!(selects(&world), blue);
    pass(&mut world, 16, 0);
    assert_eq!(told(&world), "Healthy 0 % x:1=4 x:2=4");
    assert_eq!(led(&world), ["x:2:1"]);
    pass(&mut world, 8, 0);
    assert_eq!(told(&world), "Healthy 0 % x:2=4");
}

#[test]
fn marked_calls_try_a_revision() {
    let mut world = world(&json!({"ab": {"cookie": {"name": "try", "value": "1.0"}, "rounds": 2}}));
    bring_out(&mut world, "x:2");
    assert_eq!(told(&world), "Progressing 0 % x:1=4 x:2=4");
    assert_eq!(
        led(&world),
        [r"cookie ^(.*;\s*)?try=1\.0(;.*)?$ x:2:1", "x:1:100 x:2:0"]
    );
    pass(&mut world, 40, 0);
    assert_eq!(told(&world), "Healthy 0 % x:2=4");
    assert_eq!(led(&world), ["x:2:1"]);
}

#[test]
fn somebodys_word_is_heeded() {
    let mut world = world(&canary());
    bring_out(&mut world, "x:2");
    world.patch(&ROLLOUT, "web", json!({"spec": {"paused": true}}));
    pass(&mut world, 90, 0);
    assert_eq!(told(&world), "Paused 20 % x:1=4 x:2=1");
    // What fails is rolled back nevertheless.
    let revision = world.get(&ROLLOUT, "web")["status"]["currentRevision"].clone();
    world.patch(
        &ROLLOUT,
        "web",
        json!({"spec": {"abort": {"revision": revision}}}),
    );
    world.settle();
    assert_eq!(told(&world), "RolledBack 0 % x:1=4 x:2=1");
    // A word on one revision says nothing of another.
    world.patch(&ROLLOUT, "web", json!({"spec": {"paused": false}}));
    bring_out(&mut world, "x:3");
    assert_eq!(told(&world), "Progressing 20 % x:1=4 x:2=1 x:3=1");
    let revision = world.get(&ROLLOUT, "web")["status"]["currentRevision"].clone();
    world.patch(
        &ROLLOUT,
        "web",
        json!({"spec": {"promote": {"revision": revision}}}),
    );
    world.settle();
    assert_eq!(led(&world), ["x:3:1"]);
}

#[test]
fn what_does_not_go_on_is_rolled_back() {
    let mut world = world(&canary());
    world.agents = false;
    bring_out(&mut world, "x:2");
    assert_eq!(told(&world), "Progressing 0 % x:1=4 x:2=1");
    assert_eq!(led(&world), ["x:1:100 x:2:0"]);
    pass(&mut world, 62, 0);
    assert_eq!(told(&world), "RolledBack 0 % x:1=4 x:2=1");
    let message = message(&world);
    assert!(
        message.contains("nothing went on for 60 s: step 0: 0 of 1 pods"),
        "{message}"
    );
}

#[test]
fn a_new_leader_goes_on_where_the_last_one_was() {
    let mut world = world(&canary());
    bring_out(&mut world, "x:2");
    for _ in 0..4 {
        pass(&mut world, 7, 0);
        world.change_leader();
        world.settle();
    }
    // Rounds of less than an interval say nothing.
    assert_eq!(message(&world), "step 1: 0 of 2 rounds passed");
    pass(&mut world, 26, 0);
    assert_eq!(told(&world), "Paused 50 % x:1=4 x:2=2");
}

#[test]
fn a_route_of_somebody_else_is_left_alone() {
    let mut world = World::new(1);
    world.define_gateway_api();
    world.create_nodes();
    let service = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    });
    world.create(&SERVICE, service);
    let theirs = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
            "rules": [{"backendRefs": [{"name": "web", "port": 80}]}]},
    });
    let theirs = world.create(&HTTP_ROUTE, theirs);
    let rollout = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": "x:1"}]}},
            "traffic": {"service": "web"},
            "strategy": {"canary": {"steps": [{"setWeight": 10}]}},
        },
    });
    world.create(&ROLLOUT, rollout);
    world.settle();
    assert_eq!(world.get(&HTTP_ROUTE, "web")["spec"], theirs["spec"]);
    let conditions = world.get(&ROLLOUT, "web")["status"]["conditions"].clone();
    let mut all = conditions.as_array().unwrap().iter();
    let routed = all.find(|one| one["type"] == "TrafficRouted").unwrap();
    assert_eq!(
        (&routed["status"], &routed["reason"]),
        (&json!("False"), &json!("NameTaken"))
    );
}
