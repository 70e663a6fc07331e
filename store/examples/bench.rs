//! `cargo run -p weft-store --example bench [-- SECONDS]`: puts a second with 1, 16 and 500 clients on a fresh store.

use std::time::Duration;

use weft_store::bench::{Load, puts};
use weft_store::{Config, Store};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => 3,
    };
    // Beside the build, not in /tmp: that may be memory, where an fsync costs nothing.
    let dir = std::env::current_exe()?.with_extension("data");
    let _ = std::fs::remove_dir_all(&dir);
    let store = Store::open(Config::new(&dir)).await?;
    println!("clients  puts/s    p50 ms   p99 ms   max ms");
    for clients in [1, 16, 500] {
        let load = Load {
            clients,
            keys_per_client: 16,
            value_bytes: 1024,
            duration: Duration::from_secs(seconds),
        };
        let report = puts(&store, load).await?;
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        println!(
            "{clients:>7}  {:>6.0}  {:>8.2} {:>8.2} {:>8.2}",
            report.puts_per_second,
            ms(report.p50),
            ms(report.p99),
            ms(report.max)
        );
    }
    store.shutdown().await;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
