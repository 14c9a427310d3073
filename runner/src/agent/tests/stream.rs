//! What the model's stream does besides its text: thinking, usage, a repetition, and every way to break.

use super::scripted_model::{ScriptedTurn, turn};
use super::{FIRST_ASKED, case};
use crate::agent::BROKEN_OFF_CALL;
use crate::events::TaskErrorCode;
use plue_messages::ModelError;

#[tokio::test]
async fn each_kind_of_failure_of_the_model_has_its_code_and_its_text() {
    for (error, code) in [
        (ModelError::Auth as fn(String) -> ModelError, TaskErrorCode::ModelAuth),
        (ModelError::ModelNotFound, TaskErrorCode::ModelRetired),
        (ModelError::Refused, TaskErrorCode::ModelError),
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
    let usage = |message: &str, input, output| {
        format!("usage {message} input_tokens={input} output_tokens={output} cache_read_tokens=0 cache_write_tokens=0")
    };
    let first = turn()
        .thinking("Hm")
        .text("Hel")
        .call("t1", "grep", "{")
        .wastes(7, 1)
        .restarted()
        .waits()
        .thinking("Aha")
        .text("Hello")
        .done();
    let outcome = case("restarted", [first])
        .extra_events()
        .run()
        .await
        .events(&[
            r#"thinking m1 "Hm""#,
            r#"token m1#0 "Hel""#,
            "tool_start m1 t1 grep",
            &usage("m1", 7, 1),
            &format!("tool_end t1 error {BROKEN_OFF_CALL:?} cancelled"),
            r#"log info "the model's answer broke off and is asked for again: it broke""#,
            r#"message_reset m1 m2 "it broke""#,
            r#"log info "waiting for the model, for up to 600 s (MODEL_PATIENCE): it is busy""#,
            r#"thinking m2 "Aha""#,
            r#"token m2#0 "Hello""#,
            &usage("m2", 10, 5),
        ])
        .asked(&[FIRST_ASKED])
        .called(&[])
        .succeeds();
    let spent = outcome.spent;
    assert_eq!(
        (spent.usage.input_tokens, spent.usage.output_tokens),
        (Some(17), Some(6))
    );
    assert_eq!(spent.turns, 1);
    // Nothing was shown: nobody has to forget anything.
    let quiet = turn().wastes(7, 1).restarted().text("Hello").done();
    case("nothing was shown", [quiet])
        .run()
        .await
        .events(&[r#"token m1#0 "Hello""#])
        .succeeds();
}

#[tokio::test]
async fn attempts_that_break_off_count_for_the_budget() {
    let costly = turn()
        .wastes(500_000, 0)
        .restarted()
        .wastes(500_000, 0)
        .restarted()
        .text("Hello")
        .done();
    case("half a dollar each", [costly])
        .task(|task| task.max_cost_usd = Some(1.5))
        .run()
        .await
        .fails(TaskErrorCode::Budget, "cost 2.0000 US dollars");
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
            r#"log info "the model's answer broke off and is asked for again: it broke""#,
            r#"message_reset m1 m2 "it broke""#,
            r#"thinking m2 "et-value""#,
            r#"token m2#0 "!""#,
            "usage m2 input_tokens=10 output_tokens=5 cache_read_tokens=0 cache_write_tokens=0",
        ])
        .succeeds();
}
