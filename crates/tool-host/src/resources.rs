//! What a component may hold of the host's: a directory that it reads, a command that it started. When the call ends,
//! they go with its store.

use std::collections::VecDeque;

use bytes::Bytes;
use plue_sandbox::{CommandEvent, Stream};
use rustix::fs::Dir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

// The one circle of this crate: the bindings name the type that stands for a running command, and it holds their
// events.
use super::bindings::process::{Chunk, Dropped, Ending, Event, ExitStatus, Stream as WitStream};
use super::live_text::LiveText;

/// A directory that is being read. It is an open file of its own, so that two of one directory do not disturb each
/// other.
pub(crate) struct Entries(pub(crate) Dir);

/// A command that a tool started. When the tool drops it, or the call ends in any way, the receiver goes with it and
/// the sandbox ends the command and everything that it started.
pub struct RunningProcess {
    pub(crate) events: mpsc::Receiver<CommandEvent>,
    pub(crate) cancel: CancellationToken,
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
    /// What the tool has yet to hear: the tails, once the command is over.
    pub(crate) ready: VecDeque<Event>,
    pub(crate) ended: Option<ExitStatus>,
}

/// One of the two outputs: its head goes to the tool as it comes, then only the tail is kept.
pub(crate) struct Output {
    stream: WitStream,
    head_left: usize,
    tail: VecDeque<u8>,
    tail_most: usize,
    dropped: u64,
    pub(crate) live: LiveText,
}

impl Output {
    pub(crate) fn new(stream: WitStream, head: u64, tail: u64) -> Self {
        Self {
            stream,
            head_left: head as usize,
            tail: VecDeque::new(),
            tail_most: tail as usize,
            dropped: 0,
            live: LiveText::default(),
        }
    }

    /// Takes what the command wrote; gives what belongs to the head.
    pub(crate) fn take(&mut self, mut bytes: Bytes) -> Option<Event> {
        let head = bytes.split_to(self.head_left.min(bytes.len()));
        self.head_left -= head.len();
        let skipped = bytes.len().saturating_sub(self.tail_most);
        let surplus = (self.tail.len() + bytes.len() - skipped).saturating_sub(self.tail_most);
        self.tail.drain(..surplus);
        self.tail.extend(&bytes[skipped..]);
        self.dropped += (skipped + surplus) as u64;
        (!head.is_empty()).then(|| {
            Event::Output(Chunk {
                stream: self.stream,
                bytes: head.into(),
            })
        })
    }

    /// What is left to say when the command is over.
    pub(crate) fn finish(&mut self, ready: &mut VecDeque<Event>) {
        if self.dropped > 0 {
            ready.push_back(Event::Dropped(Dropped {
                stream: self.stream,
                bytes: self.dropped,
            }));
        }
        let tail = std::mem::take(&mut self.tail);
        if !tail.is_empty() {
            ready.push_back(Event::Output(Chunk {
                stream: self.stream,
                bytes: tail.into(),
            }));
        }
    }
}

impl RunningProcess {
    pub(crate) fn output(&mut self, stream: Stream) -> &mut Output {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    pub(crate) fn finish(&mut self, status: plue_sandbox::ExitStatus) {
        self.stdout.finish(&mut self.ready);
        self.stderr.finish(&mut self.ready);
        self.ended = Some(ExitStatus {
            code: status.code,
            ending: ending(status.ending),
        });
    }
}

fn ending(ending: plue_sandbox::Ending) -> Ending {
    match ending {
        plue_sandbox::Ending::Exited => Ending::Exited,
        plue_sandbox::Ending::TimedOut => Ending::TimedOut,
        plue_sandbox::Ending::Cancelled => Ending::Cancelled,
        plue_sandbox::Ending::Memory => Ending::Memory,
        plue_sandbox::Ending::Processes => Ending::Processes,
    }
}
