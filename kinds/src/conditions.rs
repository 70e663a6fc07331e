//! Conditions as most kinds have them today: each type once, with a reason in one word and the time that it changed at.
//!
//! After `ValidateConditions` of k8s.io/apimachinery. Kinds from before have conditions of their own, judged in their files.

use std::collections::BTreeSet;

use weft_api::name;

use crate::field::Field;
use crate::validate::Problems;

const REASON_BYTES_MAX: usize = 1 << 10;
const MESSAGE_BYTES_MAX: usize = 32 << 10;

/// Judges the `conditions` of a status.
pub(crate) fn conditions(status: &Field<'_, '_>, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for condition in status.items("conditions") {
        let kind = condition.child("type");
        if !seen.insert(kind.text()) {
            problems.duplicate(&condition, kind.text());
        }
        if kind.text().is_empty() {
            problems.required(&kind, "is required");
        } else {
            problems.rule(&kind, name::qualified_name_faults);
        }
        problems.required_one_of(&condition.child("status"), &["False", "True", "Unknown"]);
        let observed = condition.child("observedGeneration");
        if let Some(generation) = observed.integer().filter(|generation| *generation < 0) {
            let sentence = "must be greater than or equal to zero";
            problems.invalid(&observed, generation, sentence);
        }
        problems.required_text(&condition.child("lastTransitionTime"));
        let reason = condition.child("reason");
        problems.required_rule(&reason, reason_faults);
        if reason.text().len() > REASON_BYTES_MAX {
            problems.too_long(&reason, REASON_BYTES_MAX);
        }
        let message = condition.child("message");
        if message.text().len() > MESSAGE_BYTES_MAX {
            problems.too_long(&message, MESSAGE_BYTES_MAX);
        }
    }
}

/// Reasons of conditions.
pub(crate) fn reason_faults(text: &str) -> Vec<String> {
    const SENTENCE: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";
    let within = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b',' | b':');
    let starts = text.starts_with(|letter: char| letter.is_ascii_alphabetic());
    let sound = starts && !text.ends_with([',', ':']) && text.bytes().all(within);
    (!sound).then(|| SENTENCE.to_owned()).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_word() {
        for (text, sound) in [
            ("Ready", true),
            ("A,B:C_", true),
            ("r r", false),
            ("1st", false),
            ("Late,", false),
            ("", false),
        ] {
            assert_eq!(reason_faults(text).is_empty(), sound, "{text:?}");
        }
    }
}
