//! Each limit ends the call that goes over it, with its own code, and the next call is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use plue_tool_host::ToolErrorCode as Code;
use plue_tool_host::{LiveOutput, Toolbox, limits};
use tokio_util::sync::CancellationToken;

use crate::fixture::{Fixture, call, expect_good};
use support::guest::{
    CLOCK, FILES, Guest, Import, OWN_RESOURCE, PROCESS, PROGRESS, RANDOM, RESULT, SCRATCH, answers, forever,
    grow_memory,
};

/// A hostile tool, the limits of its manifest, and the code that ends it.
struct Case {
    what: &'static str,
    guest: Guest,
    manifest: &'static str,
    code: Code,
    /// What the message says of the limit.
    says: &'static str,
}

fn bad(call: &str) -> Guest {
    Guest::on_call("bad", call)
}

fn with(import: Import, call: &str) -> Guest {
    bad(call).importing(import)
}

/// Opens the workspace's directory again and again, and keeps or closes each.
fn opens(times: usize, close: bool) -> Guest {
    let opened = SCRATCH + 16;
    let close = if close {
        format!("(call $close (i32.load (i32.const {})))", opened + 4)
    } else {
        String::new()
    };
    with(
        FILES,
        &format!(
            "(call $directories (i32.const {SCRATCH}))
             (local.set $a (i32.load (i32.load (i32.const {SCRATCH}))))
             (i32.store8 (i32.const {path}) (i32.const 0x2e))
             (loop $again
               (call $open (local.get $a) (i32.const 0) (i32.const {path}) (i32.const 1) (i32.const 2) (i32.const 1)
                 (i32.const {opened}))
               (if (i32.load8_u (i32.const {opened})) (then unreachable))
               {close}
               (br_if $again (i32.lt_u (local.tee $b (i32.add (local.get $b) (i32.const 1))) (i32.const {times}))))",
            path = SCRATCH + 64,
        ),
    )
}

