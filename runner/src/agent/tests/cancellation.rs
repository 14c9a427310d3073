//! A task that is told to stop, wherever it is: everything that has begun is ended, and nothing else begins.

use super::scripted_model::turn;
use super::scripted_toolbox::{answers, hangs_until_cancelled};
use super::{FIRST_ASKED, case};
use crate::events::TaskErrorCode;
use plue_messages::StopReason;

const NOT_MADE: &str = r#""The call was not made: the task ended." cancelled"#;

#[tokio::test]
async fn before_the_first_turn() {
    let mut case = case("before the first turn", [turn().text("Hello").done()]);
    case.cancelled_before = true;
    case.run()
        .await
        .events(&[])
        .asked(&[FIRST_ASKED])
        .fails(TaskErrorCode::Cancelled, "cancelled");
}

#[tokio::test]
async fn in_the_middle_of_a_turn_that_says_no_more() {
    case("while it hangs", [turn().text("Hel").cancels().hangs()])
        .run()
        .await
        .events(&[r#"token m1#0 "Hel""#])
        .fails(TaskErrorCode::Cancelled, "cancelled");
    let mut kept_back = case(
        "with a text that was kept back",
        [turn().text("a s3cr").cancels().hangs()],
    );
    kept_back.secrets = &["s3cret-value"];
    kept_back
        .run()
        .await
        .events(&[r#"token m1#0 "a ""#, r#"token m1#1 "s3cr""#])
        .fails(TaskErrorCode::Cancelled, "cancelled");
}

#[tokio::test]
async fn in_the_middle_of_a_turn_that_goes_on() {
    // The delta that is there already is the last that is told.
    case(
        "while it speaks",
        [turn().text("Hel").cancels().text("lo").text(" you").done()],
    )
    .run()
    .await
    .events(&[r#"token m1#0 "Hel""#, r#"token m1#1 "lo""#])
    .fails(TaskErrorCode::Cancelled, "cancelled");
}

#[tokio::test]
async fn in_the_middle_of_a_turn_with_calls_open() {
    let turn = turn()
        .call("t1", "grep", "{}")
        .call("t2", "grep", "{}")
        .cancels()
        .hangs();
    case("with calls open", [turn])
        .run()
        .await
        .events(&[
            "tool_start m1 t1 grep",
            "tool_start m1 t2 grep",
            &format!("tool_end t1 error {NOT_MADE}"),
            &format!("tool_end t2 error {NOT_MADE}"),
        ])
        .called(&[])
        .fails(TaskErrorCode::Cancelled, "cancelled");
}

#[tokio::test]
async fn between_two_turns() {
    // The turn that was cancelled as it ended is taken; the next is not begun.
    let paused = turn().text("Hel").cancels().stops(StopReason::PauseTurn);
    let outcome = case("after a pause", [paused, turn().text("lo").done()])
        .run()
        .await
        .events(&[r#"token m1#0 "Hel""#])
        .fails(TaskErrorCode::Cancelled, "cancelled");
    assert_eq!(outcome.spent.usage.input_tokens, Some(10), "the first was paid for");
    case("with the answer", [turn().text("Hello").cancels().done()])
        .run()
        .await
        .events(&[r#"token m1#0 "Hello""#])
        .succeeds();
}

#[tokio::test]
async fn while_a_tool_runs() {
    let calls = || {
        turn()
            .call("t1", "grep", r#"{"a":1}"#)
            .call("t2", "grep", "{}")
            .stops(StopReason::ToolUse)
    };
    case("the tool is stopped", [calls()])
        .calls([hangs_until_cancelled()])
        .run()
        .await
        .events(&[
            "tool_start m1 t1 grep",
            "tool_start m1 t2 grep",
            r#"tool_start m1 t1 grep {"a":1}"#,
            r#"tool_end t1 error "stopped" cancelled"#,
            &format!("tool_end t2 error {NOT_MADE}"),
        ])
        .called(&[r#"grep {"a":1}"#])
        .asked(&[FIRST_ASKED])
        .fails(TaskErrorCode::Cancelled, "cancelled");
    case("the tool has a result all the same", [calls()])
        .calls([answers("found").cancels()])
        .run()
        .await
        .events(&[
            "tool_start m1 t1 grep",
            "tool_start m1 t2 grep",
            r#"tool_start m1 t1 grep {"a":1}"#,
            r#"tool_end t1 success "found""#,
            &format!("tool_end t2 error {NOT_MADE}"),
        ])
        .called(&[r#"grep {"a":1}"#])
        .fails(TaskErrorCode::Cancelled, "cancelled");
}

#[tokio::test]
async fn between_the_end_of_a_turn_and_its_first_call() {
    let turn = turn()
        .call("t1", "grep", "{}")
        .call("t2", "grep", "{}")
        .cancels()
        .stops(StopReason::ToolUse);
    // The tools see that they are cancelled already; the second call is not begun.
    case("before the call", [turn])
        .calls([hangs_until_cancelled()])
        .run()
        .await
        .events(&[
            "tool_start m1 t1 grep",
            "tool_start m1 t2 grep",
            "tool_start m1 t1 grep {}",
            r#"tool_end t1 error "stopped" cancelled"#,
            &format!("tool_end t2 error {NOT_MADE}"),
        ])
        .called(&["grep {}"])
        .fails(TaskErrorCode::Cancelled, "cancelled");
}

#[tokio::test]
async fn what_an_answer_cost_that_was_cancelled_is_told() {
    let cancelled = turn().begins(500, 1).text("Hel").cancels().hangs();
    let outcome = case("in the middle", [cancelled])
        .run()
        .await
        .fails(TaskErrorCode::Cancelled, "");
    assert_eq!(outcome.spent.usage.input_tokens, Some(500));
    assert_eq!(outcome.spent.usage.output_tokens, Some(1));
}
