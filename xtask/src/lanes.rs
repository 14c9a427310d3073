//! Stages side by side, as their lanes say. Each is a process of its own, whose output goes into a file; it is shown in
//! the order of the table, as it comes where the stages before are over, so that it reads as if they had run one by
//! one.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use crate::layout::Layout;
use crate::process::{self, Run};
use crate::stages::{Lane, STAGES, Stage, State};
use crate::toolchain::Choice;
use crate::verdict::{Line, Verdict};

/// How often stages are looked at, and what they have said is shown.
const LOOK: Duration = Duration::from_millis(50);

/// What a stage in a process of its own is told.
#[derive(Debug, Args)]
pub struct Alone {
    /// Which one.
    name: String,
    /// The file for its verdict.
    #[arg(long)]
    verdict: PathBuf,
    /// What built the components.
    #[arg(long, value_enum)]
    built_with: Option<Choice>,
    #[arg(long)]
    without_gvisor: bool,
    #[arg(long)]
    all: bool,
}

/// Such a process: runs the stage, and writes down what came of it.
pub fn alone(layout: &Layout, alone: &Alone) -> Result<()> {
    let stage = STAGES.iter().find(|stage| stage.name == alone.name);
    let stage = stage.with_context(|| format!("there is no stage {}", alone.name))?;
    let state = State {
        layout,
        built_with: alone.built_with.map(OnceLock::from).unwrap_or_default(),
        without_gvisor: alone.without_gvisor,
        all: alone.all,
    };
    Verdict::of(stage, &state).write(&alone.verdict)
}

/// A stage that has begun.
struct Begun {
    stage: &'static Stage,
    started: Instant,
    child: Option<Child>,
    verdict: PathBuf,
    output: Output,
    line: Option<Line>,
}

