//! Who has to go for whom: upstream's cases of choosing victims and nodes, as transcripts.
//!
//! Each node has 4 CPUs and 8 GiB; pods of priority 0 are the least urgent.

use insta::assert_snapshot;
use weft_api::selector::LabelSelector;

use super::simulation::Chance;
use super::{node, pod, transcript};
use crate::{Budget, Snapshot};

#[test]
fn the_least_that_helps_has_to_go() {
    for (cluster, decided) in [
        // Two small ones stay where one large one is enough.
        (
            "node a | pod small cpu=1 on=a | pod large cpu=3 on=a | pod new cpu=3 priority=9",
            "a instead of large, 0 protected",
        ),
        // Of equals, who began first stays.
        (
            "node a | pod old cpu=2 on=a started=10 | pod young cpu=2 on=a started=20 | pod new cpu=2 priority=9",
            "a instead of young, 0 protected",
        ),
        // The least urgent go first, though it takes more of them.
        (
            "node a | pod one cpu=1 on=a | pod two cpu=1 on=a | pod more cpu=2 on=a priority=5 | pod new cpu=2 priority=9",
            "a instead of one two, 0 protected",
        ),
        // Nobody goes who is as urgent.
        (
            "node a | node b | pod same cpu=4 on=a priority=9 | pod less cpu=4 on=b priority=8 | pod new cpu=1 priority=9",
            "b instead of less, 0 protected",
        ),
        // Pods in the way of a port, of a rule, of a number.
        (
            "node a | pod other on=a port=80 | pod stays on=a port=81 | pod new port=80 priority=9",
            "a instead of other, 0 protected",
        ),
        (
            "node a | pod other on=a label=db:yes | pod stays on=a | pod new apart=db:yes priority=9",
            "a instead of other, 0 protected",
        ),
        (
            "node a | pod other on=a apart=app:web | pod new priority=9",
            "a instead of other, 0 protected",
        ),
        (
            "node a pods=1 | pod other on=a | pod new priority=9",
            "a instead of other, 0 protected",
        ),
    ] {
        let text = transcript(cluster, 0);
        let last = text.lines().last().unwrap().trim();
        assert_eq!(last, decided, "{cluster}\n{text}");
    }
}

#[test]
fn of_several_nodes_the_one_where_least_is_lost() {
    for (clauses, node) in [
        // The fewest budgets are broken …
        (
            "pod guarded cpu=4 on=a label=db:yes | pod plain cpu=4 on=b priority=8 | budget db db:yes 0",
            "b",
        ),
        // … then the highest priority is least …
        (
            "pod x cpu=4 on=a priority=5 | pod y cpu=4 on=b priority=4",
            "b",
        ),
        // … then the sum …
        (
            "pod x cpu=3 on=a priority=5 | pod x2 cpu=1 on=a priority=4 | pod y cpu=3 on=b priority=5 | pod y2 cpu=1 on=b priority=3",
            "b",
        ),
        // … in which many of little worth are more than one …
        (
            "pod x cpu=2 on=a priority=-5 | pod x2 cpu=2 on=a priority=-5 | pod y cpu=4 on=b priority=-5",
            "b",
        ),
        // … and the youngest.
        (
            "pod x cpu=4 on=a started=10 | pod y cpu=4 on=b started=20",
            "b",
        ),
        (
            "pod x cpu=4 on=a started=30 | pod y cpu=4 on=b started=20",
            "a",
        ),
    ] {
        for seed in 0..8 {
            let cluster = format!("node a | node b | {clauses} | pod new cpu=4 priority=9");
            let text = transcript(&cluster, seed);
            assert!(
                text.contains(&format!("\n  {node} instead of")),
                "WEFT_SEED={seed} {text}"
            );
        }
    }
}

