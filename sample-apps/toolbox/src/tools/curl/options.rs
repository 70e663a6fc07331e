//! Options of curl, by their long and short names.

use crate::tools::call::Stop;
use crate::tools::flags::Flags;

/// Options by their long and short names; `:` marks a value. Two names of one letter mean the same.
const OPTIONS: &[(&str, char, bool)] = &[
    ("silent", 's', false),
    ("show-error", 'S', false),
    ("fail", 'f', false),
    ("fail-with-body", 'F', false),
    ("insecure", 'k', false),
    ("location", 'L', false),
    ("head", 'I', false),
    ("include", 'i', false),
    ("verbose", 'v', false),
    ("request", 'X', true),
    ("data", 'd', true),
    ("data-ascii", 'd', true),
    ("data-raw", 'r', true),
    ("data-binary", 'b', true),
    ("data-urlencode", 'u', true),
    ("json", 'J', true),
    ("get", 'G', false),
    ("header", 'H', true),
    ("output", 'o', true),
    ("remote-name", 'O', false),
    ("write-out", 'w', true),
    ("max-time", 'm', true),
    ("connect-timeout", 'c', true),
    ("globoff", 'g', false),
    ("disable", 'q', false),
    ("user", 'U', true),
    ("oauth2-bearer", 'B', true),
    ("user-agent", 'A', true),
    ("referer", 'e', true),
    ("cookie", 'K', true),
    ("upload-file", 'T', true),
    ("dump-header", 'D', true),
    ("max-redirs", 'R', true),
    ("retry", 'y', true),
    ("retry-delay", 'Y', true),
    ("url", 'l', true),
    ("create-dirs", '-', false),
    ("compressed", '-', false),
    ("no-buffer", '-', false),
    ("progress-bar", '-', false),
    ("no-progress-meter", '-', false),
    ("http1.0", '-', false),
    ("http1.1", '-', false),
    ("http2", '-', false),
    ("http2-prior-knowledge", '-', false),
    ("ipv4", '-', false),
    ("ipv6", '-', false),
    ("tlsv1.2", '-', false),
    ("tlsv1.3", '-', false),
    ("location-trusted", 'L', false),
    ("path-as-is", '-', false),
    ("no-keepalive", '-', false),
    ("retry-connrefused", '-', false),
    ("retry-all-errors", '-', false),
    ("tcp-nodelay", '-', false),
    ("interface", '+', true),
    ("cacert", '+', true),
    ("capath", '+', true),
    ("noproxy", '+', true),
    ("keepalive-time", '+', true),
    ("cookie-jar", '+', true),
    ("max-filesize", '+', true),
    ("limit-rate", '+', true),
];

/// Short names that are not their own letter above.
const SHORT: &[(char, &str)] = &[
    ('s', "silent"),
    ('S', "show-error"),
    ('f', "fail"),
    ('k', "insecure"),
    ('L', "location"),
    ('I', "head"),
    ('i', "include"),
    ('v', "verbose"),
    ('X', "request"),
    ('d', "data"),
    ('G', "get"),
    ('H', "header"),
    ('o', "output"),
    ('O', "remote-name"),
    ('w', "write-out"),
    ('m', "max-time"),
    ('g', "globoff"),
    ('q', "disable"),
    ('u', "user"),
    ('A', "user-agent"),
    ('e', "referer"),
    ('b', "cookie"),
    ('c', "cookie-jar"),
    ('T', "upload-file"),
    ('D', "dump-header"),
    ('N', "no-buffer"),
    ('#', "progress-bar"),
    ('0', "http1.0"),
    ('4', "ipv4"),
    ('6', "ipv6"),
];

/// Sorts arguments; an option is known by its letter in [`OPTIONS`].
pub fn parse(args: &[String]) -> Result<Flags, Stop> {
    let mut flags = Flags {
        seen: Vec::new(),
        rest: Vec::new(),
    };
    let wrong = |text: String| {
        Stop::Said(
            2,
            format!("curl: {text}\ncurl: try 'curl --help' for more information\n"),
        )
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if let Some(name) = arg.strip_prefix("--").filter(|name| !name.is_empty()) {
            if name == "help" {
                return Err(Stop::Said(0, "Usage: curl [options...] <url>\n".into()));
            }
            let found = OPTIONS.iter().find(|(known, ..)| *known == name);
            let Some((_, letter, valued)) = found else {
                return Err(wrong(format!("option {arg}: is unknown")));
            };
            let value = match valued {
                false => String::new(),
                true => args
                    .next()
                    .cloned()
                    .ok_or_else(|| wrong(format!("option {arg}: requires parameter")))?,
            };
            flags.seen.push((*letter, value));
            continue;
        }
        let Some(letters) = arg.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            flags.rest.push(arg.clone());
            continue;
        };
        let mut letters = letters.chars();
        while let Some(short) = letters.next() {
            let name = SHORT
                .iter()
                .find(|(known, _)| *known == short)
                .map(|(_, name)| *name);
            let found = name.and_then(|name| OPTIONS.iter().find(|(known, ..)| *known == name));
            let Some((_, letter, valued)) = found else {
                return Err(wrong(format!("option -{short}: is unknown")));
            };
            let value = match valued {
                false => String::new(),
                true => {
                    let attached: String = std::mem::replace(&mut letters, "".chars()).collect();
                    match attached.is_empty() {
                        false => attached,
                        true => args
                            .next()
                            .cloned()
                            .ok_or_else(|| wrong(format!("option -{short}: requires parameter")))?,
                    }
                }
            };
            flags.seen.push((*letter, value));
        }
    }
    Ok(flags)
}
