//! Functions on lists, and those that take lists for sets.

use std::cmp::Ordering;

use super::{Function, Outcome, Overload, overload};
use crate::cel::declaration::Type;
use crate::cel::eval::{Error, Meter};
use crate::cel::value::{Key, List, Map, Value};

/// Longest list that `lists.range` makes; upstream's limit.
const RANGE_MAX: i64 = 1_000_000;
/// What `sortBy` becomes; no name that can be written.
pub(in crate::cel) const SORT_BY_KEYS: &str = "@sortByAssociatedKeys";

/// Levels that `flatten` takes away at most: no value has more.
const FLATTEN_MAX: i64 = 200;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "isSorted",
        overloads: &[("list_{}_is_sorted_bool", "list({}).() bool")],
        run: |args, _| match args {
            [Value::List(list)] => {
                let mut before: Option<Value<'_>> = None;
                for item in list.iter() {
                    let item = item?;
                    if !item.is_ordered() {
                        return Ok(None);
                    }
                    // What has no order between two elements is none that is broken.
                    let order = before.as_ref().and_then(|before| before.compare(&item));
                    if order.is_some_and(Ordering::is_gt) {
                        return Ok(Some(Value::Bool(false)));
                    }
                    before = Some(item);
                }
                Ok(Some(Value::Bool(true)))
            }
            _ => Ok(None),
        },
    },
    Function {
        name: "sum",
        overloads: &[("list_{}_sum_{}", "list({}).() {}")],
        run: sum,
    },
    Function {
        name: "max",
        overloads: &[("list_{}_max_{}", "list({}).() {}")],
        run: |args, _| extreme(args, "max", Ordering::Greater),
    },
    Function {
        name: "min",
        overloads: &[("list_{}_min_{}", "list({}).() {}")],
        run: |args, _| extreme(args, "min", Ordering::Less),
    },
    Function {
        name: "indexOf",
        overloads: &[("list_a_index_of_int", "list(A).(A) int")],
        run: |args, _| match args {
            [Value::List(list), wanted] => {
                for (index, item) in list.iter().enumerate() {
                    if item?.equals(wanted)? {
                        return Ok(Some(Value::Int(index as i64)));
                    }
                }
                Ok(Some(Value::Int(-1)))
            }
            _ => Ok(None),
        },
    },
    Function {
        name: "lastIndexOf",
        overloads: &[("list_a_last_index_of_int", "list(A).(A) int")],
        run: |args, _| match args {
            [Value::List(list), wanted] => {
                for index in (0..list.len()).rev() {
                    if let Some(item) = list.get(index)
                        && item?.equals(wanted)?
                    {
                        return Ok(Some(Value::Int(index as i64)));
                    }
                }
                Ok(Some(Value::Int(-1)))
            }
            _ => Ok(None),
        },
    },
    Function {
        name: "includes",
        overloads: &[("list_includes_dyn_dyn", "dyn.(dyn) bool")],
        run: |args, _| match args {
            [Value::List(list), wanted] => Ok(Some(Value::Bool(list.contains(wanted)?))),
            [value, wanted] => Ok(Some(Value::Bool(value.equals(wanted)?))),
            _ => Ok(None),
        },
    },
    Function {
        name: "slice",
        overloads: &[("list_slice", "list(A).(int, int) list(A)")],
        run: |args, meter| match args {
            [Value::List(list), Value::Int(from), Value::Int(to)] => {
                let size = list.len();
                let fault =
                    |told: String| Error::new(format!("cannot slice({from}, {to}), {told}"));
                let (Ok(start), Ok(end)) = (usize::try_from(*from), usize::try_from(*to)) else {
                    return Err(fault("negative indexes not supported".to_owned()));
                };
                if start > end {
                    return Err(fault(
                        "start index must be less than or equal to end index".to_owned(),
                    ));
                }
                if end > size {
                    return Err(fault(format!("list is length {size}")));
                }
                meter.allocate_values(end - start)?;
                let items: Result<_, _> =
                    (start..end).filter_map(|index| list.get(index)).collect();
                Ok(Some(Value::list(items?)))
            }
            _ => Ok(None),
        },
    },
    Function {
        name: "flatten",
        overloads: &[
            ("list_flatten", "list(list(A)).() list(A)"),
            ("list_flatten_int", "list(dyn).(int) list(dyn)"),
        ],
        run: |args, meter| {
            let (list, depth) = match args {
                [Value::List(list)] => (list, 1),
                [Value::List(list), Value::Int(depth)] => (list, *depth),
                _ => return Ok(None),
            };
            if depth < 0 {
                return Err(Error::new("level must be non-negative"));
            }
            let mut items = Vec::new();
            flatten(list, depth.min(FLATTEN_MAX), &mut items, meter)?;
            Ok(Some(Value::list(items)))
        },
    },
    Function {
        name: "sort",
        overloads: &[("list_{}_sort", "list({}).() list({})")],
        run: |args, meter| match args {
            [Value::List(list)] => sorted(list, list, meter),
            _ => Ok(None),
        },
    },
    Function {
        name: SORT_BY_KEYS,
        overloads: &[("list_{}_sortByAssociatedKeys", "list(A).(list({})) list(A)")],
        run: |args, meter| match args {
            [Value::List(list), Value::List(keys)] => sorted(list, keys, meter),
            _ => Ok(None),
        },
    },
    Function {
        name: "lists.range",
        overloads: &[("lists_range", "(int) list(int)")],
        run: |args, meter| match args {
            [Value::Int(count)] => {
                if *count < 0 {
                    return Err(Error::new(format!(
                        "lists.range: size must be non-negative, got {count}"
                    )));
                }
                if *count > RANGE_MAX {
                    return Err(Error::new(format!(
                        "lists.range: size {count} exceeds maximum allowed ({RANGE_MAX})"
                    )));
                }
                meter.allocate_values(usize::try_from(*count).unwrap_or(0))?;
                Ok(Some(Value::list((0..*count).map(Value::Int).collect())))
            }
            _ => Ok(None),
        },
    },
    Function {
        name: "reverse",
        overloads: &[("list_reverse", "list(A).() list(A)")],
        run: |args, meter| match args {
            [Value::List(list)] => {
                meter.allocate_values(list.len())?;
                let mut items: Vec<Value<'_>> = list.iter().collect::<Result<_, _>>()?;
                items.reverse();
                Ok(Some(Value::list(items)))
            }
            _ => Ok(None),
        },
    },
    Function {
        name: "distinct",
        overloads: &[("list_distinct", "list(A).() list(A)")],
        run: |args, meter| match args {
            [Value::List(list)] => {
                let mut items: Vec<Value<'_>> = Vec::new();
                for item in list.iter() {
                    let item = item?;
                    let mut found = false;
                    for other in &items {
                        found = found || other.equals(&item)?;
                    }
                    if !found {
                        meter.allocate_values(1)?;
                        items.push(item);
                    }
                }
                Ok(Some(Value::list(items)))
            }
            _ => Ok(None),
        },
    },
    Function {
        name: "first",
        overloads: &[("list_first", "list(A).() optional(A)")],
        run: |args, _| match args {
            [Value::List(list)] => Ok(Some(optional(list.get(0))?)),
            _ => Ok(None),
        },
    },
    Function {
        name: "last",
        overloads: &[("list_last", "list(A).() optional(A)")],
        run: |args, _| match args {
            [Value::List(list)] => {
                let last = list.len().checked_sub(1);
                Ok(Some(optional(last.and_then(|last| list.get(last)))?))
            }
            _ => Ok(None),
        },
    },
    Function {
        name: "sets.contains",
        overloads: &[("list_sets_contains_list", "(list(A), list(A)) bool")],
        run: |args, _| sets(args, contains_all),
    },
    Function {
        name: "sets.equivalent",
        overloads: &[("list_sets_equivalent_list", "(list(A), list(A)) bool")],
        run: |args, _| sets(args, |a, b| Ok(contains_all(a, b)? && contains_all(b, a)?)),
    },
    Function {
        name: "sets.intersects",
        overloads: &[("list_sets_intersects_list", "(list(A), list(A)) bool")],
        run: |args, _| {
            sets(args, |a, b| {
                for item in a.iter() {
                    if b.contains(&item?)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            })
        },
    },
    Function {
        name: "cel.@mapInsert",
        overloads: &[
            ("@mapInsert_map_key_value", "(map(A,B), A, B) map(A,B)"),
            ("@mapInsert_map_map", "(map(A,B), map(A,B)) map(A,B)"),
        ],
        run: insert,
    },
];

