//! Routes in other meshes' words: Istio's VirtualService, DestinationRule and ServiceEntry, Linkerd's HTTPRoute and ServiceProfile.
//!
//! Whoever brings their definitions keeps their objects: each is read as far as it says what the Gateway API says, too, and an HTTPRoute of the
//! same name is made of it, with Services for subsets, FaultInjections for faults and a MeshPolicy for what a DestinationRule says of all calls.
//! So nothing of them is known to the nodes. What does not map is told in the status, field by field ([`Mapped`]): a condition that would be lost widens a rule, so such an object is not served at all; anything else that is lost is
//! told, and the rest is served.
//!
//! Invariants: an HTTPRoute, a Service or a policy that somebody else made is left alone; what was made goes with the object that it was made of.
//! Left to others: what becomes of HTTPRoutes (`weft_gateway`), what a mesh does beyond routes (policies of ours).

mod destination_rule;
mod istio;
mod linkerd;
mod mapped;

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use weft_api::annotation::MADE_OF;
use weft_api::names;
use weft_api::object::{Object, ObjectError};
use weft_kinds::{FAULT_INJECTION, HTTP_ROUTE, Kind, MESH_POLICY, SERVICE};

use self::mapped::{Mapped, Services};
use crate::claim::controller_reference;
use crate::conditions::Condition;
use crate::indexer::{Cached, Lens};
use crate::lens::Service;
use crate::metadata::Key;
use crate::view::{Touched, View};
use crate::write::{Write, object};
use crate::{Context, Controller, Outcome};

pub const CONTROLLER: Controller = Controller {
    name: "foreign-routes-controller",
    reads: |reads| {
        reads
            .kind::<VirtualService>()
            .kind::<DestinationRule>()
            .kind::<ServiceEntry>()
            .kind::<LinkerdRoute>()
            .kind::<ServiceProfile>()
            .kind::<Service>()
            .kind::<Made>()
            .kind::<MadeFault>()
            .kind::<MadePolicy>();
    },
    keys,
    relieved: |_, _| Vec::new(),
    seeds: |view| {
        let mut keys = all::<VirtualService>(view);
        keys.extend(all::<DestinationRule>(view));
        keys.extend(all::<ServiceEntry>(view));
        keys.extend(all::<LinkerdRoute>(view));
        keys.extend(all::<ServiceProfile>(view));
        keys
    },
    subject: |view, key| {
        let (resource, name) = key.name.split_once('/')?;
        let kind = kinds().find(|kind| kind.qualified_resource() == resource)?;
        Some(view.object_of(kind, &key.sibling(name))?.reference())
    },
    reconcile,
};

const ACCEPTED: &str = "Accepted";
/// Fields that a status names; of further ones, how many they are.
const TOLD_MAX: usize = 16;

static VIRTUAL_SERVICE: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    named(
        "networking.istio.io",
        "v1",
        "VirtualService",
        "virtualservices",
    )
});
static DESTINATION_RULE: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    named(
        "networking.istio.io",
        "v1",
        "DestinationRule",
        "destinationrules",
    )
});
static SERVICE_ENTRY: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    named(
        "networking.istio.io",
        "v1",
        "ServiceEntry",
        "serviceentries",
    )
});
static LINKERD_ROUTE: LazyLock<Arc<Kind>> =
    LazyLock::new(|| named("policy.linkerd.io", "v1beta3", "HTTPRoute", "httproutes"));
static SERVICE_PROFILE: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    named(
        "linkerd.io",
        "v1alpha2",
        "ServiceProfile",
        "serviceprofiles",
    )
});

/// A kind by its name, as users' definitions give it.
fn named(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    resource: &'static str,
) -> Arc<Kind> {
    Arc::new(Kind {
        merges_strategically: false,
        counts_generations: true,
        ..Kind::new(group, version, kind, resource)
    })
}

fn kinds() -> impl Iterator<Item = &'static Arc<Kind>> {
    let kinds: [&'static Arc<Kind>; 5] = [
        &VIRTUAL_SERVICE,
        &DESTINATION_RULE,
        &SERVICE_ENTRY,
        &LINKERD_ROUTE,
        &SERVICE_PROFILE,
    ];
    kinds.into_iter()
}

