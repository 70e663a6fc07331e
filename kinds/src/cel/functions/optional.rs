//! Values that may be absent. `or` and `orValue` do not look at their argument unless they need it; `super::super::eval` has them.

use super::{Function, Outcome};
use crate::cel::eval::{Error, Meter};
use crate::cel::value::{List, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "optional.of",
        overloads: &[("optional_of", "(A) optional(A)")],
        run: |args, _| Ok(args.first().cloned().map(Value::some)),
    },
    Function {
        name: "optional.ofNonZeroValue",
        overloads: &[("optional_ofNonZeroValue", "(A) optional(A)")],
        run: |args, _| {
            Ok(args.first().map(|value| match value.is_zero() {
                true => Value::Optional(None),
                false => Value::some(value.clone()),
            }))
        },
    },
    Function {
        name: "optional.none",
        overloads: &[("optional_none", "() optional(A)")],
        run: |_, _| Ok(Some(Value::Optional(None))),
    },
    Function {
        name: "value",
        overloads: &[("optional_value", "optional(A).() A")],
        run: |args, _| match args {
            [Value::Optional(Some(value))] => Ok(Some((**value).clone())),
            [Value::Optional(None)] => Err(Error::new("optional.none() dereference")),
            _ => Ok(None),
        },
    },
    Function {
        name: "hasValue",
        overloads: &[("optional_hasValue", "optional(A).() bool")],
        run: |args, _| match args {
            [Value::Optional(value)] => Ok(Some(Value::Bool(value.is_some()))),
            _ => Ok(None),
        },
    },
    Function {
        name: "or",
        overloads: &[(
            "optional_or_optional",
            "optional(A).(optional(A)) optional(A)",
        )],
        run: |_, _| Ok(None),
    },
    Function {
        name: "orValue",
        overloads: &[("optional_orValue_value", "optional(A).(A) A")],
        run: |_, _| Ok(None),
    },
    Function {
        name: "optional.unwrap",
        overloads: &[("optional_unwrap", "(list(optional(A))) list(A)")],
        run: unwrapped,
    },
    Function {
        name: "unwrapOpt",
        overloads: &[("optional_unwrapOpt", "list(optional(A)).() list(A)")],
        run: unwrapped,
    },
];

fn unwrapped<'a>(args: &[Value<'a>], meter: &mut Meter) -> Outcome<'a> {
    let [Value::List(list)] = args else {
        return Ok(None);
    };
    meter.allocate_values(List::len(list))?;
    let mut items = Vec::new();
    for item in list.iter() {
        match item? {
            Value::Optional(Some(value)) => items.push((*value).clone()),
            Value::Optional(None) => {}
            other => return Err(Error::new(format!("value {other} is not optional"))),
        }
    }
    Ok(Some(Value::list(items)))
}