/// One overload for each type that has an order; of sums for each that can be added.
pub(super) fn templates(id: &str, signature: &str) -> Vec<Overload> {
    let types: &[(&str, &str)] = match id.contains("_sum_") {
        true => &[
            ("int", "int"),
            ("uint", "uint"),
            ("double", "double"),
            ("duration", "duration"),
        ],
        false => &[
            ("int", "int"),
            ("uint", "uint"),
            ("double", "double"),
            ("bool", "bool"),
            ("duration", "duration"),
            ("timestamp", "timestamp"),
            ("string", "string"),
            ("bytes", "bytes"),
        ],
    };
    types
        .iter()
        .map(|(name, type_name)| {
            overload(id.replace("{}", name), &signature.replace("{}", type_name))
        })
        .collect()
}

/// The elements in the order of their keys, which stand at the same places.
fn sorted<'a>(list: &List<'a>, keys: &List<'a>, meter: &mut Meter) -> Outcome<'a> {
    let (count, keyed) = (list.len(), keys.len());
    if count != keyed {
        return Err(Error::new(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {count} and {keyed} elements respectively"
        )));
    }
    meter.allocate_values(count)?;
    let mut pairs: Vec<(Value<'a>, Value<'a>)> = keys
        .iter()
        .zip(list.iter())
        .map(|(key, item)| Ok((key?, item?)))
        .collect::<Result<_, Error>>()?;
    if let Some((first, _)) = pairs.first() {
        if !first.is_ordered() {
            return Err(Error::new("list elements must be comparable"));
        }
        let same = |(key, _): &(Value<'_>, Value<'_>)| key.type_name() == first.type_name();
        // One element is compared with none.
        if pairs.len() > 1 && !pairs.iter().all(same) {
            return Err(Error::new("list elements must have the same type"));
        }
    }
    pairs.sort_by(|(a, _), (b, _)| a.compare(b).unwrap_or(Ordering::Equal));
    Ok(Some(Value::list(
        pairs.into_iter().map(|(_, item)| item).collect(),
    )))
}

