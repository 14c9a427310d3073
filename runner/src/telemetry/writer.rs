//! Standard output has a thread of its own: a reader that stalls must hold up neither the task nor the end of the
//! process.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// How many lines wait for a reader that is slow; what comes on top is counted, and not kept.
const WAITING: usize = 8192;
/// How long the last lines of a process may take to be read.
const LAST_LINES: Duration = Duration::from_secs(1);

enum Message {
    Line(String),
    /// Everything before this is to be written, and whoever waits for that to be told.
    Flush(SyncSender<()>),
}

static LINES: OnceLock<SyncSender<Message>> = OnceLock::new();
static LOST: AtomicU64 = AtomicU64::new(0);

/// Writes a line, soon, and never waits. Before the thread stands, it writes at once.
pub(super) fn write(line: String) {
    let lines = LINES.get_or_init(|| {
        let (sender, receiver) = sync_channel(WAITING);
        // Without a thread the lines go nowhere; a process that cannot have one does not get far.
        let _ = std::thread::Builder::new()
            .name("log".into())
            .spawn(move || write_all(&receiver));
        sender
    });
    if lines.try_send(Message::Line(line)).is_err() {
        LOST.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until what was logged is written, for as long as that may take: before the process ends.
pub fn flush() {
    let Some(lines) = LINES.get() else { return };
    let (done, written) = sync_channel(1);
    if lines.try_send(Message::Flush(done)).is_ok() {
        let _ = written.recv_timeout(LAST_LINES);
    }
}

fn write_all(messages: &Receiver<Message>) {
    let mut out = io::stdout();
    while let Ok(message) = messages.recv() {
        match message {
            // One write a line, so that lines of several processes do not mix. A closed stdout must not end the task.
            Message::Line(line) => {
                let _ = out.write_all(line.as_bytes());
            }
            Message::Flush(done) => {
                let _ = done.try_send(());
            }
        }
        match LOST.swap(0, Ordering::Relaxed) {
            0 => {}
            // Through the same way as all others: the next one in it.
            lines => tracing::warn!(lines, "log lines were lost: nobody read them in time"),
        }
    }
}
