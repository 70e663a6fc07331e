//! What a workload asks for of one call that it makes.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::{CallContext, Priority};

/// The shortest time after which a second try may begin beside the first.
pub const HEDGE_AFTER_MIN: Duration = Duration::from_millis(1);
/// Bytes of a key that count.
pub const KEY_BYTES_MAX: usize = 256;

/// What a workload asks for of one call: an extension of its request. Whoever makes the call takes it off, and what it does not say is as
/// policies have it. Nothing in it gives its caller more than it has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallOptions {
    /// It may be made twice, whatever its method is.
    pub idempotent: bool,
    /// It is shown to one workload at most, whatever its method is and whatever policies say.
    pub once: bool,
    /// When a second try begins beside the first. [`HEDGE_AFTER_MIN`] at least.
    pub hedge_after: Option<Duration>,
    /// Calls with the same one go to the same endpoint, as long as that is well: made by [`CallOptions::key_of`].
    pub key: Option<u64>,
    /// Its answer has to begin within that.
    pub within: Option<Duration>,
    /// It matters no more than that.
    pub at_most: Option<Priority>,
}

impl CallOptions {
    /// Fowler, Noll and Vo's hash (FNV-1a) of the first [`KEY_BYTES_MAX`] bytes: the same on every node.
    #[must_use]
    pub fn key_of(bytes: &[u8]) -> u64 {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        let bytes = bytes.iter().take(KEY_BYTES_MAX);
        bytes.fold(OFFSET, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(PRIME)
        })
    }

    /// Brings the deadline forward and lowers the priority of a call that begins at `now`; neither goes the other way.
    pub fn bound(&self, context: &mut CallContext, now: Instant) {
        if let Some(priority) = self.at_most {
            context.priority = context.priority.lowered_to(priority);
        }
        if let Some(until) = self.within.and_then(|within| now.checked_add(within)) {
            context.deadline = Some(context.deadline.map_or(until, |least| least.min(until)));
        }
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "there is no other way to an Instant"
)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_gives_up_what_it_has_and_gets_nothing_for_it() {
        let now = Instant::now();
        let after = |seconds| Some(now + Duration::from_secs(seconds));
        let within = |seconds| Some(Duration::from_secs(seconds));
        for (deadline, asked, expected) in [
            (after(5), within(2), after(2)),
            (after(5), within(60), after(5)),
            (None, within(60), after(60)),
            (after(5), None, after(5)),
            (None, Some(Duration::MAX), None),
        ] {
            let mut context = CallContext {
                deadline,
                ..CallContext::default()
            };
            let options = CallOptions {
                within: asked,
                ..CallOptions::default()
            };
            options.bound(&mut context, now);
            assert_eq!(context.deadline, expected, "{asked:?}");
        }
        for (priority, at_most, expected) in [
            (Priority::Usual, Priority::Critical, Priority::Usual),
            (Priority::Usual, Priority::Sheddable, Priority::Sheddable),
            (Priority::Low, Priority::Usual, Priority::Low),
        ] {
            let mut context = CallContext {
                priority,
                ..CallContext::default()
            };
            let options = CallOptions {
                at_most: Some(at_most),
                ..CallOptions::default()
            };
            options.bound(&mut context, now);
            assert_eq!(context.priority, expected);
        }
    }

    #[test]
    fn a_key_is_the_same_everywhere_and_of_a_long_one_the_beginning_counts() {
        // Of the published test vectors.
        assert_eq!(CallOptions::key_of(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(CallOptions::key_of(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(CallOptions::key_of(b"foobar"), 0x8594_4171_f739_67e8);
        let long = [b'x'; KEY_BYTES_MAX + 1];
        assert_eq!(
            CallOptions::key_of(&long),
            CallOptions::key_of(&long[..KEY_BYTES_MAX])
        );
    }
}
