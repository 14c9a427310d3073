//! The escape harness: it attacks the built runner through every surface that it has, and says what held.
//!
//! Each attack is one row of a table ([`attack::Attack`]). It is tried where nothing holds it first, so that it is
//! known to be real; then in a scene that it has for itself against a runner of its own. Afterwards the outside must be
//! as it was, no process may be left, and no secret may stand in any event or log line: then the next attack may have
//! the scene, with a new workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use futures::{Stream, StreamExt};
use plue_sandbox::mutation::Protection;
use tokio::sync::OnceCell;

use attack::{Attack, Baseline, Class, Surface};
use baseline::Shown;
use drive::Harness;
use judge::{Trial, Verdict};
use processes::Adopted;
use report::{Report, Row};
use scene::Scenes;

mod attack;
mod attacks;
mod baseline;
mod bystander;
mod canary;
mod drive;
mod judge;
mod listeners;
mod openat2;
mod output;
mod processes;
mod program;
mod report;
mod scene;
mod secrets;
mod surface;
mod sys;
#[cfg(test)]
mod table_tests;
mod target;

#[derive(Debug, Parser)]
#[command(about = "Attacks the runner through every surface that it has, and says what held")]
struct Arguments {
    #[command(subcommand)]
    inner: Option<Inner>,
    /// The runner, with plugins/ beside it.
    #[arg(long)]
    runner: Option<PathBuf>,
    /// One JSON document instead of the table.
    #[arg(long)]
    json: bool,
    /// Only attacks of these classes.
    #[arg(long)]
    class: Vec<Class>,
    /// Only through these surfaces.
    #[arg(long)]
    surface: Vec<Surface>,
    /// Only these attacks; `files/` takes all that begin with it.
    #[arg(long)]
    only: Vec<String>,
    /// Only what makes sense in a live pod.
    #[arg(long)]
    live: bool,
    /// Only what can end otherwise on another kernel or as another user, each through one surface of a kind: for a
    /// place beside another one where all are tried.
    #[arg(long)]
    differing: bool,
    /// What the file tools and hostile components do with paths, on a machine whose openat2 answers ENOSYS.
    #[arg(long)]
    without_openat2: bool,
    /// Switches one protection off at a time, in a runner that was built with the feature `mutations`, and expects the
    /// attacks that name it to get through.
    #[arg(long)]
    mutations: bool,
    /// Lists the attacks and runs none.
    #[arg(long)]
    list: bool,
    /// How many attacks run at a time. Most wait for a deadline; the default is two for each processor, at most eight.
    #[arg(long)]
    jobs: Option<usize>,
    /// Where the scenes are made.
    #[arg(long = "in", value_name = "FOLDER")]
    base: Option<PathBuf>,
    /// Where those scenes are made that need not be on the file system of the image: a file system in memory, which
    /// takes a file in a fraction of the time.
    #[arg(long, value_name = "FOLDER")]
    in_memory: Option<PathBuf>,
    /// A folder of the image that we can write to, and that commands are to see read-only.
    #[arg(long, value_name = "FOLDER")]
    visible: Option<PathBuf>,
}

/// What this program does inside of a scene.
#[derive(Debug, Subcommand)]
enum Inner {
    #[command(hide = true)]
    Attack { id: String, target: PathBuf },
    #[command(hide = true)]
    Bystander { file: PathBuf },
    #[command(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    InNamespaces { program: String, arguments: Vec<String> },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.inner {
        Some(Inner::Attack { id, target }) => {
            program::main(id, target);
            Ok(true)
        }
        Some(Inner::Bystander { file }) => bystander::main(file).context("watch for signals").map(|()| true),
        Some(Inner::InNamespaces { program, arguments }) => {
            match sys::in_namespaces(program, arguments).context("make namespaces") {
                Ok(code) => return ExitCode::from(u8::try_from(code).unwrap_or(1)),
                Err(error) => Err(error),
            }
        }
        None => harness(&arguments),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            output::note(&format!("plue-escape could not be run: {error:#}"));
            ExitCode::from(2)
        }
    }
}

