//! How far a size may be from the one before: the bounds of the object, how fast it may change, and what was recommended
//! lately.
//!
//! Without `behavior` a target shrinks only to the largest size of the last five minutes, and grows at most to twice its
//! size, or four. With one, the windows and rates are its own.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

use super::past::Past;
use crate::plus_seconds;

/// Kubernetes' `--horizontal-pod-autoscaler-downscale-stabilization`.
const STABLE_SECONDS: i64 = 300;
const GROWTH_FACTOR: i64 = 2;
const GROWTH_MIN: i64 = 4;

const TOO_MANY: Reason = (
    "TooManyReplicas",
    "the desired replica count is more than the maximum replica count",
);
const TOO_FEW: Reason = (
    "TooFewReplicas",
    "the desired replica count is less than the minimum replica count",
);
const TOO_FAST_UP: Reason = (
    "ScaleUpLimit",
    "the desired replica count is increasing faster than the maximum scale rate",
);
const TOO_FAST_DOWN: Reason = (
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
);
const WITHIN: Reason = (
    "DesiredWithinRange",
    "the desired count is within the acceptable range",
);
const READY: Reason = ("ReadyForNewScale", "recommended size matches current size");
const STABLE_UP: Reason = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const STABLE_DOWN: Reason = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);

/// Reason and message of a condition.
pub type Reason = (&'static str, &'static str);

/// The sizes that a new one is judged by.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub min: i64,
    pub max: i64,
    pub current: i64,
    pub desired: i64,
}

/// What became of a size.
#[derive(Debug, PartialEq, Eq)]
pub struct Limited {
    pub replicas: i64,
    /// Of `AbleToScale`.
    pub able: Reason,
    /// Of `ScalingLimited`, and whether that holds.
    pub limited: (bool, Reason),
}

/// Keeps a desired size within all bounds, and remembers that it was desired.
pub fn limit(
    behavior: Option<&HorizontalPodAutoscalerBehavior>,
    sizes: Sizes,
    past: &mut Past,
    now: Timestamp,
) -> Limited {
    let rules = behavior.and_then(|b| Some((b.scale_up.as_ref()?, b.scale_down.as_ref()?)));
    let (stable, why) = match rules {
        Some((up, down)) => stabilised(
            sizes,
            window(up, 0),
            window(down, STABLE_SECONDS),
            past,
            now,
        ),
        None => (highest(sizes.desired, past, now), STABLE_DOWN),
    };
    past.recommend(now, sizes.desired);
    let sizes_now = Sizes {
        desired: stable,
        ..sizes
    };
    let (replicas, reason) = match rules {
        Some((up, down)) => within_rates(sizes_now, up, down, past, now),
        None => within_bounds(sizes_now),
    };
    Limited {
        replicas,
        able: if stable == sizes.desired { READY } else { why },
        limited: (replicas != stable, reason),
    }
}

fn window(rules: &HPAScalingRules, default: i64) -> i64 {
    rules
        .stabilization_window_seconds
        .map_or(default, i64::from)
}

fn highest(desired: i64, past: &Past, now: Timestamp) -> i64 {
    let since = plus_seconds(now, -STABLE_SECONDS);
    let recent = past.recommended().iter().filter(|(at, _)| *at >= since);
    recent.map(|(_, size)| *size).fold(desired, i64::max)
}

/// The size nearest to the current one between the lowest recommendation of one window and the highest of the other.
fn stabilised(sizes: Sizes, up: i64, down: i64, past: &Past, now: Timestamp) -> (i64, Reason) {
    let (up, down) = (plus_seconds(now, -up), plus_seconds(now, -down));
    let (mut lowest, mut highest) = (sizes.desired, sizes.desired);
    for (at, size) in past.recommended() {
        if *at > up {
            lowest = lowest.min(*size);
        }
        if *at > down {
            highest = highest.max(*size);
        }
    }
    let why = if sizes.desired >= sizes.current {
        STABLE_UP
    } else {
        STABLE_DOWN
    };
    (sizes.current.max(lowest).min(highest), why)
}

