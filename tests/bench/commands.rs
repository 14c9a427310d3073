//! What confinement costs: a command through the sandbox, against the same command without any.
//!
//! Not criterion's loop: all are measured in turn, round by round, so that what else the machine does weighs on each of
//! them alike, and each run is one figure of its own, so that the median is that of a run.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use plue_sandbox::strict::{CommandRules, StrictSandbox};
use plue_sandbox::{CommandEvent, CommandSpec, Sandbox};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

const PROGRAM: &str = "/bin/true";
const WARM_UP: usize = 20;
const ROUNDS: usize = 1000;
/// A slow machine makes fewer rounds.
const MAX_DURATION: Duration = Duration::from_secs(30);

/// Medians of one run of `true`, in microseconds.
pub struct Costs {
    /// By `posix_spawn`, which copies no memory: the cheapest start that there is.
    pub bare_spawn: f64,
    /// By fork and exec.
    pub bare_fork: f64,
    /// Through the sandbox.
    pub sandbox: f64,
}

pub fn measure() -> Costs {
    // As the runner's own.
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let workspace = tempfile::tempdir().expect("a folder");
    let rules = CommandRules::default();
    let sandbox = runtime.block_on(StrictSandbox::start_by(&crate::runner(), workspace.path(), &[], &rules));
    let sandbox = sandbox.expect("this machine has every layer");
    let mut times: [Vec<Duration>; 3] = Default::default();
    let started = Instant::now();
    for round in 0..WARM_UP + ROUNDS {
        let ways: [&dyn Fn(); 3] = [&|| bare(&mut command()), &|| bare(&mut forked()), &|| {
            confined(&runtime, &sandbox)
        }];
        for (way, times) in ways.iter().zip(&mut times) {
            let begun = Instant::now();
            way();
            if round >= WARM_UP {
                times.push(begun.elapsed());
            }
        }
        if started.elapsed() > MAX_DURATION {
            break;
        }
    }
    runtime.block_on(sandbox.shut_down());
    let [bare_spawn, bare_fork, sandbox] = times.map(median);
    Costs {
        bare_spawn,
        bare_fork,
        sandbox,
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn command() -> Command {
    let mut command = Command::new(PROGRAM);
    command.stdin(Stdio::null());
    command
}

/// The standard library forks when there is something to do between fork and exec.
#[allow(unsafe_code)]
fn forked() -> Command {
    let mut command = command();
    // SAFETY: nothing is done.
    unsafe { command.pre_exec(|| Ok(())) };
    command
}

/// Both outputs are read to their ends, as the sandbox does.
fn bare(command: &mut Command) {
    assert!(command.output().expect("it runs").status.success());
}

fn confined(runtime: &Runtime, sandbox: &StrictSandbox) {
    let spec = CommandSpec {
        argv: vec![PROGRAM.into()],
        working_directory: ".".into(),
        env: BTreeMap::new(),
        timeout: Duration::from_secs(10),
    };
    runtime.block_on(async {
        let mut command = sandbox.start(spec, CancellationToken::new()).await.expect("it starts");
        loop {
            match command.events.recv().await.expect("it ends") {
                CommandEvent::Output(..) | CommandEvent::Note(_) => {}
                CommandEvent::Exited(status) => {
                    assert_eq!(status.code, 0);
                    return;
                }
            }
        }
    });
}