/// Runs these stages to the end. What came of them is in their order.
pub fn run(state: &State, stages: &[&'static Stage]) -> Vec<Line> {
    let mut waiting = stages.to_vec();
    let mut begun: Vec<Begun> = Vec::new();
    for stage in stages {
        process::announce(&format!("[{}] {}", stage.name, stage.promise));
        loop {
            begin_what_may(state, &mut waiting, &mut begun);
            for other in begun.iter_mut().filter(|begun| begun.line.is_none()) {
                other.look();
                let failed = matches!(&other.line, Some(line) if line.has_failed());
                if failed && other.stage.name != stage.name {
                    process::note(&format!(
                        "[{}] has FAILED; what it said comes in its turn",
                        other.stage.name
                    ));
                }
            }
            // Its lane has come to it, since all that stands before it in the table is over.
            if let Some(front) = begun.iter_mut().find(|begun| begun.stage.name == stage.name) {
                let is_over = front.line.is_some();
                front.output.show();
                if is_over {
                    break;
                }
            }
            thread::sleep(LOOK);
        }
    }
    let place = |line: &Line| stages.iter().position(|stage| stage.name == line.stage.name);
    let mut lines: Vec<Line> = begun.into_iter().filter_map(|begun| begun.line).collect();
    lines.sort_by_key(place);
    lines
}

/// Begins the next stage of each lane in which none runs.
fn begin_what_may(state: &State, waiting: &mut Vec<&'static Stage>, begun: &mut Vec<Begun>) {
    let running = begun.iter().filter(|begun| begun.line.is_none());
    let running = running.map(|begun| begun.stage.lane).collect();
    let may = take_what_may(waiting, running);
    begun.extend(may.into_iter().map(|stage| Begun::new(state, stage)));
}

/// The first of those that wait for each lane in which none runs.
fn take_what_may(waiting: &mut Vec<&'static Stage>, mut running: Vec<Lane>) -> Vec<&'static Stage> {
    let mut may = Vec::new();
    waiting.retain(|stage| {
        let has_to_wait = running.contains(&stage.lane);
        if !has_to_wait {
            running.push(stage.lane);
            may.push(*stage);
        }
        has_to_wait
    });
    may
}

impl Begun {
    fn new(state: &State, stage: &'static Stage) -> Self {
        let home = state.layout.target.join("xtask/stages");
        let log = home.join(stage.name).with_extension("log");
        // Another run in the same target folder may have this stage, too: each has files of its own.
        let verdict = home.join(format!("{}.{}.json", stage.name, std::process::id()));
        let _ = fs::remove_file(&log);
        let started = Instant::now();
        let mut begun = Self {
            stage,
            started,
            child: None,
            verdict,
            output: Output::default(),
            line: None,
        };
        match fs::create_dir_all(&home)
            .context("make the folder of the logs")
            .and_then(|()| begun.start(state, &log))
        {
            Ok(child) => begun.child = Some(child),
            Err(error) => begun.end(Verdict::Failed(format!("could not be started: {error:#}"))),
        }
        begun
    }

    fn start(&mut self, state: &State, log: &Path) -> Result<Child> {
        let write = File::create(log).with_context(|| format!("could not write the log {}", log.display()))?;
        self.output = Output(Some(
            File::open(log).with_context(|| format!("could not read {}", log.display()))?,
        ));
        let flag = |is: bool, name: &'static str| is.then_some(name);
        // This very program, also when cargo has put another one in its place.
        let mut run = Run::new(format!("the stage {}", self.stage.name), "/proc/self/exe")
            .env("CARGO_MANIFEST_DIR", state.layout.root.join("xtask"))
            .args(["stage", self.stage.name, "--verdict"])
            .arg(&self.verdict)
            .args(flag(state.without_gvisor, "--without-gvisor"))
            .args(flag(state.all, "--all"));
        if let Some(built_with) = state.built_with.get() {
            run = run.arg("--built-with").arg(built_with.name());
        }
        if io::stdout().is_terminal() {
            run = run.env("CARGO_TERM_COLOR", "always");
        }
        run.into_file(write)
    }

    /// Sees whether it has ended.
    fn look(&mut self) {
        let Some(child) = &mut self.child else { return };
        let verdict = match child.try_wait() {
            Ok(None) => return,
            Ok(Some(status)) => self.verdict(status),
            Err(error) => Verdict::Failed(format!("lost its process: {error}")),
        };
        self.end(verdict);
    }

    fn verdict(&self, status: ExitStatus) -> Verdict {
        let said = Verdict::read(&self.verdict);
        let _ = fs::remove_file(&self.verdict);
        match said {
            Ok(verdict) if status.success() => verdict,
            _ => Verdict::Failed(format!(
                "its process ended with {status}, and did not say what came of it"
            )),
        }
    }

    fn end(&mut self, result: Verdict) {
        self.line = Some(Line {
            stage: self.stage,
            result,
            time: self.started.elapsed(),
        });
    }
}

/// What a stage says, as far as it was not shown.
#[derive(Default)]
struct Output(Option<File>);

impl Output {
    fn show(&mut self) {
        let mut bytes = Vec::new();
        if let Some(file) = &mut self.0
            && file.read_to_end(&mut bytes).is_ok()
        {
            // Nobody is there to be told of an error.
            let mut to = io::stdout().lock();
            let _ = to.write_all(&bytes).and_then(|()| to.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_has_one_stage_at_a_time_in_the_order_of_the_table() {
        let names = |stages: &[&Stage]| stages.iter().map(|stage| stage.name).collect::<Vec<_>>();
        let mut waiting: Vec<&Stage> = STAGES.iter().filter(|stage| stage.lane != Lane::First).collect();
        let first = take_what_may(&mut waiting, Vec::new());
        assert_eq!(names(&first), ["lint", "tests", "chaos", "demo"]);
        let others = vec![Lane::Code, Lane::Attacks, Lane::Tests];
        assert_eq!(names(&take_what_may(&mut waiting, others)), ["gvisor"]);
        let all = vec![Lane::Code, Lane::Attacks, Lane::Pods, Lane::Tests];
        assert!(take_what_may(&mut waiting, all).is_empty());
        assert_eq!(waiting.len() + 1 + 4 + 2, STAGES.len());
    }
}
