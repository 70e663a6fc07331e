//! Server-side apply: what a configuration makes of an object, and who owns which fields after each write.
//!
//! The rules of structured-merge-diff and of apimachinery's managedFields, as functions of values. [`apply`] lays a configuration
//! over the live object, or tells whose fields it would change; [`update`] records what any other write changed. Both give the
//! object with its `metadata.managedFields`. [`keep_times`] then leaves a write that changed nothing without a trace.
//!
//! Use: objects come decoded and defaulted, in the version of the request; what the server itself allocates later is nobody's.
//! The steps: `form` (what a place can be) → `typed` (fields, comparison, removal), `merge` → `managers` (entries) → here.
//!
//! Invariants: pure, times are handed in; without force nothing that somebody else owns changes; what nobody owns and no
//! configuration names stays as it is; an apply that changes nothing leaves times alone; equal input, equal result.
//! Left to others: reading bodies, defaults, admission, the store (`weft_apiserver`), and conversion ([`Convert`]).

mod conflict;
mod created;
mod element;
mod fields;
mod form;
mod managers;
mod merge;
mod overlay;
mod scale;
mod typed;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use weft_api::gvk::{GroupVersionKind, split_api_version};

pub use conflict::{ApplyError, Conflict, Conflicts, FieldsError, ManagedError};
pub use element::{Element, Path, Plain};
pub use fields::{Set, Step, Writable};
pub use managers::{Entry, Managed, Manager, Operation, Writer, manager_faults, manager_name};
pub use overlay::overlay;
pub use scale::{Sizes, to_parent, to_scale};
pub use typed::Faults;

use self::created::Unsure;
use self::form::Type;
use self::typed::{Comparison, check, reconciled, remove, with_structs};
use crate::decode;
use crate::lens::{put, text};
use crate::schema::Schema;

/// Where `kubectl apply` keeps what it last applied from the client's side.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Bytes of all annotations, as in Kubernetes.
const ANNOTATIONS_MAX: usize = 256 << 10;

/// The manager whose objects move from client-side to server-side apply.
const KUBECTL: &str = "kubectl";

/// Whom an object belonged to when nobody had asked.
const BEFORE: &str = "before-first-apply";

/// What is written to: a kind in the version of the request, through one door.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    pub gvk: &'a GroupVersionKind,
    /// Empty for the object's own door.
    pub subresource: &'a str,
    /// None for a kind that has no schema: its types are deduced.
    pub schema: Option<Schema<'a>>,
    pub writable: &'a Writable,
    pub convert: Convert<'a>,
}

/// An object in another version, and the schema that it has there.
pub struct Converted<'a> {
    pub value: Value,
    pub schema: Option<Schema<'a>>,
}

/// How an object, whose `apiVersion` says its version, looks in another one: none for a version that the kind does not have (any
/// more), whose managers are forgotten; an error when the conversion failed.
pub type Convert<'a> = &'a dyn Fn(&Value, &str) -> Result<Option<Converted<'a>>, String>;

/// The [`Convert`] of a kind with one version.
///
/// # Errors
/// None.
pub fn one_version<'a>(_: &Value, _: &str) -> Result<Option<Converted<'a>>, String> {
    Ok(None)
}

/// Applies `config` to `live`, or creates what it says.
///
/// The result is to be defaulted, judged and stored as that of any patch.
///
/// # Errors
/// [`ApplyError::Conflicts`] (409) for fields of others that would change, unless forced; 400 for a body of another kind or with
/// managedFields; 500 for one that does not fit the schema, as Kubernetes answers.
pub fn apply(
    scope: &Scope<'_>,
    live: Option<&Value>,
    config: &Value,
    writer: Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let work = Work::of(scope);
    let managed = Managed::parse(live.and_then(managed_fields))?;
    let unsaid = work.unsaid();
    if go_gvk(config) != go_gvk(&unsaid) {
        return Err(ApplyError::WrongKind(go_gvk(config)));
    }
    if managed_fields(config).is_some_and(Value::is_array) {
        return Err(ApplyError::ManagedFieldsGiven);
    }
    work.check(config, false)
        .map_err(|(about, faults)| ApplyError::Unfit { about, faults })?;
    let old = live.unwrap_or(&unsaid);
    work.check_live(old)?;

    let managed = match live {
        Some(live) if managed.is_empty() => {
            let unset = work.unset();
            work.record(&unset, live, managed, BEFORE, writer.now)?
        }
        _ => managed,
    };
    let applied = match work.apply(old, config, managed.clone(), writer, force) {
        Err(ApplyError::Conflicts(conflicts)) if writer.manager == KUBECTL => {
            let foreign = work.foreign(old, conflicts);
            if !foreign.0.is_empty() {
                return Err(ApplyError::Conflicts(foreign));
            }
            work.apply(old, config, managed, writer, true)?
        }
        applied => applied?,
    };
    let (mut object, managed) = applied;
    if writer.manager == KUBECTL {
        renew_last_applied(&mut object, config);
    }
    set_managed_fields(&mut object, managed.to_json());
    Ok(object)
}

