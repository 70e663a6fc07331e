//! Creating an object: what only the server may set, a free name, and everything that is judged of a new one.
//!
//! Invariants: an object is stored only while its namespace takes new ones, by the same write that checks it; two creates
//! of one name, or of one claim, do not both succeed, whichever servers they were sent to.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use weft_api::names;
use weft_api::object::Object;
use weft_api::status::{Cause, StatusError};
use weft_api::time::rfc3339;
use weft_kinds::admission::Operation;
use weft_kinds::core::PERMANENT_NAMESPACES;
use weft_kinds::lens::{member, put, text};
use weft_kinds::strategy::Surroundings as _;
use weft_kinds::{KindRef, Subresource, validate};
use weft_store::{Key, Mutation, Precondition, Revision, Snapshot, WriteError};

use super::admitted::Asking;
use super::body::{check_identity, decoded};
use super::canonical::{canonicalized, completed, object_of, shown};
use super::companions::companion_keys;
use super::freshness::write_failed;
use super::owners::{self, Ownership};
use super::{ATTEMPTS_MAX, Inner, Objects, WriteOptions, already_exists, modified};
use crate::admission::chain::Told;
use crate::admission::{Surrounding, charges};
use crate::authz::Authorized;
use crate::caller::Caller;
use crate::request::{ObjectRef, RequestInfo};
use crate::stored::Stored;
use crate::{admission, node_restriction, signers, stored};

/// Attempts to find a free generated name, as in Kubernetes since 1.30.
const GENERATED_NAMES_MAX: usize = 8;
/// Longest prefix of a generated name; five characters follow.
const GENERATED_PREFIX_MAX: usize = 58;
/// Letters that are appended to the prefix of a generated name.
const GENERATED_SUFFIX: usize = 5;

/// A new object, as whoever made it is answered.
pub(crate) struct Made {
    pub object: Object,
    /// Its JSON, where it was encoded already.
    pub json: Option<Bytes>,
}

impl Made {
    fn shown(
        kind: KindRef<'_>,
        value: Value,
        revision: Option<Revision>,
    ) -> Result<Self, StatusError> {
        Ok(Self {
            object: shown(kind, value, revision)?,
            json: None,
        })
    }
}

impl Objects {
    /// Creates an object; with `generateName`, a free name is found.
    ///
    /// # Errors
    /// 400, 403, 404 (namespace), 409, 422; 429 and 503 when the store cannot take it now.
    pub async fn create(
        &self,
        asked: &Authorized,
        body: Object,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        let (kind, _) = asked.collection("create")?;
        let value = decoded(kind, body.as_value(), options)?;
        let made = self.create_read(asked, value, options).await?;
        Ok(made.object)
    }

    /// As [`Objects::create`], of a value that was read as an object of its kind already, and what it has too much was told.
    ///
    /// # Errors
    /// As [`Objects::create`].
    pub(crate) async fn create_read(
        &self,
        asked: &Authorized,
        mut value: Value,
        options: &WriteOptions,
    ) -> Result<Made, StatusError> {
        let (kind, namespace) = asked.collection("create")?;
        check_identity(kind, namespace, None, &mut value)?;
        self.create_decoded(asked, value, options, Ownership::Recorded)
            .await
    }

    /// Creates an object that a request to change it did not find.
    ///
    /// # Errors
    /// As [`Objects::create`]; 403 for who may change objects and not create them.
    pub(super) async fn create_at(
        &self,
        asked: &Authorized,
        object: ObjectRef<'_>,
        value: Value,
        options: &WriteOptions,
        ownership: Ownership,
    ) -> Result<Object, StatusError> {
        let ObjectRef {
            kind,
            namespace,
            name,
        } = object;
        let request = RequestInfo::of_collection("create", kind, namespace, Some(name));
        let asked = self
            .authorizer()
            .authorize(asked.caller().clone(), request)?;
        let made = self
            .create_decoded(&asked, value, options, ownership)
            .await?;
        Ok(made.object)
    }

