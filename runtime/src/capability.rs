//! What guests can import beside WASI and HTTP, as objects: the runtime's own capabilities and an embedder's, side by side.
//!
//! ```text
//! EngineBuilder::capability(C)      what this host has, linked once for all workloads      Capability::link
//! WorkloadBuilder::grant::<C>(g)    what one workload may have of it                       C::Grant
//!   each instance                   what that instance has, until it ends                  Capability::bind ─► C::Bound
//! ```
//!
//! A workload in a worker process has its grants there as well: [`Capability::pack`] says what of a grant is written down for the
//! worker, [`Capability::unpack`] makes a grant of it there, and what has to stay with this process the worker asks for by a channel
//! ([`Channels::open`]), which [`Capability::serve`] answers here. So each half is written once.
//!
//! Invariants: a component that imports an interface of a capability which its workload was not granted is refused before it runs;
//! a worker asks for no more than what was granted to the workload that it asks for, within the bounds of this side.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wasmtime::component::Linker;

use crate::body::{Body, BoxError};
use crate::engine::Calls;
use crate::host::HostState;
use crate::limits::{HostBytes, Limits};

/// Something that guests can import.
///
/// `Self` is what the host has, `Grant` what one workload may have of it, `Bound` what one instance does have.
pub trait Capability: Send + Sync + 'static {
    /// How it is called between processes; such as `wasi:keyvalue`, the package of its interfaces.
    const NAME: &'static str;
    /// The interfaces that it links, with their versions if they have any: `wasi:config/store@0.2.0-rc.1`.
    const INTERFACES: &'static [&'static str];
    /// What a workload is given.
    type Grant: Clone + Send + Sync + 'static;
    /// What an instance has; gone with it.
    type Bound: Send + 'static;

    /// Links its host functions, once for each kind of code. Those that are `async` in WIT are for [`Calls::Concurrent`] alone.
    /// Host functions find what the calling instance has with [`HostState::bound`].
    ///
    /// # Errors
    /// When a name is linked already.
    fn link(&self, linker: &mut Linker<HostState>, calls: Calls) -> wasmtime::Result<()>;

    /// What a new instance has of `grant`. What is held for the instance is charged to `memory`, its workload's account.
    fn bind(&self, grant: &Self::Grant, memory: &Arc<HostBytes>) -> Self::Bound;

    /// What a worker process is told of `grant`. None, the default, when it cannot leave this process: then no workload that has it can
    /// be built in a worker.
    fn pack(&self, _grant: &Self::Grant) -> Option<Vec<u8>> {
        None
    }

    /// The grant that `packed` tells of, in a worker process, where `channels` lead to the other half. In a tokio runtime.
    ///
    /// # Errors
    /// When `packed` is nothing that [`Capability::pack`] has made.
    fn unpack(&self, _packed: &[u8], _channels: &Channels) -> Result<Self::Grant, BoxError> {
        Err(format!("{} does not leave its process", Self::NAME).into())
    }

    /// Answers a channel that a worker has opened for a workload with `grant`. Whoever sent `message` is not trusted: it is as
    /// long as it is, and what it asks for is judged here.
    fn serve(&self, _grant: &Self::Grant, _method: &str, _message: Body) -> Served {
        Box::pin(async { Err(ChannelError::NoSuchMethod) })
    }

    /// Channels that one workload may have open at the same time.
    fn channels_max(&self, _limits: &Limits) -> usize {
        1
    }
}

/// What came of a channel: its answer, in as many parts as the capability's halves have agreed on.
pub type Served = Pin<Box<dyn Future<Output = Result<Body, ChannelError>> + Send>>;

/// Why a channel has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ChannelError {
    #[error("the capability is not granted to this workload")]
    NotGranted,
    #[error("the capability has no such method")]
    NoSuchMethod,
    #[error("the message makes no sense")]
    Malformed,
    #[error("the message has more bytes than it may have, or does not say how many")]
    TooLarge,
    #[error("too many channels are open")]
    Busy,
    #[error("no answer in time")]
    Timeout,
    #[error("{reason}")]
    Failed { reason: String },
}