/// An object of one of these kinds.
trait Foreign: Lens {
    fn spec(&self) -> &Value;
    fn conditions(&self) -> &Value;
    /// What of it the Gateway API says, too.
    fn map(key: &Key, spec: &Value, services: &Services<'_>) -> Mapped;
}

macro_rules! foreign {
    ($name:ident, $kind:ident, $map:path) => {
        #[derive(Debug)]
        struct $name {
            spec: Value,
            conditions: Value,
        }

        impl Lens for $name {
            fn kind() -> &'static Arc<Kind> {
                &$kind
            }

            fn read(object: &Object) -> Result<Self, ObjectError> {
                let value = object.as_value();
                Ok(Self {
                    spec: value["spec"].clone(),
                    conditions: value["status"]["conditions"].clone(),
                })
            }
        }

        impl Foreign for $name {
            fn spec(&self) -> &Value {
                &self.spec
            }

            fn conditions(&self) -> &Value {
                &self.conditions
            }

            fn map(key: &Key, spec: &Value, services: &Services<'_>) -> Mapped {
                $map(key, spec, services)
            }
        }
    };
}

foreign!(VirtualService, VIRTUAL_SERVICE, istio::virtual_service);
foreign!(
    DestinationRule,
    DESTINATION_RULE,
    destination_rule::destination_rule
);
foreign!(ServiceEntry, SERVICE_ENTRY, istio::service_entry);
foreign!(LinkerdRoute, LINKERD_ROUTE, linkerd::route);
foreign!(ServiceProfile, SERVICE_PROFILE, linkerd::service_profile);

/// What was made of an object, as far as is looked at: of others, nothing is read.
macro_rules! made {
    ($name:ident, $kind:ident) => {
        #[derive(Debug)]
        struct $name;

        impl Lens for $name {
            fn kind() -> &'static Arc<Kind> {
                &$kind
            }

            fn read(_: &Object) -> Result<Self, ObjectError> {
                Ok(Self)
            }
        }
    };
}

made!(Made, HTTP_ROUTE);
made!(MadeFault, FAULT_INJECTION);
made!(MadePolicy, MESH_POLICY);

/// They share one queue, so the key's name carries the resource.
fn key_of(kind: &Kind, key: &Key) -> Key {
    key.sibling(&format!("{}/{}", kind.qualified_resource(), key.name))
}

fn all<F: Foreign>(view: &View) -> Vec<Key> {
    let rows = view.list::<F>();
    rows.map(|row| key_of(F::kind(), &row.key)).collect()
}

fn all_in<F: Foreign>(view: &View, namespace: &str) -> Vec<Key> {
    let rows = view.list_in::<F>(namespace);
    rows.map(|row| key_of(F::kind(), &row.key)).collect()
}

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    if let Some(kind) = kinds().find(|kind| touched.is_of(kind)) {
        return vec![key_of(kind, &touched.key)];
    }
    let made = [&HTTP_ROUTE, &SERVICE, &FAULT_INJECTION, &MESH_POLICY];
    if !made.into_iter().any(|kind| touched.is_of(kind)) {
        return Vec::new();
    }
    let owners = touched.owners.iter().filter_map(|uid| view.object(uid));
    let owners = owners.filter_map(|owner| {
        let kind = kinds().find(|kind| owner.kind.is_version_of(kind))?;
        Some(key_of(kind, owner.key()))
    });
    let mut keys: BTreeSet<Key> = owners.collect();
    // A Service has ports, and a selector that subsets share.
    if touched.is_of(&SERVICE) {
        let namespace = &touched.key.namespace;
        keys.extend(all_in::<VirtualService>(view, namespace));
        keys.extend(all_in::<DestinationRule>(view, namespace));
        keys.extend(all_in::<ServiceProfile>(view, namespace));
    }
    keys.into_iter().collect()
}

fn reconcile(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    let Some((resource, name)) = key.name.split_once('/') else {
        return Outcome::default();
    };
    let key = &key.sibling(name);
    let is = |kind: &Kind| kind.qualified_resource() == resource;
    let writes = match () {
        () if is(&VIRTUAL_SERVICE) => fit::<VirtualService>(view, key, cx),
        () if is(&DESTINATION_RULE) => fit::<DestinationRule>(view, key, cx),
        () if is(&SERVICE_ENTRY) => fit::<ServiceEntry>(view, key, cx),
        () if is(&LINKERD_ROUTE) => fit::<LinkerdRoute>(view, key, cx),
        () if is(&SERVICE_PROFILE) => fit::<ServiceProfile>(view, key, cx),
        () => Vec::new(),
    };
    Outcome::from_writes(writes)
}