fn within_bounds(sizes: Sizes) -> (i64, Reason) {
    let fastest = (sizes.current * GROWTH_FACTOR).max(GROWTH_MIN);
    let (most, why) = match sizes.max > fastest {
        true => (fastest, TOO_FAST_UP),
        false => (sizes.max, TOO_MANY),
    };
    if sizes.desired < sizes.min {
        (sizes.min, TOO_FEW)
    } else if sizes.desired > most {
        (most, why)
    } else {
        (sizes.desired, WITHIN)
    }
}

fn within_rates(
    sizes: Sizes,
    up: &HPAScalingRules,
    down: &HPAScalingRules,
    past: &Past,
    now: Timestamp,
) -> (i64, Reason) {
    if sizes.desired > sizes.current {
        let fastest = largest_allowed(sizes.current, up, past, now).max(sizes.current);
        let (most, why) = match sizes.max > fastest {
            true => (fastest, TOO_FAST_UP),
            false => (sizes.max, TOO_MANY),
        };
        if sizes.desired > most {
            return (most, why);
        }
    } else if sizes.desired < sizes.current {
        let fastest = smallest_allowed(sizes.current, down, past, now).min(sizes.current);
        let (least, why) = match sizes.min < fastest {
            true => (fastest, TOO_FAST_DOWN),
            false => (sizes.min, TOO_FEW),
        };
        if sizes.desired < least {
            return (least, why);
        }
    }
    (sizes.desired, WITHIN)
}

/// What the policies allow, each by the size that the target had when its period began.
fn allowed(
    current: i64,
    rules: &HPAScalingRules,
    past: &Past,
    now: Timestamp,
    change: impl Fn(&str, i64, i64) -> i64,
) -> Vec<i64> {
    let policies = rules.policies.iter().flatten();
    policies
        .map(|policy| {
            let begun = current - past.growth(now, i64::from(policy.period_seconds));
            change(&policy.type_, begun, i64::from(policy.value))
        })
        .collect()
}

fn largest_allowed(current: i64, rules: &HPAScalingRules, past: &Past, now: Timestamp) -> i64 {
    let sizes = allowed(current, rules, past, now, |kind, begun, value| match kind {
        "Pods" => begun + value,
        // Rounded up, so that a small target grows at all.
        _ => (begun as f64 * (1.0 + value as f64 / 100.0)).ceil() as i64,
    });
    let chosen = match rules.select_policy.as_deref() {
        Some("Disabled") => None,
        Some("Min") => sizes.into_iter().min(),
        _ => sizes.into_iter().max(),
    };
    chosen.unwrap_or(current)
}

