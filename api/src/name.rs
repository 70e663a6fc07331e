//! Kubernetes' rules for names, labels and annotations, each with Kubernetes' sentence.
//!
//! Every function returns `Err` with the message that Kubernetes' validation gives, so that it can stand
//! behind `Invalid value: "…": ` unchanged.

const DNS1123_LABEL_MESSAGE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS1123_SUBDOMAIN_MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const DNS1035_LABEL_MESSAGE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_NAME_MESSAGE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE_MESSAGE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
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

fn too_long(text: &str, max: usize) -> Result<(), String> {
    if text.len() > max {
        Err(format!("must be no more than {max} characters"))
    } else {
        Ok(())
    }
}

/// A name of at most 63 characters without dots: namespaces, containers, ports.
pub fn dns1123_label(text: &str) -> Result<(), String> {
    too_long(text, 63)?;
    is_label(text)
        .then_some(())
        .ok_or_else(|| DNS1123_LABEL_MESSAGE.into())
}

/// A name of at most 253 characters, labels with dots between: most objects.
pub fn dns1123_subdomain(text: &str) -> Result<(), String> {
    too_long(text, 253)?;
    text.split('.')
        .all(is_label)
        .then_some(())
        .ok_or_else(|| DNS1123_SUBDOMAIN_MESSAGE.into())
}

/// A label that starts with a letter: Services.
pub fn dns1035_label(text: &str) -> Result<(), String> {
    too_long(text, 63)?;
    (is_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase()))
        .then_some(())
        .ok_or_else(|| DNS1035_LABEL_MESSAGE.into())
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

/// A key of a label or annotation: an optional DNS prefix with `/`, and a name of at most 63 characters.
pub fn qualified_name(text: &str) -> Result<(), String> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    if let Some(prefix) = prefix {
        if prefix.is_empty() {
            return Err("prefix part must be non-empty".into());
        }
        dns1123_subdomain(prefix).map_err(|message| format!("prefix part {message}"))?;
    }
    if name.is_empty() {
        return Err("name part must be non-empty".into());
    }
    too_long(name, 63).map_err(|message| format!("name part {message}"))?;
    is_name_part(name)
        .then_some(())
        .ok_or_else(|| QUALIFIED_NAME_MESSAGE.into())
}

/// A value of a label: empty, or at most 63 characters.
pub fn label_value(text: &str) -> Result<(), String> {
    too_long(text, 63)?;
    (text.is_empty() || is_name_part(text))
        .then_some(())
        .ok_or_else(|| LABEL_VALUE_MESSAGE.into())
}

/// A key of a ConfigMap or Secret.
pub fn config_key(text: &str) -> Result<(), String> {
    too_long(text, 253)?;
    match text {
        "." | ".." => Err(format!("may not be '{text}'")),
        _ if text.is_empty()
            || !text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) =>
        {
            Err(CONFIG_KEY_MESSAGE.into())
        }
        _ => Ok(()),
    }
}

/// A name of an environment variable.
pub fn env_name(text: &str) -> Result<(), String> {
    let sound = !text.is_empty()
        && text
            .bytes()
            .all(|b| (b' '..=b'~').contains(&b) && b != b'=');
    sound.then_some(()).ok_or_else(|| ENV_NAME_MESSAGE.into())
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
