//! Levels at work: who gets seats, who waits, and what becomes of those who give up.

use http::Method;
use serde_json::json;
use weft_kinds::Registry;

use super::*;

fn info(line: &str) -> RequestInfo {
    let (method, path) = line.split_once(' ').unwrap();
    let method: Method = method.parse().unwrap();
    RequestInfo::of(&Registry::builtin(), &method, &path.parse().unwrap())
}

fn user(name: &str) -> Caller {
    Caller::client_certificate(name, vec![])
}

/// A server where `jo` and all others have one level of so many seats.
fn one_level(seats: u32, queuing: Value) -> FlowControl {
    let flow = FlowControl::default();
    let response = match queuing.is_null() {
        true => json!({"type": "Reject"}),
        false => json!({"type": "Queue", "queuing": queuing}),
    };
    let level = json!({
        "kind": "PriorityLevelConfiguration", "metadata": {"name": "own", "uid": "level-uid"},
        "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 5 * u64::from(seats), "lendablePercent": 0,
            "borrowingLimitPercent": 0, "limitResponse": response,
        }},
    });
    // As many seats as shares: the rest of them are of another level.
    let rest = json!({
        "kind": "PriorityLevelConfiguration", "metadata": {"name": "rest"},
        "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 5 * (600 - u64::from(seats)) - 5,
            "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"},
        }},
    });
    let schema = json!({
        "kind": "FlowSchema", "metadata": {"name": "own", "uid": "schema-uid"},
        "spec": {
            "matchingPrecedence": 10, "priorityLevelConfiguration": {"name": "own"},
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [{
                "subjects": [{"kind": "Group", "group": {"name": "system:authenticated"}}],
                "resourceRules": [{
                    "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true,
                    "namespaces": ["*"],
                }],
            }],
        },
    });
    flow.apply(&[level, rest, schema]);
    flow
}

const POST: &str = "POST /api/v1/namespaces/a/configmaps";

async fn seat(flow: &FlowControl, name: &str) -> Result<Seat, StatusError> {
    let (caller, info) = (user(name), info(POST));
    let ask = flow.classify(&caller, &info, || 0).unwrap();
    flow.seat(&ask).await
}

fn queuing(length: u32) -> Value {
    json!({"queues": 8, "handSize": 1, "queueLengthLimit": length})
}

