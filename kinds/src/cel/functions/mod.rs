//! The functions that rules can call: what they take, what they give, what they do.
//!
//! A library is a file with its [`Function`]s: name, overloads by signature, and one program that looks at its arguments, so
//! that a call whose types are known only when it runs finds its way as any other. [`find`] merges those of one name.
//!
//! Invariants: total on any arguments; none panics, and none makes more than it has asked its [`Meter`] for.
//! Source of names and signatures: cel-go `common/stdlib`, `ext`, and k8s.io/apiserver `pkg/cel/library` as of 1.37.

pub mod authorizer;
pub(super) mod format;
pub(super) mod formatting;
pub(super) mod lists;
mod network;
mod optional;
mod quantity;
pub(super) mod semver;
mod standard;
mod strings;
pub(super) mod url;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use super::declaration::Type;
use super::eval::{Error, Meter};
use super::value::Value;

pub(super) use lists::insert_unique;
pub(super) use standard::regex;

/// A result; none when the arguments are not this function's.
pub(super) type Outcome<'a> = Result<Option<Value<'a>>, Error>;

pub(super) type Run = for<'a> fn(&[Value<'a>], &mut Meter) -> Outcome<'a>;

/// A function as its library declares it.
pub(super) struct Function {
    name: &'static str,
    /// Name and signature: `("string_size", "string.() int")`. Capital letters stand for any type, the same everywhere.
    overloads: &'static [(&'static str, &'static str)],
    run: Run,
}

/// One way to call a function.
#[derive(Debug)]
pub(super) struct Overload {
    pub id: String,
    /// Whether it is called on its first argument.
    pub member: bool,
    pub args: Vec<Type>,
    pub result: Type,
    /// How many type variables it has.
    pub params: u32,
}

/// All functions of one name.
pub(super) struct Declared {
    pub name: &'static str,
    pub overloads: Vec<Overload>,
    runs: Vec<Run>,
}

impl Declared {
    pub(super) fn run<'a>(
        &self,
        args: &[Value<'a>],
        meter: &mut Meter,
    ) -> Result<Value<'a>, Error> {
        for run in &self.runs {
            if let Some(value) = run(args, meter)? {
                return Ok(value);
            }
        }
        Err(Error::no_such_overload())
    }
}

static DECLARED: LazyLock<BTreeMap<&'static str, Declared>> = LazyLock::new(|| {
    let mut all = BTreeMap::new();
    for library in [
        standard::FUNCTIONS,
        strings::FUNCTIONS,
        lists::FUNCTIONS,
        optional::FUNCTIONS,
        network::FUNCTIONS,
        url::FUNCTIONS,
        quantity::FUNCTIONS,
        semver::FUNCTIONS,
        format::FUNCTIONS,
        authorizer::FUNCTIONS,
    ] {
        for function in library {
            let declared = all.entry(function.name).or_insert_with(|| Declared {
                name: function.name,
                overloads: Vec::new(),
                runs: Vec::new(),
            });
            declared.runs.push(function.run);
            for (id, signature) in function.overloads {
                // `T` in the name of an overload stands for each type that has an order, or a sum.
                match id.contains("{}") {
                    false => declared
                        .overloads
                        .push(overload((*id).to_owned(), signature)),
                    true => declared.overloads.extend(lists::templates(id, signature)),
                }
            }
        }
    }
    all
});

/// The functions of a name.
pub(super) fn find(name: &str) -> Option<&'static Declared> {
    DECLARED.get(name)
}

/// Types that have a name to compare with: `type(x) == int`.
pub(super) fn type_named(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "null_type" => Type::Null,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "type" => Type::Type(Arc::new(Type::Dyn)),
        "optional_type" => Type::optional(Type::Dyn),
        "google.protobuf.Duration" => Type::Duration,
        "google.protobuf.Timestamp" => Type::Timestamp,
        "net.IP" => Type::Opaque("net.IP"),
        "net.CIDR" => Type::Opaque("net.CIDR"),
        _ => return None,
    })
}

fn overload(id: String, signature: &str) -> Overload {
    let mut reader = Signature {
        rest: signature,
        params: 0,
    };
    let member = !signature.starts_with('(');
    let mut args = Vec::new();
    if member {
        args.push(reader.next());
        reader.skip(".");
    }
    reader.skip("(");
    while !reader.rest.starts_with(')') {
        args.push(reader.next());
        reader.rest = reader.rest.trim_start_matches([',', ' ']);
    }
    reader.skip(") ");
    let result = reader.next();
    Overload {
        id,
        member,
        args,
        result,
        params: reader.params,
    }
}

/// Reads the types of a signature. What it reads is written in this folder, and a test reads all of it.
struct Signature<'a> {
    rest: &'a str,
    params: u32,
}

impl Signature<'_> {
    fn skip(&mut self, text: &str) {
        self.rest = self
            .rest
            .strip_prefix(text)
            .expect("signatures are well formed");
    }

    fn next(&mut self) -> Type {
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        let inner = |reader: &mut Self| {
            reader.skip("(");
            let inner = reader.next();
            reader.skip(")");
            inner
        };
        match name {
            "dyn" => Type::Dyn,
            "null" => Type::Null,
            "duration" => Type::Duration,
            "timestamp" => Type::Timestamp,
            "list" => Type::list(inner(self)),
            "optional" => Type::optional(inner(self)),
            "type" => Type::Type(Arc::new(inner(self))),
            "map" => {
                self.skip("(");
                let key = self.next();
                self.skip(",");
                let value = self.next();
                self.skip(")");
                Type::map(key, value)
            }
            "IP" => Type::Opaque("net.IP"),
            "CIDR" => Type::Opaque("net.CIDR"),
            "URL" => Type::Opaque("kubernetes.URL"),
            "Quantity" => Type::Opaque("kubernetes.Quantity"),
            "Semver" => Type::Opaque("kubernetes.Semver"),
            "Format" => Type::Opaque("kubernetes.NamedFormat"),
            "Authorizer" => Type::Opaque("kubernetes.authorization.Authorizer"),
            "PathCheck" => Type::Opaque("kubernetes.authorization.PathCheck"),
            "GroupCheck" => Type::Opaque("kubernetes.authorization.GroupCheck"),
            "ResourceCheck" => Type::Opaque("kubernetes.authorization.ResourceCheck"),
            "Decision" => Type::Opaque("kubernetes.authorization.Decision"),
            "A" | "B" => {
                let number = u32::from(name == "B");
                self.params = self.params.max(number + 1);
                Type::Param(number)
            }
            name => type_named(name).expect("signatures name types"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signature_is_read() {
        assert!(DECLARED.len() > 100, "{}", DECLARED.len());
        let size: Vec<String> = find("size")
            .unwrap()
            .overloads
            .iter()
            .map(|overload| format!("{} {:?} {}", overload.id, overload.args, overload.result))
            .collect();
        assert_eq!(size[0], "size_string [String] int");
        let sum: Vec<&str> = find("sum")
            .unwrap()
            .overloads
            .iter()
            .map(|overload| overload.id.as_str())
            .collect();
        assert_eq!(
            sum,
            [
                "list_int_sum_int",
                "list_uint_sum_uint",
                "list_double_sum_double",
                "list_duration_sum_duration"
            ]
        );
        // Names of overloads are unlike one another: costs are found by them.
        let mut ids: Vec<&str> = DECLARED
            .values()
            .flat_map(|declared| {
                declared
                    .overloads
                    .iter()
                    .map(|overload| overload.id.as_str())
            })
            .collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }
}
