//! The control socket: one message each way at a time, with files on the side.
//!
//! A message is its length in eight bytes and then JSON. File descriptors travel with the length. Both ends block: who
//! must not, asks from a thread that may.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::engine::Calls;

/// File descriptors in one message: two for each core. The kernel takes no more than 253.
pub(super) const FILES_MAX: usize = 250;
/// Bytes of one message. They are a few hundred.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// To the worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Command {
    /// The first one. With it come the sockets: for each lane that of calls, then that of outbound requests.
    Start,
    /// Take the code that comes with it, which is the artefact `digest`, for the workload `id`.
    Load {
        id: u64,
        digest: String,
        calls: Calls,
    },
}

/// From the worker, one for each command.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Done,
    Failed { reason: String },
}

pub(super) fn send(
    socket: &UnixStream,
    message: &impl Serialize,
    files: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = (body.len() as u64).to_be_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::Error::other("too many files for one message"));
    }
    let sent = sendmsg(
        socket,
        &[IoSlice::new(&length)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    let mut socket = socket;
    // Eight bytes are never split by a stream socket with room, but nothing promises it.
    socket.write_all(&length[sent..])?;
    socket.write_all(&body)
}

/// The next message and its files; none when the other side is gone.
pub(super) fn receive<T: DeserializeOwned>(
    socket: &UnixStream,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut length = [0; 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut length)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut files = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            files.extend(received);
        }
    }
    let mut socket = socket;
    socket.read_exact(&mut length[received.bytes..])?;
    let length = usize::try_from(u64::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::other("a control message is too long"));
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body)?;
    Ok(Some((serde_json::from_slice(&body)?, files)))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn messages_carry_files_and_an_end_is_an_end() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut inside, outside) = UnixStream::pair().unwrap();
        send(&ours, &Command::Start, &[outside.as_fd(), outside.as_fd()]).unwrap();
        let load = Command::Load {
            id: 7,
            digest: "d".into(),
            calls: Calls::Serial,
        };
        send(&ours, &load, &[]).unwrap();
        let (command, files) = receive::<Command>(&theirs).unwrap().unwrap();
        assert!(matches!(command, Command::Start));
        assert_eq!(files.len(), 2);
        UnixStream::from(files.into_iter().next().unwrap())
            .write_all(b"hi")
            .unwrap();
        let mut heard = [0; 2];
        inside.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hi");
        let (command, files) = receive::<Command>(&theirs).unwrap().unwrap();
        assert!(matches!(command, Command::Load { id: 7, .. }) && files.is_empty());
        drop(ours);
        assert!(receive::<Command>(&theirs).unwrap().is_none());
    }

    #[test]
    fn a_length_without_sense_is_refused() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (&ours).write_all(&u64::MAX.to_be_bytes()).unwrap();
        assert!(receive::<Command>(&theirs).is_err());
    }
}
