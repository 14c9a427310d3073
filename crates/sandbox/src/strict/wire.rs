//! What the runner and the sandbox's processes say to each other.
//!
//! The runner and the init share a socket: first go the [`Plan`](super::plan::Plan) and the answer to it, then one byte
//! for each attendant that is wanted, and with it the attendant's end of a socket of its own. On that go the
//! [`Request`] of a command, with the pipes for its output, and what becomes of it; then the next. Every message is
//! JSON behind its length, four bytes with the lowest first.
//!
//! The runner's own `framing` is not used here. It lies above the sandbox; it reads whole frames from a `Read`, where
//! here descriptors come with the first bytes of one; and what is too long it leaves out, where a command needs an
//! error. What it would save is the eight lines of [`encode`].

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::layer::MissingLayer;
use crate::Ending;

/// The longest message, in bytes: what a system call may have as arguments and environment, written as JSON, is
/// shorter.
const MAX_MESSAGE: u32 = 64 << 20;

/// The init's answer to the plan.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Setup {
    /// Every layer is there: attendants can be asked for.
    Ready,
    /// The first layer that cannot be had. The init is about to exit.
    Missing(MissingLayer),
}

/// One command, as its attendant gets it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) argv: Vec<String>,
    pub(super) directory: PathBuf,
    pub(super) env: BTreeMap<String, String>,
    pub(super) timeout_ms: u64,
}

/// What becomes of a command.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The request was read, and the program is about to be started: from now on it may have run.
    Starting,
    /// The program runs. [`Reply::Exited`] follows.
    Started,
    /// The program could not be started, with the error in errno.
    NotStarted(i32),
    /// The folder to run in could not be entered, with the error in errno.
    NoDirectory(i32),
    /// Nothing of the command is left.
    Exited(End),
}

/// How a command ended, and what is to be known besides.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct End {
    pub(super) code: i32,
    pub(super) signal: Option<i32>,
    pub(super) ending: Ending,
    /// How many processes ran still, and were ended.
    pub(super) left: u64,
    /// The names of some of them.
    pub(super) names: Vec<String>,
    pub(super) sought_network: bool,
    pub(super) tmp_full: bool,
}

/// What the runner says while a command runs: end it. Hanging up says the same.
pub(super) const CANCEL: u8 = b'c';

/// A message with its length, as it is sent.
pub(super) fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = u32::try_from(bytes.len() - 4)
        .ok()
        .filter(|length| *length <= MAX_MESSAGE);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::ArgumentListTooLong, "the command is too long"))?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// How long the message behind these four bytes is, in bytes.
fn length(prefix: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(prefix);
    if length > MAX_MESSAGE {
        return Err(io::Error::other("a message of the sandbox is too long"));
    }
    Ok(length as usize)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    serde_json::from_slice(bytes).map_err(io::Error::other)
}

/// Sends these bytes, the start of a message, and descriptors with them.
pub(super) fn send_descriptors(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(sent)
}

/// Reads at most so many bytes, and takes the descriptors that came with them. 0 bytes: the other side has hung up.
pub(super) fn receive_descriptors(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(bytes)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let descriptors = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    Ok((received.bytes, descriptors.collect()))
}

/// Whether the other side of a socket is gone, without waiting.
pub(super) fn has_hung_up(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let mut polled = [PollFd::from_borrowed_fd(socket, PollFlags::empty())];
    rustix::event::poll(&mut polled, Some(&Timespec::default()))?;
    Ok(polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR))
}

/// A command that was asked for, with the pipes for its output.
pub(super) struct ReceivedCommand {
    pub(super) request: Request,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// Waits for the next command; `None` when the runner has hung up.
pub(super) fn read_command(socket: BorrowedFd<'_>) -> io::Result<Option<ReceivedCommand>> {
    let mut prefix = [0; 4];
    let (count, descriptors) = loop {
        match receive_descriptors(socket, &mut prefix) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    if count == 0 {
        return Ok(None);
    }
    read_exactly(socket, &mut prefix[count..])?;
    let mut bytes = vec![0; length(prefix)?];
    read_exactly(socket, &mut bytes)?;
    let mut descriptors = descriptors.into_iter();
    match (descriptors.next(), descriptors.next()) {
        (Some(stdout), Some(stderr)) => Ok(Some(ReceivedCommand {
            request: decode(&bytes)?,
            stdout,
            stderr,
        })),
        _ => Err(io::Error::other("a command came without the pipes for its output")),
    }
}

/// The runner's side: the next message; `None` when the other side has hung up.
pub(super) async fn receive_message<T: DeserializeOwned>(
    socket: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<T>> {
    let mut prefix = [0; 4];
    match socket.read_exact(&mut prefix).await {
        Ok(_) => {}
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    }
    let mut bytes = vec![0; length(prefix)?];
    socket.read_exact(&mut bytes).await?;
    decode(&bytes).map(Some)
}

/// Reads a whole message from a socket that blocks.
pub(super) fn read_message<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<T> {
    let mut prefix = [0; 4];
    read_exactly(socket.as_fd(), &mut prefix)?;
    let mut bytes = vec![0; length(prefix)?];
    read_exactly(socket.as_fd(), &mut bytes)?;
    decode(&bytes)
}

fn read_exactly(socket: BorrowedFd<'_>, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::read(socket, &mut *bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes = &mut std::mem::take(&mut bytes)[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Writes a whole message to a socket that blocks.
pub(super) fn write_message<T: Serialize>(socket: impl AsFd, message: &T) -> io::Result<()> {
    let bytes = encode(message)?;
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        match rustix::net::send(&socket, rest, SendFlags::NOSIGNAL) {
            Ok(count) => rest = &rest[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
