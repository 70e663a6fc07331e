//! The functions of WASI 0.3, and the codes and flags of 0.2 that the work is done in.

use std::fs::File;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wasmtime::component::{
    Access, Accessor, FutureReader, Linker, Resource, Source, StreamConsumer, StreamReader,
    StreamResult,
};
use wasmtime::{AsContextMut, StoreContextMut};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, ErrorCode, OpenFlags, PathFlags,
};
use wasmtime_wasi::p3::bindings::filesystem::types::{self as p3, HostDescriptorWithStore};
use wasmtime_wasi::p3::filesystem::FilesystemResult;

use super::{CHUNK_BYTES, Change, Ends, Here, code, get_directories, writes};
use crate::host::HostState;
use crate::host::shadow::Shadow;
use crate::volume::Volume;

/// `wasi:filesystem` of WASI 0.3.
pub(in crate::host) fn link(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    Shadow::new(linker, "wasi:filesystem/preopens@0.3.0")
        .func_wrap("get-directories", get_directories)?;
    let mut types = Shadow::new(linker, "wasi:filesystem/types@0.3.0");
    types.func_wrap(
        "[method]descriptor.write-via-stream",
        |mut store: StoreContextMut<'_, HostState>,
         (fd, data, offset): (Resource<Descriptor>, StreamReader<u8>, u64)| {
            Ok((match store.data().here(&fd)? {
                Some(here) => consume(store, &here, data, Some(offset))?,
                None => {
                    let access = access(&mut store);
                    WasiFilesystem::write_via_stream(access, fd, data, offset)?
                }
            },))
        },
    )?;
    types.func_wrap(
        "[method]descriptor.append-via-stream",
        |mut store: StoreContextMut<'_, HostState>,
         (fd, data): (Resource<Descriptor>, StreamReader<u8>)| {
            Ok((match store.data().here(&fd)? {
                Some(here) => consume(store, &here, data, None)?,
                None => {
                    let access = access(&mut store);
                    WasiFilesystem::append_via_stream(access, fd, data)?
                }
            },))
        },
    )?;
    types.func_wrap_concurrent(
        "[method]descriptor.set-size",
        |accessor: &Accessor<HostState>, (fd, size): (Resource<Descriptor>, u64)| {
            Box::pin(async move {
                match accessor.with(|mut access| access.get().here(&fd))? {
                    Some(here) => Ok((here.set_size(size).await.map_err(p3_code),)),
                    None => said(WasiFilesystem::set_size(&files(accessor), fd, size).await),
                }
            })
        },
    )?;
    types.func_wrap_concurrent(
        "[method]descriptor.open-at",
        |accessor: &Accessor<HostState>,
         (fd, path_flags, path, open, flags): (
            Resource<Descriptor>,
            p3::PathFlags,
            String,
            p3::OpenFlags,
            p3::DescriptorFlags,
        )| {
            Box::pin(async move {
                let changes = writes(p2_open_flags(open), p2_flags(flags));
                if changes && is_read_only(accessor, &fd)? {
                    return Ok((Err(p3::ErrorCode::ReadOnly),));
                }
                let Some(here) = accessor.with(|mut access| access.get().here(&fd))? else {
                    let files = files(accessor);
                    let opened = WasiFilesystem::open_at(&files, fd, path_flags, path, open, flags);
                    return said(opened.await);
                };
                let opened = here.open(Change::Open {
                    path_flags: p2_path_flags(path_flags),
                    path,
                    open: p2_open_flags(open),
                    flags: p2_flags(flags),
                });
                match opened.await {
                    Ok(opened) => {
                        let push = accessor.with(|mut access| access.get().table.push(opened));
                        Ok((Ok(push?),))
                    }
                    Err(error) => Ok((Err(p3_code(error.downcast()?)),)),
                }
            })
        },
    )?;
    types.func_wrap_concurrent(
        "[method]descriptor.create-directory-at",
        |accessor: &Accessor<HostState>, (fd, path): (Resource<Descriptor>, String)| {
            Box::pin(async move {
                if is_read_only(accessor, &fd)? {
                    return Ok((Err(p3::ErrorCode::ReadOnly),));
                }
                match accessor.with(|mut access| access.get().here(&fd))? {
                    Some(here) => made(here.change(Change::CreateDirectory(path)).await),
                    None => {
                        said(WasiFilesystem::create_directory_at(&files(accessor), fd, path).await)
                    }
                }
            })
        },
    )?;
    types.func_wrap_concurrent(
        "[method]descriptor.remove-directory-at",
        |accessor: &Accessor<HostState>, (fd, path): (Resource<Descriptor>, String)| {
            Box::pin(async move {
                if is_read_only(accessor, &fd)? {
                    return Ok((Err(p3::ErrorCode::ReadOnly),));
                }
                match accessor.with(|mut access| access.get().here(&fd))? {
                    Some(here) => made(here.change(Change::RemoveDirectory(path)).await),
                    None => {
                        said(WasiFilesystem::remove_directory_at(&files(accessor), fd, path).await)
                    }
                }
            })
        },
    )?;
    types.func_wrap_concurrent(
        "[method]descriptor.unlink-file-at",
        |accessor: &Accessor<HostState>, (fd, path): (Resource<Descriptor>, String)| {
            Box::pin(async move {
                if is_read_only(accessor, &fd)? {
                    return Ok((Err(p3::ErrorCode::ReadOnly),));
                }
                match accessor.with(|mut access| access.get().here(&fd))? {
                    Some(here) => made(here.change(Change::RemoveFile(path)).await),
                    None => said(WasiFilesystem::unlink_file_at(&files(accessor), fd, path).await),
                }
            })
        },
    )?;
    types.func_wrap_concurrent(
        "[method]descriptor.symlink-at",
        |accessor: &Accessor<HostState>,
         (fd, target, path): (Resource<Descriptor>, String, String)| {
            Box::pin(async move {
                if is_read_only(accessor, &fd)? {
                    return Ok((Err(p3::ErrorCode::ReadOnly),));
                }
                match accessor.with(|mut access| access.get().here(&fd))? {
                    Some(here) => made(here.change(Change::Symlink { target, path }).await),
                    None => {
                        said(WasiFilesystem::symlink_at(&files(accessor), fd, target, path).await)
                    }
                }
            })
        },
    )?;
    types.func_wrap_concurrent(
        "[method]descriptor.link-at",
        |accessor: &Accessor<HostState>,
         (fd, path_flags, path, new, new_path): (
            Resource<Descriptor>,
            p3::PathFlags,
            String,
            Resource<Descriptor>,
            String,
        )| {
            Box::pin(async move {
                if is_read_only(accessor, &fd)? || is_read_only(accessor, &new)? {
                    return Ok((Err(p3::ErrorCode::ReadOnly),));
                }
                match accessor.with(|mut access| access.get().ends(&fd, &new))? {
                    Some(Ends::Same(here, to)) => {
                        let path_flags = p2_path_flags(path_flags);
                        let change = Change::Link {
                            path_flags,
                            path,
                            to,
                            new_path,
                        };
                        made(here.change(change).await)
                    }
                    Some(Ends::Apart) => Ok((Err(p3::ErrorCode::CrossDevice),)),
                    None => {
                        let files = files(accessor);
                        let linked =
                            WasiFilesystem::link_at(&files, fd, path_flags, path, new, new_path);
                        said(linked.await)
                    }
                }
            })
        },
    )?;
    types.func_wrap_concurrent(
        "[method]descriptor.rename-at",
        |accessor: &Accessor<HostState>,
         (fd, path, new, new_path): (
            Resource<Descriptor>,
            String,
            Resource<Descriptor>,
            String,
        )| {
            Box::pin(async move {
                if is_read_only(accessor, &fd)? || is_read_only(accessor, &new)? {
                    return Ok((Err(p3::ErrorCode::ReadOnly),));
                }
                match accessor.with(|mut access| access.get().ends(&fd, &new))? {
                    Some(Ends::Same(here, to)) => {
                        made(here.change(Change::Rename { path, to, new_path }).await)
                    }
                    Some(Ends::Apart) => Ok((Err(p3::ErrorCode::CrossDevice),)),
                    None => {
                        let files = files(accessor);
                        let renamed = WasiFilesystem::rename_at(&files, fd, path, new, new_path);
                        said(renamed.await)
                    }
                }
            })
        },
    )?;
    Ok(())
}

