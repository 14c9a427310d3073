//! What a task comes to.

use serde_json::value::RawValue;

use super::scripted_model::turn;
use super::scripted_toolbox::answers;
use super::{Outcome, case};
use crate::events::TaskErrorCode;
use crate::task::AgentTask;
use plue_messages::StopReason;

const SCHEMA: &str = r#"{"type":"object","required":["n"],"properties":{"n":{"type":"integer"}}}"#;

fn wants(schema: &'static str) -> impl FnOnce(&mut AgentTask) {
    move |task| task.output_schema = Some(RawValue::from_string(schema.into()).unwrap())
}

fn result(outcome: &Outcome) -> &str {
    outcome.result.as_ref().unwrap().get()
}

#[tokio::test]
async fn the_result_is_the_last_text_whole() {
    let call = turn()
        .text("Let me see.")
        .call("t1", "grep", "{}")
        .stops(StopReason::ToolUse);
    let cut = turn().text("Hel").stops(StopReason::MaxTokens);
    let outcome = case("text", [call, cut, turn().text("lo \"you\"").done()])
        .calls([answers("a")])
        .run()
        .await
        .succeeds();
    assert_eq!(result(&outcome), r#""Hello \"you\"""#);
}

#[tokio::test]
async fn an_answer_that_has_to_fit_a_schema_is_held_to_it() {
    let outcome = case("it fits", [turn().text("```json\n{\"n\": 1}\n```").done()])
        .task(wants(SCHEMA))
        .run()
        .await
        .succeeds();
    assert_eq!(result(&outcome), r#"{"n": 1}"#);
    assert!(
        outcome.asked[0].contains("It has to fit this JSON Schema"),
        "{:?}",
        outcome.asked
    );

    let outcome = case(
        "it does the second time",
        [turn().text("Sure!").done(), turn().text("{\"n\":2}").done()],
    )
    .task(wants(SCHEMA))
    .run()
    .await
    .succeeds();
    assert_eq!(result(&outcome), r#"{"n":2}"#);
    assert!(
        outcome.asked[1].contains("is not one JSON value"),
        "{:?}",
        outcome.asked
    );

    case(
        "it never does",
        [turn().text("{\"n\":\"1\"}").done(), turn().text("{}").done()],
    )
    .task(wants(SCHEMA))
    .run()
    .await
    .fails(TaskErrorCode::ModelError, "does not fit the task's output_schema");
}
