//! Requests from manifests: as they are, mutants, patches; the same of what subresources show; applies, deletions, and reads, lists
//! and watches in each encoding. Everything follows from a seed.

use serde_json::{Map, Value, json};

/// How many requests are made from one manifest; small ones have fewer.
#[derive(Clone, Copy)]
pub struct Amounts {
    /// Mutants that are created, and those that objects are replaced by.
    pub mutants: usize,
    pub replacements: usize,
    /// Patches of each type.
    pub patches: usize,
    /// Mutants and patches of a status or a scale.
    pub parts: usize,
    /// Configurations that a second manager applies.
    pub applies: usize,
}

impl Amounts {
    /// For the corpus, whose manifests are few and full.
    pub const FULL: Self = Self {
        mutants: 90,
        replacements: 45,
        patches: 26,
        parts: 30,
        applies: 16,
    };
    /// For many manifests of others.
    pub const FEW: Self = Self {
        mutants: 2,
        replacements: 2,
        patches: 1,
        parts: 1,
        applies: 1,
    };
}

/// Stands for the resourceVersion that the object has where it is sent to.
pub const CURRENT: &str = "CURRENT";

/// One request of the comparison.
pub struct Case {
    /// What is done: `create`, `update`, `apply`, `delete`, `read`, `list` or `watch` in an encoding, or a type of patch; below an object
    /// `status`, `status merge` and so on.
    pub action: &'static str,
    /// `Strict`, `Warn` or `Ignore`.
    pub validation: &'static str,
    /// Which manifest of the corpus it is about.
    pub manifest: usize,
    /// The object, or the patch.
    pub body: Value,
}

