//! A workflow that is told to stop, wherever it is.

use super::case;
use super::scripted_sandbox::{command, fails_to_start};
use crate::events::TaskErrorCode;
use plue_sandbox::{Ending, StartError};

#[tokio::test]
async fn before_the_first_step() {
    let mut case = case("before the first step", [command().exits(0)]);
    case.cancelled_before = true;
    let (outcome, left) = case.run_some().await;
    outcome
        .events(&[])
        .fails(TaskErrorCode::Cancelled, "the task was cancelled");
    assert_eq!(left, 1, "nothing was started");
}

#[tokio::test]
async fn while_a_command_is_started() {
    let refused = StartError::Failed("the command was cancelled before it began".into());
    case("the sandbox gives up", [fails_to_start(refused).cancels_start()])
        .run()
        .await
        .events(&[
            "step_start A step_index=0",
            r#"step_end A step_index=0 error "the command was cancelled before it began""#,
        ])
        .fails(
            TaskErrorCode::Cancelled,
            "step 0 (A): the command was cancelled before it began",
        );
    let started = command().cancels_start().until_cancelled().ends(143, Ending::Cancelled);
    case("the command stands already", [started])
        .run()
        .await
        .events(&[
            "step_start A step_index=0",
            r#"step_end A step_index=0 error "the step was cancelled" exit_code=143"#,
        ])
        .fails(TaskErrorCode::Cancelled, "step 0 (A): the step was cancelled");
}

#[tokio::test]
async fn while_a_command_runs_and_what_it_still_says_is_told() {
    let command = command()
        .out("begun\nhalf ")
        .cancels()
        .until_cancelled()
        .out("a line")
        .err("stopping\n")
        .ends(143, Ending::Cancelled);
    case("while it runs", [command])
        .run()
        .await
        .events(&[
            "step_start A step_index=0",
            r#"log stdout "begun" step_index=0"#,
            r#"log stderr "stopping" step_index=0"#,
            r#"log stdout "half a line" step_index=0"#,
            r#"step_end A step_index=0 error "the step was cancelled" exit_code=143"#,
        ])
        .fails(TaskErrorCode::Cancelled, "step 0 (A): the step was cancelled");
}

#[tokio::test]
async fn between_two_steps() {
    let (outcome, left) = case("between", [command().cancels().exits(0), command().exits(0)])
        .run_some()
        .await;
    outcome
        .events(&[
            "step_start A step_index=0",
            "step_end A step_index=0 success exit_code=0",
        ])
        .fails(TaskErrorCode::Cancelled, "the task was cancelled");
    assert_eq!(left, 1, "the second command");
}

#[tokio::test]
async fn after_the_last_step_it_is_too_late() {
    case("after the last", [command().cancels().exits(0)])
        .run()
        .await
        .succeeds();
}
