//! Operators, conversions, and the functions of the language itself.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Function, Outcome};
use crate::cel::eval::{Error, Meter};
use crate::cel::time::{self, Time};
use crate::cel::value::{Map, Value};

/// Compiles a pattern in RE2's syntax.
///
/// # Errors
/// Go's sentence.
pub(in crate::cel) fn regex(pattern: &str) -> Result<regex::Regex, Error> {
    crate::cel::pattern::compile(pattern).map_err(Error::new)
}

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "size",
        overloads: &[
            ("size_string", "(string) int"),
            ("string_size", "string.() int"),
            ("size_bytes", "(bytes) int"),
            ("bytes_size", "bytes.() int"),
            ("size_list", "(list(A)) int"),
            ("list_size", "list(A).() int"),
            ("size_map", "(map(A,B)) int"),
            ("map_size", "map(A,B).() int"),
        ],
        run: size,
    },
    Function {
        name: "_==_",
        overloads: &[("equals", "(A, A) bool")],
        run: equals,
    },
    Function {
        name: "_!=_",
        overloads: &[("not_equals", "(A, A) bool")],
        run: |args, meter| Ok(equals(args, meter)?.map(not)),
    },
    Function {
        name: "!_",
        overloads: &[("logical_not", "(bool) bool")],
        run: |args, _| match args {
            [Value::Bool(_)] => Ok(Some(not(args[0].clone()))),
            _ => Ok(None),
        },
    },
    Function {
        name: "_&&_",
        overloads: &[("logical_and", "(bool, bool) bool")],
        run: |_, _| Ok(None),
    },
    Function {
        name: "_||_",
        overloads: &[("logical_or", "(bool, bool) bool")],
        run: |_, _| Ok(None),
    },
    Function {
        name: "_?_:_",
        overloads: &[("conditional", "(bool, A, A) A")],
        run: |_, _| Ok(None),
    },
    Function {
        name: "@not_strictly_false",
        overloads: &[("not_strictly_false", "(bool) bool")],
        run: |args, _| Ok(Some(Value::Bool(!matches!(args, [Value::Bool(false)])))),
    },
    Function {
        name: "_[_]",
        overloads: &[
            ("index_list", "(list(A), int) A"),
            ("index_map", "(map(A,B), A) B"),
            (
                "optional_list_index_int",
                "(optional(list(A)), int) optional(A)",
            ),
            (
                "optional_map_index_value",
                "(optional(map(A,B)), A) optional(B)",
            ),
        ],
        run: |_, _| Ok(None),
    },
    Function {
        name: "_[?_]",
        overloads: &[
            ("list_optindex_optional_int", "(list(A), int) optional(A)"),
            (
                "optional_list_optindex_optional_int",
                "(optional(list(A)), int) optional(A)",
            ),
            ("map_optindex_optional_value", "(map(A,B), A) optional(B)"),
            (
                "optional_map_optindex_optional_value",
                "(optional(map(A,B)), A) optional(B)",
            ),
        ],
        run: |_, _| Ok(None),
    },
    Function {
        name: "@in",
        overloads: &[
            ("in_list", "(A, list(A)) bool"),
            ("in_map", "(A, map(A,B)) bool"),
        ],
        run: is_in,
    },
    Function {
        name: "_<_",
        overloads: &[
            ("less_bool", "(bool, bool) bool"),
            ("less_int64", "(int, int) bool"),
            ("less_int64_double", "(int, double) bool"),
            ("less_int64_uint64", "(int, uint) bool"),
            ("less_uint64", "(uint, uint) bool"),
            ("less_uint64_double", "(uint, double) bool"),
            ("less_uint64_int64", "(uint, int) bool"),
            ("less_double", "(double, double) bool"),
            ("less_double_int64", "(double, int) bool"),
            ("less_double_uint64", "(double, uint) bool"),
            ("less_string", "(string, string) bool"),
            ("less_bytes", "(bytes, bytes) bool"),
            ("less_timestamp", "(timestamp, timestamp) bool"),
            ("less_duration", "(duration, duration) bool"),
        ],
        run: |args, _| ordered(args, Ordering::is_lt),
    },
    Function {
        name: "_<=_",
        overloads: &[
            ("less_equals_bool", "(bool, bool) bool"),
            ("less_equals_int64", "(int, int) bool"),
            ("less_equals_int64_double", "(int, double) bool"),
            ("less_equals_int64_uint64", "(int, uint) bool"),
            ("less_equals_uint64", "(uint, uint) bool"),
            ("less_equals_uint64_double", "(uint, double) bool"),
            ("less_equals_uint64_int64", "(uint, int) bool"),
            ("less_equals_double", "(double, double) bool"),
            ("less_equals_double_int64", "(double, int) bool"),
            ("less_equals_double_uint64", "(double, uint) bool"),
            ("less_equals_string", "(string, string) bool"),
            ("less_equals_bytes", "(bytes, bytes) bool"),
            ("less_equals_timestamp", "(timestamp, timestamp) bool"),
            ("less_equals_duration", "(duration, duration) bool"),
        ],
        run: |args, _| ordered(args, Ordering::is_le),
    },
    Function {
        name: "_>_",
        overloads: &[
            ("greater_bool", "(bool, bool) bool"),
            ("greater_int64", "(int, int) bool"),
            ("greater_int64_double", "(int, double) bool"),
            ("greater_int64_uint64", "(int, uint) bool"),
            ("greater_uint64", "(uint, uint) bool"),
            ("greater_uint64_double", "(uint, double) bool"),
            ("greater_uint64_int64", "(uint, int) bool"),
            ("greater_double", "(double, double) bool"),
            ("greater_double_int64", "(double, int) bool"),
            ("greater_double_uint64", "(double, uint) bool"),
            ("greater_string", "(string, string) bool"),
            ("greater_bytes", "(bytes, bytes) bool"),
            ("greater_timestamp", "(timestamp, timestamp) bool"),
            ("greater_duration", "(duration, duration) bool"),
        ],
        run: |args, _| ordered(args, Ordering::is_gt),
    },
    Function {
        name: "_>=_",
        overloads: &[
            ("greater_equals_bool", "(bool, bool) bool"),
            ("greater_equals_int64", "(int, int) bool"),
            ("greater_equals_int64_double", "(int, double) bool"),
            ("greater_equals_int64_uint64", "(int, uint) bool"),
            ("greater_equals_uint64", "(uint, uint) bool"),
            ("greater_equals_uint64_double", "(uint, double) bool"),
            ("greater_equals_uint64_int64", "(uint, int) bool"),
            ("greater_equals_double", "(double, double) bool"),
            ("greater_equals_double_int64", "(double, int) bool"),
            ("greater_equals_double_uint64", "(double, uint) bool"),
            ("greater_equals_string", "(string, string) bool"),
            ("greater_equals_bytes", "(bytes, bytes) bool"),
            ("greater_equals_timestamp", "(timestamp, timestamp) bool"),
            ("greater_equals_duration", "(duration, duration) bool"),
        ],
        run: |args, _| ordered(args, Ordering::is_ge),
    },
    Function {
        name: "_+_",
        overloads: &[
            ("add_bytes", "(bytes, bytes) bytes"),
            ("add_double", "(double, double) double"),
            ("add_duration_duration", "(duration, duration) duration"),
            ("add_duration_timestamp", "(duration, timestamp) timestamp"),
            ("add_timestamp_duration", "(timestamp, duration) timestamp"),
            ("add_int64", "(int, int) int"),
            ("add_list", "(list(A), list(A)) list(A)"),
            ("add_string", "(string, string) string"),
            ("add_uint64", "(uint, uint) uint"),
        ],
        run: add,
    },
    Function {
        name: "_-_",
        overloads: &[
            ("subtract_double", "(double, double) double"),
            (
                "subtract_duration_duration",
                "(duration, duration) duration",
            ),
            ("subtract_int64", "(int, int) int"),
            (
                "subtract_timestamp_duration",
                "(timestamp, duration) timestamp",
            ),
            (
                "subtract_timestamp_timestamp",
                "(timestamp, timestamp) duration",
            ),
            ("subtract_uint64", "(uint, uint) uint"),
        ],
        run: subtract,
    },
    Function {
        name: "_*_",
        overloads: &[
            ("multiply_double", "(double, double) double"),
            ("multiply_int64", "(int, int) int"),
            ("multiply_uint64", "(uint, uint) uint"),
        ],
        run: |args, _| match args {
            [Value::Double(a), Value::Double(b)] => Ok(Some(Value::Double(a * b))),
            [Value::Int(a), Value::Int(b)] => int(a.checked_mul(*b)),
            [Value::Uint(a), Value::Uint(b)] => uint(a.checked_mul(*b)),
            _ => Ok(None),
        },
    },
    Function {
        name: "_/_",
        overloads: &[
            ("divide_double", "(double, double) double"),
            ("divide_int64", "(int, int) int"),
            ("divide_uint64", "(uint, uint) uint"),
        ],
        run: |args, _| match args {
            [Value::Double(a), Value::Double(b)] => Ok(Some(Value::Double(a / b))),
            [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
                Err(Error::new("division by zero"))
            }
            [Value::Int(a), Value::Int(b)] => int(a.checked_div(*b)),
            [Value::Uint(a), Value::Uint(b)] => uint(a.checked_div(*b)),
            _ => Ok(None),
        },
    },
    Function {
        name: "_%_",
        overloads: &[
            ("modulo_int64", "(int, int) int"),
            ("modulo_uint64", "(uint, uint) uint"),
        ],
        run: |args, _| match args {
            [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
                Err(Error::new("modulus by zero"))
            }
            [Value::Int(a), Value::Int(b)] => int(a.checked_rem(*b)),
            [Value::Uint(a), Value::Uint(b)] => uint(a.checked_rem(*b)),
            _ => Ok(None),
        },
    },
    Function {
        name: "-_",
        overloads: &[
            ("negate_double", "(double) double"),
            ("negate_int64", "(int) int"),
        ],
        run: |args, _| match args {
            [Value::Double(number)] => Ok(Some(Value::Double(-number))),
            [Value::Int(number)] => int(number.checked_neg()),
            _ => Ok(None),
        },
    },
    Function {
        name: "contains",
        overloads: &[("contains_string", "string.(string) bool")],
        run: |args, _| texts(args, |text, part| text.contains(part)),
    },
    Function {
        name: "startsWith",
        overloads: &[("starts_with_string", "string.(string) bool")],
        run: |args, _| texts(args, |text, part| text.starts_with(part)),
    },
    Function {
        name: "endsWith",
        overloads: &[("ends_with_string", "string.(string) bool")],
        run: |args, _| texts(args, |text, part| text.ends_with(part)),
    },
    Function {
        name: "matches",
        overloads: &[
            ("matches", "(string, string) bool"),
            ("matches_string", "string.(string) bool"),
        ],
        run: |args, _| match args {
            [Value::String(text), Value::String(pattern)] => {
                Ok(Some(Value::Bool(regex(pattern)?.is_match(text))))
            }
            _ => Ok(None),
        },
    },
    Function {
        name: "type",
        overloads: &[("type", "(A) type(A)")],
        run: |args, _| match args {
            [value] => Ok(Some(Value::Type(Arc::from(value.type_name())))),
            _ => Ok(None),
        },
    },
    Function {
        name: "dyn",
        overloads: &[("to_dyn", "(A) dyn")],
        run: |args, _| Ok(args.first().cloned()),
    },
    Function {
        name: "bool",
        overloads: &[
            ("bool_to_bool", "(bool) bool"),
            ("string_to_bool", "(string) bool"),
        ],
        run: |args, _| match args {
            [Value::Bool(flag)] => Ok(Some(Value::Bool(*flag))),
            [Value::String(text)] => match &**text {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(Value::Bool(true))),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(Value::Bool(false))),
                _ => Err(unconvertible("string", "bool")),
            },
            _ => Ok(None),
        },
    },
    Function {
        name: "bytes",
        overloads: &[
            ("bytes_to_bytes", "(bytes) bytes"),
            ("string_to_bytes", "(string) bytes"),
        ],
        run: |args, meter| match args {
            [Value::Bytes(bytes)] => Ok(Some(Value::Bytes(Arc::clone(bytes)))),
            [Value::String(text)] => {
                meter.allocate(text.len())?;
                Ok(Some(Value::Bytes(text.as_bytes().into())))
            }
            _ => Ok(None),
        },
    },
    Function {
        name: "double",
        overloads: &[
            ("double_to_double", "(double) double"),
            ("int64_to_double", "(int) double"),
            ("string_to_double", "(string) double"),
            ("uint64_to_double", "(uint) double"),
        ],
        run: |args, _| match args {
            [Value::Double(number)] => Ok(Some(Value::Double(*number))),
            [Value::Int(number)] => Ok(Some(Value::Double(*number as f64))),
            [Value::Uint(number)] => Ok(Some(Value::Double(*number as f64))),
            [Value::String(text)] => match text.parse::<f64>() {
                Ok(number)
                    if number.is_finite() || !text.contains(|c: char| c.is_ascii_digit()) =>
                {
                    Ok(Some(Value::Double(number)))
                }
                _ => Err(unconvertible("string", "double")),
            },
            _ => Ok(None),
        },
    },
    Function {
        name: "duration",
        overloads: &[
            ("duration_to_duration", "(duration) duration"),
            ("int64_to_duration", "(int) duration"),
            ("string_to_duration", "(string) duration"),
        ],
        run: |args, _| match args {
            [Value::Duration(nanos) | Value::Int(nanos)] => Ok(Some(Value::Duration(*nanos))),
            [Value::String(text)] => match time::duration(text) {
                Some(nanos) => Ok(Some(Value::Duration(nanos))),
                None => Err(unconvertible("string", "google.protobuf.Duration")),
            },
            _ => Ok(None),
        },
    },
    Function {
        name: "timestamp",
        overloads: &[
            ("timestamp_to_timestamp", "(timestamp) timestamp"),
            ("int64_to_timestamp", "(int) timestamp"),
            ("string_to_timestamp", "(string) timestamp"),
        ],
        run: |args, _| match args {
            [Value::Timestamp(time)] => Ok(Some(Value::Timestamp(*time))),
            [Value::Int(seconds)] => in_range(Time::from_seconds(*seconds)),
            [Value::String(text)] => match time::timestamp(text) {
                Err(time::Unread::Malformed) => {
                    Err(unconvertible("string", "google.protobuf.Timestamp"))
                }
                read => in_range(read.ok()),
            },
            _ => Ok(None),
        },
    },
    Function {
        name: "int",
        overloads: &[
            ("int64_to_int64", "(int) int"),
            ("double_to_int64", "(double) int"),
            ("duration_to_int64", "(duration) int"),
            ("string_to_int64", "(string) int"),
            ("timestamp_to_int64", "(timestamp) int"),
            ("uint64_to_int64", "(uint) int"),
        ],
        run: |args, _| match args {
            [Value::Int(number) | Value::Duration(number)] => Ok(Some(Value::Int(*number))),
            [Value::Double(number)] => {
                // The bounds themselves are no integers that a double can be told apart from.
                let fits = *number > i64::MIN as f64 && *number < i64::MAX as f64;
                int(fits.then_some(*number as i64))
            }
            [Value::Uint(number)] => int(i64::try_from(*number).ok()),
            [Value::Timestamp(time)] => Ok(Some(Value::Int(time.seconds()))),
            [Value::String(text)] => match text.parse() {
                Ok(number) => Ok(Some(Value::Int(number))),
                Err(_) => Err(unconvertible("string", "int")),
            },
            _ => Ok(None),
        },
    },
    Function {
        name: "uint",
        overloads: &[
            ("uint64_to_uint64", "(uint) uint"),
            ("double_to_uint64", "(double) uint"),
            ("int64_to_uint64", "(int) uint"),
            ("string_to_uint64", "(string) uint"),
        ],
        run: |args, _| match args {
            [Value::Uint(number)] => Ok(Some(Value::Uint(*number))),
            [Value::Double(number)] => {
                let fits = *number >= 0.0 && *number < u64::MAX as f64;
                uint(fits.then_some(*number as u64))
            }
            [Value::Int(number)] => uint(u64::try_from(*number).ok()),
            [Value::String(text)] => match text.parse() {
                Ok(number) if !text.starts_with('+') => Ok(Some(Value::Uint(number))),
                _ => Err(unconvertible("string", "uint")),
            },
            _ => Ok(None),
        },
    },
    Function {
        name: "string",
        overloads: &[
            ("string_to_string", "(string) string"),
            ("bool_to_string", "(bool) string"),
            ("bytes_to_string", "(bytes) string"),
            ("double_to_string", "(double) string"),
            ("duration_to_string", "(duration) string"),
            ("int64_to_string", "(int) string"),
            ("timestamp_to_string", "(timestamp) string"),
            ("uint64_to_string", "(uint) string"),
        ],
        run: |args, meter| match args {
            [Value::String(text)] => Ok(Some(Value::String(text.clone()))),
            [Value::Bytes(bytes)] => {
                meter.allocate(bytes.len())?;
                match std::str::from_utf8(bytes) {
                    Ok(text) => Ok(Some(Value::text(text))),
                    Err(_) => Err(Error::new(
                        "invalid UTF-8 in bytes, cannot convert to string",
                    )),
                }
            }
            [
                value @ (Value::Bool(_)
                | Value::Double(_)
                | Value::Duration(_)
                | Value::Int(_)
                | Value::Timestamp(_)
                | Value::Uint(_)),
            ] => Ok(Some(Value::text(value.to_string()))),
            _ => Ok(None),
        },
    },
    Function {
        name: "getFullYear",
        overloads: &[
            ("timestamp_to_year", "timestamp.() int"),
            ("timestamp_to_year_with_tz", "timestamp.(string) int"),
        ],
        run: |args, _| of_time(args, |time| time.year),
    },
    Function {
        name: "getMonth",
        overloads: &[
            ("timestamp_to_month", "timestamp.() int"),
            ("timestamp_to_month_with_tz", "timestamp.(string) int"),
        ],
        run: |args, _| of_time(args, |time| time.month - 1),
    },
    Function {
        name: "getDayOfYear",
        overloads: &[
            ("timestamp_to_day_of_year", "timestamp.() int"),
            ("timestamp_to_day_of_year_with_tz", "timestamp.(string) int"),
        ],
        run: |args, _| of_time(args, |time| time.day_of_year),
    },
    Function {
        name: "getDayOfMonth",
        overloads: &[
            ("timestamp_to_day_of_month", "timestamp.() int"),
            (
                "timestamp_to_day_of_month_with_tz",
                "timestamp.(string) int",
            ),
        ],
        run: |args, _| of_time(args, |time| time.day - 1),
    },
    Function {
        name: "getDate",
        overloads: &[
            ("timestamp_to_day_of_month_1_based", "timestamp.() int"),
            (
                "timestamp_to_day_of_month_1_based_with_tz",
                "timestamp.(string) int",
            ),
        ],
        run: |args, _| of_time(args, |time| time.day),
    },
    Function {
        name: "getDayOfWeek",
        overloads: &[
            ("timestamp_to_day_of_week", "timestamp.() int"),
            ("timestamp_to_day_of_week_with_tz", "timestamp.(string) int"),
        ],
        run: |args, _| of_time(args, |time| time.weekday),
    },
    Function {
        name: "getHours",
        overloads: &[
            ("timestamp_to_hours", "timestamp.() int"),
            ("timestamp_to_hours_with_tz", "timestamp.(string) int"),
            ("duration_to_hours", "duration.() int"),
        ],
        run: |args, _| match args {
            [Value::Duration(nanos)] => Ok(Some(Value::Int(nanos / 3_600_000_000_000))),
            _ => of_time(args, |time| time.hour),
        },
    },
    Function {
        name: "getMinutes",
        overloads: &[
            ("timestamp_to_minutes", "timestamp.() int"),
            ("timestamp_to_minutes_with_tz", "timestamp.(string) int"),
            ("duration_to_minutes", "duration.() int"),
        ],
        run: |args, _| match args {
            [Value::Duration(nanos)] => Ok(Some(Value::Int(nanos / 60_000_000_000))),
            _ => of_time(args, |time| time.minute),
        },
    },
    Function {
        name: "getSeconds",
        overloads: &[
            ("timestamp_to_seconds", "timestamp.() int"),
            ("timestamp_to_seconds_tz", "timestamp.(string) int"),
            ("duration_to_seconds", "duration.() int"),
        ],
        run: |args, _| match args {
            [Value::Duration(nanos)] => Ok(Some(Value::Int(nanos / 1_000_000_000))),
            _ => of_time(args, |time| time.second),
        },
    },
    Function {
        name: "getMilliseconds",
        overloads: &[
            ("timestamp_to_milliseconds", "timestamp.() int"),
            (
                "timestamp_to_milliseconds_with_tz",
                "timestamp.(string) int",
            ),
            ("duration_to_milliseconds", "duration.() int"),
        ],
        run: |args, _| match args {
            [Value::Duration(nanos)] => Ok(Some(Value::Int(nanos / 1_000_000))),
            _ => of_time(args, |time| time.nanos / 1_000_000),
        },
    },
];