/// Creates first, so that no name is taken yet; then what is done to objects that are there.
pub fn cases(manifests: &[Value], statuses: &Map<String, Value>, amounts: Amounts) -> Vec<Case> {
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let mut creates = Vec::new();
    let mut changes = Vec::new();
    for (manifest, object) in manifests.iter().enumerate() {
        let mut create = |validation, body: Value| {
            creates.push(Case {
                action: "create",
                validation,
                manifest,
                body,
            });
        };
        create("Strict", object.clone());
        let mut mutants = mutants(object);
        chance.shuffle(&mut mutants);
        for (index, mutant) in mutants.iter().take(amounts.mutants).enumerate() {
            let mutant = mutant.of(object);
            create("Strict", mutant.clone());
            if index % 3 == 0 {
                create("Ignore", mutant.clone());
            }
            create("Warn", mutant);
        }
        let custom = object["apiVersion"]
            .as_str()
            .is_some_and(|version| version.starts_with("gateway."));
        for index in 0..amounts.patches {
            let validation = VALIDATIONS[index % VALIDATIONS.len()];
            let mut patch = |action, body| {
                changes.push(Case {
                    action,
                    validation,
                    manifest,
                    body,
                });
            };
            patch("json", json_patch(object, &mut chance));
            patch("merge", merge_patch(object, &mut chance, false));
            if !custom {
                patch("strategic", merge_patch(object, &mut chance, true));
            }
        }
    }
    // Later than the rest and with chances of their own, so that what was recorded before stays what it was.
    let mut chance = Chance(0x2545_f491_4f6c_dd1d);
    for (manifest, object) in manifests.iter().enumerate() {
        let mut change = |action, index: usize, body| {
            changes.push(Case {
                action,
                validation: VALIDATIONS[index % VALIDATIONS.len()],
                manifest,
                body,
            });
        };
        replacements(
            object,
            amounts.replacements,
            &mut chance,
            &mut |index, body| {
                change("update", index, body);
            },
        );
        let kind = format!(
            "{} {}",
            object["apiVersion"].as_str().unwrap_or_default(),
            object["kind"].as_str().unwrap_or_default()
        );
        if let Some(status) = statuses.get(&kind) {
            let body = json!({ "status": status });
            let mut changed = object.clone();
            changed["metadata"]["labels"]["by-status"] = json!("x");
            changed["status"] = status.clone();
            change("status", 0, changed.clone());
            changed["metadata"]["resourceVersion"] = json!(CURRENT);
            change("status", 0, changed.clone());
            changed["metadata"]["resourceVersion"] = json!("1");
            change("status", 0, changed);
            let mut mutants = mutants(&body);
            chance.shuffle(&mut mutants);
            for (index, mutant) in mutants.iter().take(amounts.parts).enumerate() {
                let mutant = mutant.of(&body);
                let mut replaced = object.clone();
                replaced["status"] = mutant["status"].clone();
                replaced["metadata"]["resourceVersion"] = json!(CURRENT);
                change("status", index, replaced);
                let whole = json!([{ "op": "add", "path": "/status", "value": mutant["status"] }]);
                change("status json", index, whole);
                let merge = merge_patch(&body, &mut chance, false);
                change("status merge", index, merge);
                let strategic = merge_patch(&body, &mut chance, true);
                change("status strategic", index, strategic);
            }
        }
        if matches!(
            object["kind"].as_str(),
            Some("Deployment" | "ReplicaSet" | "StatefulSet" | "ReplicationController")
        ) {
            let scale = json!({
                "apiVersion": "autoscaling/v1", "kind": "Scale",
                "metadata": { "name": object["metadata"]["name"] },
                "spec": { "replicas": 3 },
            });
            replacements(&scale, amounts.parts, &mut chance, &mut |index, body| {
                change("scale", index, body);
            });
            for index in 0..amounts.parts {
                change("scale json", index, json_patch(&scale, &mut chance));
                let merge = merge_patch(&scale, &mut chance, false);
                change("scale merge", index, merge);
                let strategic = merge_patch(&scale, &mut chance, true);
                change("scale strategic", index, strategic);
            }
        }
    }
    // Later again, for the same reason.
    let mut chance = Chance(0x6a09_e667_f3bc_c908);
    for (manifest, object) in manifests.iter().enumerate() {
        let mut change = |action, index: usize, body| {
            changes.push(Case {
                action,
                validation: VALIDATIONS[index % VALIDATIONS.len()],
                manifest,
                body,
            });
        };
        change("apply", 0, object.clone());
        for index in 0..amounts.applies {
            let action = if index % 3 == 2 {
                "apply force"
            } else {
                "apply"
            };
            change(action, index, applied(object, &mut chance));
        }
        for options in deletions() {
            change("delete", 0, options);
        }
        for encoding in READS {
            change(encoding, 0, Value::Null);
        }
    }
    // Later still.
    for manifest in 0..manifests.len() {
        changes.extend(LISTS.map(|action| Case {
            action,
            validation: VALIDATIONS[0],
            manifest,
            body: Value::Null,
        }));
    }
    creates.append(&mut changes);
    creates
}

/// One object, in each form that clients ask for it.
const READS: [&str; 5] = [
    "read json",
    "read yaml",
    "read protobuf",
    "read table",
    "read metadata",
];

/// A list of the one object, in each form that clients ask for it, and what a watch tells of it.
const LISTS: [&str; 6] = [
    "list json",
    "list yaml",
    "list protobuf",
    "list table",
    "list metadata",
    "watch json",
];

/// What a second manager applies: the whole with a mutation, or a part of it with the name.
fn applied(object: &Value, chance: &mut Chance) -> Value {
    let mut body = match chance.below(3) {
        0 => chance.of(&mutants(object)).of(object),
        _ => merge_patch(object, chance, false),
    };
    if chance.below(8) > 0 && body.is_object() {
        for field in ["apiVersion", "kind"] {
            body[field] = object[field].clone();
        }
        if !body["metadata"].is_object() {
            body["metadata"] = json!({});
        }
        body["metadata"]["name"] = object["metadata"]["name"].clone();
    }
    body
}

