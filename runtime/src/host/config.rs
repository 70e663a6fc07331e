//! `wasi:config/store`: settings by name, as they are now.
//!
//! Guests see the newest values the next time they ask, and all values of one question are of the same state. In a worker process
//! the values came with the grant, and newer ones come by a channel that stays open.
//!
//! Invariants: names and values have no more than [`CONFIG_BYTES_MAX`] together, here and in a worker; nobody prints them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::watch;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use crate::body::{Body, BoxError};
use crate::capability::{Capability, ChannelError, Channels, Grants, Served};
use crate::engine::Calls;
use crate::host::HostState;
use crate::limits::HostBytes;

/// What all names and values of one workload may have: room for a few of Kubernetes' ConfigMaps, which have a mebibyte at most.
pub const CONFIG_BYTES_MAX: usize = 4 << 20;
/// An entry, beside its text.
const ENTRY_BYTES: usize = 64;
/// How long a worker waits before it asks again for what is new.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Settings by name.
pub type Values = BTreeMap<String, String>;

/// More settings than a workload may have. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the settings have {bytes} bytes together, and {CONFIG_BYTES_MAX} is the most that a workload may have"
)]
pub struct ConfigTooLarge {
    pub bytes: usize,
}

/// Settings that workloads are granted ([`WorkloadBuilder::config`]). Cheap to clone.
///
/// [`WorkloadBuilder::config`]: crate::WorkloadBuilder::config
#[derive(Clone)]
pub struct Config {
    values: watch::Receiver<Arc<Values>>,
}

/// The other end of a [`Config`], which changes it.
pub struct ConfigSender {
    values: watch::Sender<Arc<Values>>,
}

impl Config {
    /// Settings that stay as they are.
    ///
    /// # Errors
    /// When they are more than a workload may have.
    pub fn fixed(values: Values) -> Result<Config, ConfigTooLarge> {
        Config::channel(values).map(|(_, config)| config)
    }

    /// Settings that change whenever the sender says so.
    ///
    /// # Errors
    /// When they are more than a workload may have.
    pub fn channel(values: Values) -> Result<(ConfigSender, Config), ConfigTooLarge> {
        check(&values)?;
        let (sender, values) = watch::channel(Arc::new(values));
        Ok((ConfigSender { values: sender }, Config { values }))
    }

    /// As they are now.
    pub fn values(&self) -> Arc<Values> {
        self.values.borrow().clone()
    }
}

impl std::fmt::Debug for Config {
    /// Without the values: they may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Config({} settings)", self.values.borrow().len())
    }
}

impl ConfigSender {
    /// What guests see from now on.
    ///
    /// # Errors
    /// When it is more than a workload may have; then the values before stay.
    pub fn set(&self, values: Values) -> Result<(), ConfigTooLarge> {
        check(&values)?;
        self.values.send_replace(Arc::new(values));
        Ok(())
    }

    /// Waits until nobody has the config any more.
    pub async fn closed(&self) {
        self.values.closed().await;
    }
}

fn check(values: &Values) -> Result<(), ConfigTooLarge> {
    let bytes = bytes_of(values);
    match bytes <= CONFIG_BYTES_MAX {
        true => Ok(()),
        false => Err(ConfigTooLarge { bytes }),
    }
}

fn bytes_of(values: &Values) -> usize {
    let values = values.iter();
    values
        .map(|(name, value)| name.len() + value.len() + ENTRY_BYTES)
        .sum()
}

impl Grants {
    /// Grants `wasi:config/store`, with these settings.
    pub fn config(&mut self, config: Config) {
        self.give::<ConfigStore>(config);
    }
}

/// The capability.
pub struct ConfigStore;

impl Capability for ConfigStore {
    const NAME: &'static str = "wasi:config";
    const INTERFACES: &'static [&'static str] = &["wasi:config/store@0.2.0-rc.1"];
    type Grant = Config;
    type Bound = Config;

    fn link(&self, linker: &mut Linker<HostState>, _: Calls) -> wasmtime::Result<()> {
        let mut store = linker.instance("wasi:config/store@0.2.0-rc.1")?;
        store.func_wrap("get", get)?;
        store.func_wrap("get-all", get_all)
    }

    fn bind(&self, grant: &Config, _: &Arc<HostBytes>) -> Config {
        grant.clone()
    }

    fn pack(&self, grant: &Config) -> Option<Vec<u8>> {
        postcard::to_allocvec(&*grant.values()).ok()
    }

    fn unpack(&self, packed: &[u8], channels: &Channels) -> Result<Config, BoxError> {
        let (sender, config) = Config::channel(postcard::from_bytes(packed)?)?;
        tokio::spawn(follow(sender, channels.clone()));
        Ok(config)
    }

    fn serve(&self, grant: &Config, method: &str, _: Body) -> Served {
        let watched = (method == WATCH).then(|| watched(grant.values.clone()));
        Box::pin(async { watched.ok_or(ChannelError::NoSuchMethod) })
    }
}

/// `error` of the interface. There is nothing here that can fail.
#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "upstream")]
    Upstream(String),
    #[component(name = "io")]
    Io(String),
}

fn get(
    mut store: StoreContextMut<'_, HostState>,
    (name,): (String,),
) -> wasmtime::Result<(Result<Option<String>, Error>,)> {
    let state = store.data_mut();
    let values = state.bound::<ConfigStore>()?.values();
    let value = values.get(&name);
    let bytes = value.map_or(0, String::len);
    drop(state.memory.host().charge(bytes as u64)?);
    Ok((Ok(value.cloned()),))
}

