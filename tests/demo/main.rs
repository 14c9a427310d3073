//! The main job, for real and for people to watch: an agent finds a bug in a small repository and repairs it with all
//! five tools, and a workflow proves that the test is green. The runner is the built binary, started as in a pod; only
//! the two servers it talks to are doubles. It fails when the test does not go from red to green, when an event is not
//! of the protocol, or when a tool returns the wrong thing.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use serde_json::{Value, json};
use support::{ApiServer, Claude, Finished, RunnerProcess, claude};
use view::{Paint, Style, View};

mod text;
mod view;
#[cfg(test)]
mod view_snapshots;

/// The model that the task names: also what `--live` asks for.
const MODEL: &str = "claude-sonnet-5-5";

#[derive(Debug, Parser)]
#[command(about = "An agent repairs a small repository, and you watch")]
struct Arguments {
    /// The runner.
    #[arg(long)]
    runner: PathBuf,
    /// The folder of its components.
    #[arg(long)]
    plugins: PathBuf,
    /// Ask the real Messages API, with the key in ANTHROPIC_API_KEY.
    #[arg(long)]
    live: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let style = terminal_style();
    match demo(&Arguments::parse(), style).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{} {error:#}", style.paint(Paint::Red, "The demo FAILED:"));
            ExitCode::FAILURE
        }
    }
}

async fn demo(arguments: &Arguments, style: Style) -> Result<()> {
    let started = Instant::now();
    let folder = tempfile::Builder::new()
        .prefix("plue-demo-")
        .tempdir()
        .context("make a workspace under /tmp")?;
    let workspace = folder.path();
    support::demo::repository::lay_out(workspace)
        .with_context(|| format!("lay the repository out in {}", workspace.display()))?;

    print(&style.heading("a repository with a bug"))?;
    let (red, output) = run_test(workspace)?;
    for line in output.lines() {
        let paint = if line.starts_with("not ok") {
            Paint::Red
        } else {
            Paint::Dim
        };
        print(&format!(
            "  {}\n",
            style.paint(paint, &text::cut(line, style.width.saturating_sub(2)))
        ))?;
    }
    ensure!(
        !red,
        "the test of the repository must be red before the agent comes, and it is green"
    );

    let mut counts = BTreeMap::new();
    print(&style.heading(if arguments.live {
        "an agent repairs it (the real API)"
    } else {
        "an agent repairs it"
    }))?;
    let agent = agent(arguments, workspace, style, &mut counts).await?;
    let changes = support::demo::repository::changes(workspace)?;
    ensure!(!changes.is_empty(), "the agent has finished, and changed nothing");
    if !arguments.live {
        let paths: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
        ensure!(
            paths == ["lib/invoice.sh"],
            "one file was to be changed, and these were: {paths:?}"
        );
    }

    print(&style.heading("a workflow proves it"))?;
    workflow(arguments, workspace, style, &mut counts).await?;

    print(&style.heading("what was changed"))?;
    for change in &changes {
        print(&coloured_diff(&change.diff, style))?;
    }
    print(&style.heading("summary"))?;
    let types: Vec<String> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let sandbox = agent["sandbox"].as_str().unwrap_or_default();
    print(&format!(
        "  test      red before, green after\n  events    {}\n",
        types.join(", ")
    ))?;
    print(&format!("  sandbox: {sandbox}\n"))?;
    print(&format!("  time      {:.1} s\n", started.elapsed().as_secs_f64()))?;
    Ok(())
}

/// Runs the agent task, shows it, and gives its terminal event.
async fn agent(
    arguments: &Arguments,
    workspace: &Path,
    style: Style,
    counts: &mut BTreeMap<String, usize>,
) -> Result<Value> {
    let task = json!({
        "type": "agent",
        "model": MODEL,
        "system_prompt": "You repair small repositories. Look before you change, change as little as possible, and run \
            the test at the end.",
        "messages": [{ "role": "user", "content": format!(
            "The test of this repository fails (`{}`). Find the bug, repair it, and show that the test passes. Do not \
             change the test.", support::demo::repository::TEST_COMMAND) }],
        "tools": ["read_file", "write_file", "list_files", "grep", "shell"],
        "max_turns": 20,
    });
    let runner = runner(arguments, workspace, &task).env("ALLOWED_MODELS", MODEL);
    let api = ApiServer::start().await.context("start the double of the API server")?;
    let runner = runner.env("TASK_ID", "1").env("CALLBACK_URL", api.url());
    if arguments.live {
        let key = std::env::var("ANTHROPIC_API_KEY").context("--live needs ANTHROPIC_API_KEY: export your key")?;
        let runner = runner.env("ANTHROPIC_API_KEY", key).env("CALLBACK_EXTRA_EVENTS", "1");
        return watch(runner.limit(Duration::from_secs(600)), &api, style, counts).await;
    }
    let mut script = support::demo::Script::default();
    let model = Claude::answering(move |request| script.answer(request))
        .await
        .context("start the scripted model")?;
    let runner = runner
        .env("ANTHROPIC_API_KEY", claude::KEY)
        .env("ANTHROPIC_BASE_URL", model.url());
    let watched = watch(runner, &api, style, counts).await;
    let refusals = model.refusals();
    ensure!(
        refusals.is_empty(),
        "the model found something wrong:\n  {}",
        refusals.join("\n  ")
    );
    let end = watched?;
    let used = api.events_of("tool_end").len();
    ensure!(used == 6, "six tool calls were to be done, and {used} were");
    Ok(end)
}

