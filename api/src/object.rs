//! A Kubernetes object as it is on the wire: lossless JSON.
//!
//! Invariant: the value is a JSON object. Unknown fields survive every round trip; typed structs are read
//! through [`Object::view`] by code that needs fields and never written back over the original.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::gvk::GroupVersionKind;
use crate::meta::Meta;

/// A JSON object with Kubernetes' metadata accessors. Cloning is O(1); the first change copies.
#[derive(Debug, Clone, PartialEq)]
pub struct Object(Arc<Value>);

/// Why bytes or a value are not an object.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("the body is not valid JSON")]
    Json(#[source] serde_json::Error),
    #[error("expected a JSON object, found {found}")]
    NotAnObject { found: &'static str },
    #[error("the object does not have the shape of its kind")]
    View(#[source] serde_json::Error),
}

impl Object {
    /// # Errors
    /// [`ObjectError::Json`] or [`ObjectError::NotAnObject`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ObjectError> {
        Self::from_value(serde_json::from_slice(bytes).map_err(ObjectError::Json)?)
    }

    /// # Errors
    /// [`ObjectError::NotAnObject`] when the value is not a JSON object.
    pub fn from_value(value: Value) -> Result<Self, ObjectError> {
        let found = match &value {
            Value::Object(_) => return Ok(Self(Arc::new(value))),
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
        };
        Err(ObjectError::NotAnObject { found })
    }

    pub fn from_map(map: Map<String, Value>) -> Self {
        Self(Arc::new(Value::Object(map)))
    }

    pub fn as_value(&self) -> &Value {
        &self.0
    }

    /// Copies the object first if it is shared.
    pub fn as_value_mut(&mut self) -> &mut Value {
        Arc::make_mut(&mut self.0)
    }

    pub fn into_value(self) -> Value {
        Arc::try_unwrap(self.0).unwrap_or_else(|shared| (*shared).clone())
    }

    /// Compact JSON with keys in order: equal objects have equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_string().into_bytes()
    }

    pub fn api_version(&self) -> &str {
        self.0["apiVersion"].as_str().unwrap_or_default()
    }

    pub fn kind(&self) -> &str {
        self.0["kind"].as_str().unwrap_or_default()
    }

    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::from_api_version(self.api_version(), self.kind())
    }

    pub fn name(&self) -> &str {
        self.0["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// `None` for cluster-scoped objects.
    pub fn namespace(&self) -> Option<&str> {
        self.0["metadata"]["namespace"]
            .as_str()
            .filter(|ns| !ns.is_empty())
    }

    pub fn uid(&self) -> &str {
        self.0["metadata"]["uid"].as_str().unwrap_or_default()
    }

    pub fn resource_version(&self) -> Option<u64> {
        self.0["metadata"]["resourceVersion"].as_str()?.parse().ok()
    }

    pub fn generation(&self) -> i64 {
        self.0["metadata"]["generation"]
            .as_i64()
            .unwrap_or_default()
    }

    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let labels = self.0["metadata"]["labels"]
            .as_object()
            .into_iter()
            .flatten();
        labels.filter_map(|(k, v)| Some((k.as_str(), v.as_str()?)))
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.0["metadata"]["labels"][key].as_str()
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.0["metadata"]["annotations"][key].as_str()
    }

    pub fn is_deleting(&self) -> bool {
        !self.0["metadata"]["deletionTimestamp"].is_null()
    }

    pub fn meta(&self) -> Meta {
        Meta::of(&self.0)
    }

    /// Reads the object through a typed lens. Cost: one deserialisation.
    ///
    /// # Errors
    /// [`ObjectError::View`] when a field has another type than the lens expects.
    pub fn view<T: DeserializeOwned>(&self) -> Result<T, ObjectError> {
        T::deserialize(&*self.0).map_err(ObjectError::View)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_survive_and_metadata_reads() {
        let text = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"app":"web"},"name":"a","namespace":"n","ownerReferences":[{"apiVersion":"apps/v1","controller":true,"kind":"ReplicaSet","name":"r","uid":"u"}],"resourceVersion":"42"},"x-unknown":{"deep":[1,2]}}"#;
        let object = Object::parse(text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(object.to_bytes()).unwrap(), text);
        let meta = object.meta();
        assert_eq!(meta.resource_version, Some(42));
        assert_eq!(meta.controller().unwrap().uid, "u");
        assert_eq!(object.label("app"), Some("web"));
        let pod: crate::view::Pod = object.view().unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some("a"));
    }

    #[test]
    fn only_objects_are_objects() {
        for bad in ["[]", "1", "null", "\"x\"", "{"] {
            assert!(Object::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
