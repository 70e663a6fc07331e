//! Whether two refusals say the same, but for what a server makes up, and what is kept apart on purpose.

use serde_json::Value;

use crate::is_custom;

/// Whether two refusals of the same request say the same.
pub fn same_message(theirs: &str, ours: &str, manifest: &Value) -> bool {
    const REJECTED: &str = "the server rejected our request due to an error in our request";
    // Our message may go on where theirs ends.
    // What is no Status has no message.
    if theirs == ours || theirs.is_empty() || (theirs == REJECTED && ours.starts_with(REJECTED)) {
        return true;
    }
    let comparable = |message: &str| {
        let message = without_time(&without_place(&without_patch(&without_apply(message))));
        let message = without_suffix(&without_records(&message), manifest);
        let (head, mut causes) = causes_of(&message);
        causes.retain(|cause| !cause.contains("Not found: \"kube-api-access-"));
        if is_custom(manifest) {
            // The validator of custom kinds walks Go's maps: its own order changes from run to run.
            causes.sort();
        }
        (head, causes)
    };
    let ((their_head, theirs), (our_head, ours)) = (comparable(theirs), comparable(ours));
    let pairs = || theirs.iter().zip(&ours);
    their_head == our_head
        && theirs.len() == ours.len()
        && pairs().all(|(theirs, ours)| same_cause(theirs, ours))
}

/// Whether two causes are one: values that are empty, and those that upstream shows as structs of Go, are not compared.
fn same_cause(theirs: &str, ours: &str) -> bool {
    let empty = |cause: &str| {
        let cause = cause.replace("alue: {}:", "alue: null:");
        cause.replace("alue: []:", "alue: null:")
    };
    theirs == ours
        || empty(theirs) == empty(ours)
        || is_struct(theirs) && without_value(theirs) == without_value(ours)
}

/// Whether a cause shows an object with a name that begins as those of Go's fields do.
fn is_struct(cause: &str) -> bool {
    let value = cause.split_once("alue: ").map_or("", |(_, value)| value);
    let mut names = value.split('"').skip(1);
    value.starts_with(['{', '['])
        && names.any(|name| name.starts_with(|first: char| first.is_ascii_uppercase()))
}

/// A cause without the object or list that it shows.
fn without_value(cause: &str) -> String {
    let Some((head, value)) = cause.split_once("alue: ") else {
        return cause.to_owned();
    };
    let end = ["}: ", "]: "]
        .iter()
        .filter_map(|end| value.rfind(end))
        .max();
    format!("{head}alue: {}", end.map_or(value, |end| &value[end + 1..]))
}

/// A refusal without what each server has on record of an object.
fn without_records(message: &str) -> String {
    for found in [" in record (", " in object meta: "] {
        if let Some((head, rest)) = message.split_once(found) {
            let rest = rest.find(')').map_or("", |end| &rest[end..]);
            return format!("{head}{found}{rest}");
        }
    }
    message.to_owned()
}

/// A refusal of an object that the server names, without what it chose.
fn without_suffix(message: &str, manifest: &Value) -> String {
    let Some(prefix) = manifest["metadata"]["generateName"].as_str() else {
        return message.to_owned();
    };
    let named = format!("\"{prefix}");
    match message.split_once(&named) {
        Some((head, rest)) => {
            let rest = rest.find('"').map_or("", |end| &rest[end..]);
            format!("{head}{named}{rest}")
        }
        None => message.to_owned(),
    }
}

/// The refusal of a patch without the object that the patch made, and that of a change of a frozen pod without Go's picture
/// of the change.
fn without_patch(message: &str) -> String {
    const PATCH: &str = " \"\" is invalid: patch: Invalid value: \"";
    if let Some(rest) = message.strip_prefix(PATCH) {
        // What is wrong stands behind the object, whose quotes are escaped.
        let fault = rest.split("\": ").last().unwrap_or_default();
        return format!("{PATCH}{fault}");
    }
    match (message.find('\n'), message.rfind('\n')) {
        (Some(from), Some(to)) => format!("{}{}", &message[..from], &message[to + 1..]),
        _ => message.to_owned(),
    }
}

/// The refusal of a format without the one that is not served.
fn without_apply(message: &str) -> String {
    message.replace(", application/apply-patch+yaml", "")
}

/// A conflict of owners without the moment when the other one wrote.
fn without_time(message: &str) -> String {
    let mut out = String::new();
    let mut rest = message;
    while let Some((before, after)) = rest.split_once(" at 20") {
        out.push_str(before);
        let end = after.find('Z').map_or(after.len(), |end| end + 1);
        rest = &after[end..];
    }
    out + rest
}

/// The refusal of another object's identity without the key in etcd, and without the identities, which each server makes up.
fn without_place(message: &str) -> String {
    const PLACE: &str = "StorageError: invalid object, Code: 4, Key: ";
    const FAULT: &str = "Precondition failed: UID in precondition: ";
    match (message.split_once(PLACE), message.split_once(FAULT)) {
        (Some((head, _)), Some(_)) => format!("{head}{FAULT}"),
        (None, Some((head, _))) => format!("{head}{FAULT}"),
        _ => message.to_owned(),
    }
}

/// What is invalid, and why: the parts of a message that lists causes.
fn causes_of(message: &str) -> (String, Vec<String>) {
    let Some((head, list)) = message.split_once(" is invalid: ") else {
        return (message.to_owned(), Vec::new());
    };
    let list = list
        .strip_prefix('[')
        .and_then(|list| list.strip_suffix(']'))
        .unwrap_or(list);
    const WHY: &[&str] = &[
        "Duplicate value",
        "Forbidden",
        "Internal error",
        "Invalid value",
        "Not found",
        "Required value",
        "Too long",
        "Too many",
        "Unsupported value",
    ];
    let begins = |part: &str| {
        part.split_once(": ").is_some_and(|(field, why)| {
            !field.contains(' ') && WHY.iter().any(|known| why.starts_with(known))
        })
    };
    let mut causes: Vec<String> = Vec::new();
    for part in list.split(", ") {
        match causes.last_mut() {
            Some(last) if !begins(part) => {
                last.push_str(", ");
                last.push_str(part);
            }
            _ => causes.push(part.to_owned()),
        }
    }
    (head.to_owned(), causes)
}
