//! `shell`: what it asks the sandbox for, and what it makes of how a command ended.

use std::time::Duration;

use plue_tool_host::ToolErrorCode;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::fixture::Fixture;

#[test]
fn a_command_is_run_by_the_shell_where_and_as_long_as_was_asked() {
    let fixture = Fixture::new();
    fixture.file("sub/deep/file", "");
    fixture.file("sub dir/file", "");
    let absolute = fixture.path("sub/deep");
    for (input, command, directory, seconds) in [
        (json!({"command": "ls | wc"}), "ls | wc", ".", 60),
        (json!({"command": "-x", "timeout": 3600}), "-x", ".", 3600),
        (
            json!({"command": "", "working_directory": "sub dir/"}),
            "",
            "sub dir",
            60,
        ),
        (
            json!({"command": "a", "working_directory": absolute}),
            "a",
            "sub/deep",
            60,
        ),
    ] {
        fixture.text("shell", input);
        let asked = fixture.sandbox.asked.lock().unwrap().pop().unwrap();
        assert_eq!(asked.argv, ["/bin/sh", "-c", "--", command]);
        assert_eq!(asked.working_directory.to_str(), Some(directory));
        assert_eq!(asked.timeout, Duration::from_secs(seconds));
        assert!(asked.env.is_empty());
    }
    for (input, code) in [
        (json!({"command": "a\0b"}), ToolErrorCode::InvalidInput),
        (
            json!({"command": "a", "working_directory": ""}),
            ToolErrorCode::InvalidInput,
        ),
        (
            json!({"command": "a", "working_directory": "sub/deep/file"}),
            ToolErrorCode::InvalidInput,
        ),
        (
            json!({"command": "a", "working_directory": "missing"}),
            ToolErrorCode::NotFound,
        ),
    ] {
        fixture.refused("shell", input, code);
    }
    assert!(fixture.sandbox.asked.lock().unwrap().is_empty());
}

#[test]
fn a_command_that_ends_is_a_success_with_its_code() {
    let fixture = Fixture::new();
    for (command, text) in [
        ("ok", "STDOUT:\nout\nmore\n\n\nSTDERR:\nerr\n\n\nEXIT CODE: 0"),
        ("silent", "STDOUT:\n\n\nSTDERR:\n\n\nEXIT CODE: 0"),
        ("fail", "STDOUT:\n\n\nSTDERR:\nno such thing\n\n\nEXIT CODE: 3"),
        ("signal", "STDOUT:\n\n\nSTDERR:\n\n\nEXIT CODE: 137"),
        ("binary", "STDOUT:\n\u{fffd}é\u{fffd}\n\nSTDERR:\n\n\nEXIT CODE: 0"),
    ] {
        assert_eq!(fixture.text("shell", json!({"command": command})), text);
    }
}

#[test]
fn much_output_keeps_its_head_and_its_tail_and_says_what_is_missing() {
    let fixture = Fixture::new();
    let outcome = fixture.call("shell", json!({"command": "flood"}));
    assert_eq!((outcome.error, outcome.truncated), (None, true));
    let text = outcome.text;
    assert!(text.starts_with("STDOUT:\nbegin\nxxx"), "{}", &text[..100]);
    assert!(
        text.ends_with("xxx\nend\n\nSTDERR:\nquiet\n\n\nEXIT CODE: 0"),
        "{}",
        &text[text.len() - 100..]
    );
    let missing = 6 + 64 * 16 * 1024 + 4 - 128 * 1024;
    assert!(
        text.contains(&format!("x\n[{missing} bytes of output were left out here]\nx")),
        "{missing}"
    );
}

#[test]
fn a_command_that_is_stopped_is_an_error_with_its_output_so_far() {
    let fixture = Fixture::new();
    for (command, code, why) in [
        ("slow", ToolErrorCode::Timeout, "ended after 60 seconds, its time limit"),
        ("big", ToolErrorCode::LimitCommand, "more memory than a command may"),
        ("fork", ToolErrorCode::LimitCommand, "more processes than a command may"),
    ] {
        let said = fixture.refused("shell", json!({"command": command}), code);
        assert!(
            said.contains(why) && said.contains("STDOUT:\nhalf\n\n\nSTDERR:\n"),
            "{said}"
        );
    }
    let cancel = CancellationToken::new();
    let canceller = cancel.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        canceller.cancel();
    });
    let (outcome, live) = fixture.call_with("shell", r#"{"command": "wait"}"#, &cancel);
    assert_eq!(outcome.error, Some(ToolErrorCode::Cancelled));
    assert!(outcome.text.contains("STDOUT:\nhalf\n"), "{}", outcome.text);
    assert_eq!(live, "half\n");
    let said = fixture.refused("shell", json!({"command": "no start"}), ToolErrorCode::Failed);
    assert_eq!(said, "the sandbox is full");
}

#[test]
fn output_is_shown_while_the_command_runs() {
    let fixture = Fixture::new();
    let (outcome, live) = fixture.call_with("shell", r#"{"command": "ok"}"#, &CancellationToken::new());
    assert_eq!(outcome.error, None);
    assert_eq!(live, "out\nerr\nmore\n");
}
