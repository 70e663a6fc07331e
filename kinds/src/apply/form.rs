//! What a place of an object can be, for ownership: a scalar, a list or a map, in parts or as one.
//!
//! [`Type`] reads the one [`Schema`] that built-in and custom kinds share as structured-merge-diff reads OpenAPI: lists are one
//! whole unless they are marked as sets or maps, maps and structs are in parts unless they are marked as atomic; what no
//! schema tells is deduced from the value, maps in parts, lists as one.
//!
//! Invariants: pure, copying is free; every type allows at least one form, and each value has one ([`Type::of`]).

use serde_json::Value;

use super::element::Element;
use crate::schema::Schema;

const NO_KEYS: &[String] = &[];

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// What may stand at a place.
#[derive(Clone, Copy)]
pub(super) enum Type<'a> {
    Known {
        schema: Schema<'a>,
        /// Whether members that no property names are kept, here and below.
        keeps: bool,
        /// Whether it is an object of its own, with type and metadata.
        object: bool,
    },
    /// A string that no schema has to name.
    Text,
    /// Whatever the value is; maps in parts.
    Deduced,
    /// Whatever the value is, as one.
    Whole,
}

/// A form that a type allows.
#[derive(Clone, Copy)]
pub(super) enum Form<'a> {
    Scalar(Scalar),
    List(ListForm<'a>),
    Map(MapForm<'a>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Number,
    Text,
    Boolean,
    Any,
}

#[derive(Clone, Copy)]
pub(super) struct ListForm<'a> {
    pub(super) atomic: bool,
    /// What tells elements apart; none where each is its own name.
    keys: &'a [String],
    pub(super) element: Type<'a>,
}

#[derive(Clone, Copy)]
pub(super) struct MapForm<'a> {
    pub(super) atomic: bool,
    owner: Type<'a>,
}

impl<'a> Form<'a> {
    pub(super) fn is_like(&self, other: &Form<'_>) -> bool {
        matches!(
            (self, other),
            (Self::Scalar(_), Form::Scalar(_))
                | (Self::List(_), Form::List(_))
                | (Self::Map(_), Form::Map(_))
        )
    }
}

impl<'a> Type<'a> {
    /// The type of a whole object.
    pub(super) fn object(schema: Option<Schema<'a>>) -> Self {
        match schema {
            Some(schema) => Self::Known {
                schema,
                keeps: schema.preserves_unknown(),
                object: true,
            },
            None => Self::Deduced,
        }
    }

    /// The type of a place below one that keeps unknown members, or does not.
    fn below(schema: Schema<'a>, keeps: bool) -> Self {
        if schema.short_name() == Some("RawExtension") {
            return Self::Whole;
        }
        Self::Known {
            schema,
            // A definition is read for itself, wherever it is referred to.
            keeps: schema.preserves_unknown() || (keeps && schema.name().is_none()),
            object: schema.target().embedded_resource,
        }
    }

    /// The form that the value has, if the type allows it; else the first of map, scalar and list that it allows.
    pub(super) fn of(self, value: Option<&Value>) -> Form<'a> {
        let map = || self.map().map(Form::Map);
        let list = || self.list().map(Form::List);
        let scalar = || self.scalar().map(Form::Scalar);
        let fitting = match value {
            None | Some(Value::Null) => None,
            Some(Value::Object(_)) => map(),
            Some(Value::Array(_)) => list(),
            Some(_) => scalar(),
        };
        fitting
            .or_else(map)
            .or_else(scalar)
            .or_else(list)
            .unwrap_or(Form::Scalar(Scalar::Any))
    }

    fn scalar(self) -> Option<Scalar> {
        match self {
            Self::Text => Some(Scalar::Text),
            Self::Deduced | Self::Whole => Some(Scalar::Any),
            Self::Known { schema, .. } => match schema.kind() {
                Some("object" | "array") => None,
                Some("integer" | "number") => Some(Scalar::Number),
                Some("boolean") => Some(Scalar::Boolean),
                Some("string") if matches!(schema.format(), None | Some("" | "byte")) => {
                    Some(Scalar::Text)
                }
                _ => Some(Scalar::Any),
            },
        }
    }

    pub(super) fn list(self) -> Option<ListForm<'a>> {
        let whole = ListForm {
            atomic: true,
            keys: NO_KEYS,
            element: Self::Whole,
        };
        match self {
            Self::Text => None,
            Self::Deduced | Self::Whole => Some(whole),
            Self::Known { schema, keeps, .. } => {
                if !matches!(schema.kind(), None | Some("array")) {
                    return None;
                }
                let merges = || {
                    schema
                        .patch_strategies()
                        .any(|strategy| strategy == "merge")
                };
                let (atomic, keys) = match schema.list_type() {
                    Some("set") => (false, NO_KEYS),
                    Some("map") => (schema.list_map_keys().is_empty(), schema.list_map_keys()),
                    None if merges() => (false, schema.merge_keys()),
                    _ => (true, NO_KEYS),
                };
                let element = schema.items().map(|items| Self::below(items, keeps));
                Some(ListForm {
                    atomic,
                    keys,
                    element: element.unwrap_or(Self::Whole),
                })
            }
        }
    }

    pub(super) fn map(self) -> Option<MapForm<'a>> {
        let atomic = match self {
            Self::Text => return None,
            Self::Deduced => false,
            Self::Whole => true,
            Self::Known { schema, .. } => match schema.kind() {
                None | Some("object") => schema.map_type() == Some("atomic"),
                Some(_) => return None,
            },
        };
        Some(MapForm {
            atomic,
            owner: self,
        })
    }
}

