//! `plue-runner health`: a probe without a port.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use super::output::print;
use crate::events::SpoolConfig;
use crate::health::{Report, STALE, State};
use crate::run::Exit;

#[derive(Debug, Args)]
pub(super) struct HealthOptions {
    /// Says whether it is ready, too: whether the API server knows it.
    #[arg(long)]
    ready: bool,
}

/// Reads what the runner wrote last, and judges it.
pub(super) fn run(options: &HealthOptions, lookup: &dyn Fn(&str) -> Option<String>) -> Exit {
    let (well, said) = match last_report(lookup) {
        Ok(report) => judge(report, options.ready),
        Err(problem) => (false, problem),
    };
    print(&format!("{said}\n"), if well { Exit::Success } else { Exit::Failed })
}

/// What the runner that stands here wrote last, or why that cannot be known.
pub(super) fn last_report(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Report, String> {
    let folder = lookup("SPOOL_DIR").filter(|folder| !folder.is_empty());
    let folder = PathBuf::from(folder.unwrap_or_else(|| SpoolConfig::DEFAULT_FOLDER.into()));
    Report::read(&folder).map_err(|error| {
        let folder = folder.display();
        if error.kind() == io::ErrorKind::NotFound {
            return format!("no runner has {folder} as its SPOOL_DIR");
        }
        let error: String = error.to_string().chars().filter(|c| !c.is_control()).collect();
        format!("what the runner wrote into {folder} cannot be read: {error}")
    })
}

/// What is wrong with a report whose runner should have said something since.
pub(super) fn silence(report: &Report) -> Option<String> {
    let (age, pid) = (report.age(), report.pid);
    if age == Report::FUTURE {
        return Some(format!(
            "the runner (process {pid}) has a clock that is ahead of this one"
        ));
    }
    (age > STALE).then(|| {
        format!(
            "the runner (process {pid}) has said nothing for {} s: it hangs, or was killed",
            age.as_secs()
        )
    })
}

fn judge(report: Report, ready: bool) -> (bool, String) {
    let pid = report.pid;
    // Where processes can be seen at all.
    if Path::new("/proc/self").exists() && !Path::new(&format!("/proc/{pid}")).exists() {
        return (false, format!("the runner (process {pid}) has ended without a word"));
    }
    if let Some(problem) = silence(&report) {
        return (false, problem);
    }
    let task = report
        .task_id
        .map(|task| {
            format!(
                " on task {}",
                task.to_string().chars().filter(|c| !c.is_control()).collect::<String>()
            )
        })
        .unwrap_or_default();
    match report.state {
        State::Starting => (!ready, format!("the runner (process {pid}) is starting")),
        State::Unregistered => (
            !ready,
            format!("the runner (process {pid}) lives, and is not registered at the API server"),
        ),
        State::Idle => (
            true,
            format!("the runner (process {pid}) is registered, and waits for a task"),
        ),
        State::Working => (true, format!("the runner (process {pid}) works{task}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_runner_is_well_while_it_writes_and_ready_when_it_is_registered() {
        let report = |state, seconds_ago: i64| Report {
            state,
            task_id: None,
            pid: std::process::id(),
            updated_ms: Timestamp::now().as_millisecond() - seconds_ago * 1000,
        };
        for (state, age, well, ready) in [
            (State::Starting, 1, true, false),
            (State::Unregistered, 1, true, false),
            (State::Idle, 1, true, true),
            (State::Working, 1, true, true),
            (State::Idle, 60, false, false),
        ] {
            assert_eq!(judge(report(state, age), false).0, well, "{state:?} {age}");
            assert_eq!(judge(report(state, age), true).0, ready, "{state:?} {age}");
        }
        let problem = last_report(&|_| Some("/nonexistent".into())).unwrap_err();
        assert_eq!(problem, "no runner has /nonexistent as its SPOOL_DIR");
    }
}