type Open = dyn Fn(&'static str, &str, Body) -> Served + Send + Sync;

/// The way from a workload in a worker process to the halves of its capabilities that stayed behind. Cheap to clone.
#[derive(Clone)]
pub struct Channels(Arc<Open>);

impl Channels {
    pub(crate) fn new(
        open: impl Fn(&'static str, &str, Body) -> Served + Send + Sync + 'static,
    ) -> Channels {
        Channels(Arc::new(open))
    }

    /// Has [`Capability::serve`] of the other process answer `message`. Dropping the future, or the answer before its end, closes the
    /// channel.
    ///
    /// # Errors
    /// Those of the other half, and those of the way there.
    pub fn open<C: Capability>(&self, method: &str, message: Body) -> Served {
        (self.0)(C::NAME, method, message)
    }
}

/// What one workload is granted. Cheap to clone.
#[derive(Clone, Default)]
pub struct Grants(Vec<Grant>);

#[derive(Clone)]
struct Grant {
    name: &'static str,
    capability: TypeId,
    value: Value,
}

type Value = Arc<dyn Any + Send + Sync>;

impl Grants {
    /// Grants `C`. A grant that was there before is replaced.
    pub fn give<C: Capability>(&mut self, grant: C::Grant) {
        let capability = TypeId::of::<C>();
        self.0.retain(|grant| grant.capability != capability);
        self.0.push(Grant {
            name: C::NAME,
            capability,
            value: Arc::new(grant),
        });
    }

    /// What is granted of `C`.
    pub fn of<C: Capability>(&self) -> Option<&C::Grant> {
        let capability = TypeId::of::<C>();
        let grant = self.0.iter().find(|grant| grant.capability == capability)?;
        grant.value.downcast_ref()
    }
}

/// Why grants do not fit a component on an engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum GrantError {
    /// The component could not be linked otherwise; it was not started.
    #[error("the component imports {interface}, and its workload is not granted {capability}")]
    NotGranted {
        /// As the component spells it, with its version.
        interface: String,
        capability: String,
    },
    #[error("the workload is granted {capability}, which this engine was not built with")]
    NoCapability { capability: String },
}

/// A capability with its types erased.
trait Erased: Send + Sync {
    fn id(&self) -> TypeId;
    fn name(&self) -> &'static str;
    fn interfaces(&self) -> &'static [&'static str];
    fn link_to(&self, linker: &mut Linker<HostState>, calls: Calls) -> wasmtime::Result<()>;
    fn bind_to(&self, grant: &Value, memory: &Arc<HostBytes>) -> Box<dyn Any + Send>;
    fn packed(&self, grant: &Value) -> Option<Vec<u8>>;
    fn unpacked(&self, packed: &[u8], channels: &Channels) -> Result<Value, BoxError>;
    fn served(&self, grant: &Value, method: &str, message: Body) -> Served;
    fn channels(&self, limits: &Limits) -> usize;
}

/// What was put in as `C`'s grant under `C`'s id.
fn of<C: Capability>(grant: &Value) -> &C::Grant {
    let grant = grant.downcast_ref();
    grant.expect("a grant has the type of its capability")
}

impl<C: Capability> Erased for C {
    fn id(&self) -> TypeId {
        TypeId::of::<C>()
    }
    fn name(&self) -> &'static str {
        C::NAME
    }
    fn interfaces(&self) -> &'static [&'static str] {
        C::INTERFACES
    }
    fn link_to(&self, linker: &mut Linker<HostState>, calls: Calls) -> wasmtime::Result<()> {
        self.link(linker, calls)
    }
    fn bind_to(&self, grant: &Value, memory: &Arc<HostBytes>) -> Box<dyn Any + Send> {
        Box::new(self.bind(of::<C>(grant), memory))
    }
    fn packed(&self, grant: &Value) -> Option<Vec<u8>> {
        self.pack(of::<C>(grant))
    }
    fn unpacked(&self, packed: &[u8], channels: &Channels) -> Result<Value, BoxError> {
        Ok(Arc::new(self.unpack(packed, channels)?))
    }
    fn served(&self, grant: &Value, method: &str, message: Body) -> Served {
        self.serve(of::<C>(grant), method, message)
    }
    fn channels(&self, limits: &Limits) -> usize {
        self.channels_max(limits)
    }
}

