//! Patterns in RE2's syntax, run by the `regex` crate.
//!
//! The two differ in what is written the same: Perl's classes are ASCII in RE2, and inside brackets it knows neither nested classes nor
//! operators on them. [`compile`] spells out what is meant.
//!
//! Invariants: matching is linear in the text; a pattern that would take more than a named amount of memory is refused.

/// Memory of one compiled pattern; those of published kinds take some ten KiB.
const BYTES_MAX: usize = 1 << 20;

/// # Errors
/// The compiler's, for what is no pattern or too large.
pub(crate) fn compile(pattern: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(&translated(pattern))
        .size_limit(BYTES_MAX)
        .dfa_size_limit(BYTES_MAX)
        .build()
}

fn translated(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars().peekable();
    // Whether inside brackets, and whether at their start, where `]` stands for itself.
    let (mut inside, mut first) = (false, false);
    while let Some(c) = chars.next() {
        let start = std::mem::take(&mut first);
        match c {
            '\\' => match chars.next() {
                Some(class @ ('d' | 'w' | 's')) => {
                    let members = members(class);
                    match inside {
                        true => out.push_str(members),
                        false => out.extend(["[", members, "]"]),
                    }
                }
                Some(class @ ('D' | 'W' | 'S')) => {
                    out.extend(["[^", members(class.to_ascii_lowercase()), "]"]);
                }
                Some('b') if !inside => out.push_str("(?-u:\\b)"),
                Some(other) => out.extend(['\\', other]),
                None => out.push('\\'),
            },
            '[' if !inside => {
                inside = true;
                first = true;
                out.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
            }
            // A class by name: `[:alpha:]`.
            '[' if chars.peek() == Some(&':') => {
                out.push('[');
                for c in chars.by_ref() {
                    out.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            '[' | '&' | '~' if inside => out.extend(['\\', c]),
            ']' if inside && start => out.push_str("\\]"),
            ']' if inside => {
                inside = false;
                out.push(']');
            }
            c => out.push(c),
        }
    }
    out
}

/// What RE2 has in a class of Perl's.
fn members(class: char) -> &'static str {
    match class {
        'd' => "0-9",
        'w' => "0-9A-Za-z_",
        _ => "\\t\\n\\x0c\\r ",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_re2() {
        for (pattern, text, matches) in [
            (r"^\d+$", "42", true),
            (r"^\d+$", "٤٢", false),
            (r"^[\d.]+$", "4.2", true),
            (r"^[\D]+$", "٤٢", true),
            (r"^\w+$", "ä", false),
            (r"^\W+$", "ä", true),
            (r"^[[]$", "[", true),
            (r"^[]a]$", "]", true),
            (r"^[^]a]$", "b", true),
            (r"^[a&&b]+$", "&a", true),
            (r"^[[:alpha:]]+$", "abc", true),
            (r"\bä", "ä", false),
            (r"^\s$", "\u{a0}", false),
            (r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "*.a-b", true),
        ] {
            let found = compile(pattern).map(|compiled| compiled.is_match(text));
            assert_eq!(found.ok(), Some(matches), "{pattern} {text}");
        }
        assert!(compile("(").is_err());
        assert!(compile("((a{1000}){1000}){1000}").is_err());
        assert!(compile("\\").is_err());
    }
}
