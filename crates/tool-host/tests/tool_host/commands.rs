//! The host's side of a command: what the tool hears of it, what people see, and that it never outlives the call.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use plue_sandbox::{CommandEvent, Ending, ExitStatus, Stream};
use plue_tool_host::{LiveOutput, ToolErrorCode as Code, ToolOutcome, Toolbox};
use tokio_util::sync::CancellationToken;

use crate::fixture::Fixture;
use support::guest::{Guest, PROCESS, SCRATCH, answers, forever};

const ARGV: usize = SCRATCH + 16;
const EVENT: usize = SCRATCH + 64;
const LOG: usize = SCRATCH + 256;

/// Starts `x` in `.` with a time limit of a second; `$a` is the command.
fn start() -> String {
    format!(
        "(i32.store8 (i32.const {SCRATCH}) (i32.const 0x78)) (i32.store8 (i32.const {dot}) (i32.const 0x2e))
         (i32.store (i32.const {ARGV}) (i32.const {SCRATCH})) (i32.store (i32.const {length}) (i32.const 1))
         (call $start (i32.const {ARGV}) (i32.const 1) (i32.const {dot}) (i32.const 1) (i64.const 1000) (i32.const {EVENT}))
         (if (i32.load8_u (i32.const {EVENT})) (then unreachable))
         (local.set $a (i32.load (i32.const {first})))",
        dot = SCRATCH + 1,
        length = ARGV + 4,
        first = EVENT + 4,
    )
}

/// Runs the command to its end, and answers with every event: its tag, its stream or exit code, and how much it holds
/// in units of 1024 bytes, a byte each, from `a`.
fn runs() -> Guest {
    let note = |value: String| {
        format!(
            "(i32.store8 (i32.add (local.get $b) (i32.const {LOG})) (i32.add {value} (i32.const 97)))
                 (local.set $b (i32.add (local.get $b) (i32.const 1)))"
        )
    };
    let kib = |at: usize| format!("(i32.shr_u (i32.load (i32.const {at})) (i32.const 10))");
    let call = start()
        + &format!(
            "(block $over (loop $again
               (call $next (local.get $a) (i32.const {EVENT}))
               {tag} {first}
               (if (i32.eq (i32.load8_u (i32.const {EVENT})) (i32.const 2)) (then {ending} (br $over)))
               (if (i32.eq (i32.load8_u (i32.const {EVENT})) (i32.const 0)) (then {bytes}) (else {dropped}))
               (br $again)))",
            tag = note(format!("(i32.load8_u (i32.const {EVENT}))")),
            first = note(format!("(i32.load8_u (i32.const {}))", EVENT + 8)),
            ending = note(format!("(i32.load8_u (i32.const {}))", EVENT + 12)),
            bytes = note(kib(EVENT + 16)),
            dropped = note(kib(EVENT + 16)),
        )
        + &answers(&format!("(i32.const {LOG})"), "(local.get $b)");
    Guest::on_call("tool", &call).importing(PROCESS)
}

fn exited(code: i32, ending: Ending) -> CommandEvent {
    CommandEvent::Exited(ExitStatus {
        code,
        signal: None,
        ending,
    })
}

fn output(stream: Stream, kib: usize) -> CommandEvent {
    CommandEvent::Output(stream, Bytes::from(vec![b'x'; kib << 10]))
}