fn access<'a>(
    store: &'a mut StoreContextMut<'_, HostState>,
) -> Access<'a, HostState, WasiFilesystem> {
    Access::<_, WasiFilesystem>::new(store.as_context_mut(), HostState::filesystem)
}

fn files(accessor: &Accessor<HostState>) -> Accessor<HostState, WasiFilesystem> {
    accessor.with_getter::<WasiFilesystem>(HostState::filesystem)
}

fn is_read_only(
    accessor: &Accessor<HostState>,
    descriptor: &Resource<Descriptor>,
) -> wasmtime::Result<bool> {
    accessor.with(|mut access| access.get().is_read_only(descriptor))
}

type Said<T> = wasmtime::Result<(Result<T, p3::ErrorCode>,)>;

fn said<T>(result: FilesystemResult<T>) -> Said<T> {
    Ok((match result {
        Ok(value) => Ok(value),
        Err(error) => Err(error.downcast()?),
    },))
}

fn made(result: FsResult<Option<Descriptor>>) -> Said<()> {
    Ok((match result {
        Ok(_) => Ok(()),
        Err(error) => Err(p3_code(error.downcast()?)),
    },))
}

/// Has what comes in `data` written, and tells how it ended.
fn consume(
    mut store: StoreContextMut<'_, HostState>,
    here: &Here,
    mut data: StreamReader<u8>,
    offset: Option<u64>,
) -> wasmtime::Result<FutureReader<Result<(), p3::ErrorCode>>> {
    let (result, told) = oneshot::channel();
    match here.file() {
        Ok(file) => data.pipe(
            &mut store,
            Consumer {
                volume: here.volume.clone(),
                file: file.clone(),
                offset,
                task: None,
                result: Some(result),
            },
        )?,
        Err(code) => {
            data.close(&mut store)?;
            // The other end is below.
            let _ = result.send(Err(p3_code(code)));
        }
    }
    FutureReader::new(&mut store, told)
}

