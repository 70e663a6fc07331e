//! The cluster as policies see it: kinds, params, rights, and objects as other places spell them.
//!
//! Everything comes from the snapshot and the registry that the write is judged by.

use std::sync::Arc;

use serde_json::Value;
use weft_kinds::Kind;
use weft_kinds::admission::Place;
use weft_kinds::admission::policy::Lookup;
use weft_kinds::cel::{Authorize, Decision, Question, Subject};

use super::chain::{Chain, is_review};
use crate::authz::{Access, Authorizer};
use crate::caller::Caller;
use crate::stored::{self, Stored};

impl Lookup for Chain<'_> {
    fn kind(&self, api_version: &str, kind: &str) -> Option<Arc<Kind>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let found = self.registry.by_kind(group, version, kind)?;
        (!is_review(found)).then(|| Arc::clone(found))
    }

    fn object(&self, kind: &Arc<Kind>, namespace: Option<&str>, name: &str) -> Option<Value> {
        let entry = self.snapshot.get(&stored::key(kind, namespace, name))?;
        let mut value = Stored::new(self.vault, kind.stored(), entry).stored_value();
        if let Some(spelling) = &kind.spelling {
            (spelling.read)(&mut value);
        }
        Some(value)
    }

    fn objects(&self, kind: &Arc<Kind>, namespace: Option<&str>) -> Vec<Value> {
        let prefix = stored::prefix(kind, namespace);
        let entries = self.snapshot.range(&prefix, None);
        entries
            .map(|entry| {
                let mut value = Stored::new(self.vault, kind.stored(), entry).stored_value();
                if let Some(spelling) = &kind.spelling {
                    (spelling.read)(&mut value);
                }
                value
            })
            .collect()
    }

    fn authorizer(&self) -> Arc<dyn Authorize> {
        Arc::new(Rights {
            caller: self.caller.clone(),
            authorizer: self.authorizer.clone(),
        })
    }

    fn spelled(&self, at: &Place, object: &Value) -> Value {
        match self.stored_form(&self.request.place, object.clone()) {
            Ok(stored) => self.spell(at, &stored),
            // What cannot be read as one kind cannot as another.
            Err(_) => object.clone(),
        }
    }
}

/// Answers what expressions ask of rights, at the one seam that all requests pass.
pub(super) struct Rights {
    pub caller: Caller,
    pub authorizer: Authorizer,
}

impl Authorize for Rights {
    fn decide(&self, question: &Question) -> Decision {
        let account = question.account.as_ref();
        let account =
            account.map(|(namespace, name)| Caller::service_account(namespace, name, None));
        let caller = account.as_ref().unwrap_or(&self.caller);
        let decided = match &question.subject {
            Subject::Path(path) => self.authorizer.decide_path(caller, &question.verb, path),
            Subject::Resource {
                group,
                resource,
                subresource,
                namespace,
                name,
                ..
            } => {
                fn some(text: &str) -> Option<&str> {
                    Some(text).filter(|text| !text.is_empty())
                }
                let access = Access {
                    verb: &question.verb,
                    group,
                    resource,
                    subresource: some(subresource),
                    namespace: some(namespace),
                    name: some(name),
                };
                self.authorizer.decide(caller, &access)
            }
        };
        Decision {
            allowed: decided.allowed,
            reason: decided.reason,
            ..Decision::default()
        }
    }
}