fn unconvertible(from: &str, to: &str) -> Error {
    Error::new(format!("type conversion error from '{from}' to '{to}'"))
}

fn not(value: Value<'_>) -> Value<'_> {
    Value::Bool(matches!(value, Value::Bool(false)))
}

fn int<'a>(number: Option<i64>) -> Outcome<'a> {
    match number {
        Some(number) => Ok(Some(Value::Int(number))),
        None => Err(Error::new("integer overflow")),
    }
}

fn uint<'a>(number: Option<u64>) -> Outcome<'a> {
    match number {
        Some(number) => Ok(Some(Value::Uint(number))),
        None => Err(Error::new("unsigned integer overflow")),
    }
}

fn in_range<'a>(time: Option<Time>) -> Outcome<'a> {
    match time {
        Some(time) => Ok(Some(Value::Timestamp(time))),
        None => Err(Error::new("timestamp overflow")),
    }
}

fn span<'a>(nanos: Option<i64>) -> Outcome<'a> {
    match nanos {
        Some(nanos) => Ok(Some(Value::Duration(nanos))),
        None => int(None),
    }
}

fn size<'a>(args: &[Value<'a>], _: &mut Meter) -> Outcome<'a> {
    match args {
        [value @ (Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_))] => {
            let size = value.size().unwrap_or_default();
            Ok(Some(Value::Int(i64::try_from(size).unwrap_or(i64::MAX))))
        }
        _ => Ok(None),
    }
}

