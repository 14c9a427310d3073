//! A command's output: from bytes in pieces to lines, live, without secrets, and without a loss.

use std::time::Duration;

use super::scripted_sandbox::{ScriptedCommand, command};
use super::{Recording, case};
use crate::events::LogLevel;
use crate::workflow::output::Output;

/// The log lines of a step that runs this and succeeds.
async fn lines(name: &'static str, command: ScriptedCommand) -> Vec<String> {
    let outcome = case(name, [command.exits(0)]).run().await.succeeds();
    logs(&outcome.events)
}

/// Without the events that every step has.
fn logs(events: &[String]) -> Vec<String> {
    let logs = events.iter().filter(|line| line.starts_with("log "));
    logs.map(|line| line.replace(" step_index=0", "")).collect()
}

#[tokio::test]
async fn lines_are_the_same_in_whatever_pieces_they_come() {
    let text = "one\n\nzwölf €\n🦀 end".as_bytes();
    for cut in 0..=text.len() {
        let command = command().out(&text[..cut]).out(&text[cut..]);
        let expected = [
            r#"log stdout "one""#,
            r#"log stdout """#,
            r#"log stdout "zwölf €""#,
            r#"log stdout "🦀 end""#,
        ];
        assert_eq!(lines("cut", command).await, expected, "cut at {cut}");
    }
}

#[tokio::test]
async fn the_two_outputs_do_not_mix() {
    let command = command().out("o1 ").err("e1 ").out("o2\no3").err("e2\ne3");
    assert_eq!(
        lines("both", command).await,
        [
            r#"log stdout "o1 o2""#,
            r#"log stderr "e1 e2""#,
            r#"log stdout "o3""#,
            r#"log stderr "e3""#,
        ]
    );
}

#[tokio::test]
async fn bytes_that_are_no_text_become_the_replacement_character_on_both_outputs() {
    let command = command()
        .out(b"a\xff\0b\n")
        // The first half of a euro sign, and the rest in the next piece; then half of one that has no rest.
        .err(b"\xe2\x82")
        .err(b"\xac\n\xe2\x82")
        .out(b"\xc3(\n");
    assert_eq!(
        lines("no text", command).await,
        [
            "log stdout \"a\u{fffd}\u{fffd}b\"",
            r#"log stderr "€""#,
            "log stdout \"\u{fffd}(\"",
            "log stderr \"\u{fffd}\"",
        ]
    );
}

#[tokio::test]
async fn a_line_without_an_end_is_told_after_a_while_and_goes_on() {
    let command = command()
        .out(b"Password: \xe2\x82")
        // The step's beginning, and the prompt.
        .until_told(2)
        .out(b"\xac hunter\n")
        .err("50 %")
        .until_told(4)
        .err("\r100 %")
        .exits(0);
    let mut case = case("a prompt", [command]);
    case.flush_after = Duration::from_millis(1);
    let outcome = case.run().await.succeeds();
    let logs = logs(&outcome.events);
    assert_eq!(
        logs[..3],
        [
            r#"log stdout "Password: " partial=true"#,
            r#"log stdout "€ hunter""#,
            r#"log stderr "50 %" partial=true"#,
        ]
    );
    // Whether the last was told before the command ended is a matter of a millisecond.
    assert!(
        logs[3].starts_with(r#"log stderr "\r100 %""#) && logs.len() == 4,
        "{logs:?}"
    );
}

#[tokio::test]
async fn a_line_whose_end_is_there_already_is_told_whole_however_late_the_runner_comes_to_it() {
    let lines: Vec<String> = (0..100).map(|number| format!("line {number}")).collect();
    let pieces = lines.iter().fold(command(), |command, line| {
        let (begin, end) = line.split_at(3);
        command.out(begin).out(format!("{end}\n"))
    });
    let mut case = case("a runner that was held up", [pieces.exits(0).at_once()]);
    // Every flush is due as soon as there is something to flush.
    case.flush_after = Duration::ZERO;
    let outcome = case.run().await.succeeds();
    let expected: Vec<String> = lines.iter().map(|line| format!("log stdout {line:?}")).collect();
    assert_eq!(logs(&outcome.events), expected);
}

#[tokio::test]
async fn a_prompt_is_told_beside_a_flood_on_the_other_output() {
    let flood = (0..100).fold(command().err("Password: "), |command, _| command.out("flood\n"));
    let mut case = case("a prompt in a flood", [flood.err("secret\n").exits(0).at_once()]);
    case.flush_after = Duration::ZERO;
    let outcome = case.run().await.succeeds();
    let logs = logs(&outcome.events);
    assert!(
        logs.iter().any(|log| log == r#"log stderr "Password: " partial=true"#),
        "{logs:?}"
    );
}

#[tokio::test]
async fn a_line_waits_from_its_first_byte_on() {
    let recording = Recording::default();
    let sink = recording.sink(&[]);
    let mut output = Output::new(0, LogLevel::Stdout, &sink);
    assert_eq!(output.waits_since(), None);
    output.push(b"a");
    let first = output.waits_since();
    assert!(first.is_some());
    tokio::time::sleep(Duration::from_millis(2)).await;
    output.push(b"b");
    assert_eq!(output.waits_since(), first, "more of the line does not hold it up");
    output.push(b"c\nd");
    assert!(output.waits_since() > first, "the next line began later");
    output.flush();
    assert_eq!(output.waits_since(), None);
}

#[tokio::test]
async fn a_line_that_is_too_long_comes_in_parts_of_16_kib() {
    let part = "x".repeat(16 * 1024);
    let (whole, rest) = (format!("{part}{part}end\n"), "next\n");
    assert_eq!(
        lines("long", command().out(whole).out(rest)).await,
        [
            format!("log stdout {part:?} partial=true"),
            format!("log stdout {part:?} partial=true"),
            r#"log stdout "end""#.to_owned(),
            r#"log stdout "next""#.to_owned(),
        ]
    );
}

#[tokio::test]
async fn nothing_of_a_large_output_is_lost_or_out_of_order() {
    let mut large = command();
    for piece in 0..500 {
        let text: String = (piece * 10..(piece + 1) * 10).map(|line| format!("{line}\n")).collect();
        // A piece never ends where a line does.
        let (begin, end) = text.split_at(text.len() - 2);
        large = large.out(begin).err("e\n").out(end);
    }
    let lines = lines("large", large).await;
    let expected: Vec<String> = (0..5000).map(|line| format!("log stdout \"{line}\"")).collect();
    let stdout: Vec<&String> = lines.iter().filter(|line| line.starts_with("log stdout")).collect();
    assert_eq!(stdout, expected.iter().collect::<Vec<_>>());
    assert_eq!(lines.len(), 5500);
}

#[tokio::test]
async fn a_secret_is_in_no_line_also_in_pieces_and_over_both_outputs() {
    let command = command()
        .out("key=s3cr")
        // Between two pieces of it on the other output.
        .err("s3cret-value\n")
        .out("et-value;\n")
        // What only looks like the beginning of one is told at the end.
        .err("s3cret-val")
        .exits(0);
    let mut case = case("secrets", [command]);
    case.secrets = &["s3cret-value"];
    let outcome = case.run().await.succeeds();
    assert_eq!(
        logs(&outcome.events),
        [
            r#"log stderr "***""#,
            r#"log stdout "key=***;""#,
            r#"log stderr "s3cret-val""#,
        ]
    );
}
