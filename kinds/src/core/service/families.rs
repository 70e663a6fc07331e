//! Which families of addresses a Service has: what it asks for, as far as this cluster, which has IPv4 alone, has it.
//!
//! A Service without addresses and without a selector may have both: whoever writes its endpoints knows what they are.
//!
//! Source: Kubernetes 1.37 `pkg/registry/core/service/storage/alloc.go`, `initIPFamilyFields`.

use std::net::IpAddr;

use serde_json::{Value, json};
use weft_api::status::{Cause, StatusError};

use crate::lens::{items, member, object, put, text};

/// The family that addresses are given out in.
const OWN: &str = "IPv4";
const OTHER: &str = "IPv6";

/// Fills in families and their policy.
///
/// # Errors
/// 422 for families that this cluster does not have, and for those that the policy does not go with.
pub(super) fn settle(new: &mut Value, old: Option<&Value>) -> Result<(), StatusError> {
    if text(new, "/spec/type") == "ExternalName" || old.is_some_and(|old| prefers_both(new, old)) {
        return Ok(());
    }
    let free = text(new, "/spec/clusterIP") == "None"
        && object(new, "/spec/selector").is_none_or(serde_json::Map::is_empty);
    let policy = match (policy(new), old.map_or("", policy)) {
        ("", "") if free => "RequireDualStack",
        ("", "") => "SingleStack",
        ("", kept) => kept,
        (asked, _) => asked,
    }
    .to_owned();
    let single = policy == "SingleStack";
    let mut addresses = texts(new, "clusterIPs");
    let mut families = texts(new, "ipFamilies");
    let mut causes = Vec::new();
    let of_policy =
        |sentence: &str| Cause::invalid("spec.ipFamilyPolicy", &json!(policy), sentence);
    if let Some(old) = old {
        let (kept_addresses, kept_families) = (texts(old, "clusterIPs"), texts(old, "ipFamilies"));
        if single {
            // What is as it was follows the policy.
            if addresses == kept_addresses {
                addresses.truncate(1);
            }
            if families == kept_families {
                families.truncate(1);
            }
        } else {
            if (1..kept_addresses.len()).contains(&addresses.len()) {
                let sentence = "must be 'SingleStack' to release the secondary cluster IP";
                causes.push(of_policy(sentence));
            }
            if (1..kept_families.len()).contains(&families.len()) {
                let sentence = "must be 'SingleStack' to release the secondary IP family";
                causes.push(of_policy(sentence));
            }
        }
    }
    if single {
        for (count, what) in [
            (addresses.len(), "cluster IPs"),
            (families.len(), "IP families"),
        ] {
            if count == 2 {
                causes.push(of_policy(&format!(
                    "must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
                )));
            }
        }
    }
    let headless = addresses.first().is_some_and(|address| address == "None");
    for (index, address) in addresses.iter().enumerate().filter(|_| !headless) {
        let parsed = address.parse::<IpAddr>();
        match parsed {
            Ok(parsed) if index >= families.len() && parsed.is_ipv4() => {
                families.push(OWN.to_owned());
            }
            Ok(_) if index >= families.len() => {
                let field = format!("spec.clusterIPs[{index}]");
                let sentence = format!("{OTHER} is not configured on this cluster");
                causes.push(Cause::invalid(&field, &json!(addresses), &sentence));
            }
            _ => {}
        }
    }
    refused(new, &mut causes)?;
    if free {
        if families.is_empty() {
            families.push(OWN.to_owned());
        }
        if families.len() == 1 && !single {
            let other = if families[0] == OWN { OTHER } else { OWN };
            families.push(other.to_owned());
        }
    } else {
        if policy == "RequireDualStack" {
            let sentence = "this cluster is not configured for dual-stack services";
            causes.push(of_policy(sentence));
        }
        for (index, family) in families.iter().enumerate().filter(|(_, name)| *name != OWN) {
            let field = format!("spec.ipFamilies[{index}]");
            let sentence = "not configured on this cluster";
            causes.push(Cause::invalid(&field, &json!(family), sentence));
        }
        refused(new, &mut causes)?;
        if families.is_empty() {
            families.push(OWN.to_owned());
        }
    }
    let spec = member(new, "spec");
    if !addresses.is_empty() {
        put(spec, "clusterIPs", Some(json!(addresses)));
    }
    put(spec, "ipFamilies", Some(json!(families)));
    put(spec, "ipFamilyPolicy", Some(json!(policy)));
    Ok(())
}