/// The other end of a stream of 0.3 that goes into a file.
struct Consumer {
    volume: Volume,
    file: Arc<File>,
    /// Where the next bytes go; at the end, if nowhere in particular.
    offset: Option<u64>,
    task: Option<JoinHandle<io::Result<usize>>>,
    result: Option<oneshot::Sender<Result<(), p3::ErrorCode>>>,
}

impl Consumer {
    fn end(&mut self, result: Result<(), p3::ErrorCode>) {
        if let Some(sender) = self.result.take() {
            // A guest that is gone does not listen any more.
            let _ = sender.send(result);
        }
    }
}

impl StreamConsumer<HostState> for Consumer {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'_, HostState>,
        source: Source<'_, u8>,
        _finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let mut source = source.as_direct(store);
        let me = &mut *self;
        if me.task.is_none() {
            let bytes = source.remaining();
            if bytes.is_empty() {
                return Poll::Ready(Ok(StreamResult::Completed));
            }
            let bytes = Bytes::copy_from_slice(&bytes[..bytes.len().min(CHUNK_BYTES)]);
            let (volume, file, offset) = (me.volume.clone(), me.file.clone(), me.offset);
            let write = async move { volume.write(&file, offset, bytes).await };
            me.task = Some(tokio::spawn(write));
        }
        let Some(task) = &mut me.task else {
            return Poll::Pending;
        };
        // Not given up when the guest does: bytes that are written were consumed.
        let written =
            ready!(Pin::new(task).poll(cx)).unwrap_or_else(|error| Err(io::Error::other(error)));
        me.task = None;
        match written {
            Ok(bytes) => {
                source.mark_read(bytes);
                me.offset = me.offset.map(|offset| offset.saturating_add(bytes as u64));
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Err(error) => {
                me.end(Err(p3_code(code(&error))));
                Poll::Ready(Ok(StreamResult::Dropped))
            }
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.end(Ok(()));
    }
}

/// 0.3 has all codes of 0.2 but one.
fn p3_code(code: ErrorCode) -> p3::ErrorCode {
    macro_rules! same {
        ($($name:ident)*) => {
            match code {
                $(ErrorCode::$name => p3::ErrorCode::$name,)*
                ErrorCode::WouldBlock => p3::ErrorCode::Other(Some("would block".to_owned())),
            }
        };
    }
    same!(
        Access Already BadDescriptor Busy Deadlock Quota Exist FileTooLarge IllegalByteSequence InProgress Interrupted
        Invalid Io IsDirectory Loop TooManyLinks MessageSize NameTooLong NoDevice NoEntry NoLock InsufficientMemory
        InsufficientSpace NotDirectory NotEmpty NotRecoverable Unsupported NoTty NoSuchDevice Overflow NotPermitted Pipe
        ReadOnly InvalidSeek TextFileBusy CrossDevice
    )
}

fn p2_path_flags(flags: p3::PathFlags) -> PathFlags {
    match flags.contains(p3::PathFlags::SYMLINK_FOLLOW) {
        true => PathFlags::SYMLINK_FOLLOW,
        false => PathFlags::empty(),
    }
}

fn p2_open_flags(flags: p3::OpenFlags) -> OpenFlags {
    [
        (p3::OpenFlags::CREATE, OpenFlags::CREATE),
        (p3::OpenFlags::DIRECTORY, OpenFlags::DIRECTORY),
        (p3::OpenFlags::EXCLUSIVE, OpenFlags::EXCLUSIVE),
        (p3::OpenFlags::TRUNCATE, OpenFlags::TRUNCATE),
    ]
    .into_iter()
    .filter(|(theirs, _)| flags.contains(*theirs))
    .fold(OpenFlags::empty(), |all, (_, ours)| all | ours)
}

fn p2_flags(flags: p3::DescriptorFlags) -> DescriptorFlags {
    use DescriptorFlags as P2;
    use p3::DescriptorFlags as P3;
    [
        (P3::READ, P2::READ),
        (P3::WRITE, P2::WRITE),
        (P3::FILE_INTEGRITY_SYNC, P2::FILE_INTEGRITY_SYNC),
        (P3::DATA_INTEGRITY_SYNC, P2::DATA_INTEGRITY_SYNC),
        (P3::REQUESTED_WRITE_SYNC, P2::REQUESTED_WRITE_SYNC),
        (P3::MUTATE_DIRECTORY, P2::MUTATE_DIRECTORY),
    ]
    .into_iter()
    .filter(|(theirs, _)| flags.contains(*theirs))
    .fold(P2::empty(), |all, (_, ours)| all | ours)
}
