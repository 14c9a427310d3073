//! What a command writes, on its way to whoever reads it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::Bytes;
use rustix::event::epoll;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::{CommandEvent, Stream};

/// How much is read from a pipe at once.
const CHUNK: usize = 64 * 1024;
/// How many chunks wait for a slow reader before the command has to.
pub(super) const QUEUED_CHUNKS: usize = 16;
/// How long output is still read after the command and what it started are gone: only what is in the pipes.
pub(super) const DRAIN: Duration = Duration::from_secs(2);
/// The longest that output is read after the command's end, however slow the reader is: something that holds the pipe
/// may write for ever.
const MAX_DRAIN: Duration = Duration::from_secs(30);

/// Both outputs of a command, read in the order in which they are written, as far as two pipes tell it.
///
/// Two readers would take whatever one pipe holds before they look at the other. The kernel's list of descriptors that
/// can be read is in the order in which they became so: what was written first is read first.
pub(super) struct Outputs {
    pipes: [Option<OwnedFd>; 2],
    ready: AsyncFd<OwnedFd>,
}

/// The two by their index.
const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

impl Outputs {
    /// Takes our ends of both pipes.
    pub(super) fn new(stdout: OwnedFd, stderr: OwnedFd) -> io::Result<Self> {
        let list = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let pipes = [stdout, stderr];
        for (index, pipe) in (0..).zip(&pipes) {
            rustix::io::ioctl_fionbio(pipe, true)?;
            // Edge-triggered: a pipe that was read goes to the end of the list when it is written again.
            let events = epoll::EventFlags::IN | epoll::EventFlags::ET;
            epoll::add(&list, pipe, epoll::EventData::new_u64(index), events)?;
        }
        // SAFETY: the descriptor belongs to the value, which does not let go of it before its own end.
        #[allow(unsafe_code)]
        let ready = unsafe { AsyncFd::register_with_interest(list, Interest::READABLE)? };
        Ok(Self {
            pipes: pipes.map(Some),
            ready,
        })
    }

    /// Passes both on until both have ended. A reader that is gone does not stop the reading: the command would hang on
    /// a full pipe.
    pub(super) async fn forward(mut self, events: &mpsc::Sender<CommandEvent>) {
        let mut buffer = vec![0; CHUNK];
        // Which pipes may hold something, the first to be read first.
        let mut waiting = VecDeque::new();
        while self.pipes.iter().any(Option::is_some) {
            // Looked at again after each piece, so that what comes meanwhile takes its place.
            if self.look(&mut waiting).is_err() {
                return;
            }
            let Some(index) = waiting.pop_front() else {
                match self.ready.readable().await {
                    Ok(mut ready) => ready.clear_ready(),
                    Err(_) => return,
                }
                continue;
            };
            let Some(pipe) = &self.pipes[index] else { continue };
            match rustix::io::read(pipe, &mut *buffer) {
                Ok(0) => self.pipes[index] = None,
                Ok(count) => {
                    let bytes = Bytes::copy_from_slice(&buffer[..count]);
                    // There may be more of it, which is not said again.
                    waiting.push_back(index);
                    let _ = events.send(CommandEvent::Output(STREAMS[index], bytes)).await;
                }
                Err(rustix::io::Errno::AGAIN) => {}
                Err(rustix::io::Errno::INTR) => waiting.push_front(index),
                Err(_) => self.pipes[index] = None,
            }
        }
    }

    /// Asks which pipes can be read that could not be before.
    fn look(&self, waiting: &mut VecDeque<usize>) -> io::Result<()> {
        let mut found = Vec::with_capacity(STREAMS.len());
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(
            self.ready.get_ref(),
            rustix::buffer::spare_capacity(&mut found),
            Some(&now),
        )?;
        for event in &found {
            let index = event.data.u64() as usize;
            if !waiting.contains(&index) {
                waiting.push_back(index);
            }
        }
        Ok(())
    }
}

/// Reads what is left once the command is over. While the reader is slow there may be more; otherwise something that is
/// none of the command's holds the pipe.
pub(super) async fn drain(mut output: impl Future<Output = ()> + Unpin, events: &mpsc::Sender<CommandEvent>) {
    let drained = Instant::now() + MAX_DRAIN;
    loop {
        tokio::select! {
            () = &mut output => return,
            () = sleep(DRAIN) => {
                if events.capacity() > 0 || Instant::now() >= drained {
                    return;
                }
            }
        }
    }
}
