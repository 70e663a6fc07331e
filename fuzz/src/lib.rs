//! What must hold for any bytes that the API and the mesh read from outside, as functions of these bytes.
//!
//! A [`Target`] takes an input and panics where a promise is broken: nothing that is read may end the process, take the stack or
//! time without bound, or mean something else when it is written and read again. `tests/inputs.rs` runs each over a fixed number of
//! inputs, the same in every run, on a stable compiler and without instruments; `libfuzzer/` is the same functions with coverage, for
//! `cargo xtask fuzz`. Both begin with the target's own seeds.
//!
//! Why inputs are made here ([`mutation`]) and not by a library: those that run on stable make random bytes or values of a type, of
//! which next to none gets past a parser; these begin with objects, expressions and messages that are right, and damage them.
//!
//! Invariants: a target depends on its input alone; equal seeds make equal inputs. Left to others: what a right answer is (the
//! tests of each crate).

mod answers;
mod bodies;
mod gnostic;
pub mod mutation;
mod patches;
mod queries;
mod rules;
mod seeds;
mod server;
mod streams;
mod traffic;
mod wires;

/// A door that bytes come through.
pub struct Target {
    pub name: &'static str,
    /// Reads an input. Panics where a promise is broken.
    pub run: fn(&[u8]),
    /// Inputs that are right, to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many inputs a run without instruments tries: a second's worth or two.
    pub inputs: u32,
}

const fn target(
    name: &'static str,
    run: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
    inputs: u32,
) -> Target {
    Target {
        name,
        run,
        seeds,
        inputs,
    }
}

/// All of them.
pub const TARGETS: &[Target] = &[
    target("body-json", bodies::json, bodies::json_seeds, 2000),
    target("body-yaml", bodies::yaml, bodies::yaml_seeds, 1500),
    target(
        "body-protobuf",
        bodies::protobuf,
        bodies::protobuf_seeds,
        2000,
    ),
    target("patch-json", patches::json, patches::json_seeds, 2000),
    target("patch-merge", patches::merge, patches::merge_seeds, 1500),
    target(
        "patch-strategic",
        patches::strategic,
        patches::strategic_seeds,
        1500,
    ),
    target("patch-apply", patches::apply, patches::apply_seeds, 1000),
    target("fields-v1", patches::fields, patches::fields_seeds, 3000),
    target(
        "label-selector",
        queries::labels,
        queries::label_seeds,
        5000,
    ),
    target(
        "field-selector",
        queries::fields,
        queries::field_seeds,
        5000,
    ),
    target("query", queries::query, queries::query_seeds, 5000),
    target("accept", queries::accept, queries::accept_seeds, 5000),
    target("scalar", queries::scalar, queries::scalar_seeds, 10_000),
    target(
        "expression",
        rules::expression,
        rules::expression_seeds,
        3000,
    ),
    target("pattern", rules::pattern, rules::pattern_seeds, 1500),
    target(
        "definition",
        rules::definition,
        rules::definition_seeds,
        1000,
    ),
    target("schema", rules::schema, rules::schema_seeds, 1500),
    target("json-path", rules::json_path, rules::json_path_seeds, 2000),
    target("format", rules::format, rules::format_seeds, 2000),
    target("gnostic", gnostic::document, gnostic::document_seeds, 1500),
    target("spdy", streams::spdy, streams::spdy_seeds, 5000),
    target("stream-frame", streams::frames, streams::frame_seeds, 5000),
    target("webhook", answers::webhook, answers::webhook_seeds, 2000),
    target(
        "conversion",
        answers::conversion,
        answers::conversion_seeds,
        2000,
    ),
    target(
        "key-value",
        answers::key_value,
        answers::key_value_seeds,
        5000,
    ),
    target(
        "certificate-request",
        answers::certificate_request,
        answers::certificate_request_seeds,
        1000,
    ),
    target(
        "token-file",
        answers::token_file,
        answers::token_file_seeds,
        3000,
    ),
    target(
        "credential",
        server::credential,
        server::credential_seeds,
        500,
    ),
    target(
        "client-certificate",
        server::client_certificate,
        server::client_certificate_seeds,
        500,
    ),
    target("request", server::request, server::request_seeds, 400),
    target("websocket", server::websocket, server::websocket_seeds, 100),
    target(
        "client-hello",
        traffic::client_hello,
        traffic::client_hello_seeds,
        20_000,
    ),
    target(
        "dns-message",
        traffic::dns_message,
        traffic::dns_message_seeds,
        20_000,
    ),
    target(
        "datagrams",
        traffic::datagrams,
        traffic::datagram_seeds,
        20_000,
    ),
    target("routed", traffic::routed, traffic::routed_seeds, 20_000),
    target(
        "gateway-objects",
        traffic::gateway_objects,
        traffic::gateway_object_seeds,
        2000,
    ),
    target(
        "client-bytes",
        wires::client_bytes,
        wires::client_bytes_seeds,
        600,
    ),
    target(
        "node-lines",
        wires::node_lines,
        wires::node_lines_seeds,
        2000,
    ),
    target(
        "call-lines",
        wires::call_lines,
        wires::call_lines_seeds,
        20_000,
    ),
];
