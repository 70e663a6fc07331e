//! A component inside another program: limits, a capability of the program's own, one call.
//!
//! The component below asks the host for a price and exits with it, which is the shortest way for a guest without a
//! library to say a number. `Engine::load` takes the bytes of a `.wasm` file just as well.

use std::sync::Arc;

use weft_runtime::wasmtime::StoreContextMut;
use weft_runtime::wasmtime::component::Linker;
use weft_runtime::{Calls, Capability, Engine, Exit, HostBytes, HostState, Limits, Workload};

const COMPONENT: &str = r#"
(component
  (import "shop:prices/list" (instance $list (export "price" (func (param "item" string) (result u32)))))
  (import "wasi:cli/exit@0.2.0" (instance $exit (export "exit-with-code" (func (param "status-code" u8)))))
  (core module $memory (memory (export "memory") 1) (data (i32.const 16) "apple"))
  (core instance $memory (instantiate $memory))
  (core func $price (canon lower (func $list "price") (memory (core memory $memory "memory"))))
  (core func $exit (canon lower (func $exit "exit-with-code")))
  (core module $main
    (import "host" "price" (func $price (param i32 i32) (result i32)))
    (import "host" "exit" (func $exit (param i32)))
    (func (export "run") (result i32) (call $exit (call $price (i32.const 16) (i32.const 5))) (i32.const 0)))
  (core instance $main (instantiate $main
    (with "host" (instance (export "price" (func $price)) (export "exit" (func $exit))))))
  (func $run (result (result)) (canon lift (core func $main "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $command)))
"#;

/// What this program lends to guests: the price of a letter, which each is told its own.
struct Prices;

impl Capability for Prices {
    const NAME: &'static str = "shop:prices";
    const INTERFACES: &'static [&'static str] = &["shop:prices/list"];
    type Grant = u32;
    type Bound = u32;

    fn link(&self, linker: &mut Linker<HostState>, _: Calls) -> weft_runtime::wasmtime::Result<()> {
        linker.instance("shop:prices/list")?.func_wrap(
            "price",
            |mut store: StoreContextMut<HostState>, (item,): (String,)| {
                let cents = *store.data_mut().bound::<Prices>()?;
                Ok((cents * item.len() as u32,))
            },
        )
    }

    fn bind(&self, cents: &u32, _: &Arc<HostBytes>) -> u32 {
        *cents
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let engine = Engine::builder().capability(Prices).build()?;
    let artifact = engine.load(wat::parse_str(COMPONENT)?).await?;
    let workload = Workload::builder(&engine, &artifact)
        .grant::<Prices>(8)
        .limits(Limits {
            memory_bytes: 8 << 20,
            cpu_millis: Some(500),
            ..Limits::default()
        })
        .build()?;
    match workload.run().await {
        Exit::Failed(price) => println!("five letters of apple cost {price}"),
        exit => println!("the component ended with {exit:?}"),
    }
    Ok(())
}