#[tokio::test(start_paused = true)]
async fn a_full_level_waits_a_while_and_touches_no_other() {
    let flow = one_level(2, queuing(2));
    let held = [
        seat(&flow, "jo").await.unwrap(),
        seat(&flow, "jo").await.unwrap(),
    ];
    assert_eq!(flow.taken("own"), 2);
    // Nobody comes: after a while each is told to come back.
    let (one, other, third) = tokio::join!(seat(&flow, "jo"), seat(&flow, "jo"), seat(&flow, "jo"));
    for refused in [one, other, third] {
        let refused = refused.err().unwrap();
        assert_eq!(refused.code, 429);
        assert_eq!(
            refused.message,
            "Too many requests, please try again later."
        );
        let details = refused.details.unwrap();
        assert_eq!(details.retry_after_seconds, Some(1));
    }
    // Others are served meanwhile.
    let admin = Caller::client_certificate("root", vec!["system:masters".to_owned()]);
    let ask = flow.classify(&admin, &info(POST), || 0).unwrap();
    assert_eq!(ask.class.level.name, "exempt");
    drop(flow.seat(&ask).await.unwrap());
    // Who waits gets the next seat that comes free.
    let (got, ()) = tokio::join!(seat(&flow, "ko"), async {
        tokio::task::yield_now().await;
        drop(held);
    });
    assert!(got.is_ok());
    drop(got);
    assert_eq!(flow.taken("own"), 0);
    let text = flow.metrics();
    for line in [
        "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"own\",priority_level=\"own\"} 3",
        "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"own\",priority_level=\"own\",reason=\"queue-full\"} 1",
        "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"own\",priority_level=\"own\",reason=\"time-out\"} 2",
        "apiserver_flowcontrol_current_inqueue_requests{flow_schema=\"own\",priority_level=\"own\"} 0",
        "apiserver_flowcontrol_current_executing_seats{flow_schema=\"own\",priority_level=\"own\"} 0",
        "apiserver_flowcontrol_request_wait_duration_seconds_count{flow_schema=\"own\",priority_level=\"own\",execute=\"true\"} 3",
        "apiserver_flowcontrol_request_wait_duration_seconds_bucket{flow_schema=\"own\",priority_level=\"own\",execute=\"false\",le=\"30\"} 2",
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"own\"} 2",
        "apiserver_flowcontrol_current_limit_seats{priority_level=\"own\"} 2",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let dump = flow.dump_levels();
    let row = dump.lines().find(|line| line.starts_with("own")).unwrap();
    let row: Vec<&str> = row.split(',').map(str::trim).collect();
    assert_eq!(
        row,
        ["own", "0", "true", "false", "0", "0", "3", "1", "2", "0"]
    );
    assert_eq!(flow.dump_queues().lines().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_leaves_nothing_behind() {
    let flow = one_level(1, queuing(50));
    let held = seat(&flow, "jo").await.unwrap();
    for _ in 0..100 {
        let waiting = tokio::time::timeout(Duration::from_millis(1), seat(&flow, "jo"));
        assert!(waiting.await.is_err());
    }
    // One whose turn came just as he gave up passes it on.
    let mut first = Box::pin(seat(&flow, "jo"));
    let mut second = Box::pin(seat(&flow, "jo"));
    assert!(futures::poll!(&mut first).is_pending());
    assert!(futures::poll!(&mut second).is_pending());
    assert!(flow.dump_queues().contains("own,"));
    drop(held);
    drop(first);
    drop(second.await.unwrap());
    assert_eq!(flow.taken("own"), 0);
    let plan = flow.0.plan.load();
    let state = plan.levels["own"].state.lock();
    assert_eq!((state.queues.waiting(), state.queues.at_work()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn many_requests_of_one_administrator_wait_for_each_other() {
    let flow = FlowControl::default();
    let admin = Caller::client_certificate("root", vec!["system:masters".to_owned()]);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let (flow, admin) = (flow.clone(), admin.clone());
        asking.spawn(async move {
            let ask = flow.classify(&admin, &info(POST), || 0).unwrap();
            let seat = flow.seat(&ask).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            seat.is_ok()
        });
    }
    // Each of them gets its turn.
    let all = asking.join_all().await;
    assert!(all.iter().all(|got| *got));
    assert_eq!(flow.taken(EXEMPT), 0);
}

#[tokio::test(start_paused = true)]
async fn a_level_without_queues_refuses_at_once() {
    let flow = one_level(1, Value::Null);
    let held = seat(&flow, "jo").await.unwrap();
    assert_eq!(seat(&flow, "ko").await.err().unwrap().code, 429);
    drop(held);
    assert!(seat(&flow, "ko").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_is_in_force_changes_under_requests_at_work() {
    let flow = one_level(1, queuing(50));
    let info = info(POST);
    let ask = flow.classify(&user("jo"), &info, || 0).unwrap();
    let mut headers = HeaderMap::new();
    ask.mark(&mut headers);
    assert_eq!(headers[SCHEMA_UID], "schema-uid");
    assert_eq!(headers[LEVEL_UID], "level-uid");
    let held = seat(&flow, "jo").await.unwrap();
    // The level goes, and its schema is of none: others serve what it would have.
    flow.apply(&[]);
    let ask = flow.classify(&user("jo"), &info, || 0).unwrap();
    assert_eq!(ask.class.level.name, CATCH_ALL);
    let mut headers = HeaderMap::new();
    ask.mark(&mut headers);
    assert!(headers.is_empty(), "no object says so");
    drop(held);
    // What contradicts itself is not there.
    for broken in [
        json!({"type": "Limited"}),
        json!({"type": "Exempt", "exempt": {}}),
        json!({"type": "Other"}),
    ] {
        let level = json!({"metadata": {"name": "own"}, "spec": broken});
        assert!(terms_of(&level).is_none(), "{level}");
    }
}

#[test]
fn schemas_are_told_whether_their_level_is_there() {
    let schema = |name: &str, level: &str| {
        json!({
            "kind": "FlowSchema", "metadata": {"name": name},
            "spec": {"priorityLevelConfiguration": {"name": level}},
        })
    };
    let level = json!({
        "kind": "PriorityLevelConfiguration", "metadata": {"name": "there"},
        "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}},
    });
    let objects = [
        schema("a", "there"),
        schema("b", "gone"),
        schema("c", "catch-all"),
        level,
    ];
    let found: Vec<(&Value, bool)> = dangling(&objects).collect();
    let told: Vec<bool> = found.iter().map(|(_, dangles)| *dangles).collect();
    assert_eq!(told, [false, true, false]);
    let (of_b, dangles) = found[1];
    let condition = condition(of_b, dangles, "2026-01-01T00:00:00Z").unwrap();
    assert_eq!(
        condition,
        json!({
            "type": "Dangling", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z",
            "reason": "NotFound",
            "message": "This FlowSchema references the PriorityLevelConfiguration object named \"gone\" but there is no such object",
        })
    );
    let mut told = of_b.clone();
    told["status"] = json!({"conditions": [condition]});
    assert_eq!(super::condition(&told, true, "later"), None);
    let other = super::condition(&told, false, "later").unwrap();
    assert_eq!(other["reason"], "Found");
}