fn equals<'a>(args: &[Value<'a>], _: &mut Meter) -> Outcome<'a> {
    match args {
        [a, b] => Ok(Some(Value::Bool(a.equals(b)?))),
        _ => Ok(None),
    }
}

fn is_in<'a>(args: &[Value<'a>], _: &mut Meter) -> Outcome<'a> {
    Ok(match args {
        [value, Value::List(list)] => Some(Value::Bool(list.contains(value)?)),
        [value, Value::Map(map)] => {
            let found = match (value.key(), map) {
                (Some(key), _) => map.find(&key)?.is_some(),
                (None, Map::Built(_)) => false,
                (None, Map::Json(..)) => return Ok(None),
            };
            Some(Value::Bool(found))
        }
        _ => None,
    })
}

fn ordered<'a>(args: &[Value<'a>], holds: fn(Ordering) -> bool) -> Outcome<'a> {
    match args {
        [Value::Double(number), _] | [_, Value::Double(number)] if number.is_nan() => {
            Err(Error::new("NaN values cannot be ordered"))
        }
        [a, b] => Ok(a.compare(b).map(|order| Value::Bool(holds(order)))),
        _ => Ok(None),
    }
}

fn add<'a>(args: &[Value<'a>], meter: &mut Meter) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => int(a.checked_add(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_add(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Some(Value::Double(a + b))),
        [Value::String(a), Value::String(b)] => {
            meter.allocate(a.len() + b.len())?;
            Ok(Some(Value::text([&**a, &**b].concat())))
        }
        [Value::Bytes(a), Value::Bytes(b)] => {
            meter.allocate(a.len() + b.len())?;
            Ok(Some(Value::Bytes([&**a, &**b].concat().into())))
        }
        [Value::List(a), Value::List(b)] => {
            meter.allocate_values(a.len() + b.len())?;
            Ok(Some(Value::List(a.concat(b)?)))
        }
        [Value::Duration(a), Value::Duration(b)] => span(a.checked_add(*b)),
        [Value::Timestamp(time), Value::Duration(nanos)]
        | [Value::Duration(nanos), Value::Timestamp(time)] => in_range(time.plus(*nanos)),
        _ => Ok(None),
    }
}

