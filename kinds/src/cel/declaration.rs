//! Types of expressions, and what a schema says of the values behind them.
//!
//! A [`Decl`] is a place of a schema as rules see it: its type, how large values can be, and how JSON there is read. Names of
//! fields are escaped as upstream does (`__dot__`, `__namespace__`).
//!
//! Invariants: pure; a place whose type rules cannot see (`x-kubernetes-preserve-unknown-fields` without a type) has no
//! declaration, and neither has a list or map of such.
//! Source: k8s.io/apiserver `pkg/cel/common/schemas.go`, `pkg/cel/types.go`, `pkg/cel/escaping.go`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use super::parser::RESERVED;
use crate::schema::Schema;

/// Largest body of a request, which bounds what no schema bounds.
pub(super) const REQUEST_BYTES_MAX: u64 = 3 << 20;

/// Longest name of an object.
const NAME_CHARS_MAX: u64 = 253;

#[derive(Clone, Debug)]
pub enum Type {
    Dyn,
    /// Of what is wrong already; goes with everything.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    List(Arc<Type>),
    Map(Arc<(Type, Type)>),
    Optional(Arc<Type>),
    /// What `type()` returns.
    Type(Arc<Type>),
    /// An object with the fields of a schema.
    Object(Arc<Decl>),
    /// A type of a library: `net.IP`.
    Opaque(&'static str),
    /// A variable of a signature.
    Param(u32),
}

impl PartialEq for Type {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::List(a), Self::List(b))
            | (Self::Optional(a), Self::Optional(b))
            | (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Map(a), Self::Map(b)) => a == b,
            (Self::Object(a), Self::Object(b)) => Arc::ptr_eq(a, b) || a.name == b.name,
            (Self::Opaque(a), Self::Opaque(b)) => a == b,
            (Self::Param(a), Self::Param(b)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl Type {
    pub(super) fn list(item: Type) -> Self {
        Self::List(Arc::new(item))
    }

    pub(super) fn map(key: Type, value: Type) -> Self {
        Self::Map(Arc::new((key, value)))
    }

    pub(super) fn optional(value: Type) -> Self {
        Self::Optional(Arc::new(value))
    }

    pub(super) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Self::Dyn | Self::Error)
    }

    /// Whether values have one size, whatever they are.
    pub(super) fn is_scalar(&self) -> bool {
        match self {
            Self::Bool
            | Self::Int
            | Self::Uint
            | Self::Double
            | Self::Duration
            | Self::Timestamp => true,
            Self::Optional(value) => value.is_scalar(),
            _ => false,
        }
    }

    /// Types that the type itself is made of.
    pub(super) fn parameters(&self) -> Vec<&Type> {
        match self {
            Self::List(item) | Self::Optional(item) | Self::Type(item) => vec![item],
            Self::Map(entry) => vec![&entry.0, &entry.1],
            _ => Vec::new(),
        }
    }

    /// What `type()` calls it.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Dyn => "dyn",
            Self::Error => "!error!",
            Self::Null => "null_type",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Duration => "google.protobuf.Duration",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Object(decl) => &decl.name,
            Self::Opaque(name) => name,
            Self::Param(_) => "",
        }
    }
}

/// As errors name it.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Duration => f.write_str("duration"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Param(number) => write!(f, "_var{number}"),
            Self::List(item) | Self::Optional(item) | Self::Type(item) => {
                write!(f, "{}({item})", self.name())
            }
            Self::Map(entry) => write!(f, "map({}, {})", entry.0, entry.1),
            other => f.write_str(other.name()),
        }
    }
}

/// A place of a schema as rules see it.
#[derive(Debug)]
pub struct Decl {
    /// Of an object, unlike any other's.
    name: String,
    pub(super) shape: Shape,
    /// Most characters, elements or entries that fit.
    pub(super) elements_max: u64,
    /// Fewest bytes of JSON.
    bytes_min: u64,
    pub(super) nullable: bool,
}

/// How JSON at a place is read.
#[derive(Debug)]
pub(super) enum Shape {
    IntOrString,
    Bool,
    Int,
    Double,
    String,
    Bytes,
    Duration,
    Date,
    DateTime,
    /// Fields by their names in JSON.
    Object(BTreeMap<String, Field>),
    Map(Arc<Decl>),
    List(Arc<Decl>, ListKind),
    /// Read as whatever it is: what admission sees of an object.
    Any,
    /// Never read from JSON: a variable that an expression gives.
    Given(Type),
    /// A message that takes whatever fields it is given.
    Open,
}

