//! Room in the context window: who summarizes, what stands in the conversation then, and when there is none to be had.

use super::scripted_model::{ScriptedTurn, turn};
use super::scripted_toolbox::answers;
use super::{FIRST_ASKED, case};
use crate::events::TaskErrorCode;
use plue_messages::{ModelError, StopReason};

/// A call in a conversation of so many tokens; the window has a million.
fn call(id: &str, tokens: u64) -> ScriptedTurn {
    turn().call(id, "grep", "{}").uses(tokens, 0).stops(StopReason::ToolUse)
}

fn refused() -> ScriptedTurn {
    turn().fails(ModelError::Refused("unknown field: compaction".into()))
}

fn too_long() -> ScriptedTurn {
    turn().fails(ModelError::TooLong("prompt is too long".into()))
}

const ROOM: &str = concat!(
    r#"log info "the conversation of 800000 tokens neared the end of the context window of claude-sonnet-5-5; "#,
    r#"a summary stands in its place now""#
);
const CALLED: &str = r#"assistant [t1 grep {}], user [t1 "a"]"#;

#[tokio::test]
async fn a_conversation_that_nears_the_end_of_the_window_is_summarized_by_the_api() {
    let turns = [call("t1", 800_000), turn().compaction("sum"), turn().text("Bye").done()];
    let outcome = case("by the API", turns)
        .calls([answers("a")])
        .run()
        .await
        .events(&[
            "tool_start m1 t1 grep",
            "tool_start m1 t1 grep {}",
            r#"tool_end t1 success "a""#,
            ROOM,
            r#"token m2#0 "Bye""#,
        ])
        .asked(&[
            FIRST_ASKED,
            &format!("16000 compaction: {CALLED}"),
            &format!(
                r#"64000 anew: assistant [compaction "sum"], user {:?}"#,
                super::super::summary::GO_ON
            ),
        ])
        .succeeds();
    assert_eq!(outcome.spent.turns, 2, "a summary is no turn of the task");
    assert_eq!(outcome.spent.usage.input_tokens, Some(800_020), "and is paid");
}

#[tokio::test]
async fn where_the_api_gives_none_the_model_writes_one() {
    let (ask, go_on) = (super::super::summary::SUMMARIZE, super::super::summary::GO_ON);
    let summary = format!("This is a summary of what was done so far:\n\nsum\n\n{go_on}");
    let turns = [
        call("t1", 900_000),
        refused(),
        turn().thinking("Hm").text("sum").done(),
        turn().text("Bye").done(),
    ];
    case("by the model", turns)
        .calls([answers("a")])
        .run()
        .await
        .asked(&[
            FIRST_ASKED,
            &format!("16000 compaction: {CALLED}"),
            &format!("16000: user {ask:?}"),
            &format!(r#"64000 anew: user "Go", user {summary:?}"#),
        ])
        .succeeds();
}

#[tokio::test]
async fn a_conversation_that_is_too_long_already_is_summarized_in_part() {
    let turns = [
        call("t1", 10),
        call("t2", 10),
        call("t3", 10),
        too_long(),
        refused(),
        too_long(),
        turn().text("sum").done(),
        turn().text("Bye").done(),
    ];
    let outcome = case("too long", turns)
        .calls([answers("a"), answers("b"), answers("c")])
        .run()
        .await
        .succeeds();
    let last = outcome.asked.last().unwrap();
    assert!(
        last.starts_with(r#"64000 anew: user "Go", user "This is a summary"#),
        "{last}"
    );
    assert!(last.ends_with(r#"assistant [t3 grep {}], user [t3 "c"]"#), "{last}");
    assert!(!last.contains("t1 grep"), "{last}");
    assert_eq!(outcome.spent.turns, 4);
}

#[tokio::test]
async fn an_answer_that_fills_the_window_is_asked_for_again_after_a_summary() {
    let full = turn().text("Hel").stops(StopReason::ContextWindowExceeded);
    case(
        "full",
        [
            call("t1", 10),
            full,
            turn().compaction("sum"),
            turn().text("Hello").done(),
        ],
    )
    .calls([answers("a")])
    .run()
    .await
    .events(&[
        "tool_start m1 t1 grep",
        "tool_start m1 t1 grep {}",
        r#"tool_end t1 success "a""#,
        r#"token m2#0 "Hel""#,
        concat!(
            r#"log info "the answer came to the end of the context window of claude-sonnet-5-5, after 5 tokens; "#,
            r#"it is asked for again""#
        ),
        &ROOM.replace("800000", "15"),
        r#"token m3#0 "Hello""#,
    ])
    .succeeds();
}

#[tokio::test]
async fn what_is_no_summary_takes_no_place() {
    let refusal = StopReason::Refusal {
        category: None,
        explanation: None,
    };
    // One without content, one that the model refuses, and one that it does not finish.
    let turns = [
        call("t1", 900_000),
        turn().compaction(""),
        turn().text("I cannot").stops(refusal),
    ];
    case("no summary", turns)
        .calls([answers("a")])
        .run()
        .await
        .fails(TaskErrorCode::ContextExceeded, "no summary of it could be made");
    // Whatever the API has against it, the model may be asked.
    for error in [
        ModelError::Auth as fn(String) -> ModelError,
        ModelError::ModelNotFound,
        ModelError::Failed,
    ] {
        let failed = turn().fails(error("403".into()));
        let turns = [
            call("t1", 900_000),
            failed,
            turn().text("sum").done(),
            turn().text("Bye").done(),
        ];
        case("another error", turns)
            .calls([answers("a")])
            .run()
            .await
            .succeeds();
    }
}

#[tokio::test]
async fn a_conversation_that_is_as_full_after_a_summary_ends() {
    let turns = [call("t1", 900_000), turn().compaction("sum"), call("t2", 900_000)];
    case("a spiral", turns)
        .calls([answers("a"), answers("b")])
        .run()
        .await
        .fails(TaskErrorCode::ContextExceeded, "also after a summary");
}

#[tokio::test]
async fn when_a_summary_is_no_help_the_task_ends() {
    let full = || turn().stops(StopReason::ContextWindowExceeded);
    case("full again", [call("t1", 10), full(), turn().compaction("sum"), full()])
        .calls([answers("a")])
        .run()
        .await
        .fails(TaskErrorCode::ContextExceeded, "also after a summary");
    case("no summary", [call("t1", 10), full(), refused(), turn().done()])
        .calls([answers("a")])
        .run()
        .await
        .fails(TaskErrorCode::ContextExceeded, "no summary of it could be made");
    // Of the task alone there is nothing to be left out.
    for alone in [full(), too_long()] {
        let asked = case("the task alone", [alone]).run().await.asked(&[FIRST_ASKED]);
        asked.fails(TaskErrorCode::ContextExceeded, "");
    }
}
