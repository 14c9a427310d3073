//! What the advisories on wasmtime of 2026 describe, as far as it is no attack of another chapter.

use std::fs;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde_json::json;
use support::guest::filesystem::{Calls, DIRECTORY, FOLLOW, NO_FOLLOW, READ, ROOT, WRITE};
use support::guest::{Function, Guest, Import, SCRATCH, answers, forever, grow_memory, unknown_import};

use super::filesystem::{inside, plugin as filesystem};
use super::limits::{SHORT, times, with_items};
use super::{Make, component, good, killed, on_call, refused, tool};
use crate::attack::{Attack, Expect, Plugin};
use crate::scene::Scene;

/// The kind of a file, as `descriptor-type` counts them.
const SYMBOLIC_LINK: &str = "5";

/// More nanoseconds than a second has.
const TOO_MANY: u32 = 1_000_000_000;

fn write(calls: Calls) -> Result<Plugin> {
    filesystem(calls, "read-write")
}

/// Refused by the file system in some way; the host goes on.
const fn fails(id: &'static str, what: &'static str, hostile: Make, harmless: Make) -> Attack {
    component(id, what, hostile, harmless)
        .setup(inside)
        .expect(Expect::Denied(&["denied", "failed"]))
        .differing()
}

/// A link to a folder outside, and calls that must not follow it, whatever stands behind its name.
fn with_a_way_out(scene: &Scene, calls: Calls) -> Result<Plugin> {
    scene.link("out", "../folder")?;
    write(calls)
}

fn opened() -> Calls {
    Calls::new().open(ROOT, "inside.txt", NO_FOLLOW, 0, READ | WRITE)
}

