//! `cargo xtask zoo`: the programs of the table in tests/support/zoo, run by the runner as steps are, on this machine
//! and in a pod in gVisor.

mod dockerfile;
mod root;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, id};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

use self::dockerfile::Full;
use self::root::Root;
use crate::layout::Layout;
use crate::process::{self, Run};
use crate::{dist, pod};

/// How long all rows may take in one place. They take a minute.
const LIMIT: Duration = Duration::from_secs(1200);

/// What is around the runner on this machine. It has the table.
const PROGRAM: &str = "plue-zoo";

/// A row, as far as it is our business.
#[derive(Deserialize)]
struct Row {
    name: String,
    packages: Vec<String>,
}

/// Where the rows are run.
#[derive(Clone, Copy, Default, clap::Args)]
pub struct Places {
    /// Leave out what runs in gVisor
    #[arg(long, conflicts_with = "without_this_machine")]
    without_gvisor: bool,
    /// Leave out what runs on this machine
    #[arg(long)]
    without_this_machine: bool,
}

impl Places {
    /// Both, or this machine alone.
    pub fn new(without_gvisor: bool) -> Self {
        Self {
            without_gvisor,
            ..Self::default()
        }
    }
}

/// Builds what is shipped, and runs these rows, or all.
pub fn command(layout: &Layout, rows: &[String], places: Places) -> Result<ExitCode> {
    dist::build(layout)?;
    for skipped in run(layout, rows, places)? {
        process::note(&skipped);
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs rows on what the stage `build` has made. Gives what could not be tried, in words.
pub fn run(layout: &Layout, names: &[String], places: Places) -> Result<Vec<String>> {
    let program = layout.target.join("release").join(PROGRAM);
    let rows = Run::new("asking for the rows of the zoo", &program)
        .arg("list")
        .read()?;
    let rows: Vec<Row> = serde_json::from_str(&rows).context("`plue-zoo list` gave something else than rows")?;
    let full = Full::read(layout)?;
    let root = Root::find(layout, &full.run, &rows)?;
    let natively = match places.without_this_machine {
        true => Ok(()),
        false => natively(layout, &program, &root, names),
    };
    let in_gvisor = match places.without_gvisor {
        true => Ok(()),
        false => pod::zoo(layout, &full.image(root.path()), names),
    };
    natively.and(in_gvisor)?;
    let mut skipped: Vec<String> = root.missing()?;
    if places.without_gvisor {
        skipped.push("NONE OF THEM WAS RUN IN GVISOR: --without-gvisor left it out".to_owned());
    }
    Ok(skipped)
}

fn natively(layout: &Layout, program: &Path, root: &Root, names: &[String]) -> Result<()> {
    process::announce("the zoo on this machine");
    let work = Work::new(layout)?;
    process::as_root("the zoo", "setpriv")?
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program)
        .arg("run")
        .arg("--root")
        .arg(root.path())
        .arg("--dist")
        .arg(layout.dist())
        .arg("--work")
        .arg(&work.0)
        .args(names)
        .limit(LIMIT)
        .live()
}

/// The folder of the workspaces, for as long as the value lives.
struct Work(PathBuf);

impl Work {
    fn new(layout: &Layout) -> Result<Self> {
        let folder = layout.target.join("zoo").join(id().to_string());
        fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // Files of the runners' user; what is left is rubbish, and no reason to fail.
        if let Err(error) = process::remove_as_root(&self.0) {
            process::note(&format!("{error:#}"));
        }
    }
}
