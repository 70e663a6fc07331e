//! Kubernetes' own serialisation fixtures, of six releases: every object decodes, and comes back equal in JSON and byte for
//! byte in protobuf. `fixtures/README.md` says what they are and how they are packed.

use std::collections::BTreeMap;

use serde_json::Value;
use weft_kinds::{Registry, decode, protobuf};

type Fixtures = BTreeMap<String, Vec<u8>>;

fn fixtures() -> Fixtures {
    let packed = include_bytes!("fixtures/fixtures.lz4");
    let pack = lz4_flex::block::decompress_size_prepended(packed).expect("the pack is LZ4");
    let end = pack
        .windows(2)
        .position(|pair| pair == b"\n\n")
        .expect("an empty line follows the index");
    let (index, contents) = (&pack[..end], &pack[end + 2..]);
    let index = std::str::from_utf8(index).expect("names are text");
    let fixtures: Fixtures = index
        .lines()
        .map(|line| {
            let mut words = line.split(' ');
            let name = words.next().expect("a name");
            let mut number = || words.next().expect("a number").parse().expect("a number");
            let (offset, length): (usize, usize) = (number(), number());
            (name.to_owned(), contents[offset..offset + length].to_vec())
        })
        .collect();
    assert!(fixtures.len() > 1400, "{}", fixtures.len());
    fixtures
}

/// Names of objects without their endings, with JSON, YAML and protobuf each.
fn objects(fixtures: &Fixtures) -> Vec<&str> {
    let names = fixtures
        .keys()
        .filter_map(|name| name.strip_suffix(".json"));
    let names: Vec<&str> = names.filter(|name| !name.ends_with(".after")).collect();
    assert!(names.len() > 450, "{}", names.len());
    names
}

/// What Kubernetes 1.37 writes after reading the file.
fn after<'a>(fixtures: &'a Fixtures, name: &str, extension: &str) -> &'a [u8] {
    fixtures
        .get(&format!("{name}.after.{extension}"))
        .unwrap_or_else(|| &fixtures[&format!("{name}.{extension}")])
}

fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).expect("a fixture is JSON")
}

/// The first place where two values differ, because whole Pods are too much to read.
fn difference(path: &str, ours: &Value, theirs: &Value) -> Option<String> {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => a.keys().chain(b.keys()).find_map(|key| {
            let (a, b) = (a.get(key), b.get(key));
            match (a, b) {
                (Some(a), Some(b)) => difference(&format!("{path}.{key}"), a, b),
                _ => Some(format!("{path}.{key}: {a:?} for {b:?}")),
            }
        }),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let mut pairs = a.iter().zip(b).enumerate();
            pairs.find_map(|(i, (a, b))| difference(&format!("{path}[{i}]"), a, b))
        }
        _ if ours == theirs => None,
        _ => Some(format!("{path}: {ours} for {theirs}")),
    }
}

