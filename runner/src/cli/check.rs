//! `plue-runner check FILE`: what is wrong with a task, for a person at a terminal.

use std::path::Path;

use super::output::print;
use crate::config::TaskRules;
use crate::run::{Exit, check_settings};
use crate::task::{self, Document, Task};

/// Checks a file by the rules of this environment. An unknown key is an error here: whoever writes a task wants to hear
/// of a slip.
pub(super) fn run(file: &Path, lookup: &dyn Fn(&str) -> Option<String>) -> Exit {
    let rules = match TaskRules::read(lookup) {
        Ok(rules) => rules,
        Err(error) => return print(&format!("{error}\n"), Exit::Invalid),
    };
    let shown = file.display();
    let document = match Document::read_file(file) {
        Ok(document) => document,
        Err(error) => return print(&format!("{shown}: {error}\n"), Exit::Invalid),
    };
    let (mut problems, unknown_keys, task) = match task::validate(&document, &rules) {
        Ok(valid) => (Vec::new(), valid.unknown_keys, Some(valid.task)),
        Err(invalid) => (invalid.problems, invalid.unknown_keys, None),
    };
    if let Some(Task::Agent(task)) = &task {
        problems.extend(check_settings(rules.sent(&task.model), task));
    }
    problems.extend(unknown_keys);
    match task {
        Some(task) if problems.is_empty() => {
            let note = note(&task, &rules).map(|note| format!("{shown}: {note}\n"));
            let valid = format!("{shown}: valid ({})\n", describe(&task));
            print(&(note.unwrap_or_default() + &valid), Exit::Success)
        }
        _ => {
            let plural = if problems.len() == 1 { "" } else { "s" };
            let lines: String = problems.iter().map(|problem| format!("  {problem}\n")).collect();
            print(
                &format!("{shown}: {} problem{plural}\n{lines}", problems.len()),
                Exit::Invalid,
            )
        }
    }
}

/// What whoever writes the task may not expect.
fn note(task: &Task, rules: &TaskRules) -> Option<String> {
    let Task::Agent(task) = task else { return None };
    let (sent, day) = rules.replaced(&task.model)?;
    Some(format!(
        "{} was retired on {day}: {sent} is asked in its place",
        task.model
    ))
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