/// Records what a write other than apply changed between `old`, none on create, and `new`: the object with its managedFields, and
/// what kept it from recording, if anything did; then those of before stay.
///
/// What `new` says of managedFields counts: an empty list forgets all owners, a valid one replaces them, anything else is passed
/// over; through a subresource, nothing of it does.
pub fn update(
    scope: &Scope<'_>,
    old: Option<&Value>,
    mut new: Value,
    writer: Writer<'_>,
) -> (Value, Option<ApplyError>) {
    let work = Work::of(scope);
    let recorded = old.and_then(managed_fields);
    let kept = || Managed::parse(recorded).unwrap_or_default();
    let given = managed_fields(&new);
    let managed = if !scope.subresource.is_empty() {
        kept()
    } else if managers::is_reset(given) {
        Managed::default()
    } else {
        match Managed::parse(given) {
            Ok(given) if !given.is_empty() => given,
            _ => kept(),
        }
    };
    set_managed_fields(&mut new, None);
    // Owners are known from the start or not at all, until the first apply.
    if managed.is_empty() && old.is_some() {
        return (new, None);
    }
    if managed.is_empty()
        && let Ok(fields) = work.created(&new)
    {
        let list = fields.map(|fields| Managed::first(writer, &work.version, fields));
        set_managed_fields(&mut new, list);
        return (new, None);
    }
    let before = old.map_or_else(|| Cow::Owned(work.unset()), Cow::Borrowed);
    let record = work
        .check_live(&before)
        .and_then(|()| work.check_live(&new))
        .and_then(|()| work.record(&before, &new, managed, writer.manager, writer.now));
    match record {
        Ok(managed) => {
            set_managed_fields(&mut new, managed.to_json());
            (new, None)
        }
        Err(error) => {
            set_managed_fields(&mut new, recorded.cloned());
            (new, Some(error))
        }
    }
}

/// Puts the managedFields of `old` back into an object that differs from it in their times alone, so that nothing is written.
pub fn keep_times(old: &Value, new: &mut Value) {
    let untimed = |object: &Value| {
        let mut list = managed_fields(object).cloned();
        for entry in list.iter_mut().filter_map(Value::as_array_mut).flatten() {
            put(entry, "time", None);
        }
        list
    };
    let rest = |map: Option<&Value>, but: &'static str| {
        let map = map.and_then(Value::as_object).into_iter().flatten();
        map.filter(|(name, _)| *name != but)
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect::<Map<String, Value>>()
    };
    let metadata = |object: &Value| rest(object.get("metadata"), "managedFields");
    let differs = untimed(old) != untimed(new)
        || metadata(old) != metadata(new)
        || rest(Some(old), "metadata") != rest(Some(new), "metadata");
    if !differs {
        set_managed_fields(new, managed_fields(old).cloned());
    }
}

fn managed_fields(object: &Value) -> Option<&Value> {
    object.pointer("/metadata/managedFields")
}

fn set_managed_fields(object: &mut Value, list: Option<Value>) {
    match object.get_mut("metadata") {
        Some(metadata @ Value::Object(_)) => put(metadata, "managedFields", list),
        _ if list.is_some() => put(object, "metadata", Some(json!({ "managedFields": list }))),
        _ => {}
    }
}

/// Kind and version as Go prints them.
fn go_gvk(object: &Value) -> String {
    let version = text(object, "/apiVersion");
    let (group, version) = match version.matches('/').count() {
        0 | 1 => split_api_version(version),
        _ => return "/, Kind=".to_owned(),
    };
    format!("{group}/{version}, Kind={}", text(object, "/kind"))
}