impl<'a> MapForm<'a> {
    /// The type of a member that is declared by name.
    pub(super) fn declared(&self, name: &str) -> Option<Type<'a>> {
        let Type::Known {
            schema,
            keeps,
            object,
        } = self.owner
        else {
            return None;
        };
        let property = schema.property(name).map(|(_, schema)| schema);
        let named = property.filter(|schema| schema.name().is_some());
        match name {
            "metadata" if object && named.is_none() => {
                let meta = Schema::named(OBJECT_META)?;
                Some(Type::below(meta, false))
            }
            "apiVersion" | "kind" if object && property.is_none() => Some(Type::Text),
            _ => property.map(|schema| Type::below(schema, keeps)),
        }
    }

    /// The type of a member that is not declared, where there may be one.
    pub(super) fn undeclared(&self) -> Option<Type<'a>> {
        match self.owner {
            Type::Text => None,
            Type::Deduced => Some(Type::Deduced),
            Type::Whole => Some(Type::Whole),
            Type::Known { schema, keeps, .. } => match schema.additional() {
                Some(additional) => Some(Type::below(additional, keeps)),
                None if keeps || schema.properties().next().is_none() => Some(Type::Deduced),
                None => None,
            },
        }
    }

    pub(super) fn member(&self, name: &str) -> Option<Type<'a>> {
        self.declared(name).or_else(|| self.undeclared())
    }

    /// Whether no member is declared, and none has a type of its own.
    pub(super) fn is_deduced(&self) -> bool {
        let declares = match self.owner {
            Type::Known { schema, object, .. } => object || schema.properties().next().is_some(),
            _ => false,
        };
        !declares
            && self
                .undeclared()
                .is_some_and(|member| matches!(member, Type::Deduced))
    }
}

impl ListForm<'_> {
    /// What tells an element of a set or of a keyed list from the others.
    ///
    /// # Errors
    /// Kubernetes' sentence for an element that has nothing of the kind.
    pub(super) fn id(&self, item: &Value) -> Result<Element, String> {
        if self.keys.is_empty() {
            let fault = match item {
                Value::Object(_) => {
                    "associative list without keys has an element that's a map type"
                }
                Value::Array(_) => "not supported: associative list with lists as elements",
                Value::Null => {
                    "associative list without keys has an element that's an explicit null"
                }
                scalar => return Ok(Element::Value(super::element::Plain(scalar.clone()))),
            };
            return Err(fault.to_owned());
        }
        let map = match item {
            Value::Object(map) => map,
            Value::Null => {
                return Err("associative list with keys may not have a null element".to_owned());
            }
            _ => {
                return Err("associative list with keys may not have non-map elements".to_owned());
            }
        };
        let value = |key: &String| Some((key.clone(), map.get(key).or(self.default(key))?.clone()));
        let keys: Vec<(String, Value)> = self.keys.iter().filter_map(value).collect();
        if keys.is_empty() {
            let keys: Vec<String> = self.keys.iter().map(|key| format!("{key:?}")).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for \
                 any key fields)",
                keys.join(" ")
            ));
        }
        Ok(Element::key(keys))
    }

    /// What stands for a key that an element leaves out. A key without a value is part of no name.
    fn default(&self, key: &str) -> Option<&Value> {
        let Type::Known { schema, .. } = self.element else {
            return None;
        };
        let (_, property) = schema.property(key)?;
        property.default().filter(|default| !default.is_null())
    }
}
