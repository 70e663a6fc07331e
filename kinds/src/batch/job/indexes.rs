//! Indexes of pods as texts: `1,3-5,7`.

/// The indexes of a text, in order: the first and the last of each interval, below `completions`.
pub(super) fn parse(text: &str, completions: i64) -> Result<Vec<(i64, i64)>, String> {
    let mut intervals: Vec<(i64, i64)> = Vec::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = interval(part, completions)?;
        if let Some((_, before)) = intervals.last().filter(|(_, before)| *before >= first) {
            return Err(format!(
                "non-increasing order, previous: {before}, current: {first}"
            ));
        }
        intervals.push((first, last));
    }
    Ok(intervals)
}

fn interval(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let limits: Vec<&str> = text.split('-').collect();
    let index = |text: &str| {
        let index = text
            .parse::<i64>()
            .map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        match index < completions {
            true => Ok(index),
            false => Err(format!("too large index: {text:?}")),
        }
    };
    match limits.as_slice() {
        [one] => index(one).map(|one| (one, one)),
        [first, last] => {
            let (first, last) = (index(first)?, index(last)?);
            match first < last {
                true => Ok((first, last)),
                false => Err(format!(
                    "non-increasing order, previous: {first}, current: {last}"
                )),
            }
        }
        _ => Err(format!(
            "the fragment {text:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        )),
    }
}

/// The first index that is in both texts, of what can be read of them.
pub(super) fn overlap(completed: &str, failed: &str, completions: i64) -> Option<i64> {
    let sound = |text: &str| -> Vec<(i64, i64)> {
        let parts = text.split(',');
        parts
            .filter_map(|part| interval(part, completions).ok())
            .collect()
    };
    let (completed, failed) = (sound(completed), sound(failed));
    let common = completed.iter().flat_map(|(first, last)| {
        let overlapping = failed.iter().filter(move |(x, y)| first <= y && x <= last);
        overlapping.map(move |(x, _)| *first.max(x))
    });
    common.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_rise_and_are_below_the_completions() {
        assert_eq!(parse("", 5), Ok(vec![]));
        assert_eq!(parse("1,3-4", 5), Ok(vec![(1, 1), (3, 4)]));
        for (text, expected) in [
            ("0-9", "too large index: \"9\""),
            ("a", "cannot convert string to integer for index: \"a\""),
            ("3,2", "non-increasing order, previous: 3, current: 2"),
            ("3-3", "non-increasing order, previous: 3, current: 3"),
            (
                "1-2-3",
                "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two parts separated by '-'",
            ),
        ] {
            assert_eq!(parse(text, 5), Err(expected.to_owned()), "{text}");
        }
        assert_eq!(overlap("0-3,5", "4,5", 6), Some(5));
        assert_eq!(overlap("0-3,x", "4", 6), None);
    }
}
