//! Flags as Go's cobra reads them: `--name value`, `--name=value`, `-n value`, a switch without a value.
//!
//! Invariant: a flag that nobody knows, a value that is none and one that is missing are errors in cobra's words.

use std::collections::BTreeMap;
use std::time::Duration;

/// A flag: its name, its letter if it has one, its default. A switch is one whose default is `true` or `false`.
pub(crate) type Known = (&'static str, Option<char>, &'static str);

/// Those of upstream's logger, which every subcommand takes. Nothing here logs by level.
const LOGGING: [Known; 12] = [
    ("add_dir_header", None, "false"),
    ("alsologtostderr", None, "false"),
    ("log_backtrace_at", None, ":0"),
    ("log_dir", None, ""),
    ("log_file", None, ""),
    ("log_file_max_size", None, "1800"),
    ("logtostderr", None, "true"),
    ("skip_headers", None, "false"),
    ("skip_log_headers", None, "false"),
    ("stderrthreshold", None, "2"),
    ("v", Some('v'), "0"),
    ("vmodule", None, ""),
];

/// What was said.
#[derive(Debug)]
pub(crate) struct Flags {
    values: BTreeMap<&'static str, String>,
    /// What is no flag.
    pub(crate) rest: Vec<String>,
}

impl Flags {
    /// # Errors
    /// In cobra's words.
    pub(crate) fn read(known: &[Known], arguments: &[String]) -> Result<Flags, String> {
        let all = || known.iter().chain(&LOGGING);
        let mut flags = Flags {
            values: all()
                .map(|(name, _, default)| (*name, (*default).to_owned()))
                .collect(),
            rest: Vec::new(),
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            if argument == "--" {
                flags.rest.extend(arguments.cloned());
                break;
            }
            let (found, shown, given) = if let Some(long) = argument.strip_prefix("--") {
                let (name, value) = match long.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (long, None),
                };
                let found = all().find(|(known, ..)| *known == name);
                let found = found.ok_or_else(|| format!("unknown flag: --{name}"))?;
                (found, format!("--{name}"), value)
            } else if let Some(short) = argument.strip_prefix('-').filter(|it| !it.is_empty()) {
                let mut letters = short.chars();
                let letter = letters.next();
                let found = all().find(|(_, known, _)| *known == letter);
                let found = found.ok_or_else(|| {
                    let letter = letter.unwrap_or('-');
                    format!("unknown shorthand flag: {letter:?} in {argument}")
                })?;
                let value = letters.as_str();
                let value = value.strip_prefix('=').unwrap_or(value);
                let value = (!value.is_empty()).then(|| value.to_owned());
                (found, argument.clone(), value)
            } else {
                flags.rest.push(argument.clone());
                continue;
            };
            let (name, _, default) = found;
            let is_switch = matches!(*default, "true" | "false");
            let value = match given {
                Some(value) => value,
                None if is_switch => "true".to_owned(),
                None => match arguments.next() {
                    Some(value) => value.clone(),
                    None => return Err(format!("flag needs an argument: {shown}")),
                },
            };
            flags.values.insert(name, value);
        }
        Ok(flags)
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    /// # Errors
    /// In cobra's words.
    pub(crate) fn number(&self, name: &str) -> Result<i64, String> {
        let value = self.text(name);
        value.parse().map_err(|_| {
            format!("invalid argument {value:?} for \"--{name}\" flag: strconv.ParseInt: parsing {value:?}: invalid syntax")
        })
    }

    /// A port; -1 is none.
    ///
    /// # Errors
    /// In cobra's words.
    pub(crate) fn port(&self, name: &str) -> Result<Option<u16>, String> {
        let number = self.number(name)?;
        match u16::try_from(number) {
            Ok(port) => Ok(Some(port)),
            Err(_) if number == -1 => Ok(None),
            Err(_) => Err(format!("listen: address {number}: invalid port")),
        }
    }

    /// # Errors
    /// In cobra's words.
    pub(crate) fn switch(&self, name: &str) -> Result<bool, String> {
        let value = self.text(name);
        match value {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(format!(
                "invalid argument {value:?} for \"--{name}\" flag: strconv.ParseBool: parsing {value:?}: invalid syntax"
            )),
        }
    }

    /// # Errors
    /// In cobra's words.
    pub(crate) fn duration(&self, name: &str) -> Result<Duration, String> {
        let value = self.text(name);
        duration(value).ok_or_else(|| {
            format!(
                "invalid argument {value:?} for \"--{name}\" flag: time: invalid duration {value:?}"
            )
        })
    }
}

/// A duration as Go writes it: `1h2m3.5s`, `250ms`, `0`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        let after = rest.get(digits..)?;
        let units = [
            ("ns", 1e-9),
            ("us", 1e-6),
            ("µs", 1e-6),
            ("ms", 1e-3),
            ("s", 1.0),
            ("m", 60.0),
            ("h", 3600.0),
        ];
        let (unit, size) = units.iter().find(|(unit, _)| after.starts_with(unit))?;
        seconds += number * size;
        rest = after.get(unit.len()..)?;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [Known; 4] = [
        ("port", None, "80"),
        ("http", None, "true"),
        ("lines", Some('t'), "0"),
        ("wait", Some('d'), "0"),
    ];

    fn said(arguments: &[&str]) -> Result<String, String> {
        let arguments: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
        let flags = Flags::read(&KNOWN, &arguments)?;
        let port = flags
            .port("port")?
            .map_or("none".to_owned(), |port| port.to_string());
        Ok(format!(
            "{port} {} {} {:?} {:?}",
            flags.switch("http")?,
            flags.number("lines")?,
            flags.duration("wait")?,
            flags.rest
        ))
    }

    #[test]
    fn flags_are_read_as_cobra_reads_them() {
        for (arguments, expected) in [
            (&[][..], Ok("80 true 0 0ns []")),
            (&["--port", "8080", "a"], Ok("8080 true 0 0ns [\"a\"]")),
            (&["--port=-1", "--http=false"], Ok("none false 0 0ns []")),
            (&["--http", "-t", "20", "-d5s"], Ok("80 true 20 5s []")),
            (
                &["-v=4", "--v", "2", "--alsologtostderr", "b"],
                Ok("80 true 0 0ns [\"b\"]"),
            ),
            (&["--", "--port"], Ok("80 true 0 0ns [\"--port\"]")),
            (&["--nope"], Err("unknown flag: --nope")),
            (&["-x"], Err("unknown shorthand flag: 'x' in -x")),
            (&["--port"], Err("flag needs an argument: --port")),
            (
                &["--http=maybe"],
                Err(
                    "invalid argument \"maybe\" for \"--http\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax",
                ),
            ),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(said(arguments), expected, "{arguments:?}");
        }
    }

    #[test]
    fn durations_are_gos() {
        for (text, millis) in [
            ("0", Some(0)),
            ("1.5s", Some(1500)),
            ("1h2m3s", Some(3_723_000)),
            ("250ms", Some(250)),
            ("", None),
            ("5", None),
            ("5x", None),
        ] {
            let found = duration(text).map(|found| found.as_millis());
            assert_eq!(found, millis, "{text}");
        }
    }
}
