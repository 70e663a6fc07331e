//! A host of plug-ins: a typed interface of the program's own, both ways.
//!
//! `cargo xtask guests && cargo run --example plugins [COMPONENT]`
//!
//! `plugins.wit` beside this file is the contract; `sample-apps/discount` is a plug-in, written in Rust against it.
//! `bindgen!` makes types of the contract on this side. What the plug-in may use and for how long are the workload's
//! limits, and each use of it gets an instance of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use weft_runtime::wasmtime::component::{HasSelf, Linker, bindgen};
use weft_runtime::{Calls, Capability, Engine, HostBytes, HostState, Limits, Workload};

bindgen!({
    path: "examples/plugins.wit",
    imports: { default: trappable },
    exports: { default: async },
    wasmtime_crate: weft_runtime::wasmtime,
});
use exports::shop::plugins::discounts::Line;
use shop::plugins::stock;

/// What this program lends to its plug-ins. One may look at what it is granted: here, at everything.
struct Stock(Arc<HashMap<String, u32>>);

impl Capability for Stock {
    const NAME: &'static str = "shop:plugins";
    const INTERFACES: &'static [&'static str] = &["shop:plugins/stock"];
    type Grant = ();
    type Bound = Arc<HashMap<String, u32>>;

    fn link(&self, linker: &mut Linker<HostState>, _: Calls) -> wasmtime::Result<()> {
        stock::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)
    }

    fn bind(&self, (): &(), _: &Arc<HostBytes>) -> Self::Bound {
        self.0.clone()
    }
}

impl stock::Host for HostState {
    fn in_stock(&mut self, item: String) -> wasmtime::Result<u32> {
        Ok(self.bound::<Stock>()?.get(&item).copied().unwrap_or(0))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let built = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../target/guests/discount.wasm"
    );
    let component = std::env::args().nth(1).unwrap_or(built.to_owned());
    let stock = HashMap::from([("apple".to_owned(), 400), ("melon".to_owned(), 3)]);
    let engine = Engine::builder()
        .accept_plugins()
        .capability(Stock(Arc::new(stock)))
        .build()?;
    let artifact = engine.load(std::fs::read(component)?).await?;
    let workload = Workload::builder(&engine, &artifact)
        .grant::<Stock>(())
        .limits(Limits {
            memory_bytes: 8 << 20,
            request_timeout: Duration::from_secs(1),
            ..Limits::default()
        })
        .build()?;

    for (item, count, cents) in [("apple", 12, 30), ("melon", 2, 450), ("pear", 1, 60)] {
        let basket = [Line {
            item: item.to_owned(),
            count,
            cents,
        }];
        let discount = workload
            .with_instance(async |store, instance| {
                let plugin = Plugin::new(&mut *store, instance)?;
                let discounts = plugin.shop_plugins_discounts();
                discounts.call_discount(store, &basket).await
            })
            .await?;
        match discount {
            Ok(cents) => println!("{count} {item}: {cents} cents off"),
            Err(reason) => println!("{count} {item}: no discount, {reason}"),
        }
    }
    Ok(())
}
