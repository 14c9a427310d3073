//! A component that takes more than it may: time, memory, handles, the host's attention.

use plue_sandbox::mutation::Protection;
use serde_json::json;
use support::guest::{
    CLOCK, FILES, Function, Guest, Import, OWN_RESOURCE, PROCESS, PROGRESS, RANDOM, RESULT, SCRATCH, answers, forever,
    grow_memory,
};

use super::{component, good, killed, on_call, refused, tool};
use crate::attack::{Attack, Expect};

/// The deadline of those that go over it.
pub(super) const SHORT: &str = "limits.deadline = 0.3";

/// Does something so many times.
pub(super) fn times(count: u64, body: &str) -> String {
    format!(
        "(loop $again {body} (local.set $b (i32.add (local.get $b) (i32.const 1)))
           (br_if $again (i32.lt_u (local.get $b) (i32.const {count}))))"
    )
}

/// Computes for about so many thousand million steps: three take no processor less than half a second.
fn computes(billions: u32) -> String {
    let inner = "(local.set $a (i32.const 0))
         (loop $inner (local.set $a (i32.add (local.get $a) (i32.const 1)))
           (br_if $inner (i32.lt_u (local.get $a) (i32.const 1000000000))))";
    times(u64::from(billions), inner)
}

fn sleeps(nanoseconds: u64) -> Guest {
    on_call(&format!("(call $block (call $subscribe (i64.const {nanoseconds})))")).importing(CLOCK)
}

fn in_describe(code: &str) -> Guest {
    Guest {
        describe: code.to_owned(),
        ..good()
    }
}

pub(super) fn with_items(items: &str, call: &str) -> Guest {
    Guest {
        items: items.to_owned(),
        ..on_call(call)
    }
}

fn two_memories(pages: usize) -> Guest {
    let second = format!("(drop (memory.grow $second (i32.const {pages})))");
    with_items("(memory $second 1)", &(grow_memory(pages) + &second))
}

fn table(elements: u32) -> Guest {
    let grow = format!("(drop (table.grow $t (ref.null func) (i32.const {elements})))");
    with_items("(table $t 1 funcref)", &grow)
}

/// One table that grows, and one that has its size from the beginning.
fn two_tables(elements: u32) -> Guest {
    let more = format!(
        "(core module $tables (table {elements} funcref)) (core instance $tables-instance (instantiate $tables))"
    );
    Guest {
        more,
        ..table(elements)
    }
}

fn recurses(depth: u32) -> Guest {
    let items = "(func $deep (param $left i32)
        (if (local.get $left) (then
          (call $deep (i32.sub (local.get $left) (i32.const 1))) (call $deep (i32.const 0)))))";
    with_items(items, &format!("(call $deep (i32.const {depth}))"))
}

/// Answers with so many bytes of its memory, which has so many pages more.
fn answers_long(pages: usize, bytes: u32) -> Guest {
    on_call(&(grow_memory(pages) + &answers("(i32.const 65536)", &format!("(i32.const {bytes})"))))
}

/// Fails with an error message of so many bytes, or answers when there are none.
fn fails_long(bytes: u32) -> Guest {
    on_call(&format!(
        "{} (i32.store8 (i32.const {RESULT}) (i32.const 1)) (i32.store8 (i32.const {}) (i32.const 7))
         (i32.store (i32.const {}) (i32.const 65536)) (i32.store (i32.const {}) (i32.const {bytes}))",
        grow_memory(40),
        RESULT + 8,
        RESULT + 12,
        RESULT + 16,
    ))
}

/// Hands the host so many bytes at once, so many times.
fn shows(bytes: u32, count: u64) -> Guest {
    let show = format!("(call $show (i32.const 65536) (i32.const {bytes}))");
    on_call(&(grow_memory(400) + &times(count, &show))).importing(PROGRESS)
}