/// One attack on one surface, with these protections switched off.
#[derive(Clone)]
struct Case {
    attack: Attack,
    surface: Surface,
    without: Vec<&'static str>,
}

fn harness(arguments: &Arguments) -> Result<bool> {
    let mut problems = Vec::new();
    let cases = cases(arguments);
    if cases.is_empty() {
        bail!("no attack is left by these options");
    }
    if arguments.list {
        output::print(&list(&cases))?;
        return Ok(true);
    }
    let mut conditions = Vec::new();
    // Before any thread is there: a filter is of one thread and what it starts.
    if arguments.without_openat2 {
        openat2::take_away()?;
        conditions.push("openat2 answers ENOSYS, by a filter that the runner inherits".to_owned());
    } else if !openat2::is_there().unwrap_or(true) {
        conditions.push("this machine has no openat2".to_owned());
    }
    sys::become_subreaper().context("become the parent of what attacks leave behind")?;
    let base = arguments
        .base
        .clone()
        .unwrap_or_else(std::env::temp_dir)
        .canonicalize()?;
    let adopted = Arc::default();
    let scenes_in = |base: &Path| Scenes::new(base, arguments.visible.as_deref(), &adopted);
    let scenes = scenes_in(&base)?;
    let in_memory = arguments
        .in_memory
        .as_ref()
        .map(|folder| scenes_in(&folder.canonicalize()?));
    // As careless starters do: it must not come to a command.
    let _left_open = sys::leave_open(&scenes.places.program).context("leave a descriptor open")?;
    let harness = Harness {
        in_memory: in_memory.transpose()?,
        ..set_up(arguments, scenes, &adopted)?
    };
    if harness.scenes.places.visible.is_none() {
        conditions
            .push("no folder of the image takes files: what a command may see and not change is not tried".to_owned());
    }
    if let Some(sandbox) = harness.env.get("SANDBOX") {
        conditions.push(format!("SANDBOX={sandbox}"));
    }
    let started = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let rows = runtime.block_on(run(Arc::new(harness), cases, jobs(arguments.jobs)));
    if arguments.mutations && arguments.only.is_empty() && arguments.class.is_empty() {
        problems.extend(unnoticed(&rows));
    }
    let report = Report {
        rows,
        problems,
        elapsed: started.elapsed(),
        conditions,
    };
    let text = match arguments.json {
        true => format!("{:#}\n", report.json()),
        false => report.text(),
    };
    output::print(&text)?;
    Ok(report.all_held())
}

fn list(cases: &[Case]) -> String {
    let line = |case: &Case| {
        let Attack { id, what, .. } = case.attack;
        format!("{:<12} {id:<50} {what}\n", case.surface.name())
    };
    cases.iter().map(line).collect()
}

/// The protections that may go and nothing notices: for each, one attack has to get through when it alone is off.
fn unnoticed(rows: &[Row]) -> Vec<String> {
    let noticed: BTreeSet<&str> = rows
        .iter()
        .filter(|row| matches!(row.verdict, Verdict::GotThrough(_)) && row.without.len() == 1)
        .map(|row| row.without[0])
        .collect();
    Protection::ALL
        .iter()
        .map(|protection| protection.name())
        .filter(|name| !noticed.contains(name))
        .map(|name| format!("{name}: no attack gets through when this layer alone is off, so nothing tests it"))
        .collect()
}

