//! A pod's life as transcripts: what happened, what was done about it.

use super::*;
use crate::wanted::{GRACE_DEFAULT, RestartPolicy, WantedContainer};
use std::fmt::Write;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).expect("in range")
}

fn main(name: &str) -> WantedContainer {
    WantedContainer {
        name: name.into(),
        role: Role::Main,
        has_startup_probe: false,
        has_readiness_probe: false,
    }
}

fn wanted(restart: RestartPolicy, containers: Vec<WantedContainer>) -> Wanted {
    Wanted {
        restart,
        containers,
        kill_at: None,
        grace: GRACE_DEFAULT,
        pre_stop: Duration::ZERO,
        active_deadline: None,
    }
}

fn started(container: usize, serving: bool) -> Event {
    Event::Started {
        container,
        serving,
        image_id: "i".into(),
        container_id: "c".into(),
    }
}

fn crashed(container: usize) -> Event {
    Event::Ended {
        container,
        exit: Exit {
            code: 134,
            reason: "Error".into(),
            message: None,
        },
    }
}

fn completed(container: usize) -> Event {
    Event::Ended {
        container,
        exit: Exit {
            code: 0,
            reason: "Completed".into(),
            message: None,
        },
    }
}

/// Plays events through `step` and writes one line for each that led to an action or asks to be woken.
fn play(wanted: &mut Wanted, script: Vec<(i64, Event)>) -> String {
    let mut state = PodState::new(wanted, at(0));
    let mut transcript = String::new();
    for (second, event) in script {
        let name = format!("{event:?}")
            .split([' ', '{'])
            .next()
            .unwrap_or_default()
            .to_owned();
        let actions = step(&mut state, wanted, event, at(second));
        let wake = state
            .next_wake(wanted, at(second))
            .map(|wake| wake.duration_since(at(0)).as_millis());
        let actions: Vec<String> = actions
            .iter()
            .map(|action| match action {
                Action::Start { container, restart } => {
                    format!("start {} #{restart}", wanted.containers[*container].name)
                }
                Action::Stop {
                    container,
                    grace,
                    reason,
                } => {
                    format!(
                        "stop {} {}s {reason:?}",
                        wanted.containers[*container].name,
                        grace.as_secs()
                    )
                }
                Action::Delete => "delete".to_owned(),
            })
            .collect();
        let wake = wake.map_or_else(String::new, |ms| format!(" (wake {ms}ms)"));
        writeln!(
            transcript,
            "{second:>4} {name}: {}{wake}",
            actions.join(", ")
        )
        .expect("a string");
    }
    transcript
}

#[test]
fn backoff_doubles_then_caps() {
    for (failures, seconds) in [
        (0, 0),
        (1, 10),
        (2, 20),
        (5, 160),
        (6, 300),
        (40, 300),
        (u32::MAX, 300),
    ] {
        assert_eq!(
            backoff(BACKOFF_FIRST, BACKOFF_MAX, failures).as_secs(),
            seconds,
            "after {failures}"
        );
    }
}

