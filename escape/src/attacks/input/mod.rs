//! Hostile tasks, hostile answers of the model, and an API server that sends the runner elsewhere.

use crate::attack::{Action, Attack, Baseline, ModelInput, TaskInput};
use crate::scene::Scene;

mod document;
mod model;
mod stream;
mod widening;

pub const ATTACKS: &[&[Attack]] = &[document::ATTACKS, widening::ATTACKS, model::ATTACKS, stream::ATTACKS];

type MakeTask = fn(&Scene) -> TaskInput;
type MakeModel = fn(&Scene) -> ModelInput;

/// An attack by a task, whose baseline is a task in the same form that does no harm.
const fn task(id: &'static str, what: &'static str, hostile: MakeTask, harmless: MakeTask) -> Attack {
    Attack::task(id, what, hostile).baseline(Baseline::Harmless(Action::Task(harmless)))
}

/// An attack by the model, whose baseline is an answer in the same form that does no harm.
const fn model(id: &'static str, what: &'static str, hostile: MakeModel, harmless: MakeModel) -> Attack {
    Attack::model(id, what, hostile).baseline(Baseline::Harmless(Action::Model(harmless)))
}
