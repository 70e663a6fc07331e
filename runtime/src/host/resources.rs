//! What a guest has the host hold for it, charged to the memory of its workload.
//!
//! Chunks of a body of WASI 0.2 are charged one by one when they are written ([`Counted`]), and stay charged until the last of their
//! bytes has left this process or was dropped. Header fields, paths and methods live in the table of resources, whose functions are
//! those of wasmtime: the ones by which it grows are linked anew here, add up what may have come, and have the table counted when
//! that is more than [`COUNT_AFTER_BYTES`]. Bodies of WASI 0.3 hold one chunk each while they are open (`host::http`, `workload`).
//!
//! Invariants: what a store's table holds beyond what was charged is at most [`COUNT_AFTER_BYTES`] and one call's bytes; a guest that
//! would have more than its workload's memory ends as one that ran out of it.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::{DynOutputStream, OutputStream, Pollable, StreamError};
use wasmtime_wasi_http::p2::bindings::http::types as types_p2;
use wasmtime_wasi_http::p2::body::HostOutgoingBody;
use wasmtime_wasi_http::p2::types::{HostOutgoingRequest, HostOutgoingResponse};
use wasmtime_wasi_http::p3::bindings::http::types as types_p3;
use wasmtime_wasi_http::{FieldMap, WasiHttpView, p3};

use crate::host::HostState;
use crate::host::keyvalue::{Bucket, Cas};
use crate::host::shadow::Shadow;
use crate::limits::HostBytes;

/// Bytes that may come into the table before it is counted: more than the calls of a well-behaved guest bring in a while, since
/// counting looks at each resource.
const COUNT_AFTER_BYTES: usize = 64 << 10;
/// A resource with what it consists of, whatever is in it: an entry, two allocations, for a body a channel of two chunks.
const RESOURCE_BYTES: u64 = 512;
/// A header field, beside its text.
const FIELD_BYTES: usize = 64;

impl HostState {
    /// A resource that holds `bytes` is in the table now.
    pub(super) fn took_resource(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.took(bytes.saturating_add(RESOURCE_BYTES as usize))
    }

    /// Up to `bytes` more are in the table now.
    pub(super) fn took(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.uncounted = self.uncounted.saturating_add(bytes);
        if self.uncounted <= COUNT_AFTER_BYTES {
            return Ok(());
        }
        self.uncounted = 0;
        let held = self.table.iter_mut().map(|resource| bytes_of(resource));
        let held = held.sum();
        self.memory.set_resources(held)
    }
}

/// What a resource holds.
fn bytes_of(resource: &(dyn Any + Send)) -> u64 {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let held = if let Some(fields) = resource.downcast_ref::<FieldMap>() {
        bytes_of_fields(fields)
    } else if let Some(request) = resource.downcast_ref::<HostOutgoingRequest>() {
        bytes_of_fields(&request.headers)
            + text(&request.path_with_query)
            + text(&request.authority)
            + method_p2(&request.method)
    } else if let Some(response) = resource.downcast_ref::<HostOutgoingResponse>() {
        bytes_of_fields(&response.headers)
    } else if let Some(request) = resource.downcast_ref::<p3::Request>() {
        let path = request.path_with_query.as_ref();
        let authority = request.authority.as_ref();
        bytes_of_fields(&request.headers)
            + path.map_or(0, |path| path.as_str().len())
            + authority.map_or(0, |authority| authority.as_str().len())
            + request.method.as_str().len()
    } else if let Some(response) = resource.downcast_ref::<p3::Response>() {
        bytes_of_fields(&response.headers)
    } else if let Some(bucket) = resource.downcast_ref::<Bucket>() {
        bucket.bytes()
    } else if let Some(cas) = resource.downcast_ref::<Cas>() {
        cas.bytes()
    } else {
        0
    };
    RESOURCE_BYTES + held as u64
}

fn bytes_of_fields(fields: &FieldMap) -> usize {
    let fields = fields.iter();
    fields
        .map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES)
        .sum()
}

fn method_p2(method: &types_p2::Method) -> usize {
    match method {
        types_p2::Method::Other(text) => text.len(),
        _ => 0,
    }
}

fn method_p3(method: &types_p3::Method) -> usize {
    match method {
        types_p3::Method::Other(text) => text.len(),
        _ => 0,
    }
}

