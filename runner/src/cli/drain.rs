//! `plue-runner drain`: what a pod does before it goes.

use std::fs;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::health::{last_report, silence};
use super::output::print;
use crate::run::Exit;
use plue_sandbox::proc::Process;

/// How often the runner is looked for.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct DrainOptions {
    /// Waits no longer than this. The runner goes on, and still takes no other task. For a pod: so much less than its
    /// grace period that SHUTDOWN_GRACE remains.
    #[arg(long, value_name = "SECONDS")]
    at_most: Option<u64>,
}

/// Tells the runner, and waits.
pub(super) fn run(options: &DrainOptions, lookup: &dyn Fn(&str) -> Option<String>) -> Exit {
    let (ended, said) = match drain(options.at_most.map(Duration::from_secs), lookup) {
        Ok(said) => (true, said),
        Err(problem) => (false, problem),
    };
    print(&format!("{said}\n"), if ended { Exit::Success } else { Exit::Failed })
}

fn drain(at_most: Option<Duration>, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let started = Instant::now();
    let report = last_report(lookup)?;
    let pid = report.pid;
    // What a runner of an earlier time has left names a process that may be anybody's by now.
    if let Some(problem) = silence(&report) {
        return Err(problem);
    }
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = process.ok_or_else(|| format!("the runner says that it is process {pid}, which is none"))?;
    if !is_runner(pid) {
        return Err(format!("process {pid} is no runner of this program, or has ended"));
    }
    match kill_process(process, Signal::USR1) {
        Ok(()) => {}
        Err(Errno::SRCH) => return Err(format!("the runner (process {pid}) has ended already, without a word")),
        Err(error) => return Err(format!("the runner (process {pid}) cannot be told: {error}")),
    }
    while !has_ended(process) {
        if at_most.is_some_and(|most| started.elapsed() >= most) {
            return Err(format!(
                "the runner (process {pid}) is still at work after {} s; it takes no other task",
                started.elapsed().as_secs()
            ));
        }
        // One that hangs finishes nothing, however long it is waited for.
        if let Ok(report) = last_report(lookup)
            && report.pid == pid
            && let Some(problem) = silence(&report)
        {
            return Err(problem);
        }
        std::thread::sleep(LOOK);
    }
    Ok(format!("the runner (process {pid}) has ended"))
}

/// Whether a process was started from a program of our name. Which file that was, the kernel may tell nobody: the
/// runner has itself protected from others.
fn is_runner(pid: u32) -> bool {
    let name = |process: &str| fs::read(format!("/proc/{process}/comm"));
    matches!((name(&pid.to_string()), name("self")), (Ok(its), Ok(ours)) if its == ours)
}

/// Whether a process has ended. A zombie has, though nobody has asked for its exit code yet.
fn has_ended(pid: Pid) -> bool {
    let process = Process::read(pid.as_raw_nonzero().get());
    process.map_or(true, |process| process.is_none_or(|process| process.is_zombie))
}
