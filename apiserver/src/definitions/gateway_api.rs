//! The definitions of the Gateway API, and of what Istio says of who may call whom, which a cluster has from its beginning.
//!
//! They are made once. From then on they are their users', as on any cluster: one that somebody else changed is left as it is, whatever version
//! it is of, and one that was deleted stays away, with its objects. One that nobody changed is brought to what this server would make, so
//! that a newer weft brings a newer API. What was made is remembered in a ConfigMap; whoever deletes that gets back what is missing.
//!
//! Where objects lie in the store from before these were custom kinds, they are those of the definition once it is there: their keys are the same.
//!
//! Invariants: idempotent; what is well is not written; one definition that is refused does not keep the others from being made.
//! Left to others: what they say (`weft_kinds::gateway_api`), accepting their names ([`tend`](super::tend)).

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use weft_api::annotation::MADE_GENERATION;
use weft_api::object::Object;
use weft_api::status::StatusError;
use weft_api::time::rfc3339;
use weft_kinds::gateway_api::{BUNDLE_VERSION, definitions};
use weft_kinds::lens::{condition_is_true, integer, member, text};
use weft_kinds::{CONFIG_MAP, CUSTOM_RESOURCE_DEFINITION, decode, istio};

use crate::caller::Caller;
use crate::objects::{Objects, Patch, WriteOptions};
use crate::request::ObjectRef;

/// Where is remembered what was made: `DEFINITION: VERSION DIGEST`.
const MEMORY: (&str, &str) = ("kube-system", "weft-gateway-api");
/// Looks until all that was made is established; each but the last takes every definition a few steps on.
const LOOKS_MAX: usize = 100;
/// Between two looks, where somebody else was in between.
const PAUSE: Duration = Duration::from_millis(20);

/// A definition as it is made.
struct Wanted {
    name: String,
    object: Value,
    /// Its version, and what tells it from any other.
    digest: String,
}

/// In the form in which they are stored, so that they compare with what is.
static WANTED: LazyLock<Vec<Wanted>> = LazyLock::new(|| {
    let of_gateways = definitions().into_iter().map(|one| (BUNDLE_VERSION, one));
    let of_policies = istio::definitions().into_iter();
    let of_policies = of_policies.map(|one| (istio::BUNDLE_VERSION, one));
    let wanted = of_gateways.chain(of_policies).map(|(version, definition)| {
        let decoded = decode::value(&CUSTOM_RESOURCE_DEFINITION.gvk(), &definition);
        let mut object = decoded.map_or(definition, |decoded| decoded.value);
        CUSTOM_RESOURCE_DEFINITION.strategy.default(&mut object);
        member(&mut object, "metadata")["annotations"][MADE_GENERATION] = "1".into();
        let hash = Sha256::digest(object["spec"].to_string());
        let hash = hash.iter().take(8).map(|byte| format!("{byte:02x}"));
        Wanted {
            name: text(&object, "/metadata/name").to_owned(),
            digest: format!("{version} {}", hash.collect::<String>()),
            object,
        }
    });
    wanted.collect()
});

impl Objects {
    /// Makes the definitions of the Gateway API that were never made, brings those that nobody changed up to date, and waits until they are
    /// served. To be called before anything is decided on objects of these kinds; where there is nothing to do, it costs one read.
    ///
    /// # Errors
    /// The first refusal, after everything was tried.
    pub async fn ensure_gateway_api(&self, caller: &Caller) -> Result<(), StatusError> {
        // Whoever else asks for it here finds it done.
        let _alone = self.founding().await;
        let made = self.made_definitions(caller).await?;
        let is_made = |wanted: &Wanted| made.get(&wanted.name) == Some(&wanted.digest);
        if WANTED.iter().all(is_made) {
            return Ok(());
        }
        self.ensure_permanent_namespaces(caller).await?;
        let mut outcome = Ok(());
        let mut now = BTreeMap::new();
        for wanted in WANTED.iter().filter(|wanted| !is_made(wanted)) {
            let was_made = made.contains_key(&wanted.name);
            match self.ensure_definition(caller, wanted, was_made).await {
                Ok(()) => {
                    now.insert(&*wanted.name, &*wanted.digest);
                }
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        self.establish(caller, now.keys().copied()).await;
        self.remember(caller, &now).await?;
        outcome
    }

    /// What was made, and how it was then.
    async fn made_definitions(
        &self,
        caller: &Caller,
    ) -> Result<BTreeMap<String, String>, StatusError> {
        let (namespace, name) = MEMORY;
        let client = self.client(caller);
        match client.get(&CONFIG_MAP, Some(namespace), name).await {
            Ok(memory) => {
                let memory = memory.value();
                let data = memory.get("data").and_then(Value::as_object);
                let made = data.into_iter().flatten();
                let made =
                    made.filter_map(|(name, how)| Some((name.clone(), how.as_str()?.into())));
                Ok(made.collect())
            }
            Err(error) if error.is_not_found() => Ok(BTreeMap::new()),
            Err(error) => Err(error),
        }
    }

    async fn remember(
        &self,
        caller: &Caller,
        now: &BTreeMap<&str, &str>,
    ) -> Result<(), StatusError> {
        let (namespace, name) = MEMORY;
        let (client, options) = (self.client(caller), WriteOptions::default());
        let body = json!({ "data": now });
        let memory = ObjectRef::new(&CONFIG_MAP, Some(namespace), name);
        match client
            .patch(memory, None, Patch::merge(&body), &options)
            .await
        {
            Err(error) if error.is_not_found() => {}
            other => return other.map(|_| ()),
        }
        let memory = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": name, "namespace": namespace },
            "data": now,
        });
        let memory = Object::from_value(memory).map_err(StatusError::internal)?;
        let created = client.create(&CONFIG_MAP, Some(namespace), memory, &options);
        created.await.map(|_| ())
    }

