//! Kubernetes' rules for names, labels and annotations, each with Kubernetes' sentence.
//!
//! Every sentence is the one that Kubernetes' validation gives, so that it can stand behind `Invalid value: "…": `
//! unchanged. A rule comes twice: `…_faults` lists all that is wrong with a text, each of which is a cause of its own in
//! an answer; the function without that ending gives the first.
//!
//! Source: k8s.io/apimachinery `pkg/util/validation`; `tests/upstream/names.tsv` holds what it answers.

const DNS1123_LABEL_MESSAGE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS1123_SUBDOMAIN_MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const DNS1035_LABEL_MESSAGE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_NAME_MESSAGE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE_MESSAGE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const LABEL_KEY_MESSAGE: &str = "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
const CONFIG_KEY_MESSAGE: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const ENV_NAME_MESSAGE: &str = "a valid environment variable name must consist only of printable ASCII characters other than '='";

fn is_label(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    edge(text.bytes().next())
        && edge(text.bytes().last())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn first(faults: Vec<String>) -> Result<(), String> {
    faults.into_iter().next().map_or(Ok(()), Err)
}

/// What is wrong when `text` is longer than `max` of `unit`, or not `sound`.
fn faults(text: &str, max: usize, unit: &str, sound: bool, message: &str) -> Vec<String> {
    let long = (text.len() > max).then(|| format!("must be no more than {max} {unit}"));
    let unsound = (!sound).then(|| message.to_owned());
    long.into_iter().chain(unsound).collect()
}

/// A name of at most 63 characters without dots: namespaces, containers, ports.
pub fn dns1123_label(text: &str) -> Result<(), String> {
    first(dns1123_label_faults(text))
}

/// See [`dns1123_label`].
pub fn dns1123_label_faults(text: &str) -> Vec<String> {
    let message = if text.contains('.') && text.split('.').all(is_label) {
        "must not contain dots"
    } else {
        DNS1123_LABEL_MESSAGE
    };
    faults(text, 63, "characters", is_label(text), message)
}

/// A name of at most 253 characters, labels with dots between: most objects.
pub fn dns1123_subdomain(text: &str) -> Result<(), String> {
    first(dns1123_subdomain_faults(text))
}

/// See [`dns1123_subdomain`].
pub fn dns1123_subdomain_faults(text: &str) -> Vec<String> {
    let sound = text.split('.').all(is_label);
    faults(text, 253, "characters", sound, DNS1123_SUBDOMAIN_MESSAGE)
}

/// As [`dns1123_subdomain_faults`], of a name that may have upper case letters.
pub fn dns1123_subdomain_caseless_faults(text: &str) -> Vec<String> {
    const MESSAGE: &str = "an RFC 1123 subdomain must consist of alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'Example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    let sound = text.to_ascii_lowercase().split('.').all(is_label);
    faults(text, 253, "characters", sound, MESSAGE)
}

/// A label that starts with a letter: once Services, and what is named after them.
pub fn dns1035_label(text: &str) -> Result<(), String> {
    first(dns1035_label_faults(text))
}

/// See [`dns1035_label`].
pub fn dns1035_label_faults(text: &str) -> Vec<String> {
    let sound = is_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase());
    faults(text, 63, "characters", sound, DNS1035_LABEL_MESSAGE)
}

/// A name of at most 15 characters that a port can have.
pub fn port_name(text: &str) -> Result<(), String> {
    first(port_name_faults(text))
}