fn cases(arguments: &Arguments) -> Vec<Case> {
    let mut cases = Vec::new();
    for attack in attacks::all() {
        let asked = |only: &String| attack.id == only || only.ends_with('/') && attack.id.starts_with(&**only);
        let mut without = Vec::new();
        for protection in Protection::ALL {
            if attack.falls_without.contains(protection) {
                without.push(protection.name());
            }
        }
        let taken = (arguments.class.is_empty() || arguments.class.contains(&attack.class))
            && (arguments.only.is_empty() || arguments.only.iter().any(asked))
            && (!arguments.live || attack.live)
            && (!arguments.differing || attack.differs)
            && (!arguments.without_openat2 || attack.resolves_paths())
            && (!arguments.mutations || !without.is_empty());
        if !taken {
            continue;
        }
        let surfaces = if arguments.differing {
            attack.surfaces_of_each_kind()
        } else {
            attack.surfaces.to_vec()
        };
        for surface in surfaces {
            // What holds the paths of file tools has no switch.
            if (arguments.surface.is_empty() || arguments.surface.contains(&surface))
                && (!arguments.without_openat2 || !surface.is_command())
                && (!arguments.mutations || !surface.is_file_tool())
            {
                let without = if arguments.mutations {
                    without.clone()
                } else {
                    Vec::new()
                };
                cases.push(Case {
                    attack,
                    surface,
                    without,
                });
            }
        }
    }
    cases
}

fn set_up(arguments: &Arguments, scenes: Scenes, adopted: &Arc<Adopted>) -> Result<Harness> {
    let own = std::env::current_exe().context("find this program")?;
    let beside = own.parent().map(PathBuf::from).unwrap_or_default();
    let candidates = [
        arguments.runner.clone(),
        std::env::var_os("PLUE_RUNNER_BIN").map(PathBuf::from),
        Some(beside.join("plue-runner")),
        Some(beside.join("../dist/plue-runner")),
    ];
    let plugins = |runner: &PathBuf| runner.parent().map(|folder| folder.join("plugins")).unwrap_or_default();
    let runner = candidates
        .into_iter()
        .flatten()
        .find(|runner| runner.is_file() && plugins(runner).is_dir());
    let runner = runner
        .context("there is no plue-runner with plugins/ beside it; name it with --runner")?
        .canonicalize()?;
    let mut env = BTreeMap::new();
    if let Ok(sandbox) = std::env::var("SANDBOX") {
        env.insert("SANDBOX".to_owned(), sandbox);
    }
    Ok(Harness {
        scenes,
        in_memory: None,
        adopted: Arc::clone(adopted),
        plugins: plugins(&runner),
        runner,
        env,
    })
}

/// How often it is told how far a run is.
const TELLS_EVERY: Duration = Duration::from_secs(20);