fn cases() -> Vec<Case> {
    let case = |what, guest, manifest, code, says| Case {
        what,
        guest,
        manifest,
        code,
        says,
    };
    let second_memory = |call: String| Guest {
        items: "(memory $second 1)".to_owned(),
        ..bad(&call)
    };
    let table = |call: String| Guest {
        items: "(table $t 1 funcref)".to_owned(),
        ..bad(&call)
    };
    let never = "limits.deadline = 15";
    vec![
        case(
            "an endless loop, by the clock",
            bad(&forever("")),
            "limits.deadline = 0.2",
            Code::Timeout,
            "`deadline` is 0.200 s",
        ),
        case(
            "an endless loop, by the processor",
            bad(&forever("")),
            "limits = { deadline = 15, cpu = 0.2 }",
            Code::LimitCpu,
            "`cpu` is 0.200 s",
        ),
        case(
            "an endless loop in realloc",
            Guest {
                realloc: forever(""),
                ..bad("")
            },
            "limits.deadline = 0.2",
            Code::Timeout,
            "`deadline`",
        ),
        case(
            "memory that grows in small steps",
            bad(&forever(&grow_memory(1))),
            never,
            Code::LimitMemory,
            "`memory` is 256 MiB",
        ),
        case(
            "memory that grows at once",
            bad(&grow_memory(4096)),
            never,
            Code::LimitMemory,
            "and 262400 KiB used",
        ),
        case(
            "two memories, each under the limit",
            second_memory(grow_memory(2500) + "(drop (memory.grow $second (i32.const 2500)))"),
            never,
            Code::LimitMemory,
            "`memory` is 256 MiB",
        ),
        case(
            "a manifest's own memory limit",
            bad(&grow_memory(64)),
            "limits.memory = \"2MiB\"",
            Code::LimitMemory,
            "`memory` is 2 MiB",
        ),
        case(
            "a table that grows",
            table(forever("(drop (table.grow $t (ref.null func) (i32.const 1000)))")),
            never,
            Code::LimitTables,
            "`tables` is 200000",
        ),
        case(
            "a result that is too long",
            bad(&(grow_memory(40) + &answers("(i32.const 300000)", "(i32.const 2000000)"))),
            never,
            Code::LimitOutput,
            "`output` is 1 MiB",
        ),
        case(
            "a result that the host would not even copy",
            bad(&(grow_memory(3200) + &answers("(i32.const 0)", "(i32.const 200000000)"))),
            never,
            Code::LimitOutput,
            "`output` is 1 MiB",
        ),
        case(
            "an error message that is too long",
            bad(&format!(
                "{} (i32.store8 (i32.const {RESULT}) (i32.const 1)) (i32.store8 (i32.const {}) (i32.const 7))
                 (i32.store (i32.const {}) (i32.const 300000)) (i32.store (i32.const {}) (i32.const 2000000))",
                grow_memory(40),
                RESULT + 8,
                RESULT + 12,
                RESULT + 16,
            )),
            never,
            Code::LimitOutput,
            "`output` is 1 MiB",
        ),
        case(
            "one host call with too much data",
            with(
                PROGRESS,
                &(grow_memory(400) + "(call $show (i32.const 0) (i32.const 20000000))"),
            ),
            never,
            Code::LimitHostCall,
            "`host_call` is 16 MiB",
        ),
        case(
            "a list of a million strings",
            with(
                PROCESS,
                &(grow_memory(160)
                    + "(call $start (i32.const 131072) (i32.const 1000000) (i32.const 0) (i32.const 0) (i64.const 1) \
                        (i32.const 1024))"),
            ),
            "process = true",
            Code::LimitHostCall,
            "`host_call`",
        ),
        case(
            "a flood of live output",
            with(PROGRESS, &forever("(call $show (i32.const 0) (i32.const 60000))")),
            never,
            Code::LimitLiveOutput,
            "`live_output` is 8 MiB",
        ),
        case(
            "a host call that sleeps",
            with(CLOCK, "(call $block (call $subscribe (i64.const 3600000000000)))"),
            "limits.deadline = 0.2",
            Code::Timeout,
            "`deadline` is 0.200 s",
        ),
        case(
            "100,000 handles",
            with(
                CLOCK,
                "(loop $again (drop (call $subscribe (i64.const 1)))
                   (br_if $again (i32.lt_u (local.tee $a (i32.add (local.get $a) (i32.const 1))) (i32.const 100000))))",
            ),
            never,
            Code::LimitHandles,
            "`handles` is 4096",
        ),
        case(
            "100,000 handles of the component's own resource",
            with(
                OWN_RESOURCE,
                "(loop $again (drop (call $new (i32.const 1)))
                   (br_if $again (i32.lt_u (local.tee $a (i32.add (local.get $a) (i32.const 1))) (i32.const 100000))))",
            ),
            never,
            Code::LimitHandles,
            "`handles` is 4096",
        ),
        case(
            "files that stay open",
            opens(300, false),
            "workspace = \"read\"",
            Code::LimitOpenFiles,
            "`open_files` is 256",
        ),
        case(
            "directories that stay open while they are read",
            with(
                FILES,
                &format!(
                    "(call $directories (i32.const {SCRATCH}))
                     (local.set $a (i32.load (i32.load (i32.const {SCRATCH}))))
                     (loop $again (call $read (local.get $a) (i32.const {SCRATCH})) (br $again))"
                ),
            ),
            "workspace = \"read\"",
            Code::LimitOpenFiles,
            "`open_files` is 256",
        ),
        case(
            "four gigabytes of random bytes",
            with(RANDOM, "(call $random (i64.const 4294967295) (i32.const 1024))"),
            never,
            Code::Trap,
            "the tool was ended",
        ),
        case(
            "recursion without end",
            Guest {
                items: "(func $deep (call $deep) (call $deep))".to_owned(),
                ..bad("(call $deep)")
            },
            never,
            Code::Trap,
            "call stack exhausted",
        ),
        case("a crash", bad("unreachable"), never, Code::Trap, "unreachable"),
        case(
            "a result that points nowhere",
            bad(&answers("(i32.const -8)", "(i32.const 100)")),
            never,
            Code::Trap,
            "the tool was ended",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_over_a_limit_ends_with_the_limits_code_and_the_next_call_is_answered() {
    for case in cases() {
        let fixture = Fixture::with(&case.guest, case.manifest);
        let toolbox = fixture.toolbox();
        let outcome = call(&toolbox, "bad", "{}").await;
        assert_eq!(outcome.error, Some(case.code), "{}: {}", case.what, outcome.text);
        assert!(outcome.text.contains(case.says), "{}: {}", case.what, outcome.text);
        assert!(
            outcome.duration < Duration::from_secs(10),
            "{}: {:?}",
            case.what,
            outcome.duration
        );
        expect_good(&toolbox).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_closed_again_do_not_count() {
    let fixture = Fixture::with(&opens(2000, true), "workspace = \"read\"");
    let outcome = call(&fixture.toolbox(), "bad", "{}").await;
    assert_eq!(outcome.error, None, "{}", outcome.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_ends_after_its_grace() {
    let waits = with(CLOCK, "(call $block (call $subscribe (i64.const 3600000000000)))");
    for guest in [bad(&forever("")), waits] {
        let fixture = Fixture::with(&guest, "limits.cancel_grace = 0.1");
        let toolbox = fixture.toolbox();
        let cancel = CancellationToken::new();
        let later = cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            later.cancel();
        });
        let outcome = toolbox.call("bad", "{}", Arc::new(|_| {}), cancel).await;
        assert_eq!(outcome.error, Some(Code::Cancelled), "{}", outcome.text);
        assert!(outcome.duration < Duration::from_secs(5), "{:?}", outcome.duration);
        expect_good(&toolbox).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_blocks_in_the_kernel_is_interrupted() {
    // Opening a FIFO that nobody writes blocks in the kernel, where no interruption of the component reaches.
    let mut guest = opens(1, false);
    guest.call = guest
        .call
        .replace("0x2e", "0x66")
        .replace("(i32.const 2) (i32.const 1)", "(i32.const 0) (i32.const 1)");
    guest.call = guest
        .call
        .replace("(then unreachable)", "(then (loop $for_ever (br $for_ever)))");
    let fixture = Fixture::with(&guest, "workspace = \"read\"\nlimits.deadline = 0.2");
    let fifo = fixture.workspace().join("f");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    // More often than there are slots: no thread is lost. When the runtime of this test ends, it waits for all.
    let toolbox = fixture.toolbox();
    let calls = (0..20).map(|_| call(&toolbox, "bad", "{}"));
    for outcome in futures::future::join_all(calls).await {
        assert_eq!(outcome.error, Some(Code::Timeout), "{}", outcome.text);
    }
    expect_good(&toolbox).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_thread_cannot_be_interrupted_is_given_up() {
    let shows = with(PROGRESS, "(call $show (local.get $input) (local.get $length))");
    let toolbox = Fixture::with(&shows, "limits.deadline = 0.2").toolbox();
    // Whoever takes the live output does not come back: it stands for a file system that never answers.
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let stuck: LiveOutput = Arc::new(move |_| {
        let _ = released.lock().unwrap().recv();
    });
    let outcome = toolbox.call("bad", "{}", stuck, CancellationToken::new()).await;
    assert_eq!(outcome.error, Some(Code::Timeout), "{}", outcome.text);
    assert!(outcome.text.contains("given up"), "{}", outcome.text);
    expect_good(&toolbox).await;
    drop(release);
}

#[tokio::test(flavor = "multi_thread")]
async fn live_output_comes_while_the_tool_runs() {
    let shows = with(PROGRESS, "(call $show (local.get $input) (local.get $length))");
    let fixture = Fixture::with(&shows, "");
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let live: LiveOutput = Arc::new(move |text| {
        count.fetch_add(text.len(), Ordering::SeqCst);
    });
    let outcome = fixture
        .toolbox()
        .call("bad", r#"{"a":1}"#, live, CancellationToken::new())
        .await;
    assert_eq!((outcome.error, seen.load(Ordering::SeqCst)), (None, 7));
}

/// Says, to a process that this test starts, which allocation it should find.
const EXPECTED_ALLOCATION: &str = "PLUE_TEST_ALLOCATION";

/// In place of an allocation: the plugins are refused, with the least that they need.
const TOO_SMALL: &str = "refused";

/// Whether a tool's memory can grow to its limit within this process's address space.
fn engine_has_room() -> bool {
    let limit = rustix::process::getrlimit(rustix::process::Resource::As).current;
    limit.is_none_or(|bytes| bytes > 2 << 30)
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_run_where_the_address_space_is_too_small_for_a_pool() {
    if let Ok(expected) = std::env::var(EXPECTED_ALLOCATION) {
        let fixture = Fixture::with(&bad(&forever(&grow_memory(1))), "");
        if expected == TOO_SMALL {
            let refusal = fixture.refusal();
            assert!(
                refusal.contains("is limited to 488 MiB") && refusal.contains("tools need 768 MiB"),
                "{refusal}"
            );
            return;
        }
        assert_eq!(
            fixture
                .load()
                .unwrap_or_else(|error| panic!("{error}"))
                .allocation()
                .as_str(),
            expected
        );
        let toolbox = fixture.toolbox();
        // With little more than the least, the system's limit comes before ours.
        if engine_has_room() {
            assert_eq!(call(&toolbox, "bad", "{}").await.error, Some(Code::LimitMemory));
        }
        expect_good(&toolbox).await;
        return;
    }
    // In KiB: 0.5, 0.8, 3 and 90 GB, and what this process has.
    for (limit, expected) in [
        ("500000", TOO_SMALL),
        ("800000", "on-demand-small"),
        ("3000000", "on-demand-small"),
        ("90000000", "on-demand"),
        ("unlimited", "pooling"),
    ] {
        let output = std::process::Command::new("/bin/sh")
            .args(["-c", "ulimit -v $0 && exec \"$@\"", limit])
            .arg(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "limits::tools_run_where_the_address_space_is_too_small_for_a_pool",
            ])
            .env(EXPECTED_ALLOCATION, expected)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{expected}: {text}"
        );
    }
}

#[test]
fn too_many_instances_are_refused_when_the_plugin_is_loaded() {
    let more = (0..4)
        .map(|n| format!("(core instance $more{n} (instantiate $libc))\n"))
        .collect();
    let fixture = Fixture::with(&Guest { more, ..bad("") }, "limits.instances = 4");
    let refusal = fixture.refusal();
    assert!(
        refusal.contains("limit_instances") && refusal.contains("`instances` is 4"),
        "{refusal}"
    );
}

#[test]
fn loops_in_describe_and_in_the_start_function_are_ended_when_the_plugin_is_loaded() {
    let fixture = Fixture::new();
    fixture.install(
        &Guest {
            describe: forever(""),
            ..Guest::good("one")
        },
        "",
    );
    let start = format!("(func $start {}) (start $start)", forever(""));
    fixture.install(
        &Guest {
            items: start,
            ..Guest::good("two")
        },
        "",
    );
    let refusal = fixture.refusal();
    for name in ["one", "two"] {
        let says =
            format!("{name}/tool.wasm: describe() failed with timeout: the call was ended: limit `deadline` is 5 s");
        assert!(refusal.contains(&says), "{refusal}");
    }
}

#[test]
fn the_table_of_limits_has_no_two_of_a_name_and_every_limit_code_once() {
    let table = limits::table();
    let mut names: Vec<_> = table.iter().map(|limit| limit.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), table.len());
    for code in [
        Code::LimitCpu,
        Code::LimitMemory,
        Code::LimitTables,
        Code::LimitInstances,
        Code::LimitHostCall,
        Code::LimitHandles,
        Code::LimitOpenFiles,
        Code::LimitOutput,
        Code::LimitLiveOutput,
    ] {
        assert_eq!(
            table.iter().filter(|limit| limit.code == Some(code)).count(),
            1,
            "{code:?}"
        );
    }
}