/// What `kubectl apply` last said from the client's side, if it did.
fn last_applied(object: &Value) -> Option<&str> {
    let annotations = object.pointer("/metadata/annotations")?;
    let said = annotations.get(LAST_APPLIED)?.as_str()?;
    (!said.is_empty()).then_some(said)
}

/// Keeps the annotation of client-side apply right, so that a user can go back to it; one that is too large is dropped.
fn renew_last_applied(object: &mut Value, config: &Value) {
    if last_applied(object).is_none() {
        return;
    }
    let mut said = config.clone();
    if let Some(annotations) = said.pointer_mut("/metadata/annotations") {
        put(annotations, LAST_APPLIED, None);
    }
    let said = format!("{}\n", element::go_json(&said));
    if let Some(Value::Object(annotations)) = object.pointer_mut("/metadata/annotations") {
        annotations.insert(LAST_APPLIED.to_owned(), said.into());
        let size =
            |(name, value): (&String, &Value)| name.len() + value.as_str().map_or(0, str::len);
        if annotations.iter().map(size).sum::<usize>() > ANNOTATIONS_MAX {
            annotations.remove(LAST_APPLIED);
        }
    }
}

/// An object in one of the versions of its kind.
struct Typed<'v, 'a> {
    value: Cow<'v, Value>,
    of: Type<'a>,
}

impl Typed<'_, '_> {
    /// The fields, with the structs on the way to them.
    fn fields(&self) -> Set {
        with_structs(&typed::fields(&self.value, self.of), Some(self.of))
    }

    fn named(&self, set: &Set) -> Set {
        with_structs(set, Some(self.of))
    }

    fn without(&self, set: &Set) -> Value {
        remove(&self.value, set, self.of).unwrap_or_else(|| Value::Object(Map::new()))
    }
}

/// What one version of an object tells of a change.
struct Change {
    removed: Set,
    /// What is there now and was not, or was otherwise.
    set: Set,
}

/// A write on its way.
struct Work<'s, 'a> {
    scope: &'s Scope<'a>,
    version: String,
    of: Type<'a>,
}

impl<'s, 'a> Work<'s, 'a> {
    fn of(scope: &'s Scope<'a>) -> Self {
        Self {
            scope,
            version: scope.gvk.api_version(),
            of: Type::object(scope.schema),
        }
    }

    /// An object of the kind that says nothing.
    fn unsaid(&self) -> Value {
        json!({ "apiVersion": self.version, "kind": self.scope.gvk.kind })
    }

    /// The same as Kubernetes' Go types hold it: with the structs that are always there, which nobody is told to have added.
    fn unset(&self) -> Value {
        let unsaid = self.unsaid();
        match self.scope.schema {
            Some(schema) if schema.is_typed() => {
                decode::value(self.scope.gvk, &unsaid).map_or(unsaid, |decoded| decoded.value)
            }
            _ => unsaid,
        }
    }

    fn check(&self, object: &Value, duplicates: bool) -> Result<(), (String, Faults)> {
        check(object, self.of, duplicates).map_err(|faults| {
            let namespace = text(object, "/metadata/namespace");
            let name = text(object, "/metadata/name");
            (format!("{namespace}/{name}; {}", go_gvk(object)), faults)
        })
    }

    /// Objects that are stored may name an element twice: apply was not there when they were made.
    fn check_live(&self, object: &Value) -> Result<(), ApplyError> {
        self.check(object, true)
            .map_err(|(about, faults)| ApplyError::UnfitLive { about, faults })
    }