async fn play(manifest: &str, script: Vec<CommandEvent>) -> (ToolOutcome, String) {
    let fixture = Fixture::with(&runs(), &format!("process = true\n{manifest}"));
    *fixture.sandbox.script.lock().unwrap() = script;
    let shown = Arc::new(Mutex::new(String::new()));
    let show = shown.clone();
    let live: LiveOutput = Arc::new(move |text| show.lock().unwrap().push_str(text));
    let outcome = fixture
        .toolbox()
        .call("tool", "{}", live, CancellationToken::new())
        .await;
    let spec = fixture.sandbox.started.lock().unwrap().pop().unwrap();
    assert_eq!(
        (spec.argv, spec.timeout),
        (vec!["x".to_owned()], Duration::from_secs(1))
    );
    assert!(spec.env.is_empty());
    let shown = shown.lock().unwrap().clone();
    (outcome, shown)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_each_output_the_head_and_the_tail_are_kept_and_the_rest_is_counted() {
    use Stream::{Stderr, Stdout};
    let done = || exited(3, Ending::Exited);
    let limits = "limits = { command_head = \"4KiB\", command_tail = \"8KiB\" }";
    for (script, expected) in [
        // Tag, stream, KiB; at the end tag, exit code, ending.
        (vec![done()], "cda"),
        (vec![output(Stdout, 1), output(Stderr, 2), done()], "aab abc cda"),
        // The head in two pieces, then the tail.
        (vec![output(Stdout, 3), output(Stdout, 3), done()], "aad aab aac cda"),
        // Exactly as much as is kept.
        (vec![output(Stdout, 12), done()], "aae aai cda"),
        (vec![output(Stdout, 13), done()], "aae bab aai cda"),
        // In many pieces, and the other output is not touched by it.
        (
            vec![
                output(Stdout, 4),
                output(Stdout, 5),
                output(Stderr, 1),
                output(Stdout, 5),
                output(Stdout, 2),
                done(),
            ],
            "aae abb bae aai cda",
        ),
    ] {
        let (outcome, _) = play(limits, script.clone()).await;
        assert_eq!(
            (outcome.error, outcome.text),
            (None, expected.replace(' ', "")),
            "{script:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_ending_comes_through() {
    for (ending, letter) in [
        (Ending::Exited, "a"),
        (Ending::TimedOut, "b"),
        (Ending::Cancelled, "c"),
        (Ending::Memory, "d"),
        (Ending::Processes, "e"),
    ] {
        let (outcome, _) = play("", vec![exited(0, ending)]).await;
        assert_eq!(outcome.text, format!("ca{letter}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_see_the_output_as_text_and_at_most_the_limit_of_it() {
    let bytes = |bytes: &'static [u8]| CommandEvent::Output(Stream::Stdout, Bytes::from_static(bytes));
    let script = vec![
        bytes(b"a\0\xf0\x9f"),
        bytes(b"\x98\x80\xff"),
        bytes(b"\xe2"),
        exited(0, Ending::Exited),
    ];
    let (_, shown) = play("", script).await;
    assert_eq!(shown, "a\u{FFFD}\u{1F600}\u{FFFD}\u{FFFD}");

    let script = vec![
        output(Stream::Stdout, 3),
        output(Stream::Stdout, 3),
        output(Stream::Stdout, 1),
        exited(0, Ending::Exited),
    ];
    let (outcome, shown) = play("limits.live_output = \"4KiB\"", script).await;
    assert_eq!((outcome.error, shown.len()), (None, 4 << 10), "{}", outcome.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_never_outlives_the_call_that_started_it() {
    let never_waits = Guest::on_call("tool", &start());
    let traps = Guest::on_call("tool", &(start() + "unreachable"));
    let loops = Guest::on_call("tool", &(start() + &forever("")));
    for (guest, code) in [
        (never_waits, None),
        (traps, Some(Code::Trap)),
        (loops, Some(Code::Timeout)),
        // The command never says anything: the time inside the host call counts.
        (runs(), Some(Code::Timeout)),
    ] {
        let fixture = Fixture::with(&guest.importing_once(PROCESS), "process = true\nlimits.deadline = 0.3");
        let outcome = crate::fixture::call(&fixture.toolbox(), "tool", "{}").await;
        assert_eq!(outcome.error, code, "{}", outcome.text);
        let command = fixture.sandbox.last.lock().unwrap().take().unwrap();
        tokio::time::timeout(Duration::from_secs(5), command.cancelled())
            .await
            .expect("the command was not ended");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_the_call_cancels_the_command_and_the_tool_may_say_how_far_it_came() {
    let fixture = Fixture::with(&runs(), "process = true");
    let toolbox = fixture.toolbox();
    let cancel = CancellationToken::new();
    let call = toolbox.call("tool", "{}", Arc::new(|_| {}), cancel.clone());
    let cancelled = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(call, cancelled);
    // The double loses the command without a word, which ends the call; what matters is that it was told.
    assert!(
        outcome.error.is_some() && outcome.duration < Duration::from_secs(4),
        "{outcome:?}"
    );
    assert!(fixture.sandbox.last.lock().unwrap().take().unwrap().is_cancelled());
}
