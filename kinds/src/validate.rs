//! The rules that objects of every kind keep, and how faults are gathered, in the words of Kubernetes.
//!
//! Pure: the defaulted object and, on update, the stored one; out come causes, each with its field. All
//! problems are reported at once, in the order of the fields. Shapes and types are the schema's business, so a wrong type is
//! treated as absent here. The rules of one kind are in its file.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde_json::Value;
use weft_api::meta::{FOREGROUND_DELETION, ORPHAN_DEPENDENTS};
use weft_api::name;
use weft_api::status::{Cause, StatusError};

use crate::Subresource;
use crate::address::canonical_address_faults;
use crate::decode;
use crate::field::Field;
use crate::furniture::is_of_api;
use crate::kind::{Kind, NameRule};
use crate::lens::text;

/// Annotations of one object, keys and values together.
const ANNOTATION_BYTES_MAX: usize = 256 << 10;
const PORTS: RangeInclusive<i64> = 1..=65535;

/// Causes gathered so far.
#[derive(Debug, Default)]
pub struct Problems {
    causes: Vec<Cause>,
}

impl Problems {
    pub fn add(&mut self, cause: Cause) {
        self.causes.push(cause);
    }

    pub(crate) fn required(&mut self, field: &Field<'_, '_>, detail: &str) {
        self.add(Cause::required(&field.to_string(), detail));
    }

    /// `value` is what messages show: mostly the field's own, or its zero.
    pub(crate) fn invalid(&mut self, field: &Field<'_, '_>, value: impl Into<Value>, detail: &str) {
        self.add(Cause::invalid(&field.to_string(), &value.into(), detail));
    }

    /// Where Kubernetes leaves out the value.
    pub(crate) fn invalid_unshown(&mut self, field: &Field<'_, '_>, detail: &str) {
        self.tell(
            field,
            "FieldValueInvalid",
            format!("Invalid value: {detail}"),
        );
    }

    /// Where Kubernetes shows the value as Go has it, with names and an order of its own.
    pub(crate) fn invalid_in_go(&mut self, field: &Field<'_, '_>, shown: &str, detail: &str) {
        let message = format!("Invalid value: {shown}: {detail}");
        self.tell(field, "FieldValueInvalid", message);
    }

    /// In words that no other fault has.
    pub(crate) fn tell(&mut self, field: &Field<'_, '_>, reason: &str, message: String) {
        self.add(Cause {
            reason: reason.to_owned(),
            message,
            field: field.to_string(),
        });
    }

    /// At a path that no field has.
    pub(crate) fn invalid_at(&mut self, path: &str, value: impl Into<Value>, detail: &str) {
        self.add(Cause::invalid(path, &value.into(), detail));
    }

    /// As [`Problems::invalid_at`], for what may not be there.
    pub(crate) fn forbidden_at(&mut self, path: &str, detail: &str) {
        self.add(Cause::forbidden(path, detail));
    }

    /// What may not be there, where nothing more is said.
    pub(crate) fn forbidden_plainly(&mut self, field: &Field<'_, '_>) {
        let mut cause = Cause::forbidden(&field.to_string(), "");
        "Forbidden".clone_into(&mut cause.message);
        self.add(cause);
    }

    /// How many there are so far.
    pub(crate) fn count(&self) -> usize {
        self.causes.len()
    }

    pub(crate) fn forbidden(&mut self, field: &Field<'_, '_>, detail: &str) {
        self.add(Cause::forbidden(&field.to_string(), detail));
    }

    pub(crate) fn duplicate(&mut self, field: &Field<'_, '_>, value: impl Into<Value>) {
        self.add(Cause::duplicate(&field.to_string(), &value.into()));
    }

    pub(crate) fn duplicate_because(
        &mut self,
        field: &Field<'_, '_>,
        value: impl Into<Value>,
        detail: &str,
    ) {
        let mut cause = Cause::duplicate(&field.to_string(), &value.into());
        cause.message = format!("{}: {detail}", cause.message);
        self.add(cause);
    }

