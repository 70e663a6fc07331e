//! Every target over a fixed number of inputs, the same in every run. `WEFT_SEED=17` tries others.
//!
//! With `WEFT_FUZZ_SECONDS` each goes on for so long, with new inputs from wherever it was seeded, and keeps the input at hand in
//! `WEFT_FUZZ_DIR`, because what overflows a stack tells nobody.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use weft_fuzz::mutation::Inputs;
use weft_fuzz::{TARGETS, Target};

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn run(name: &str) {
    let target: &Target = TARGETS
        .iter()
        .find(|target| target.name == name)
        .unwrap_or_else(|| panic!("{name} is no target"));
    let seed = number("WEFT_SEED").unwrap_or(1);
    println!("WEFT_SEED={seed}");
    let seeds = (target.seeds)();
    let until =
        number("WEFT_FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let kept = std::env::var_os("WEFT_FUZZ_DIR").map(|dir| PathBuf::from(dir).join(name));
    let count = seeds.len() + target.inputs as usize;
    let mut inputs = Inputs::new(seeds, seed);
    let mut tried = 0;
    let mut longest = (Duration::ZERO, Vec::new());
    loop {
        match until {
            Some(until) if Instant::now() > until => break,
            None if tried == count => break,
            _ => {}
        }
        let input = inputs.next_input();
        if let Some(kept) = &kept {
            std::fs::write(kept, &input).unwrap();
        }
        let began = Instant::now();
        let ended = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
        let took = began.elapsed();
        if took > longest.0 {
            longest = (took, input.clone());
        }
        tried += 1;
        if ended.is_err() {
            let shown = input.escape_ascii().to_string();
            panic!("{name}: input {tried} of WEFT_SEED={seed}: {shown:.4000}");
        }
    }
    // For whoever looks for what takes long; nothing depends on it.
    let (took, input) = longest;
    let shown = input.escape_ascii().to_string();
    println!(
        "{name}: {tried} inputs, the longest {took:?} for {} bytes: {shown:.300}",
        input.len()
    );
}

macro_rules! targets {
    ($($test:ident $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                run($name);
            }
        )*

        #[test]
        fn every_target_is_tried() {
            let tried = [$($name),*];
            let there: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(there, tried);
        }
    };
}

targets! {
    body_json "body-json",
    body_yaml "body-yaml",
    body_protobuf "body-protobuf",
    patch_json "patch-json",
    patch_merge "patch-merge",
    patch_strategic "patch-strategic",
    patch_apply "patch-apply",
    fields_v1 "fields-v1",
    label_selector "label-selector",
    field_selector "field-selector",
    query "query",
    accept "accept",
    scalar "scalar",
    expression "expression",
    pattern "pattern",
    definition "definition",
    schema "schema",
    json_path "json-path",
    format "format",
    gnostic "gnostic",
    spdy "spdy",
    stream_frame "stream-frame",
    webhook "webhook",
    conversion "conversion",
    key_value "key-value",
    certificate_request "certificate-request",
    token_file "token-file",
    credential "credential",
    client_certificate "client-certificate",
    request "request",
    websocket "websocket",
    client_hello "client-hello",
    dns_message "dns-message",
    datagrams "datagrams",
    routed "routed",
    gateway_objects "gateway-objects",
    client_bytes "client-bytes",
    node_lines "node-lines",
    call_lines "call-lines",
}