const LOG: Import = Import {
    text: r#"(import "plue:tool/progress@1.0.0" (instance $progress
      (type $level' (enum "debug" "info" "warning" "error"))
      (export "level" (type $level (eq $level')))
      (export "log" (func (param "level" $level) (param "message" string)))))"#,
    functions: &[("log", Function::Lowered("progress", "log", "(param i32 i32 i32)"))],
};

/// Logs so many lines of so many bytes each.
fn logs(lines: u64, bytes: u32) -> Guest {
    let log = format!("(call $log (i32.const 1) (i32.const 4096) (i32.const {bytes}))");
    on_call(&times(lines, &log)).importing(LOG)
}

/// Starts a command whose argument list is so long; each argument is `true`.
fn arguments(count: u32) -> Guest {
    let (list, text) = (131_072, SCRATCH);
    let fill = format!(
        "(i32.store (i32.const {text}) (i32.const 0x65757274))
         (loop $fill
           (i32.store (i32.add (i32.const {list}) (i32.mul (local.get $a) (i32.const 8))) (i32.const {text}))
           (i32.store offset=4 (i32.add (i32.const {list}) (i32.mul (local.get $a) (i32.const 8))) (i32.const 4))
           (local.set $a (i32.add (local.get $a) (i32.const 1)))
           (br_if $fill (i32.lt_u (local.get $a) (i32.const {}))))",
        count.min(1_000_000)
    );
    let start = format!(
        "(call $start (i32.const {list}) (i32.const {count}) (i32.const {text}) (i32.const 0) (i64.const 1000)
           (i32.const {}))",
        SCRATCH + 16
    );
    on_call(&(grow_memory(160) + &fill + &start)).importing(PROCESS)
}

const INSECURE: Import = Import {
    text: r#"(import "wasi:random/insecure@0.2.6" (instance $insecure
      (export "get-insecure-random-bytes" (func (param "len" u64) (result (list u8))))))"#,
    functions: &[(
        "random",
        Function::Lowered("insecure", "get-insecure-random-bytes", "(param i64 i32)"),
    )],
};

fn random(import: Import, bytes: u64) -> Guest {
    on_call(&format!("(call $random (i64.const {bytes}) (i32.const {SCRATCH}))")).importing(import)
}

fn pollables(count: u64) -> Guest {
    on_call(&times(count, "(drop (call $subscribe (i64.const 1)))")).importing(CLOCK)
}

fn own_resources(count: u64) -> Guest {
    on_call(&times(count, "(drop (call $new (i32.const 1)))")).importing(OWN_RESOURCE)
}

/// Opens the workspace's folder so many times and closes none.
fn opens(count: u64) -> Guest {
    let open = format!(
        "(call $open (local.get $a) (i32.const 0) (i32.const {path}) (i32.const 1) (i32.const 2) (i32.const 1)
           (i32.const {SCRATCH}))",
        path = SCRATCH + 64,
    );
    on_call(&(FIRST_FOLDER.to_owned() + &times(count, &open))).importing(FILES)
}

fn lists(count: u64) -> Guest {
    let list = format!("(call $read (local.get $a) (i32.const {SCRATCH}))");
    on_call(&(FIRST_FOLDER.to_owned() + &times(count, &list))).importing(FILES)
}

/// The workspace's handle in `$a`, and `.` beside the scratch space.
const FIRST_FOLDER: &str = "(call $directories (i32.const 1024))
    (local.set $a (i32.load (i32.load (i32.const 1024)))) (i32.store8 (i32.const 1088) (i32.const 0x2e))";

