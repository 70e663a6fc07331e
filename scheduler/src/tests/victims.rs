//! Who has to go for whom: upstream's cases of choosing victims and nodes, as transcripts.
//!
//! Each node has 4 CPUs and 8 GiB; pods of priority 0 are the least urgent.

use insta::assert_snapshot;

use super::transcript;

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
