//! Ways out of a command by processes and system calls.

use std::fs;

use plue_sandbox::mutation::Protection;

use crate::attack::{Attack, Class};
use crate::target::{Outcome, Target};

mod keeper;
mod kernel;
mod lifetime;
mod limits;
mod orphans;
mod others;
mod planted;
mod privileges;
mod uncounted;

pub const ATTACKS: &[&[Attack]] = &[
    others::ATTACKS,
    keeper::ATTACKS,
    privileges::ATTACKS,
    kernel::ATTACKS,
    lifetime::ATTACKS,
    orphans::ATTACKS,
    limits::ATTACKS,
    uncounted::ATTACKS,
    planted::ATTACKS,
];

const fn program(id: &'static str, what: &'static str, run: fn(&Target) -> Outcome) -> Attack {
    Attack::program(id, Class::Processes, what, run)
}

/// Without these together, a command may do what namespaces of its own allow it.
const CONFINED: &[Protection] = &[Protection::Seccomp, Protection::Privileges];

/// Whether this is gVisor, by what only it tells.
fn is_gvisor() -> bool {
    std::path::Path::new("/proc/sentry-meminfo").exists()
}

/// Every process that is in sight, but this one.
fn in_sight() -> Vec<i32> {
    let own = std::process::id().cast_signed();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own)
        .collect()
}

/// Whether a number stands for the process outside that it is said to be. Inside of the sandbox it may stand for
/// another.
fn is_outside(pid: i32) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let parts: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
    let ends = |wanted: &[u8]| parts.first().is_some_and(|program| program.ends_with(wanted));
    ends(b"plue-escape") && parts.get(1) == Some(&&b"bystander"[..])
        || ends(b"plue-runner") && parts.get(1).is_none_or(|part| part.is_empty())
}

/// Does something to the bystander, or to the runner, when it is in sight.
fn to_the_outside(pid: i32, what: &str, action: impl FnOnce() -> std::io::Result<()>) -> Outcome {
    match action() {
        Ok(()) if is_outside(pid) => Outcome::GotThrough(format!("{what} succeeded")),
        Ok(()) => Outcome::held(format!("{what} reached another process, and not one of the outside")),
        Err(error) => Outcome::refused(what, &error),
    }
}