    async fn ensure_definition(
        &self,
        caller: &Caller,
        wanted: &Wanted,
        was_made: bool,
    ) -> Result<(), StatusError> {
        let (kind, name) = (&*CUSTOM_RESOURCE_DEFINITION, &wanted.name);
        let (client, options) = (self.client(caller), WriteOptions::default());
        let present = match client.get(kind, None, name).await {
            Ok(present) => present.value(),
            Err(error) if error.is_not_found() && was_made => {
                tracing::info!(name, "a definition that was deleted stays away");
                return Ok(());
            }
            Err(error) if error.is_not_found() => {
                let object = wanted.object.clone();
                let object = Object::from_value(object).map_err(StatusError::internal)?;
                return match client.create(kind, None, object, &options).await {
                    Ok(_) => {
                        tracing::info!(name, "defined");
                        self.give_up(caller, name).await
                    }
                    Err(error) if error.is_already_exists() => Ok(()),
                    Err(error) => Err(error),
                };
            }
            Err(error) => return Err(error),
        };
        let Some(next) = brought_up_to_date(&present, &wanted.object) else {
            return Ok(());
        };
        let next = Object::from_value(next).map_err(StatusError::internal)?;
        client.update(kind, None, next, &options).await?;
        tracing::info!(name, "defined anew");
        self.give_up(caller, name).await
    }

    /// Leaves a definition to whoever applies another in its place: of its fields the cluster owns the mark alone, so that nobody has to force
    /// a conflict.
    async fn give_up(&self, caller: &Caller, name: &str) -> Result<(), StatusError> {
        let kind = &*CUSTOM_RESOURCE_DEFINITION;
        let mark = format!("f:{MADE_GENERATION}");
        let body = json!({ "metadata": { "managedFields": [{
            "manager": caller.component(), "operation": "Update", "apiVersion": kind.api_version(),
            "time": rfc3339(self.now()), "fieldsType": "FieldsV1",
            "fieldsV1": { "f:metadata": { "f:annotations": { mark: {} } } },
        }] } });
        let (client, options) = (self.client(caller), WriteOptions::default());
        let definition = ObjectRef::new(kind, None, name);
        let patched = client.patch(definition, None, Patch::merge(&body), &options);
        patched.await.map(|_| ())
    }

    /// Waits until these definitions are served. One that cannot be, because its names are taken, is not waited for.
    async fn establish(&self, caller: &Caller, names: impl Iterator<Item = &str> + Clone) {
        for _ in 0..LOOKS_MAX {
            let waits = self.tend_definitions_once(caller).await;
            let all = self.all_definitions();
            let is_pending = |name: &str| {
                let mut all = all.iter().map(|(_, definition)| definition);
                let definition = all.find(|one| text(one, "/metadata/name") == name);
                definition.is_some_and(|one| !condition_is_true(one, "Established"))
            };
            if !waits || !names.clone().any(is_pending) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        tracing::warn!("the kinds of the Gateway API are served later");
    }
}

/// What is there, as it would be made now; none where that is the same, or where it is somebody else's.
fn brought_up_to_date(present: &Value, wanted: &Value) -> Option<Value> {
    let annotation = |object: &Value, name: &str| {
        let all = object.pointer("/metadata/annotations");
        all.and_then(|all| all.get(name)?.as_str().map(str::to_owned))
    };
    let generation = integer(present, "/metadata/generation")?;
    let made = annotation(present, MADE_GENERATION)?;
    if made != generation.to_string() || present["spec"] == wanted["spec"] {
        return None;
    }
    let mut next = present.clone();
    next["spec"] = wanted["spec"].clone();
    let annotations = wanted.pointer("/metadata/annotations");
    for (name, value) in annotations.and_then(Value::as_object).into_iter().flatten() {
        next["metadata"]["annotations"][name] = value.clone();
    }
    // The write counts one.
    next["metadata"]["annotations"][MADE_GENERATION] = (generation + 1).to_string().into();
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_changed_is_brought_up_to_date() {
        let wanted = json!({
            "metadata": { "annotations": { "bundle": "2", MADE_GENERATION: "1" } }, "spec": { "new": true },
        });
        let present = |generation: i64, made: &str, spec: Value| {
            json!({
                "metadata": { "generation": generation, "annotations": { "bundle": "1", "own": "x", MADE_GENERATION: made } },
                "spec": spec,
            })
        };
        let next = brought_up_to_date(&present(4, "4", json!({})), &wanted).unwrap();
        assert_eq!(next["spec"], wanted["spec"]);
        assert_eq!(
            next["metadata"]["annotations"],
            json!({ "bundle": "2", "own": "x", MADE_GENERATION: "5" })
        );
        for (what, present) in [
            ("it is so already", present(4, "4", json!({ "new": true }))),
            ("somebody changed it", present(5, "4", json!({}))),
            (
                "somebody else made it",
                json!({ "metadata": { "generation": 1 }, "spec": {} }),
            ),
        ] {
            assert_eq!(brought_up_to_date(&present, &wanted), None, "{what}");
        }
    }
}
