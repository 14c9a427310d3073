//! Strings in the encodings that few components use, and components beside components: code of wasmtime's that moves
//! values from one memory to another, and that had holes in 2026.

use support::guest::{Function, Guest, Import, grow_memory};

use super::{Make, killed, on_call, tool};
use crate::attack::Attack;

/// A call that traps: its pointers are wrong, and nothing is read or written behind the end of a memory.
const fn traps(id: &'static str, what: &'static str, hostile: Make, harmless: Make) -> Attack {
    killed(id, what, "trap", hostile, harmless)
}

const PROGRESS: &str =
    r#"(import "plue:tool/progress@1.0.0" (instance $progress (export "output" (func (param "text" string)))))"#;

const UTF16: Import = Import {
    text: PROGRESS,
    functions: &[(
        "show",
        Function::Encoded("progress", "output", "(param i32 i32)", "utf16"),
    )],
};

const LATIN1: Import = Import {
    text: PROGRESS,
    functions: &[(
        "show",
        Function::Encoded("progress", "output", "(param i32 i32)", "latin1+utf16"),
    )],
};

/// The bit of a length that says that the text is UTF-16 after all.
const TAG: u32 = 1 << 31;
/// The end of the memory.
const END: &str = "(i32.mul (memory.size) (i32.const 65536))";

/// Hands the host a text at this place.
fn shows(import: Import, at: &str, length: u32) -> Guest {
    on_call(&format!("(call $show {at} (i32.const {length}))")).importing(import)
}

/// So many bytes before the end of the memory.
fn before_the_end(bytes: u32) -> String {
    format!("(i32.sub {END} (i32.const {bytes}))")
}

/// The import of a function of the component beside the guest, with strings as the guest has them.
macro_rules! beside {
    ($encoding:literal) => {
        Import {
            text: r#"(import "beside" (instance $within (export "take" (func (param "text" string)))))"#,
            functions: &[(
                "show",
                Function::Encoded("within", "take", "(param i32 i32)", $encoding),
            )],
        }
    };
}

/// With a component beside it that takes texts in this encoding, and gives them room at this place.
fn beside(guest: Guest, encoding: &str, room: u32) -> Guest {
    let beside = format!(
        r#"(component $beside
    (core module $m
      (memory (export "memory") 1)
      (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const {room}))
      (func (export "take") (param i32 i32)))
    (core instance $i (instantiate $m))
    (alias core export $i "memory" (core memory $memory))
    (alias core export $i "realloc" (core func $realloc))
    (func (export "take") (param "text" string)
      (canon lift (core func $i "take") (memory $memory) (realloc (core func $realloc)) string-encoding={encoding})))"#
    );
    Guest { beside, ..guest }
}

/// Two characters that no Latin-1 has, in UTF-16.
fn shows_wide() -> Guest {
    let store = "(i32.store (i32.const 0x8000) (i32.const 0x20ac20ac))";
    on_call(&format!("{store} (call $show (i32.const 0x8000) (i32.const 2))")).importing(beside!("utf16"))
}

/// A component of two: one has a resource, and the other takes a list of borrowed handles of it and keeps them all.
const BORROWER: &str = r#"(component $beside
    (component $owner
      (type $own (resource (rep i32)))
      (core func $new (canon resource.new $own))
      (core module $m
        (import "own" "new" (func $new (param i32) (result i32)))
        (func (export "make") (result i32) (call $new (i32.const 7))))
      (core instance $i (instantiate $m (with "own" (instance (export "new" (func $new))))))
      (export $r "r" (type $own))
      (func (export "make") (result (own $r)) (canon lift (core func $i "make"))))
    (instance $owner (instantiate $owner))
    (alias export $owner "r" (type $r))
    (component $taker
      (import "r" (type $r (sub resource)))
      (core module $m
        (memory (export "memory") 100)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
        (func (export "take") (param i32 i32)))
      (core instance $i (instantiate $m))
      (alias core export $i "memory" (core memory $memory))
      (alias core export $i "realloc" (core func $realloc))
      (func (export "take") (param "many" (list (borrow $r)))
        (canon lift (core func $i "take") (memory $memory) (realloc (core func $realloc)))))
    (instance $taker (instantiate $taker (with "r" (type $r))))
    (export $lent "r" (type $r))
    (export "make" (func $owner "make") (func (result (own $lent))))
    (export "take" (func $taker "take") (func (param "many" (list (borrow $lent))))))"#;

const BORROWS: Import = Import {
    text: r#"(import "beside" (instance $within
      (export "r" (type $r (sub resource)))
      (export "make" (func (result (own $r))))
      (export "take" (func (param "many" (list (borrow $r)))))))"#,
    functions: &[
        ("make", Function::Lowered("within", "make", "(result i32)")),
        ("take", Function::Lowered("within", "take", "(param i32 i32)")),
    ],
};

