//! How many seats a request takes: one, but for lists, and for watches that begin with one.
//!
//! A list holds objects in memory while it is sent, a hundred of which count as a seat. What is sent in parts of a megabyte takes no more than ten
//! seats ([`WIDTH_MAX`]), and never more than a level has for one flow. Pure.

use crate::request::{Params, RequestInfo};

/// Objects that are dealt with by a seat: of a kilobyte each, a tenth of what is in memory at a time of the largest list.
const OBJECTS_PER_SEAT: usize = 100;
/// The widest request, as in Kubernetes.
const WIDTH_MAX: u32 = 10;
/// No request takes more of its level.
const PERCENT_OF_LEVEL: u64 = 15;

/// The widest request of a level, by its seats and how many queues a flow has.
pub(super) fn widest(nominal: u32, hand: Option<u32>) -> u32 {
    let Some(hand) = hand else {
        return WIDTH_MAX;
    };
    let part = (u64::from(nominal) * PERCENT_OF_LEVEL).div_ceil(100);
    let part = u32::try_from(part).unwrap_or(WIDTH_MAX);
    part.min(nominal / hand.max(1)).clamp(1, WIDTH_MAX)
}

/// The seats of a request. `stored` is how many objects of a kind there are, as far as that is known; it is asked of lists only.
pub(super) fn of(info: &RequestInfo, widest: u32, stored: impl FnOnce() -> usize) -> u32 {
    let Ok(params) = info.params() else {
        return 1;
    };
    if !lists(info.verb, params) || info.access().is_some_and(|access| access.name.is_some()) {
        return 1;
    }
    let limit = params.get("limit").and_then(|limit| limit.parse().ok());
    let limit = limit.filter(|limit| *limit > 0);
    let objects = stored().min(limit.unwrap_or(usize::MAX));
    let seats = u32::try_from(objects.div_ceil(OBJECTS_PER_SEAT)).unwrap_or(widest);
    seats.clamp(1, widest)
}

/// Whether what there is, is sent.
fn lists(verb: &str, params: &Params) -> bool {
    match verb {
        "list" => true,
        "watch" => {
            let from_nowhere = matches!(params.get("resourceVersion"), None | Some("0"));
            from_nowhere || params.flag("sendInitialEvents") == Some(true)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use weft_kinds::Registry;

    use super::*;

    #[test]
    fn lists_are_as_wide_as_what_they_carry() {
        for (line, stored, seats) in [
            ("GET /api/v1/pods", 0, 1),
            ("GET /api/v1/pods", 100, 1),
            ("GET /api/v1/pods", 101, 2),
            ("GET /api/v1/pods", 1_000_000, 10),
            ("GET /api/v1/pods?limit=150", 1_000_000, 2),
            ("GET /api/v1/pods?limit=nonsense", 250, 3),
            ("GET /api/v1/pods?fieldSelector=metadata.name%3Da", 900, 1),
            ("GET /api/v1/namespaces/a/pods/p", 900, 1),
            ("POST /api/v1/namespaces/a/pods", 900, 1),
            ("GET /api/v1/pods?watch=1", 900, 9),
            ("GET /api/v1/pods?watch=1&resourceVersion=0", 900, 9),
            ("GET /api/v1/pods?watch=1&resourceVersion=7", 900, 1),
            (
                "GET /api/v1/pods?watch=1&resourceVersion=7&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
                900,
                9,
            ),
            ("GET /healthz", 900, 1),
        ] {
            let (method, path) = line.split_once(' ').unwrap();
            let method: Method = method.parse().unwrap();
            let info = RequestInfo::of(&Registry::builtin(), &method, &path.parse().unwrap());
            assert_eq!(of(&info, WIDTH_MAX, || stored), seats, "{line} {stored}");
        }
    }

    #[test]
    fn no_request_takes_a_level() {
        for (nominal, hand, seats) in [
            (74, Some(6), 10),
            (98, Some(6), 10),
            (25, Some(4), 4),
            (49, Some(6), 8),
            (1, Some(8), 1),
            (0, Some(1), 1),
            (13, None, 10),
        ] {
            assert_eq!(widest(nominal, hand), seats, "{nominal} {hand:?}");
        }
    }
}
