//! The workflow task: a list of steps, or the `jobs:` form of CI files.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::agent::MAX_TIMEOUT_SECONDS;
use super::reader::{Reader, join};
use super::{Step, StepKind, WorkflowTask};

/// How long a step may run that does not say.
const DEFAULT_STEP_TIMEOUT: Duration = Duration::from_secs(600);

const STEP_KEYS: &[&str] = &[
    "type",
    "name",
    "run",
    "env",
    "working_directory",
    "timeout_seconds",
    "timeout_minutes",
];

pub(super) fn read(object: &Map<String, Value>, reader: &mut Reader) -> Option<WorkflowTask> {
    // `name` and `on` are what a CI file has at its top; they mean nothing here and nobody is to be warned of them.
    reader.known_keys("", object, &["type", "name", "on", "steps", "jobs", "timeout_seconds"]);
    let timeout = reader.integer("timeout_seconds", object.get("timeout_seconds"), 1, MAX_TIMEOUT_SECONDS);
    let steps = match (object.get("steps"), object.get("jobs")) {
        (Some(_), Some(_)) => {
            reader.problem("jobs", "stands beside `steps`: a workflow has one of the two");
            None
        }
        (None, Some(jobs)) => read_jobs(jobs, reader),
        (steps, None) => read_steps("steps", steps, 0, reader),
    }?;
    Some(WorkflowTask {
        steps,
        timeout: timeout.map(Duration::from_secs),
    })
}

/// Jobs run one after the other, in the order of the document.
fn read_jobs(value: &Value, reader: &mut Reader) -> Option<Vec<Step>> {
    let jobs = reader.object("jobs", value)?;
    if jobs.is_empty() {
        reader.problem("jobs", "must have at least one job");
    }
    let mut steps = Vec::new();
    for (name, job) in jobs {
        let path = join("jobs", name);
        let Some(job) = reader.object(&path, job) else { continue };
        let first = steps.len();
        steps.extend(read_steps(&join(&path, "steps"), job.get("steps"), first, reader).unwrap_or_default());
    }
    Some(steps)
}

fn read_steps(path: &str, value: Option<&Value>, first: usize, reader: &mut Reader) -> Option<Vec<Step>> {
    let items = reader.array(path, value, "steps")?;
    let steps = items.iter().enumerate();
    Some(
        steps
            .filter_map(|(index, item)| read_step(&format!("{path}[{index}]"), first + index, item, reader))
            .collect(),
    )
}

fn read_step(path: &str, index: usize, value: &Value, reader: &mut Reader) -> Option<Step> {
    let object = snake_case(path, reader.object(path, value)?, reader);
    reader.known_keys(path, &object, STEP_KEYS);
    let at = |key: &str| join(path, key);
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
    let env = reader.environment(&at("env"), object.get("env"));
    let kind = match kind {
        "checkout" => StepKind::Checkout,
        "env" => {
            if !object.contains_key("env") {
                reader.problem(&at("env"), "is missing: it must be an object of environment variables");
            }
            StepKind::Env(env)
        }
        _ => read_run(path, &object, env, reader)?,
    };
    Some(Step { name: name?, kind })
}

fn read_run(
    path: &str,
    object: &Map<String, Value>,
    env: BTreeMap<String, String>,
    reader: &mut Reader,
) -> Option<StepKind> {
    let at = |key: &str| join(path, key);
    if !object.contains_key("run") {
        reader.problem(&at("run"), "is missing: it must be the script that the step runs");
    }
    let script = reader.text(&at("run"), object.get("run")).map(str::to_owned);
    let working_directory = match object.get("working_directory") {
        None => Some(".".to_owned()),
        directory => reader.text(&at("working_directory"), directory).map(str::to_owned),
    };
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
