//! One object as a register with conditions, for porcupine, which searches an order that explains what everybody was told
//! about it (Wing and Gong's search with Lowe's memory of what it has tried).
//!
//! It knows nothing of revisions. The simulation and the campaign with real processes (`tests/examples/chaos/`) both
//! bring their histories into this form.

use porcupine_rs::{Model, Operation, check_operations};

/// What the register holds: a number for each value that was ever written.
pub type Value = u64;

/// What has to hold of the register before a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Whatever it holds.
    Any,
    /// It holds nothing.
    Absent,
    /// It holds something.
    Present,
    /// It holds this.
    Is(Value),
}

impl Condition {
    fn holds(self, found: Option<Value>) -> bool {
        match self {
            Condition::Any => true,
            Condition::Absent => found.is_none(),
            Condition::Present => found.is_some(),
            Condition::Is(value) => found == Some(value),
        }
    }
}

/// What was done with the register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A write or, with nothing to write, a removal, under a condition.
    Write { value: Option<Value>, on: Condition },
    /// A write was refused because its condition did not hold.
    Refused { on: Condition },
    /// A reader was shown this.
    Read(Option<Value>),
}

/// One action on one register.
#[derive(Debug, Clone)]
pub struct Step {
    pub asked: u64,
    /// `None` where nobody knows whether it happened: it may have at any later time, or never.
    pub answered: Option<u64>,
    pub action: Action,
}

#[derive(Debug, Clone)]
struct Register;

impl Model for Register {
    type State = Option<Value>;
    /// The action, and whether it was answered.
    type Op = (Action, bool);
    type Metadata = ();

    fn init() -> Self::State {
        None
    }

    fn step(found: &Self::State, (action, answered): &Self::Op) -> (bool, Self::State) {
        match action {
            Action::Write { value, on } if on.holds(*found) => (true, *value),
            // It may have been refused, and nobody was told.
            Action::Write { .. } => (!answered, *found),
            Action::Refused { on } => (!on.holds(*found), *found),
            Action::Read(seen) => (seen == found, *found),
        }
    }
}

/// Most steps of one register that are searched: the memory of what was tried grows with their square, 50 MB here.
pub const STEPS_MAX: usize = 20_000;

/// Keeps the first of them, as they would look had the history ended there.
pub fn cut(mut steps: Vec<Step>) -> Vec<Step> {
    steps.sort_by_key(|step| step.asked);
    let Some(end) = steps.get(STEPS_MAX).map(|step| step.asked) else {
        return steps;
    };
    steps.truncate(STEPS_MAX);
    steps.retain_mut(|step| {
        if step.answered.is_some_and(|answered| answered < end) {
            return true;
        }
        // What was under way may have met what is left out: a write may have happened, a reader proves nothing.
        step.answered = None;
        matches!(step.action, Action::Write { .. })
    });
    steps
}

/// Whether there is an order in which a register would have answered like this. Reads and refusals have to be answered.
pub fn explains(steps: &[Step]) -> bool {
    let time = |moment: u64| i64::try_from(moment).unwrap_or(i64::MAX);
    let operations: Vec<Operation<Register>> = steps
        .iter()
        .map(|step| Operation {
            client_id: None,
            call_time: time(step.asked),
            // After everything else, what never happened harms nobody.
            return_time: step.answered.map_or(i64::MAX, time),
            op: (step.action, step.answered.is_some()),
            metadata: None,
        })
        .collect();
    check_operations(&operations)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(asked: u64, answered: u64, action: Action) -> Step {
        Step {
            asked,
            answered: Some(answered),
            action,
        }
    }

    fn lost(asked: u64, action: Action) -> Step {
        Step {
            asked,
            answered: None,
            action,
        }
    }

    fn write(value: Value, on: Condition) -> Action {
        Action::Write {
            value: Some(value),
            on,
        }
    }

    fn remove(on: Condition) -> Action {
        Action::Write { value: None, on }
    }

    #[test]
    fn orders_and_their_absence_are_found() {
        use Action::{Read, Refused};
        use Condition::{Absent, Any, Is, Present};
        for (case, steps, expected) in [
            ("nothing", vec![], true),
            (
                "read back",
                vec![step(1, 2, write(1, Any)), step(3, 4, Read(Some(1)))],
                true,
            ),
            (
                "stale",
                vec![step(1, 2, write(1, Any)), step(3, 4, Read(None))],
                false,
            ),
            (
                "overlap",
                vec![step(1, 4, write(1, Any)), step(2, 3, Read(None))],
                true,
            ),
            (
                "lost answer, seen",
                vec![lost(1, write(1, Any)), step(2, 3, Read(Some(1)))],
                true,
            ),
            (
                "lost answer, seen late",
                vec![
                    lost(1, write(1, Any)),
                    step(2, 3, Read(None)),
                    step(4, 5, Read(Some(1))),
                ],
                true,
            ),
            (
                "lost answer, never in effect",
                vec![
                    lost(1, write(1, Absent)),
                    step(2, 3, write(2, Absent)),
                    step(4, 5, Read(Some(2))),
                ],
                true,
            ),
            (
                "lost answer, twice in effect",
                vec![
                    lost(1, write(1, Any)),
                    step(2, 3, Read(Some(1))),
                    step(4, 5, remove(Any)),
                    step(6, 7, Read(Some(1))),
                ],
                false,
            ),
            (
                "lost answer, seen before it was asked for",
                vec![step(1, 2, Read(Some(1))), lost(3, write(1, Any))],
                false,
            ),
            (
                "back in time",
                vec![
                    step(1, 2, write(1, Any)),
                    step(3, 4, write(2, Any)),
                    step(5, 6, Read(Some(2))),
                    step(7, 8, Read(Some(1))),
                ],
                false,
            ),
            (
                "created twice",
                vec![step(1, 2, write(1, Absent)), step(3, 4, write(2, Absent))],
                false,
            ),
            (
                "both over the same",
                vec![
                    step(1, 2, write(1, Any)),
                    step(3, 6, write(2, Is(1))),
                    step(4, 5, write(3, Is(1))),
                ],
                false,
            ),
            (
                "refused by what was there",
                vec![
                    step(1, 2, write(1, Any)),
                    step(3, 4, Refused { on: Absent }),
                ],
                true,
            ),
            (
                "refused by nothing",
                vec![
                    step(1, 2, write(1, Any)),
                    step(3, 4, remove(Present)),
                    step(5, 6, Refused { on: Absent }),
                ],
                false,
            ),
        ] {
            assert_eq!(explains(&steps), expected, "{case}");
        }
    }

    #[test]
    fn a_long_history_is_cut_where_it_proves_something() {
        let mut steps: Vec<_> = (0..STEPS_MAX as u64)
            .map(|n| step(10 * n, 10 * n + 5, write(n, Condition::Any)))
            .collect();
        // Under way at the cut: one that may be in effect, and one that saw what came after.
        let end = 10 * STEPS_MAX as u64;
        steps[7].answered = Some(end + 9);
        steps[8] = step(80, end + 9, Action::Read(Some(u64::MAX)));
        steps.push(step(end, end + 5, write(u64::MAX, Condition::Any)));
        let kept = cut(steps);
        assert_eq!(kept.len(), STEPS_MAX - 1);
        assert_eq!(kept[7].answered, None);
        assert!(explains(&kept));
    }
}