    async fn create_decoded(
        &self,
        asked: &Authorized,
        value: Value,
        options: &WriteOptions,
        ownership: Ownership,
    ) -> Result<Made, StatusError> {
        let (kind, namespace) = asked.collection("create")?;
        let template = self.prepared(kind, value);
        let named = stored::key(kind, namespace, text(&template, "/metadata/name"));
        let namespaces = namespace.map(|name| stored::key(&weft_kinds::NAMESPACE, None, name));
        let about: Vec<Key> = namespaces.into_iter().chain([named]).collect();
        // Before anybody else completes it: what admission and the server add is nobody's.
        let recorded = ownership == Ownership::Recorded;
        let mut template = match &kind.spelling {
            None if recorded => completed(kind, template)?,
            // What was spelled otherwise, or is the sum of what others said, has yet to get the form.
            _ => canonicalized(kind.stored(), template)?,
        };
        if recorded {
            let owners = self.owners(asked.caller(), kind, None, options);
            owners.created(&mut template);
        }
        self.confirmed(&about, || {
            self.create_prepared(asked, &template, options, recorded)
        })
        .await
    }

    async fn create_prepared(
        &self,
        asked: &Authorized,
        template: &Value,
        options: &WriteOptions,
        recorded: bool,
    ) -> Result<Made, StatusError> {
        let (kind, namespace) = asked.collection("create")?;
        let caller = asked.caller();
        let generated = text(template, "/metadata/name").is_empty();
        let prefix = text(template, "/metadata/generateName").to_owned();
        let attempts = if generated {
            GENERATED_NAMES_MAX
        } else {
            ATTEMPTS_MAX
        };
        let namespace_key = namespace.map(|name| stored::key(&weft_kinds::NAMESPACE, None, name));
        let mut last_name = String::new();
        let mut fits = true;
        let mut imports = self.imports(kind.stored(), template).await;
        let mut mutated = Told::default();
        let changed = self.mutated_new(asked, template, options, &imports, &mut mutated);
        let mut changed = changed.await?;
        if let Some(changed) = &mut changed {
            mutated
                .warnings
                .extend(owners::keep_sound(template, changed));
            imports = self.imports(kind.stored(), changed).await;
        }
        let template = changed.as_ref().unwrap_or(template);
        for _ in 0..attempts {
            let mut value = template.clone();
            if generated && !prefix.is_empty() {
                value["metadata"]["name"] = generate_name(&prefix).into();
            }
            last_name = text(&value, "/metadata/name").to_owned();
            let snapshot = self.inner.store.snapshot();
            let pods = match caller.node_name() {
                // What is to be approved is a request for a signature.
                Some(node) if kind.stored().has(Subresource::Approval) => {
                    self.pods_on(node, &snapshot).await?
                }
                _ => Vec::new(),
            };
            let around = self.surroundings(caller, &snapshot, &imports);
            let in_namespace = self.admit_new(asked, &mut value, &around, &pods)?;
            if !fits {
                owners::set(&mut value, None);
            }
            let object = ObjectRef::new(kind, namespace, text(template, "/metadata/name"));
            let asking = Asking::writing(asked, Operation::Create, object, options);
            let chain = self.chain(asking, &snapshot);
            let mut told = mutated.clone();
            chain.judged(Some(&value), None, &mut told).await?;
            let mut advice = kind.stored().strategy.warn(&value, &around);
            advice.append(&mut told.warnings);
            options.advice.replace(advice);
            let mut mutations = admission::exchange_claims(kind.stored(), None, Some(&value));
            let beside = self.exchange_companions(kind.stored(), &snapshot, None, Some(&value));
            mutations.extend(beside.await?);
            mutations.extend(in_namespace);
            mutations.extend(self.check_definition(&snapshot, kind, &last_name)?);
            let mut claims = admission::claim_keys(kind.stored(), &value);
            claims.extend(companion_keys(kind.stored(), &value));
            let key = stored::key(kind, namespace, &last_name);
            if let Some(entry) = snapshot.get(&key) {
                if generated {
                    continue;
                }
                let found = Stored::new(&self.inner.vault, kind, entry).stored_value();
                let mut error = already_exists(kind, &last_name);
                if !text(&found, "/metadata/deletionTimestamp").is_empty() {
                    error.message = format!("object is being deleted: {}", error.message);
                }
                return Err(error);
            }
            let to_store = self.to_store(kind, &value).await?;
            let read = self.as_read(kind, &value, &to_store).await?;
            // What lies in the store is what is shown, where no other version or spelling of it is.
            let shows_stored = kind.spelling.is_none()
                && matches!((&to_store, &read), (Cow::Borrowed(_), Cow::Borrowed(_)));
            let inner = &self.inner;
            // Until the write is done, nobody else here uses of the same quotas.
            let charge = charges::charge(
                &inner.lanes,
                || inner.store.snapshot(),
                &inner.vault,
                &chain.request,
                &value,
                None,
                self.now(),
            )
            .await?;
            if options.dry_run {
                return Made::shown(kind, read.into_owned(), None);
            }
            let plain = stored::encode(&to_store).map_err(StatusError::internal)?;
            let encoded = self.sealed(kind, &key, &last_name, plain.clone()).await?;
            let caches = &self.inner.caches;
            let excess = caches.excess(kind, &key, encoded.len(), snapshot.revision());
            // Whoever else removes them meanwhile does the same.
            let removed = excess.await?.into_iter();
            mutations.extend(removed.map(|key| Mutation::delete(key, Precondition::None)));
            mutations.push(Mutation::put(key.clone(), Precondition::Absent, encoded));
            // Behind the object: whoever counts has seen it once it sees the quota.
            mutations.extend(charge.mutations.iter().cloned());
            match self.write(caller, mutations).await {
                Ok(revision) if shows_stored => {
                    let json = stored::written(&plain, revision);
                    return Ok(Made {
                        json: Some(json),
                        ..Made::shown(kind, value, Some(revision))?
                    });
                }
                Ok(revision) => {
                    return Made::shown(kind, read.into_owned(), Some(revision));
                }
                Err(WriteError::Conflict { key: found, .. }) if found == key => {
                    if !generated {
                        return Err(already_exists(kind, &last_name));
                    }
                    self.catch_up().await?;
                }
                // What it says is worth more than whose it is. An apply is about just that.
                Err(WriteError::TooLarge { .. }) if fits && recorded => fits = false,
                // An address was taken, quota was used, or the namespace changed: judge again on a newer snapshot.
                Err(WriteError::Conflict { key, .. })
                    if claims.contains(&key)
                        || charge.keys.contains(&key)
                        || Some(&key) == namespace_key.as_ref()
                        || Some(&key) == definition_key(kind).as_ref() =>
                {
                    self.catch_up().await?;
                }
                Err(error) => return Err(write_failed(kind, &last_name, error)),
            }
        }
        Err(already_exists(kind, &last_name))
    }

