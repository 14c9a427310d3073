//! What follows each reason for which the model stops.

use super::scripted_model::turn;
use super::scripted_toolbox::answers;
use super::{FIRST_ASKED, case};
use crate::events::TaskErrorCode;
use plue_messages::StopReason;

const TOKEN: &str = r#"token m1#0 "Hello""#;

#[tokio::test]
async fn an_answer_ends_the_task_and_so_does_a_stop_sequence() {
    for (name, stop) in [
        ("end_turn", StopReason::EndTurn),
        ("stop_sequence", StopReason::StopSequence(Some("###".into()))),
        ("stop_sequence without its text", StopReason::StopSequence(None)),
    ] {
        case(name, [turn().text("Hel").text("lo").stops(stop)])
            .run()
            .await
            .events(&[r#"token m1#0 "Hel""#, r#"token m1#1 "lo""#])
            .asked(&[FIRST_ASKED])
            .succeeds();
    }
}

#[tokio::test]
async fn what_the_model_refuses_or_cannot_do_is_a_failure_with_a_code_of_its_own() {
    let refusal = |category: Option<&str>, explanation: Option<&str>| StopReason::Refusal {
        category: category.map(str::to_owned),
        explanation: explanation.map(str::to_owned),
    };
    for (name, stop, code, text) in [
        (
            "refusal",
            refusal(Some("cyber"), Some("it would do harm")),
            TaskErrorCode::Refusal,
            "the model refused (cyber): it would do harm",
        ),
        (
            "refusal without a reason",
            refusal(None, None),
            TaskErrorCode::Refusal,
            "the model refused: it gave no explanation",
        ),
        (
            "a summary that nobody asked for",
            StopReason::Compaction,
            TaskErrorCode::ModelError,
            "nobody asked for",
        ),
        (
            "another reason",
            StopReason::Other("nap".into()),
            TaskErrorCode::ModelError,
            "\"nap\"",
        ),
        (
            "tool_use without a tool",
            StopReason::ToolUse,
            TaskErrorCode::ModelError,
            "named none",
        ),
    ] {
        case(name, [turn().text("Hello").stops(stop)])
            .run()
            .await
            .events(&[TOKEN])
            .asked(&[FIRST_ASKED])
            .fails(code, text);
    }
}

#[tokio::test]
async fn calls_are_made_whichever_of_three_reasons_stands_with_them() {
    for (name, stop) in [
        ("tool_use", StopReason::ToolUse),
        ("end_turn with a call", StopReason::EndTurn),
        ("stop_sequence with a call", StopReason::StopSequence(None)),
    ] {
        let first = turn().text("Hello").call("t1", "grep", r#"{"a":1}"#).stops(stop);
        case(name, [first, turn().text("Bye").done()])
            .calls([answers("found")])
            .run()
            .await
            .events(&[
                TOKEN,
                "tool_start m1 t1 grep",
                r#"tool_start m1 t1 grep {"a":1}"#,
                r#"tool_end t1 success "found""#,
                r#"token m2#0 "Bye""#,
            ])
            .asked(&[
                FIRST_ASKED,
                r#"64000: assistant ["Hello"; t1 grep {"a":1}], user [t1 "found"]"#,
            ])
            .called(&[r#"grep {"a":1}"#])
            .succeeds();
    }
}

#[tokio::test]
async fn a_call_is_not_made_when_the_turn_stops_for_a_reason_that_ends_the_task() {
    for (name, stop, code) in [
        (
            "refusal",
            StopReason::Refusal {
                category: None,
                explanation: None,
            },
            TaskErrorCode::Refusal,
        ),
        (
            "another reason",
            StopReason::Other("nap".into()),
            TaskErrorCode::ModelError,
        ),
    ] {
        case(name, [turn().call("t1", "grep", "{}").stops(stop)])
            .run()
            .await
            .events(&[
                "tool_start m1 t1 grep",
                r#"tool_end t1 error "The call was not made: the task ended." cancelled"#,
            ])
            .called(&[])
            .fails(code, "");
    }
}

#[tokio::test]
async fn after_pause_turn_the_model_goes_on_with_what_it_has_said() {
    let paused = turn().text("Hello").stops(StopReason::PauseTurn);
    case("pause_turn", [paused, turn().text(" you").done()])
        .run()
        .await
        .events(&[TOKEN, r#"token m2#0 " you""#])
        .asked(&[FIRST_ASKED, r#"64000: assistant ["Hello"]"#])
        .succeeds();
}

#[tokio::test]
async fn a_model_that_ends_without_a_word_is_asked_for_one_once() {
    let empty = || turn().done();
    case("nothing, and then an answer", [empty(), turn().text("Hello").done()])
        .run()
        .await
        .events(&[r#"token m1#0 "Hello""#])
        .asked(&[FIRST_ASKED, "64000: user SAY_SOMETHING"])
        .succeeds();
    case("nothing twice", [empty(), empty()])
        .run()
        .await
        .events(&[])
        .asked(&[FIRST_ASKED, "64000: user SAY_SOMETHING"])
        .succeeds();
    let blank = turn().thinking("Hm").text(" \n").done();
    case("blank text and thinking", [blank, turn().text("Hello").done()])
        .run()
        .await
        .events(&[r#"token m1#0 " \n""#, r#"token m2#0 "Hello""#])
        .asked(&[FIRST_ASKED, r#"64000: assistant [thinking "Hm"], user SAY_SOMETHING"#])
        .succeeds();
    // Asked once in a task, and not once for each time.
    let call = turn().call("t1", "grep", "{}").stops(StopReason::ToolUse);
    case("nothing, a call, and nothing again", [empty(), call, empty()])
        .calls([answers("found")])
        .run()
        .await
        .asked(&[
            FIRST_ASKED,
            "64000: user SAY_SOMETHING",
            r#"64000: assistant [t1 grep {}], user [t1 "found"]"#,
        ])
        .succeeds();
}
