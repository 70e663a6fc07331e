//! Patterns of `case`, `${x#p}` and file names: `*`, `?` and brackets.
//!
//! Matching takes time in proportion to pattern and text multiplied, whatever they are.

/// A text with, for every character, whether it was quoted and so stands for itself.
#[derive(Clone, Debug, Default)]
pub struct Quotable(pub Vec<(char, bool)>);

impl Quotable {
    pub fn push(&mut self, text: &str, quoted: bool) {
        self.0
            .extend(text.chars().map(|character| (character, quoted)));
    }

    pub fn text(&self) -> String {
        self.0.iter().map(|(character, _)| character).collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Atom {
    Char(char),
    /// `?`
    Any,
    /// `*`
    Many,
    Set {
        negated: bool,
        members: Vec<Member>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Member {
    Range(char, char),
    Class(String),
}

impl Member {
    fn matches(&self, character: char) -> bool {
        match self {
            Self::Range(first, last) => (*first..=*last).contains(&character),
            Self::Class(name) => match name.as_str() {
                "alpha" => character.is_alphabetic(),
                "digit" => character.is_ascii_digit(),
                "alnum" => character.is_alphanumeric(),
                "upper" => character.is_uppercase(),
                "lower" => character.is_lowercase(),
                "space" => character.is_whitespace(),
                "blank" => matches!(character, ' ' | '\t'),
                "punct" => character.is_ascii_punctuation(),
                "cntrl" => character.is_control(),
                "print" => !character.is_control(),
                "graph" => !character.is_control() && !character.is_whitespace(),
                "xdigit" => character.is_ascii_hexdigit(),
                _ => false,
            },
        }
    }
}

impl Atom {
    fn matches(&self, character: char) -> bool {
        match self {
            Self::Char(own) => *own == character,
            Self::Any | Self::Many => true,
            Self::Set { negated, members } => {
                members.iter().any(|member| member.matches(character)) != *negated
            }
        }
    }
}

#[derive(Clone, Debug)]
pub struct Pattern(Vec<Atom>);

impl Pattern {
    pub fn new(text: &Quotable) -> Self {
        let text = &text.0;
        let mut atoms = Vec::with_capacity(text.len());
        let mut at = 0;
        while let Some((character, quoted)) = text.get(at) {
            at += 1;
            match (character, quoted) {
                ('*', false) if atoms.last() == Some(&Atom::Many) => {}
                ('*', false) => atoms.push(Atom::Many),
                ('?', false) => atoms.push(Atom::Any),
                ('[', false) => match set(text, at) {
                    Some((set, end)) => {
                        atoms.push(set);
                        at = end;
                    }
                    None => atoms.push(Atom::Char('[')),
                },
                // A backslash that came out of an expansion still quotes.
                ('\\', false) if at < text.len() => {
                    if let Some((next, _)) = text.get(at) {
                        atoms.push(Atom::Char(*next));
                        at += 1;
                    }
                }
                (character, _) => atoms.push(Atom::Char(*character)),
            }
        }
        Self(atoms)
    }

    /// Whether anything in here is not just itself.
    pub fn is_special(&self) -> bool {
        self.0.iter().any(|atom| !matches!(atom, Atom::Char(_)))
    }

    /// Whether it begins with a dot, as must a pattern for hidden files.
    pub fn begins_with_dot(&self) -> bool {
        self.0.first() == Some(&Atom::Char('.'))
    }

    pub fn matches(&self, text: &str) -> bool {
        // One pass: after a mismatch, the last `*` takes one more.
        let text: Vec<char> = text.chars().collect();
        let (mut at, mut from) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while from < text.len() {
            match self.0.get(at) {
                Some(Atom::Many) => {
                    star = Some((at, from));
                    at += 1;
                }
                Some(atom)
                    if text
                        .get(from)
                        .is_some_and(|character| atom.matches(*character)) =>
                {
                    at += 1;
                    from += 1;
                }
                _ => match &mut star {
                    Some((star, taken)) => {
                        *taken += 1;
                        at = *star + 1;
                        from = *taken;
                    }
                    None => return false,
                },
            }
        }
        self.0
            .get(at..)
            .unwrap_or_default()
            .iter()
            .all(|atom| *atom == Atom::Many)
    }

    /// How many characters the shortest and the longest beginning have that match, all of `text` included.
    fn beginnings<'a>(
        &self,
        text: impl Iterator<Item = &'a char>,
        atoms: impl Iterator<Item = &'a Atom>,
    ) -> Option<(usize, usize)> {
        // Which places of the pattern can be reached, as the text goes by.
        let atoms: Vec<_> = atoms.collect();
        let mut reached = vec![false; atoms.len() + 1];
        let spread = |reached: &mut Vec<bool>| {
            for (place, atom) in atoms.iter().enumerate() {
                if **atom == Atom::Many && reached.get(place) == Some(&true) {
                    reached[place + 1] = true;
                }
            }
        };
        reached[0] = true;
        spread(&mut reached);
        let mut found = None;
        let mut note = |count: usize, reached: &[bool]| {
            if reached.last() == Some(&true) {
                let (shortest, _) = found.unwrap_or((count, count));
                found = Some((shortest, count));
            }
        };
        note(0, &reached);
        for (count, character) in text.enumerate() {
            let mut next = vec![false; atoms.len() + 1];
            for (place, atom) in atoms.iter().enumerate() {
                if !reached[place] {
                    continue;
                }
                if **atom == Atom::Many {
                    next[place] = true;
                } else if atom.matches(*character) {
                    next[place + 1] = true;
                }
            }
            spread(&mut next);
            reached = next;
            note(count + 1, &reached);
            if !reached.contains(&true) {
                break;
            }
        }
        found
    }

    /// The text without a beginning that matches.
    pub fn without_prefix(&self, text: &str, longest: bool) -> String {
        let characters: Vec<char> = text.chars().collect();
        match self.beginnings(characters.iter(), self.0.iter()) {
            Some((short, long)) => characters
                .iter()
                .skip(if longest { long } else { short })
                .collect(),
            None => text.to_owned(),
        }
    }

    /// The text without an end that matches.
    pub fn without_suffix(&self, text: &str, longest: bool) -> String {
        let characters: Vec<char> = text.chars().collect();
        match self.beginnings(characters.iter().rev(), self.0.iter().rev()) {
            Some((short, long)) => {
                let count = if longest { long } else { short };
                characters.iter().take(characters.len() - count).collect()
            }
            None => text.to_owned(),
        }
    }

    /// The text with the first match, or all, replaced by what is given.
    pub fn replace(&self, text: &str, with: &str, all: bool) -> String {
        let characters: Vec<char> = text.chars().collect();
        let mut result = String::new();
        let mut at = 0;
        let mut done = self.0.is_empty();
        while at < characters.len() {
            let rest = characters.get(at..).unwrap_or_default();
            let longest = match done {
                true => None,
                false => self
                    .beginnings(rest.iter(), self.0.iter())
                    .map(|(_, longest)| longest),
            };
            match longest.filter(|count| *count > 0) {
                Some(count) => {
                    result.push_str(with);
                    at += count;
                    done = !all;
                }
                None => {
                    result.extend(rest.first());
                    at += 1;
                }
            }
        }
        result
    }
}

/// A bracket expression from behind its `[`, and where it ends; nothing if it has no end.
fn set(text: &[(char, bool)], mut at: usize) -> Option<(Atom, usize)> {
    let unquoted = |at: usize, wanted: char| text.get(at) == Some(&(wanted, false));
    let negated = unquoted(at, '!') || unquoted(at, '^');
    at += usize::from(negated);
    let mut members = Vec::new();
    let start = at;
    loop {
        let (character, quoted) = *text.get(at)?;
        if character == ']' && !quoted && at > start {
            return Some((Atom::Set { negated, members }, at + 1));
        }
        if character == '[' && !quoted && unquoted(at + 1, ':') {
            let rest = text.get(at + 2..)?;
            let end = rest
                .windows(2)
                .position(|pair| pair == [(':', false), (']', false)]);
            if let Some(end) = end {
                members.push(Member::Class(
                    rest.iter()
                        .take(end)
                        .map(|(character, _)| character)
                        .collect(),
                ));
                at += end + 4;
                continue;
            }
        }
        let mut first = character;
        at += 1;
        if character == '\\' && !quoted {
            first = text.get(at)?.0;
            at += 1;
        }
        let mut last = first;
        if unquoted(at, '-') && text.get(at + 1).is_some_and(|next| *next != (']', false)) {
            last = text.get(at + 1)?.0;
            at += 2;
            if last == '\\' && text.get(at - 1).is_some_and(|(_, quoted)| !quoted) {
                last = text.get(at)?.0;
                at += 1;
            }
        }
        members.push(Member::Range(first, last));
    }
}

#[cfg(test)]
mod tests {
    use super::{Pattern, Quotable};

    fn pattern(text: &str) -> Pattern {
        let mut quotable = Quotable::default();
        quotable.push(text, false);
        Pattern::new(&quotable)
    }

    #[test]
    fn patterns_match() {
        for (text, yes, no) in [
            ("a*c", "abbc", "abbd"),
            ("*", "", "\u{0}never"),
            ("?b", "ab", "b"),
            ("[a-c]x", "bx", "dx"),
            ("[!a-c]x", "dx", "ax"),
            ("[]x]", "]", "["),
            ("[[:digit:]_]", "7", "a"),
            ("\\*", "*", "a"),
            ("[", "[", "x"),
            ("a[b", "a[b", "ab"),
            ("*a*b*c*", "xaxbxc", "cba"),
        ] {
            assert!(pattern(text).matches(yes), "{text} {yes}");
            assert!(text == "*" || !pattern(text).matches(no), "{text} {no}");
        }
    }

    #[test]
    fn ends_are_cut_off() {
        let path = "/a/b.c.d";
        assert_eq!(pattern("*/").without_prefix(path, true), "b.c.d");
        assert_eq!(pattern("*/").without_prefix(path, false), "a/b.c.d");
        assert_eq!(pattern(".*").without_suffix(path, true), "/a/b");
        assert_eq!(pattern(".*").without_suffix(path, false), "/a/b.c");
        assert_eq!(pattern("x").without_suffix(path, false), path);
        assert_eq!(pattern("a*").replace("banana", "o", false), "bo");
        assert_eq!(pattern("a").replace("banana", "o", true), "bonono");
    }
}
