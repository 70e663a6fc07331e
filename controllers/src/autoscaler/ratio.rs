//! How many pods would use what they are to use, going by what they use now.
//!
//! The rules are Kubernetes': pods that end are passed over; of pods that do not run yet, and for CPU of those that only
//! began, nothing is known; pods that nothing was read of count as idle when the target would grow, and as busy as they are to be when it
//! would shrink. Whatever these guesses would turn around stays as it is.
//!
//! Amounts are in thousandths.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::indexer::Cached;
use crate::plus_seconds;
use crate::pod::{Phase, Pod};
use crate::usage::Usage;

/// Kubernetes' `--horizontal-pod-autoscaler-cpu-initialization-period`.
const STARTING_SECONDS: i64 = 300;
/// Kubernetes' `--horizontal-pod-autoscaler-initial-readiness-delay`.
const READINESS_SECONDS: i64 = 30;

/// What a pod uses of one resource.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub amount: i64,
    pub at: Timestamp,
    pub window: Duration,
}

/// What pods use, by their names.
pub type Samples = BTreeMap<Arc<str>, Sample>;

/// What each pod is to use.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    /// So many percent of what it asked for, or this container of it.
    Percent(i64, Option<&'a str>),
    Amount(i64),
}

/// The same, and what each pod asked for, by its name.
enum Goal {
    Percent(i64, BTreeMap<Arc<str>, i64>),
    Amount(i64),
}

/// How far a ratio may be from one without a consequence.
#[derive(Debug, Clone, Copy)]
pub struct Tolerances {
    pub down: f64,
    pub up: f64,
}

