//! A component that may run commands, and what it may learn by where it asks to run them.

use anyhow::Result;
use support::guest::{PROCESS, RESULT, SCRATCH, answers};

use super::filesystem::inside;
use super::limits::with_items;
use super::{Make, component, tool};
use crate::attack::{Attack, Expect, Plugin};

/// What `start-error` calls a folder outside.
const DENIED: &str = "2";

/// Starts `true` in this folder, and answers with the case of the error as a digit; it fails when there is none.
fn starts_in(folder: &str) -> Result<Plugin> {
    let (text, argument, result) = (0x8000, SCRATCH, SCRATCH + 16);
    let items = format!("(data (i32.const {text}) \"true{folder}\")");
    let start = format!(
        "(i32.store (i32.const {argument}) (i32.const {text})) (i32.store offset=4 (i32.const {argument}) (i32.const 4))
         (call $start (i32.const {argument}) (i32.const 1) (i32.const {}) (i32.const {}) (i64.const 1000)
           (i32.const {result}))
         (if (i32.load8_u (i32.const {result})) (then
           (i32.store8 (i32.const {text}) (i32.add (i32.const 48) (i32.load8_u offset=4 (i32.const {result}))))
           {})
           (else (i32.store8 (i32.const {RESULT}) (i32.const 0))))",
        text + 4,
        folder.len(),
        answers(&format!("(i32.const {text})"), "(i32.const 1)"),
    );
    tool(&with_items(&items, &start).importing(PROCESS), "process = true")
}

/// Whatever is there or not: the answer is that the folder is outside.
const fn says_outside(id: &'static str, what: &'static str, hostile: Make) -> Attack {
    component(id, what, hostile, |_| starts_in("folder"))
        .setup(inside)
        .expect(Expect::Answers(DENIED))
        .differing()
}

pub const ATTACKS: &[Attack] = &[
    says_outside(
        "components/command-outside",
        "a command in the workspace's parent, by a link to it",
        |scene| {
            scene.link("up", "..")?;
            starts_in("up")
        },
    ),
    says_outside(
        "components/command-in-a-folder-that-is-not-there",
        "a command in a folder outside that is not there, by a link: the answer tells whether it is",
        |scene| {
            scene.link("up", "..")?;
            starts_in("up/there-is-no-such-folder")
        },
    ),
    says_outside(
        "components/command-by-a-dangling-link",
        "a command in what a link names that leads outside to nothing",
        |scene| {
            scene.link("gone", "../there-is-no-such-folder")?;
            starts_in("gone")
        },
    ),
    says_outside(
        "components/command-in-a-file-outside",
        "a command in a file outside: the answer tells that it is no folder",
        |scene| {
            scene.link("up", "..")?;
            starts_in("up/secret.txt/x")
        },
    ),
];
