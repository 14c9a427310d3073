//! A sandbox that runs nothing: it plays what a command would do, chosen by the command line, and remembers what it was
//! asked. The shell tool is tested for what it makes of it; real commands run in the tests of the sandbox.

use std::sync::Mutex;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use plue_sandbox::{CommandEvent, CommandSpec, Ending, ExitStatus, Level, RunningCommand, Sandbox, StartError, Stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

#[derive(Default)]
pub struct SandboxDouble {
    pub asked: Mutex<Vec<CommandSpec>>,
}

impl Sandbox for SandboxDouble {
    fn level(&self) -> Level {
        Level::Weak
    }

    fn start(&self, spec: CommandSpec, cancel: CancellationToken) -> BoxFuture<'_, Result<RunningCommand, StartError>> {
        async move {
            let script = spec.argv.last().unwrap().clone();
            self.asked.lock().unwrap().push(spec);
            if script == "no start" {
                return Err(StartError::Failed("the sandbox is full".into()));
            }
            let (sender, events) = mpsc::channel(8);
            let stop = cancel.clone();
            tokio::spawn(async move {
                for event in play(&script) {
                    if sender.send(event).await.is_err() {
                        return;
                    }
                }
                if script == "wait" {
                    stop.cancelled().await;
                    let _ = sender.send(exited(143, Ending::Cancelled)).await;
                }
            });
            Ok(RunningCommand { events, cancel })
        }
        .boxed()
    }
}

fn play(script: &str) -> Vec<CommandEvent> {
    let out = |bytes: &[u8]| CommandEvent::Output(Stream::Stdout, Bytes::copy_from_slice(bytes));
    let err = |bytes: &[u8]| CommandEvent::Output(Stream::Stderr, Bytes::copy_from_slice(bytes));
    match script {
        "fail" => vec![err(b"no such thing\n"), exited(3, Ending::Exited)],
        "signal" => vec![exited(137, Ending::Exited)],
        "silent" => vec![exited(0, Ending::Exited)],
        "binary" => vec![out(b"\xff\xc3"), out(b"\xa9\0"), exited(0, Ending::Exited)],
        "flood" => {
            let mut events = vec![out(b"begin\n"), err(b"quiet\n")];
            events.extend((0..64).map(|_| out(&[b'x'; 16 * 1024])));
            events.extend([out(b"\nend"), exited(0, Ending::Exited)]);
            events
        }
        "slow" => vec![out(b"half\n"), exited(143, Ending::TimedOut)],
        "big" => vec![out(b"half\n"), exited(137, Ending::Memory)],
        "fork" => vec![out(b"half\n"), exited(137, Ending::Processes)],
        "wait" => vec![out(b"half\n")],
        _ => vec![out(b"out\n"), err(b"err\n"), out(b"more\n"), exited(0, Ending::Exited)],
    }
}

fn exited(code: i32, ending: Ending) -> CommandEvent {
    CommandEvent::Exited(ExitStatus {
        code,
        signal: None,
        ending,
    })
}