    /// Whether the definition of a user's kind takes new objects, and the check that it still does when one is stored: what is stored after its
    /// objects were removed would be of no kind.
    fn check_definition(
        &self,
        snapshot: &Snapshot,
        kind: KindRef<'_>,
        name: &str,
    ) -> Result<Option<Mutation>, StatusError> {
        let Some(key) = definition_key(kind) else {
            return Ok(None);
        };
        let revision = snapshot.revision_of(&key);
        let revision = revision.ok_or_else(StatusError::unknown_path)?;
        let definitions = &self.inner.definitions;
        let known = definitions.takes_objects(&key, revision);
        let known = known.or_else(|| {
            definitions.show(snapshot);
            definitions.takes_objects(&key, revision)
        });
        match known {
            Some(true) => {
                let precondition = Precondition::Revision(revision);
                Ok(Some(Mutation::check(key, precondition)))
            }
            Some(false) => {
                let told = "create not allowed while custom resource definition is terminating";
                Err(StatusError::forbidden(
                    &kind.resource,
                    &kind.group,
                    name,
                    told,
                ))
            }
            // It changed since.
            None => Err(modified(kind, name)),
        }
    }

    /// Gives a new object what only the server may set, and drops what clients may not.
    pub(super) fn prepared(&self, kind: KindRef<'_>, mut value: Value) -> Value {
        if let Some(spelling) = &kind.spelling {
            (spelling.write)(&mut value);
        }
        let kind = kind.stored();
        kind.strategy.prepare_for_create(kind, &mut value);
        let metadata = member(&mut value, "metadata");
        for field in [
            "resourceVersion",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
            "generation",
        ] {
            put(metadata, field, None);
        }
        let unnamed =
            text(metadata, "/name").is_empty() && text(metadata, "/generateName").is_empty();
        if unnamed && kind.strategy.names_new() {
            metadata["name"] = (self.inner.config.new_uid)().into();
        }
        metadata["uid"] = (self.inner.config.new_uid)().into();
        metadata["creationTimestamp"] = rfc3339(self.now()).into();
        if kind.counts_generations {
            metadata["generation"] = 1.into();
        }
        value
    }