fn fit<F: Foreign>(view: &View, key: &Key, cx: &Context<'_>) -> Vec<Write> {
    let Some(row) = view.get::<F>(key).filter(|row| !row.meta.is_deleting()) else {
        return Vec::new();
    };
    let services = Services { view };
    let mut mapped = F::map(key, row.body.spec(), &services);
    let mut writes = Vec::new();
    let route = mapped.route.take().filter(|_| mapped.widened.is_empty());
    if let Some(spec) = route {
        keep::<F, Made>(
            view,
            row,
            &HTTP_ROUTE,
            &key.name,
            &spec,
            &mut mapped,
            &mut writes,
        );
    }
    for (name, spec) in std::mem::take(&mut mapped.services) {
        keep::<F, Service>(view, row, &SERVICE, &name, &spec, &mut mapped, &mut writes);
    }
    let is_served = mapped.widened.is_empty();
    let faults = std::mem::take(&mut mapped.faults);
    for (name, spec) in faults.iter().filter(|_| is_served) {
        keep::<F, MadeFault>(
            view,
            row,
            &FAULT_INJECTION,
            name,
            spec,
            &mut mapped,
            &mut writes,
        );
    }
    for (name, spec) in std::mem::take(&mut mapped.policies) {
        keep::<F, MadePolicy>(
            view,
            row,
            &MESH_POLICY,
            &name,
            &spec,
            &mut mapped,
            &mut writes,
        );
    }
    drop_others(view, row, &mapped, &mut writes);
    let message = told(&mapped);
    let condition = Condition {
        kind: ACCEPTED,
        holds: mapped.widened.is_empty() && !mapped.kept.is_empty(),
        reason: match (mapped.widened.is_empty(), mapped.lost.is_empty()) {
            (false, _) => "NotMapped",
            (true, _) if mapped.kept.is_empty() => "NotMapped",
            (true, false) => "PartlyMapped",
            (true, true) => "Mapped",
        },
        message: &message,
        generation: row.meta.generation,
    };
    let before = row.body.conditions();
    let others = before.as_array().into_iter().flatten();
    let others = others.filter(|other| other["type"] != ACCEPTED).cloned();
    let after: Vec<Value> = others.chain([condition.after(before, cx)]).collect();
    let (before, after) = (json!({"conditions": before}), json!({"conditions": after}));
    writes.extend(Write::status(row, &before, &after));
    writes
}

/// Has an object of this spec there, of whose making the owner is.
fn keep<F: Foreign, T: Lens>(
    view: &View,
    row: &Cached<F>,
    kind: &Arc<Kind>,
    name: &str,
    spec: &Value,
    mapped: &mut Mapped,
    writes: &mut Vec<Write>,
) {
    let hash = names::suffix(names::hash(&[spec.to_string().as_bytes()]), 10);
    let key = row.key.sibling(name);
    let noun = &kind.kind;
    match view.get::<T>(&key) {
        None => {
            let made = json!({
                "apiVersion": kind.api_version(),
                "kind": noun,
                "metadata": {
                    "name": name,
                    "namespace": &*row.key.namespace,
                    "annotations": {MADE_OF: hash},
                    "ownerReferences": [controller_reference(row)],
                },
                "spec": spec,
            });
            writes.push(Write::create(kind, object(made)));
        }
        Some(there) if !is_owned(there, row) => {
            mapped.widened.push(format!(
                "{noun} {name} is there, and was made by somebody else"
            ));
            return;
        }
        Some(there) => {
            if there.meta.annotations.get(MADE_OF) != Some(&hash) && !there.meta.is_deleting() {
                let patch = json!({
                    "metadata": {"annotations": {MADE_OF: hash}},
                    "spec": replacing(spec),
                });
                writes.push(Write::patch(there, patch));
            }
        }
    }
    mapped.kept.insert(format!("{noun} {name}"));
}

/// A merge patch that takes away what a Service or a route of before had and this one has not.
fn replacing(spec: &Value) -> Value {
    let mut patch = spec.clone();
    let members = [
        "hostnames",
        "rules",
        "selector",
        "ports",
        "headers",
        "delay",
        "abort",
        "circuitBreaker",
        "concurrency",
    ];
    for member in members {
        if patch[member].is_null() {
            patch[member] = Value::Null;
        }
    }
    patch
}

fn is_owned<F: Foreign, T: Lens>(there: &Cached<T>, row: &Cached<F>) -> bool {
    let owner = there.meta.controller();
    owner.is_some_and(|owner| *owner.uid == *row.meta.uid)
}