fn policy(service: &Value) -> &str {
    text(service, "/spec/ipFamilyPolicy")
}

fn texts(service: &Value, field: &str) -> Vec<String> {
    items(service, &format!("/spec/{field}"))
        .iter()
        .filter_map(|value| Some(value.as_str()?.to_owned()))
        .collect()
}

/// Whether both prefer two families and have the same ones: a cluster that gets a second family changes no Service by itself.
fn prefers_both(new: &Value, old: &Value) -> bool {
    let same = |field: &str| texts(new, field) == texts(old, field);
    text(new, "/spec/type") == text(old, "/spec/type")
        && policy(new) == "PreferDualStack"
        && matches!(policy(old), "" | "PreferDualStack")
        && same("clusterIPs")
        && same("ipFamilies")
}

fn refused(service: &Value, causes: &mut Vec<Cause>) -> Result<(), StatusError> {
    match causes.is_empty() {
        true => Ok(()),
        false => Err(StatusError::invalid(
            "Service",
            "",
            text(service, "/metadata/name"),
            std::mem::take(causes),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(spec: Value, old: Option<Value>) -> Result<(Value, Value), String> {
        let service = |spec| json!({"metadata": {"name": "s"}, "spec": spec});
        let (mut new, old) = (service(spec), old.map(service));
        settle(&mut new, old.as_ref()).map_err(|error| error.message)?;
        let field = |name: &str| new["spec"].get(name).cloned().unwrap_or_default();
        Ok((field("ipFamilies"), field("ipFamilyPolicy")))
    }

    #[test]
    fn a_service_without_addresses_and_selector_has_both_families() {
        let both = json!(["IPv4", "IPv6"]);
        let bare = json!({"clusterIP": "None", "clusterIPs": ["None"]});
        assert_eq!(
            settled(bare.clone(), None),
            Ok((both.clone(), json!("RequireDualStack")))
        );
        let mut asked = bare.clone();
        asked["ipFamilies"] = json!(["IPv6"]);
        assert_eq!(
            settled(asked.clone(), None),
            Ok((json!(["IPv6", "IPv4"]), json!("RequireDualStack")))
        );
        asked["ipFamilyPolicy"] = json!("SingleStack");
        assert_eq!(
            settled(asked, None),
            Ok((json!(["IPv6"]), json!("SingleStack")))
        );
        let mut selecting = bare.clone();
        selecting["selector"] = json!({"a": "b"});
        assert_eq!(
            settled(selecting.clone(), None),
            Ok((json!(["IPv4"]), json!("SingleStack")))
        );
        // Once it selects, the cluster has to have what it asked for.
        let mut old = bare;
        old["ipFamilies"] = both.clone();
        old["ipFamilyPolicy"] = json!("RequireDualStack");
        selecting["ipFamilies"] = both;
        let told = settled(selecting, Some(old)).unwrap_err();
        assert!(told.ends_with("[spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services, spec.ipFamilies[1]: Invalid value: \"IPv6\": not configured on this cluster]"), "{told}");
    }

    #[test]
    fn families_that_the_cluster_does_not_have_are_refused() {
        for (spec, told) in [
            (
                json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1"]}),
                "spec.clusterIPs[0]: Invalid value: [\"fd00::1\"]: IPv6 is not configured on this cluster",
            ),
            (
                json!({"ipFamilies": ["IPv6"]}),
                "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
            ),
            (
                json!({"ipFamilies": ["IPv4", "IPv6"]}),
                "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified",
            ),
        ] {
            let found = settled(spec, None).unwrap_err();
            assert!(found.ends_with(told), "{found}");
        }
        assert_eq!(
            settled(json!({"ipFamilyPolicy": "PreferDualStack"}), None),
            Ok((json!(["IPv4"]), json!("PreferDualStack")))
        );
        assert_eq!(
            settled(json!({"type": "ExternalName"}), None),
            Ok((Value::Null, Value::Null))
        );
    }
}
