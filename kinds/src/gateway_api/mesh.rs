//! XMesh: what a mesh as a whole says of itself.

use serde_json::json;

use super::parts::{any_object, conditions, controller_name, nobody_looked, root};
use super::shape::{Shape, keyed, object, text};

pub(super) fn mesh() -> Shape {
    let feature = object([("name!", text())]);
    let spec = object([
        (
            "controllerName!",
            controller_name().rule("self == oldSelf", "Value is immutable"),
        ),
        ("parametersRef", object(any_object())),
        ("description", text().at_most(64)),
    ]);
    // Who writes an empty status gets more conditions than who writes none, as upstream has it.
    let status = object([
        (
            "conditions",
            conditions().or(nobody_looked(&["Accepted", "Programmed"])),
        ),
        ("supportedFeatures", keyed("name", feature).at_most(64)),
    ])
    .or(json!({ "conditions": nobody_looked(&["Accepted"]) }));
    root(
        "A mesh that one controller looks after.",
        spec,
        Some(status),
    )
}