#[test]
fn protobuf_is_read_as_the_json_that_go_writes() {
    let fixtures = fixtures();
    let mut wrong = Vec::new();
    for name in objects(&fixtures) {
        let decoded = protobuf::decode(&fixtures[&format!("{name}.pb")]);
        let decoded = decoded.unwrap_or_else(|error| panic!("{name}: {error}"));
        // The fixture's own bytes may lack what newer releases add; what is read of those is in its JSON.
        let theirs = json(after(&fixtures, name, "json"));
        let found = difference("", &decoded.value, &theirs);
        wrong.extend(found.map(|difference| format!("{name} {difference}")));
        if name.starts_with("1.37/") && !decoded.unknown.is_empty() {
            wrong.push(format!("{name} does not know {:?}", decoded.unknown));
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn json_and_protobuf_are_written_as_go_writes_protobuf() {
    let fixtures = fixtures();
    let mut wrong = Vec::new();
    for name in objects(&fixtures) {
        let theirs = after(&fixtures, name, "pb");
        let read = protobuf::decode(&fixtures[&format!("{name}.pb")])
            .unwrap()
            .value;
        for (from, value) in [
            ("protobuf", read),
            ("JSON", json(&fixtures[&format!("{name}.json")])),
        ] {
            let ours = protobuf::encode(&value).unwrap_or_else(|error| panic!("{name}: {error}"));
            if ours != theirs {
                let place = ours.iter().zip(theirs).position(|(a, b)| a != b);
                wrong.push(format!("{name} from {from} differs at byte {place:?}"));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn what_is_sent_as_json_is_kept_as_go_would_write_it() {
    let fixtures = fixtures();
    let mut wrong = Vec::new();
    let mut count = 0;
    for kind in Registry::builtin().stored() {
        for name in objects(&fixtures) {
            let value = json(&fixtures[&format!("{name}.json")]);
            let is_of_kind =
                value["apiVersion"] == *kind.api_version() && value["kind"] == *kind.kind;
            if !is_of_kind {
                continue;
            }
            count += 1;
            let decoded = decode::value(&kind.gvk(), &value);
            let decoded = decoded.unwrap_or_else(|error| panic!("{name}: {error}"));
            let theirs = json(after(&fixtures, name, "json"));
            let found = difference("", &decoded.value, &theirs);
            wrong.extend(found.map(|difference| format!("{name} {difference}")));
        }
    }
    assert!(count >= 6 * 13, "{count}");
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn yaml_says_what_json_says() {
    let fixtures = fixtures();
    for name in objects(&fixtures) {
        let yaml = std::str::from_utf8(&fixtures[&format!("{name}.yaml")]).unwrap();
        let yaml: Value =
            serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{name}: {error}"));
        let theirs = json(&fixtures[&format!("{name}.json")]);
        assert_eq!(difference("", &yaml, &theirs), None, "{name}");
    }
}

#[test]
fn every_kind_of_kubernetes_that_is_served_has_its_fixtures() {
    let fixtures = fixtures();
    for kind in Registry::builtin().stored() {
        if kind.group == "weft.dev" {
            assert!(
                !protobuf::has_form(&kind.api_version(), &kind.kind),
                "our own kinds have none"
            );
            continue;
        }
        let group = match &*kind.group {
            "" => "core",
            group => group,
        };
        let name = format!("1.37/{group}.{}.{}.pb", kind.version, kind.kind);
        assert!(fixtures.contains_key(&name), "{name}");
    }
}

#[test]
fn groups_that_came_late_are_there_as_well() {
    let fixtures = fixtures();
    for name in [
        "admissionregistration.k8s.io.v1.ValidatingAdmissionPolicy",
        "apiextensions.k8s.io.v1.CustomResourceDefinition",
        "apiregistration.k8s.io.v1.APIService",
        "autoscaling.v2.HorizontalPodAutoscaler",
        "batch.v1.CronJob",
        "flowcontrol.apiserver.k8s.io.v1.FlowSchema",
        "node.k8s.io.v1.RuntimeClass",
        "policy.v1.Eviction",
        "resource.k8s.io.v1.ResourceClaim",
        "storage.k8s.io.v1.CSIDriver",
    ] {
        assert!(fixtures.contains_key(&format!("1.37/{name}.pb")), "{name}");
    }
}

#[test]
fn a_list_is_written_item_by_item() {
    let fixtures = fixtures();
    let pods: Vec<Value> = ["1.36", "1.37"]
        .map(|release| json(&fixtures[&format!("{release}/core.v1.Pod.json")]))
        .to_vec();
    let list = serde_json::json!({
        "apiVersion": "v1", "kind": "PodList",
        "metadata": {"resourceVersion": "7", "continue": "next", "remainingItemCount": 3},
        "items": pods,
    });
    let encoder = protobuf::ListEncoder::new("v1", "PodList").unwrap();
    let items: Vec<_> = pods.iter().map(|pod| encoder.item(pod).unwrap()).collect();
    let items = items.concat();
    let (before, behind) = encoder.around(&list, items.len()).unwrap();
    let written = [before, items, behind].concat();
    assert_eq!(written, protobuf::encode(&list).unwrap());
    let read = protobuf::decode(&written).unwrap().value;
    assert_eq!(read["metadata"], list["metadata"]);
    assert_eq!(read["items"][1]["spec"], pods[1]["spec"]);
    assert!(protobuf::ListEncoder::new("v1", "Pod").is_err());
}

#[test]
fn a_frame_of_a_watch_has_its_length_and_the_object_in_its_envelope() {
    let object =
        serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}});
    let frame = protobuf::encode_watch_frame("ADDED", &object).unwrap();
    let (length, event) = frame.split_at(4);
    assert_eq!(
        u32::from_be_bytes(length.try_into().unwrap()) as usize,
        event.len()
    );
    assert!(event.starts_with(b"\x0a\x05ADDED\x12"));
    assert!(event.ends_with(&protobuf::encode(&object).unwrap()));
    assert!(protobuf::encode_watch_frame("ADDED", &serde_json::json!({"kind": "Thing"})).is_err());
}