    /// Admission, validation and signing for a new object, which has its defaults; `pods_of_caller` are those on the node that asks. What comes back
    /// has to be written with it: that its namespace is still the one it was judged by.
    fn admit_new(
        &self,
        asked: &Authorized,
        value: &mut Value,
        around: &Surrounding<'_>,
        pods_of_caller: &[Arc<Value>],
    ) -> Result<Option<Mutation>, StatusError> {
        let (spelled, namespace) = asked.collection("create")?;
        let (kind, caller) = (spelled.stored(), asked.caller());
        let snapshot = around.snapshot;
        let name = text(value, "/metadata/name").to_owned();
        let in_namespace = namespace
            .map(|namespace| self.check_namespace(snapshot, kind, namespace, &name))
            .transpose()?;
        kind.strategy.settle(value, None);
        kind.strategy.admit(value, around)?;
        *value = completed(kind, value.take())?;
        kind.strategy.drop_unserved(value);
        self.authorizer().judge_grant(asked, value, None)?;
        // By the rules of the spelling that it came in.
        validate::created(spelled, value)?;
        kind.strategy.judge(value, None, None, around)?;
        kind.strategy.allocate(value, None, around)?;
        node_restriction::admit(asked, None, Some(value))?;
        node_restriction::admit_pod_certificate(asked, value, |kind, name| {
            let namespace = namespace.filter(|_| kind.namespaced);
            around.object(kind, namespace, name)
        })?;
        // What is to be approved is a request for a signature.
        if kind.has(Subresource::Approval) {
            signers::judge_new(value)?;
            self.sign(caller, value, snapshot, pods_of_caller)?;
        }
        Ok(in_namespace)
    }

    /// Whether a namespace takes new objects, and the check that it is still the same when one is stored: between the two it may
    /// have been deleted, emptied and removed, and the object would be in no namespace.
    pub(super) fn check_namespace(
        &self,
        snapshot: &Snapshot,
        kind: KindRef<'_>,
        namespace: &str,
        name: &str,
    ) -> Result<Mutation, StatusError> {
        let Inner {
            namespaces, vault, ..
        } = &*self.inner;
        let Some(found) = namespaces.find(vault, snapshot, namespace) else {
            return Err(StatusError::not_found("namespaces", "", namespace));
        };
        if found
            .field("status.phase")
            .is_some_and(|phase| phase == "Terminating")
        {
            let detail = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            let mut error = StatusError::forbidden(&kind.resource, &kind.group, name, &detail);
            let details = error.details.get_or_insert_default();
            details.causes.push(Cause {
                reason: "NamespaceTerminating".to_owned(),
                message: format!("namespace {namespace} is being terminated"),
                field: "metadata.namespace".to_owned(),
            });
            return Err(error);
        }
        let precondition = Precondition::Revision(found.revision());
        Ok(Mutation::check(found.key().clone(), precondition))
    }

    /// Makes the namespaces that always exist. Idempotent; called by the leader at its start.
    ///
    /// # Errors
    /// Whatever kept the store from taking them.
    pub async fn ensure_permanent_namespaces(&self, caller: &Caller) -> Result<(), StatusError> {
        for name in PERMANENT_NAMESPACES {
            let namespace = object_of(json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name},
            }))?;
            let (kind, options) = (&weft_kinds::NAMESPACE, WriteOptions::default());
            let client = self.client(caller);
            let created = client.create(kind, None, namespace, &options).await;
            match created {
                Ok(_) => tracing::info!(namespace = name, "created"),
                Err(error) if error.is_already_exists() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The key of the definition of a user's kind.
fn definition_key(kind: KindRef<'_>) -> Option<Key> {
    let custom = kind.custom.as_ref()?;
    let name = &custom.definition().name;
    Some(stored::key(
        &weft_kinds::CUSTOM_RESOURCE_DEFINITION,
        None,
        name,
    ))
}

fn generate_name(prefix: &str) -> String {
    let mut name: String = prefix.chars().take(GENERATED_PREFIX_MAX).collect();
    name += &names::suffix(rand::random(), GENERATED_SUFFIX);
    name
}
