//! What the model's stream does besides its text: thinking, usage, a repetition, and every way to break.

use super::scripted_model::{ScriptedTurn, turn};
use super::{FIRST_ASKED, case};
use crate::events::TaskErrorCode;
use plue_messages::ModelError;

#[tokio::test]
async fn each_kind_of_failure_of_the_model_has_its_code_and_its_text() {
    for (error, code) in [
        (ModelError::Auth as fn(String) -> ModelError, TaskErrorCode::ModelAuth),
        (ModelError::ModelNotFound, TaskErrorCode::ModelRetired),
        (ModelError::TooLong, TaskErrorCode::ContextExceeded),
        (ModelError::Failed, TaskErrorCode::ModelError),
    ] {
        let outcome = case(code.as_str(), [turn().fails(error("the reason".into()))])
            .run()
            .await
            .events(&[])
            .asked(&[FIRST_ASKED])
            .fails(code, "the reason");
        assert_eq!(outcome.spent.turns, 1, "it was asked");
    }
}

#[tokio::test]
async fn what_was_said_before_a_failure_is_told_and_what_was_opened_is_ended() {
    let broken: fn(ScriptedTurn) -> ScriptedTurn = |turn| turn.fails(ModelError::Failed("it broke".into()));
    let cut: fn(ScriptedTurn) -> ScriptedTurn = |turn| turn;
    for (name, end, text) in [
        ("an error", broken, "it broke"),
        ("no result", cut, "ended without a result"),
    ] {
        let first = end(turn().text("Hello").call("t1", "grep", "{}").call("t2", "grep", "{}"));
        let not_made = |id: &str| format!(r#"tool_end {id} error "The call was not made: the task ended." cancelled"#);
        case(name, [first])
            .run()
            .await
            .events(&[
                r#"token m1#0 "Hello""#,
                "tool_start m1 t1 grep",
                "tool_start m1 t2 grep",
                &not_made("t1"),
                &not_made("t2"),
            ])
            .called(&[])
            .fails(TaskErrorCode::ModelError, text);
    }
}

#[tokio::test]
async fn a_turn_that_is_asked_for_again_is_another_message() {
    let first = turn().thinking("Hm").restarted().thinking("Aha").text("Hello").done();
    case("restarted", [first])
        .extra_events()
        .run()
        .await
        .events(&[
            r#"thinking m1 "Hm""#,
            r#"thinking m2 "Aha""#,
            r#"token m2#0 "Hello""#,
            "usage m2 input_tokens=10 output_tokens=5 cache_read_tokens=0 cache_write_tokens=0",
        ])
        .asked(&[FIRST_ASKED])
        .succeeds();
}

#[tokio::test]
async fn thinking_and_usage_are_told_when_somebody_wants_them() {
    let turns = || [turn().thinking("H").thinking("m").text("Hello").done()];
    case("with extra events", turns())
        .extra_events()
        .run()
        .await
        .events(&[
            r#"thinking m1 "H""#,
            r#"thinking m1 "m""#,
            r#"token m1#0 "Hello""#,
            "usage m1 input_tokens=10 output_tokens=5 cache_read_tokens=0 cache_write_tokens=0",
        ])
        .succeeds();
    case("without", turns())
        .run()
        .await
        .events(&[r#"token m1#0 "Hello""#])
        .succeeds();
}

#[tokio::test]
async fn what_may_be_the_beginning_of_a_secret_is_kept_back_and_told_before_what_follows() {
    let mut failing = case(
        "a failure",
        [turn().text("a s3cr").fails(ModelError::Failed("x".into()))],
    );
    failing.secrets = &["s3cret-value"];
    failing
        .run()
        .await
        .events(&[r#"token m1#0 "a ""#, r#"token m1#1 "s3cr""#])
        .fails(TaskErrorCode::ModelError, "x");
    let restarted = turn()
        .thinking("s3cr")
        .restarted()
        .thinking("et-value")
        .text("!")
        .done();
    let mut restarted = case("another message", [restarted]).extra_events();
    restarted.secrets = &["s3cret-value"];
    restarted
        .run()
        .await
        .events(&[
            r#"thinking m1 "s3cr""#,
            r#"thinking m2 "et-value""#,
            r#"token m2#0 "!""#,
            "usage m2 input_tokens=10 output_tokens=5 cache_read_tokens=0 cache_write_tokens=0",
        ])
        .succeeds();
}
