//! Tool calls: how they are told, made, and answered.

use super::scripted_model::turn;
use super::scripted_toolbox::{answers, fails};
use super::{FIRST_ASKED, case};
use crate::agent::BROKEN_OFF_CALL;
use crate::events::TaskErrorCode;
use plue_contract::ToolErrorCode;
use plue_messages::StopReason;

#[tokio::test]
async fn several_calls_are_made_one_after_the_other_and_answered_in_one_message() {
    let first = turn()
        .call("t1", "grep", r#"{"a":1}"#)
        .call("t2", "read_file", r#"{"b":2}"#)
        .call("t3", "grep", "{}")
        .stops(StopReason::ToolUse);
    case("three calls", [first, turn().text("Bye").done()])
        .calls([
            answers("one"),
            fails(ToolErrorCode::NotFound, "no such file"),
            answers("three").truncated(),
        ])
        .run()
        .await
        .events(&[
            "tool_start m1 t1 grep",
            "tool_start m1 t2 read_file",
            "tool_start m1 t3 grep",
            r#"tool_start m1 t1 grep {"a":1}"#,
            r#"tool_end t1 success "one""#,
            r#"tool_start m1 t2 read_file {"b":2}"#,
            r#"tool_end t2 error "no such file" not_found"#,
            "tool_start m1 t3 grep {}",
            r#"tool_end t3 success "three" truncated=true"#,
            r#"token m2#0 "Bye""#,
        ])
        .asked(&[
            FIRST_ASKED,
            concat!(
                r#"64000: assistant [t1 grep {"a":1}; t2 read_file {"b":2}; t3 grep {}], "#,
                r#"user [t1 "one"; t2 error "no such file"; t3 "three"]"#
            ),
        ])
        .called(&[r#"grep {"a":1}"#, r#"read_file {"b":2}"#, "grep {}"])
        .succeeds();
}

#[tokio::test]
async fn every_failure_of_a_call_is_told_to_the_model_and_the_agent_goes_on() {
    for (code, name, _) in ToolErrorCode::TABLE {
        let first = turn().call("t1", "grep", "{}").stops(StopReason::ToolUse);
        case(name, [first, turn().text("Bye").done()])
            .calls([fails(*code, "why")])
            .run()
            .await
            .events(&[
                "tool_start m1 t1 grep",
                "tool_start m1 t1 grep {}",
                &format!(r#"tool_end t1 error "why" {name}"#),
                r#"token m2#0 "Bye""#,
            ])
            .asked(&[FIRST_ASKED, r#"64000: assistant [t1 grep {}], user [t1 error "why"]"#])
            .succeeds();
    }
}

#[tokio::test]
async fn a_task_without_tools_knows_none() {
    let first = turn().call("t1", "grep", "{}").stops(StopReason::ToolUse);
    let mut case = case("no tools", [first, turn().text("Bye").done()]);
    case.has_tools = false;
    let result = r#""There is no tool \"grep\": this task has no tools.""#;
    case.run()
        .await
        .events(&[
            "tool_start m1 t1 grep",
            "tool_start m1 t1 grep {}",
            &format!("tool_end t1 error {result} unknown_tool"),
            r#"token m2#0 "Bye""#,
        ])
        .asked(&[
            FIRST_ASKED,
            &format!("64000: assistant [t1 grep {{}}], user [t1 error {result}]"),
        ])
        .succeeds();
}

#[tokio::test]
async fn arguments_that_are_no_object_are_told_in_one_and_handed_over_as_they_are() {
    for (input, args) in [
        ("{\"a\":", r#"{"INVALID_JSON":"{\"a\":"}"#),
        ("[1]", r#"{"INVALID_JSON":"[1]"}"#),
        ("null", r#"{"INVALID_JSON":"null"}"#),
        ("", r#"{"INVALID_JSON":""}"#),
        // Half of a surrogate pair: JSON by its grammar, and no text.
        (r#"{"a":"\ud800"}"#, r#"{"INVALID_JSON":"{\"a\":\"\\ud800\"}"}"#),
    ] {
        let first = turn().call("t1", "grep", input).stops(StopReason::ToolUse);
        case("no object", [first, turn().text("Bye").done()])
            .calls([fails(ToolErrorCode::InvalidInput, "no object")])
            .run()
            .await
            .events(&[
                "tool_start m1 t1 grep",
                &format!("tool_start m1 t1 grep {args}"),
                r#"tool_end t1 error "no object" invalid_input"#,
                r#"token m2#0 "Bye""#,
            ])
            .called(&[&format!("grep {input}")])
            .succeeds();
    }
}

#[tokio::test]
async fn a_call_whose_id_was_used_before_has_another_one_in_events_and_history() {
    let call = || turn().call("t1", "grep", "{}");
    let both = call().call("t1", "grep", "{}").stops(StopReason::ToolUse);
    let broken = call().restarted().call("t1", "grep", "{}").stops(StopReason::ToolUse);
    case("twice in a turn, and again", [both, broken, turn().text("Bye").done()])
        .calls([answers("one"), answers("two"), answers("three")])
        .run()
        .await
        .events(&[
            "tool_start m1 t1 grep",
            "tool_start m1 t1_2 grep",
            "tool_start m1 t1 grep {}",
            r#"tool_end t1 success "one""#,
            "tool_start m1 t1_2 grep {}",
            r#"tool_end t1_2 success "two""#,
            "tool_start m2 t1_3 grep",
            &format!("tool_end t1_3 error {BROKEN_OFF_CALL:?} cancelled"),
            r#"log info "the model's answer broke off and is asked for again: it broke""#,
            "tool_start m3 t1_4 grep",
            "tool_start m3 t1_4 grep {}",
            r#"tool_end t1_4 success "three""#,
            r#"token m4#0 "Bye""#,
        ])
        .asked(&[
            FIRST_ASKED,
            r#"64000: assistant [t1 grep {}; t1_2 grep {}], user [t1 "one"; t1_2 "two"]"#,
            r#"64000: assistant [t1_4 grep {}], user [t1_4 "three"]"#,
        ])
        .succeeds();
}

#[tokio::test]
async fn an_id_that_the_api_does_not_take_back_becomes_one_that_it_does() {
    let odd = turn()
        .call("functions.grep:0", "grep", "{}")
        .call("", "grep", "{}")
        .stops(StopReason::ToolUse);
    let outcome = case("of a gateway", [odd, turn().text("Bye").done()])
        .calls([answers("a"), answers("b")])
        .run()
        .await
        .succeeds();
    let expected = r#"assistant [functions_grep_0 grep {}; call grep {}], user [functions_grep_0 "a"; call "b"]"#;
    assert!(outcome.asked[1].ends_with(expected), "{:?}", outcome.asked);
    let message = |content: &str| super::InitialMessage {
        role: super::Role::Assistant,
        content: serde_json::value::RawValue::from_string(content.into()).unwrap(),
    };
    let again = turn().call("t1", "grep", "{}").stops(StopReason::ToolUse);
    let mut known = case("of the task's own", [again, turn().text("Bye").done()]).calls([answers("a")]);
    let call = message(r#"[{"type":"tool_use","id":"t1","name":"grep","input":{}}]"#);
    known.task.messages.insert(0, call);
    let outcome = known.run().await.succeeds();
    assert!(outcome.asked[1].contains("t1_2 grep"), "{:?}", outcome.asked);
}

#[tokio::test]
async fn calls_of_a_paused_turn_are_made() {
    let paused = turn().call("t1", "grep", "{}").stops(StopReason::PauseTurn);
    case("paused", [paused, turn().text("Bye").done()])
        .calls([answers("a")])
        .run()
        .await
        .asked(&[FIRST_ASKED, r#"64000: assistant [t1 grep {}], user [t1 "a"]"#])
        .succeeds();
}

#[tokio::test]
async fn an_agent_that_repeats_itself_is_told_so_and_then_it_is_stuck() {
    let call = |n: usize| turn().call(&format!("t{n}"), "grep", "{}").stops(StopReason::ToolUse);
    let asked = |outcome: super::Outcome, told: usize| {
        let notes = outcome
            .asked
            .iter()
            .filter(|asked| asked.ends_with("user STUCK"))
            .count();
        assert_eq!(notes, told, "{:?}", outcome.asked);
    };
    let outcome = case("the same call ten times", (0..10).map(call))
        .calls((0..10).map(|_| answers("nothing")))
        .run()
        .await
        .fails(TaskErrorCode::Stuck, "also after it was told so: grep");
    asked(outcome, 1);
    let turns = (0..6).map(call).chain([turn().text("Bye").done()]);
    let outcome = case("it thinks better of it", turns)
        .calls((0..6).map(|_| answers("nothing")))
        .run()
        .await
        .succeeds();
    asked(outcome, 1);
    let turns = (0..9).map(call).chain([turn().text("Bye").done()]);
    let outcome = case("the results differ", turns)
        .calls((0..9).map(|n| answers(&n.to_string())))
        .run()
        .await
        .succeeds();
    asked(outcome, 0);
}

#[tokio::test]
async fn live_output_is_told_when_somebody_wants_it_and_comes_before_the_result() {
    let turns = || {
        let first = turn().call("t1", "shell", "{}").stops(StopReason::ToolUse);
        [first, turn().text("Bye").done()]
    };
    let call = || answers("result").live(&["one", "", "two"]);
    let told = [
        "tool_start m1 t1 shell",
        "tool_start m1 t1 shell {}",
        r#"tool_output t1 "one""#,
        r#"tool_output t1 "two""#,
        r#"tool_end t1 success "result""#,
    ];
    let outcome = case("with extra events", turns())
        .extra_events()
        .calls([call()])
        .run()
        .await
        .succeeds();
    let events: Vec<&String> = outcome
        .events
        .iter()
        .filter(|line| !line.starts_with("usage"))
        .collect();
    assert_eq!(events[..5], told);
    let outcome = case("without", turns()).calls([call()]).run().await.succeeds();
    assert!(
        outcome.events.iter().all(|line| !line.starts_with("tool_output")),
        "{:?}",
        outcome.events
    );
}

#[tokio::test]
async fn a_secret_in_a_result_is_seen_neither_by_whoever_watches_nor_by_the_model() {
    const SECRETS: &[&str] = &["s3cret-value"];
    let first = turn()
        .call("t1", "shell", r#"{"a":"s3cret-value"}"#)
        .call("t2", "shell", "{}")
        .stops(StopReason::ToolUse);
    let mut case = case("secrets", [first, turn().text("It is s3cret-").text("value!").done()]).extra_events();
    case.secrets = SECRETS;
    let outcome = case
        .calls([
            answers("KEY=s3cret-value").live(&["KEY=s3cr", "et-value;"]),
            answers("s3cret-value s3cret-value"),
        ])
        .run()
        .await
        .asked(&[
            FIRST_ASKED,
            // What the model itself has written stays as it is.
            concat!(
                r#"64000: assistant [t1 shell {"a":"s3cret-value"}; t2 shell {}], "#,
                r#"user [t1 "KEY=***\n\n[1 secret value was masked]"; "#,
                r#"t2 "*** ***\n\n[2 secret values were masked]"]"#
            ),
        ])
        .succeeds();
    let expected = [
        r#"tool_start m1 t1 shell {"a":"***"}"#,
        r#"tool_output t1 "KEY=""#,
        r#"tool_output t1 "***;""#,
        r#"tool_end t1 success "KEY=***\n\n[1 secret value was masked]""#,
        r#"tool_end t2 success "*** ***\n\n[2 secret values were masked]""#,
        r#"token m2#0 "It is ""#,
        r#"token m2#1 "***!""#,
    ];
    for line in expected {
        assert!(
            outcome.events.iter().any(|told| told == line),
            "{line}: {:#?}",
            outcome.events
        );
    }
    assert!(outcome.events.iter().all(|told| !told.contains("s3cret")));
}