/// What was made of it, and is not any more.
fn drop_others<F: Foreign>(view: &View, row: &Cached<F>, mapped: &Mapped, writes: &mut Vec<Write>) {
    for made in view.dependents(&row.meta.uid) {
        let noun = &made.kind.kind;
        let name = &made.key().name;
        if mapped.kept.contains(&format!("{noun} {name}")) || made.meta.is_deleting() {
            continue;
        }
        let is = |kind: &Kind| made.kind.is_version_of(kind);
        let key = made.key();
        let write = match () {
            () if is(&HTTP_ROUTE) => deletion::<Made>(view, key),
            () if is(&SERVICE) => deletion::<Service>(view, key),
            () if is(&FAULT_INJECTION) => deletion::<MadeFault>(view, key),
            () if is(&MESH_POLICY) => deletion::<MadePolicy>(view, key),
            () => None,
        };
        writes.extend(write);
    }
}

fn deletion<T: Lens>(view: &View, key: &Key) -> Option<Write> {
    view.get::<T>(key).map(|row| Write::delete(row))
}

/// What became of it, in a sentence or two.
fn told(mapped: &Mapped) -> String {
    let list = |all: &[String]| {
        let shown: Vec<&str> = all.iter().take(TOLD_MAX).map(String::as_str).collect();
        match all.len().saturating_sub(TOLD_MAX) {
            0 => shown.join(", "),
            more => format!("{} and {more} others", shown.join(", ")),
        }
    };
    if !mapped.widened.is_empty() {
        return format!(
            "Nothing is served of it, since it would be served otherwise than it is written: {}.",
            list(&mapped.widened)
        );
    }
    let kept: Vec<&str> = mapped.kept.iter().map(String::as_str).collect();
    let served = match kept.is_empty() {
        true => "Nothing of it maps.".to_owned(),
        false => format!("Served by {}.", kept.join(", ")),
    };
    match mapped.lost.is_empty() {
        true => served,
        false => format!("{served} Not served: {}.", list(&mapped.lost)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::small::{Small, owned_by};

    #[test]
    fn what_is_made_of_an_object_is_made_once_and_goes_when_it_says_so_no_more() {
        let mut cluster = Small::new([CONTROLLER.reads]);
        for kind in [&VIRTUAL_SERVICE, &DESTINATION_RULE] {
            cluster.serve(kind);
        }
        cluster.put(
            &SERVICE,
            json!({"metadata": {"name": "ratings"},
                "spec": {"selector": {"app": "ratings"}, "ports": [{"port": 9080}]}}),
        );
        let route = json!([{"destination": {"host": "ratings"}}]);
        let abort = json!({"abort": {"httpStatus": 500, "percentage": {"value": 100}}});
        let virtual_service = |http: Value| json!({"metadata": {"name": "ratings"}, "spec": {"hosts": ["ratings"], "http": [http]}});
        let spoiled = virtual_service(json!({"fault": abort, "route": route}));
        cluster.put(&VIRTUAL_SERVICE, spoiled);
        let key = "virtualservices.networking.istio.io/ratings";
        assert_eq!(
            cluster.told(&CONTROLLER, key),
            [
                "create httproutes ratings",
                "create faultinjections ratings-fault-0"
            ]
        );
        let told = cluster.status(&CONTROLLER, key);
        assert_eq!(
            told["conditions"][0]["message"],
            "Served by FaultInjection ratings-fault-0, HTTPRoute ratings. Not served: spec.http[0].fault after 24h."
        );

        let owners = owned_by(&VIRTUAL_SERVICE, "ratings");
        let made =
            json!({"metadata": {"name": "ratings-fault-0", "ownerReferences": owners}, "spec": {}});
        cluster.put(&FAULT_INJECTION, made);
        cluster.put(&VIRTUAL_SERVICE, virtual_service(json!({"route": route})));
        assert_eq!(
            cluster.told(&CONTROLLER, key),
            [
                "create httproutes ratings",
                "delete faultinjections ratings-fault-0"
            ]
        );

        let traffic = json!({"outlierDetection": {"consecutive5xxErrors": 3}});
        cluster.put(
            &DESTINATION_RULE,
            json!({"metadata": {"name": "ratings"}, "spec": {"host": "ratings", "trafficPolicy": traffic}}),
        );
        let key = "destinationrules.networking.istio.io/ratings";
        let made = ["create meshpolicies ratings"];
        assert_eq!(cluster.told(&CONTROLLER, key), made);
        // Somebody else's policy is left alone.
        let own = json!({"metadata": {"name": "ratings"}, "spec": {}});
        cluster.put(&MESH_POLICY, own);
        assert_eq!(cluster.told(&CONTROLLER, key), [""; 0]);
    }
}
