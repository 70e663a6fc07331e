//! What is made of a write before it is stored, by what the cluster's owners have configured: pure decisions.
//!
//! In Kubernetes' order: what is changed (limit ranges, mutating policies, mutating webhooks), then, once the object is valid by its
//! kind's own rules, what is refused (limit ranges, pod security, validating policies, validating webhooks, quotas). The order, the calls
//! over the network and the store are `weft_apiserver`'s.
//!
//! A configuration is compiled once for each of its states, by [`webhook::Webhook::of`], [`policy::Policy::of`] and
//! [`policy::Binding::of`]; a request is then a [`Request`] with the object and what was there before.
//!
//! Invariants: pure and total; what an expression may cost is bounded (`crate::cel`).
//! Source of rules and sentences: k8s.io/apiserver `pkg/admission`, kubernetes `plugin/pkg/admission`, pod-security-admission, 1.37.

pub mod amounts;
mod claims;
pub mod expressions;
pub mod limits;
pub mod matching;
pub mod mutation;
pub mod pod_security;
pub mod policy;
pub mod quota;
pub mod webhook;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weft_api::status::StatusError;

use crate::KindRef;
use crate::lens::text;

/// What is done with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// A kind and the resource that it is reached by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub resource: String,
    /// Group and version of what the subresource exchanges, where that is not its parent's: `autoscaling/v1` of a Scale.
    pub resource_group: String,
    pub resource_version: String,
}

impl Place {
    /// Where objects of a kind are.
    pub fn of(kind: KindRef<'_>) -> Self {
        Self {
            group: kind.group.to_string(),
            version: kind.version.to_string(),
            kind: kind.kind.to_string(),
            resource: kind.resource.to_string(),
            resource_group: kind.group.to_string(),
            resource_version: kind.version.to_string(),
        }
    }

    fn kind_json(&self) -> Value {
        json!({"group": self.group, "version": self.version, "kind": self.kind})
    }

    fn resource_json(&self) -> Value {
        json!({
            "group": self.resource_group, "version": self.resource_version, "resource": self.resource,
        })
    }
}

/// Who asks.
#[derive(Clone, Debug, Default)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// A write, beside its object.
#[derive(Clone, Debug)]
pub struct Request {
    pub operation: Operation,
    pub place: Place,
    /// The same objects under other names: what `matchPolicy: Equivalent` looks at, too.
    pub equivalents: Vec<Place>,
    pub subresource: String,
    /// Empty for what is in none; the name of a Namespace for that itself.
    pub namespace: String,
    /// Empty while one has yet to be made.
    pub name: String,
    pub user: User,
    pub dry_run: bool,
    /// As its kind writes it: `CreateOptions`, `UpdateOptions`, `DeleteOptions`.
    pub options: Value,
}

impl Request {
    /// Whether it is about a Namespace itself.
    pub fn is_namespace(&self) -> bool {
        self.place.resource == "namespaces" && self.place.resource_group.is_empty()
    }

    /// Whether it is about what admission itself is configured by, which no configuration may keep from being mended.
    pub fn is_exempt(&self) -> bool {
        self.place.resource_group == "admissionregistration.k8s.io"
    }

    /// The refusal in the form that all of admission has; it names the object as far as it has a name yet.
    pub fn forbidden(&self, object: Option<&Value>, detail: &str) -> StatusError {
        let name = self.shown_name(object);
        StatusError::forbidden(
            &self.place.resource,
            &self.place.resource_group,
            &name,
            detail,
        )
    }

    fn shown_name(&self, object: Option<&Value>) -> String {
        if !self.name.is_empty() {
            return self.name.clone();
        }
        let of = |pointer| object.map_or("", |object| text(object, pointer));
        let names = [of("/metadata/name"), of("/metadata/generateName")];
        let name = names.into_iter().find(|name| !name.is_empty());
        name.unwrap_or("Unknown").to_owned()
    }

    /// The request as webhooks and expressions see it, for a rule that `at` matched.
    pub fn to_value(&self, at: &Place) -> Value {
        let mut value = json!({
            "kind": at.kind_json(),
            "resource": at.resource_json(),
            "requestKind": self.place.kind_json(),
            "requestResource": self.place.resource_json(),
            "operation": self.operation.name(),
            "userInfo": {"username": self.user.name},
            "dryRun": self.dry_run,
            "options": self.options,
        });
        for (field, text) in [
            ("subResource", &self.subresource),
            ("requestSubResource", &self.subresource),
            ("name", &self.name),
            ("namespace", &self.namespace),
        ] {
            if !text.is_empty() {
                value[field] = text.as_str().into();
            }
        }
        if !self.user.uid.is_empty() {
            value["userInfo"]["uid"] = self.user.uid.as_str().into();
        }
        if !self.user.groups.is_empty() {
            value["userInfo"]["groups"] = self.user.groups.clone().into();
        }
        if !self.user.extra.is_empty() {
            value["userInfo"]["extra"] = json!(self.user.extra);
        }
        value
    }
}

/// Several sentences as one, as Kubernetes' aggregates are written.
pub(crate) fn aggregate(mut told: Vec<String>) -> String {
    let mut seen = std::collections::BTreeSet::new();
    told.retain(|sentence| seen.insert(sentence.clone()));
    match told.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}