    pub(crate) fn not_found(&mut self, field: &Field<'_, '_>, value: &str) {
        self.add(Cause::not_found(&field.to_string(), &value.into()));
    }

    pub(crate) fn too_long(&mut self, field: &Field<'_, '_>, bytes_max: usize) {
        self.add(Cause::too_long(&field.to_string(), bytes_max));
    }

    pub(crate) fn too_many(&mut self, field: &Field<'_, '_>, found: usize, max: usize) {
        self.add(Cause {
            reason: "FieldValueTooMany".to_owned(),
            message: format!("Too many: {found}: must have at most {max} items"),
            field: field.to_string(),
        });
    }

    /// A text that must keep a rule of `weft_api::name`.
    pub(crate) fn rule(&mut self, field: &Field<'_, '_>, rule: impl FnOnce(&str) -> Vec<String>) {
        for sentence in rule(field.text()) {
            self.invalid(field, field.text(), &sentence);
        }
    }

    /// A text that must be there, and keep a rule.
    pub(crate) fn required_rule(
        &mut self,
        field: &Field<'_, '_>,
        rule: impl FnOnce(&str) -> Vec<String>,
    ) {
        if field.text().is_empty() {
            self.required(field, "");
        } else {
            self.rule(field, rule);
        }
    }

    /// A text that must be there.
    pub(crate) fn required_text(&mut self, field: &Field<'_, '_>) {
        if field.text().is_empty() {
            self.required(field, "");
        }
    }

    /// A text that is one segment of a path, if it is there.
    pub(crate) fn path_segment(&mut self, field: &Field<'_, '_>) {
        self.rule(field, path_segment_faults);
    }

    /// A text that must be there, and be one segment of a path.
    pub(crate) fn required_path_segment(&mut self, field: &Field<'_, '_>) {
        self.required_rule(field, path_segment_faults);
    }

    /// `example.com/path`.
    pub(crate) fn domain_prefixed_path(&mut self, field: &Field<'_, '_>) {
        const OTHERS: &[u8] = b"/-._~%!$&'()*+,;=:";
        let text = field.text();
        if text.is_empty() {
            return self.required(field, "");
        }
        let parts = text.split_once('/');
        let Some((domain, path)) =
            parts.filter(|(domain, path)| !domain.is_empty() && !path.is_empty())
        else {
            let sentence = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            return self.invalid(field, text, sentence);
        };
        for fault in name::dns1123_subdomain_faults(domain) {
            self.invalid(field, domain, &fault);
        }
        let mut bytes = path.bytes();
        if !bytes.all(|byte| byte.is_ascii_alphanumeric() || OTHERS.contains(&byte)) {
            let sentence =
                "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
            self.invalid(field, path, sentence);
        }
    }

    /// An amount that may be none.
    pub(crate) fn basic_size(&mut self, field: &Field<'_, '_>) {
        if let Some(size) = field.quantity().filter(|size| size.is_negative()) {
            let shown = i64::try_from(size.value()).unwrap_or(i64::MIN);
            self.invalid(field, shown, "must be a valid resource quantity");
        }
    }

    /// An amount that is more than none.
    pub(crate) fn positive_size(&mut self, field: &Field<'_, '_>) {
        self.basic_size(field);
        let Some(size) = field.quantity() else {
            return;
        };
        if size.is_negative() || size.is_zero() {
            self.invalid(field, size.to_string(), "must be greater than zero");
        }
    }

    pub(crate) fn not_supported(
        &mut self,
        field: &Field<'_, '_>,
        value: impl Into<Value>,
        supported: &[&str],
    ) {
        let path = field.to_string();
        self.add(Cause::not_supported(&path, &value.into(), supported));
    }

