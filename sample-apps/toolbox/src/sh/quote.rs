//! Text in quotes, so that the shell would read it back.

/// In single quotes.
pub fn always(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    let mut inside = false;
    for character in text.chars() {
        // As dash and busybox do it: runs of single quotes stand in double quotes.
        let single = character == '\'';
        if quoted.is_empty() || single == inside {
            if !quoted.is_empty() {
                quoted.push(if inside { '\'' } else { '"' });
            }
            quoted.push(if single { '"' } else { '\'' });
            inside = !single;
        }
        quoted.push(character);
    }
    match quoted.is_empty() {
        true => "''".to_owned(),
        false => {
            quoted.push(if inside { '\'' } else { '"' });
            quoted
        }
    }
}

/// In single quotes if it would not read as itself.
pub fn if_needed(text: &str) -> String {
    let plain = |character: char| character.is_alphanumeric() || "_-+=:,./@%^".contains(character);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => always(text),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn quotes_are_those_of_busybox() {
        for (text, quoted) in [
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", "'it'\"'\"'s'"),
            ("'", "\"'\""),
            ("''a", "\"''\"'a'"),
        ] {
            assert_eq!(super::always(text), quoted);
        }
    }
}
