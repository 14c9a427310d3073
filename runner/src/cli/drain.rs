//! `plue-runner drain`: what a pod does before it goes.

use std::time::{Duration, Instant};

use clap::Args;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::health::last_report;
use super::output::print;
use crate::run::Exit;

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
    let pid = last_report(lookup)?.pid;
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = process.ok_or_else(|| format!("the runner says that it is process {pid}, which is none"))?;
    match kill_process(process, Signal::USR1) {
        Ok(()) => {}
        Err(Errno::SRCH) => return Err(format!("the runner (process {pid}) has ended already, without a word")),
        Err(error) => return Err(format!("the runner (process {pid}) cannot be told: {error}")),
    }
    while test_kill_process(process) != Err(Errno::SRCH) {
        if at_most.is_some_and(|most| started.elapsed() >= most) {
            return Err(format!(
                "the runner (process {pid}) is still at work after {} s; it takes no other task",
                started.elapsed().as_secs()
            ));
        }
        std::thread::sleep(LOOK);
    }
    Ok(format!("the runner (process {pid}) has ended"))
}
