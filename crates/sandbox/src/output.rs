//! What a command writes, on its way to whoever reads it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
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

/// Reads both pipes to their ends.
pub(super) async fn forward_both(
    stdout: Option<impl AsyncRead + Unpin>,
    stderr: Option<impl AsyncRead + Unpin>,
    events: &mpsc::Sender<CommandEvent>,
) {
    tokio::join!(
        async {
            if let Some(pipe) = stdout {
                forward(pipe, Stream::Stdout, events).await;
            }
        },
        async {
            if let Some(pipe) = stderr {
                forward(pipe, Stream::Stderr, events).await;
            }
        },
    );
}

/// Reads a pipe to its end. A reader that is gone does not stop the reading: the command would hang on a full pipe.
async fn forward(mut pipe: impl AsyncRead + Unpin, stream: Stream, events: &mpsc::Sender<CommandEvent>) {
    let mut buffer = BytesMut::with_capacity(CHUNK);
    loop {
        buffer.reserve(CHUNK);
        match pipe.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let bytes: Bytes = buffer.split().freeze();
                let _ = events.send(CommandEvent::Output(stream, bytes)).await;
            }
        }
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
