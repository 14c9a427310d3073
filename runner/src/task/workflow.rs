//! The workflow task: a list of steps, or the `jobs:` form of CI files.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::time::Duration;

use serde_json::{Map, Value};

use super::agent::MAX_TIMEOUT_SECONDS;
use super::reader::{Reader, join, nearest};
use super::{Step, StepKind, WorkflowTask};
use crate::config::TaskRules;

/// How long a step may run that does not say.
const DEFAULT_STEP_TIMEOUT: Duration = Duration::from_secs(600);

/// The keys of a workflow. `name` and `on` are what a CI file has at its top; they mean nothing here.
const WORKFLOW_KEYS: &[&str] = &["type", "name", "on", "steps", "jobs", "timeout_seconds"];

/// What a CI file may say at its top that would change how its steps are run.
const CI_KEYS: &[&str] = &["env", "defaults"];

/// What a CI file says beside `steps` and `env`, `name` and `runs-on` mean nothing here. All else (`needs`, `if`,
/// `strategy`, …) would change what is run, so it is refused.
const JOB_KEYS: &[&str] = &["name", "runs_on", "env", "steps"];

/// The keys of a step that runs a script: all there are.
const RUN_KEYS: &[&str] = &[
    "type",
    "name",
    "run",
    "env",
    "working_directory",
    "timeout_seconds",
    "timeout_minutes",
];
const CHECKOUT_KEYS: &[&str] = &["type", "name"];
const ENV_KEYS: &[&str] = &["type", "name", "env"];

/// What a list of steps is read with.
struct Scope<'a> {
    rules: &'a TaskRules,
    /// What the job gives to all of its steps that run something.
    env: BTreeMap<String, String>,
    /// The index of the first step among all of the workflow.
    first: usize,
}

pub(super) fn read(object: &Map<String, Value>, rules: &TaskRules, reader: &mut Reader) -> Option<WorkflowTask> {
    known_workflow_keys(object, reader);
    let timeout = reader.integer("timeout_seconds", object.get("timeout_seconds"), 1, MAX_TIMEOUT_SECONDS);
    let steps = match (object.get("steps"), object.get("jobs")) {
        (Some(_), Some(_)) => {
            reader.problem("jobs", "stands beside `steps`: a workflow has one of the two");
            None
        }
        (None, Some(jobs)) => read_jobs(jobs, rules, reader),
        (steps, None) => {
            let scope = Scope {
                rules,
                env: BTreeMap::new(),
                first: 0,
            };
            read_steps("steps", steps, scope, reader)
        }
    }?;
    Some(WorkflowTask {
        steps,
        timeout: timeout.map(Duration::from_secs),
    })
}

/// The top of a workflow is the API server's too, which may say more there than we know, as it may of any task: a key
/// that nobody knows is a warning. One that is a slip, or that would change how a step is run, is a problem.
fn known_workflow_keys(object: &Map<String, Value>, reader: &mut Reader) {
    let is_ours = |key: &str| CI_KEYS.contains(&key) || !nearest(key, WORKFLOW_KEYS).is_empty();
    let (ours, others): (Map<_, _>, Map<_, _>) = object.clone().into_iter().partition(|(key, _)| is_ours(key));
    reader.only_known_keys("", &ours, WORKFLOW_KEYS);
    reader.known_keys("", &others, WORKFLOW_KEYS);
}

/// Jobs run one after the other, in the order of the document.
fn read_jobs(value: &Value, rules: &TaskRules, reader: &mut Reader) -> Option<Vec<Step>> {
    let jobs = reader.object("jobs", value)?;
    if jobs.is_empty() {
        reader.problem("jobs", "must have at least one job");
    }
    let mut steps = Vec::new();
    for (name, job) in jobs {
        let path = join("jobs", name);
        let Some(job) = reader.object(&path, job) else { continue };
        let job = snake_case(&path, job, reader);
        reader.only_known_keys(&path, &job, JOB_KEYS);
        let scope = Scope {
            rules,
            env: reader.environment(&join(&path, "env"), job.get("env")),
            first: steps.len(),
        };
        steps.extend(read_steps(&join(&path, "steps"), job.get("steps"), scope, reader).unwrap_or_default());
    }
    Some(steps)
}