/// Those of one engine.
#[derive(Clone, Default)]
pub(crate) struct Capabilities(Vec<Arc<dyn Erased>>);

impl Capabilities {
    pub(crate) fn add(&mut self, capability: impl Capability) {
        self.0.push(Arc::new(capability));
    }

    pub(crate) fn link(
        &self,
        linker: &mut Linker<HostState>,
        calls: Calls,
    ) -> wasmtime::Result<()> {
        let mut capabilities = self.0.iter();
        capabilities.try_for_each(|capability| capability.link_to(linker, calls))
    }

    /// The interfaces that are offered.
    pub(crate) fn interfaces(&self) -> impl Iterator<Item = &'static str> {
        self.0
            .iter()
            .flat_map(|capability| capability.interfaces())
            .copied()
    }

    /// What a workload of a component with these `imports`, all of which are linked, has of its `grants`.
    ///
    /// # Errors
    /// When something is imported that is not granted, or granted that is not there.
    pub(crate) fn granted(
        &self,
        grants: &Grants,
        imports: &[String],
    ) -> Result<Granted, GrantError> {
        let mut granted = Vec::new();
        for grant in &grants.0 {
            let found = self.0.iter().find(|found| found.id() == grant.capability);
            let capability = found.ok_or_else(|| GrantError::NoCapability {
                capability: grant.name.to_owned(),
            })?;
            granted.push((capability.clone(), grant.value.clone()));
        }
        for import in imports {
            // Whatever version it asks for, it was linked to what is offered under this name.
            let offers =
                |offered: &&str| without_version(offered) == without_version(import.as_str());
            let mut offering = self
                .0
                .iter()
                .filter(|capability| capability.interfaces().iter().any(offers))
                .peekable();
            let Some(first) = offering.peek().map(|capability| capability.name()) else {
                continue;
            };
            if !offering
                .any(|capability| granted.iter().any(|(had, _)| had.id() == capability.id()))
            {
                return Err(GrantError::NotGranted {
                    interface: import.clone(),
                    capability: first.to_owned(),
                });
            }
        }
        Ok(Granted(granted.into()))
    }

    /// The grants that a worker was told of.
    ///
    /// # Errors
    /// When one of them makes no sense here.
    pub(crate) fn unpack(&self, packed: &Packed, channels: &Channels) -> Result<Grants, BoxError> {
        let mut grants = Vec::new();
        for (name, packed) in packed {
            let capability = self.0.iter().find(|found| found.name() == name);
            let capability = capability.ok_or_else(|| GrantError::NoCapability {
                capability: name.clone(),
            })?;
            grants.push(Grant {
                name: capability.name(),
                capability: capability.id(),
                value: capability.unpacked(packed, channels)?,
            });
        }
        Ok(Grants(grants))
    }
}

/// Grants as a worker is told of them, by the names of their capabilities.
pub(crate) type Packed = BTreeMap<String, Vec<u8>>;

fn without_version(interface: &str) -> &str {
    interface
        .split_once('@')
        .map_or(interface, |(name, _)| name)
}

/// What a workload has of its engine's capabilities. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Granted(Arc<[(Arc<dyn Erased>, Value)]>);

impl Granted {
    /// What a new instance has.
    pub(crate) fn bind(&self, memory: &Arc<HostBytes>) -> Bound {
        let granted = self.0.iter();
        let bound =
            granted.map(|(capability, grant)| (capability.id(), capability.bind_to(grant, memory)));
        Bound(bound.collect())
    }

