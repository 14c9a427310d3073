//! One call: what the tool sees of its input, and what the model sees of the result.

use std::sync::Arc;
use std::time::Duration;

use plue_tool_host::ToolErrorCode as Code;
use plue_tool_host::Toolbox;
use tokio_util::sync::CancellationToken;

use crate::fixture::{Fixture, call, expect, expect_good};
use support::guest::{Guest, SCRATCH, answers, fails_with, forever};

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_does_not_fit_never_reaches_the_tool() {
    let schema = r#"{"type":"object","required":["path"],"additionalProperties":false,
        "properties":{"path":{"type":"string"},"lines":{"type":"array","items":{"type":"integer","minimum":1}}}}"#;
    let guest = Guest {
        schema: schema.to_owned(),
        ..Guest::on_call("tool", "unreachable")
    };
    let toolbox = Fixture::with(&guest, "").toolbox();
    for (input, says) in [
        ("", "not valid JSON"),
        ("{\"path\":", "not valid JSON"),
        ("{\"path\":\"a\"} {}", "not valid JSON"),
        ("[]", "must be a JSON object, and are an array"),
        ("null", "must be a JSON object, and are null"),
        ("\"path\"", "must be a JSON object, and are a string"),
        ("{}", "(arguments): \"path\" is a required property"),
        (r#"{"path":1}"#, "/path: 1 is not of type \"string\""),
        (
            r#"{"path":"a","lines":[1,0,"x"]}"#,
            "/lines/1: 0 is less than the minimum of 1",
        ),
        (
            r#"{"path":"a","lines":[1,0,"x"]}"#,
            "/lines/2: \"x\" is not of type \"integer\"",
        ),
        (r#"{"path":"a","mode":1}"#, "'mode' was unexpected"),
        (
            r#"{"path":"a","lines":[1,2.0]}"#,
            "/lines/1: 2.0 is not of type \"integer\"",
        ),
        (
            r#"{"path":"a","lines":[1e20]}"#,
            "/lines/0: 1e+20 is not of type \"integer\"",
        ),
        (r#"{"path":"a","path":"b"}"#, "the key \"path\" stands twice"),
        (&"[".repeat(10_000), "not valid JSON"),
    ] {
        let outcome = call(&toolbox, "tool", input).await;
        assert_eq!(outcome.error, Some(Code::InvalidInput), "{input}");
        assert!(outcome.text.contains(says), "{input}: {}", outcome.text);
        assert!(outcome.text.len() < 2000, "{}", outcome.text);
    }
    // With an input that fits, the tool is reached.
    assert_eq!(call(&toolbox, "tool", r#"{"path":"a"}"#).await.error, Some(Code::Trap));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tool_gets_the_input_as_the_model_wrote_it() {
    let toolbox = Fixture::with(&Guest::good("tool"), "").toolbox();
    let long = format!("{{\"text\":\"{}\"}}", "é".repeat(30_000));
    for input in [r#"{"b":1,"a":1.0}"#, r#"{"a":"\u0000"}"#, " {\n} ", &long] {
        let outcome = call(&toolbox, "tool", input).await;
        assert_eq!((outcome.error, outcome.text.as_str()), (None, input));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_error_of_a_tool_has_its_code() {
    let codes = [
        Code::InvalidInput,
        Code::NotFound,
        Code::Denied,
        Code::TooLarge,
        Code::Timeout,
        Code::Cancelled,
        Code::LimitCommand,
        Code::Failed,
    ];
    for (case, code) in codes.into_iter().enumerate() {
        let guest = Guest::on_call("tool", &fails_with(case as u8));
        let outcome = call(&Fixture::with(&guest, "").toolbox(), "tool", r#"{"why":1}"#).await;
        assert_eq!((outcome.error, outcome.text.as_str()), (Some(code), r#"{"why":1}"#));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_one_call_is_left_in_the_next() {
    // Counts in a global and in memory, answers with both, and traps on every call but by its answer.
    let counts = format!(
        "(global.set $n (i32.add (global.get $n) (i32.const 1)))
         (i32.store8 (i32.const {SCRATCH}) (i32.add (i32.const 48) (global.get $n)))
         (i32.store8 (i32.const {next}) (i32.add (i32.const 1) (i32.load8_u (i32.const {next}))))
         (i32.store8 (i32.const {shown}) (i32.add (i32.const 48) (i32.load8_u (i32.const {next}))))
         (if (i32.gt_u (local.get $length) (i32.const 2)) (then unreachable))",
        next = SCRATCH + 8,
        shown = SCRATCH + 1,
    ) + &answers(&format!("(i32.const {SCRATCH})"), "(i32.const 2)");
    let guest = Guest {
        items: "(global $n (mut i32) (i32.const 0))".to_owned(),
        ..Guest::on_call("tool", &counts)
    };
    let toolbox = Fixture::with(&guest, "").toolbox();
    for _ in 0..20 {
        assert_eq!(call(&toolbox, "tool", r#"{"trap":true}"#).await.error, Some(Code::Trap));
        assert_eq!(call(&toolbox, "tool", "{}").await.text, "11");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nul_in_a_result_becomes_the_replacement_character() {
    let zero = answers("(i32.const 0)", "(i32.const 2)");
    let outcome = call(
        &Fixture::with(&Guest::on_call("tool", &zero), "").toolbox(),
        "tool",
        "{}",
    )
    .await;
    assert_eq!((outcome.error, outcome.text.as_str()), (None, "\u{FFFD}\u{FFFD}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_no_utf8_is_a_trap() {
    let invalid = format!("(i32.store8 (i32.const {SCRATCH}) (i32.const 0xff))")
        + &answers(&format!("(i32.const {SCRATCH})"), "(i32.const 1)");
    expect(
        &Fixture::with(&Guest::on_call("tool", &invalid), "").toolbox(),
        "tool",
        Code::Trap,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_the_task_does_not_have_is_refused_with_the_names_of_those_it_has() {
    let fixture = Fixture::with(&Guest::good("tool"), "");
    let host = fixture.load().unwrap();
    let toolbox = host.toolbox(&["good".to_owned()]).unwrap();
    for (name, code, says) in [
        (
            "tool",
            Code::NotAllowed,
            "may not be used in this task. The tools of this task are: good.",
        ),
        (
            "rm",
            Code::UnknownTool,
            "\"rm\" does not exist. The tools of this task are: good.",
        ),
        ("", Code::UnknownTool, "The tools of this task are: good."),
    ] {
        let outcome = call(&toolbox, name, "{}").await;
        assert_eq!(outcome.error, Some(code));
        assert!(outcome.text.contains(says), "{}", outcome.text);
    }
    expect_good(&toolbox).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_calls_than_slots_wait_for_each_other() {
    let toolbox = Arc::new(Fixture::with(&Guest::good("tool"), "").toolbox());
    let calls = (0..100).map(|_| call(&toolbox, "tool", "{}"));
    for outcome in futures::future::join_all(calls).await {
        assert_eq!(outcome.error, None, "{}", outcome.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_nobody_waits_for_any_more_ends() {
    let fixture = Fixture::with(&Guest::on_call("tool", &forever("")), "limits.cancel_grace = 0.1");
    let toolbox = fixture.toolbox();
    for _ in 0..20 {
        let abandoned = toolbox.call("tool", "{}", Arc::new(|_| {}), CancellationToken::new());
        assert!(tokio::time::timeout(Duration::from_millis(5), abandoned).await.is_err());
    }
    // There are fewer slots than calls were abandoned.
    expect_good(&toolbox).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_cancelled_before_it_begins_does_not_begin() {
    let toolbox = Fixture::with(&Guest::good("tool"), "").toolbox();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let outcome = toolbox.call("tool", "{}", Arc::new(|_| {}), cancel).await;
    assert_eq!(outcome.error, Some(Code::Cancelled));
}
