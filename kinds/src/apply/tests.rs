//! Small histories of one object: who writes what, what becomes of it, and who owns what then.

use serde_json::{Value, json};

use super::*;
use crate::schema::Node;

/// A custom kind with a field of each sort.
pub(super) fn widget_schema() -> Node {
    let text = json!({"type": "string"});
    Node::parse(&json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "replicas": {"type": "integer"},
            "color": text,
            "items": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": text, "value": text}},
            },
            "ports": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
                "items": {"type": "object", "properties": {
                    "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}, "name": text,
                }},
            },
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": text},
            "command": {"type": "array", "items": text},
            "limits": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": text},
            "labels": {"type": "object", "additionalProperties": text},
            "nested": {"type": "object", "properties": {
                "inner": {"type": "object", "properties": {"a": text, "b": text}},
            }},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }},
        "status": {"type": "object", "properties": {"phase": text}},
    }}))
    .unwrap()
}

fn widget(spec: Value) -> Value {
    json!({
        "apiVersion": "example.com/v1", "kind": "Widget",
        "metadata": {"name": "w", "namespace": "default"}, "spec": spec,
    })
}

/// One widget, and a clock that ticks with each write.
struct World {
    schema: Node,
    object: Option<Value>,
    second: i64,
    subresource: &'static str,
}

impl World {
    fn new() -> Self {
        Self {
            schema: widget_schema(),
            object: None,
            second: 0,
            subresource: "",
        }
    }

    /// A world in which somebody applied this first.
    fn of(manager: &str, spec: Value) -> Self {
        let mut world = Self::new();
        world.apply(manager, spec);
        world
    }

    fn write<T>(
        &mut self,
        manager: &str,
        write: impl FnOnce(&Scope<'_>, Option<&Value>, Writer<'_>) -> T,
    ) -> T {
        self.second += 1;
        let writable = match self.subresource {
            "status" => Writable::only_status(),
            _ => Writable::except_status(),
        };
        let scope = Scope {
            gvk: &GroupVersionKind::new("example.com", "v1", "Widget"),
            subresource: self.subresource,
            schema: Some(Schema::at(&self.schema)),
            writable: &writable,
            convert: &one_version,
        };
        let writer = Writer {
            manager,
            now: Timestamp::from_second(self.second).unwrap(),
        };
        write(&scope, self.object.as_ref(), writer)
    }

    fn try_apply(&mut self, manager: &str, config: &Value, force: bool) -> Result<(), ApplyError> {
        let object = self.write(manager, |scope, live, writer| {
            apply(scope, live, config, writer, force)
        })?;
        self.object = Some(object);
        Ok(())
    }

    fn apply(&mut self, manager: &str, spec: Value) {
        self.try_apply(manager, &widget(spec), false).unwrap();
    }

    fn force(&mut self, manager: &str, spec: Value) {
        self.try_apply(manager, &widget(spec), true).unwrap();
    }

    /// What an apply is refused for.
    fn refused(&mut self, manager: &str, spec: Value) -> String {
        let refused = self.try_apply(manager, &widget(spec), false);
        refused.unwrap_err().to_string()
    }

    fn update(&mut self, manager: &str, change: impl FnOnce(&mut Value)) {
        let mut new = self.object.clone().unwrap_or_else(|| widget(json!({})));
        change(&mut new);
        let (new, error) = self.write(manager, |scope, old, writer| {
            update(scope, old, new, writer)
        });
        assert_eq!(error, None);
        self.object = Some(new);
    }

    fn object(&self) -> &Value {
        self.object.as_ref().unwrap()
    }

    fn spec(&self) -> &Value {
        &self.object()["spec"]
    }

    /// `MANAGER OPERATION [SUBRESOURCE]: PATHS`, by name.
    fn owners(&self) -> Vec<String> {
        let managed = Managed::parse(managed_fields(self.object())).unwrap();
        let line = |(manager, entry): (&Manager, &Entry)| {
            let paths = entry.fields.paths().into_iter();
            let paths: Vec<String> = paths.map(|path| path.to_string()).collect();
            let (name, operation) = (&manager.name, manager.operation);
            let through = match manager.subresource.as_str() {
                "" => String::new(),
                subresource => format!(" {subresource}"),
            };
            format!("{name} {operation:?}{through}: {}", paths.join(" "))
        };
        managed.entries().map(line).collect()
    }
}