/// A field of an object; rules see those that have a name that can be written and a type.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) decl: Option<Arc<Decl>>,
    escaped: Option<String>,
}

/// What makes two lists equal.
#[derive(Debug)]
pub(super) enum ListKind {
    Atomic,
    Set,
    /// Elements are known by these members, under the names that rules have for them.
    Map(Vec<String>),
}

impl Decl {
    fn simple(shape: Shape) -> Arc<Self> {
        Arc::new(Self {
            name: String::new(),
            shape,
            elements_max: REQUEST_BYTES_MAX,
            bytes_min: 2,
            nullable: true,
        })
    }

    /// A place whose values are read as whatever they are.
    pub fn any() -> Arc<Self> {
        static ANY: LazyLock<Arc<Decl>> = LazyLock::new(|| Decl::simple(Shape::Any));
        Arc::clone(&ANY)
    }

    pub fn text() -> Arc<Self> {
        Self::simple(Shape::String)
    }

    pub fn boolean() -> Arc<Self> {
        Self::simple(Shape::Bool)
    }

    pub fn integer() -> Arc<Self> {
        Self::simple(Shape::Int)
    }

    pub fn time() -> Arc<Self> {
        Self::simple(Shape::DateTime)
    }

    pub fn list_of(item: Arc<Self>) -> Arc<Self> {
        Self::simple(Shape::List(item, ListKind::Atomic))
    }

    pub fn map_of(values: Arc<Self>) -> Arc<Self> {
        Self::simple(Shape::Map(values))
    }

    /// What an expression of this type gives.
    pub fn given(of: Type) -> Arc<Self> {
        Self::simple(Shape::Given(of))
    }

    /// An object that no schema describes, under a name of its own.
    pub fn record(name: &str, fields: &[(&str, Arc<Self>)]) -> Arc<Self> {
        let fields = fields.iter().map(|(field, decl)| {
            let known = Field {
                decl: Some(Arc::clone(decl)),
                escaped: escape(field),
            };
            ((*field).to_owned(), known)
        });
        Arc::new(Self {
            name: name.to_owned(),
            shape: Shape::Object(fields.collect()),
            elements_max: 0,
            bytes_min: 2,
            nullable: true,
        })
    }