/// What the sum of no elements of a type is.
pub(in crate::cel) fn zero(of: &Type) -> Option<Value<'static>> {
    match of {
        Type::Int => Some(Value::Int(0)),
        Type::Uint => Some(Value::Uint(0)),
        Type::Double => Some(Value::Double(0.0)),
        Type::Duration => Some(Value::Duration(0)),
        _ => None,
    }
}

fn optional<'a>(item: Option<Result<Value<'a>, Error>>) -> Result<Value<'a>, Error> {
    Ok(match item {
        Some(item) => Value::some(item?),
        None => Value::Optional(None),
    })
}

fn sum<'a>(args: &[Value<'a>], meter: &mut Meter) -> Outcome<'a> {
    let [Value::List(list)] = args else {
        return Ok(None);
    };
    let add = super::find("_+_").ok_or_else(Error::no_such_overload)?;
    let mut total: Option<Value<'a>> = None;
    for item in list.iter() {
        let item = item?;
        total = Some(match total {
            None => item,
            Some(total) => add.run(&[total, item], meter)?,
        });
    }
    // Of which type nothing is, an empty list does not say: [`zero`] does where it is known.
    Ok(Some(total.unwrap_or(Value::Int(0))))
}

fn extreme<'a>(args: &[Value<'a>], name: &str, wanted: Ordering) -> Outcome<'a> {
    let [Value::List(list)] = args else {
        return Ok(None);
    };
    let mut best: Option<Value<'a>> = None;
    for item in list.iter() {
        let item = item?;
        if !item.is_ordered() {
            return Ok(None);
        }
        best = match best {
            Some(best) if item.compare(&best) != Some(wanted) => Some(best),
            _ => Some(item),
        };
    }
    match best {
        Some(best) => Ok(Some(best)),
        None => Err(Error::new(format!("{name} called on empty list"))),
    }
}

fn contains_all<'a>(list: &List<'a>, wanted: &List<'a>) -> Result<bool, Error> {
    for item in wanted.iter() {
        if !list.contains(&item?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn sets<'a>(
    args: &[Value<'a>],
    holds: impl Fn(&List<'a>, &List<'a>) -> Result<bool, Error>,
) -> Outcome<'a> {
    match args {
        [Value::List(a), Value::List(b)] => Ok(Some(Value::Bool(holds(a, b)?))),
        _ => Ok(None),
    }
}

fn flatten<'a>(
    list: &List<'a>,
    depth: i64,
    items: &mut Vec<Value<'a>>,
    meter: &mut Meter,
) -> Result<(), Error> {
    for item in list.iter() {
        match item? {
            Value::List(inner) if depth > 0 => flatten(&inner, depth - 1, items, meter)?,
            item => {
                meter.allocate_values(1)?;
                items.push(item);
            }
        }
    }
    Ok(())
}

/// Adds entries to a map that an expression makes.
fn insert<'a>(args: &[Value<'a>], meter: &mut Meter) -> Outcome<'a> {
    let (map, entries) = match args {
        [Value::Map(map), key, value] => (map, vec![(key.clone(), value.clone())]),
        [Value::Map(map), Value::Map(more)] => {
            let mut entries = Vec::new();
            for key in more.keys() {
                let found = key.key().ok_or_else(Error::no_such_overload)?;
                if let Some(value) = more.find(&found)? {
                    entries.push((key, value));
                }
            }
            (map, entries)
        }
        _ => return Ok(None),
    };
    let Map::Built(built) = map else {
        return Ok(None);
    };
    meter.allocate_values(built.len() + entries.len())?;
    let mut made = (**built).clone();
    for (key, value) in entries {
        let shown = key.to_string();
        let key = key
            .key()
            .ok_or_else(|| Error::new(format!("unsupported key type: {}", key.type_name())))?;
        if insert_unique(&mut made, key, value) {
            return Err(Error::new(format!(
                "insert failed: key {shown} already exists"
            )));
        }
    }
    Ok(Some(Value::Map(Map::Built(made.into()))))
}

/// Puts an entry into a map; whether its key was there.
pub(in crate::cel) fn insert_unique<'a>(
    map: &mut std::collections::BTreeMap<Key, Value<'a>>,
    key: Key,
    value: Value<'a>,
) -> bool {
    let twin = match &key {
        Key::Int(number) => u64::try_from(*number).ok().map(Key::Uint),
        Key::Uint(number) => i64::try_from(*number).ok().map(Key::Int),
        _ => None,
    };
    let known = map.contains_key(&key) || twin.is_some_and(|twin| map.contains_key(&twin));
    map.insert(key, value);
    known
}