/// A baseline is tried once for all surfaces that it is the same for.
type Baselines = BTreeMap<(&'static str, Option<Surface>), OnceCell<Shown>>;

/// How many attacks run at a time.
fn jobs(asked: Option<usize>) -> usize {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    asked.unwrap_or((2 * processors).min(8)).max(1)
}

async fn run(harness: Arc<Harness>, cases: Vec<Case>, jobs: usize) -> Vec<Row> {
    let baselines: Baselines = cases.iter().map(|case| (baseline_of(case), OnceCell::new())).collect();
    let baselines = Arc::new(baselines);
    let count = cases.len();
    let own = Arc::clone(&harness);
    let rows = futures::stream::iter(cases.into_iter().enumerate()).map(|(index, case)| {
        let (harness, baselines) = (Arc::clone(&harness), Arc::clone(&baselines));
        let named = (case.attack, case.surface, case.without.clone());
        async move {
            // A task of its own: setting a scene up blocks, and the other one goes on meanwhile.
            let row = tokio::spawn(async move { one(&harness, &baselines, &case).await }).await;
            let row = row.unwrap_or_else(|error| {
                let (attack, surface, without) = named;
                row_of(
                    attack,
                    surface,
                    without,
                    Verdict::Broken(format!("the harness failed: {error}")),
                    Instant::now(),
                )
            });
            (index, row)
        }
    });
    let mut rows: Vec<(usize, Row)> = told(count, rows.buffer_unordered(jobs)).await;
    for scenes in [Some(&own.scenes), own.in_memory.as_ref()].into_iter().flatten() {
        scenes.clear();
    }
    rows.sort_by_key(|(index, _)| *index);
    rows.into_iter().map(|(_, row)| row).collect()
}

/// Collects what comes, and tells from time to time how far it is: it takes minutes.
async fn told<T>(count: usize, mut rows: impl Stream<Item = T> + Unpin) -> Vec<T> {
    let mut all = Vec::new();
    let mut next = Instant::now() + TELLS_EVERY;
    while let Some(row) = rows.next().await {
        all.push(row);
        if Instant::now() > next {
            output::note(&format!("    … {} of {count} runs", all.len()));
            next = Instant::now() + TELLS_EVERY;
        }
    }
    all
}

fn baseline_of(case: &Case) -> (&'static str, Option<Surface>) {
    let is_for_all = case.surface.is_command() || matches!(case.attack.baseline, Baseline::Bounded(_));
    (case.attack.id, (!is_for_all).then_some(case.surface))
}

async fn one(harness: &Harness, baselines: &Baselines, case: &Case) -> Row {
    let started = Instant::now();
    let verdict = match baselines.get(&baseline_of(case)) {
        Some(cell) => {
            let shown = cell
                .get_or_init(|| baseline::try_out(harness, &case.attack, case.surface))
                .await;
            match shown {
                Shown::Failed(why) => Verdict::BaselineFailed(why.clone()),
                Shown::NotHere(why) => Verdict::NotApplicable(why.clone()),
                Shown::Real => tried_until_it_says_something(harness, case).await,
            }
        }
        None => Verdict::Broken("the baseline was lost".to_owned()),
    };
    row_of(case.attack, case.surface, case.without.clone(), verdict, started)
}

fn row_of(attack: Attack, surface: Surface, without: Vec<&'static str>, verdict: Verdict, started: Instant) -> Row {
    Row {
        attack: attack.id,
        class: attack.class,
        surface,
        what: attack.what,
        without,
        verdict,
        milliseconds: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

/// How often a run is made that says nothing.
const ATTEMPTS: usize = 3;

/// A run says nothing when the machine's other work, or the attack itself, has kept it from what it needs. What got
/// through is never tried again.
async fn tried_until_it_says_something(harness: &Harness, case: &Case) -> Verdict {
    let mut attempt = 1;
    loop {
        let verdict = tried(harness, case)
            .await
            .unwrap_or_else(|error| Verdict::Broken(format!("{error:#}")));
        match &verdict {
            Verdict::Broken(why) if attempt < ATTEMPTS => output::note(&format!(
                "    {} through {} is made again: {why}",
                case.attack.id,
                case.surface.name()
            )),
            _ => return verdict,
        }
        attempt += 1;
    }
}

/// The attack itself, against a runner of its own.
async fn tried(harness: &Harness, case: &Case) -> Result<Verdict> {
    let (attack, surface) = (&case.attack, case.surface);
    let scenes = harness.scenes_for(attack);
    let scene = scenes.take().await?;
    (attack.setup)(&scene).context("set the attack up")?;
    let mut launch = surface::launch(harness, &scene, attack, surface)?;
    if !case.without.is_empty() {
        launch = launch.env("PLUE_MUTATION", case.without.join(","));
    }
    let trial = Trial {
        attack,
        surface,
        scene: &scene,
        before: &scene.digest()?,
        targets: &scene.link_targets(),
        mutated: !case.without.is_empty(),
        sandbox: harness.env.get("SANDBOX").map_or("strict", String::as_str),
    };
    let seen = drive::run(harness, &scene, launch).await;
    let left = harness.adopted.left_over(&scene.id).await;
    let verdict = match seen {
        Ok(seen) => judge::judge(&trial, &seen, &left),
        // A runner that stalls is what an attack may want.
        Err(error) => trial.disorder(format!("the runner did not come to its end: {error:#}")),
    };
    if matches!(verdict, Verdict::Held(_)) && case.without.is_empty() {
        scenes.give_back(scene).await;
    }
    Ok(verdict)
}