    /// A message of this name with any fields.
    pub fn open(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            shape: Shape::Open,
            elements_max: 0,
            bytes_min: 2,
            nullable: true,
        })
    }

    /// The place of a schema; the root of an object knows its type and name whatever its schema says.
    pub fn of(schema: Schema<'_>, root: bool) -> Option<Arc<Self>> {
        Self::named(schema, root, "selfType")
    }

    fn named(schema: Schema<'_>, root: bool, name: &str) -> Option<Arc<Self>> {
        let node = schema.target();
        let root = root || node.embedded_resource;
        let simple = |shape, elements_max: u64, bytes_min: u64| {
            Some(Arc::new(Self {
                name: String::new(),
                shape,
                elements_max,
                bytes_min,
                nullable: node.nullable,
            }))
        };
        let unbounded = REQUEST_BYTES_MAX - 2;
        let length_max = node.max_length.map(|length| length as u64);
        if schema.is_int_or_string() {
            let elements = length_max.map_or(unbounded, |length| length.saturating_mul(4));
            return simple(Shape::IntOrString, elements, 1);
        }
        match schema.kind()? {
            "array" => {
                let item = Self::named(schema.items()?, false, &format!("{name}.@idx"))?;
                let fit = unbounded / (item.bytes_min + 1);
                let elements = node.max_items.map_or(fit, |items| items as u64);
                let kind = match schema.list_type() {
                    Some("set") => ListKind::Set,
                    Some("map") => {
                        let keys = schema.list_map_keys().iter();
                        let keys = keys.map(|key| escape(key).unwrap_or_else(|| key.clone()));
                        ListKind::Map(keys.collect())
                    }
                    _ => ListKind::Atomic,
                };
                simple(Shape::List(item, kind), elements, 2)
            }
            "object" => match schema.additional() {
                // A map of anything is one of nothing that rules see.
                Some(values) if !root => {
                    let values = Self::named(values, false, &format!("{name}.@elem"))?;
                    let fit = unbounded / (values.bytes_min + 6);
                    let elements = node.max_properties.map_or(fit, |entries| entries as u64);
                    simple(Shape::Map(values), elements, 2)
                }
                _ => Some(Arc::new(Self::object(schema, root, name))),
            },
            "string" => match schema.format() {
                Some("byte") => simple(Shape::Bytes, length_max.unwrap_or(unbounded), 2),
                Some("duration") => simple(Shape::Duration, 32, 3),
                Some("date") => simple(Shape::Date, 12, 12),
                Some("date-time") => simple(Shape::DateTime, 32, 21),
                _ => {
                    let longest = node.values.iter().filter_map(|value| value.as_str());
                    let longest = longest.map(|value| value.len() as u64).max();
                    let elements = length_max
                        .map(|length| length.saturating_mul(4))
                        .or(longest.filter(|_| !node.values.is_empty()))
                        .unwrap_or(unbounded);
                    simple(Shape::String, elements, 2)
                }
            },
            "boolean" => simple(Shape::Bool, 0, 4),
            "number" => simple(Shape::Double, 0, 1),
            "integer" => simple(Shape::Int, 0, 1),
            _ => None,
        }
    }

    fn object(schema: Schema<'_>, root: bool, name: &str) -> Self {
        let node = schema.target();
        let mut fields = BTreeMap::new();
        let mut bytes_min = 2;
        for (property, field) in schema.properties() {
            let decl = Self::named(field, false, &format!("{name}.{property}"));
            if let Some(decl) = &decl
                && field.default().is_none()
                && node.required.iter().any(|required| required == property)
            {
                bytes_min += property.len() as u64 + decl.bytes_min + 4;
            }
            let escaped = escape(property);
            fields.insert(property.to_owned(), Field { decl, escaped });
        }
        if root && !describes_itself(schema) {
            let text = |elements_max| {
                Some(Arc::new(Self {
                    name: String::new(),
                    shape: Shape::String,
                    elements_max,
                    bytes_min: 2,
                    nullable: false,
                }))
            };
            let unbounded = REQUEST_BYTES_MAX - 2;
            // A name is as long as any may be, or as the schema says; what is generated has one letter more.
            let metadata = schema.properties().find(|(name, _)| *name == "metadata");
            let name_max = |property: &str, max: u64| {
                let mut known = metadata.iter().flat_map(|(_, field)| field.properties());
                let known = known.find(|(name, _)| *name == property);
                let length = known.and_then(|(_, field)| field.target().max_length);
                length
                    .map_or(max, |length| max.min(length as u64))
                    .saturating_mul(4)
            };
            let names = [
                ("name", name_max("name", NAME_CHARS_MAX)),
                ("generateName", name_max("generateName", NAME_CHARS_MAX - 1)),
            ];
            let field = |name: &str, decl| {
                let escaped = escape(name);
                (name.to_owned(), Field { decl, escaped })
            };
            let metadata = Arc::new(Self {
                name: format!("{name}.metadata"),
                shape: Shape::Object(BTreeMap::from(
                    names.map(|(name, elements_max)| field(name, text(elements_max))),
                )),
                elements_max: 0,
                bytes_min: 2,
                nullable: false,
            });
            fields.extend([
                field("apiVersion", text(unbounded)),
                field("kind", text(unbounded)),
                field("metadata", Some(metadata)),
            ]);
        }
        Self {
            name: name.to_owned(),
            shape: Shape::Object(fields),
            elements_max: 0,
            bytes_min,
            nullable: node.nullable,
        }
    }

    pub fn cel_type(self: &Arc<Self>) -> Type {
        match &self.shape {
            Shape::IntOrString => Type::Dyn,
            Shape::Bool => Type::Bool,
            Shape::Int => Type::Int,
            Shape::Double => Type::Double,
            Shape::String => Type::String,
            Shape::Bytes => Type::Bytes,
            Shape::Duration => Type::Duration,
            Shape::Date | Shape::DateTime => Type::Timestamp,
            Shape::Object(_) | Shape::Open => Type::Object(Arc::clone(self)),
            Shape::Map(values) => Type::map(Type::String, values.cel_type()),
            Shape::List(item, _) => Type::list(item.cel_type()),
            Shape::Any => Type::Dyn,
            Shape::Given(of) => of.clone(),
        }
    }

    /// How often, at most, such a value can stand in a body, in lists and maps that no schema bounds.
    pub(super) fn cardinality_max(&self) -> u64 {
        REQUEST_BYTES_MAX / (self.bytes_min + 1)
    }

    /// A field by a name that rules can have for it, with its name in JSON: a reserved word may be written as it is.
    pub(super) fn field(&self, escaped: &str) -> Option<(&str, &Arc<Decl>)> {
        if let (Shape::Object(fields), true) = (&self.shape, RESERVED.contains(&escaped)) {
            let (name, field) = fields.get_key_value(escaped)?;
            return Some((name, field.decl.as_ref()?));
        }
        self.escaped_field(escaped)
    }

    /// A field by its one escaped name.
    fn escaped_field(&self, escaped: &str) -> Option<(&str, &Arc<Decl>)> {
        let Shape::Object(fields) = &self.shape else {
            return None;
        };
        let name = unescape(escaped)?;
        let (name, field) = fields.get_key_value(&name)?;
        (field.escaped.as_deref() == Some(escaped)).then_some(())?;
        Some((name, field.decl.as_ref()?))
    }

    /// What the place one step further is, as cost estimates walk: a field, `@items`, `@values` or `@keys`.
    pub(super) fn below(&self, step: &str) -> Option<Arc<Decl>> {
        match (&self.shape, step) {
            (Shape::List(item, _), "@items" | "@values") => Some(Arc::clone(item)),
            (Shape::Map(values), "@items" | "@values") => Some(Arc::clone(values)),
            (Shape::Map(_), "@keys") => Some(Arc::new(Self {
                name: String::new(),
                shape: Shape::String,
                elements_max: 0,
                bytes_min: 2,
                nullable: false,
            })),
            _ => {
                let field = self.escaped_field(step);
                field.map(|(_, decl)| Arc::clone(decl))
            }
        }
    }
}