    /// The object in a version; none where the kind has no such version.
    fn at<'v>(
        &self,
        value: Cow<'v, Value>,
        version: &str,
    ) -> Result<Option<Typed<'v, 'a>>, ApplyError> {
        let stated = value.get("apiVersion").and_then(Value::as_str);
        if version == self.version && stated.is_none_or(|stated| stated == version) {
            return Ok(Some(Typed { value, of: self.of }));
        }
        let fault = |fault: String| ApplyError::Conversion {
            version: version.to_owned(),
            fault,
        };
        let Some(converted) = (self.scope.convert)(&value, version).map_err(fault)? else {
            return Ok(None);
        };
        let of = Type::object(converted.schema);
        check(&converted.value, of, true).map_err(|faults| fault(faults.to_string()))?;
        Ok(Some(Typed {
            value: Cow::Owned(converted.value),
            of,
        }))
    }

    /// The owners by the schemas of today, without those whose version is gone.
    fn reconcile(&self, live: &Value, managed: Managed) -> Result<Managed, ApplyError> {
        let mut types: BTreeMap<String, Option<Type<'a>>> = BTreeMap::new();
        let mut kept = Managed::default();
        for (manager, mut entry) in managed.entries {
            let of = match types.get(&entry.api_version) {
                Some(of) => *of,
                None => {
                    let typed = self.at(Cow::Borrowed(live), &entry.api_version)?;
                    let of = typed.map(|typed| typed.of);
                    types.insert(entry.api_version.clone(), of);
                    of
                }
            };
            if let Some(of) = of {
                entry.fields = reconciled(&entry.fields, of);
                kept.entries.insert(manager, entry);
            }
        }
        Ok(kept)
    }

    /// The change as one version of the object tells it.
    fn change(
        &self,
        old: &Value,
        new: &Value,
        version: &str,
    ) -> Result<Option<Change>, ApplyError> {
        let old = self.at(Cow::Borrowed(old), version)?;
        let new = self.at(Cow::Borrowed(new), version)?;
        let (Some(old), Some(new)) = (old, new) else {
            return Ok(None);
        };
        let Comparison {
            removed,
            modified,
            added,
        } = Comparison::of(&old.value, &new.value, new.of);
        let writable = self.scope.writable;
        let comparison = Comparison {
            removed: writable.of(removed),
            modified: writable.of(modified),
            added: writable.of(added),
        };
        let (set, removed) = comparison.into_set_and_removed();
        Ok(Some(Change { removed, set }))
    }

    /// Takes from all managers but one what changed, and gives what is set now.
    ///
    /// # Errors
    /// [`ApplyError::Conflicts`] when somebody would lose what is there still, unless forced.
    fn settle(
        &self,
        old: &Value,
        new: &Value,
        managed: &mut Managed,
        but: Option<&Manager>,
        force: bool,
    ) -> Result<Set, ApplyError> {
        let mut changes: BTreeMap<String, Option<Change>> = BTreeMap::new();
        let own = self.change(old, new, &self.version)?;
        changes.insert(self.version.clone(), own);
        let mut conflicts = Conflicts::default();
        for (manager, entry) in &mut managed.entries {
            if Some(manager) == but {
                continue;
            }
            if !changes.contains_key(&entry.api_version) {
                let change = self.change(old, new, &entry.api_version)?;
                changes.insert(entry.api_version.clone(), change);
            }
            let Some(Some(change)) = changes.get(&entry.api_version) else {
                entry.fields = Set::default();
                continue;
            };
            let lost = entry.fields.intersection(&change.set);
            let lose = |path| Conflict {
                manager: manager.clone(),
                path,
            };
            conflicts.0.extend(lost.paths().into_iter().map(lose));
            entry.fields.subtract(&lost);
            entry.fields.subtract(&change.removed);
        }
        if !force && !conflicts.0.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
        managed.drop_empty();
        let own = changes.remove(&self.version).flatten();
        Ok(own.map(|own| own.set).unwrap_or_default())
    }

    /// What who makes an object owns of it, as [`Work::record`] tells it of one that nobody owns anything of.
    fn created(&self, new: &Value) -> Result<Option<Value>, Unsure> {
        let is_own = text(new, "/apiVersion") == self.version;
        if !is_own || !self.scope.subresource.is_empty() {
            return Err(Unsure);
        }
        let blank = decode::blank(self.scope.schema).unwrap_or(&Value::Null);
        created::fields(blank, new, self.of, self.scope.writable)
    }

    /// The owners after a write that is no apply.
    fn record(
        &self,
        old: &Value,
        new: &Value,
        managed: Managed,
        manager: &str,
        now: Timestamp,
    ) -> Result<Managed, ApplyError> {
        let mut managed = self.reconcile(old, managed)?;
        let set = managers::stripped(self.settle(old, new, &mut managed, None, true)?);
        if !set.is_empty() {
            let subresource = self.scope.subresource;
            let manager = Manager::new(manager, Operation::Update, &self.version, subresource);
            managed.give(manager, &self.version, set, now);
        }
        managed.cap();
        Ok(managed)
    }

    /// The object after an apply, and its owners.
    fn apply(
        &self,
        live: &Value,
        config: &Value,
        managed: Managed,
        writer: Writer<'_>,
        force: bool,
    ) -> Result<(Value, Managed), ApplyError> {
        let subresource = self.scope.subresource;
        let me = Manager::new(writer.manager, Operation::Apply, &self.version, subresource);
        let mut managed = self.reconcile(live, managed)?;
        let mut object = merge::merge(live, config, self.of).unwrap_or_else(|| live.clone());
        let last = managed.entries.remove(&me);
        let entry = Entry {
            api_version: self.version.clone(),
            fields: self.scope.writable.of(typed::fields(config, self.of)),
            time: last.as_ref().and_then(|last| last.time),
        };
        managed.entries.insert(me.clone(), entry);
        if let Some(last) = last.filter(|last| !last.fields.is_empty()) {
            object = self.prune(object, &managed, &last)?;
        }
        self.settle(live, &object, &mut managed, Some(&me), force)?;
        if !element::same(live, &object)
            && let Some(entry) = managed.entries.get_mut(&me)
        {
            entry.time = Some(writer.now);
        }
        managed.strip(&me);
        Ok((object, managed))
    }

    /// Removes what the manager applied `last` time, applies no more, and nobody else owns.
    ///
    /// A struct, and an element of a list, goes when nobody owns it itself, whatever is in it. What was removed with it and was
    /// never the manager's comes back, so that nothing is lost that he did not ask for.
    fn prune(&self, merged: Value, managed: &Managed, last: &Entry) -> Result<Value, ApplyError> {
        let Some(at_last) = self.at(Cow::Borrowed(&merged), &last.api_version)? else {
            return Ok(merged);
        };
        let mut pruned = at_last.without(&at_last.named(&last.fields));

        let mut owned: BTreeMap<&str, Set> = BTreeMap::new();
        for (_, entry) in managed.entries() {
            owned
                .entry(&entry.api_version)
                .or_default()
                .extend(&entry.fields);
        }
        // The version of the last time first: it is the one in which something was removed.
        let first = owned.remove_entry(last.api_version.as_str());
        for (version, owned) in first.into_iter().chain(owned) {
            let whole = self.at(Cow::Borrowed(&*at_last.value), version)?;
            let rest = self.at(Cow::Owned(pruned.clone()), version)?;
            if let (Some(whole), Some(rest)) = (whole, rest) {
                let mut kept = rest.fields();
                kept.extend(&whole.named(&owned));
                pruned = whole.without(&whole.fields().difference(&kept));
            }
        }

        let Some(rest) = self.at(Cow::Owned(pruned), &last.api_version)? else {
            return Ok(merged);
        };
        let gone = at_last.fields().difference(&rest.fields());
        let gone = gone.intersection(&at_last.named(&last.fields));
        let pruned = at_last.without(&gone);
        Ok(match self.at(Cow::Owned(pruned), &self.version)? {
            Some(pruned) => pruned.value.into_owned(),
            None => merged,
        })
    }

    /// The conflicts that client-side apply does not explain. What it said last and what is still so was the same user's.
    fn foreign(&self, live: &Value, mut conflicts: Conflicts) -> Conflicts {
        if let Some(own) = self.last_applied_fields(live) {
            conflicts.0.retain(|conflict| !own.has(&conflict.path.0));
        }
        conflicts
    }

    fn last_applied_fields(&self, live: &Value) -> Option<Set> {
        let said: Value = serde_json::from_str(last_applied(live)?).ok()?;
        let fits = |object: &Value| check(object, self.of, false).is_ok();
        if text(&said, "/apiVersion") != self.version || !fits(&said) || !fits(live) {
            return None;
        }
        let change = Comparison::of(&said, live, self.of);
        let (set, removed) = change.into_set_and_removed();
        let mut fields = typed::fields(&said, self.of);
        fields.subtract(&set);
        fields.subtract(&removed);
        Some(fields)
    }
}