/// `write_zeroes`, and the stream to which.
const ZEROES: Import = Import {
    text: r#"(import "wasi:io/error@0.2.6" (instance $io-error (export "error" (type (sub resource)))))
    (alias export $io-error "error" (type $io-error-type))
    (import "wasi:io/streams@0.2.6" (instance $streams
      (alias outer 1 $io-error-type (type $error'))
      (export "error" (type $error (eq $error')))
      (export "output-stream" (type $output (sub resource)))
      (type $stream-error' (variant (case "last-operation-failed" (own $error)) (case "closed")))
      (export "stream-error" (type $stream-error (eq $stream-error')))
      (export "[method]output-stream.write-zeroes" (func (param "self" (borrow $output)) (param "len" u64)
        (result (result (error $stream-error)))))))
    (alias export $streams "output-stream" (type $output-stream))
    (import "wasi:cli/stdout@0.2.6" (instance $stdout
      (alias outer 1 $output-stream (type $output'))
      (export "output-stream" (type $output (eq $output')))
      (export "get-stdout" (func (result (own $output))))))"#,
    functions: &[
        ("stdout", Function::Lowered("stdout", "get-stdout", "(result i32)")),
        (
            "zeroes",
            Function::Lowered("streams", "[method]output-stream.write-zeroes", "(param i32 i64 i32)"),
        ),
    ],
};

fn zeroes(count: u64) -> Guest {
    on_call(&format!(
        "(call $zeroes (call $stdout) (i64.const {count}) (i32.const {SCRATCH}))"
    ))
    .importing(ZEROES)
}

/// Counts its calls in its memory, and crashes after that when it has an argument.
fn counts() -> Guest {
    let count = "(i32.store8 (i32.const 0x8000) (i32.add (i32.load8_u (i32.const 0x8000)) (i32.const 1)))
        (i32.store8 (i32.const 0x8001) (i32.add (i32.load8_u (i32.const 0x8000)) (i32.const 48)))
        (if (i32.gt_u (local.get $length) (i32.const 2)) (then unreachable))";
    on_call(&(count.to_owned() + &answers("(i32.const 0x8001)", "(i32.const 1)")))
}

fn instances(count: usize) -> Guest {
    let more = (0..count).map(|number| format!("(core instance $more{number} (instantiate $libc))\n"));
    Guest {
        more: more.collect(),
        ..good()
    }
}

pub const ATTACKS: &[Attack] = &[
    killed(
        "components/loop-in-call",
        "a call that computes for ever",
        "timeout",
        |_| tool(&on_call(&forever("")), SHORT),
        |_| tool(&on_call(&times(10, "")), SHORT),
    )
    .differing(),
    killed(
        "components/deadline-by-computing",
        "a call that computes longer than its deadline, and would then succeed",
        "timeout",
        |_| tool(&on_call(&computes(3)), SHORT),
        |_| tool(&on_call(&computes(3)), ""),
    )
    .differing()
    .falls_without(&[Protection::Deadline]),
    killed(
        "components/deadline-by-sleeping",
        "a call that waits in the host longer than its deadline, and would then succeed",
        "timeout",
        |_| tool(&sleeps(2_000_000_000), SHORT),
        |_| tool(&sleeps(2_000_000_000), ""),
    )
    .differing()
    .falls_without(&[Protection::Deadline]),
    killed(
        "components/processor-time",
        "a call that computes longer than its processor time",
        "limit_cpu",
        |_| tool(&on_call(&computes(3)), "limits.cpu = 0.3"),
        |_| tool(&on_call(&computes(3)), ""),
    )
    .differing()
    .falls_without(&[Protection::Deadline]),
    refused(
        "components/loop-in-describe",
        "a plugin that computes for ever when it is asked what it is",
        "describe() failed with timeout",
        |_| tool(&in_describe(&forever("")), ""),
        |_| tool(&in_describe(&times(10, "")), ""),
    ),
    refused(
        "components/loop-in-the-start-function",
        "a plugin that computes for ever when it is instantiated",
        "describe() failed with timeout",
        |_| tool(&with_items("(func $start (loop $l (br $l))) (start $start)", ""), ""),
        |_| tool(&with_items("(func $start) (start $start)", ""), ""),
    ),
    killed(
        "components/loop-in-realloc",
        "a call that never takes its argument",
        "timeout",
        |_| {
            let realloc = forever("");
            tool(&Guest { realloc, ..good() }, SHORT)
        },
        |_| tool(&good(), SHORT),
    ),
    refused(
        "components/crash-in-describe",
        "a plugin that crashes when it is asked what it is",
        "describe() failed with trap",
        |_| tool(&in_describe("unreachable"), ""),
        |_| tool(&in_describe("nop"), ""),
    )
    .differing(),
    killed(
        "components/sleep-for-ever",
        "a wait for the end of time, whose clock must not overflow",
        "timeout",
        |_| tool(&sleeps(u64::MAX), SHORT),
        |_| tool(&sleeps(1), SHORT),
    ),
    killed(
        "components/memory-in-steps",
        "memory that grows page by page to 300 MiB",
        "limit_memory",
        |_| tool(&on_call(&times(4800, &grow_memory(1))), ""),
        |_| tool(&on_call(&times(100, &grow_memory(1))), ""),
    )
    .differing()
    .falls_without(&[Protection::Memory]),
    killed(
        "components/memory-at-once",
        "memory that grows by 1 GiB in one step",
        "limit_memory",
        |_| tool(&on_call(&grow_memory(16_384)), ""),
        |_| tool(&on_call(&grow_memory(160)), ""),
    )
    .differing()
    .falls_without(&[Protection::Memory]),
    killed(
        "components/memory-in-two",
        "two memories, each of them below the limit",
        "limit_memory",
        |_| tool(&two_memories(2500), ""),
        |_| tool(&two_memories(100), ""),
    )
    .falls_without(&[Protection::Memory]),
    killed(
        "components/table-growth",
        "a table of a million elements",
        "limit_tables",
        |_| tool(&table(1_000_000), ""),
        |_| tool(&table(100_000), ""),
    ),
    killed(
        "components/tables-in-two",
        "two tables, each of them below the limit",
        "limit_tables",
        |_| tool(&two_tables(150_000), ""),
        |_| tool(&two_tables(50_000), ""),
    ),
    killed(
        "components/deep-recursion",
        "recursion until the stack is full",
        "trap",
        |_| tool(&recurses(u32::MAX), ""),
        |_| tool(&recurses(1000), ""),
    )
    .differing(),
    refused(
        "components/too-many-instances",
        "a component of more instances than its manifest gives it",
        "limit_instances",
        |_| tool(&instances(4), "limits.instances = 4"),
        |_| tool(&instances(4), ""),
    ),
    killed(
        "components/long-result",
        "a result of 200 MB",
        "limit_output",
        |_| tool(&answers_long(3200, 200_000_000), ""),
        |_| tool(&answers_long(1, 1000), ""),
    ),
    killed(
        "components/result-beyond-the-memory",
        "a result of 1 GB, of which the memory has a part only",
        "trap",
        |_| tool(&answers_long(10, 1_000_000_000), ""),
        |_| tool(&answers_long(10, 1000), ""),
    ),
    killed(
        "components/result-that-is-no-text",
        "a result whose bytes are no UTF-8",
        "trap",
        |_| {
            let bad = "(i32.store (i32.const 65536) (i32.const -1))".to_owned();
            tool(&on_call(&(bad + &answers("(i32.const 65536)", "(i32.const 4)"))), "")
        },
        |_| tool(&answers_long(1, 4), ""),
    ),
    killed(
        "components/result-of-another-case",
        "a result whose tag is none of the two",
        "trap",
        |_| {
            tool(
                &on_call(&format!("(i32.store8 (i32.const {RESULT}) (i32.const 7))")),
                "",
            )
        },
        |_| {
            tool(
                &on_call(&format!("(i32.store8 (i32.const {RESULT}) (i32.const 0))")),
                "",
            )
        },
    ),
    killed(
        "components/long-error",
        "an error message of 2 MB",
        "limit_output",
        |_| tool(&fails_long(2_000_000), ""),
        |_| tool(&answers_long(40, 100_000), ""),
    ),
    killed(
        "components/large-host-call",
        "20 MB handed to the host in one call",
        "limit_host_call",
        |_| tool(&shows(20_000_000, 1), ""),
        |_| tool(&shows(1_000_000, 1), ""),
    ),
    killed(
        "components/million-strings",
        "a list of a million strings handed to the host",
        "limit_host_call",
        |_| tool(&arguments(1_000_000), "process = true"),
        |_| tool(&arguments(1), "process = true"),
    ),
    killed(
        "components/hundred-million-strings",
        "a list of a hundred million strings, of which the memory has none",
        "trap",
        |_| tool(&arguments(100_000_000), "process = true"),
        |_| tool(&arguments(1), "process = true"),
    )
    .differing(),
    killed(
        "components/flood-of-live-output",
        "60 MB of live output",
        "limit_live_output",
        |_| tool(&shows(60_000, 1000), ""),
        |_| tool(&shows(60_000, 10), ""),
    ),
    killed(
        "components/million-log-lines",
        "a million lines in the log",
        "limit_live_output",
        |_| tool(&logs(1_000_000, 20), ""),
        |_| tool(&logs(10, 20), ""),
    ),
    killed(
        "components/million-empty-log-lines",
        "a million lines in the log that have no text to count",
        "limit_live_output",
        |_| tool(&logs(1_000_000, 0), ""),
        |_| tool(&logs(10, 0), ""),
    ),
    killed(
        "components/random-bytes",
        "4 GiB of random bytes in one call",
        "trap",
        |_| tool(&random(RANDOM, 4 << 30), ""),
        |_| tool(&random(RANDOM, 1000), ""),
    ),
    killed(
        "components/insecure-random-bytes",
        "4 GiB of random bytes of the cheap kind in one call",
        "trap",
        |_| tool(&random(INSECURE, 4 << 30), ""),
        |_| tool(&random(INSECURE, 1000), ""),
    ),
    killed(
        "components/zeroes-to-stdout",
        "an exabyte of zeroes to standard output, which the host would have to make first",
        "trap",
        |_| tool(&zeroes(1 << 60), ""),
        |_| tool(&zeroes(1000), ""),
    ),
    killed(
        "components/handles-of-the-host",
        "100,000 pollables that are never dropped",
        "limit_handles",
        |_| tool(&pollables(100_000), ""),
        |_| tool(&pollables(1000), ""),
    ),
    killed(
        "components/handles-of-its-own",
        "100,000 resources of the component's own, which are in no table of the host's",
        "limit_handles",
        |_| tool(&own_resources(100_000), ""),
        |_| tool(&own_resources(1000), ""),
    ),
    killed(
        "components/open-files",
        "a folder opened 1,000 times",
        "limit_open_files",
        |_| tool(&opens(1000), "workspace = \"read\""),
        |_| tool(&opens(100), "workspace = \"read\""),
    )
    .differing(),
    killed(
        "components/open-listings",
        "a folder listed 1,000 times at a time",
        "limit_open_files",
        |_| tool(&lists(1000), "workspace = \"read\""),
        |_| tool(&lists(100), "workspace = \"read\""),
    ),
    component(
        "components/state-after-a-crash",
        "a crash after a write to memory, and then the memory of the earlier call",
        |_| {
            Ok(tool(&counts(), "")?
                .calling(json!({ "crash": true }))
                .calling(json!({})))
        },
        |_| tool(&counts(), ""),
    )
    .differing()
    .expect(Expect::Answers("1")),
];
