//! Tokens of ServiceAccounts, made when they are asked for and never stored.
//!
//! Invariants: a token is bound to objects of this moment, by their uids; a node gets tokens only for the pods that run on it, and only for
//! audiences that those name. Left to others: what the token says (`crate::issuer`), who may ask (`crate::authz`).
//! Source: kubernetes `pkg/registry/core/serviceaccount/storage/token.go` and the plug-in NodeRestriction, 1.37.

use serde_json::{Value, json};
use weft_api::status::{Cause, StatusError};
use weft_api::time::rfc3339;
use weft_kinds::admission::{Operation, Place};
use weft_kinds::lens::{fill, integer, items, member, put, text};
use weft_kinds::{KindRef, Subresource};
use weft_store::Snapshot;

use super::admitted::Asking;
use super::{Objects, WriteOptions};
use crate::admission::chain::Told;
use crate::authz::Authorized;
use crate::issuer::{Bound, Reference};
use crate::request::ObjectRef;
use crate::stored::Stored;

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";
/// Seconds that a token is good for where nobody says.
const SECONDS: i64 = 60 * 60;
/// The fewest that can be asked for.
const SECONDS_MIN: i64 = 10 * 60;
/// The most.
const SECONDS_MAX: i64 = 1 << 32;
/// What a node needs to be allowed beyond its pods' audiences.
const AUDIENCE_VERB: &str = "request-serviceaccounts-token-audience";

/// The objects that a token may be bound to, and where they are looked for.
struct Target {
    kind: KindRef<'static>,
    in_namespace: bool,
}

fn target(version: &str, kind: &str) -> Option<Target> {
    // Kubernetes looks at the group alone.
    if version.contains('/') {
        return None;
    }
    let (kind, in_namespace): (KindRef<'static>, _) = match kind {
        "Pod" => (&weft_kinds::POD, true),
        "Secret" => (&weft_kinds::SECRET, true),
        "Node" => (&weft_kinds::NODE, false),
        _ => return None,
    };
    Some(Target { kind, in_namespace })
}

impl Objects {
    /// Makes a token for the account that is asked for: the TokenRequest that was sent, with its status.
    ///
    /// # Errors
    /// 400, 403, 404 for account or object, 409 for another uid, 422; 503 without a majority.
    pub async fn create_token(
        &self,
        asked: &Authorized,
        mut request: Value,
        options: &WriteOptions,
    ) -> Result<Value, StatusError> {
        let (object, resource) = asked.object("create")?;
        if resource.subresource != Some(Subresource::Token) {
            return Err(StatusError::method_not_allowed());
        }
        let namespace = object.namespace.unwrap_or_default();
        check_names(&request, namespace, object.name)?;
        let snapshot = self.newest(None).await?;
        self.judge_node(asked, object, &request, &snapshot)?;
        let account = self.find(&snapshot, object)?.value();
        let uid = text(&account, "/metadata/uid").to_owned();
        let sent = text(&request, "/metadata/uid");
        if !sent.is_empty() && sent != uid {
            let why = format!(
                "the UID in the token request ({sent}) does not match the UID of the service account ({uid})"
            );
            return Err(StatusError::conflict(KIND, GROUP, object.name, &why));
        }
        let now = self.now();
        request["apiVersion"] = format!("{GROUP}/v1").into();
        request["kind"] = KIND.into();
        let metadata = member(&mut request, "metadata");
        metadata["name"] = object.name.into();
        metadata["namespace"] = namespace.into();
        metadata["uid"] = uid.as_str().into();
        metadata["creationTimestamp"] = rfc3339(now).into();
        put(&mut request, "status", None);
        let spec = member(&mut request, "spec");
        if items(spec, "/audiences").is_empty() {
            spec["audiences"] = json!(self.inner.config.issuer.audiences);
        }
        fill(spec, "expirationSeconds", SECONDS);
        fill(spec, "boundObjectRef", Value::Null);
        judge(&request)?;
        self.admit_token(asked, object, &request, &snapshot, options)
            .await?;

        let mut bound = Bound {
            namespace: namespace.to_owned(),
            serviceaccount: Reference {
                name: object.name.to_owned(),
                uid,
            },
            ..Bound::default()
        };
        self.bind_token(&request, &snapshot, &mut bound)?;
        let spec = &request["spec"];
        let seconds = integer(spec, "/expirationSeconds").unwrap_or(SECONDS);
        let audiences = items(spec, "/audiences").iter().filter_map(Value::as_str);
        let audiences = audiences.map(str::to_owned).collect();
        let jti = (self.inner.config.new_uid)();
        let issuer = &self.inner.config.issuer;
        let claims = issuer.claims(bound, audiences, seconds, jti, now);
        let key = self.inner.signing_keys.signer(now).await;
        let failed = |why: &dyn std::fmt::Display| {
            StatusError::internal(format!("failed to generate token: {why}"))
        };
        let token = key.map_err(|error| failed(&error))?.sign(&claims);
        let token = token.map_err(|error| failed(&error))?;
        let expires = now.saturating_add(jiff::SignedDuration::from_secs(seconds));
        request["status"] = json!({
            "token": token,
            "expirationTimestamp": rfc3339(expires.unwrap_or(jiff::Timestamp::MAX)),
        });
        Ok(request)
    }

