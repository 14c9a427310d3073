//! Whether the model takes what an agent task asks of it: the part of a task's validity that depends on the operator's
//! aliases, since what counts is the model that is sent.

use crate::agent::OutputLimit;
use crate::task::{AgentTask, Problem};
use plue_messages::models;

/// What the model (as it is sent) would answer with a 400. Nothing is to be run then.
pub fn check_settings(model: &str, task: &AgentTask) -> Vec<Problem> {
    let effort = task.effort.as_deref();
    let max_tokens = OutputLimit::new(model, task.max_tokens).tokens();
    let check_effort = |effort| models::check_effort(model, effort).err();
    let check_thinking = |thinking| models::check_thinking(model, thinking, effort, max_tokens).err();
    let checks = [
        ("effort", effort.and_then(check_effort)),
        ("thinking", task.thinking.as_deref().and_then(check_thinking)),
    ];
    let problem = |path: &str, message: String| Problem {
        path: path.into(),
        message,
    };
    let mut problems: Vec<Problem> = checks
        .into_iter()
        .filter_map(|(path, error)| Some(problem(path, error?.to_string())))
        .collect();
    if task.max_cost_usd.is_some() && models::lookup(model).is_none() {
        let message = format!(
            "cannot be kept: the price of the model {model:?} is not known. Ask for a model of Anthropic's, or let the \
             operator set MODEL_ALIASES={model}=MODEL, which sends one in its place"
        );
        problems.push(problem("max_cost_usd", message));
    }
    problems
}