impl Tolerances {
    /// Whether a ratio is as good as one.
    pub fn allow(&self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// A size, and what pods use now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proposal {
    pub replicas: i64,
    pub percent: Option<i64>,
    /// On average.
    pub amount: i64,
}

/// What pods use of a resource, all of their containers or one. A pod of which a container was not read is left out.
pub fn samples(
    usage: &Usage,
    pods: &[Arc<Cached<Pod>>],
    resource: &str,
    container: Option<&str>,
) -> Samples {
    let mut samples = Samples::new();
    for pod in pods {
        let Some(used) = usage.get(&pod.key) else {
            continue;
        };
        let amounts = used
            .containers
            .iter()
            .filter(|(name, _)| container.is_none_or(|container| container == **name));
        let amounts: Option<Vec<i64>> = amounts
            .map(|(_, used)| match resource {
                // As the metrics API tells them: full thousandths of a core, full KiB.
                "cpu" => Some(used.nano_cores.div_ceil(1_000_000)),
                "memory" => Some(used.memory_bytes.div_ceil(1024).saturating_mul(1_024_000)),
                _ => None,
            })
            .map(|amount| amount.and_then(|amount| i64::try_from(amount).ok()))
            .collect();
        if let Some(amounts) = amounts.filter(|amounts| !amounts.is_empty()) {
            let sample = Sample {
                amount: amounts.into_iter().fold(0, i64::saturating_add),
                at: used.at,
                window: used.window,
            };
            samples.insert(Arc::clone(&pod.key.name), sample);
        }
    }
    samples
}

/// What pods asked for.
///
/// # Errors
/// For the first pod that did not ask, in Kubernetes' sentence.
fn requests(
    pods: &[Arc<Cached<Pod>>],
    resource: &str,
    container: Option<&str>,
) -> Result<BTreeMap<Arc<str>, i64>, String> {
    let of = |pod: &Cached<Pod>| {
        let name = &pod.key.name;
        let asked = &pod.body.template.requests;
        match container {
            Some(wanted) => {
                let found = asked.containers.iter().find(|c| c.name == wanted);
                let found =
                    found.ok_or_else(|| format!("container {wanted} not found in Pod {name}"))?;
                found.amounts.of_resource(resource).ok_or_else(|| {
                    format!("missing request for {resource} in container {wanted} of Pod {name}")
                })
            }
            None => {
                if let Some(whole) = &asked.pod {
                    return whole.of_resource(resource).ok_or_else(|| {
                        format!("missing pod-level request for {resource} in Pod {name}")
                    });
                }
                let amounts = asked.containers.iter().map(|container| {
                    container.amounts.of_resource(resource).ok_or_else(|| {
                        let container = &container.name;
                        format!(
                            "missing request for {resource} in container {container} of Pod {name}"
                        )
                    })
                });
                amounts.sum()
            }
        }
    };
    pods.iter()
        .map(|pod| Ok((Arc::clone(&pod.key.name), of(pod)?)))
        .collect()
}

/// Pods by what is known of them.
#[derive(Debug, Default)]
struct Groups {
    known: i64,
    starting: BTreeSet<Arc<str>>,
    unread: BTreeSet<Arc<str>>,
    ending: BTreeSet<Arc<str>>,
}

impl Groups {
    fn of(pods: &[Arc<Cached<Pod>>], samples: &Samples, resource: &str, now: Timestamp) -> Self {
        let mut groups = Self::default();
        for pod in pods {
            let name = Arc::clone(&pod.key.name);
            let sample = samples.get(&name);
            if pod.meta.is_deleting() || pod.body.phase == Phase::Failed {
                groups.ending.insert(name);
            } else if pod.body.phase == Phase::Pending {
                groups.starting.insert(name);
            } else if let Some(sample) = sample {
                if resource == "cpu" && is_starting(&pod.body, sample, now) {
                    groups.starting.insert(name);
                } else {
                    groups.known += 1;
                }
            } else {
                groups.unread.insert(name);
            }
        }
        groups
    }
}

/// What the pod used tells nothing of what it will: it is not ready, or only just, or never was.
fn is_starting(pod: &Pod, sample: &Sample, now: Timestamp) -> bool {
    let (Some(started), Some(changed)) = (pod.started, pod.ready_changed) else {
        return true;
    };
    if plus_seconds(started, STARTING_SECONDS) > now {
        let window = jiff::SignedDuration::try_from(sample.window).unwrap_or_default();
        let known = changed.saturating_add(window).unwrap_or(changed);
        return !pod.is_ready || sample.at < known;
    }
    !pod.is_ready && plus_seconds(started, READINESS_SECONDS) > changed
}

/// The ratio of what is used to what is to be, and what is used.
fn measure(
    samples: &BTreeMap<Arc<str>, i64>,
    goal: &Goal,
) -> Result<(f64, Option<i64>, i64), String> {
    match goal {
        Goal::Amount(wanted) => {
            let total: i64 = samples
                .values()
                .fold(0, |sum, amount| sum.saturating_add(*amount));
            let amount = total / i64::try_from(samples.len()).unwrap_or(1).max(1);
            Ok((amount as f64 / *wanted as f64, None, amount))
        }
        Goal::Percent(wanted, requests) => {
            let known = samples
                .iter()
                .filter_map(|(name, amount)| Some((*amount, *requests.get(name)?)));
            let (mut used, mut asked, mut count) = (0_i64, 0_i64, 0_i64);
            for (amount, request) in known {
                used = used.saturating_add(amount);
                asked = asked.saturating_add(request);
                count += 1;
            }
            if asked == 0 {
                return Err("no metrics returned matched known pods".to_owned());
            }
            let percent = used.saturating_mul(100) / asked;
            Ok((percent as f64 / *wanted as f64, Some(percent), used / count))
        }
    }
}

/// The size at which pods would use what they are to use.
///
/// # Errors
/// Why that cannot be known, in Kubernetes' sentence.
pub fn propose(
    current: i64,
    samples: &Samples,
    pods: &[Arc<Cached<Pod>>],
    resource: &str,
    wanted: Wanted<'_>,
    tolerances: Tolerances,
    now: Timestamp,
) -> Result<Proposal, String> {
    let groups = Groups::of(pods, samples, resource, now);
    let mut amounts: BTreeMap<Arc<str>, i64> = samples
        .iter()
        .filter(|(name, _)| !groups.ending.contains(*name) && !groups.starting.contains(*name))
        .map(|(name, sample)| (Arc::clone(name), sample.amount))
        .collect();
    if amounts.is_empty() {
        let why = "did not receive metrics for targeted pods (pods might be unready)";
        return Err(why.to_owned());
    }
    let goal = &match wanted {
        Wanted::Amount(amount) => Goal::Amount(amount),
        Wanted::Percent(percent, container) => {
            Goal::Percent(percent, requests(pods, resource, container)?)
        }
    };
    let (ratio, percent, amount) = measure(&amounts, goal)?;
    let proposal = |replicas: i64| Proposal {
        replicas,
        percent,
        amount,
    };
    let size = |ratio: f64, pods: i64| (ratio * pods as f64).ceil() as i64;
    let grows_with_starting = !groups.starting.is_empty() && ratio > 1.0;
    if !grows_with_starting && groups.unread.is_empty() {
        if tolerances.allow(ratio) {
            return Ok(proposal(current));
        }
        return Ok(proposal(size(ratio, groups.known)));
    }
    for name in &groups.unread {
        let guess = match goal {
            _ if ratio > 1.0 => 0,
            _ if ratio == 1.0 => continue,
            Goal::Amount(wanted) => *wanted,
            Goal::Percent(wanted, requests) => {
                let asked = requests.get(name).copied().unwrap_or(0);
                asked.saturating_mul((*wanted).max(100)) / 100
            }
        };
        amounts.insert(Arc::clone(name), guess);
    }
    if grows_with_starting {
        amounts.extend(groups.starting.iter().map(|name| (Arc::clone(name), 0)));
    }
    let (guessed, ..) = measure(&amounts, goal)?;
    let turns = (ratio < 1.0 && guessed > 1.0) || (ratio > 1.0 && guessed < 1.0);
    if tolerances.allow(guessed) || turns {
        return Ok(proposal(current));
    }
    let replicas = size(guessed, i64::try_from(amounts.len()).unwrap_or(i64::MAX));
    let turns = (guessed < 1.0 && replicas > current) || (guessed > 1.0 && replicas < current);
    Ok(proposal(if turns { current } else { replicas }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_api::Object;
    use weft_kinds::POD;

    use super::*;
    use crate::usage::{ContainerUsage, PodUsage};
    use crate::view::{Change, View};

    /// 2026-01-01T01:00:00Z
    const NOW: i64 = 1_767_229_200;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Pods as a line each: what it is, since how many seconds it runs, since how many it is (not) ready, and thousandths
    /// of a core that it uses. Each asked for a tenth of one.
    fn proposed(
        lines: &[(&str, i64, i64, Option<u64>)],
        current: i64,
        wanted: Wanted<'_>,
    ) -> Result<(i64, Option<i64>, i64), String> {
        let mut view = View::new([crate::autoscaler::CONTROLLER.reads]);
        let mut usage = Usage::new();
        for (number, (what, runs, changed, uses)) in lines.iter().enumerate() {
            let name = format!("p{number}");
            let (phase, ready) = match *what {
                "ready" | "deleted" => ("Running", "True"),
                "not ready" => ("Running", "False"),
                phase => (phase, "False"),
            };
            let mut pod = json!({
                "metadata": {"name": name, "namespace": "n", "uid": name, "resourceVersion": "1"},
                "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "1Mi"}}}]},
                "status": {"phase": phase, "startTime": at(NOW - runs).to_string(), "conditions": [
                    {"type": "Ready", "status": ready, "lastTransitionTime": at(NOW - changed).to_string()}]},
            });
            if *what == "deleted" {
                pod["metadata"]["deletionTimestamp"] = json!(at(NOW).to_string());
            }
            let pod = Object::from_value(pod).unwrap();
            view.apply(Change::Upsert(POD.clone(), pod), at(NOW));
            if let Some(milli) = uses {
                let used = ContainerUsage {
                    nano_cores: milli * 1_000_000,
                    memory_bytes: milli << 10,
                };
                let usage_of_pod = PodUsage {
                    at: at(NOW - 5),
                    window: Duration::from_secs(10),
                    containers: [("c".to_owned(), used)].into(),
                };
                usage.insert(crate::Key::new("n", &name), usage_of_pod);
            }
        }
        let pods: Vec<_> = view.list::<Pod>().cloned().collect();
        let tolerances = Tolerances { down: 0.1, up: 0.1 };
        let samples = samples(&usage, &pods, "cpu", None);
        let found = propose(current, &samples, &pods, "cpu", wanted, tolerances, at(NOW))?;
        Ok((found.replicas, found.percent, found.amount))
    }

    const OLD: i64 = 900;

    #[test]
    fn sizes_of_pods_that_are_known() {
        let ready = |uses| ("ready", OLD, OLD, Some(uses));
        let half = Wanted::Percent(50, None);
        for (pods, wanted, expected) in [
            (vec![ready(50), ready(50)], half, (2, Some(50), 50)),
            (vec![ready(100), ready(100)], half, (4, Some(100), 100)),
            (
                vec![ready(10), ready(10), ready(10)],
                half,
                (1, Some(10), 10),
            ),
            (vec![ready(0)], half, (0, Some(0), 0)),
            (vec![ready(54), ready(54)], half, (2, Some(54), 54)),
            (
                vec![ready(90), ready(30)],
                Wanted::Amount(30),
                (4, None, 60),
            ),
            // What ends neither counts nor is missed.
            (
                vec![
                    ready(100),
                    ("deleted", OLD, OLD, Some(900)),
                    ("Failed", OLD, OLD, None),
                ],
                half,
                (2, Some(100), 100),
            ),
            // One that never was ready for long says nothing, but one that was once does.
            (
                vec![ready(25), ("not ready", OLD, OLD - 20, Some(900))],
                half,
                (1, Some(25), 25),
            ),
            (
                vec![ready(25), ("not ready", OLD, 60, Some(75))],
                half,
                (2, Some(50), 50),
            ),
        ] {
            let current = pods.len() as i64;
            assert_eq!(proposed(&pods, current, wanted), Ok(expected), "{pods:?}");
        }
    }

    #[test]
    fn sizes_by_guesses() {
        let ready = |uses| ("ready", OLD, OLD, Some(uses));
        let unread = ("ready", OLD, OLD, None);
        let pending = ("Pending", 0, 0, None);
        let young = ("ready", 60, 3, Some(900));
        let half = Wanted::Percent(50, None);
        for (pods, current, wanted, replicas) in [
            // Busy, and others are idle as far as anybody knows: three times 200 of four.
            (
                vec![ready(200), ready(200), ready(200), unread],
                4,
                half,
                12,
            ),
            (vec![ready(100), unread], 2, half, 2),
            // Idle, and others are as busy as they asked for.
            (vec![ready(0), ready(0), ready(0), unread], 4, half, 2),
            (vec![ready(0), unread], 2, half, 2),
            // Beyond the whole: as busy as they are to be.
            (vec![ready(50), unread], 2, Wanted::Percent(200, None), 2),
            (vec![ready(10), unread], 2, Wanted::Amount(50), 2),
            (vec![ready(0), ready(0), unread], 3, Wanted::Amount(50), 1),
            // Those that begin count as idle where it would grow, and not at all where it would shrink.
            (vec![ready(200), pending], 2, half, 4),
            (vec![ready(100), pending], 2, half, 2),
            (vec![ready(10), pending], 2, half, 1),
            (vec![ready(200), young], 2, half, 4),
            // No guess grows what would shrink.
            (vec![ready(40), unread, unread, unread], 4, half, 4),
        ] {
            let found = proposed(&pods, current, wanted).map(|found| found.0);
            assert_eq!(found, Ok(replicas), "{pods:?}");
        }
        for pods in [
            vec![pending],
            vec![young],
            vec![("not ready", 60, 50, Some(1))],
        ] {
            let why = proposed(&pods, 1, half).unwrap_err();
            assert_eq!(
                why,
                "did not receive metrics for targeted pods (pods might be unready)"
            );
        }
    }

    #[test]
    fn what_was_read_is_rounded_as_the_metrics_api_tells_it() {
        let used = |nano_cores, memory_bytes| ContainerUsage {
            nano_cores,
            memory_bytes,
        };
        let usage_of_pod = PodUsage {
            at: at(NOW),
            window: Duration::from_secs(10),
            containers: [
                ("a".to_owned(), used(1, 1)),
                ("b".to_owned(), used(2_000_001, 2048)),
            ]
            .into(),
        };
        let usage = Usage::from([(crate::Key::new("n", "p"), usage_of_pod)]);
        let mut view = View::new([crate::autoscaler::CONTROLLER.reads]);
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "p", "resourceVersion": "1"}});
        view.apply(
            Change::Upsert(POD.clone(), Object::from_value(pod).unwrap()),
            at(NOW),
        );
        let pods: Vec<_> = view.list::<Pod>().cloned().collect();
        for (resource, container, amount) in [
            ("cpu", None, Some(4)),
            ("cpu", Some("b"), Some(3)),
            ("memory", None, Some(3_072_000)),
            ("memory", Some("c"), None),
            ("x.y/z", None, None),
        ] {
            let found = samples(&usage, &pods, resource, container);
            let found = found.values().next().map(|sample| sample.amount);
            assert_eq!(found, amount, "{resource} {container:?}");
        }
    }
}
