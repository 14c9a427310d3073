//! `read_file`: the text, some of its lines, and what becomes of files that are no text or too large.

use plue_tool_host::ToolErrorCode;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::fixture::Fixture;

#[test]
fn a_file_is_read_whole_or_by_its_lines() {
    let fixture = Fixture::new();
    fixture.file("three", "one\ntwo\nthree\n");
    fixture.file("open", "one\ntwo");
    fixture.file("dos", "one\r\ntwo\r\n");
    fixture.file("empty", "");
    fixture.file("utf8", "\u{feff}ünï😀\n");
    for (input, text) in [
        (json!({"path": "three"}), "one\ntwo\nthree\n"),
        (json!({"path": "three", "start_line": 2}), "two\nthree\n"),
        (json!({"path": "three", "end_line": 2}), "one\ntwo\n"),
        (json!({"path": "three", "start_line": 2, "end_line": 2}), "two\n"),
        (json!({"path": "three", "start_line": 3, "end_line": 99}), "three\n"),
        (json!({"path": "open", "start_line": 2}), "two"),
        (json!({"path": "dos", "start_line": 2}), "two\r\n"),
        (json!({"path": "empty"}), ""),
        (json!({"path": "empty", "start_line": 1}), ""),
        (json!({"path": "utf8"}), "\u{feff}ünï😀\n"),
    ] {
        assert_eq!(fixture.text("read_file", input.clone()), text, "{input}");
    }
    for (input, said) in [
        (
            json!({"path": "three", "start_line": 4}),
            "three has 3 lines; start_line 4 is behind its end.",
        ),
        (
            json!({"path": "empty", "start_line": 2}),
            "empty has 0 lines; start_line 2 is behind its end.",
        ),
        (
            json!({"path": "three", "start_line": 3, "end_line": 2}),
            "end_line 2 is before start_line 3.",
        ),
    ] {
        assert_eq!(fixture.refused("read_file", input, ToolErrorCode::InvalidInput), said);
    }
}

#[test]
fn a_long_text_is_cut_after_100_000_characters_with_the_size_of_the_file() {
    let fixture = Fixture::new();
    fixture.file("fits", "é".repeat(100_000));
    let whole = fixture.call("read_file", json!({"path": "fits"}));
    assert_eq!((whole.text.len(), whole.truncated), (200_000, false));

    fixture.file("long", "é line\n".repeat(50_000));
    for (input, first_line) in [
        (json!({"path": "long"}), 1),
        (json!({"path": "long", "start_line": 101}), 101),
    ] {
        let cut = fixture.call("read_file", input);
        assert!(cut.truncated);
        let (text, note) = cut.text.split_at(cut.text.find("\n[").unwrap());
        assert_eq!(text.chars().count(), 100_000);
        let line = first_line + 14_285;
        assert_eq!(
            note,
            format!(
                "\n[The text was cut after 100,000 characters, in line {line}; the file has 400000 bytes. Read on with \
                 start_line and end_line.]\n"
            )
        );
    }
}

#[test]
fn a_file_of_a_terabyte_costs_no_more_than_what_is_shown() {
    let fixture = Fixture::new();
    fixture.file("huge", "begin\n");
    let file = std::fs::File::options().write(true).open(fixture.path("huge")).unwrap();
    file.set_len(1 << 40).unwrap();
    let cut = fixture.call("read_file", json!({"path": "huge"}));
    assert!(cut.truncated && cut.text.starts_with("begin\n\u{fffd}"));
    assert!(
        cut.text.contains("the file has 1099511627776 bytes"),
        "{}",
        &cut.text[100_000..]
    );
    assert!(cut.duration.as_secs() < 5);
    assert_eq!(
        fixture.text("read_file", json!({"path": "huge", "end_line": 1})),
        "begin\n"
    );
    let said = fixture.refused(
        "read_file",
        json!({"path": "huge", "start_line": 3}),
        ToolErrorCode::TooLarge,
    );
    assert!(said.contains("Line 3 of huge was not reached"), "{said}");
}

#[test]
fn what_is_no_text_is_shown_as_far_as_it_can_be_and_says_so() {
    let fixture = Fixture::new();
    fixture.file("latin1", b"caf\xe9\n");
    assert_eq!(
        fixture.text("read_file", json!({"path": "latin1"})),
        "caf\u{fffd}\n[The file is not UTF-8 text: 1 invalid bytes or NULs are shown as U+FFFD.]\n"
    );
}

#[test]
fn a_file_that_may_not_be_read_is_denied() {
    let fixture = Fixture::new();
    fixture.file("locked", "x");
    fixture.chmod("locked", 0o000);
    // Root reads everything; then there is nothing to refuse.
    if std::fs::read(fixture.path("locked")).is_err() {
        let said = fixture.refused("read_file", json!({"path": "locked"}), ToolErrorCode::Denied);
        assert_eq!(said, "Cannot read locked: the file's permissions forbid it.");
    }
}

#[test]
fn a_call_that_is_cancelled_ends() {
    let fixture = Fixture::new();
    fixture.file("huge", "");
    std::fs::File::options()
        .write(true)
        .open(fixture.path("huge"))
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let (outcome, _) = fixture.call_with("read_file", r#"{"path": "huge", "start_line": 2}"#, &cancel);
    assert_eq!(outcome.error, Some(ToolErrorCode::Cancelled));
}
