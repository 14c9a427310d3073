//! `cargo xtask test`: runs the stages to the end, and sums up.

use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::lanes;
use crate::layout::Layout;
use crate::process;
use crate::stages::{BUILD, Lane, STAGES, Stage, State};
use crate::verdict::{Line, Verdict};

pub fn run(layout: &Layout, only: &[String], without_gvisor: bool, all: bool) -> Result<ExitCode> {
    let state = State {
        layout,
        built_with: OnceLock::new(),
        without_gvisor,
        all,
    };
    let mut lines: Vec<Line> = Vec::new();
    let started = Instant::now();
    let (first, others): (Vec<_>, Vec<_>) = selected(only).into_iter().partition(|stage| stage.lane == Lane::First);
    for stage in first {
        process::announce(&format!("[{}] {}", stage.name, stage.promise));
        let begun = Instant::now();
        lines.push(Line {
            stage,
            result: Verdict::of(stage, &state),
            time: begun.elapsed(),
        });
    }
    lines.extend(lanes::run(&state, &others));
    process::print(&format!("\n{}\n", summary(&lines, started.elapsed())))?;
    let failed = lines.iter().any(Line::has_failed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The stages that were asked for, all when none was, and the build when one of them needs it.
fn selected(only: &[String]) -> Vec<&'static Stage> {
    let asked = |stage: &Stage| only.is_empty() || only.iter().any(|name| name == stage.name);
    let needs_build = STAGES.iter().any(|stage| stage.needs_build && asked(stage));
    STAGES
        .iter()
        .filter(|stage| asked(stage) || stage.name == BUILD && needs_build)
        .collect()
}

/// The table, what is to be said about failed and skipped stages, and the count alone on the last line.
fn summary(lines: &[Line], total: Duration) -> String {
    let mut text = String::new();
    let [mut passed, mut failed, mut skipped] = [0, 0, 0];
    let mut failures = Vec::new();
    let mut remarks = Vec::new();
    for line in lines {
        let result = match &line.result {
            Verdict::Passed => {
                passed += 1;
                "passed"
            }
            Verdict::Failed(reason) => {
                failed += 1;
                failures.push(format!(
                    "{} failed: {}\n",
                    line.stage.name,
                    reason.lines().next().unwrap_or_default()
                ));
                "FAILED"
            }
            Verdict::Skipped(reason) => {
                skipped += 1;
                remarks.push(format!("{reason}\n"));
                "skipped"
            }
        };
        let time = process::spoken(line.time);
        text.push_str(&format!(
            "{:<13} {result:<8} {time:>12}  {}\n",
            line.stage.name, line.stage.promise
        ));
    }
    text.push_str(&format!("{:<13} {:<8} {:>12}\n\n", "all", "", process::spoken(total)));
    text.extend(failures);
    text.extend(remarks);
    let skips = if skipped > 0 {
        format!(", {skipped} skipped")
    } else {
        String::new()
    };
    text.push_str(&format!("{passed} passed, {failed} failed{skips}"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &str) -> &'static Stage {
        STAGES.iter().find(|stage| stage.name == name).unwrap()
    }

    #[test]
    fn the_summary_ends_with_the_count_alone_on_a_line() {
        let time = Duration::from_secs(1);
        let lines = [
            Line {
                stage: stage("format"),
                result: Verdict::Passed,
                time,
            },
            Line {
                stage: stage("lint"),
                result: Verdict::Failed("clippy is unhappy\nlong story".to_owned()),
                time,
            },
            Line {
                stage: stage("advisories"),
                result: Verdict::Skipped("ADVISORIES WERE NOT CHECKED".to_owned()),
                time,
            },
        ];
        let text = summary(&lines, time);
        let end: Vec<&str> = text.lines().rev().take(3).collect();
        assert_eq!(
            end,
            [
                "1 passed, 1 failed, 1 skipped",
                "ADVISORIES WERE NOT CHECKED",
                "lint failed: clippy is unhappy"
            ]
        );
        assert!(summary(&lines[..1], time).ends_with("\n1 passed, 0 failed"));
    }

    #[test]
    fn a_stage_that_needs_the_build_brings_it_along() {
        let of = |only: &[&str]| -> Vec<&str> {
            let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
            selected(&only).iter().map(|stage| stage.name).collect()
        };
        assert_eq!(of(&["demo"]), [BUILD, "demo"]);
        assert_eq!(of(&["format"]), ["format"]);
        assert_eq!(of(&[]).len(), STAGES.len());
    }

    #[test]
    fn the_build_comes_before_all_that_need_it_and_gvisor_is_spoken_of_last() {
        let place = |name| STAGES.iter().position(|stage| stage.name == name).unwrap();
        let first = STAGES.iter().position(|stage| stage.needs_build).unwrap();
        assert!(place(BUILD) < first);
        // It runs beside nothing, and so does what stands before it.
        for (index, stage) in STAGES.iter().enumerate() {
            assert_eq!(stage.lane == Lane::First, index <= place(BUILD), "{}", stage.name);
        }
        assert_eq!(place("escape-gvisor"), STAGES.len() - 1);
        assert_eq!(place("pod"), STAGES.len() - 2);
        assert_eq!(place("gvisor"), STAGES.len() - 3);
        assert_eq!(place("advisories"), STAGES.len() - 4);
    }
}
