//! What holds for whatever a worker process sends: nothing panics, and nothing beyond its bounds gets into a store.
//!
//! Cases are the same in every run; `WEFT_SEED=17` tries others, and a failure prints the seed and the smallest input.

use std::sync::Arc;

use http_body_util::BodyExt;
use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tokio::runtime::Runtime;

use crate::body::Body;
use crate::capability::{Capability, ChannelError, Channels, Grants};
use crate::host::keyvalue::{
    Buckets, KEY_BYTES_MAX, KeyValue, KeyValueStore, MemoryStore, VALUE_BYTES_MAX,
};

/// Enough to change each byte of a message a few times.
const CASES: u32 = 500;

fn config() -> ProptestConfig {
    let seed = std::env::var("WEFT_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("WEFT_SEED={seed}");
    ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    }
}

fn granted(store: Arc<MemoryStore>) -> Buckets {
    let mut grants = Grants::default();
    grants.key_value("b", store);
    grants.of::<KeyValue>().expect("granted").clone()
}

/// What a worker of ours sends for one operation of each kind.
fn messages(runtime: &Runtime) -> Vec<Vec<u8>> {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let hears = sent.clone();
    let channels = Channels::new(move |_, _, message| {
        let hears = hears.clone();
        Box::pin(async move {
            let message = message.collect().await.expect("it is whole").to_bytes();
            hears.lock().push(message.to_vec());
            Err(ChannelError::Busy)
        })
    });
    let packed = KeyValue.pack(&granted(Arc::new(MemoryStore::new(0, 0))));
    let packed = packed.expect("identifiers can be written down");
    let remote = KeyValue.unpack(&packed, &channels).expect("and read");
    let store: Arc<dyn KeyValueStore> = remote.store("b").expect("it is granted");
    let keys = ["k".to_owned(), "l".to_owned()];
    runtime.block_on(async {
        // Each fails, once it was sent.
        let _ = store.get("k").await;
        let _ = store.get_many(&keys).await;
        let _ = store.set("k", "value".into()).await;
        let _ = store.set_many(vec![("k".into(), "value".into())]).await;
        let _ = store.delete("k").await;
        let _ = store.delete_many(&keys).await;
        let _ = store.exists("k").await;
        let _ = store.list_keys(Some("k")).await;
        let _ = store.increment("n", -1).await;
        let _ = store.compare_and_set("k", 0, "value".into()).await;
    });
    let sent = sent.lock().clone();
    assert_eq!(sent.len(), 10);
    sent
}

/// Has the node's half answer `message`, and looks at what came of it.
fn judge(runtime: &Runtime, message: Vec<u8>) -> Result<(), TestCaseError> {
    let store = Arc::new(MemoryStore::new(4 << 20, 10_000));
    let granted = granted(store.clone());
    runtime.block_on(async {
        let answered = KeyValue.serve(&granted, "do", Body::full(message)).await;
        if let Ok(answer) = answered {
            prop_assert!(answer.collect().await.is_ok());
        }
        let page = store.list_keys(None).await.expect("it is in memory");
        for key in page.keys {
            prop_assert!((1..=KEY_BYTES_MAX).contains(&key.len()), "{}", key.len());
            let entry = store.get(&key).await.expect("it is in memory");
            let bytes = entry.map_or(0, |entry| entry.value.len());
            prop_assert!(bytes <= VALUE_BYTES_MAX, "{bytes}");
        }
        Ok(())
    })
}

#[test]
fn whatever_bytes_a_worker_sends_are_answered() {
    let runtime = Runtime::new().expect("there are threads");
    let any = proptest::collection::vec(any::<u8>(), 0..2_000);
    proptest!(config(), |(message in any)| judge(&runtime, message)?);
}

#[test]
fn a_message_that_was_changed_anywhere_is_answered() {
    let runtime = Runtime::new().expect("there are threads");
    let change = (any::<prop::sample::Index>(), any::<u8>());
    let changes = proptest::collection::vec(change, 1..4);
    let messages = prop::sample::select(messages(&runtime));
    proptest!(config(), |(mut message in messages, changes in changes, cut in 0..4usize)| {
        for (at, byte) in changes {
            let at = at.index(message.len());
            message[at] = byte;
        }
        message.truncate(message.len().saturating_sub(cut));
        judge(&runtime, message)?;
    });
}