fn subtract<'a>(args: &[Value<'a>], _: &mut Meter) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => int(a.checked_sub(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_sub(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Some(Value::Double(a - b))),
        [Value::Duration(a), Value::Duration(b)] => span(a.checked_sub(*b)),
        [Value::Timestamp(_), Value::Duration(i64::MIN)] => span(None),
        [Value::Timestamp(time), Value::Duration(nanos)] => in_range(time.minus(*nanos)),
        [Value::Timestamp(a), Value::Timestamp(b)] => match a.since(*b) {
            Some(nanos) => span(Some(nanos)),
            // Upstream counts in integers here, and says so.
            None => int(None),
        },
        _ => Ok(None),
    }
}

fn texts<'a>(args: &[Value<'a>], holds: impl Fn(&str, &str) -> bool) -> Outcome<'a> {
    match args {
        [Value::String(text), Value::String(part)] => Ok(Some(Value::Bool(holds(text, part)))),
        _ => Ok(None),
    }
}

fn of_time<'a>(args: &[Value<'a>], part: impl Fn(&time::Civil) -> i64) -> Outcome<'a> {
    let (time, offset_seconds) = match args {
        [Value::Timestamp(time)] => (time, 0),
        [Value::Timestamp(time), Value::String(name)] => {
            let offset_seconds = time::zone(name, *time).map_err(Error::new)?;
            (time, offset_seconds)
        }
        _ => return Ok(None),
    };
    Ok(Some(Value::Int(part(&time::civil(*time, offset_seconds)))))
}
