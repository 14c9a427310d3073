//! A worker as its supervisor sees it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::channel::{SupervisorMessage, WorkerMessage};

/// The command of the binary that makes it a worker.
pub const WORKER: &str = "worker";

/// A process that was started for one task.
pub(super) struct WorkerProcess {
    child: Child,
    socket: UnixStream,
    /// What was read and is no whole word yet.
    buffer: BytesMut,
    /// When it was heard of last.
    heard: Instant,
}

impl WorkerProcess {
    /// Starts this very binary.
    pub(super) fn start() -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let child = Command::new("/proc/self/exe")
            .arg0("plue-runner")
            .arg(WORKER)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            // What a terminal's Ctrl-C sends goes to the supervisor alone, which passes it on.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self {
            child,
            socket: UnixStream::from_std(ours)?,
            buffer: BytesMut::new(),
            heard: Instant::now(),
        })
    }

    /// Its process id, for as long as it has not ended.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The next word; `None` when there will be none: everything that it has said was heard. May be dropped at any
    /// await and called again.
    pub(super) async fn hear(&mut self) -> Option<WorkerMessage> {
        loop {
            match WorkerMessage::take(&mut self.buffer) {
                Ok(Some(word)) => {
                    self.heard = Instant::now();
                    return Some(word);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(error = %error, "a worker cannot be understood");
                    return None;
                }
            }
            match self.socket.read_buf(&mut self.buffer).await {
                Ok(0) => return None,
                Ok(_) => {}
                // How some kernels tell that a peer has ended without having read everything.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
                Err(error) => {
                    tracing::error!(error = %error, "a worker cannot be heard");
                    return None;
                }
            }
        }
    }

    /// Whether it can take a task: it has not ended, and has been heard of not longer ago than this.
    pub(super) fn is_well(&mut self, silence: Duration) -> bool {
        // What it said while nobody listened counts.
        while self.socket.try_read_buf(&mut self.buffer).is_ok_and(|read| read > 0) {
            self.heard = Instant::now();
        }
        self.heard.elapsed() < silence && matches!(self.child.try_wait(), Ok(None))
    }

    /// Gives an order. A worker that is gone is noticed where it is listened to.
    pub(super) async fn send(&mut self, order: &SupervisorMessage) {
        if let Err(error) = self.socket.write_all(&order.encode()).await {
            tracing::warn!(error = %error, "a worker did not take an order");
        }
    }

    /// Ends it at once. What it has said already can still be heard.
    pub(super) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.start_kill();
    }

    /// Ends it, and waits until it is gone.
    pub(super) async fn end(mut self) -> io::Result<ExitStatus> {
        self.kill();
        self.child.wait().await
    }

    /// Waits for a worker that says that it goes, at most as long as `patience`, and ends it then.
    pub(super) async fn wait_gone(mut self, patience: Duration) -> io::Result<ExitStatus> {
        match tokio::time::timeout(patience, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => self.end().await,
        }
    }
}

/// How a process ended, for people.
pub(super) fn describe(status: &io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("it exited with {code}"),
            (None, Some(9)) => "it was killed (signal 9: the memory of the pod may have run out)".into(),
            (None, Some(signal)) => format!("signal {signal} ended it"),
            (None, None) => "it ended in an unknown way".into(),
        },
        Err(error) => format!("how it ended is not known: {error}"),
    }
}
