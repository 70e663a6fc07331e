//! BackendTLSPolicy and ReferenceGrant: how backends are trusted, and which references lead out of a namespace.

use super::parts::{
    group, host, kind, labels_with_dots, local_object, namespace, object_name, options,
    policy_targets, precise_host, root, told_by_controllers,
};
use super::shape::{Shape, list, object, one_of, text};

pub(super) fn backend_tls_policy() -> Shape {
    let spec = object([
        ("targetRefs!", policy_targets()),
        ("validation!", validation()),
        ("options", options()),
    ]);
    root(
        "How the certificate of a backend is judged.",
        spec,
        Some(told_by_controllers("ancestors!", "ancestorRef!", 16)),
    )
}

fn validation() -> Shape {
    let refs = "has(self.caCertificateRefs) && size(self.caCertificateRefs) > 0";
    let known = "has(self.wellKnownCACertificates) && self.wellKnownCACertificates != ''";
    let own_set = format!(
        "{}/([A-Za-z0-9][-A-Za-z0-9_.]{{0,61}})?[A-Za-z0-9]",
        labels_with_dots()
    );
    let sets = format!("^(System|({own_set}))$");
    object([
        ("caCertificateRefs", list(object(local_object())).at_most(8)),
        (
            "wellKnownCACertificates",
            text().length(1, 253).pattern(&sets),
        ),
        ("hostname!", precise_host()),
        ("subjectAltNames", list(alternative_name()).at_most(5)),
    ])
    .rule(
        format!("!({refs}) || !({known})"),
        "must not contain both CACertificateRefs and WellKnownCACertificates",
    )
    .rule(
        format!("({refs}) || ({known})"),
        "must specify either CACertificateRefs or WellKnownCACertificates",
    )
}

fn alternative_name() -> Shape {
    let members = [("hostname", "Hostname"), ("uri", "URI")];
    let uri = r"^(([^:/?#]+):)(//([^/?#]*))([^?#]*)(\?([^#]*))?(#(.*))?";
    let shape = object([
        ("type!", one_of(&members.map(|(_, name)| name))),
        ("hostname", host()),
        ("uri", text().length(1, 253).pattern(uri)),
    ]);
    members.iter().fold(shape, |shape, (member, name)| {
        let there = format!("has(self.{member}) && self.{member} != ''");
        let shape = shape.rule(
            format!("self.type != '{name}' || ({there})"),
            format!("SubjectAltName element must contain {name}, if Type is set to {name}"),
        );
        shape.rule(
            format!("self.type == '{name}' || !({there})"),
            format!("SubjectAltName element must not contain {name}, if Type is not set to {name}"),
        )
    })
}

pub(super) fn reference_grant() -> Shape {
    let from = object([
        ("group!", group()),
        ("kind!", kind()),
        ("namespace!", namespace()),
    ]);
    let to = object([
        ("group!", group()),
        ("kind!", kind()),
        ("name", object_name()),
    ]);
    let spec = object([
        ("from!", list(from).length(1, 16)),
        ("to!", list(to).length(1, 16)),
    ]);
    root(
        "Which objects of other namespaces may refer to those of its own.",
        spec,
        None,
    )
}
