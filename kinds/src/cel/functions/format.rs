//! Formats by name: what a text must be to be a label, a name, a UUID.

use base64::Engine as _;
use weft_api::name;

use super::url::Url;
use super::{Function, Outcome};
use crate::cel::time;
use crate::cel::value::Value;

/// A format; equal ones have one name.
#[derive(Debug)]
pub struct Format {
    pub(in crate::cel) name: &'static str,
    /// How rules call it.
    function: &'static str,
    /// Length of the pattern that upstream matches it by, which its cost is counted in.
    pub(in crate::cel) pattern_chars: u64,
    faults: fn(&str) -> Vec<String>,
}

const FORMATS: &[Format] = &[
    Format {
        name: "DNS1123Label",
        function: "format.dns1123Label",
        pattern_chars: 30,
        faults: name::dns1123_label_faults,
    },
    Format {
        name: "DNS1123Subdomain",
        function: "format.dns1123Subdomain",
        pattern_chars: 60,
        faults: name::dns1123_subdomain_faults,
    },
    Format {
        name: "DNS1035Label",
        function: "format.dns1035Label",
        pattern_chars: 30,
        faults: name::dns1035_label_faults,
    },
    Format {
        name: "QualifiedName",
        function: "format.qualifiedName",
        pattern_chars: 60,
        faults: name::qualified_name_faults,
    },
    Format {
        name: "DNS1123LabelPrefix",
        function: "format.dns1123LabelPrefix",
        pattern_chars: 30,
        faults: |text| name::dns1123_label_faults(&prefix(text)),
    },
    Format {
        name: "DNS1123SubdomainPrefix",
        function: "format.dns1123SubdomainPrefix",
        pattern_chars: 60,
        faults: |text| name::dns1123_subdomain_faults(&prefix(text)),
    },
    Format {
        name: "DNS1035LabelPrefix",
        function: "format.dns1035LabelPrefix",
        pattern_chars: 30,
        faults: |text| name::dns1035_label_faults(&prefix(text)),
    },
    Format {
        name: "LabelValue",
        function: "format.labelValue",
        pattern_chars: 40,
        faults: name::label_value_faults,
    },
    Format {
        name: "URI",
        function: "format.uri",
        pattern_chars: 1103,
        faults: |text| {
            let reason = Url::parse(text).err();
            reason
                .map(|reason| format!("parse {text:?}: {reason}"))
                .into_iter()
                .collect()
        },
    },
    Format {
        name: "uuid",
        function: "format.uuid",
        pattern_chars: 70,
        faults: |text| unless(is_uuid(text), "does not match the UUID format"),
    },
    Format {
        name: "byte",
        function: "format.byte",
        pattern_chars: 84,
        faults: |text| {
            let sound = base64::engine::general_purpose::STANDARD
                .decode(text)
                .is_ok();
            unless(sound, "invalid base64")
        },
    },
    Format {
        name: "date",
        function: "format.date",
        pattern_chars: 71,
        faults: |text| unless(time::date(text).is_ok(), "invalid date"),
    },
    Format {
        name: "datetime",
        function: "format.datetime",
        pattern_chars: 71,
        faults: |text| unless(time::timestamp(text).is_ok(), "invalid datetime"),
    },
];

/// A prefix of names may end with a hyphen: what follows is yet to come.
fn prefix(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(cut) if !cut.is_empty() => format!("{cut}a"),
        _ => text.to_owned(),
    }
}

fn unless(sound: bool, sentence: &str) -> Vec<String> {
    (!sound).then(|| sentence.to_owned()).into_iter().collect()
}

/// Groups of hexadecimal digits, each hyphen between them optional.
fn is_uuid(text: &str) -> bool {
    let mut rest = text;
    for (index, digits) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        let Some((group, after)) = rest.split_at_checked(digits) else {
            return false;
        };
        if !group.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}

macro_rules! constant {
    ($index:literal) => {
        Function {
            name: FORMATS[$index].function,
            overloads: &[(FORMATS[$index].function, "() Format")],
            run: |_, _| Ok(Some(Value::Format(&FORMATS[$index]))),
        }
    };
}

pub(super) const FUNCTIONS: &[Function] = &[
    constant!(0),
    constant!(1),
    constant!(2),
    constant!(3),
    constant!(4),
    constant!(5),
    constant!(6),
    constant!(7),
    constant!(8),
    constant!(9),
    constant!(10),
    constant!(11),
    constant!(12),
    Function {
        name: "format.named",
        overloads: &[("format-named", "(string) optional(Format)")],
        run: |args, _| match args {
            [Value::String(name)] => {
                let found = FORMATS
                    .iter()
                    .find(|format| format.function.strip_prefix("format.") == Some(&**name));
                let found = found.map(|format| Value::some(Value::Format(format)));
                Ok(Some(found.unwrap_or(Value::Optional(None))))
            }
            _ => Ok(None),
        },
    },
    Function {
        name: "validate",
        overloads: &[("format-validate", "Format.(string) optional(list(string))")],
        run: validate,
    },
];

fn validate<'a>(args: &[Value<'a>], _: &mut crate::cel::eval::Meter) -> Outcome<'a> {
    let [Value::Format(format), Value::String(text)] = args else {
        return Ok(None);
    };
    let faults = (format.faults)(text);
    Ok(Some(match faults.is_empty() {
        true => Value::Optional(None),
        false => Value::some(Value::list(faults.into_iter().map(Value::text).collect())),
    }))
}
