//! Kubernetes' quantities.

use weft_api::quantity::Quantity;

use super::{Function, Outcome};
use crate::cel::eval::Error;
use crate::cel::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "quantity",
        overloads: &[("string_to_quantity", "(string) Quantity")],
        run: |args, _| match args {
            [Value::String(text)] => match Quantity::parse(text) {
                Ok(quantity) => Ok(Some(Value::Quantity(quantity))),
                Err(error) => Err(Error::new(error.to_string())),
            },
            _ => Ok(None),
        },
    },
    Function {
        name: "isQuantity",
        overloads: &[("is_quantity_string", "(string) bool")],
        run: |args, _| match args {
            [Value::String(text)] => Ok(Some(Value::Bool(Quantity::parse(text).is_ok()))),
            _ => Ok(None),
        },
    },
    Function {
        name: "sign",
        overloads: &[("quantity_sign", "(Quantity) int")],
        run: |args, _| match args {
            [Value::Quantity(quantity)] => Ok(Some(Value::Int(match quantity {
                quantity if quantity.is_zero() => 0,
                quantity if quantity.is_negative() => -1,
                _ => 1,
            }))),
            _ => Ok(None),
        },
    },
    Function {
        name: "isGreaterThan",
        overloads: &[("quantity_is_greater_than", "Quantity.(Quantity) bool")],
        run: |args, _| match args {
            [Value::Quantity(a), Value::Quantity(b)] => Ok(Some(Value::Bool(a > b))),
            _ => Ok(None),
        },
    },
    Function {
        name: "isLessThan",
        overloads: &[("quantity_is_less_than", "Quantity.(Quantity) bool")],
        run: |args, _| match args {
            [Value::Quantity(a), Value::Quantity(b)] => Ok(Some(Value::Bool(a < b))),
            _ => Ok(None),
        },
    },
    Function {
        name: "compareTo",
        overloads: &[("quantity_compare_to", "Quantity.(Quantity) int")],
        run: |args, _| match args {
            [Value::Quantity(a), Value::Quantity(b)] => Ok(Some(Value::Int(a.cmp(b) as i64))),
            _ => Ok(None),
        },
    },
    Function {
        name: "asApproximateFloat",
        overloads: &[("quantity_get_float", "Quantity.() double")],
        run: |args, _| match args {
            [Value::Quantity(quantity)] => Ok(Some(Value::Double(match whole(*quantity) {
                Some(number) => number as f64,
                None => quantity.milli() as f64 / 1000.0,
            }))),
            _ => Ok(None),
        },
    },
    Function {
        name: "asInteger",
        overloads: &[("quantity_get_int", "Quantity.() int")],
        run: |args, _| match args {
            [Value::Quantity(quantity)] => match whole(*quantity) {
                Some(number) => Ok(Some(Value::Int(number))),
                None => Err(Error::new("cannot convert value to integer")),
            },
            _ => Ok(None),
        },
    },
    Function {
        name: "isInteger",
        overloads: &[("quantity_is_integer", "Quantity.() bool")],
        run: |args, _| match args {
            [Value::Quantity(quantity)] => Ok(Some(Value::Bool(whole(*quantity).is_some()))),
            _ => Ok(None),
        },
    },
    Function {
        name: "add",
        overloads: &[
            ("quantity_add", "Quantity.(Quantity) Quantity"),
            ("quantity_add_int", "Quantity.(int) Quantity"),
        ],
        run: |args, _| with(args, |a, b| a + b),
    },
    Function {
        name: "sub",
        overloads: &[
            ("quantity_sub", "Quantity.(Quantity) Quantity"),
            ("quantity_sub_int", "Quantity.(int) Quantity"),
        ],
        run: |args, _| with(args, |a, b| a - b),
    },
];

/// The integer that a quantity is, if it is one.
fn whole(quantity: Quantity) -> Option<i64> {
    let number = quantity.value();
    (Quantity::from_value(number) == quantity).then_some(())?;
    i64::try_from(number).ok()
}

fn with<'a>(args: &[Value<'a>], make: impl Fn(Quantity, Quantity) -> Quantity) -> Outcome<'a> {
    Ok(match args {
        [Value::Quantity(a), Value::Quantity(b)] => Some(Value::Quantity(make(*a, *b))),
        [Value::Quantity(a), Value::Int(b)] => Some(Value::Quantity(make(
            *a,
            Quantity::from_value(i128::from(*b)),
        ))),
        _ => None,
    })
}