    /// One of the texts of a list, if there is any.
    pub(crate) fn one_of(&mut self, field: &Field<'_, '_>, supported: &[&str]) {
        if field.is_set() {
            self.one_of_as(field, field.text(), supported);
        }
    }

    /// As [`Problems::one_of`], for a text that is told of at another field than its own.
    pub(crate) fn one_of_as(&mut self, field: &Field<'_, '_>, value: &str, supported: &[&str]) {
        if !supported.contains(&value) {
            self.not_supported(field, value, supported);
        }
    }

    /// One of the texts of a list; an empty one is missing.
    pub(crate) fn required_one_of(&mut self, field: &Field<'_, '_>, supported: &[&str]) {
        if field.text().is_empty() {
            self.required(field, "");
        } else {
            self.one_of(field, supported);
        }
    }

    pub(crate) fn not_negative(&mut self, field: &Field<'_, '_>) {
        if let Some(value) = field.integer().filter(|value| *value < 0) {
            self.invalid(field, value, "must be greater than or equal to 0");
        }
    }

    pub(crate) fn positive(&mut self, field: &Field<'_, '_>) {
        let value = field.integer().unwrap_or(0);
        if value <= 0 {
            self.invalid(field, value, "must be greater than 0");
        }
    }

    /// A number that must lie in a range; an absent one counts as 0.
    pub(crate) fn in_range(&mut self, field: &Field<'_, '_>, range: RangeInclusive<i64>) {
        let value = field.integer().unwrap_or(0);
        if !range.contains(&value) {
            let sentence = format!(
                "must be between {} and {}, inclusive",
                range.start(),
                range.end()
            );
            self.invalid(field, value, &sentence);
        }
    }

    pub(crate) fn port(&mut self, field: &Field<'_, '_>) {
        self.in_range(field, PORTS);
    }

    /// A port by number, or by a name that a container gives one.
    pub(crate) fn port_or_name(&mut self, field: &Field<'_, '_>) {
        match field.value() {
            Some(Value::String(_)) => self.rule(field, name::port_name_faults),
            _ => self.port(field),
        }
    }

    pub(crate) fn ip_address(&mut self, field: &Field<'_, '_>) {
        if field.text().parse::<IpAddr>().is_err() {
            self.invalid(
                field,
                field.text(),
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            );
        }
    }

    /// An address that can be another machine's. A server of the API may be on this one.
    pub(crate) fn ordinary_address(&mut self, field: &Field<'_, '_>, address: IpAddr) {
        let sentence = if address.is_unspecified() {
            format!("may not be unspecified ({address})")
        } else if address.is_loopback() && !field.object().is_some_and(is_of_api) {
            "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()
        } else if is_link_local(address) {
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()
        } else if is_link_local_multicast(address) {
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned()
        } else {
            return;
        };
        self.invalid(field, field.text(), &sentence);
    }

    /// An address and the length of its prefix.
    pub(crate) fn address_range(&mut self, field: &Field<'_, '_>) {
        self.address_range_as(field, field.text());
    }

    /// As [`Problems::address_range`], for a text that is not the field's own.
    pub(crate) fn address_range_as(&mut self, field: &Field<'_, '_>, text: &str) {
        if text.parse::<IpNet>().is_err() {
            let sentence = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            self.invalid(field, text, sentence);
        }
    }

    /// A field that may not change once set.
    pub(crate) fn immutable(&mut self, field: &Field<'_, '_>, old: &Field<'_, '_>) {
        if field.value() != old.value() {
            self.invalid(field, field.shown(), "field is immutable");
        }
    }

    /// As [`Problems::immutable`], for a text that is empty where it is absent.
    pub(crate) fn immutable_text(&mut self, field: &Field<'_, '_>, old: &Field<'_, '_>) {
        if field.text() != old.text() {
            self.invalid(field, field.text(), "field is immutable");
        }
    }

