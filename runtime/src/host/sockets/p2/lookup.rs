//! Names: a lookup is begun, waited for, and gives its addresses one by one.

use std::future::poll_fn;
use std::net::IpAddr;
use std::task::{Context, Poll};
use std::vec;

use futures::future::BoxFuture;
use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{self, ResolveAddressStream};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, Pollable, SocketResult, subscribe};

use super::super::{View, is_name, let_go, ours, theirs};
use super::now;

/// A name that is being looked up.
enum Lookup {
    Asking(BoxFuture<'static, Result<vec::IntoIter<IpAddr>, ErrorCode>>),
    Answered(Result<vec::IntoIter<IpAddr>, ErrorCode>),
}

impl Lookup {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<&mut Result<vec::IntoIter<IpAddr>, ErrorCode>> {
        if let Lookup::Asking(asking) = self {
            match asking.as_mut().poll(cx) {
                Poll::Ready(answer) => *self = Lookup::Answered(answer),
                Poll::Pending => return Poll::Pending,
            }
        }
        match self {
            Lookup::Answered(answer) => Poll::Ready(answer),
            Lookup::Asking(_) => Poll::Pending,
        }
    }
}

impl ip_name_lookup::Host for View<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> SocketResult<Resource<ResolveAddressStream>> {
        self.table.get(&network)?;
        let known = self.network.ok_or(ErrorCode::PermanentResolverFailure)?;
        if !is_name(&name) {
            return Err(ErrorCode::InvalidArgument.into());
        }
        let asking = known.resolve(name);
        let lookup = Lookup::Asking(Box::pin(async move {
            let found = asking.await.map_err(|error| unresolved(&error))?;
            Ok(found.into_iter())
        }));
        Ok(theirs(&self.table.push(lookup)?))
    }
}

fn unresolved(error: &std::io::Error) -> ErrorCode {
    match error.kind() {
        std::io::ErrorKind::NotFound => ErrorCode::NameUnresolvable,
        std::io::ErrorKind::PermissionDenied => ErrorCode::AccessDenied,
        _ => ErrorCode::TemporaryResolverFailure,
    }
}

impl ip_name_lookup::HostResolveAddressStream for View<'_> {
    fn resolve_next_address(
        &mut self,
        this: Resource<ResolveAddressStream>,
    ) -> SocketResult<Option<IpAddress>> {
        let lookup = self.table.get_mut(&ours::<_, Lookup>(&this))?;
        match lookup.poll(&mut now()) {
            Poll::Pending => Err(ErrorCode::WouldBlock.into()),
            Poll::Ready(Ok(addresses)) => Ok(addresses.next().map(IpAddress::from)),
            Poll::Ready(Err(code)) => Err((*code).into()),
        }
    }

    fn subscribe(
        &mut self,
        this: Resource<ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, ours::<_, Lookup>(&this))
    }

    fn drop(&mut self, this: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.table.delete(let_go::<_, Lookup>(&this))?;
        Ok(())
    }
}

#[async_trait]
impl Pollable for Lookup {
    async fn ready(&mut self) {
        poll_fn(|cx| self.poll(cx).map(drop)).await;
    }
}
