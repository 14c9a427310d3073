//! How a step ends, for each way in which its command may.

use super::case;
use super::scripted_sandbox::{command, fails_to_start};
use crate::events::TaskErrorCode;
use plue_sandbox::{Ending, StartError};

#[tokio::test]
async fn each_ending_of_a_command_has_its_state_its_reason_and_its_code() {
    let failed = TaskErrorCode::StepFailed;
    for (name, code, ending, state, reason, task_code) in [
        (
            "exit code 1",
            1,
            Ending::Exited,
            "failure",
            "the command ended with exit code 1",
            failed,
        ),
        (
            "a signal",
            139,
            Ending::Exited,
            "failure",
            "the command ended with exit code 139, as of a program killed by SIGSEGV",
            failed,
        ),
        (
            "a negative code",
            -1,
            Ending::Exited,
            "failure",
            "the command ended with exit code -1",
            failed,
        ),
        (
            "its time was over",
            143,
            Ending::TimedOut,
            "failure",
            "the step ran longer than its 9 s and was ended",
            TaskErrorCode::Timeout,
        ),
        (
            "its time was over, and it ended well",
            0,
            Ending::TimedOut,
            "failure",
            "the step ran longer than its 9 s and was ended",
            TaskErrorCode::Timeout,
        ),
        (
            "cancelled",
            143,
            Ending::Cancelled,
            "error",
            "the step was cancelled",
            TaskErrorCode::Cancelled,
        ),
        (
            "memory",
            137,
            Ending::Memory,
            "failure",
            "the command used more memory than a command may (COMMAND_MEMORY)",
            failed,
        ),
        (
            "processes",
            137,
            Ending::Processes,
            "failure",
            "the command had more processes than a command may (COMMAND_PROCESSES)",
            failed,
        ),
    ] {
        case(name, [command().out("so far").ends(code, ending)])
            .run()
            .await
            .events(&[
                "step_start A step_index=0",
                r#"log stdout "so far" step_index=0"#,
                &format!("step_end A step_index=0 {state} {reason:?} exit_code={code}"),
            ])
            .fails(task_code, &format!("step 0 (A): {reason}"));
    }
}

#[tokio::test]
async fn a_command_that_cannot_be_started_fails_the_step_and_has_no_exit_code() {
    for (error, name) in [
        (StartError::Invalid as fn(String) -> StartError, "invalid"),
        (StartError::NotFound, "not found"),
        (StartError::Denied, "denied"),
        (StartError::Failed, "failed"),
    ] {
        case(name, [fails_to_start(error("the reason".into()))])
            .run()
            .await
            .events(&[
                "step_start A step_index=0",
                r#"step_end A step_index=0 error "the reason""#,
            ])
            .fails(TaskErrorCode::StepFailed, "step 0 (A): the reason");
    }
}

#[tokio::test]
async fn a_command_that_the_sandbox_loses_is_the_sandboxs_fault() {
    case("lost", [command().out("whole\n")])
        .run()
        .await
        .events(&[
            "step_start A step_index=0",
            r#"log stdout "whole" step_index=0"#,
            r#"step_end A step_index=0 error "the sandbox lost the command""#,
        ])
        .fails(TaskErrorCode::Sandbox, "step 0 (A): the sandbox lost the command");
}

#[tokio::test]
async fn nothing_that_comes_after_the_end_of_a_command_is_told() {
    case("late output", [command().out("a\n").exits(0).out("late\n")])
        .run()
        .await
        .events(&[
            "step_start A step_index=0",
            r#"log stdout "a" step_index=0"#,
            "step_end A step_index=0 success exit_code=0",
        ])
        .succeeds();
}
