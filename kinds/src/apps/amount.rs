//! Numbers of pods, or shares of them: `3`, `25%`.

use serde_json::Value;

use crate::field::Field;
use crate::validate::Problems;

const NO_PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";

/// A number of pods, or a share of them.
pub(crate) fn amount_or_percent(field: &Field<'_, '_>, problems: &mut Problems) {
    match field.value() {
        Some(Value::String(text)) if percent_of(field).is_none() => {
            problems.invalid(field, text.as_str(), NO_PERCENT);
        }
        Some(Value::String(_)) | None => {}
        Some(Value::Number(_)) => problems.not_negative(field),
        Some(other) => {
            let sentence = "must be an integer or percentage (e.g '5%%')";
            problems.invalid(field, other.clone(), sentence);
        }
    }
}

/// A percentage; one with more digits than a number holds is the largest.
fn percent_of(field: &Field<'_, '_>) -> Option<i64> {
    let digits = field.text().strip_suffix('%')?;
    let numeric = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    numeric.then(|| digits.parse().unwrap_or(i64::MAX))
}

pub(super) fn amount_of(field: &Field<'_, '_>) -> i64 {
    // A text without a percent sign is a number to Go.
    let number = || field.text().parse().ok();
    percent_of(field)
        .or(field.integer())
        .or_else(number)
        .unwrap_or(0)
}

/// No share is more than the whole.
pub(crate) fn at_most_all(field: &Field<'_, '_>, problems: &mut Problems) {
    if percent_of(field).is_some_and(|percent| percent > 100) {
        problems.invalid(field, field.shown(), "must not be greater than 100%");
    }
}
