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

/// In single quotes if it would not read as itself, by busybox' notion of that: nothing at all stays nothing.
pub fn if_needed(text: &str) -> String {
    let special = |character: char| match character {
        '`' | '[' | '\\' | ';'..='?' => true,
        character => !('+'..='z').contains(&character),
    };
    match text.contains(special) {
        true => always(text),
        false => text.to_owned(),
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