#[test]
fn each_owns_his_elements_of_a_keyed_list() {
    let mut world = World::of("a", json!({"items": [{"name": "x", "value": "1"}]}));
    world.apply("b", json!({"items": [{"name": "y"}]}));
    assert_eq!(
        world.spec(),
        &json!({"items": [{"name": "x", "value": "1"}, {"name": "y"}]})
    );
    assert_eq!(
        world.owners(),
        [
            r#"a Apply: .spec.items[name="x"] .spec.items[name="x"].name .spec.items[name="x"].value"#,
            r#"b Apply: .spec.items[name="y"] .spec.items[name="y"].name"#,
        ]
    );
    let refused = world.refused("b", json!({"items": [{"name": "x", "value": "2"}]}));
    assert_eq!(
        refused,
        r#"Apply failed with 1 conflict: conflict with "a": .spec.items[name="x"].value"#
    );
    world.apply("a", json!({"replicas": 1}));
    assert_eq!(
        world.spec(),
        &json!({"items": [{"name": "y"}], "replicas": 1})
    );
    assert_eq!(world.owners()[0], "a Apply: .spec.replicas");
}

#[test]
fn an_element_goes_with_its_owner_and_takes_what_others_put_into_it() {
    let mut world = World::of("a", json!({"items": [{"name": "x"}, {"name": "y"}]}));
    world.update("ctl", |object| {
        object["spec"]["items"][0]["value"] = json!("set")
    });
    assert_eq!(
        world.owners()[1],
        r#"ctl Update: .spec.items[name="x"].value"#
    );
    world.apply("a", json!({"items": [{"name": "y"}]}));
    assert_eq!(world.spec(), &json!({"items": [{"name": "y"}]}));
    assert_eq!(world.owners().len(), 1);
}

#[test]
fn keys_have_their_defaults() {
    let mut world = World::of(
        "a",
        json!({"ports": [{"port": 80}, {"port": 80, "protocol": "UDP"}]}),
    );
    assert_eq!(
        world.owners(),
        [
            r#"a Apply: .spec.ports[port=80,protocol="TCP"] .spec.ports[port=80,protocol="UDP"] "#
                .to_owned()
                + r#".spec.ports[port=80,protocol="TCP"].port .spec.ports[port=80,protocol="UDP"].port "#
                + r#".spec.ports[port=80,protocol="UDP"].protocol"#
        ]
    );
    world.object.as_mut().unwrap()["spec"]["ports"][0]["protocol"] = json!("TCP");
    world.apply("b", json!({"ports": [{"port": 80, "name": "http"}]}));
    assert_eq!(
        world.spec()["ports"],
        json!([
            {"port": 80, "protocol": "TCP", "name": "http"},
            {"port": 80, "protocol": "UDP"},
        ])
    );
}

#[test]
fn elements_stand_as_the_last_to_apply_has_them() {
    let cases: [(&[&str], &[&str], &[&str]); 8] = [
        (&["a", "b", "c"], &["c", "a"], &["b", "c", "a"]),
        (&["a", "b"], &["c"], &["a", "b", "c"]),
        (&["a", "b", "c", "d"], &["d", "a"], &["b", "c", "d", "a"]),
        (&["a", "b"], &["b", "x", "a"], &["b", "x", "a"]),
        (&["a", "c"], &["a", "b", "c"], &["a", "b", "c"]),
        (&[], &["b", "a"], &["b", "a"]),
        (&["a", "a"], &["b"], &["a", "a", "b"]),
        (&["a", "a", "b"], &["a"], &["a", "b"]),
    ];
    for (live, config, merged) in cases {
        let mut world = World::new();
        world.object = Some(widget(json!({"tags": live})));
        world.force("m", json!({"tags": config}));
        assert_eq!(world.spec()["tags"], json!(merged), "{live:?} {config:?}");
    }
}