/// Runs the workflow task, shows it, and checks that the test was green.
async fn workflow(
    arguments: &Arguments,
    workspace: &Path,
    style: Style,
    counts: &mut BTreeMap<String, usize>,
) -> Result<()> {
    let task = json!({ "type": "workflow", "steps": [
        { "name": "Test", "run": support::demo::repository::TEST_COMMAND },
        { "name": "Count", "run": "sh tests/run.sh | grep -c '^ok' | sed 's/$/ checks are green/'" },
    ] });
    let api = ApiServer::start().await.context("start the double of the API server")?;
    let runner = runner(arguments, workspace, &task)
        .env("TASK_ID", "2")
        .env("CALLBACK_URL", api.url());
    watch(runner, &api, style, counts).await?;
    let lines: Vec<String> = api
        .events_of("log")
        .iter()
        .filter_map(|event| event["message"].as_str().map(str::to_owned))
        .collect();
    let lines = lines.join("\n");
    ensure!(
        lines.contains("5 checks are green") && !lines.contains("not ok"),
        "the test is not green: {lines}"
    );
    Ok(())
}

/// The runner as in a pod: the environment holds this and nothing else.
fn runner(arguments: &Arguments, workspace: &Path, task: &Value) -> RunnerProcess {
    RunnerProcess::new(&arguments.runner)
        .env("MODE", "active")
        .env("PLUGIN_DIR", arguments.plugins.to_string_lossy())
        .env("WORKSPACE", workspace.to_string_lossy())
        .env("TASK_CONFIG", task.to_string())
}

/// Starts the runner, shows its events as the API server gets them, and gives the terminal event of a success.
async fn watch(
    runner: RunnerProcess,
    api: &ApiServer,
    style: Style,
    counts: &mut BTreeMap<String, usize>,
) -> Result<Value> {
    let mut events = api.subscribe();
    let mut view = View::new(style);
    let mut show = |event: &Value| {
        let kind = event["type"].as_str().unwrap_or_default();
        *counts.entry(kind.to_owned()).or_default() += 1;
        print(&view.event(event))
    };
    let running = runner.start().context("start the runner")?;
    let finish = running.finish();
    tokio::pin!(finish);
    let finished = loop {
        tokio::select! {
            Some(event) = events.recv() => show(&event)?,
            finished = &mut finish => break finished?,
        }
    };
    while let Ok(event) = events.try_recv() {
        show(&event)?;
    }
    judge(&finished, api)
}

/// What has to hold for a task that succeeded.
fn judge(finished: &Finished, api: &ApiServer) -> Result<Value> {
    let log = || finished.stdout.trim().to_owned() + finished.stderr.trim();
    let violations = api.final_violations();
    ensure!(
        violations.is_empty(),
        "events broke the protocol:\n  {}\n{}",
        violations.join("\n  "),
        log()
    );
    ensure!(
        finished.log_errors.is_empty(),
        "log lines are wrong:\n  {}",
        finished.log_errors.join("\n  ")
    );
    let Some(terminal) = api.terminal() else {
        bail!("no terminal event came. The runner said:\n{}", log())
    };
    ensure!(
        finished.code == 0 && terminal["type"] == "done",
        "the task failed: exit code {}, {terminal}. The runner said:\n{}",
        finished.code,
        log()
    );
    Ok(terminal)
}

/// Runs the repository's test by ourselves: whether it is green, and what it says.
fn run_test(workspace: &Path) -> Result<(bool, String)> {
    let output = Command::new("/bin/sh")
        .args(["-c", support::demo::repository::TEST_COMMAND])
        .current_dir(workspace)
        .stdin(Stdio::null())
        .output()
        .context("run the repository's test with /bin/sh")?;
    Ok((
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    ))
}

fn coloured_diff(diff: &str, style: Style) -> String {
    let mut text = String::new();
    for line in diff.lines() {
        let paint = match line.as_bytes().first() {
            _ if line.starts_with("---") || line.starts_with("+++") => Paint::Bold,
            Some(b'-') => Paint::Red,
            Some(b'+') => Paint::Green,
            Some(b'@') => Paint::Cyan,
            _ => Paint::Dim,
        };
        text.push_str(&format!("  {}\n", style.paint(paint, &text::printable(line))));
    }
    text
}

/// Prints at once: people watch.
fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Colours only on a terminal that wants them (<https://no-color.org>), and its width.
fn terminal_style() -> Style {
    let terminal = std::io::stdout().is_terminal();
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let width = columns
        .or_else(|| if terminal { stty_columns() } else { None })
        .unwrap_or(100);
    Style {
        width: width.clamp(30, 120),
        colour: terminal && !dumb && !set("NO_COLOR"),
        erase: terminal && !dumb,
    }
}

/// The width of the terminal, as POSIX' `stty` has it.
fn stty_columns() -> Option<usize> {
    let output = Command::new("stty")
        .arg("size")
        .stdin(Stdio::inherit())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let size = String::from_utf8(output.stdout).ok()?;
    size.split_whitespace()
        .nth(1)?
        .parse()
        .ok()
        .filter(|columns| *columns > 0)
}