/// What may be said with a deletion.
fn deletions() -> Vec<Value> {
    // Where there are options in the body, those of the query count for nothing.
    let options = |more: Value| {
        let mut options = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"] });
        if let (Value::Object(options), Value::Object(more)) = (&mut options, more) {
            options.extend(more);
        }
        options
    };
    vec![
        Value::Null,
        json!({ "dryRun": ["All"] }),
        options(json!({ "propagationPolicy": "Foreground" })),
        options(json!({ "propagationPolicy": "Orphan", "gracePeriodSeconds": 5 })),
        options(json!({ "propagationPolicy": "Sideways" })),
        options(json!({ "propagationPolicy": "Orphan", "orphanDependents": true })),
        options(json!({ "orphanDependents": true })),
        options(json!({ "gracePeriodSeconds": 0 })),
        options(json!({ "gracePeriodSeconds": -1 })),
        options(json!({ "gracePeriodSeconds": "soon" })),
        options(json!({ "dryRun": ["Some"] })),
        options(json!({ "preconditions": { "uid": "00000000-0000-0000-0000-000000000000" } })),
        options(json!({ "preconditions": { "resourceVersion": "1" } })),
        options(json!({ "preconditions": { "resourceVersion": CURRENT } })),
        options(json!({ "unknownField": 1 })),
        json!({ "apiVersion": "v1", "kind": "Pod" }),
        json!([]),
    ]
}

/// In turn; what is most asked in practice twice.
const VALIDATIONS: [&str; 4] = ["Warn", "Strict", "Warn", "Ignore"];

/// What may be sent to take an object's place: it with the versions and identities that a client may believe in, and mutants
/// of it, `many` of them.
fn replacements(
    object: &Value,
    many: usize,
    chance: &mut Chance,
    replace: &mut dyn FnMut(usize, Value),
) {
    let mut with = |field: &str, value: Value| {
        let mut changed = object.clone();
        changed["metadata"][field] = value;
        replace(1, changed);
    };
    with("annotations", json!({ "note": "x" }));
    for version in [
        json!(CURRENT),
        json!("1"),
        json!("x"),
        json!(""),
        json!("0"),
        Value::Null,
    ] {
        with("resourceVersion", version);
    }
    with("uid", json!("00000000-0000-0000-0000-000000000000"));
    with("name", json!("another"));
    with("namespace", json!("another"));
    with("creationTimestamp", json!("2020-01-01T00:00:00Z"));
    with("deletionTimestamp", json!("2020-01-01T00:00:00Z"));
    with("generation", json!(77));
    let mut mutants = mutants(object);
    chance.shuffle(&mut mutants);
    for (index, mutant) in mutants.iter().take(many).enumerate() {
        let mut mutant = mutant.of(object);
        if mutant["metadata"].is_object() {
            mutant["metadata"]["resourceVersion"] = json!(CURRENT);
        }
        replace(index, mutant);
    }
}

/// A small generator of its own, so that the same seed gives the same requests for ever.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound.max(1)
    }

    fn of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }
}

/// A step of a path.
#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Index(usize),
}

type Path = Vec<Step>;

/// The paths of all values but the root, apiVersion and kind.
fn paths(value: &Value) -> Vec<Path> {
    fn walk(value: &Value, here: &mut Path, found: &mut Vec<Path>) {
        let children: Vec<(Step, &Value)> = match value {
            Value::Object(map) => map
                .iter()
                .map(|(key, value)| (Step::Key(key.clone()), value))
                .collect(),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .map(|(index, value)| (Step::Index(index), value))
                .collect(),
            _ => Vec::new(),
        };
        for (step, child) in children {
            let typed = matches!(&step, Step::Key(key) if here.is_empty() && matches!(key.as_str(), "apiVersion" | "kind"));
            here.push(step);
            if !typed {
                found.push(here.clone());
                walk(child, here, found);
            }
            here.pop();
        }
    }
    let mut found = Vec::new();
    walk(value, &mut Vec::new(), &mut found);
    found
}

fn at<'a>(value: &'a Value, path: &[Step]) -> &'a Value {
    path.iter().fold(value, |value, step| match step {
        Step::Key(key) => &value[key.as_str()],
        Step::Index(index) => &value[*index],
    })
}

fn at_mut<'a>(value: &'a mut Value, path: &[Step]) -> &'a mut Value {
    path.iter().fold(value, |value, step| match step {
        Step::Key(key) => &mut value[key.as_str()],
        Step::Index(index) => &mut value[*index],
    })
}

fn remove(value: &mut Value, path: &[Step]) {
    let Some((last, parents)) = path.split_last() else {
        return;
    };
    match (at_mut(value, parents), last) {
        (Value::Object(map), Step::Key(key)) => {
            map.remove(key);
        }
        (Value::Array(items), Step::Index(index)) => {
            items.remove(*index);
        }
        _ => {}
    }
}

