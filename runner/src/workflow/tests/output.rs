//! A command's output: from bytes in pieces to lines, live, without secrets, and without a loss.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::scripted_sandbox::{ScriptedCommand, ScriptedSandbox, command};
use super::{Memory, Recording, case};
use crate::events::record::Record;
use crate::events::sink::Forward;
use crate::events::{EventSink, LogLevel};
use crate::task::WorkflowTask;
use crate::telemetry::Telemetry;
use crate::workflow::Workflow;
use crate::workflow::output::Output;
use plue_sandbox::{CommandEvent, Stream};

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

/// How long a line waits for its end in the test below.
const SHORT: Duration = Duration::from_millis(15);

/// Holds up whoever tells something for longer than a line waits for its end, as a busy machine does.
struct HoldsUp(Recording);

impl Forward for HoldsUp {
    fn forward(&self, records: Vec<Record>) {
        self.0.forward(records);
        std::thread::sleep(SHORT * 2);
    }
}

/// With workers of its own, so that time goes on while the runner is held up.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_line_whose_end_is_there_already_is_told_whole_however_late_the_runner_comes_to_it() {
    let clock = tokio::spawn(async {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    const LINES: usize = 12;
    let (sender, mut output) = mpsc::channel(4 * LINES);
    let written = |stream, text: String| CommandEvent::Output(stream, text.into());
    for line in 0..LINES {
        sender.try_send(written(Stream::Stdout, "line ".to_owned())).unwrap();
        sender
            .try_send(written(Stream::Stderr, format!("beside {line}\n")))
            .unwrap();
        sender.try_send(written(Stream::Stdout, format!("{line}\n"))).unwrap();
    }
    drop(sender);
    let recording = Recording::default();
    let memory = Memory::default();
    let workflow = Workflow {
        memory: &memory,
        task: &WorkflowTask {
            steps: Vec::new(),
            timeout: None,
        },
        sandbox: &ScriptedSandbox::new(Vec::new(), &CancellationToken::new(), &recording),
        events: &EventSink::supervisor(Arc::new(HoldsUp(recording.clone())), Box::leak(Box::default())),
        telemetry: &Telemetry::default(),
        cancel: &CancellationToken::new(),
        flush_after: SHORT,
    };
    workflow.pass_on(0, &mut output).await;
    clock.abort();
    let logs = logs(&recording.lines());
    let stdout: Vec<&String> = logs.iter().filter(|log| log.starts_with("log stdout")).collect();
    let expected: Vec<String> = (0..LINES).map(|line| format!(r#"log stdout "line {line}""#)).collect();
    assert_eq!(stdout, expected.iter().collect::<Vec<_>>());
}

/// Something is always there, and the prompt is told all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_prompt_is_told_beside_a_flood_on_the_other_output() {
    let (sender, mut output) = mpsc::channel(4);
    let recording = Recording::default();
    let told = recording.clone();
    let flood = std::thread::spawn(move || {
        let prompt = CommandEvent::Output(Stream::Stderr, "Password: ".into());
        sender.blocking_send(prompt).unwrap();
        let is_told = || told.lines().iter().any(|line| line.contains("Password"));
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while !is_told() && std::time::Instant::now() < end {
            let flood = CommandEvent::Output(Stream::Stdout, "flood\n".repeat(3).into());
            sender.blocking_send(flood).unwrap();
        }
        is_told()
    });
    let memory = Memory::default();
    let workflow = Workflow {
        memory: &memory,
        task: &WorkflowTask {
            steps: Vec::new(),
            timeout: None,
        },
        sandbox: &ScriptedSandbox::new(Vec::new(), &CancellationToken::new(), &recording),
        events: &recording.sink(&[]),
        telemetry: &Telemetry::default(),
        cancel: &CancellationToken::new(),
        flush_after: Duration::from_millis(1),
    };
    workflow.pass_on(0, &mut output).await;
    assert!(flood.join().unwrap());
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