/// See [`port_name`].
pub fn port_name_faults(text: &str) -> Vec<String> {
    let of_the_alphabet = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let rules = [
        (text.len() <= 15, "must be no more than 15 characters"),
        (
            !text.is_empty() && text.bytes().all(of_the_alphabet),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (
            text.bytes().any(|b| b.is_ascii_lowercase()),
            "must contain at least one letter (a-z)",
        ),
        (!text.contains("--"), "must not contain consecutive hyphens"),
        (
            !text.starts_with('-') && !text.ends_with('-'),
            "must not begin or end with a hyphen",
        ),
    ];
    let broken = rules.into_iter().filter(|(holds, _)| !holds);
    broken.map(|(_, message)| message.to_owned()).collect()
}

/// A name that may stand in one path segment: any text but `.`, `..`, and text with `/` or `%`.
pub fn path_segment(text: &str) -> Result<(), String> {
    match text {
        "." | ".." => Err(format!("may not be '{text}'")),
        _ if text.contains('/') => Err("may not contain '/'".into()),
        _ if text.contains('%') => Err("may not contain '%'".into()),
        _ => Ok(()),
    }
}

fn is_name_part(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    edge(text.bytes().next())
        && edge(text.bytes().last())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// A key of a label or annotation: an optional DNS prefix with `/`, and a name of at most 63 bytes.
pub fn qualified_name(text: &str) -> Result<(), String> {
    first(qualified_name_faults(text))
}

/// See [`qualified_name`].
pub fn qualified_name_faults(text: &str) -> Vec<String> {
    let (prefix, name) = match text.split_once('/') {
        Some((_, name)) if name.contains('/') => return vec![LABEL_KEY_MESSAGE.into()],
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let mut found = Vec::new();
    match prefix {
        None => {}
        Some("") => found.push("prefix part must be non-empty".to_owned()),
        Some(prefix) => {
            let sound = prefix.split('.').all(is_label);
            let faults = faults(prefix, 253, "bytes", sound, DNS1123_SUBDOMAIN_MESSAGE);
            found.extend(
                faults
                    .into_iter()
                    .map(|fault| format!("prefix part {fault}")),
            );
        }
    }
    if name.is_empty() {
        found.push("name part must be non-empty".to_owned());
    }
    if name.len() > 63 {
        found.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_name_part(name) {
        found.push(QUALIFIED_NAME_MESSAGE.to_owned());
    }
    found
}

/// A value of a label: empty, or at most 63 bytes.
pub fn label_value(text: &str) -> Result<(), String> {
    first(label_value_faults(text))
}

/// See [`label_value`].
pub fn label_value_faults(text: &str) -> Vec<String> {
    let sound = text.is_empty() || is_name_part(text);
    faults(text, 63, "bytes", sound, LABEL_VALUE_MESSAGE)
}

/// A key of a ConfigMap or Secret.
pub fn config_key(text: &str) -> Result<(), String> {
    first(config_key_faults(text))
}

/// See [`config_key`].
pub fn config_key_faults(text: &str) -> Vec<String> {
    let of_the_alphabet = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let sound = !text.is_empty() && text.bytes().all(of_the_alphabet);
    let mut found = faults(text, 253, "characters", sound, CONFIG_KEY_MESSAGE);
    if text == "." {
        found.push("must not be '.'".to_owned());
    } else if text == ".." {
        found.push("must not be '..'".to_owned());
    } else if text.starts_with("..") {
        found.push("must not start with '..'".to_owned());
    }
    found
}

/// A name of an environment variable.
pub fn env_name(text: &str) -> Result<(), String> {
    first(env_name_faults(text))
}

/// See [`env_name`].
pub fn env_name_faults(text: &str) -> Vec<String> {
    if text.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    let sound = text
        .bytes()
        .all(|b| (b' '..=b'~').contains(&b) && b != b'=');
    faults(text, usize::MAX, "bytes", sound, ENV_NAME_MESSAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kubernetes_rules() {
        let long = "a".repeat(64);
        for (check, good, bad) in [
            (
                dns1123_label as fn(&str) -> Result<(), String>,
                vec!["a", "1-b", "x9"],
                vec!["", "A", "-a", "a-", "a.b", long.as_str()],
            ),
            (
                dns1123_subdomain,
                vec!["a.b-c", "1.2"],
                vec!["a..b", ".a", "a_b", "../x", "a\0"],
            ),
            (dns1035_label, vec!["web"], vec!["1web"]),
            (
                qualified_name,
                vec!["app", "weft.dev/isolation", "A_b"],
                vec!["", "/a", "a/", "a/b/c", "-a"],
            ),
            (label_value, vec!["", "v1.2_x"], vec!["-", "a b"]),
            (config_key, vec!["a.b", ".x"], vec!["", "..", "a/b"]),
            (env_name, vec!["A", "a.b-c"], vec!["", "A=B", "é"]),
        ] {
            for text in good {
                assert_eq!(check(text), Ok(()), "{text}");
            }
            for text in bad {
                assert!(check(text).is_err(), "{text}");
            }
        }
    }
}