    /// As [`Problems::immutable`], where Kubernetes judges by declaration and shows no value.
    pub(crate) fn declared_immutable(&mut self, field: &Field<'_, '_>, old: &Field<'_, '_>) {
        if field.value() != old.value() {
            self.invalid(field, Value::Null, "field is immutable");
        }
    }

    /// # Errors
    /// 422 Invalid when there is any cause.
    pub fn into_result(self, kind: &Kind, name: &str) -> Result<(), StatusError> {
        if self.causes.is_empty() {
            return Ok(());
        }
        Err(StatusError::invalid(
            &kind.kind,
            &kind.group,
            name,
            self.causes,
        ))
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn is_link_local_multicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets().starts_with(&[224, 0, 0]),
        IpAddr::V6(address) => address.segments()[0] & 0xff0f == 0xff02,
    }
}

/// Hosts of which the first label is a star.
pub(crate) fn wildcard_faults(text: &str) -> Vec<String> {
    const SENTENCE: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    const BYTES_MAX: usize = 253;
    let long =
        (text.len() > BYTES_MAX).then(|| format!("must be no more than {BYTES_MAX} characters"));
    let labels = text.strip_prefix("*.").unwrap_or("");
    let sound = !labels.is_empty()
        && labels.split('.').all(|label| {
            let of_the_alphabet = label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
            let edges = !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
            of_the_alphabet && edges
        });
    let unsound = (!sound).then(|| SENTENCE.to_owned());
    long.into_iter().chain(unsound).collect()
}

/// Names of HTTP headers, as probes send them.
pub(crate) fn http_header_name_faults(text: &str) -> Vec<String> {
    let sound = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let sentence = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
    (!sound).then(|| sentence.to_owned()).into_iter().collect()
}

/// Everything that must hold of a new object: metadata, then the kind's own rules; those of the spelling that it came in, for a
/// kind that has several. The object is as it is stored.
///
/// # Errors
/// 422 Invalid with every cause.
pub fn created(kind: &Kind, new: &Value) -> Result<(), StatusError> {
    all_of_new(kind, new).into_result(as_stored(kind), text(new, "/metadata/name"))
}

/// The kind that messages and schemas are of, which is the stored one.
fn as_stored(kind: &Kind) -> &Kind {
    kind.spelling
        .as_ref()
        .map_or(kind, |spelling| &*spelling.of)
}

fn all_of_new(kind: &Kind, new: &Value) -> Problems {
    let mut problems = Problems::default();
    let root = Field::root(new);
    name(kind, &root, &mut problems);
    metadata(&root, &mut problems);
    finalizers(kind, &root, &mut problems);
    decode::violations(as_stored(kind), new, None, &mut problems.causes);
    if !leaves_rules_unchecked(&problems) {
        kind.strategy.validate(new, &mut problems);
    }
    problems
}

/// Whether an object breaks its schema so that nothing can be said of the rules across its fields.
fn leaves_rules_unchecked(problems: &Problems) -> bool {
    problems.causes.iter().any(|cause| cause.field == "<nil>")
}

/// The validator of custom kinds looks at the status alone, and names what it finds from there.
fn name_from_status(causes: &mut [Cause]) {
    for cause in causes {
        if cause.field == "<nil>" && cause.message.starts_with("Invalid value: \"\": ") {
            cause.field = "status".to_owned();
            let told = cause.message.replace("\"status.", "\"");
            cause.message = told.replace(" in status.", " in ");
        } else if let Some(below) = cause.field.strip_prefix("status") {
            let (long, short) = (&cause.field, below.trim_start_matches('.'));
            let named = format!("{short} in body ");
            cause.message = cause.message.replace(&format!("{long} in body "), &named);
        }
    }
}