fn smallest_allowed(current: i64, rules: &HPAScalingRules, past: &Past, now: Timestamp) -> i64 {
    let sizes = allowed(current, rules, past, now, |kind, begun, value| match kind {
        "Pods" => begun - value,
        _ => (begun as f64 * (1.0 - value as f64 / 100.0)) as i64,
    });
    let chosen = match rules.select_policy.as_deref() {
        Some("Disabled") => None,
        Some("Min") => sizes.into_iter().max(),
        _ => sizes.into_iter().min(),
    };
    chosen.unwrap_or(current)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn sizes(current: i64, desired: i64) -> Sizes {
        Sizes {
            min: 2,
            max: 20,
            current,
            desired,
        }
    }

    /// The size that comes out, and the reasons of both conditions.
    fn limited(
        behavior: Option<&Value>,
        now: Sizes,
        past: &mut Past,
        second: i64,
    ) -> (i64, &'static str, &'static str) {
        let behavior = behavior.map(|b| serde_json::from_value(b.clone()).unwrap());
        let found = limit(behavior.as_ref(), now, past, at(second));
        assert_eq!(found.limited.0, found.limited.1 != WITHIN);
        (found.replicas, found.able.0, found.limited.1.0)
    }

    #[test]
    fn without_a_behavior_growth_is_doubled_and_shrinking_waits() {
        for (current, desired, expected) in [
            (3, 4, (4, READY.0, WITHIN.0)),
            (1, 9, (4, READY.0, TOO_FAST_UP.0)),
            (3, 9, (6, READY.0, TOO_FAST_UP.0)),
            (12, 30, (20, READY.0, TOO_MANY.0)),
            (3, 1, (2, READY.0, TOO_FEW.0)),
            (0, 1, (2, READY.0, TOO_FEW.0)),
        ] {
            let found = limited(None, sizes(current, desired), &mut Past::default(), 0);
            assert_eq!(found, expected, "{current} to {desired}");
        }
        let mut past = Past::default();
        past.begin(at(0), 10);
        let mut story = Vec::new();
        for second in [15, 100, 299, 300, 301, 400] {
            story.push(limited(None, sizes(10, 5), &mut past, second).0);
        }
        assert_eq!(story, [10, 10, 10, 10, 5, 5]);
        assert_eq!(
            limited(None, sizes(10, 4), &mut past, 402),
            (5, STABLE_DOWN.0, WITHIN.0)
        );
    }

    #[test]
    fn policies_limit_the_rate_of_change() {
        let rules = |select: &str, policies: Value| json!({"selectPolicy": select, "stabilizationWindowSeconds": 0, "policies": policies});
        let policy =
            |kind: &str, value: i64| json!({"type": kind, "value": value, "periodSeconds": 60});
        let both = json!([policy("Pods", 4), policy("Percent", 50)]);
        for (select, current, desired, expected) in [
            ("Max", 10, 18, (15, TOO_FAST_UP.0)),
            ("Min", 10, 18, (14, TOO_FAST_UP.0)),
            ("Disabled", 10, 18, (10, TOO_FAST_UP.0)),
            ("Max", 10, 12, (12, WITHIN.0)),
            ("Max", 18, 40, (20, TOO_MANY.0)),
            ("Max", 10, 3, (5, TOO_FAST_DOWN.0)),
            ("Min", 10, 3, (6, TOO_FAST_DOWN.0)),
            ("Disabled", 10, 3, (10, TOO_FAST_DOWN.0)),
            ("Max", 3, 0, (2, TOO_FEW.0)),
            ("Max", 10, 10, (10, WITHIN.0)),
        ] {
            let behavior = json!({"scaleUp": rules(select, both.clone()), "scaleDown": rules(select, both.clone())});
            let (replicas, _, reason) = limited(
                Some(&behavior),
                sizes(current, desired),
                &mut Past::default(),
                0,
            );
            assert_eq!(
                (replicas, reason),
                expected,
                "{select} {current} to {desired}"
            );
        }
        // What was added in the period counts.
        let behavior = json!({"scaleUp": rules("Max", json!([policy("Pods", 4)])), "scaleDown": rules("Max", both)});
        let mut past = Past::default();
        past.rescale(at(0), 6, 9);
        assert_eq!(limited(Some(&behavior), sizes(9, 18), &mut past, 30).0, 10);
        assert_eq!(limited(Some(&behavior), sizes(9, 18), &mut past, 60).0, 13);
        past.rescale(at(60), 9, 16);
        assert_eq!(
            limited(Some(&behavior), sizes(16, 18), &mut past, 61).0,
            16,
            "more than it may"
        );
    }

    #[test]
    fn windows_hold_the_size_between_what_was_recommended() {
        let rules = |window: i64| {
            json!({"stabilizationWindowSeconds": window, "selectPolicy": "Max",
            "policies": [{"type": "Percent", "value": 900, "periodSeconds": 15}]})
        };
        let behavior = json!({"scaleUp": rules(60), "scaleDown": rules(120)});
        let mut past = Past::default();
        past.begin(at(0), 5);
        let mut look = |second, current, desired| {
            limited(Some(&behavior), sizes(current, desired), &mut past, second)
        };
        assert_eq!(look(30, 5, 10), (5, STABLE_UP.0, WITHIN.0));
        assert_eq!(
            look(61, 5, 8),
            (8, READY.0, WITHIN.0),
            "the lowest of the last minute"
        );
        assert_eq!(look(75, 8, 3), (8, STABLE_DOWN.0, WITHIN.0));
        assert_eq!(look(160, 8, 3), (8, STABLE_DOWN.0, WITHIN.0));
        assert_eq!(look(182, 8, 3), (3, READY.0, WITHIN.0));
        // The window of shrinking is five minutes where none is named.
        let behavior = json!({"scaleUp": rules(0), "scaleDown": {"policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}});
        let mut past = Past::default();
        past.begin(at(0), 9);
        assert_eq!(limited(Some(&behavior), sizes(9, 3), &mut past, 299).0, 9);
        assert_eq!(limited(Some(&behavior), sizes(9, 3), &mut past, 300).0, 3);
    }
}