#[test]
fn a_set_keeps_what_another_wants_too() {
    let mut world = World::of("a", json!({"tags": ["x"]}));
    world.apply("b", json!({"tags": ["y", "x"]}));
    assert_eq!(
        world.owners(),
        [
            r#"a Apply: .spec.tags[="x"]"#,
            r#"b Apply: .spec.tags[="x"] .spec.tags[="y"]"#,
        ]
    );
    world.apply("a", json!({"replicas": 1}));
    assert_eq!(world.spec()["tags"], json!(["y", "x"]));
    world.apply("b", json!({"tags": ["y"]}));
    assert_eq!(world.spec()["tags"], json!(["y"]));
}

#[test]
fn a_whole_is_taken_over_by_force_only() {
    for (field, old, new) in [
        ("command", json!(["run", "a"]), json!(["run", "b"])),
        ("limits", json!({"cpu": "1"}), json!({"memory": "2"})),
        ("replicas", json!(1), json!(2)),
    ] {
        let mut world = World::of("a", json!({ field: old }));
        let refused = world.refused("b", json!({ field: new }));
        let told = format!(r#"Apply failed with 1 conflict: conflict with "a": .spec.{field}"#);
        assert_eq!(refused, told);
        assert_eq!(world.spec()[field], old);
        world.force("b", json!({ field: new }));
        assert_eq!(world.spec(), &json!({ field: new }));
        assert_eq!(world.owners(), [format!("b Apply: .spec.{field}")]);
    }
}

#[test]
fn maps_and_structs_are_owned_in_parts() {
    let mut world = World::of(
        "a",
        json!({"labels": {"x": "1"}, "nested": {"inner": {"a": "1"}}}),
    );
    world.apply(
        "b",
        json!({"labels": {"y": "2"}, "nested": {"inner": {"b": "2"}}}),
    );
    assert_eq!(
        world.owners()[0],
        "a Apply: .spec.labels.x .spec.nested.inner.a"
    );
    world.apply("a", json!({"replicas": 1}));
    assert_eq!(
        world.spec(),
        &json!({"labels": {"y": "2"}, "nested": {"inner": {"b": "2"}}, "replicas": 1})
    );
    world.apply("b", json!({"replicas": 1}));
    assert_eq!(world.spec(), &json!({"replicas": 1}));
}

#[test]
fn what_no_schema_tells_is_in_parts_and_lists_are_wholes() {
    let mut world = World::of("a", json!({"free": {"map": {"x": 1}, "list": [1]}}));
    assert_eq!(
        world.owners(),
        ["a Apply: .spec.free.list .spec.free.map .spec.free.map.x"]
    );
    world.apply("b", json!({"free": {"map": {"y": null}}}));
    let refused = world.refused("b", json!({"free": {"list": [2]}}));
    assert_eq!(
        refused,
        r#"Apply failed with 1 conflict: conflict with "a": .spec.free.list"#
    );
    world.apply("a", json!({"free": {"map": {}}}));
    assert_eq!(world.spec(), &json!({"free": {"map": {"y": null}}}));
}

#[test]
fn what_two_want_stays_until_neither_does() {
    let mut world = World::of("a", json!({"replicas": 3}));
    world.apply("b", json!({"replicas": 3}));
    assert_eq!(
        world.owners(),
        ["a Apply: .spec.replicas", "b Apply: .spec.replicas"]
    );
    let refused = world.refused("b", json!({"replicas": 4}));
    assert_eq!(
        refused,
        r#"Apply failed with 1 conflict: conflict with "a": .spec.replicas"#
    );
    world.apply("a", json!({"color": "red"}));
    assert_eq!(world.spec(), &json!({"color": "red", "replicas": 3}));
    world.apply("b", json!({"color": "red"}));
    assert_eq!(world.spec(), &json!({"color": "red"}));
}

#[test]
fn applying_the_same_again_leaves_no_trace() {
    let mut world = World::of(
        "a",
        json!({"replicas": 3, "items": [{"name": "x"}], "nested": {}}),
    );
    let before = world.object().clone();
    world.apply("a", before["spec"].clone());
    assert_eq!(world.object(), &before);
    // Agreeing with what is there makes an owner, whose entry tells no time.
    world.apply("b", json!({"replicas": 3}));
    let b = &world.object()["metadata"]["managedFields"][0];
    assert_eq!((&b["manager"], b.get("time")), (&json!("b"), None));
}

#[test]
fn what_nobody_owns_stays() {
    let mut world = World::of("a", json!({"replicas": 3, "nested": {"inner": {"a": "1"}}}));
    let object = world.object.as_mut().unwrap();
    object["spec"]["color"] = json!("default");
    object["metadata"]["uid"] = json!("1-2-3");
    object["status"] = json!({"phase": "on"});
    world.apply("a", json!({}));
    assert_eq!(world.spec(), &json!({"color": "default"}));
    assert_eq!(world.object()["metadata"]["uid"], json!("1-2-3"));
    assert_eq!(world.object()["status"], json!({"phase": "on"}));
    assert_eq!(world.owners(), ["a Apply: .spec"]);
}

#[test]
fn an_update_takes_what_it_changes() {
    let mut world = World::of("a", json!({"replicas": 3, "color": "red", "tags": ["x"]}));
    world.update("ctl", |object| {
        object["spec"]["replicas"] = json!(5);
        object["spec"]["tags"] = json!(["y"]);
    });
    assert_eq!(
        world.owners(),
        [
            "a Apply: .spec.color",
            r#"ctl Update: .spec.replicas .spec.tags[="y"]"#,
        ]
    );
    let before = world.object().clone();
    world.update("ctl", |_| {});
    assert_eq!(world.object(), &before);
    let error = world.try_apply("a", &widget(json!({"replicas": 3, "color": "blue"})), false);
    let status = error.unwrap_err().into_status();
    assert_eq!((status.code, &*status.reason), (409, "Conflict"));
    assert_eq!(
        status.message,
        r#"Apply failed with 1 conflict: conflict with "ctl" using example.com/v1: .spec.replicas"#
    );
    let causes = &status.details.as_ref().unwrap().causes;
    assert_eq!(
        json!(causes),
        json!([{
            "reason": "FieldManagerConflict",
            "message": r#"conflict with "ctl" using example.com/v1"#,
            "field": ".spec.replicas",
        }])
    );
    world.apply("a", json!({"replicas": 5}));
    assert_eq!(
        world.owners()[..2],
        [
            "a Apply: .spec.replicas",
            r#"ctl Update: .spec.replicas .spec.tags[="y"]"#,
        ]
    );
    assert_eq!(world.spec(), &json!({"replicas": 5, "tags": ["y"]}));
}

#[test]
fn conflicts_are_told_manager_by_manager() {
    let mut world = World::of("a", json!({"labels": {"x": "1"}}));
    world.update("ctl", |object| {
        object["spec"]["replicas"] = json!(5);
        object["spec"]["color"] = json!("red");
    });
    let refused = world.refused(
        "b",
        json!({"replicas": 1, "color": "blue", "labels": {"x": "2"}}),
    );
    let told = "Apply failed with 3 conflicts: conflicts with \"a\":\n- .spec.labels.x\nconflicts with \"ctl\" using \
                example.com/v1:\n- .spec.color\n- .spec.replicas";
    assert_eq!(refused, told);
}

#[test]
fn what_does_not_fit_is_refused() {
    for (spec, told) in [
        (
            json!({"items": [{"name": "x"}, {"name": "x"}]}),
            r#".spec.items: duplicate entries for key [name="x"]"#,
        ),
        (
            json!({"tags": ["x", "x"]}),
            r#".spec.tags: duplicate entries for key [="x"]"#,
        ),
        (
            json!({"ports": [{"port": 80}, {"port": 80, "protocol": "TCP"}]}),
            r#".spec.ports: duplicate entries for key [port=80,protocol="TCP"]"#,
        ),
        (
            json!({"nope": 1}),
            ".spec.nope: field not declared in schema",
        ),
        (
            json!({"items": [{"name": "x", "nope": 1}]}),
            r#".spec.items[name="x"].nope: field not declared in schema"#,
        ),
        (
            json!({"replicas": "3"}),
            ".spec.replicas: expected numeric (int or float), got string",
        ),
        (
            json!({"color": 3}),
            ".spec.color: expected string, got &value.valueUnstructured{Value:3}",
        ),
        (
            json!({"items": {}}),
            ".spec.items: expected list, got &{map[]}",
        ),
        (
            json!({"nested": "x"}),
            ".spec.nested: expected map, got &{x}",
        ),
        (
            json!({"items": [{"value": "1"}]}),
            ".spec.items: element 0: associative list with keys has an element that omits all key fields [\"name\"] (and doesn't \
             have default values for any key fields)",
        ),
        (
            json!({"color": 3, "replicas": "3"}),
            "errors:\n  .spec.color: expected string, got &value.valueUnstructured{Value:3}\n  .spec.replicas: expected numeric (int \
             or float), got string",
        ),
    ] {
        let mut world = World::of("a", json!({}));
        let refused = world.refused("a", spec);
        let about =
            "failed to create typed patch object (default/w; example.com/v1, Kind=Widget): ";
        assert_eq!(refused, format!("{about}{told}"));
    }
    let mut world = World::new();
    let mut other = widget(json!({}));
    other["apiVersion"] = json!("example.com/v2");
    let mut owned = widget(json!({}));
    owned["metadata"]["managedFields"] = json!([]);
    for (config, told) in [
        (other, "invalid object type: example.com/v2, Kind=Widget"),
        (owned, "metadata.managedFields must be nil"),
    ] {
        let error = world
            .try_apply("a", &config, true)
            .unwrap_err()
            .into_status();
        assert_eq!((error.code, error.message.as_str()), (400, told));
    }
}

#[test]
fn each_door_gives_what_can_be_written_through_it() {
    let mut world = World::of("a", json!({"replicas": 1}));
    world.update("ctl", |object| object["status"] = json!({"phase": "off"}));
    assert_eq!(world.owners(), ["a Apply: .spec.replicas"]);
    world.subresource = "status";
    world.update("ctl", |object| {
        object["status"] = json!({"phase": "on"});
        object["spec"]["replicas"] = json!(9);
        object["metadata"]["managedFields"] = json!([]);
    });
    assert_eq!(
        world.owners(),
        [
            "a Apply: .spec.replicas",
            "ctl Update status: .status.phase"
        ]
    );
    let mut config = widget(json!({"replicas": 7}));
    config["status"] = json!({"phase": "off"});
    let refused = world.try_apply("s", &config, false).unwrap_err();
    assert_eq!(
        refused.to_string(),
        r#"Apply failed with 1 conflict: conflict with "ctl" with subresource "status" using example.com/v1: .status.phase"#
    );
    world.try_apply("s", &config, true).unwrap();
    assert_eq!(
        world.owners(),
        ["a Apply: .spec.replicas", "s Apply status: .status.phase"]
    );
}

#[test]
fn owners_can_be_set_and_forgotten_by_an_update() {
    let mut world = World::of("a", json!({"replicas": 1}));
    world.update("b", |object| {
        object["metadata"]["managedFields"] = json!([{"manager": "broken"}]);
        object["spec"]["color"] = json!("red");
    });
    assert_eq!(
        world.owners(),
        ["a Apply: .spec.replicas", "b Update: .spec.color"]
    );
    world.update("b", |object| {
        object["metadata"]["managedFields"][0]["manager"] = json!("other")
    });
    assert_eq!(
        world.owners(),
        ["b Update: .spec.color", "other Apply: .spec.replicas"]
    );
    world.update("b", |object| {
        put(&mut object["metadata"], "managedFields", None)
    });
    assert_eq!(world.owners().len(), 2);
    world.update("b", |object| {
        object["metadata"]["managedFields"] = json!([])
    });
    assert_eq!(managed_fields(world.object()), None);
    // From then on nobody is asked, until somebody applies.
    world.update("b", |object| object["spec"]["color"] = json!("blue"));
    assert_eq!(managed_fields(world.object()), None);
    world.apply("a", json!({"replicas": 1}));
    assert_eq!(
        world.owners(),
        [
            "a Apply: .spec.replicas",
            "before-first-apply Update: .spec .spec.color .spec.replicas",
        ]
    );
    let refused = world.refused("a", json!({"color": "red"}));
    assert_eq!(
        refused,
        r#"Apply failed with 1 conflict: conflict with "before-first-apply" using example.com/v1: .spec.color"#
    );
}

#[test]
fn kubectl_moves_from_its_own_apply_to_the_servers() {
    let client_side = || {
        let mut world = World::new();
        world.update("kubectl-client-side-apply", |object| {
            *object = widget(json!({"replicas": 1}));
            let said = format!("{object}\n");
            object["metadata"]["annotations"] = json!({ LAST_APPLIED: said });
        });
        world
    };
    let conflict = r#"Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using example.com/v1: .spec.replicas"#;
    assert_eq!(
        client_side().refused("flux", json!({"replicas": 2})),
        conflict
    );

    let mut world = client_side();
    world.apply("kubectl", json!({"replicas": 2, "color": "<red>"}));
    assert_eq!(world.spec(), &json!({"replicas": 2, "color": "<red>"}));
    assert_eq!(
        world.owners()[0],
        "kubectl Apply: .spec.color .spec.replicas"
    );
    let said = r#"{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"w","namespace":"default"},"spec":{"color":"\u003cred\u003e","replicas":2}}"#;
    assert_eq!(
        last_applied(world.object()),
        Some(format!("{said}\n").as_str())
    );

    // Somebody else changed it since: that is no longer what kubectl said.
    let mut world = client_side();
    world.update("ctl", |object| object["spec"]["replicas"] = json!(5));
    let refused = world.refused("kubectl", json!({"replicas": 2}));
    assert_eq!(
        refused,
        conflict.replace("kubectl-client-side-apply", "ctl")
    );

    // Without the annotation there is nothing to move.
    let mut world = client_side();
    let object = world.object.as_mut().unwrap();
    put(&mut object["metadata"], "annotations", None);
    assert_eq!(world.refused("kubectl", json!({"replicas": 2})), conflict);
}

#[test]
fn a_whole_is_owned_by_who_owned_a_part_before_the_schema_changed() {
    let mut world = World::of("a", json!({"command": ["run"]}));
    let fields = world.object.as_mut().unwrap();
    let fields = fields.pointer_mut("/metadata/managedFields/0/fieldsV1");
    *fields.unwrap() = json!({"f:spec": {"f:command": {"v:\"run\"": {}}}});
    let refused = world.refused("b", json!({"command": ["stop"]}));
    assert_eq!(
        refused,
        r#"Apply failed with 1 conflict: conflict with "a": .spec.command"#
    );
}

#[test]
fn fields_of_other_versions_are_found_by_conversion() {
    let schema = widget_schema();
    let convert = |value: &Value, version: &str| {
        let mut value = value.clone();
        let (from, to, schema) = match version {
            "example.com/v1" => ("count", "replicas", Some(Schema::at(&schema))),
            "example.com/v2" => ("replicas", "count", None),
            _ => return Ok(None),
        };
        value["apiVersion"] = json!(version);
        if let Some(Value::Object(spec)) = value.get_mut("spec")
            && let Some(count) = spec.remove(from)
        {
            spec.insert(to.to_owned(), count);
        }
        Ok(Some(Converted { value, schema }))
    };
    let scope = Scope {
        gvk: &GroupVersionKind::new("example.com", "v1", "Widget"),
        subresource: "",
        schema: Some(Schema::at(&schema)),
        writable: &Writable::All,
        convert: &convert,
    };
    let mut live = widget(json!({"replicas": 1}));
    let entry = |manager: &str, version: &str, field: &str| {
        json!({
            "manager": manager, "operation": "Apply", "apiVersion": format!("example.com/{version}"), "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {format!("f:{field}"): {}}},
        })
    };
    live["metadata"]["managedFields"] =
        json!([entry("gone", "v0", "n"), entry("old", "v2", "count")]);
    let writer = |manager| Writer {
        manager,
        now: Timestamp::UNIX_EPOCH,
    };
    let config = widget(json!({"replicas": 2}));
    let refused = apply(&scope, Some(&live), &config, writer("b"), false).unwrap_err();
    assert_eq!(
        refused.to_string(),
        r#"Apply failed with 1 conflict: conflict with "old": .spec.count"#
    );
    let config = widget(json!({"color": "red"}));
    let applied = apply(&scope, Some(&live), &config, writer("old"), false).unwrap();
    assert_eq!(applied["spec"], json!({"color": "red"}));
    let list = applied["metadata"]["managedFields"].as_array().unwrap();
    let said: Vec<_> = list
        .iter()
        .map(|entry| (&entry["manager"], &entry["apiVersion"]))
        .collect();
    assert_eq!(said, [(&json!("old"), &json!("example.com/v1"))]);
}

#[test]
fn a_new_built_in_object_has_its_structs_from_nobody() {
    let gvk = GroupVersionKind::new("apps", "v1", "Deployment");
    let scope = Scope {
        gvk: &gvk,
        subresource: "",
        schema: Schema::of(&gvk),
        writable: &Writable::except_status(),
        convert: &one_version,
    };
    let writer = Writer {
        manager: "kubectl-create",
        now: Timestamp::UNIX_EPOCH,
    };
    let said = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web:1", "ports": [{"containerPort": 80}]}]},
            },
        },
        "status": {"replicas": 3},
    });
    let object = decode::value(&gvk, &said).unwrap().value;
    let (object, error) = update(&scope, None, object, writer);
    assert_eq!(error, None);
    let managed = Managed::parse(managed_fields(&object)).unwrap();
    let (_, entry) = managed.entries().next().unwrap();
    let paths: Vec<String> = entry.fields.paths().iter().map(Path::to_string).collect();
    let container = r#".spec.template.spec.containers[name="web"]"#;
    for path in [
        ".metadata.labels",
        ".metadata.labels.app",
        ".spec.replicas",
        ".spec.selector",
        ".spec.template.metadata.labels",
        container,
        &format!("{container}.image"),
        &format!(r#"{container}.ports[containerPort=80,protocol="TCP"]"#),
    ] {
        assert!(paths.iter().any(|mine| mine == path), "{path} in {paths:?}");
    }
    for path in [
        ".metadata",
        ".metadata.name",
        ".spec",
        ".spec.template",
        ".spec.template.spec",
        ".kind",
    ] {
        assert!(paths.iter().all(|mine| mine != path), "{path} in {paths:?}");
    }
    assert!(paths.iter().all(|path| !path.starts_with(".status")));

    let mut config = said;
    put(&mut config, "status", None);
    let applied = apply(&scope, Some(&object), &config, writer, false).unwrap();
    let managed = Managed::parse(managed_fields(&applied)).unwrap();
    let (manager, _) = managed.entries().next().unwrap();
    assert_eq!(
        (managed.entries().count(), manager.operation),
        (2, Operation::Apply)
    );
    assert_eq!(applied["spec"]["selector"], object["spec"]["selector"]);
}

#[test]
fn times_alone_are_no_change() {
    let mut world = World::of("a", json!({"replicas": 1}));
    let old = world.object().clone();
    let mut new = old.clone();
    new["metadata"]["managedFields"][0]["time"] = json!("2030-01-01T00:00:00Z");
    keep_times(&old, &mut new);
    assert_eq!(new, old);
    world.update("b", |object| object["spec"]["replicas"] = json!(2));
    let mut new = world.object().clone();
    keep_times(&old, &mut new);
    assert_eq!(&new, world.object());
}