/// Everything that must hold of an object that takes the place of `old`, after a write of `part`.
///
/// A fault that `old` has by the same rule is not held against it: a rule that came with a release must not keep objects of
/// before from being changed, finalized or deleted. Of users' kinds, what stays as it was is forgiven (`crate::decode::violations`).
///
/// # Errors
/// 422 Invalid with every cause.
pub fn updated(
    kind: &Kind,
    new: &Value,
    old: &Value,
    part: Option<Subresource>,
) -> Result<(), StatusError> {
    let judge = |new: &Value| {
        let mut problems = Problems::default();
        let root = Field::root(new);
        deletion(&root, old, &mut problems);
        metadata(&root, &mut problems);
        finalizers(kind, &root, &mut problems);
        decode::violations(as_stored(kind), new, Some(old), &mut problems.causes);
        if part == Some(Subresource::Status) {
            name_from_status(&mut problems.causes);
        }
        if !leaves_rules_unchecked(&problems) {
            kind.strategy.validate_update(new, old, part, &mut problems);
        }
        problems
    };
    let mut problems = judge(new);
    // Of users' kinds, their schemas alone say what is forgiven.
    if !problems.causes.is_empty() && kind.custom.is_none() {
        let before = judge(old).causes;
        problems.causes.retain(|cause| !before.contains(cause));
    }
    problems.into_result(as_stored(kind), text(new, "/metadata/name"))
}

fn name(kind: &Kind, root: &Field<'_, '_>, problems: &mut Problems) {
    let rule = match kind.name_rule {
        NameRule::Subdomain => name::dns1123_subdomain_faults,
        NameRule::Label => name::dns1123_label_faults,
        NameRule::PathSegment => path_segment_faults,
        NameRule::Address => canonical_address_faults,
    };
    let prefix = root.child("metadata.generateName");
    if !prefix.text().is_empty() {
        // What follows a hyphen at its end is yet to come.
        let whole = match prefix.text().strip_suffix('-') {
            Some(cut) if !cut.is_empty() => format!("{cut}a"),
            _ => prefix.text().to_owned(),
        };
        for fault in rule(&whole) {
            problems.invalid(&prefix, prefix.text(), &fault);
        }
    }
    let own_name = root.child("metadata.name");
    if own_name.text().is_empty() {
        problems.required(&own_name, "name or generateName is required");
    } else {
        problems.rule(&own_name, rule);
    }
}

fn path_segment_faults(text: &str) -> Vec<String> {
    name::path_segment(text).err().into_iter().collect()
}

/// What is wrong with the metadata of an object inside of another.
pub(crate) fn metadata_causes(value: &Value) -> Vec<Cause> {
    let mut problems = Problems::default();
    metadata(&Field::root(value), &mut problems);
    problems.causes
}

fn metadata(root: &Field<'_, '_>, problems: &mut Problems) {
    labels(&root.child("metadata.labels"), problems);
    annotations(&root.child("metadata.annotations"), problems);
    owners(root, problems);
}

/// When an object goes is for its deletion to say.
fn deletion(root: &Field<'_, '_>, old: &Value, problems: &mut Problems) {
    let old = Field::root(old);
    for field in [
        "metadata.deletionTimestamp",
        "metadata.deletionGracePeriodSeconds",
    ] {
        problems.immutable(&root.child(field), &old.child(field));
    }
}