/// Whether the schema of an object says itself what kind and name it has.
fn describes_itself(schema: Schema<'_>) -> bool {
    let metadata = property_of(schema, "metadata", "object");
    property_of(schema, "kind", "string").is_some()
        && property_of(schema, "apiVersion", "string").is_some()
        && metadata.is_some_and(|metadata| {
            property_of(metadata, "name", "string").is_some()
                && property_of(metadata, "generateName", "string").is_some()
        })
}

/// A property of an object that is of a type.
fn property_of<'a>(schema: Schema<'a>, property: &str, kind: &str) -> Option<Schema<'a>> {
    let (_, found) = schema.properties().find(|(name, _)| *name == property)?;
    (found.kind() == Some(kind)).then_some(found)
}

/// The name that rules have for a field; none where it cannot be written.
pub fn escape(name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let mut escaped = String::with_capacity(name.len());
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '_' if chars.peek() == Some(&'_') => {
                chars.next();
                escaped.push_str("__underscores__");
            }
            '.' => escaped.push_str("__dot__"),
            '-' => escaped.push_str("__dash__"),
            '/' => escaped.push_str("__slash__"),
            c if c.is_ascii_alphanumeric() || c == '_' => escaped.push(c),
            _ => return None,
        }
    }
    Some(escaped)
}

/// The inverse of [`escape`].
pub fn unescape(escaped: &str) -> Option<String> {
    let mut name = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(start) = rest.find("__") {
        let inner = &rest[start + 2..];
        let Some(end) = inner.find("__").filter(|end| *end > 0) else {
            break;
        };
        name.push_str(&rest[..start]);
        match &inner[..end] {
            "underscores" => name.push_str("__"),
            "dot" => name.push('.'),
            "dash" => name.push('-'),
            "slash" => name.push('/'),
            word if RESERVED.contains(&word) && end + 4 == escaped.len() => name.push_str(word),
            _ => return None,
        }
        rest = &inner[end + 2..];
    }
    name.push_str(rest);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_fields_are_escaped_both_ways() {
        for (name, escaped) in [
            ("a", "a"),
            ("namespace", "__namespace__"),
            ("x-y.z/w", "x__dash__y__dot__z__slash__w"),
            ("a__b", "a__underscores__b"),
            ("a_b", "a_b"),
            ("int", "int"),
            ("in", "__in__"),
        ] {
            assert_eq!(escape(name).as_deref(), Some(escaped));
            assert_eq!(unescape(escaped).as_deref(), Some(name));
        }
        for name in ["", "1a", "a b", "ä", "a$"] {
            assert_eq!(escape(name), None, "{name}");
        }
        assert_eq!(unescape("x__other__"), None);
    }
}