type All = Vec<(String, String)>;

fn get_all(
    mut store: StoreContextMut<'_, HostState>,
    (): (),
) -> wasmtime::Result<(Result<All, Error>,)> {
    let state = store.data_mut();
    let values = state.bound::<ConfigStore>()?.values();
    drop(state.memory.host().charge(bytes_of(&values) as u64)?);
    let all = values
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()));
    Ok((Ok(all.collect()),))
}

/// The one method: the values as they are, and then each time that they change, each with its length before it.
const WATCH: &str = "watch";
/// What precedes the values.
const LENGTH_BYTES: usize = 4;
/// Values with their lengths, written down: an entry's two lengths take less than [`ENTRY_BYTES`].
const STATE_BYTES_MAX: usize = CONFIG_BYTES_MAX;

fn watched(values: watch::Receiver<Arc<Values>>) -> Body {
    let states = futures::stream::unfold((values, true), |(mut values, first)| async move {
        // Gone with its sender, after which nothing changes any more.
        if !first && values.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        let state = values.borrow_and_update().clone();
        let state = postcard::to_allocvec(&*state).unwrap_or_default();
        let mut framed = BytesMut::with_capacity(LENGTH_BYTES + state.len());
        framed.put_u32(u32::try_from(state.len()).unwrap_or(u32::MAX));
        framed.put_slice(&state);
        Some((Ok(Frame::data(framed.freeze())), (values, false)))
    });
    Body::new(StreamBody::new(states))
}

/// Keeps a worker's copy as new as what the node has, for as long as somebody has it.
async fn follow(sender: ConfigSender, channels: Channels) {
    let kept = async {
        loop {
            if let Err(error) = copy(&sender, &channels).await {
                tracing::debug!(%error, "no news of a workload's settings; asking again");
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    };
    tokio::select! {
        () = kept => {}
        () = sender.closed() => {}
    }
}

async fn copy(sender: &ConfigSender, channels: &Channels) -> Result<(), BoxError> {
    let opened = channels.open::<ConfigStore>(WATCH, Body::empty());
    let mut body = opened.await?;
    let mut arrived = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let data: Bytes = frame?.into_data().unwrap_or_default();
        arrived.extend_from_slice(&data);
        while let Some(state) = next(&mut arrived)? {
            sender.set(postcard::from_bytes(&state)?)?;
        }
    }
    Ok(())
}

/// The next whole state of what has arrived.
fn next(arrived: &mut BytesMut) -> Result<Option<Bytes>, BoxError> {
    let Some(mut head) = arrived.get(..LENGTH_BYTES) else {
        return Ok(None);
    };
    let bytes = usize::try_from(head.get_u32()).unwrap_or(usize::MAX);
    if bytes > STATE_BYTES_MAX {
        return Err("a state is longer than any can be".into());
    }
    if arrived.len() < LENGTH_BYTES + bytes {
        return Ok(None);
    }
    arrived.advance(LENGTH_BYTES);
    Ok(Some(arrived.split_to(bytes).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn settings_are_bounded_and_never_printed() {
        let large = values(&[("k", &"x".repeat(CONFIG_BYTES_MAX))]);
        let error = Config::fixed(large.clone()).unwrap_err();
        assert_eq!(error.bytes, CONFIG_BYTES_MAX + 1 + ENTRY_BYTES);
        let (sender, config) = Config::channel(values(&[("password", "hunter2")])).unwrap();
        assert!(sender.set(large).is_err());
        assert_eq!(config.values()["password"], "hunter2");
        assert_eq!(format!("{config:?}"), "Config(1 settings)");
    }

    #[tokio::test]
    async fn a_worker_has_the_values_at_once_and_newer_ones_soon() {
        let (sender, config) = Config::channel(values(&[("colour", "blue")])).unwrap();
        let node = config.clone();
        let channels = Channels::new(move |_, method, body| ConfigStore.serve(&node, method, body));
        let packed = ConfigStore.pack(&config).unwrap();
        let mut remote = ConfigStore.unpack(&packed, &channels).unwrap();
        assert_eq!(remote.values()["colour"], "blue");
        sender.set(values(&[("colour", "red")])).unwrap();
        let seen = remote.values.wait_for(|values| values["colour"] == "red");
        assert!(seen.await.is_ok());
    }

    #[tokio::test]
    async fn there_is_nothing_to_ask_for_but_the_values() {
        let config = Config::fixed(Values::new()).unwrap();
        let refused = ConfigStore.serve(&config, "set", Body::empty()).await;
        assert_eq!(refused.err(), Some(ChannelError::NoSuchMethod));
    }

    #[test]
    fn states_are_told_apart_however_they_arrive() {
        let mut arrived = BytesMut::new();
        let mut seen = Vec::new();
        for byte in [0, 0, 0, 2, b'a', b'b', 0, 0, 0, 0, 0, 0, 0, 1, b'c'] {
            arrived.put_u8(byte);
            while let Some(state) = next(&mut arrived).unwrap() {
                seen.push(state);
            }
        }
        assert_eq!(seen, ["ab", "", "c"]);
        arrived.put_u32(u32::MAX);
        assert!(next(&mut arrived).is_err());
    }
}