pub(crate) fn annotations(annotations: &Field<'_, '_>, problems: &mut Problems) {
    let mut bytes = 0;
    for (key, value) in annotations.map().into_iter().flatten() {
        for fault in name::qualified_name_faults(&key.to_lowercase()) {
            problems.invalid(annotations, key.as_str(), &fault);
        }
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATION_BYTES_MAX {
        problems.too_long(annotations, ANNOTATION_BYTES_MAX);
    }
}

/// What a pod says to a signer: as annotations, each under a domain.
pub(crate) fn user_annotations(annotations: &Field<'_, '_>, problems: &mut Problems) {
    let mut bytes = 0;
    for (key, value) in annotations.map().into_iter().flatten() {
        bytes += key.len() + value.as_str().map_or(0, str::len);
        let key = key.to_lowercase();
        let faults = name::qualified_name_faults(&key);
        if key.is_empty() {
            problems.required(annotations, "");
        } else if faults.is_empty() && !key.contains('/') {
            let sentence = "must be a domain-prefixed key (such as \"acme.io/foo\")";
            problems.invalid(annotations, key.as_str(), sentence);
        }
        for fault in faults.iter().filter(|_| !key.is_empty()) {
            problems.invalid(annotations, key.as_str(), fault);
        }
    }
    if bytes > ANNOTATION_BYTES_MAX {
        problems.too_long(annotations, ANNOTATION_BYTES_MAX);
    }
}

fn owners(root: &Field<'_, '_>, problems: &mut Problems) {
    const LIST: &str = "metadata.ownerReferences";
    let mut controller: Option<String> = None;
    for owner in root.items(LIST) {
        let version = owner.child("apiVersion");
        if version.text().is_empty() {
            problems.required(&version, "must not be empty");
        } else if version.text().matches('/').count() > 1 || version.text().ends_with('/') {
            let sentence = "must be <group>/<version> or <version>";
            problems.invalid(&version, version.text(), sentence);
        }
        for names in ["kind", "name", "uid"] {
            let member = owner.child(names);
            if member.text().is_empty() {
                problems.required(&member, "must not be empty");
            }
        }
        if (version.text(), owner.child("kind").text()) == ("v1", "Event") {
            let sentence = "/v1, Kind=Event is disallowed from being an owner";
            problems.invalid(&owner, owner.shown(), sentence);
        }
        if owner.child("controller").flag() {
            let found = format!(
                "{}/{}",
                owner.child("kind").text(),
                owner.child("name").text()
            );
            match &controller {
                None => controller = Some(found),
                Some(first) => {
                    let all = root.child(LIST);
                    let sentence = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {found}"
                    );
                    problems.invalid(&all, all.shown(), &sentence);
                }
            }
        }
    }
}

/// Finalizers of Kubernetes' own, which have no prefix.
const STANDARD_FINALIZERS: &[&str] = &["kubernetes", FOREGROUND_DELETION, ORPHAN_DEPENDENTS];

/// A name of a finalizer, told of at `field`.
pub(crate) fn finalizer_name(field: &Field<'_, '_>, text: &str, problems: &mut Problems) {
    for fault in name::qualified_name_faults(text) {
        problems.invalid(field, text, &fault);
    }
    standard_finalizer(field, text, problems);
}

fn standard_finalizer(field: &Field<'_, '_>, text: &str, problems: &mut Problems) {
    if !text.contains('/') && !STANDARD_FINALIZERS.contains(&text) {
        let sentence = "name is neither a standard finalizer name nor is it fully qualified";
        problems.invalid(field, text, sentence);
    }
}

fn finalizers(kind: &Kind, root: &Field<'_, '_>, problems: &mut Problems) {
    const LIST: &str = "metadata.finalizers";
    let all = root.child(LIST);
    for finalizer in root.items(LIST) {
        for fault in name::qualified_name_faults(finalizer.text()) {
            problems.invalid(&all, finalizer.text(), &fault);
        }
    }
    let has = |name: &str| all.list().iter().any(|finalizer| finalizer == name);
    if has(FOREGROUND_DELETION) && has(ORPHAN_DEPENDENTS) {
        let sentence =
            format!("finalizer {ORPHAN_DEPENDENTS} and {FOREGROUND_DELETION} cannot be both set");
        problems.invalid(&all, all.shown(), &sentence);
    }
    if kind.strategy.takes_any_finalizer() {
        return;
    }
    for finalizer in root.items(LIST) {
        standard_finalizer(&finalizer, finalizer.text(), problems);
    }
}