/// Links the functions by which header fields grow, which are the same in both versions of the interface.
macro_rules! count_fields {
    ($linker:expr, $types:ident) => {
        $linker.func_wrap(
            "[static]fields.from-list",
            |mut store: StoreContextMut<'_, HostState>, (entries,): (Vec<(String, Vec<u8>)>,)| {
                let state = store.data_mut();
                let sizes = entries
                    .iter()
                    .map(|(name, value)| name.len() + value.len() + FIELD_BYTES);
                let bytes = sizes.sum();
                let made = match $types::HostFields::from_list(&mut state.http(), entries) {
                    Ok(made) => Ok(made),
                    Err(error) => Err(error.downcast()?),
                };
                state.took(bytes)?;
                Ok((made,))
            },
        )?;
        $linker.func_wrap(
            "[method]fields.set",
            |mut store: StoreContextMut<'_, HostState>,
             (fields, name, values): (Resource<FieldMap>, String, Vec<Vec<u8>>)| {
                let state = store.data_mut();
                let sizes = values.iter().map(|value| value.len() + FIELD_BYTES);
                let bytes = sizes.sum::<usize>() + name.len();
                let set = match $types::HostFields::set(&mut state.http(), fields, name, values) {
                    Ok(()) => Ok(()),
                    Err(error) => Err(error.downcast()?),
                };
                state.took(bytes)?;
                Ok((set,))
            },
        )?;
        $linker.func_wrap(
            "[method]fields.append",
            |mut store: StoreContextMut<'_, HostState>,
             (fields, name, value): (Resource<FieldMap>, String, Vec<u8>)| {
                let state = store.data_mut();
                let bytes = name.len() + value.len() + FIELD_BYTES;
                let set = match $types::HostFields::append(&mut state.http(), fields, name, value) {
                    Ok(()) => Ok(()),
                    Err(error) => Err(error.downcast()?),
                };
                state.took(bytes)?;
                Ok((set,))
            },
        )?;
        $linker.func_wrap(
            "[method]fields.clone",
            |mut store: StoreContextMut<'_, HostState>, (fields,): (Resource<FieldMap>,)| {
                let state = store.data_mut();
                // They are copied when one of the two changes, which may be at once.
                let bytes = bytes_of_fields(state.table.get(&fields)?);
                let clone = $types::HostFields::clone(&mut state.http(), fields)?;
                state.took(bytes)?;
                Ok((clone,))
            },
        )?;
    };
}

/// Links the functions by which the head of a request grows.
macro_rules! count_request {
    ($linker:expr, $types:ident, $name:literal, $trait:ident, $resource:ty, $method:ident) => {
        $linker.func_wrap(
            concat!("[method]", $name, ".set-method"),
            |mut store: StoreContextMut<'_, HostState>,
             (request, method): (Resource<$resource>, $types::Method)| {
                let state = store.data_mut();
                let bytes = $method(&method);
                let set = $types::$trait::set_method(&mut state.http(), request, method)?;
                state.took(bytes)?;
                Ok((set,))
            },
        )?;
        $linker.func_wrap(
            concat!("[method]", $name, ".set-path-with-query"),
            |mut store: StoreContextMut<'_, HostState>,
             (request, path): (Resource<$resource>, Option<String>)| {
                let state = store.data_mut();
                let bytes = path.as_ref().map_or(0, String::len);
                let set = $types::$trait::set_path_with_query(&mut state.http(), request, path)?;
                state.took(bytes)?;
                Ok((set,))
            },
        )?;
        $linker.func_wrap(
            concat!("[method]", $name, ".set-authority"),
            |mut store: StoreContextMut<'_, HostState>,
             (request, authority): (Resource<$resource>, Option<String>)| {
                let state = store.data_mut();
                let bytes = authority.as_ref().map_or(0, String::len);
                let set = $types::$trait::set_authority(&mut state.http(), request, authority)?;
                state.took(bytes)?;
                Ok((set,))
            },
        )?;
    };
}

/// `wasi:http/types` of WASI 0.2.
pub(super) fn link_p2(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    let mut types = Shadow::new(linker, "wasi:http/types@0.2.12");
    count_fields!(types, types_p2);
    count_request!(
        types,
        types_p2,
        "outgoing-request",
        HostOutgoingRequest,
        HostOutgoingRequest,
        method_p2
    );
    types.func_wrap("[method]outgoing-body.write", write_p2)
}

/// `wasi:http/types` of WASI 0.3.
pub(super) fn link_p3(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    let mut types = Shadow::new(linker, "wasi:http/types@0.3.0");
    count_fields!(types, types_p3);
    count_request!(
        types,
        types_p3,
        "request",
        HostRequest,
        p3::Request,
        method_p3
    );
    Ok(())
}

/// The stream of a body, which charges what is written to it.
fn write_p2(
    mut store: StoreContextMut<'_, HostState>,
    (body,): (Resource<HostOutgoingBody>,),
) -> wasmtime::Result<(Result<Resource<DynOutputStream>, ()>,)> {
    let state = store.data_mut();
    let Some(stream) = state.table.get_mut(&body)?.take_output_stream() else {
        return Ok((Err(()),));
    };
    let counted: DynOutputStream = Box::new(Counted {
        stream,
        host: state.memory.host().clone(),
    });
    Ok((Ok(state.table.push_child(counted, &body)?),))
}

/// A stream to which nothing is written that its guest's workload has no memory for.
struct Counted {
    stream: DynOutputStream,
    host: Arc<HostBytes>,
}

#[async_trait]
impl OutputStream for Counted {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        let bytes = self.host.charged(bytes).map_err(StreamError::Trap)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        self.stream.flush()
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        self.stream.check_write()
    }

    async fn cancel(&mut self) {
        self.stream.cancel().await;
    }
}

#[async_trait]
impl Pollable for Counted {
    async fn ready(&mut self) {
        self.stream.ready().await;
    }
}
