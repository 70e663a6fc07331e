//! Certificates of authorities, for pods to verify others by: each its own trust anchor, none twice.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use serde_json::Value;
use weft_api::name;
use weft_api::status::StatusError;

use super::{GROUP, may_act_for, pem, signer_name, x509};
use crate::columns::{Column, Row};
use crate::field::Field;
use crate::kind::{NameRule, Selectable};
use crate::lens::{member, put, text};
use crate::strategy::{Strategy, Surroundings};
use crate::validate::Problems;
use crate::{Kind, Subresource};

pub static CLUSTER_TRUST_BUNDLE: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        namespaced: false,
        columns: vec![
            Column::name(),
            Column::text("SignerName", signer, "Whose certificates these verify."),
        ],
        selectable: vec![Selectable::new("spec.signerName", "/spec/signerName")],
        // The rule depends on the signer.
        name_rule: NameRule::PathSegment,
        strategy: Arc::new(TrustBundles),
        ..Kind::new(GROUP, "v1", "ClusterTrustBundle", "clustertrustbundles")
    })
});

const BUNDLE_BYTES_MAX: usize = 1 << 20;

struct TrustBundles;

impl Strategy for TrustBundles {
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn judge(
        &self,
        new: &Value,
        old: Option<&Value>,
        _: Option<Subresource>,
        around: &dyn Surroundings,
    ) -> Result<(), StatusError> {
        let signer = text(new, "/spec/signerName");
        let same = |old: &Value| without_administration(old) == without_administration(new);
        if signer.is_empty() || old.is_some_and(same) || may_act_for(signer, "attest", around) {
            return Ok(());
        }
        let detail = format!("user not permitted to attest for signerName {signer:?}");
        let name = text(new, "/metadata/name");
        let resource = &CLUSTER_TRUST_BUNDLE.resource;
        Err(StatusError::forbidden(resource, GROUP, name, &detail))
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        named(new, problems);
        anchors(&Field::root(new).child("spec.trustBundle"), problems);
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        _: Option<Subresource>,
        problems: &mut Problems,
    ) {
        named(new, problems);
        let (root, before) = (Field::root(new), Field::root(old));
        let bundle = root.child("spec.trustBundle");
        if bundle.text() != before.child("spec.trustBundle").text() {
            anchors(&bundle, problems);
        }
        problems.immutable_text(
            &root.child("spec.signerName"),
            &before.child("spec.signerName"),
        );
    }
}

/// What is left of an object without what collects garbage, and who owns its fields.
fn without_administration(object: &Value) -> Value {
    let mut rest = object.clone();
    let metadata = member(&mut rest, "metadata");
    for field in [
        "ownerReferences",
        "finalizers",
        "managedFields",
        "resourceVersion",
    ] {
        put(metadata, field, None);
    }
    rest
}

/// The signer that a name is said to be of.
pub(crate) fn signer_of(name: &str) -> Option<String> {
    name.rsplit_once(':')
        .map(|(signer, _)| signer.replace(':', "/"))
}

/// What is wrong with the name of a bundle of a signer; an empty signer is none.
pub(crate) fn name_faults(signer: &str, text: &str) -> Vec<String> {
    if signer.is_empty() {
        return match text.contains(':') {
            true => {
                vec![
                    "ClusterTrustBundle without signer name must not have \":\" in its name"
                        .to_owned(),
                ]
            }
            false => name::dns1123_subdomain_faults(text),
        };
    }
    let prefix = format!("{}:", signer.replace('/', ":"));
    match text.strip_prefix(&prefix) {
        Some(rest) => name::dns1123_subdomain_faults(rest),
        None => vec![format!(
            "ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}"
        )],
    }
}

fn named(bundle: &Value, problems: &mut Problems) {
    let root = Field::root(bundle);
    let signer = root.child("spec.signerName");
    let generated = root.child("metadata.generateName");
    if !generated.text().is_empty() {
        // What follows a hyphen at its end is yet to come.
        let whole = match generated.text().strip_suffix('-') {
            Some(cut) => format!("{cut}a"),
            None => generated.text().to_owned(),
        };
        problems.rule(&generated, |_| name_faults(signer.text(), &whole));
    }
    let own_name = root.child("metadata.name");
    if !own_name.text().is_empty() {
        problems.rule(&own_name, |text| name_faults(signer.text(), text));
    }
    if !signer.text().is_empty() {
        signer_name(&signer, problems);
    }
}

/// Certificates of authorities and nothing else, each once.
fn anchors(bundle: &Field<'_, '_>, problems: &mut Problems) {
    const OMITTED: &str = "<value omitted>";
    if bundle.text().len() > BUNDLE_BYTES_MAX {
        return problems.too_long(bundle, BUNDLE_BYTES_MAX);
    }
    let before = problems.count();
    let mut places: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
    let mut rest = bundle.text();
    let mut index = 0;
    while let Some((block, after)) = pem::next(rest) {
        rest = after;
        let label = block.label;
        let fault = match x509::certificate(&block.bytes) {
            _ if label != "CERTIFICATE" => Some(format!("has bad block type: {label}")),
            _ if block.has_headers => Some("has PEM block headers".to_owned()),
            None => Some("does not parse as X.509".to_owned()),
            Some(found) if !found.is_authority => Some("does not have the CA bit set".to_owned()),
            Some(_) => None,
        };
        match fault {
            Some(fault) => problems.invalid(bundle, OMITTED, &format!("entry {index} {fault}")),
            None => places.entry(block.bytes).or_default().push(index),
        }
        index += 1;
    }
    if problems.count() > before {
        return;
    }
    if places.is_empty() {
        problems.invalid(
            bundle,
            OMITTED,
            "at least one trust anchor must be provided",
        );
    }
    let mut twice: Vec<&Vec<usize>> = places.values().filter(|places| places.len() > 1).collect();
    twice.sort();
    for places in twice {
        let places: Vec<String> = places.iter().map(ToString::to_string).collect();
        let sentence = format!("duplicate trust anchor (indices [{}])", places.join(" "));
        problems.invalid(bundle, OMITTED, &sentence);
    }
}

fn signer(row: &Row<'_>) -> Value {
    row.text_or("/spec/signerName", "<none>")
}
