//! WebAssembly that no tool needs does not load: what is not compiled cannot be attacked.

use support::guest::Guest;

use crate::fixture::Fixture;

/// With these items and instructions, as a component needs them.
fn using(items: &str, call: &str) -> Guest {
    Guest {
        items: items.to_owned(),
        ..Guest::on_call("tool", call)
    }
}

#[test]
fn what_no_tool_needs_is_refused_when_the_plugin_is_loaded() {
    for (what, guest) in [
        // RUSTSEC-2026-0570: the call of a function by its supertype aborted the whole process.
        (
            "a call by a supertype",
            using(
                "(type $super (sub (func))) (type $sub (sub $super (func)))
                 (func $callee (type $sub)) (table $t 1 1 funcref) (elem (i32.const 0) $callee)",
                "(call_indirect $t (type $super) (i32.const 0))",
            ),
        ),
        (
            "a cast of a function",
            using(
                "(type $super (sub (func))) (type $sub (sub $super (func)))
                 (func $callee (type $sub)) (elem declare func $callee)",
                "(drop (ref.test (ref $super) (ref.func $callee)))",
            ),
        ),
        (
            "a structure",
            using("(type $s (struct (field i32)))", "(drop (struct.new_default $s))"),
        ),
        ("an exception", using("(tag $e)", "(throw $e)")),
        ("shared memory", using("(memory $s 1 1 shared)", "")),
        (
            "a wait for another thread",
            using(
                "",
                "(drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1)))",
            ),
        ),
        ("a memory of 64 bits", using("(memory $m i64 1)", "")),
    ] {
        let refusal = Fixture::with(&guest, "").refusal();
        assert!(refusal.contains("does not compile"), "{what}: {refusal}");
    }
}