    /// What a worker process is told.
    ///
    /// # Errors
    /// The name of a capability that does not leave this process.
    pub(crate) fn pack(&self) -> Result<Packed, &'static str> {
        let mut all = Packed::new();
        for (capability, grant) in self.0.iter() {
            let packed = capability.packed(grant).ok_or(capability.name())?;
            all.insert(capability.name().to_owned(), packed);
        }
        Ok(all)
    }

    /// By name, how many channels a workload with these limits may have open to each.
    pub(crate) fn channels_max(&self, limits: &Limits) -> Vec<(&'static str, usize)> {
        let granted = self.0.iter();
        granted
            .map(|(capability, _)| (capability.name(), capability.channels(limits)))
            .collect()
    }

    /// Answers a channel to the capability of that name.
    pub(crate) fn serve(&self, name: &str, method: &str, message: Body) -> Served {
        let mut granted = self.0.iter();
        match granted.find(|(capability, _)| capability.name() == name) {
            Some((capability, grant)) => capability.served(grant, method, message),
            None => Box::pin(async { Err(ChannelError::NotGranted) }),
        }
    }
}

/// What an instance has of what its workload is granted.
#[derive(Default)]
pub(crate) struct Bound(Vec<(TypeId, Box<dyn Any + Send>)>);

impl Bound {
    pub(crate) fn of<C: Capability>(&mut self) -> Option<&mut C::Bound> {
        let id = TypeId::of::<C>();
        let (_, bound) = self
            .0
            .iter_mut()
            .find(|(capability, _)| *capability == id)?;
        bound.downcast_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Prices;

    impl Capability for Prices {
        const NAME: &'static str = "shop:prices";
        const INTERFACES: &'static [&'static str] = &["shop:prices/list@1.2.0"];
        type Grant = u32;
        type Bound = u32;

        fn link(&self, _: &mut Linker<HostState>, _: Calls) -> wasmtime::Result<()> {
            Ok(())
        }

        fn bind(&self, grant: &u32, _: &Arc<HostBytes>) -> u32 {
            *grant
        }
    }

    #[test]
    fn what_is_imported_has_to_be_granted_and_what_is_granted_has_to_be_there() {
        let mut capabilities = Capabilities::default();
        capabilities.add(Prices);
        let none = Grants::default();
        let mut prices = Grants::default();
        prices.give::<Prices>(7);
        prices.give::<Prices>(8);
        assert_eq!(prices.of::<Prices>(), Some(&8));
        let wasi = "wasi:cli/exit@0.2.0";
        for (capabilities, grants, imports, refusal) in [
            (&capabilities, &none, vec![wasi], None),
            (&capabilities, &prices, vec![wasi], None),
            (&capabilities, &prices, vec!["shop:prices/list@1.2.0"], None),
            (
                &capabilities,
                &none,
                vec![wasi, "shop:prices/list@1.1.0"],
                Some(
                    "the component imports shop:prices/list@1.1.0, and its workload is not granted shop:prices",
                ),
            ),
            (
                &Capabilities::default(),
                &prices,
                vec![wasi],
                Some("the workload is granted shop:prices, which this engine was not built with"),
            ),
        ] {
            let imports: Vec<String> = imports.into_iter().map(str::to_owned).collect();
            let granted = capabilities.granted(grants, &imports);
            let refused = granted.err().map(|error| error.to_string());
            assert_eq!(refused.as_deref(), refusal, "{imports:?}");
        }
    }

    #[test]
    fn a_grant_that_does_not_leave_its_process_says_so() {
        let mut capabilities = Capabilities::default();
        capabilities.add(Prices);
        let mut prices = Grants::default();
        prices.give::<Prices>(7);
        let granted = capabilities.granted(&prices, &[]).expect("it is there");
        assert_eq!(granted.pack(), Err("shop:prices"));
    }
}
