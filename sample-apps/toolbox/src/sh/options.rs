//! The options of `set` and of the command line.

/// Name and letter; the place is the bit.
const TABLE: [(&str, char); 15] = [
    ("errexit", 'e'),
    ("noglob", 'f'),
    ("ignoreeof", 'I'),
    ("interactive", 'i'),
    ("monitor", 'm'),
    ("noexec", 'n'),
    ("stdin", 's'),
    ("xtrace", 'x'),
    ("verbose", 'v'),
    ("noclobber", 'C'),
    ("allexport", 'a'),
    ("notify", 'b'),
    ("nounset", 'u'),
    ("vi", 'V'),
    ("pipefail", '\0'),
];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options(u16);

impl Options {
    fn bit(place: Option<usize>) -> Option<u16> {
        place.map(|place| 1 << place)
    }

    fn named(name: &str) -> Option<u16> {
        Self::bit(TABLE.iter().position(|(known, _)| *known == name))
    }

    pub fn has(self, name: &str) -> bool {
        Self::named(name).is_some_and(|bit| self.0 & bit != 0)
    }

    fn put(&mut self, bit: Option<u16>, on: bool) -> bool {
        let Some(bit) = bit else { return false };
        match on {
            true => self.0 |= bit,
            false => self.0 &= !bit,
        }
        true
    }

    /// False if there is no such option.
    pub fn set(&mut self, name: &str, on: bool) -> bool {
        self.put(Self::named(name), on)
    }

    pub fn set_letter(&mut self, letter: char, on: bool) -> bool {
        // Lookups are not kept and keys are those of emacs, whatever is asked for.
        matches!(letter, 'h' | 'E')
            || self.put(
                Self::bit(TABLE.iter().position(|(_, known)| *known == letter)),
                on,
            )
    }

    /// `$-`
    pub fn letters(self) -> String {
        let on = TABLE
            .iter()
            .enumerate()
            .filter(|(place, (_, letter))| self.0 & 1 << place != 0 && *letter != '\0');
        on.map(|(_, (_, letter))| letter).collect()
    }

    pub fn list(self) -> impl Iterator<Item = (&'static str, bool)> {
        TABLE
            .iter()
            .enumerate()
            .map(move |(place, (name, _))| (*name, self.0 & 1 << place != 0))
    }
}
