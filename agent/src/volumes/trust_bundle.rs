//! `clusterTrustBundle` sources of projected volumes: the certificates of the bundles that are named, or of those of one signer, each once.
//! Pure.
//!
//! Invariants: a file has nothing but PEM blocks of certificates, in one order for one set of bundles.
//!
//! Source: kubernetes `pkg/kubelet/clustertrustbundle`, 1.37.

use crate::configuration::Configuration;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::ClusterTrustBundleProjection;
use std::collections::{BTreeMap, BTreeSet};
use weft_api::selector::LabelSelector;

/// Letters of a line of PEM.
const LINE_LETTERS: usize = 64;

/// What the file of `source` says.
///
/// # Errors
/// A sentence when nothing is found and that is not allowed.
pub(super) fn text(
    source: &ClusterTrustBundleProjection,
    configuration: &Configuration,
) -> Result<String, String> {
    let optional = source.optional == Some(true);
    let all = configuration.trust_bundles.iter();
    let found: Vec<&ClusterTrustBundle> = match (&source.name, &source.signer_name) {
        (Some(name), _) => {
            let named = |bundle: &&ClusterTrustBundle| bundle.metadata.name.as_ref() == Some(name);
            let found: Vec<_> = all.filter(named).collect();
            if found.is_empty() && !optional {
                return Err(format!(
                    "while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io \"{name}\" not found"
                ));
            }
            found
        }
        (None, Some(signer)) => {
            let found: Vec<_> = match selector(source)? {
                None => Vec::new(),
                Some(selector) => {
                    let nothing = BTreeMap::new();
                    all.filter(|bundle| bundle.spec.signer_name.as_ref() == Some(signer))
                        .filter(|bundle| {
                            selector.matches(bundle.metadata.labels.as_ref().unwrap_or(&nothing))
                        })
                        .collect()
                }
            };
            if found.is_empty() && !optional {
                return Err(
                    "combination of signerName and labelSelector matched zero ClusterTrustBundles"
                        .to_owned(),
                );
            }
            found
        }
        (None, None) => {
            return Err(
                "ClusterTrustBundle projection requires either name or signerName to be set"
                    .to_owned(),
            );
        }
    };
    let blocks = found
        .iter()
        .flat_map(|bundle| blocks(&bundle.spec.trust_bundle));
    let each: BTreeSet<Vec<u8>> = blocks.collect();
    Ok(each.iter().map(|der| pem(der)).collect())
}

/// Which bundles of a signer; none where it is not said.
fn selector(source: &ClusterTrustBundleProjection) -> Result<Option<LabelSelector>, String> {
    let Some(selector) = &source.label_selector else {
        return Ok(None);
    };
    let failed = |error: &dyn std::fmt::Display| format!("while parsing label selector: {error}");
    let value = serde_json::to_value(selector).map_err(|error| failed(&error))?;
    let read = LabelSelector::from_object(&value).map_err(|error| failed(&error))?;
    Ok(Some(read))
}

/// The certificates of a bundle.
fn blocks(bundle: &str) -> impl Iterator<Item = Vec<u8>> {
    x509_parser::pem::Pem::iter_from_buffer(bundle.as_bytes())
        .flatten()
        .map(|block| block.contents)
}

/// A certificate as PEM, without headers.
pub(super) fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(LINE_LETTERS));
        pem += line;
        pem.push('\n');
        rest = more;
    }
    pem + "-----END CERTIFICATE-----\n"
}

/// A chain without what is between its certificates, and their headers.
pub(super) fn clean(chain: &str) -> String {
    blocks(chain).map(|der| pem(&der)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn bundle(name: &str, signer: Option<&str>, labels: Value, ders: &[&[u8]]) -> Value {
        let text: String = ders
            .iter()
            .map(|der| format!("# said before\n{}", pem(der)))
            .collect();
        json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"signerName": signer, "trustBundle": text},
        })
    }

    #[test]
    fn bundles_are_found_by_name_or_signer_and_each_certificate_is_there_once() {
        let all = [
            bundle("a", None, json!({}), &[b"one"]),
            bundle(
                "x:s:b",
                Some("x/s"),
                json!({"alive": "yes"}),
                &[b"two", b"one"],
            ),
            bundle(
                "x:s:c",
                Some("x/s"),
                json!({"alive": "no"}),
                &[b"one", b"three"],
            ),
            bundle("y:s:d", Some("y/s"), json!({"alive": "yes"}), &[b"four"]),
        ];
        let bundles = all.into_iter().map(serde_json::from_value);
        let configuration = Configuration {
            trust_bundles: bundles.collect::<Result<_, _>>().expect("bundles"),
            ..Configuration::default()
        };
        let of = |source: Value| {
            let source = serde_json::from_value(source).expect("a source");
            match text(&source, &configuration) {
                Err(why) => why,
                Ok(text) => {
                    assert_eq!(text, clean(&text), "nothing but certificates");
                    let found: Vec<String> = blocks(&text)
                        .map(|der| String::from_utf8_lossy(&der).into_owned())
                        .collect();
                    found.join(" ")
                }
            }
        };
        let none = "combination of signerName and labelSelector matched zero ClusterTrustBundles";
        for (source, expected) in [
            (json!({"path": "p", "name": "a"}), "one"),
            (
                json!({"path": "p", "signerName": "x/s", "labelSelector": {}}),
                "one three two",
            ),
            (
                json!({"path": "p", "signerName": "x/s", "labelSelector": {"matchLabels": {"alive": "yes"}}}),
                "one two",
            ),
            (json!({"path": "p", "signerName": "x/s"}), none),
            (
                json!({"path": "p", "signerName": "x/s", "optional": true}),
                "",
            ),
            (
                json!({"path": "p", "signerName": "z", "labelSelector": {}}),
                none,
            ),
            (json!({"path": "p", "name": "n", "optional": true}), ""),
            (
                json!({"path": "p", "name": "n"}),
                "while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io \"n\" not found",
            ),
        ] {
            assert_eq!(of(source.clone()), expected, "{source}");
        }
    }
}
