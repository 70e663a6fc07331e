//! Questions of who may do what, by their signatures. No rule of a stored object has an `authorizer` to ask, so that none is ever run.
//!
//! Source: k8s.io/apiserver `pkg/cel/library/authz.go`.

use super::{Function, Run};

/// There are no such values.
const NEVER: Run = |_, _| Ok(None);

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "path",
        overloads: &[("authorizer_path", "Authorizer.(string) PathCheck")],
        run: NEVER,
    },
    Function {
        name: "group",
        overloads: &[("authorizer_group", "Authorizer.(string) GroupCheck")],
        run: NEVER,
    },
    Function {
        name: "serviceAccount",
        overloads: &[(
            "authorizer_serviceaccount",
            "Authorizer.(string, string) Authorizer",
        )],
        run: NEVER,
    },
    Function {
        name: "resource",
        overloads: &[("groupcheck_resource", "GroupCheck.(string) ResourceCheck")],
        run: NEVER,
    },
    Function {
        name: "subresource",
        overloads: &[(
            "resourcecheck_subresource",
            "ResourceCheck.(string) ResourceCheck",
        )],
        run: NEVER,
    },
    Function {
        name: "namespace",
        overloads: &[(
            "resourcecheck_namespace",
            "ResourceCheck.(string) ResourceCheck",
        )],
        run: NEVER,
    },
    Function {
        name: "name",
        overloads: &[("resourcecheck_name", "ResourceCheck.(string) ResourceCheck")],
        run: NEVER,
    },
    Function {
        name: "fieldSelector",
        overloads: &[(
            "authorizer_fieldselector",
            "ResourceCheck.(string) ResourceCheck",
        )],
        run: NEVER,
    },
    Function {
        name: "labelSelector",
        overloads: &[(
            "authorizer_labelselector",
            "ResourceCheck.(string) ResourceCheck",
        )],
        run: NEVER,
    },
    Function {
        name: "check",
        overloads: &[
            ("pathcheck_check", "PathCheck.(string) Decision"),
            ("resourcecheck_check", "ResourceCheck.(string) Decision"),
        ],
        run: NEVER,
    },
    Function {
        name: "errored",
        overloads: &[("decision_errored", "Decision.() bool")],
        run: NEVER,
    },
    Function {
        name: "error",
        overloads: &[("decision_error", "Decision.() string")],
        run: NEVER,
    },
    Function {
        name: "allowed",
        overloads: &[("decision_allowed", "Decision.() bool")],
        run: NEVER,
    },
    Function {
        name: "reason",
        overloads: &[("decision_reason", "Decision.() string")],
        run: NEVER,
    },
];
