//! What ConfigMaps and Secrets share: sizes, and data that may not change any more.

use crate::field::Field;
use crate::validate::Problems;

/// Data of one ConfigMap or Secret, decoded: room for a certificate chain or a release of a chart, not for an image.
pub(crate) const DATA_BYTES_MAX: usize = 1 << 20;

/// How many bytes a value in base64 stands for. That it is base64 was seen to when it was decoded.
pub(crate) fn decoded_bytes(value: &Field<'_, '_>) -> usize {
    value.text().trim_end_matches('=').len() * 3 / 4
}

pub(crate) fn immutable_data(
    new: &Field<'_, '_>,
    old: &Field<'_, '_>,
    members: &[&str],
    problems: &mut Problems,
) {
    const SENTENCE: &str = "field is immutable when `immutable` is set";
    if !old.child("immutable").flag() {
        return;
    }
    let still = new.child("immutable");
    if !still.flag() {
        problems.forbidden(&still, SENTENCE);
    }
    for member in members {
        let (data, kept) = (new.child(member), old.child(member));
        if data.map() != kept.map() {
            problems.forbidden(&data, SENTENCE);
        }
    }
}