/// An object that is one mistake away, before it is made: a definition has tens of thousands of them, each as large as itself.
struct Mutant {
    at: Path,
    mistake: Mistake,
}

enum Mistake {
    Other(Value),
    Member(&'static str, Value),
    FirstTwice,
    Without,
}

impl Mutant {
    fn of(&self, object: &Value) -> Value {
        let mut mutant = object.clone();
        match &self.mistake {
            Mistake::Other(other) => *at_mut(&mut mutant, &self.at) = other.clone(),
            Mistake::Member(name, value) => at_mut(&mut mutant, &self.at)[name] = value.clone(),
            Mistake::FirstTwice => {
                if let Value::Array(items) = at_mut(&mut mutant, &self.at) {
                    items.extend(items.first().cloned());
                }
            }
            Mistake::Without => remove(&mut mutant, &self.at),
        }
        mutant
    }
}

/// Every mistake that an object is away from.
fn mutants(object: &Value) -> Vec<Mutant> {
    let mut found = Vec::new();
    for path in paths(object) {
        let mut with = |mistake| {
            let at = path.clone();
            found.push(Mutant { at, mistake });
        };
        for other in others(at(object, &path)) {
            with(Mistake::Other(other));
        }
        match at(object, &path) {
            Value::Object(_) => {
                with(Mistake::Member("unknownField", json!(1)));
                with(Mistake::Member("Name", json!({ "x": "y" })));
            }
            Value::Array(items) if !items.is_empty() => with(Mistake::FirstTwice),
            _ => {}
        }
        with(Mistake::Without);
    }
    found.push(Mutant {
        at: vec![Step::Key("metadata".to_owned())],
        mistake: Mistake::Member("resourceVersion", json!("12")),
    });
    found.push(Mutant {
        at: Vec::new(),
        mistake: Mistake::Member("unknownField", json!([1])),
    });
    found
}

/// What may stand in a value's place.
fn others(value: &Value) -> Vec<Value> {
    let mut others = vec![Value::Null];
    match value {
        Value::String(_) => others.extend([
            json!(7),
            json!(true),
            json!(""),
            json!("Bad_Value!"),
            json!(["x"]),
        ]),
        Value::Number(_) => others.extend([
            json!("text"),
            json!(-1),
            json!(0),
            json!(2_147_483_648_u64),
            json!(1.5),
            json!(70_000),
        ]),
        Value::Bool(_) => others.extend([json!("true"), json!(1), json!(false)]),
        Value::Array(_) => others.extend([
            json!([]),
            json!({}),
            json!("text"),
            json!([null]),
            json!([7]),
        ]),
        Value::Object(_) => others.extend([json!({}), json!([]), json!("text"), json!(3)]),
        Value::Null => others.extend([json!({}), json!([])]),
    }
    others
}

/// A value for a patch: what a mutant would have, or a sound neighbour of what is there.
fn changed(value: &Value, chance: &mut Chance) -> Value {
    if chance.below(2) == 0 {
        return chance.of(&others(value)).clone();
    }
    match value {
        Value::String(text) => json!(format!("{text}x")),
        Value::Number(number) => json!(number.as_i64().unwrap_or(0) + 1),
        Value::Bool(value) => json!(!value),
        other => other.clone(),
    }
}

fn pointer(path: &[Step]) -> String {
    path.iter()
        .map(|step| match step {
            Step::Key(key) => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
            Step::Index(index) => format!("/{index}"),
        })
        .collect()
}

fn json_patch(object: &Value, chance: &mut Chance) -> Value {
    let paths = paths(object);
    let operations: Vec<Value> = (0..=chance.below(3))
        .map(|_| {
            let path = chance.of(&paths).clone();
            let (text, value) = (pointer(&path), at(object, &path));
            match chance.below(12) {
                0 | 1 => json!({ "op": "remove", "path": text }),
                2 => json!({ "op": "test", "path": text, "value": value }),
                3 => json!({ "op": "test", "path": format!("{text}/none"), "value": null }),
                4 => json!({ "op": "copy", "from": text, "path": pointer(chance.of::<Path>(&paths)) }),
                5 => json!({ "op": "move", "from": text, "path": pointer(chance.of::<Path>(&paths)) }),
                6 => json!({ "op": "add", "path": format!("{text}/unknownField"), "value": "x" }),
                7 => json!({ "op": "add", "path": format!("{text}/-"), "value": changed(value, chance) }),
                8 => json!({ "op": "add", "path": text, "value": changed(value, chance) }),
                _ => json!({ "op": "replace", "path": text, "value": changed(value, chance) }),
            }
        })
        .collect();
    Value::Array(operations)
}

/// Keys that elements of lists are told apart by.
const KEYS: &[&str] = &[
    "name",
    "containerPort",
    "mountPath",
    "port",
    "type",
    "key",
    "ip",
    "uid",
];

fn merge_patch(object: &Value, chance: &mut Chance, strategic: bool) -> Value {
    let paths = paths(object);
    let mut patch = Value::Object(Map::new());
    for _ in 0..=chance.below(2) {
        let mut path = chance.of(&paths).clone();
        if !strategic
            && let Some(list) = path.iter().position(|step| matches!(step, Step::Index(_)))
        {
            // Lists are replaced whole.
            path.truncate(list);
        }
        let value = at(object, &path);
        let leaf = match chance.below(8) {
            0 => json!({ "unknownField": 1 }),
            1 if strategic => directive(value, chance),
            _ => changed(value, chance),
        };
        graft(&mut patch, object, &path, leaf);
    }
    patch
}

/// A value with a directive of strategic merge.
fn directive(value: &Value, chance: &mut Chance) -> Value {
    match value {
        Value::Object(map) => match chance.below(4) {
            0 => json!({ "$patch": "delete" }),
            1 => json!({ "$patch": "replace" }),
            2 => json!({ "$retainKeys": map.keys().take(1).collect::<Vec<_>>() }),
            _ => json!({ "$patch": "replace", "name": "x" }),
        },
        Value::Array(items) => {
            let mut items = items.clone();
            match chance.below(3) {
                0 => items.insert(0, json!({ "$patch": "replace" })),
                1 => items.reverse(),
                _ => {
                    if let Some(first) = items.first_mut().filter(|first| first.is_object()) {
                        first["$patch"] = json!("delete");
                    }
                }
            }
            Value::Array(items)
        }
        other => changed(other, chance),
    }
}

/// Puts a leaf at a path of a patch; elements of lists are named by what tells them apart.
fn graft(patch: &mut Value, object: &Value, path: &[Step], leaf: Value) {
    let Some((first, rest)) = path.split_first() else {
        *patch = leaf;
        return;
    };
    match first {
        Step::Key(key) => {
            if !patch.is_object() {
                *patch = Value::Object(Map::new());
            }
            let child = &object[key.as_str()];
            graft(&mut patch[key.as_str()], child, rest, leaf);
        }
        Step::Index(index) => {
            let element = &object[*index];
            let mut change = leaf;
            if !rest.is_empty() {
                let mut inner = Value::Null;
                graft(&mut inner, element, rest, change);
                change = inner;
            }
            if let (Value::Object(change), Value::Object(element)) = (&mut change, element) {
                for key in KEYS {
                    if let Some(value) = element.get(*key) {
                        change.entry(*key).or_insert_with(|| value.clone());
                        break;
                    }
                }
            }
            *patch = json!([change]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_corpus_gives_the_same_requests() {
        let corpus = vec![
            json!({ "apiVersion": "v1", "kind": "X", "metadata": { "name": "a" }, "spec": { "list": [{ "name": "x", "n": 1 }] } }),
        ];
        let lines = || -> Vec<String> {
            cases(&corpus, &Map::new(), Amounts::FULL)
                .iter()
                .map(|case| {
                    format!(
                        "{} {} {} {}",
                        case.action, case.validation, case.manifest, case.body
                    )
                })
                .collect()
        };
        assert_eq!(lines(), lines());
        assert_eq!(
            lines()
                .iter()
                .filter(|line| line.starts_with("strategic"))
                .count(),
            Amounts::FULL.patches
        );
    }
}