#[test]
fn a_crashing_container_backs_off_and_a_long_run_forgives() {
    let mut wanted = wanted(RestartPolicy::Always, vec![main("web")]);
    let transcript = play(
        &mut wanted,
        vec![
            (0, Event::Tick),
            (1, started(0, false)),
            (2, crashed(0)),
            (3, started(0, false)),
            (4, crashed(0)),
            (13, Event::Tick),
            (14, Event::Tick),
            (15, started(0, false)),
            (16, crashed(0)),
            (36, Event::Tick),
            (37, started(0, false)),
            (700, crashed(0)),
        ],
    );
    insta::assert_snapshot!(transcript, @r"
       0 Tick: start web #0
       1 Started: 
       2 Ended: start web #1
       3 Started: 
       4 Ended:  (wake 14000ms)
      13 Tick:  (wake 14000ms)
      14 Tick: start web #2
      15 Started: 
      16 Ended:  (wake 36000ms)
      36 Tick: start web #3
      37 Started: 
     700 Ended: start web #4
    ");
}

#[test]
fn init_containers_run_in_order_then_the_mains_together() {
    let init = |name: &str| WantedContainer {
        role: Role::Init,
        ..main(name)
    };
    let mut wanted = wanted(
        RestartPolicy::OnFailure,
        vec![init("migrate"), init("warm"), main("a"), main("b")],
    );
    let transcript = play(
        &mut wanted,
        vec![
            (0, Event::Tick),
            (1, started(0, false)),
            (2, crashed(0)),
            (3, started(0, false)),
            (4, completed(0)),
            (5, started(1, false)),
            (6, completed(1)),
            (7, started(2, true)),
            (8, started(3, false)),
            (9, completed(3)),
        ],
    );
    insta::assert_snapshot!(transcript, @r"
       0 Tick: start migrate #0
       1 Started: 
       2 Ended: start migrate #1
       3 Started: 
       4 Ended: start warm #0
       5 Started: 
       6 Ended: start a #0, start b #0
       7 Started: 
       8 Started: 
       9 Ended: 
    ");
}

#[test]
fn a_deleted_pod_serves_on_then_stops_then_goes() {
    let mut wanted = wanted(RestartPolicy::Always, vec![main("web")]);
    let mut state = PodState::new(&wanted, at(0));
    step(&mut state, &wanted, Event::Tick, at(0));
    step(&mut state, &wanted, started(0, true), at(1));
    wanted.kill_at = Some(at(40));
    assert_eq!(step(&mut state, &wanted, Event::Tick, at(10)), []);
    assert_eq!(state.next_wake(&wanted, at(10)), Some(later(at(10), DRAIN)));
    assert_eq!(
        step(&mut state, &wanted, Event::Tick, at(12)),
        [Action::Stop {
            container: 0,
            grace: Duration::from_secs(28),
            reason: StopReason::PodDeleted
        }]
    );
    assert_eq!(
        step(&mut state, &wanted, completed(0), at(13)),
        [Action::Delete]
    );
}

/// All were stopped at once: what a main container asked of a sidecar in its preStop hook found nobody there, now and then.
#[test]
fn sidecars_outlive_what_they_are_there_for() {
    let sidecar = |name| WantedContainer {
        role: Role::Sidecar,
        ..main(name)
    };
    let containers = vec![sidecar("proxy"), sidecar("logs"), main("web"), main("job")];
    let begun = |kill_at: i64| {
        let mut wanted = wanted(RestartPolicy::Always, containers.clone());
        let mut state = PodState::new(&wanted, at(0));
        step(&mut state, &wanted, Event::Tick, at(0));
        for container in 0..4 {
            step(&mut state, &wanted, started(container, false), at(1));
        }
        wanted.kill_at = Some(at(kill_at));
        (wanted, state)
    };
    let stopped = |actions: Vec<Action>| -> Vec<(usize, u64)> {
        let stop = |action: &Action| match action {
            Action::Stop {
                container, grace, ..
            } => (*container, grace.as_secs()),
            other => panic!("{other:?}"),
        };
        actions.iter().map(stop).collect()
    };
    let (wanted, mut state) = begun(40);
    let mut told = |event, second| step(&mut state, &wanted, event, at(second));
    assert_eq!(stopped(told(Event::Tick, 10)), [(3, 30), (2, 30)]);
    assert_eq!(stopped(told(Event::Tick, 11)), []);
    assert_eq!(stopped(told(completed(2), 12)), []);
    // The last is stopped with what is left, and the first with the least there is.
    assert_eq!(stopped(told(crashed(3), 20)), [(1, 20)]);
    assert_eq!(stopped(told(Event::Tick, 21)), []);
    assert_eq!(stopped(told(crashed(1), 40)), [(0, 2)]);
    assert_eq!(told(completed(0), 41), [Action::Delete]);

    // One that ended before its turn is not waited for, nor is anything where there is no grace.
    let (wanted, mut state) = begun(10);
    let mut told = |event, second| step(&mut state, &wanted, event, at(second));
    assert_eq!(stopped(told(Event::Tick, 10)), [(3, 0), (2, 0)]);
    told(crashed(1), 10);
    told(crashed(2), 10);
    assert_eq!(stopped(told(crashed(3), 10)), [(0, 0)]);
    assert_eq!(told(crashed(0), 10), [Action::Delete]);

    // By the time that a fence promises nothing runs, sidecars or not.
    let (mut wanted, mut state) = begun(40);
    (wanted.kill_at, wanted.grace) = (None, Duration::from_millis(1500));
    let mut told = |event, second| step(&mut state, &wanted, event, at(second));
    assert_eq!(stopped(told(Event::NodeFenced, 10)), [(3, 1), (2, 1)]);
    told(crashed(2), 12);
    assert_eq!(stopped(told(crashed(3), 12)), [(1, 0)]);
    assert_eq!(stopped(told(crashed(1), 12)), [(0, 0)]);
}

#[test]
fn a_deleted_pod_that_serves_nothing_goes_at_once() {
    let mut wanted = wanted(RestartPolicy::Always, vec![main("web")]);
    wanted.kill_at = Some(at(30));
    let mut state = PodState::new(&wanted, at(0));
    assert_eq!(
        step(&mut state, &wanted, Event::Tick, at(0)),
        [Action::Delete]
    );
}

#[test]
fn a_pod_deleted_while_starting_waits_for_the_start_to_be_cancelled() {
    let mut wanted = wanted(RestartPolicy::Always, vec![main("web")]);
    let mut state = PodState::new(&wanted, at(0));
    step(&mut state, &wanted, Event::Tick, at(0));
    wanted.kill_at = Some(at(30));
    assert!(matches!(
        step(&mut state, &wanted, Event::Tick, at(1))[..],
        [Action::Stop { .. }]
    ));
    let cancelled = Event::StartFailed {
        container: 0,
        failure: StartFailure::Create,
        message: "cancelled".into(),
    };
    assert_eq!(
        step(&mut state, &wanted, cancelled, at(2)),
        [Action::Delete]
    );
}

#[test]
fn failed_liveness_stops_and_restarts_and_failed_readiness_does_not() {
    let mut web = main("web");
    web.has_readiness_probe = true;
    let wanted = wanted(RestartPolicy::Always, vec![web]);
    let mut state = PodState::new(&wanted, at(0));
    step(&mut state, &wanted, Event::Tick, at(0));
    step(&mut state, &wanted, started(0, true), at(1));
    assert!(matches!(
        state.containers[0].phase,
        Phase::Running { ready: false, .. }
    ));
    step(
        &mut state,
        &wanted,
        Event::Probed {
            container: 0,
            probe: ProbeKind::Readiness,
            healthy: true,
        },
        at(2),
    );
    assert!(matches!(
        state.containers[0].phase,
        Phase::Running { ready: true, .. }
    ));
    assert_eq!(
        step(
            &mut state,
            &wanted,
            Event::Probed {
                container: 0,
                probe: ProbeKind::Readiness,
                healthy: false
            },
            at(3)
        ),
        []
    );
    let stop = step(
        &mut state,
        &wanted,
        Event::Probed {
            container: 0,
            probe: ProbeKind::Liveness,
            healthy: false,
        },
        at(4),
    );
    assert!(matches!(
        stop[..],
        [Action::Stop {
            reason: StopReason::Liveness,
            ..
        }]
    ));
    assert_eq!(
        step(&mut state, &wanted, completed(0), at(5)),
        [Action::Start {
            container: 0,
            restart: 1
        }]
    );
}

#[test]
fn a_pod_past_its_deadline_fails_and_stays_failed() {
    let mut wanted = wanted(RestartPolicy::Always, vec![main("job")]);
    wanted.active_deadline = Some(Duration::from_secs(60));
    let transcript = play(
        &mut wanted,
        vec![
            (0, Event::Tick),
            (1, started(0, false)),
            (60, Event::Tick),
            (61, crashed(0)),
            (99, Event::Tick),
        ],
    );
    insta::assert_snapshot!(transcript, @r"
       0 Tick: start job #0 (wake 60000ms)
       1 Started:  (wake 60000ms)
      60 Tick: stop job 30s DeadlineExceeded
      61 Ended: 
      99 Tick: 
    ");
}

#[test]
fn a_node_that_drains_leaves_its_pods_to_live_on() {
    let mut wanted = wanted(RestartPolicy::Always, vec![main("web")]);
    let mut state = PodState::new(&wanted, at(0));
    step(&mut state, &wanted, Event::Tick, at(0));
    step(&mut state, &wanted, started(0, true), at(1));
    assert_eq!(step(&mut state, &wanted, Event::NodeDrain, at(5)), []);
    let stop = step(&mut state, &wanted, Event::Tick, at(7));
    assert!(matches!(
        stop[..],
        [Action::Stop {
            reason: StopReason::NodeDrain,
            ..
        }]
    ));
    assert_eq!(step(&mut state, &wanted, completed(0), at(8)), []);
    assert_eq!(state.stage, Stage::Finished);
    assert!(matches!(
        state.containers[0].phase,
        Phase::BackingOff { .. }
    ));
    // Deleted in the meantime all the same.
    wanted.kill_at = Some(at(30));
    assert_eq!(
        step(&mut state, &wanted, Event::Tick, at(9)),
        [Action::Delete]
    );
    assert_eq!(step(&mut state, &wanted, Event::Tick, at(10)), []);
}

#[test]
fn a_fenced_pod_is_stopped_at_once_even_while_it_drains_and_lives_on_later() {
    for drains in [false, true] {
        let mut wanted = wanted(RestartPolicy::Always, vec![main("web")]);
        wanted.grace = Duration::from_secs(1);
        let mut state = PodState::new(&wanted, at(0));
        step(&mut state, &wanted, Event::Tick, at(0));
        step(&mut state, &wanted, started(0, true), at(1));
        if drains {
            assert_eq!(step(&mut state, &wanted, Event::NodeDrain, at(5)), []);
        }
        let stop = step(&mut state, &wanted, Event::NodeFenced, at(5));
        let expected = Action::Stop {
            container: 0,
            grace: wanted.grace,
            reason: StopReason::NodeDrain,
        };
        assert_eq!(stop, [expected]);
        // It is told once, and its object is somebody else's to remove.
        assert_eq!(step(&mut state, &wanted, Event::NodeFenced, at(5)), []);
        assert_eq!(step(&mut state, &wanted, completed(0), at(6)), []);
        assert_eq!(state.stage, Stage::Finished);
    }
}

#[test]
fn a_pod_deleted_while_it_fails_goes_as_well() {
    let mut wanted = wanted(RestartPolicy::Always, vec![main("job")]);
    wanted.active_deadline = Some(Duration::from_secs(5));
    let mut state = PodState::new(&wanted, at(0));
    step(&mut state, &wanted, Event::Tick, at(0));
    step(&mut state, &wanted, started(0, false), at(1));
    step(&mut state, &wanted, Event::Tick, at(6));
    wanted.kill_at = Some(at(40));
    assert_eq!(step(&mut state, &wanted, Event::Tick, at(7)), []);
    assert_eq!(
        step(&mut state, &wanted, crashed(0), at(8)),
        [Action::Delete]
    );
}

#[test]
fn restart_policies() {
    for (policy, code, again) in [
        (RestartPolicy::Always, 0, true),
        (RestartPolicy::Always, 1, true),
        (RestartPolicy::OnFailure, 0, false),
        (RestartPolicy::OnFailure, 1, true),
        (RestartPolicy::Never, 0, false),
        (RestartPolicy::Never, 1, false),
    ] {
        let exit = Exit {
            code,
            reason: String::new(),
            message: None,
        };
        assert_eq!(
            restarts(Role::Main, policy, &exit),
            again,
            "{policy:?} after {code}"
        );
    }
}

#[test]
fn a_failed_pull_wakes_its_pod_once_to_change_the_word_and_then_to_try_again() {
    let mut wanted = wanted(RestartPolicy::Always, vec![main("web")]);
    let failed = || Event::StartFailed {
        container: 0,
        failure: StartFailure::Image,
        message: "not found".into(),
    };
    let transcript = play(
        &mut wanted,
        vec![
            (0, Event::Tick),
            (1, failed()),
            (3, Event::Tick),
            (11, Event::Tick),
            (12, failed()),
        ],
    );
    insta::assert_snapshot!(transcript, @r"
       0 Tick: start web #0
       1 StartFailed:  (wake 3000ms)
       3 Tick:  (wake 11000ms)
      11 Tick: start web #0
      12 StartFailed:  (wake 32000ms)
    ");
}

#[test]
fn missing_configuration_is_tried_again_sooner_than_an_image() {
    let wanted = wanted(RestartPolicy::Always, vec![main("web")]);
    for (failure, second) in [(StartFailure::Config, 1), (StartFailure::Image, 10)] {
        let mut state = PodState::new(&wanted, at(0));
        step(&mut state, &wanted, Event::Tick, at(0));
        step(
            &mut state,
            &wanted,
            Event::StartFailed {
                container: 0,
                failure,
                message: String::new(),
            },
            at(0),
        );
        let Phase::Retrying { until, .. } = state.containers[0].phase else {
            panic!("{:?}", state.containers[0])
        };
        assert_eq!(until, at(second), "{failure:?}");
    }
}

#[test]
fn a_pre_stop_sleep_is_a_longer_drain_within_the_grace() {
    let story = |sleep: u64, grace: i64, serving: bool| {
        let mut wanted = wanted(RestartPolicy::Always, vec![main("web")]);
        wanted.pre_stop = Duration::from_secs(sleep);
        let mut state = PodState::new(&wanted, at(0));
        step(&mut state, &wanted, Event::Tick, at(0));
        step(&mut state, &wanted, started(0, serving), at(1));
        wanted.kill_at = Some(at(10 + grace));
        step(&mut state, &wanted, Event::Tick, at(10));
        let stops = state.next_wake(&wanted, at(10)).unwrap_or(at(10));
        stops.duration_since(at(10)).as_millis()
    };
    for (sleep, grace, serving, drains) in [
        (0, 30, true, 1500),
        (5, 30, true, 5000),
        (1, 30, true, 1500),
        // A command sleeps as well, and nobody sleeps longer than the grace.
        (5, 30, false, 5000),
        (60, 30, true, 30_000),
        (0, 30, false, 0),
    ] {
        assert_eq!(story(sleep, grace, serving), drains, "{sleep} {serving}");
    }
}

#[test]
fn an_ephemeral_container_comes_late_runs_once_and_decides_nothing() {
    let look = WantedContainer {
        role: Role::Ephemeral,
        ..main("look")
    };
    let alone = wanted(RestartPolicy::OnFailure, vec![main("web")]);
    let both = wanted(RestartPolicy::OnFailure, vec![main("web"), look]);
    assert!(both.continues(&alone) && !alone.continues(&both));
    let running = || {
        let mut state = PodState::new(&alone, at(0));
        step(&mut state, &alone, Event::Tick, at(0));
        step(&mut state, &alone, started(0, false), at(1));
        state.grow(&both);
        let actions = step(&mut state, &both, Event::Tick, at(2));
        let start = Action::Start {
            container: 1,
            restart: 0,
        };
        assert_eq!(actions, [start]);
        state
    };
    // It has ended, and is not started again.
    let mut state = running();
    step(&mut state, &both, started(1, false), at(3));
    assert_eq!(step(&mut state, &both, crashed(1), at(4)), []);
    assert!(!state.is_over() && state.next_wake(&both, at(4)).is_none());
    assert_eq!(step(&mut state, &both, completed(0), at(5)), []);
    assert!(state.is_over() && state.is_idle());
    // It is still there when the others are done.
    let mut state = running();
    step(&mut state, &both, started(1, false), at(3));
    let stop = Action::Stop {
        container: 1,
        grace: GRACE_DEFAULT,
        reason: StopReason::MainsDone,
    };
    assert_eq!(step(&mut state, &both, completed(0), at(4)), [stop]);
    assert!(state.is_over() && !state.is_idle());
    // It could not be started yet: nobody waits for the next try any more.
    let mut state = running();
    let failed = Event::StartFailed {
        container: 1,
        failure: StartFailure::Image,
        message: "no such image".into(),
    };
    step(&mut state, &both, failed, at(3));
    assert!(state.next_wake(&both, at(3)).is_some());
    step(&mut state, &both, completed(0), at(4));
    assert!(state.is_over() && state.next_wake(&both, at(4)).is_none());
}

#[test]
fn other_amounts_restart_a_container_at_once_whatever_its_policy() {
    for (policy, end) in [
        (RestartPolicy::OnFailure, completed(0)),
        (RestartPolicy::Always, crashed(0)),
    ] {
        let mut wanted = wanted(policy, vec![main("web")]);
        let transcript = play(
            &mut wanted,
            vec![
                (0, Event::Tick),
                (1, started(0, false)),
                (2, Event::Resized { container: 0 }),
                (3, end),
                (4, started(0, false)),
                // It waits for its next run: that has them anyway.
                (5, crashed(0)),
                (6, started(0, false)),
                (7, crashed(0)),
                (8, Event::Resized { container: 0 }),
            ],
        );
        let lines: Vec<&str> = transcript.lines().map(str::trim).collect();
        assert_eq!(
            lines,
            [
                "0 Tick: start web #0",
                "1 Started:",
                "2 Resized: stop web 30s Resize",
                "3 Ended: start web #1",
                "4 Started:",
                "5 Ended: start web #2",
                "6 Started:",
                "7 Ended:  (wake 17000ms)",
                "8 Resized:  (wake 17000ms)",
            ]
        );
    }
}