/// Standard error, in place of standard output.
const ZEROES: Import = Import {
    text: r#"(import "wasi:io/error@0.2.6" (instance $io-error (export "error" (type (sub resource)))))
    (alias export $io-error "error" (type $io-error-type))
    (import "wasi:io/streams@0.2.6" (instance $streams
      (alias outer 1 $io-error-type (type $error'))
      (export "error" (type $error (eq $error')))
      (export "output-stream" (type $output (sub resource)))
      (type $stream-error' (variant (case "last-operation-failed" (own $error)) (case "closed")))
      (export "stream-error" (type $stream-error (eq $stream-error')))
      (export "[method]output-stream.blocking-write-zeroes-and-flush" (func (param "self" (borrow $output))
        (param "len" u64) (result (result (error $stream-error)))))))
    (alias export $streams "output-stream" (type $output-stream))
    (import "wasi:cli/stderr@0.2.6" (instance $stderr
      (alias outer 1 $output-stream (type $output'))
      (export "output-stream" (type $output (eq $output')))
      (export "get-stderr" (func (result (own $output))))))"#,
    functions: &[
        ("stderr", Function::Lowered("stderr", "get-stderr", "(result i32)")),
        (
            "zeroes",
            Function::Lowered(
                "streams",
                "[method]output-stream.blocking-write-zeroes-and-flush",
                "(param i32 i64 i32)",
            ),
        ),
    ],
};

fn zeroes(count: u64) -> Guest {
    on_call(&format!(
        "(call $zeroes (call $stderr) (i64.const {count}) (i32.const {SCRATCH}))"
    ))
    .importing(ZEROES)
}

/// A table, and 1,000 functions for it.
fn functions(code: &str) -> Guest {
    let functions = "$f ".repeat(1000);
    with_items(
        &format!("(func $f) (table $t 1000 funcref) (elem $e func {functions})"),
        code,
    )
}

/// Without an argument it fills its memory and its table; with one it answers whether anything of that is there.
fn looks_for_what_was() -> Guest {
    let items = r#"(func $f) (elem declare func $f) (table $t 1 funcref)
        (data (i32.const 0x8000) "cleandirty")"#;
    let grow = format!(
        "(local.set $a (i32.mul (memory.size) (i32.const 65536))) {} (drop (table.grow $t (ref.null func) (i32.const \
            999)))",
        grow_memory(100)
    );
    let fill = "(memory.fill (local.get $a) (i32.const 0x5a) (i32.const 6553600))
        (table.fill $t (i32.const 0) (ref.func $f) (i32.const 1000))";
    let scan = format!(
        "(local.set $b (i32.const 0))
         (loop $memory
           (if (i64.ne (i64.load (local.get $a)) (i64.const 0)) (then (local.set $b (i32.const 1))))
           (local.set $a (i32.add (local.get $a) (i32.const 8)))
           (br_if $memory (i32.lt_u (local.get $a) (i32.mul (memory.size) (i32.const 65536)))))
         (local.set $a (i32.const 0))
         (loop $table
           (if (i32.eqz (ref.is_null (table.get $t (local.get $a)))) (then (local.set $b (i32.const 1))))
           (local.set $a (i32.add (local.get $a) (i32.const 1)))
           (br_if $table (i32.lt_u (local.get $a) (i32.const 1000))))
         (if (local.get $b) (then {}) (else {}))",
        answers("(i32.const 0x8005)", "(i32.const 5)"),
        answers("(i32.const 0x8000)", "(i32.const 5)"),
    );
    with_items(
        items,
        &format!("{grow} (if (i32.gt_u (local.get $length) (i32.const 2)) (then {scan}) (else {fill}))"),
    )
}

pub const ATTACKS: &[Attack] = &[
    fails(
        "components/times-that-are-none",
        "set_times to the end of 64 bits and more nanoseconds than a second has (RUSTSEC-2026-0314, \
            GHSA-j2g9-4prp-pf6h)",
        |_| write(opened().set_times_to(1, u64::MAX, TOO_MANY)),
        |_| write(opened().set_times_to(1, 1_000_000_000, TOO_MANY - 1)),
    ),
    fails(
        "components/seconds-that-are-none",
        "set_times to the end of 64 bits (RUSTSEC-2026-0314, GHSA-j2g9-4prp-pf6h)",
        |_| write(opened().set_times_to(1, u64::MAX, 0)),
        |_| write(opened().set_times_to(1, 1_000_000_000, 0)),
    ),
    fails(
        "components/times-of-a-path-that-are-none",
        "set_times_at to more nanoseconds than a second has (RUSTSEC-2026-0314, GHSA-j2g9-4prp-pf6h)",
        |_| write(Calls::new().set_times_at_to("inside.txt", u64::MAX, u32::MAX)),
        |_| write(Calls::new().set_times_at_to("inside.txt", 1_000_000_000, 0)),
    ),
    component(
        "components/stat-before-1970",
        "stat_at of a file that was changed before 1970, whose time fits in no u64 (RUSTSEC-2026-0324)",
        |scene| {
            let file = fs::File::options()
                .write(true)
                .open(scene.workspace.join("inside.txt"))?;
            let time = SystemTime::UNIX_EPOCH - Duration::new(2_000_000_000, 5);
            file.set_modified(time).context("set a time before 1970")?;
            write(Calls::new().stat("inside.txt", NO_FOLLOW))
        },
        |_| write(Calls::new().stat("inside.txt", NO_FOLLOW)),
    )
    .setup(inside)
    .expect(Expect::Contained),
    fails(
        "components/open-with-every-flag",
        "open_at with all flags that 32 bits hold (RUSTSEC-2026-0085, GHSA-m758-wjhj-p3jq)",
        |_| write(Calls::new().open(ROOT, "made", u32::MAX, u32::MAX, u32::MAX)),
        |_| write(Calls::new().open(ROOT, "inside.txt", FOLLOW, 0, READ)),
    )
    .expect(Expect::Denied(&["denied", "failed", "trap"])),
    refused(
        "components/table-as-large-as-can-be",
        "a table that is declared with 2^32-1 elements (RUSTSEC-2026-0114, GHSA-p8xm-42r7-89xg)",
        "exceeds the limit",
        |_| tool(&with_items("(table 4294967295 funcref)", ""), ""),
        |_| tool(&with_items("(table 1000 funcref)", ""), ""),
    ),
    killed(
        "components/endless-fill",
        "memory.fill for ever, in each of which no interruption is looked for (RUSTSEC-2026-0223, GHSA-2hw9-mc66-jc2q)",
        "timeout",
        |_| {
            let fill = "(memory.fill (i32.const 0) (i32.const 7) (i32.const 6553600))";
            tool(&on_call(&(grow_memory(100) + &forever(fill))), SHORT)
        },
        |_| {
            let fill = "(memory.fill (i32.const 65536) (i32.const 7) (i32.const 6553600))";
            tool(&on_call(&(grow_memory(100) + &times(10, fill))), SHORT)
        },
    ),
    killed(
        "components/endless-table-init",
        "table.init for ever (RUSTSEC-2026-0223, GHSA-2hw9-mc66-jc2q)",
        "timeout",
        |_| {
            let init = "(table.init $t $e (i32.const 0) (i32.const 0) (i32.const 1000))";
            tool(&functions(&forever(init)), SHORT)
        },
        |_| {
            let init = "(table.init $t $e (i32.const 0) (i32.const 0) (i32.const 1000))";
            tool(&functions(&times(10, init)), SHORT)
        },
    ),
    component(
        "components/memory-of-an-earlier-call",
        "fills memory and table, and looks in all of the next call's for it (RUSTSEC-2026-0088, GHSA-6wgr-89rj-399p)",
        |_| Ok(tool(&looks_for_what_was(), "")?.calling(json!({ "look": true }))),
        |_| tool(&looks_for_what_was(), ""),
    )
    .differing()
    .expect(Expect::Answers("clean")),
    killed(
        "components/zeroes-to-stderr",
        "an exabyte of zeroes to standard error, flushed at once (RUSTSEC-2026-0322)",
        "trap",
        |_| tool(&zeroes(1 << 60), ""),
        |_| tool(&zeroes(1000), ""),
    ),
    refused(
        "components/import-of-the-next-wasi",
        "an import of WASI 0.3, whose streams nothing here bounds",
        "(no grant gives it)",
        |_| tool(&good().importing(unknown_import("wasi:cli/stdout@0.3.0")), ""),
        |_| tool(&zeroes(10), ""),
    ),
    // RUSTSEC-2026-0269 (GHSA-vqjp-4c8c-hfgg) once more: each function that takes a path and does not follow a link.
    fails(
        "components/trailing-slash-rename",
        "rename_at of a link to a folder outside, with a `/` behind it (RUSTSEC-2026-0269)",
        |scene| with_a_way_out(scene, Calls::new().rename("out/", "stolen")),
        |_| write(Calls::new().rename("folder/", "renamed")),
    ),
    fails(
        "components/trailing-slash-rename-into",
        "rename_at of a folder over a link to a folder outside, with a `/` behind it (RUSTSEC-2026-0269)",
        |scene| {
            scene.link("out", "../folder/deeper")?;
            write(Calls::new().make_folder("empty").rename("empty", "out/"))
        },
        |_| write(Calls::new().make_folder("empty").rename("empty", "renamed/")),
    ),
    fails(
        "components/trailing-slash-unlink",
        "unlink_file_at of a link to a file outside, with a `/` behind it (RUSTSEC-2026-0269)",
        |scene| {
            scene.link("out", "../secret.txt")?;
            write(Calls::new().unlink("out/"))
        },
        |scene| {
            scene.link("out", "../secret.txt")?;
            write(Calls::new().unlink("out"))
        },
    ),
    fails(
        "components/trailing-slash-remove-folder",
        "remove_directory_at of a link to an empty folder outside, with a `/` behind it (RUSTSEC-2026-0269)",
        |scene| {
            scene.link("out", "../folder/deeper")?;
            write(Calls::new().remove_folder("out/"))
        },
        |_| write(Calls::new().make_folder("empty").remove_folder("empty")),
    ),
    fails(
        "components/trailing-slash-link",
        "link_at of a link to a file outside, with a `/` behind it (RUSTSEC-2026-0269)",
        |scene| {
            scene.link("out", "../secret.txt")?;
            write(Calls::new().link("out/", NO_FOLLOW, "made").read_at("made", FOLLOW))
        },
        |_| {
            write(
                Calls::new()
                    .link("inside.txt", NO_FOLLOW, "made")
                    .read_at("made", FOLLOW),
            )
        },
    ),
    component(
        "components/trailing-slash-stat",
        "stat_at of a link to a folder outside, with a `/` behind it: it may see the link alone (RUSTSEC-2026-0269)",
        |scene| with_a_way_out(scene, Calls::new().kind("out/", NO_FOLLOW)),
        |_| write(Calls::new().kind("folder/", NO_FOLLOW)),
    )
    .setup(inside)
    .expect(Expect::Answers(SYMBOLIC_LINK)),
    fails(
        "components/trailing-slash-times",
        "set_times_at of a link to a folder outside, with a `/` behind it (RUSTSEC-2026-0269)",
        |scene| with_a_way_out(scene, Calls::new().set_times_at("out/", NO_FOLLOW)),
        |_| write(Calls::new().set_times_at("folder/", NO_FOLLOW)),
    ),
    fails(
        "components/trailing-slash-open-for-listing",
        "open_at of a link to a folder outside, as a folder and with two `/` behind it (RUSTSEC-2026-0269)",
        |scene| with_a_way_out(scene, Calls::new().open(ROOT, "out//", NO_FOLLOW, DIRECTORY, READ)),
        |_| write(Calls::new().open(ROOT, "folder//", NO_FOLLOW, DIRECTORY, READ)),
    ),
];