#[test]
fn a_budget_is_broken_only_where_nothing_else_helps() {
    assert_snapshot!(transcript(
        "node a | pod one cpu=2 on=a label=db:yes started=10 | pod two cpu=2 on=a label=db:yes started=20 | budget db db:yes 1 \
         | pod new cpu=2 priority=9 | pod more cpu=2 priority=9", 0), @r"
    new: 0/1 nodes are available: 1 Insufficient cpu. preemption: found a potential placement for pod on node a, preempting 1 victims
      a instead of one, 0 protected
    more: 0/1 nodes are available: 1 Insufficient cpu. preemption: found a potential placement for pod on node a, preempting 2 victims
      a instead of one two, 1 protected
    ");
}

#[test]
fn it_is_told_what_came_of_it() {
    assert_snapshot!(transcript(
        "node a | node b unschedulable | node c cpu=1 | pod low cpu=4 on=a | pod c on=c priority=9 \
         | pod never cpu=1 memory=9Gi | pod polite cpu=2 priority=9 never | pod even cpu=3 | pod vast cpu=4 apart=x:y:zone memory=9Gi priority=9", 0), @r"
    never: 0/3 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable, 2 Insufficient memory. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.
      a: Insufficient cpu: 1000m requested, 0m of 4000m free, Insufficient memory: 9663676416 requested, 8589934592 of 8589934592 free
      b: node(s) were unschedulable
      c: Insufficient memory: 9663676416 requested, 8589934592 of 8589934592 free
    polite: 0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.
      a: Insufficient cpu: 2000m requested, 0m of 4000m free
      b: node(s) were unschedulable
      c: Insufficient cpu: 2000m requested, 1000m of 1000m free
    even: 0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu. preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling.
      a: Insufficient cpu: 3000m requested, 0m of 4000m free
      b: node(s) were unschedulable
      c: Insufficient cpu: 3000m requested, 1000m of 1000m free
    vast: 0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu, 2 Insufficient memory. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.
      a: Insufficient cpu: 4000m requested, 0m of 4000m free, Insufficient memory: 9663676416 requested, 8589934592 of 8589934592 free
      b: node(s) were unschedulable
      c: Insufficient cpu: 4000m requested, 1000m of 1000m free, Insufficient memory: 9663676416 requested, 8589934592 of 8589934592 free
    ");
}

#[test]
fn room_that_is_being_made_belongs_to_whom_it_is_made_for() {
    assert_snapshot!(transcript(
        "node a | pod low cpu=4 on=a | pod first cpu=3 priority=9 | pod second cpu=3 priority=9 | pod third cpu=3 priority=10 | pod first cpu=3 priority=9", 0), @r"
    first: 0/1 nodes are available: 1 Insufficient cpu. preemption: found a potential placement for pod on node a, preempting 1 victims
      a instead of low, 0 protected
    second: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Insufficient cpu.
      a: Insufficient cpu: 3000m requested, -3000m of 4000m free
    third: 0/1 nodes are available: 1 Insufficient cpu. preemption: found a potential placement for pod on node a, preempting 1 victims
      a instead of low, 0 protected
    first: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Insufficient cpu.
      a: Insufficient cpu: 3000m requested, -3000m of 4000m free
    ");
    // As long as somebody leaves the node, nobody else is driven off it.
    assert_snapshot!(transcript(
        "node a | pod low cpu=2 on=a ending | pod other cpu=2 on=a | pod new cpu=3 priority=9 nominated=a", 0), @r"
    new: 0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to a terminating pod on the nominated node.
      a: Insufficient cpu: 3000m requested, 0m of 4000m free
    ");
}

/// Nodes that were looked at before are looked at again only if they changed: that must not be seen.
#[test]
fn what_was_looked_at_before_is_what_a_new_look_would_say() {
    const NODES: usize = 30;
    for seed in 0..12 {
        let mut chance = Chance(seed);
        let mut snapshot = Snapshot::new(seed);
        let mut low: Vec<String> = Vec::new();
        let words = |chance: &mut Chance, on: usize| -> Vec<String> {
            let priority = chance.below(4);
            let set = ["db:yes", "db:no"][chance.below(2)];
            let on = format!("on=n{on}");
            vec![
                "cpu=1".into(),
                on,
                format!("priority={priority}"),
                format!("label={set}"),
            ]
        };
        let put = |snapshot: &mut Snapshot, name: &str, words: &[String]| {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            snapshot.put_pod(pod(name, &words));
        };
        for number in 0..NODES {
            snapshot.put_node(node(&format!("n{number}"), &[]));
            for one in 0..4 {
                let name = format!("low-{number}-{one}");
                put(&mut snapshot, &name, &words(&mut chance, number));
                low.push(name);
            }
        }
        let mut preempted = 0;
        for step in 0..150 {
            let name = format!("n{}", chance.below(NODES));
            match chance.below(9) {
                0 if !low.is_empty() => {
                    let gone = low.swap_remove(chance.below(low.len()));
                    snapshot.remove_pod(&gone);
                }
                1 => {
                    let name = format!("more-{step}");
                    let on = chance.below(NODES);
                    put(&mut snapshot, &name, &words(&mut chance, on));
                    low.push(name);
                }
                2 if !low.is_empty() => {
                    let uid = &low[chance.below(low.len())];
                    snapshot.set_started(uid, Some(step));
                }
                3 => {
                    let selector = LabelSelector::from_labels([("db", "yes")]);
                    let allowed = i64::try_from(chance.below(3)).unwrap();
                    let budget = Budget::new(Some(selector), allowed, Default::default());
                    snapshot.put_budget("default", "db", budget);
                }
                4 => {
                    snapshot.put_node(node(&name, &["unschedulable"]));
                }
                5 => {
                    snapshot.put_node(node(&name, &[]));
                }
                _ => {
                    let cpu = format!("cpu={}", 2 + chance.below(2));
                    let urgent = pod(&format!("urgent-{step}"), &[&cpu, "priority=9"]);
                    let mut anew = snapshot.clone();
                    anew.recount();
                    let expected = anew.plan([&urgent]);
                    let plan = snapshot.plan([&urgent]);
                    assert_eq!(plan, expected, "WEFT_SEED={seed}, step {step}");
                    for preemption in &plan.preemptions {
                        preempted += 1;
                        // Some go at once, others later; now and then the pod takes its place.
                        for victim in &preemption.victims {
                            if chance.below(3) > 0 {
                                snapshot.remove_pod(&victim.uid);
                                low.retain(|name| **name != *victim.uid);
                            }
                        }
                        if chance.below(2) == 0 {
                            snapshot.denominate(&preemption.uid);
                        }
                    }
                }
            }
        }
        assert!(preempted > 20, "WEFT_SEED={seed}: {preempted}");
    }
}