/// Lends one handle so many times in one call.
fn lends(count: u32) -> Guest {
    let lend = format!(
        "(local.set $b (call $make))
         (loop $fill
           (i32.store (i32.add (i32.const 262144) (i32.mul (local.get $a) (i32.const 4))) (local.get $b))
           (local.set $a (i32.add (local.get $a) (i32.const 1)))
           (br_if $fill (i32.lt_u (local.get $a) (i32.const {count}))))
         (call $take (i32.const 262144) (i32.const {count}))"
    );
    let guest = on_call(&(grow_memory(100) + &lend)).importing(BORROWS);
    Guest {
        beside: BORROWER.to_owned(),
        ..guest
    }
}

pub const ATTACKS: &[Attack] = &[
    killed(
        "components/million-borrows",
        "a million handles lent from one component to another, which gives none back (GHSA-6fr9-xmw9-5352)",
        "limit_handles",
        |_| tool(&lends(1_000_000), ""),
        |_| tool(&lends(0), ""),
    ),
    traps(
        "components/borrows-that-are-kept",
        "borrowed handles that the component beside keeps when its call is over",
        |_| tool(&lends(10), ""),
        |_| tool(&lends(0), ""),
    ),
    traps(
        "components/utf16-at-an-odd-address",
        "a UTF-16 text that begins at an odd address (RUSTSEC-2026-0091)",
        |_| tool(&shows(UTF16, "(i32.const 4097)", 4), ""),
        |_| tool(&shows(UTF16, "(i32.const 4096)", 4), ""),
    ),
    traps(
        "components/utf16-over-the-end",
        "a UTF-16 text of which the second half lies behind the end of the memory (RUSTSEC-2026-0091)",
        |_| tool(&shows(UTF16, &before_the_end(4), 4), ""),
        |_| tool(&shows(UTF16, &before_the_end(4), 2), ""),
    ),
    traps(
        "components/utf16-whose-length-overflows",
        "a UTF-16 text of so many units that twice that is nothing in 32 bits (RUSTSEC-2026-0091)",
        |_| tool(&shows(UTF16, "(i32.const 4096)", TAG), ""),
        |_| tool(&shows(UTF16, "(i32.const 4096)", 0), ""),
    ),
    traps(
        "components/utf16-of-half-a-character",
        "a UTF-16 text that ends in the first half of a pair",
        |_| {
            let half = "(i32.store16 (i32.const 0x8000) (i32.const 0xd800))";
            let show = "(call $show (i32.const 0x8000) (i32.const 1))";
            tool(&on_call(&format!("{half} {show}")).importing(UTF16), "")
        },
        |_| tool(&shows(UTF16, "(i32.const 0x8000)", 1), ""),
    ),
    traps(
        "components/latin1-that-is-utf16-at-an-odd-address",
        "a text that is Latin-1 by its type and UTF-16 by its length, at an odd address (RUSTSEC-2026-0092)",
        |_| tool(&shows(LATIN1, "(i32.const 4097)", TAG | 4), ""),
        |_| tool(&shows(LATIN1, "(i32.const 4096)", TAG | 4), ""),
    ),
    traps(
        "components/latin1-that-is-utf16-over-the-end",
        "the same at the end of the memory, where Latin-1 would fit and UTF-16 does not (RUSTSEC-2026-0092)",
        |_| tool(&shows(LATIN1, &before_the_end(4), TAG | 4), ""),
        |_| tool(&shows(LATIN1, &before_the_end(4), 4), ""),
    ),
    traps(
        "components/text-into-a-component-over-the-end",
        "a text for a component beside it, which gives it room that ends behind its memory (RUSTSEC-2026-0093)",
        |_| {
            let guest = shows(beside!("utf8"), "(i32.const 4096)", 7);
            tool(&beside(guest, "utf16", 65_534), "")
        },
        |_| {
            let guest = shows(beside!("utf8"), "(i32.const 4096)", 7);
            tool(&beside(guest, "utf16", 1024), "")
        },
    ),
    traps(
        "components/text-into-a-component-at-an-odd-address",
        "a text for a component beside it, which gives it room at an odd address (RUSTSEC-2026-0093)",
        |_| {
            let guest = shows(beside!("utf8"), "(i32.const 4096)", 7);
            tool(&beside(guest, "utf16", 1025), "")
        },
        |_| {
            let guest = shows(beside!("utf8"), "(i32.const 4096)", 7);
            tool(&beside(guest, "utf8", 1025), "")
        },
    ),
    traps(
        "components/wide-text-into-a-narrow-component",
        "a UTF-16 text for a component beside it that takes Latin-1 and gives it room at the end (RUSTSEC-2026-0093)",
        |_| tool(&beside(shows_wide(), "latin1+utf16", 65_534), ""),
        |_| tool(&beside(shows_wide(), "latin1+utf16", 1024), ""),
    ),
    traps(
        "components/text-from-a-component-over-the-end",
        "a text for a component beside it that begins before the end of the memory and goes on behind it \
            (RUSTSEC-2026-0093)",
        |_| {
            let guest = shows(beside!("utf16"), &before_the_end(4), 4);
            tool(&beside(guest, "utf8", 1024), "")
        },
        |_| {
            let guest = shows(beside!("utf16"), &before_the_end(4), 2);
            tool(&beside(guest, "utf8", 1024), "")
        },
    ),
];