pub(crate) fn labels(labels: &Field<'_, '_>, problems: &mut Problems) {
    for (key, value) in labels.map().into_iter().flatten() {
        for fault in name::qualified_name_faults(key) {
            problems.invalid(labels, key.as_str(), &fault);
        }
        let value = value.as_str().unwrap_or("");
        for fault in name::label_value_faults(value) {
            problems.invalid(labels, value, &fault);
        }
    }
}

/// A selector of objects by their labels.
pub(crate) fn label_selector(selector: &Field<'_, '_>, problems: &mut Problems) {
    labels(&selector.child("matchLabels"), problems);
    for expression in selector.items("matchExpressions") {
        let operator = expression.child("operator");
        let values = expression.child("values");
        let empty = values.list().is_empty();
        match operator.text() {
            "In" | "NotIn" if empty => {
                let sentence = "must be specified when `operator` is 'In' or 'NotIn'";
                problems.required(&values, sentence);
            }
            "Exists" | "DoesNotExist" if !empty => {
                let sentence = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                problems.forbidden(&values, sentence);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => problems.invalid(&operator, other, "not a valid selector operator"),
        }
        problems.rule(&expression.child("key"), name::qualified_name_faults);
        for value in expression.items("values") {
            problems.rule(&value, name::label_value_faults);
        }
    }
}

/// How tests judge: each fault as `field: message`, in order.
#[cfg(test)]
pub(crate) mod told {
    use serde_json::Value;

    use super::all_of_new;
    use crate::lens::{member, put};
    use crate::{Kind, Subresource};

    /// What is told, a line for each fault.
    pub fn lines(result: Result<(), weft_api::StatusError>) -> Vec<String> {
        let details = result.err().and_then(|error| error.details);
        let causes = details.map(|details| details.causes).unwrap_or_default();
        causes
            .into_iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect()
    }

    /// Of a new object, after its defaults.
    pub fn of_new(kind: &Kind, new: &Value) -> Vec<String> {
        let mut new = new.clone();
        kind.strategy.default(&mut new);
        kind.strategy.settle(&mut new, None);
        lines(all_of_new(kind, &new).into_result(kind, "x"))
    }

    /// Of an update to `new`, after its defaults.
    pub fn of_update(
        kind: &Kind,
        new: &Value,
        old: &Value,
        part: Option<Subresource>,
    ) -> Vec<String> {
        let (mut new, mut old) = (new.clone(), old.clone());
        kind.strategy.default(&mut old);
        kind.strategy.settle(&mut old, None);
        new = kind.strategy.prepare_for_update(kind, part, new, &old);
        kind.strategy.default(&mut new);
        kind.strategy.settle(&mut new, Some(&old));
        lines(super::updated(kind, &new, &old, part))
    }

    /// `base` with the value at a pointer replaced, or taken away for null; members on the way are made.
    pub fn with(base: &Value, pointer: &str, value: Value) -> Value {
        let mut whole = base.clone();
        let mut place = &mut whole;
        let steps: Vec<&str> = pointer.split('/').skip(1).collect();
        for (index, step) in steps.iter().enumerate() {
            let last = index + 1 == steps.len();
            if place.is_array() {
                let list = place.as_array_mut().unwrap();
                let at: usize = step.parse().unwrap();
                if at == list.len() {
                    list.push(Value::Null);
                }
                place = &mut list[at];
                if last {
                    *place = value.clone();
                }
            } else if last {
                put(place, step, (!value.is_null()).then(|| value.clone()));
            } else if place.get(*step).is_some_and(Value::is_array) {
                place = &mut place[*step];
            } else {
                place = member(place, step);
            }
        }
        whole
    }

    /// Each case: where, what is put there, and all that is told.
    pub fn check(kind: &Kind, base: &Value, cases: &[(&str, Value, &[&str])]) {
        assert_eq!(of_new(kind, base), [""; 0], "the base is sound");
        for (pointer, value, expected) in cases {
            let found = of_new(kind, &with(base, pointer, value.clone()));
            assert_eq!(found, *expected, "{pointer} = {value}");
        }
    }
}
