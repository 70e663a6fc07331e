//! The functions of WASI 0.2.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, ErrorCode, Host as _, HostDescriptor, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::bindings::io::error::Error as IoError;
use wasmtime_wasi::p2::{DynOutputStream, FsResult, OutputStream, Pollable, StreamError};

use super::{CHUNK_BYTES, Change, Ends, Here, code, get_directories, writes};
use crate::host::HostState;
use crate::host::shadow::Shadow;
use crate::volume::Volume;

type Said<T> = wasmtime::Result<(Result<T, ErrorCode>,)>;

fn said<T>(result: FsResult<T>) -> Said<T> {
    Ok((match result {
        Ok(value) => Ok(value),
        Err(error) => Err(error.downcast()?),
    },))
}

/// `wasi:filesystem` of WASI 0.2.
pub(in crate::host) fn link(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    Shadow::new(linker, "wasi:filesystem/preopens@0.2.12")
        .func_wrap("get-directories", get_directories)?;
    let mut types = Shadow::new(linker, "wasi:filesystem/types@0.2.12");
    types.func_wrap("filesystem-error-code", error_code)?;
    types.func_wrap(
        "[method]descriptor.write-via-stream",
        |mut store: StoreContextMut<'_, HostState>, (fd, offset): (Resource<Descriptor>, u64)| {
            let state = store.data_mut();
            said(match state.here(&fd)? {
                Some(here) => stream(state, &here, Some(offset)),
                None => state.filesystem().write_via_stream(fd, offset),
            })
        },
    )?;
    types.func_wrap(
        "[method]descriptor.append-via-stream",
        |mut store: StoreContextMut<'_, HostState>, (fd,): (Resource<Descriptor>,)| {
            let state = store.data_mut();
            said(match state.here(&fd)? {
                Some(here) => stream(state, &here, None),
                None => state.filesystem().append_via_stream(fd),
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.write",
        |mut store: StoreContextMut<'_, HostState>,
         (fd, data, offset): (Resource<Descriptor>, Vec<u8>, u64)| {
            Box::new(async move {
                let state = store.data_mut();
                let Some(here) = state.here(&fd)? else {
                    return said(state.filesystem().write(fd, data, offset).await);
                };
                let written = async {
                    let file = here.file()?;
                    let written = here.volume.write(file, Some(offset), data.into()).await;
                    written
                        .map(|bytes| bytes as u64)
                        .map_err(|error| code(&error))
                };
                Ok((written.await,))
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.set-size",
        |mut store: StoreContextMut<'_, HostState>, (fd, size): (Resource<Descriptor>, u64)| {
            Box::new(async move {
                let state = store.data_mut();
                match state.here(&fd)? {
                    Some(here) => Ok((here.set_size(size).await,)),
                    None => said(state.filesystem().set_size(fd, size).await),
                }
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.open-at",
        |mut store: StoreContextMut<'_, HostState>,
         (fd, path_flags, path, open, flags): (
            Resource<Descriptor>,
            PathFlags,
            String,
            OpenFlags,
            DescriptorFlags,
        )| {
            Box::new(async move {
                let state = store.data_mut();
                if writes(open, flags) && state.is_read_only(&fd)? {
                    return Ok((Err(ErrorCode::ReadOnly),));
                }
                let Some(here) = state.here(&fd)? else {
                    let mut files = state.filesystem();
                    return said(files.open_at(fd, path_flags, path, open, flags).await);
                };
                let opened = here.open(Change::Open {
                    path_flags,
                    path,
                    open,
                    flags,
                });
                match opened.await {
                    Ok(opened) => Ok((Ok(state.table.push(opened)?),)),
                    Err(error) => said(Err(error)),
                }
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.create-directory-at",
        |mut store: StoreContextMut<'_, HostState>, (fd, path): (Resource<Descriptor>, String)| {
            Box::new(async move {
                let state = store.data_mut();
                if state.is_read_only(&fd)? {
                    return Ok((Err(ErrorCode::ReadOnly),));
                }
                said(match state.here(&fd)? {
                    Some(here) => made(here.change(Change::CreateDirectory(path)).await),
                    None => state.filesystem().create_directory_at(fd, path).await,
                })
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.remove-directory-at",
        |mut store: StoreContextMut<'_, HostState>, (fd, path): (Resource<Descriptor>, String)| {
            Box::new(async move {
                let state = store.data_mut();
                if state.is_read_only(&fd)? {
                    return Ok((Err(ErrorCode::ReadOnly),));
                }
                said(match state.here(&fd)? {
                    Some(here) => made(here.change(Change::RemoveDirectory(path)).await),
                    None => state.filesystem().remove_directory_at(fd, path).await,
                })
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.unlink-file-at",
        |mut store: StoreContextMut<'_, HostState>, (fd, path): (Resource<Descriptor>, String)| {
            Box::new(async move {
                let state = store.data_mut();
                if state.is_read_only(&fd)? {
                    return Ok((Err(ErrorCode::ReadOnly),));
                }
                said(match state.here(&fd)? {
                    Some(here) => made(here.change(Change::RemoveFile(path)).await),
                    None => state.filesystem().unlink_file_at(fd, path).await,
                })
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.symlink-at",
        |mut store: StoreContextMut<'_, HostState>,
         (fd, target, path): (Resource<Descriptor>, String, String)| {
            Box::new(async move {
                let state = store.data_mut();
                if state.is_read_only(&fd)? {
                    return Ok((Err(ErrorCode::ReadOnly),));
                }
                said(match state.here(&fd)? {
                    Some(here) => made(here.change(Change::Symlink { target, path }).await),
                    None => state.filesystem().symlink_at(fd, target, path).await,
                })
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.link-at",
        |mut store: StoreContextMut<'_, HostState>,
         (fd, path_flags, path, new, new_path): (
            Resource<Descriptor>,
            PathFlags,
            String,
            Resource<Descriptor>,
            String,
        )| {
            Box::new(async move {
                let state = store.data_mut();
                if state.is_read_only(&fd)? || state.is_read_only(&new)? {
                    return Ok((Err(ErrorCode::ReadOnly),));
                }
                said(match state.ends(&fd, &new)? {
                    Some(Ends::Same(here, to)) => made(
                        here.change(Change::Link {
                            path_flags,
                            path,
                            to,
                            new_path,
                        })
                        .await,
                    ),
                    Some(Ends::Apart) => Err(ErrorCode::CrossDevice.into()),
                    None => {
                        let mut files = state.filesystem();
                        files.link_at(fd, path_flags, path, new, new_path).await
                    }
                })
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.rename-at",
        |mut store: StoreContextMut<'_, HostState>,
         (fd, path, new, new_path): (
            Resource<Descriptor>,
            String,
            Resource<Descriptor>,
            String,
        )| {
            Box::new(async move {
                let state = store.data_mut();
                if state.is_read_only(&fd)? || state.is_read_only(&new)? {
                    return Ok((Err(ErrorCode::ReadOnly),));
                }
                said(match state.ends(&fd, &new)? {
                    Some(Ends::Same(here, to)) => {
                        made(here.change(Change::Rename { path, to, new_path }).await)
                    }
                    Some(Ends::Apart) => Err(ErrorCode::CrossDevice.into()),
                    None => state.filesystem().rename_at(fd, path, new, new_path).await,
                })
            })
        },
    )?;
    Ok(())
}

fn made(result: FsResult<Option<Descriptor>>) -> FsResult<()> {
    result.map(drop)
}

/// What a stream into a file ended with. (wasmtime has no code for a quota.)
fn error_code(
    mut store: StoreContextMut<'_, HostState>,
    (error,): (Resource<IoError>,),
) -> wasmtime::Result<(Option<ErrorCode>,)> {
    let state = store.data_mut();
    let found = state.table.get(&error)?.downcast_ref::<io::Error>();
    match found.map(code) {
        Some(code) => Ok((Some(code),)),
        None => Ok((state.filesystem().filesystem_error_code(error)?,)),
    }
}

fn stream(
    state: &mut HostState,
    here: &Here,
    offset: Option<u64>,
) -> FsResult<Resource<DynOutputStream>> {
    let stream: DynOutputStream = Box::new(Writer {
        volume: here.volume.clone(),
        file: here.file()?.clone(),
        offset,
        state: Writing::Ready,
    });
    Ok(state.table.push(stream)?)
}

/// A stream of 0.2 into a file.
struct Writer {
    volume: Volume,
    file: Arc<File>,
    /// Where the next bytes go; at the end, if nowhere in particular.
    offset: Option<u64>,
    state: Writing,
}

enum Writing {
    Ready,
    Busy(JoinHandle<io::Result<()>>, u64),
    Failed(io::Error),
    Closed,
}

impl Writer {
    /// Whether it takes bytes. An error is told once.
    fn open(&mut self) -> Result<bool, StreamError> {
        match std::mem::replace(&mut self.state, Writing::Closed) {
            Writing::Failed(error) => Err(StreamError::LastOperationFailed(error.into())),
            Writing::Closed => Err(StreamError::Closed),
            state => {
                let ready = matches!(state, Writing::Ready);
                self.state = state;
                Ok(ready)
            }
        }
    }
}

#[async_trait]
impl OutputStream for Writer {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        if !self.open()? {
            return Err(StreamError::trap("written before the stream was ready"));
        }
        let (volume, file, offset) = (self.volume.clone(), self.file.clone(), self.offset);
        let length = bytes.len() as u64;
        let task = tokio::spawn(async move { volume.write_all(&file, offset, bytes).await });
        self.state = Writing::Busy(task, length);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        self.open().map(drop)
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(if self.open()? { CHUNK_BYTES } else { 0 })
    }

    async fn cancel(&mut self) {
        self.ready().await;
    }
}

#[async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {
        let Writing::Busy(task, length) = &mut self.state else {
            return;
        };
        self.state = match task.await {
            Ok(Ok(())) => {
                self.offset = self.offset.map(|offset| offset.saturating_add(*length));
                Writing::Ready
            }
            Ok(Err(error)) => Writing::Failed(error),
            Err(error) => Writing::Failed(io::Error::other(error)),
        };
    }
}