fn read_steps(path: &str, value: Option<&Value>, mut scope: Scope<'_>, reader: &mut Reader) -> Option<Vec<Step>> {
    let items = reader.array(path, value, "steps")?;
    let mut steps = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let Some(mut step) = read_step(
            &format!("{path}[{index}]"),
            scope.first + index,
            item,
            scope.rules,
            reader,
        ) else {
            continue;
        };
        match &mut step.kind {
            StepKind::Run { env, .. } => {
                for (name, value) in &scope.env {
                    env.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
            // It speaks later than the job, for all that follows it.
            StepKind::Env(env) => scope.env.retain(|name, _| !env.contains_key(name)),
            StepKind::Checkout => {}
        }
        steps.push(step);
    }
    Some(steps)
}

fn read_step(path: &str, index: usize, value: &Value, rules: &TaskRules, reader: &mut Reader) -> Option<Step> {
    let object = snake_case(path, reader.object(path, value)?, reader);
    let at = |key: &str| join(path, key);
    known_step_keys(path, &object, reader);
    let name = match object.get("name") {
        None => Some(format!("step-{index}")),
        name => reader.text(&at("name"), name).map(str::to_owned),
    };
    let kind = match object.get("type") {
        None if object.contains_key("run") => "run",
        None => {
            reader.problem(path, "has neither `run` nor `type`: a step says what it does");
            return None;
        }
        kind => reader.one_of(&at("type"), kind, &["run", "checkout", "env"])?,
    };
    let kind = match kind {
        "checkout" => StepKind::Checkout,
        "env" => {
            if !object.contains_key("env") {
                reader.problem(&at("env"), "is missing: it must be an object of environment variables");
            }
            StepKind::Env(reader.environment(&at("env"), object.get("env")))
        }
        _ => read_run(path, &object, rules, reader)?,
    };
    Some(Step { name: name?, kind })
}

/// Notes the keys that mean nothing to this kind of step; those that another kind has are told apart from slips.
fn known_step_keys(path: &str, object: &Map<String, Value>, reader: &mut Reader) {
    let (kind, known) = match object.get("type").and_then(Value::as_str) {
        Some(kind @ "checkout") => (kind, CHECKOUT_KEYS),
        Some(kind @ "env") => (kind, ENV_KEYS),
        _ => ("run", RUN_KEYS),
    };
    let means_nothing = |key: &str| RUN_KEYS.contains(&key) && !known.contains(&key);
    for key in object.keys().filter(|key| means_nothing(key)) {
        let message = format!(
            "means nothing to a step of type {kind}; known here: {}",
            known.join(", ")
        );
        reader.problem(&join(path, key), message);
    }
    let mut rest = object.clone();
    rest.retain(|key, _| !means_nothing(key));
    reader.only_known_keys(path, &rest, known);
}

fn read_run(path: &str, object: &Map<String, Value>, rules: &TaskRules, reader: &mut Reader) -> Option<StepKind> {
    let at = |key: &str| join(path, key);
    if !object.contains_key("run") {
        reader.problem(&at("run"), "is missing: it must be the script that the step runs");
    }
    let script = reader.text(&at("run"), object.get("run")).map(str::to_owned);
    let env = reader.environment(&at("env"), object.get("env"));
    let working_directory = read_directory(&at("working_directory"), object.get("working_directory"), rules, reader);
    let seconds = object.get("timeout_seconds");
    let minutes = object.get("timeout_minutes");
    if seconds.is_some() && minutes.is_some() {
        reader.problem(
            &at("timeout_minutes"),
            "stands beside `timeout_seconds`: a step has one of the two",
        );
    }
    let seconds = reader.integer(&at("timeout_seconds"), seconds, 1, MAX_TIMEOUT_SECONDS);
    let minutes = reader.integer(&at("timeout_minutes"), minutes, 1, MAX_TIMEOUT_SECONDS / 60);
    let timeout = seconds
        .or(minutes.map(|minutes| minutes * 60))
        .map_or(DEFAULT_STEP_TIMEOUT, Duration::from_secs);
    Some(StepKind::Run {
        script: script?,
        env,
        working_directory: working_directory?,
        timeout,
    })
}

/// A folder of the workspace, relative to it. Whether it is there, and where links in it lead, is seen when it is used.
fn read_directory(path: &str, value: Option<&Value>, rules: &TaskRules, reader: &mut Reader) -> Option<String> {
    let Some(value) = value else {
        return Some(".".to_owned());
    };
    let asked = reader.text(path, Some(value))?;
    let workspace = &rules.workspace;
    let folder = Path::new(asked);
    let relative = if folder.is_absolute() {
        // A command that runs in it sees the workspace by its name without links, so both names are good.
        let mut names = [Some(workspace.clone()), workspace.canonicalize().ok()]
            .into_iter()
            .flatten();
        names.find_map(|name| folder.strip_prefix(name).ok())
    } else {
        Some(folder)
    };
    let Some(relative) = relative else {
        let workspace = workspace.display();
        reader.problem(
            path,
            format!("{asked:?} is not in the workspace, which is {workspace} (WORKSPACE)"),
        );
        return None;
    };
    let mut depth = 0_usize;
    for component in relative.components() {
        depth = match component {
            Component::Normal(_) => depth + 1,
            Component::ParentDir if depth == 0 => {
                reader.problem(
                    path,
                    format!("{asked:?} leaves the workspace: it must be a folder in it"),
                );
                return None;
            }
            Component::ParentDir => depth - 1,
            _ => depth,
        };
    }
    let text = relative.to_string_lossy();
    Some(if text.is_empty() { ".".into() } else { text.into_owned() })
}

/// Keys in kebab-case become snake_case, so that both are read; a key that stands in both forms is a problem.
fn snake_case(path: &str, object: &Map<String, Value>, reader: &mut Reader) -> Map<String, Value> {
    let mut keys = Map::new();
    for (key, value) in object {
        let snake = key.replace('-', "_");
        if keys.insert(snake.clone(), value.clone()).is_some() {
            reader.problem(&join(path, key), format!("stands twice: as `{snake}` too"));
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use serde_json::json;

    use super::*;
    use crate::task::{Document, Format, InvalidTask, Task, Valid, validate};

    fn read(task: &Value) -> Result<Valid, InvalidTask> {
        let rules = TaskRules::read(&|name| (name == "WORKSPACE").then(|| "/nowhere/ws".to_owned())).unwrap();
        validate(&Document::parse(&task.to_string(), Format::Json).unwrap(), &rules)
    }

    /// What each step that runs something gets: its environment as `A=1 B=2`, and its folder.
    fn runs(task: &Value) -> Vec<(String, String)> {
        let Task::Workflow(task) = read(task).unwrap().task else {
            panic!("no workflow");
        };
        let runs = task.steps.into_iter().filter_map(|step| match step.kind {
            StepKind::Run {
                env, working_directory, ..
            } => {
                let env: Vec<_> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
                Some((env.join(" "), working_directory))
            }
            _ => None,
        });
        runs.collect()
    }

    #[test]
    fn the_environment_of_a_job_is_that_of_its_steps_until_they_say_otherwise() {
        let task = json!({ "jobs": {
            "a": { "runs-on": "any", "name": "A", "env": { "X": 1, "Y": "job" }, "steps": [
                { "run": "true" },
                { "run": "true", "env": { "Y": "step" } },
                { "type": "env", "env": { "X": 2 } },
                { "run": "true" },
            ]},
            "b": { "steps": [{ "run": "true" }] },
        }});
        let env: Vec<String> = runs(&task).into_iter().map(|(env, _)| env).collect();
        // What an `env` step sets is added when the workflow runs; here it only must not be hidden by the job.
        assert_eq!(env, ["X=1 Y=job", "X=1 Y=step", "Y=job", ""]);
        assert_eq!(read(&task).unwrap().unknown_keys, []);
    }

    #[test]
    fn a_key_that_means_nothing_where_it_stands_is_refused_by_name() {
        let step = |step: Value| json!({ "steps": [step] });
        let job = |name: &str, value: &str| json!({ "jobs": { "a": { name: value, "steps": [{ "run": "x" }] } } });
        let top = |name: &str| json!({ name: 1, "steps": [{ "run": "x" }] });
        let cases = [
            (
                job("needs", "b"),
                "jobs.a.needs: is not known; known here: name, runs_on, env, steps",
            ),
            (job("if", "x"), "jobs.a.if: is not known"),
            (
                job("runs-no", "x"),
                "jobs.a.runs_no: is not known; did you mean `runs_on`?",
            ),
            (
                top("timeout_second"),
                "timeout_second: is not known; did you mean `timeout_seconds`?",
            ),
            (top("timeout"), "timeout: is not known; did you mean `timeout_seconds`?"),
            (
                top("env"),
                "env: is not known; known here: type, name, on, steps, jobs, timeout_seconds",
            ),
            (top("defaults"), "defaults: is not known"),
            (
                step(json!({ "run": "x", "uses": "y" })),
                "steps[0].uses: is not known; known here: type, name, run",
            ),
            (
                step(json!({ "run": "x", "timeout": 5 })),
                "steps[0].timeout: is not known; did you mean `timeout_seconds` or `timeout_minutes`?",
            ),
            (
                step(json!({ "run": "x", "timeout-secs": 5 })),
                "steps[0].timeout_secs: is not known; did you mean `timeout_seconds`?",
            ),
            (
                step(json!({ "run": "x", "directory": "y" })),
                "steps[0].directory: is not known; did you mean `working_directory`?",
            ),
            (
                step(json!({ "type": "checkout", "run": "x" })),
                "steps[0].run: means nothing to a step of type checkout; known here: type, name",
            ),
            (
                step(json!({ "type": "checkout", "env": {} })),
                "steps[0].env: means nothing to a step of type checkout",
            ),
            (
                step(json!({ "type": "env", "env": {}, "timeout-minutes": 1 })),
                "steps[0].timeout_minutes: means nothing to a step of type env",
            ),
            (
                step(json!({ "type": "env", "env": {}, "nam": "x" })),
                "did you mean `name`?",
            ),
        ];
        for (task, expected) in cases {
            let problems = read(&task).unwrap_err().problems;
            assert_eq!(problems.len(), 1, "{task}: {problems:?}");
            assert!(problems[0].to_string().contains(expected), "{task}: {}", problems[0]);
        }
    }

    #[test]
    fn what_a_server_says_at_the_top_of_a_workflow_is_told_and_not_refused() {
        let of_an_agent = [
            "messages",
            "model",
            "system_prompt",
            "tools",
            "max_turns",
            "max_tokens",
            "max_cost_usd",
        ];
        for key in of_an_agent
            .into_iter()
            .chain(["thinking", "effort", "repository", "collect", "secrets", "id"])
        {
            let task = json!({ "type": "workflow", key: 1, "steps": [{ "run": "x" }] });
            let keys = read(&task).unwrap().unknown_keys;
            assert_eq!(keys.len(), 1, "{task}");
            assert!(
                keys[0].to_string().starts_with(&format!("{key}: is not known")),
                "{}",
                keys[0]
            );
        }
    }

    #[test]
    fn a_working_directory_is_in_the_workspace_by_its_text() {
        for (asked, expected) in [
            ("sub", Some("sub")),
            ("./a/../b", Some("./a/../b")),
            ("a/..", Some("a/..")),
            ("/nowhere/ws", Some(".")),
            ("/nowhere/ws/sub dir", Some("sub dir")),
            ("..", None),
            ("a/../../b", None),
            ("/nowhere/ws/..", None),
            ("/nowhere/ws/../ws-evil", None),
            ("/nowhere/ws-evil", None),
            ("/etc", None),
            ("/", None),
        ] {
            let task = json!({ "steps": [{ "run": "true", "working_directory": asked }] });
            match expected {
                Some(expected) => assert_eq!(runs(&task)[0].1, expected, "{asked}"),
                None => {
                    let problems = read(&task).unwrap_err().problems;
                    assert_eq!(problems[0].path, "steps[0].working_directory", "{asked}");
                }
            }
        }
    }
}
