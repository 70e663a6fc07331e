//! Nobody gives what he does not have: what is judged of a role or a binding before it is written.
//!
//! Whoever writes a role must hold what its rules allow, or may `escalate` such roles; whoever binds one must hold what it allows, or may
//! `bind` it. To gather rules of other roles takes everything. After Kubernetes' `policybased` storages, in their sentences.
//!
//! Invariants: pure but for the roles that the caller has; a write that changes owners and finalizers alone passes, so that objects can go.

use serde_json::Value;
use weft_api::status::StatusError;
use weft_kinds::lens::{items, put, text};
use weft_kinds::rbac::rules::{Rule, full_authority, missing, quoted};

use super::{Access, Authorized, Authorizer};
use crate::caller::GROUP_MASTERS;

const GROUP: &str = "rbac.authorization.k8s.io";

impl Authorizer {
    /// Judges what a write gives: `new` is what is to be stored, `old` what is.
    ///
    /// # Errors
    /// 403 with what the caller does not hold; 404 for a role that is bound and not there.
    pub(crate) fn judge_grant(
        &self,
        asked: &Authorized,
        new: &Value,
        old: Option<&Value>,
    ) -> Result<(), StatusError> {
        let Some(access) = asked.access().filter(|access| access.group == GROUP) else {
            return Ok(());
        };
        if asked.caller().in_group(GROUP_MASTERS) || old.is_some_and(|old| lets_go(new, old)) {
            return Ok(());
        }
        match access.resource {
            "roles" | "clusterroles" => self.judge_role(asked, &access, new, old),
            "rolebindings" | "clusterrolebindings" => self.judge_binding(asked, &access, new),
            _ => Ok(()),
        }
    }

    fn judge_role(
        &self,
        asked: &Authorized,
        access: &Access<'_>,
        new: &Value,
        old: Option<&Value>,
    ) -> Result<(), StatusError> {
        let escalates = Access {
            verb: "escalate",
            subresource: None,
            ..*access
        };
        if self.decide(asked.caller(), &escalates).allowed {
            return Ok(());
        }
        let name = text(new, "/metadata/name");
        self.confirm(asked, access, name, &Rule::all_of(new))?;
        let gathers =
            |role: &Value| !items(role, "/aggregationRule/clusterRoleSelectors").is_empty();
        if (gathers(new) || old.is_some_and(gathers))
            && self
                .confirm(asked, access, name, &full_authority())
                .is_err()
        {
            let why = "must have cluster-admin privileges to use the aggregationRule";
            return Err(StatusError::forbidden(access.resource, GROUP, name, why));
        }
        Ok(())
    }

    fn judge_binding(
        &self,
        asked: &Authorized,
        access: &Access<'_>,
        new: &Value,
    ) -> Result<(), StatusError> {
        let (kind, role) = (text(new, "/roleRef/kind"), text(new, "/roleRef/name"));
        let (resource, namespace) = match kind {
            "ClusterRole" => ("clusterroles", None),
            "Role" => ("roles", access.namespace),
            // It is not valid, and is told so.
            _ => return Ok(()),
        };
        let binds = Access {
            verb: "bind",
            group: text(new, "/roleRef/apiGroup"),
            resource,
            subresource: None,
            namespace: access.namespace,
            name: Some(role),
        };
        if self.decide(asked.caller(), &binds).allowed {
            return Ok(());
        }
        let rules = self.roles.rules_at(namespace, role);
        // Kubernetes tells it as if the binding were not there, by the name of the role.
        let missing = || StatusError::not_found(access.resource, GROUP, role);
        let rules = rules.ok_or_else(missing)?;
        self.confirm(asked, access, text(new, "/metadata/name"), &rules)
    }

    /// Whether the caller holds all of these rules, where they are to count.
    fn confirm(
        &self,
        asked: &Authorized,
        access: &Access<'_>,
        name: &str,
        rules: &[Rule],
    ) -> Result<(), StatusError> {
        let caller = asked.caller();
        let (held, faults) = self.roles.rules_of(caller, access.namespace);
        let missing = missing(&held, rules);
        if missing.is_empty() {
            return Ok(());
        }
        let mut why = format!(
            "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            caller.user(),
            quoted(caller.groups()),
            missing.join("\n")
        );
        if !faults.is_empty() {
            why.push_str(&format!(
                "; resolution errors: [{}]",
                super::aggregate(&faults)
            ));
        }
        Err(StatusError::forbidden(access.resource, GROUP, name, &why))
    }
}

/// Whether a write changes nothing but who owns the object and what its deletion waits for.
fn lets_go(new: &Value, old: &Value) -> bool {
    let without = |object: &Value| {
        let mut object = object.clone();
        for field in [
            "ownerReferences",
            "finalizers",
            "managedFields",
            "resourceVersion",
        ] {
            put(&mut object["metadata"], field, None);
        }
        object
    };
    without(new) == without(old)
}
