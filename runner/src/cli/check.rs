//! `plue-runner check FILE`: what is wrong with a task, for a person at a terminal.

use std::path::Path;

use crate::config::{BUILT_IN_MODELS, BUILT_IN_TOOLS};
use crate::run::Exit;
use crate::task::{self, Allowed, Document, Format, Problem, Task};

/// Checks a file. An unknown key is an error here: whoever writes a task wants to hear of a slip.
#[allow(clippy::print_stdout, reason = "this command speaks to a person")]
pub(super) fn run(file: &Path, lookup: &dyn Fn(&str) -> Option<String>) -> Exit {
    let shown = file.display();
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            println!("{shown}: cannot be read: {error}");
            return Exit::Invalid;
        }
    };
    let document = match Document::parse(&text, Format::guess(&file.to_string_lossy(), &text)) {
        Ok(document) => document,
        Err(error) => {
            println!("{shown}: {error}");
            return Exit::Invalid;
        }
    };
    let extended = |name: &str, built_in: &[&str], replace: bool| {
        let set = lookup(name).unwrap_or_default();
        let set: Vec<String> = set
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(str::to_owned)
            .collect();
        let keep = if replace && !set.is_empty() { &[] } else { built_in };
        keep.iter().map(|&name| name.to_owned()).chain(set).collect::<Vec<_>>()
    };
    let models = extended("ALLOWED_MODELS", BUILT_IN_MODELS, false);
    let tools = extended("ALLOWED_TOOLS", BUILT_IN_TOOLS, true);
    let (problems, unknown, task) = match task::validate(
        &document,
        Allowed {
            models: &models,
            tools: &tools,
        },
    ) {
        Ok(valid) => (Vec::new(), valid.unknown_keys, Some(valid.task)),
        Err(invalid) => (invalid.problems, invalid.unknown_keys, None),
    };
    let all: Vec<Problem> = problems.into_iter().chain(unknown).collect();
    match task {
        Some(task) if all.is_empty() => {
            println!("{shown}: valid ({})", describe(&task));
            Exit::Success
        }
        _ => {
            let plural = if all.len() == 1 { "" } else { "s" };
            println!("{shown}: {} problem{plural}", all.len());
            for problem in all {
                println!("  {problem}");
            }
            Exit::Invalid
        }
    }
}

fn describe(task: &Task) -> String {
    match task {
        Task::Agent(task) => {
            let tools = if task.tools.is_empty() {
                "no tools".into()
            } else {
                task.tools.join(", ")
            };
            format!("agent, {}, {tools}, at most {} turns", task.model, task.max_turns)
        }
        Task::Workflow(task) if task.steps.len() == 1 => "workflow, 1 step".into(),
        Task::Workflow(task) => format!("workflow, {} steps", task.steps.len()),
    }
}
