//! Components that ask for too much: each gets a sentence, and nothing else happens.

use std::fmt::Write as _;
use std::time::Duration;

use weft_runtime::{Engine, Exit, Limits, Workload};

/// A command of the core modules and instances in `modules`, of which `$i` exports `run`.
fn component(modules: &str) -> Vec<u8> {
    let text = format!(
        r#"(component {modules}
          (func $run (result (result)) (canon lift (core func $i "run")))
          (instance $c (export "run" (func $run)))
          (export "wasi:cli/run@0.2.0" (instance $c)))"#
    );
    wat::parse_str(text).unwrap()
}

/// One module with `contents` beside a `run` that does nothing.
fn module(contents: &str) -> Vec<u8> {
    component(&format!(
        r#"(core module $m {contents} (func (export "run") (result i32) i32.const 0))
           (core instance $i (instantiate $m))"#
    ))
}

#[tokio::test]
async fn who_asks_for_too_much_is_told_what() {
    let engine = Engine::builder().instances_max(4).build().unwrap();
    let instances: String = (0..80)
        .map(|_| "(core instance (instantiate $m))")
        .collect();
    let many = format!(
        r#"(core module $m (func (export "run") (result i32) i32.const 0)) {instances}
           (core instance $i (instantiate $m))"#
    );
    let cases = [
        ("4 GiB of memory", module("(memory 65536)")),
        ("a hundred memories", module(&"(memory 1)".repeat(100))),
        ("a table of a billion", module("(table 1000000000 funcref)")),
        ("a table beyond its share", module("(table 200000 funcref)")),
        ("a table over the limit", module("(table 90000 funcref)")),
        ("eighty instances", component(&many)),
        (
            "a thousand parameters",
            module(&format!("(func (param {}))", "i32 ".repeat(1001))),
        ),
        (
            "a start that traps",
            module("(func $s unreachable) (start $s)"),
        ),
        (
            "a start that never ends",
            module("(func $s (loop (br 0))) (start $s)"),
        ),
        (
            "a start that recurses",
            module("(func $s (call $s)) (start $s)"),
        ),
        ("threads", module("(memory 1 1 shared)")),
        ("a 64 bit memory", module("(memory i64 1)")),
        ("a modest one", module("(memory 1) (table 10 funcref)")),
    ];
    let limits = Limits {
        memory_bytes: 512 << 10,
        run_timeout: Some(Duration::from_millis(100)),
        ..Limits::default()
    };
    let mut transcript = String::new();
    for (what, bytes) in cases {
        let outcome = match engine.load(bytes).await {
            Err(error) => {
                assert!(error.is_permanent(), "{error}");
                error.to_string()
            }
            Ok(artifact) => {
                let workload = Workload::builder(&engine, &artifact)
                    .limits(limits.clone())
                    .build();
                match workload {
                    Err(error) => error.to_string(),
                    Ok(workload) => match workload.run().await {
                        Exit::Trap { message, .. } => format!("trapped: {message}"),
                        exit => format!("{exit:?}"),
                    },
                }
            }
        };
        writeln!(transcript, "{what}: {outcome}").unwrap();
    }
    insta::assert_snapshot!(transcript, @r"
    4 GiB of memory: the component starts with 4294967296 bytes of memory, and the limit is 524288
    a hundred memories: the component does not fit this host: module memory does not fit in pooling allocator requirements: defined memories count of 100 exceeds the per-instance limit of 4
    a table of a billion: the component does not fit this host: module table does not fit in pooling allocator requirements: table index 0 has a minimum element size of 1000000000 which exceeds the limit of 100000
    a table beyond its share: the component does not fit this host: module table does not fit in pooling allocator requirements: table index 0 has a minimum element size of 200000 which exceeds the limit of 100000
    a table over the limit: OutOfMemory { limit_bytes: 524288 }
    eighty instances: the component does not fit this host: The component transitively contains 81 core module instances, which exceeds the configured maximum of 64 in the pooling allocator
    a thousand parameters: the component is not valid: failed to parse WebAssembly module: function params size is out of bounds (at offset 0x18)
    a start that traps: trapped: wasm trap: wasm `unreachable` instruction executed
    a start that never ends: Deadline
    a start that recurses: trapped: wasm trap: call stack exhausted
    threads: the component is not valid: failed to parse WebAssembly module: threads must be enabled for shared memories (at offset 0x20)
    a 64 bit memory: the component is not valid: failed to parse WebAssembly module: memory64 must be enabled for 64-bit memories (at offset 0x20)
    a modest one: Success
    ");
}