    /// What is configured has a say in a token as in any other object.
    async fn admit_token(
        &self,
        asked: &Authorized,
        object: ObjectRef<'_>,
        request: &Value,
        snapshot: &Snapshot,
        options: &WriteOptions,
    ) -> Result<(), StatusError> {
        let asking = Asking::writing(asked, Operation::Create, object, options);
        let mut chain = self.chain(asking, snapshot);
        chain.request.place = Place {
            group: GROUP.to_owned(),
            version: "v1".to_owned(),
            kind: KIND.to_owned(),
            ..chain.request.place
        };
        let mut told = Told::default();
        chain.judged(Some(request), None, &mut told).await?;
        options.advice.replace(told.warnings);
        Ok(())
    }

    fn stored(
        &self,
        snapshot: &Snapshot,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Value, StatusError> {
        let found: Stored = self.find(snapshot, ObjectRef::new(kind, namespace, name))?;
        Ok(found.value())
    }

    /// Looks up the object that a token is to be bound to.
    fn bind_token(
        &self,
        request: &Value,
        snapshot: &Snapshot,
        bound: &mut Bound,
    ) -> Result<(), StatusError> {
        let reference = &request["spec"]["boundObjectRef"];
        if reference.is_null() {
            return Ok(());
        }
        let at = |field: &str| text(reference, field).to_owned();
        let (version, kind, name) = (at("/apiVersion"), at("/kind"), at("/name"));
        let Some(target) = target(&version, &kind) else {
            let group = match version.split_once('/') {
                Some((group, version)) => format!("{group}/{version}"),
                None => format!("/{version}"),
            };
            let gated = match (version.as_str(), kind.as_str()) {
                (
                    "admissionregistration.k8s.io/v1",
                    "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration",
                ) => " (feature gate APIServerWebhookAuthenticationToken is disabled)",
                _ => "",
            };
            return Err(StatusError::bad_request(format!(
                "cannot bind token to object of type {group}, Kind={kind}{gated}"
            )));
        };
        let namespace = target.in_namespace.then(|| bound.namespace.clone());
        let found = self.stored(snapshot, target.kind, namespace.as_deref(), &name)?;
        let is = text(&found, "/metadata/uid").to_owned();
        let reference = || Reference {
            name: name.clone(),
            uid: is.clone(),
        };
        match kind.as_str() {
            "Pod" => {
                let account = &bound.serviceaccount.name;
                if text(&found, "/spec/serviceAccountName") != account {
                    return Err(StatusError::bad_request(format!(
                        "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                    )));
                }
                bound.pod = Some(reference());
                bound.node = self.node_of(&found, snapshot)?;
            }
            "Secret" => bound.secret = Some(reference()),
            _ => bound.node = Some(reference()),
        }
        let sent = at("/uid");
        if !sent.is_empty() && sent != is {
            let why = format!(
                "the UID in the bound object reference ({sent}) does not match the UID in record. The object might have been deleted and then recreated"
            );
            return Err(StatusError::conflict(&kind, "", &name, &why));
        }
        Ok(())
    }

    /// The node that a pod is bound to, by its name alone where there is none.
    fn node_of(&self, pod: &Value, snapshot: &Snapshot) -> Result<Option<Reference>, StatusError> {
        let name = text(pod, "/spec/nodeName");
        if name.is_empty() {
            return Ok(None);
        }
        let uid = match self.stored(snapshot, &weft_kinds::NODE, None, name) {
            Ok(node) => text(&node, "/metadata/uid").to_owned(),
            Err(error) if error.is_not_found() => String::new(),
            Err(error) => return Err(error),
        };
        Ok(Some(Reference {
            name: name.to_owned(),
            uid,
        }))
    }

    /// A node asks for its own pods' tokens only, for an audience that the pod's volumes name, as the request was sent.
    fn judge_node(
        &self,
        asked: &Authorized,
        object: ObjectRef<'_>,
        request: &Value,
        snapshot: &Snapshot,
    ) -> Result<(), StatusError> {
        let caller = asked.caller();
        let Some(node) = caller.node_name() else {
            return Ok(());
        };
        let refused = |why: &str| StatusError::forbidden("serviceaccounts", "", object.name, why);
        let reference = &request["spec"]["boundObjectRef"];
        let at = |field: &str| text(reference, field);
        if at("/apiVersion") != "v1" || at("/kind") != "Pod" || at("/name").is_empty() {
            return Err(refused("node requested token not bound to a pod"));
        }
        let uid = at("/uid");
        if uid.is_empty() {
            let why = "node requested token with a pod binding without a uid";
            return Err(refused(why));
        }
        let pod = self.stored(snapshot, &weft_kinds::POD, object.namespace, at("/name"))?;
        if text(&pod, "/metadata/uid") != uid {
            return Err(refused(&format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            )));
        }
        if text(&pod, "/spec/nodeName") != node {
            let why = "node requested token bound to a pod scheduled on a different node";
            return Err(refused(why));
        }
        let audience = match items(request, "/spec/audiences") {
            [] => "",
            [one] => one.as_str().unwrap_or(""),
            _ => return Err(refused("node may only request 0 or 1 audiences")),
        };
        let projections = items(&pod, "/spec/volumes")
            .iter()
            .flat_map(|volume| items(volume, "/projected/sources"));
        let mut tokens = projections.filter_map(|source| source.get("serviceAccountToken"));
        if tokens.any(|token| text(token, "/audience") == audience) {
            return Ok(());
        }
        let access = crate::authz::Access {
            verb: AUDIENCE_VERB,
            group: "",
            resource: audience,
            subresource: None,
            namespace: object.namespace,
            name: Some(object.name),
        };
        match self.authorizer().decide(caller, &access).allowed {
            true => Ok(()),
            false => Err(refused(&format!(
                "{} is not authorized to request tokens for audience {audience:?}",
                caller.user()
            ))),
        }
    }
}

/// A body that names an account names the one of the URL.
fn check_names(request: &Value, namespace: &str, name: &str) -> Result<(), StatusError> {
    for (field, expected, called) in [
        ("name", name, "name"),
        ("namespace", namespace, "namespace"),
    ] {
        let sent = text(request, &format!("/metadata/{field}"));
        if !sent.is_empty() && sent != expected {
            let why = format!("must match the service account {called} if specified");
            let cause = Cause::invalid(&format!("metadata.{field}"), &sent.into(), &why);
            return Err(StatusError::invalid(KIND, GROUP, name, vec![cause]));
        }
    }
    Ok(())
}

fn judge(request: &Value) -> Result<(), StatusError> {
    let seconds = integer(request, "/spec/expirationSeconds").unwrap_or(0);
    let field = "spec.expirationSeconds";
    let mut causes = Vec::new();
    if seconds < SECONDS_MIN {
        let why = "may not specify a duration less than 10 minutes";
        causes.push(Cause::invalid(field, &seconds.into(), why));
    }
    if seconds > SECONDS_MAX {
        let why = "may not specify a duration larger than 2^32 seconds";
        causes.push(Cause::invalid(field, &seconds.into(), why));
    }
    let attestations = &request["spec"]["attestations"];
    if attestations.as_object().is_some_and(|all| !all.is_empty()) {
        let why = "attestations may only be specified with a webhook bound object reference";
        causes = vec![Cause::invalid("spec.attestations", attestations, why)];
    }
    match causes.is_empty() {
        true => Ok(()),
        false => Err(StatusError::invalid(KIND, GROUP, "", causes)),
    }
}
