//! What came of a stage.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::process;
use crate::stages::{Outcome, Stage, State};

/// One stage, for the summary.
pub struct Line {
    pub stage: &'static Stage,
    pub result: Verdict,
    pub time: Duration,
}

impl Line {
    pub fn has_failed(&self) -> bool {
        matches!(self.result, Verdict::Failed(_))
    }
}

/// What a stage ends with. Where it has a process of its own, that says it in JSON.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Passed,
    /// With what went wrong.
    Failed(String),
    /// With the reason.
    Skipped(String),
}

impl Verdict {
    /// Runs a stage, and says what came of it. An error is shown where it comes up.
    pub fn of(stage: &Stage, state: &State) -> Self {
        if stage.needs_build && state.built_with.get().is_none() {
            return Self::Skipped(format!("{}: not run, since the build failed", stage.name));
        }
        match (stage.run)(state) {
            Ok(Outcome::Passed) => Self::Passed,
            Ok(Outcome::Skipped(reason)) => Self::Skipped(reason),
            Err(error) => {
                process::say(&format!("error: {error:#}"));
                Self::Failed(format!("{error:#}"))
            }
        }
    }

    pub fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string(self).context("could not say it in JSON")?;
        fs::write(file, text).with_context(|| format!("could not write {}", file.display()))
    }

    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("could not read {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no verdict", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    #[test]
    fn what_a_process_wrote_is_what_the_other_reads() {
        let file = env::temp_dir().join(format!("xtask-verdict-{}", std::process::id()));
        let all = [
            Verdict::Passed,
            Verdict::Failed("a\nb".into()),
            Verdict::Skipped("why".into()),
        ];
        for verdict in all {
            verdict.write(&file).unwrap();
            assert_eq!(Verdict::read(&file).unwrap(), verdict);
        }
        fs::remove_file(&file).unwrap();
        Verdict::read(&file).unwrap_err();
    }
}
