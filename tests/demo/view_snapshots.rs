//! What a person sees, in full. After a change that is meant, look at the new snapshots and keep them:
//! `INSTA_UPDATE=always cargo test --release --workspace --bin plue-demo`.

use serde_json::{Value, json};

use crate::view::{Style, View};

fn agent() -> Vec<Value> {
    let (first, second) = ("msg_000000000001", "msg_000000000002");
    let token = |id: &str, text: &str| json!({ "type": "token", "message_id": id, "text": text });
    let open =
        |id: &str, name: &str| json!({ "type": "tool_start", "message_id": first, "tool_id": id, "tool_name": name });
    let start = |id: &str, name: &str, args: Value| {
        let mut event = open(id, name);
        event["args"] = args;
        event
    };
    let long: String = (1..=30).map(|n| format!("file-{n:02}\n")).collect();
    vec![
        token(first, "I will run the test fi"),
        token(
            first,
            "rst, and look at what is in this repository. A-word-that-is-longer-than-a-narrow-terminal-is-wide.",
        ),
        open("a", "shell"),
        open("b", "list_files"),
        start("a", "shell", json!({ "command": "sh tests/run.sh" })),
        json!({ "type": "tool_end", "tool_id": "a", "tool_state": "success", "duration_ms": 12, "truncated": false,
            "output": "STDOUT:\nok 1\n\nSTDERR:\n\n\nEXIT CODE: 1" }),
        start("b", "list_files", json!({ "recursive": true })),
        json!({ "type": "tool_end", "tool_id": "b", "tool_state": "success", "duration_ms": 1, "truncated": true,
            "output": long }),
        token(second, "Two lines:\n- one\n- \u{1b}[2Jtwo"),
        open("c", "write_file"),
        start(
            "c",
            "write_file",
            json!({ "path": "a b.txt", "content": "x\n".repeat(600), "append": false }),
        ),
        json!({ "type": "tool_end", "tool_id": "c", "tool_state": "error", "code": "denied", "duration_ms": 0,
            "truncated": false, "output": "../x is outside of the workspace" }),
        json!({ "type": "done", "turns": 2, "duration_ms": 2345, "sandbox": "weak", "cost_usd": 0.01234,
            "usage": { "input_tokens": 12345, "output_tokens": 678 } }),
    ]
}

fn workflow() -> Vec<Value> {
    let log =
        |level: &str, message: &str| json!({ "type": "log", "level": level, "message": message, "step_index": 0 });
    vec![
        json!({ "type": "step_start", "step_name": "Test", "step_index": 0 }),
        log("stdout", "ok 1\nok 2"),
        log(
            "stderr",
            "a warning that goes on and on, until it does not fit into a narrow terminal any more",
        ),
        log("info", ""),
        json!({ "type": "step_end", "step_name": "Test", "step_index": 0, "step_state": "failure", "exit_code": 3,
            "duration_ms": 61000, "output": "the step ended with exit code 3" }),
        json!({ "type": "error", "code": "step_failed", "message": "step 0 (Test) failed: exit code 3",
            "duration_ms": 61002, "sandbox": "weak" }),
    ]
}

/// As it is written into a file.
fn uncoloured(width: usize) -> Style {
    Style {
        width,
        colour: false,
        erase: false,
    }
}

fn render(events: &[Value], style: Style) -> String {
    let mut view = View::new(style);
    events.iter().map(|event| view.event(event)).collect()
}

#[test]
fn an_agent_on_a_wide_terminal() {
    insta::assert_snapshot!("agent_wide", render(&agent(), uncoloured(100)));
}

#[test]
fn an_agent_on_a_narrow_terminal() {
    insta::assert_snapshot!("agent_narrow", render(&agent(), uncoloured(40)));
}

#[test]
fn a_workflow_that_fails() {
    insta::assert_snapshot!("workflow", render(&workflow(), uncoloured(60)));
}

#[test]
fn colours_change_nothing_but_the_colour() {
    let coloured = render(
        &agent(),
        Style {
            width: 100,
            colour: true,
            erase: false,
        },
    );
    assert!(coloured.contains("\x1b[32m✓\x1b[0m"));
    let mut plain = String::new();
    let mut rest = coloured.as_str();
    while let Some((text, tail)) = rest.split_once("\x1b[") {
        plain.push_str(text);
        rest = tail.split_once('m').map_or("", |(_, tail)| tail);
    }
    plain.push_str(rest);
    assert_eq!(plain, render(&agent(), uncoloured(100)));
}

#[test]
fn no_line_is_wider_than_the_terminal_unless_a_single_word_is() {
    for width in [30, 40, 80] {
        for events in [agent(), workflow()] {
            let text = render(&events, uncoloured(width));
            let wide = text
                .lines()
                .find(|line| line.chars().count() > width && line.trim().contains(' '));
            assert_eq!(wide, None, "at width {width}");
        }
    }
}

#[test]
fn text_is_shown_as_it_comes_word_by_word() {
    let mut view = View::new(uncoloured(80));
    let token = |text: &str| json!({ "type": "token", "message_id": "msg_000000000001", "text": text });
    assert_eq!(view.event(&token("Hello wo")), "  Hello");
    assert_eq!(view.event(&token("rld ")), " world");
}

#[test]
fn a_call_is_shown_while_its_arguments_are_written_where_a_line_can_be_taken_back() {
    let mut view = View::new(Style {
        width: 40,
        colour: false,
        erase: true,
    });
    let open =
        |id: &str| json!({ "type": "tool_start", "message_id": "msg_000000000001", "tool_id": id, "tool_name": id });
    let mut start = open("grep");
    start["args"] = json!({ "pattern": "x" });
    assert_eq!(view.event(&open("grep")), "  ▹ grep …");
    assert_eq!(view.event(&open("shell")), "\r\x1b[2K  ▹ grep, shell …");
    assert_eq!(view.event(&start), "\r\x1b[2K  ▸ grep pattern=\"x\"\n");
}
