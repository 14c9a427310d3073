//! What a command does to the processes that keep it: the sandbox's own, which are of the same user.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::limits::{FEW_PROCESSES, LITTLE_MEMORY, MUCH, held_for, sleeps};
use super::{CONFINED, program};
use crate::attack::{Attack, Baseline, Expect};
use crate::sys;
use crate::target::{Outcome, Target};

/// What the sandbox calls its processes.
const NAME: &[u8] = b"plue-sandbox";

fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

/// Who keeps the command: the sandbox's processes above it, without the first of all, which no signal ends. In a
/// baseline the stand-in outside.
fn keepers(target: &Target) -> Vec<i32> {
    if target.baseline {
        return vec![target.bystander];
    }
    let mut found = Vec::new();
    let mut pid = std::os::unix::process::parent_id().cast_signed();
    while pid > 1 {
        if fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(NAME)) {
            found.push(pid);
        }
        pid = parent_of(pid).unwrap_or(0);
    }
    found
}

/// Does something to each keeper, and then what only a keeper would prevent. The first success is enough.
fn to_the_keepers(
    target: &Target,
    what: &str,
    action: impl Fn(i32) -> io::Result<()>,
    then: impl FnOnce() -> Outcome,
) -> Outcome {
    let mut last = Outcome::held("nobody is in sight who keeps the command");
    let mut done = false;
    for keeper in keepers(target) {
        match action(keeper) {
            Ok(()) => done = true,
            Err(error) => last = Outcome::refused(what, &error),
        }
    }
    match done {
        true if target.baseline => Outcome::GotThrough(format!("{what} succeeded")),
        true => then(),
        false => last,
    }
}

/// Stops who keeps the command, does something, and lets the keepers go on, so that the run comes to its end.
fn behind_their_backs(target: &Target, then: impl FnOnce() -> Outcome) -> Outcome {
    // The stand-in of a baseline notices every signal: whether one may be sent is enough.
    let stop = if target.baseline { 0 } else { libc::SIGSTOP };
    to_the_keepers(
        target,
        "a signal to who keeps the command",
        |keeper| sys::kill(keeper, stop),
        || {
            let outcome = then();
            for keeper in keepers(target) {
                let _ = sys::kill(keeper, libc::SIGCONT);
            }
            outcome
        },
    )
}

fn survives(time: Duration, what: &str) -> Outcome {
    std::thread::sleep(time);
    Outcome::GotThrough(format!("the command went on for {} s {what}", time.as_secs()))
}

/// Takes more memory than the command may, and lives to tell.
fn eats(what: &str) -> Outcome {
    let taken = vec![7_u8; MUCH];
    std::thread::sleep(held_for());
    std::hint::black_box(&taken);
    Outcome::GotThrough(format!("{} MiB were taken {what}", MUCH >> 20))
}

/// Starts more processes than the command may, and lives to tell.
fn multiplies(what: &str) -> Outcome {
    match sys::in_children(100, sleeps) {
        Ok(()) => Outcome::GotThrough(format!("100 processes ran {what}")),
        Err(error) => Outcome::refused("fork", &error),
    }
}

/// It ends with the process that kept it.
const fn losing(id: &'static str, what: &'static str, run: fn(&Target) -> Outcome) -> Attack {
    program(id, what, run).expect(Expect::LosesItsKeeper)
}

const fn harmless(id: &'static str, what: &'static str, run: fn(&Target) -> Outcome) -> Attack {
    program(id, what, run).expect(Expect::Harmless)
}

/// Changes something of the keepers that would stay so for every later command.
const fn changed(id: &'static str, what: &'static str, run: fn(&Target) -> Outcome) -> Attack {
    program(id, what, run).baseline(Baseline::Unless(
        &[libc::EPERM, libc::ENOSYS],
        "nobody may change another's here",
    ))
}

pub const ATTACKS: &[Attack] = &[
    losing(
        "processes/kill-the-parent",
        "kills the process that keeps the command, and goes on without it",
        |target| {
            let signal = if target.baseline { 0 } else { libc::SIGKILL };
            to_the_keepers(
                target,
                "a signal to who keeps the command",
                |keeper| sys::kill(keeper, signal),
                || survives(Duration::from_secs(2), "after its keeper was killed"),
            )
        },
    )
    .seconds(5),
    losing(
        "processes/stop-the-parent",
        "stops the process that keeps the command, and goes on past its deadline",
        |target| {
            behind_their_backs(target, || {
                survives(Duration::from_secs(5), "of which it had two: its keeper was stopped")
            })
        },
    )
    .seconds(2),
    losing(
        "processes/stop-the-parent-and-take-memory",
        "stops the process that keeps the command, and takes more memory than it may",
        |target| behind_their_backs(target, || eats("while the keeper was stopped")),
    )
    .env(LITTLE_MEMORY),
    losing(
        "processes/stop-the-parent-and-multiply",
        "stops the process that keeps the command, and starts more processes than it may",
        |target| behind_their_backs(target, || multiplies("while the keeper was stopped")),
    )
    .env(FEW_PROCESSES),
    harmless(
        "processes/limits-of-the-parent",
        "takes the descriptors from the process that keeps the command, which then cannot look into /proc",
        |target| {
            let forbid = if target.baseline {
                sys::lower_core_limit
            } else {
                sys::forbid_descriptors
            };
            to_the_keepers(target, "prlimit", forbid, || {
                eats("after the keeper could open no file any more")
            })
        },
    )
    .env(LITTLE_MEMORY)
    .baseline(Baseline::Unless(
        &[libc::EPERM],
        "nobody may change another's limits here",
    )),
    changed(
        "processes/scheduling-of-the-parent",
        "lets the process that keeps the command run only when nobody else wants to",
        |target| {
            to_the_keepers(target, "sched_setscheduler", sys::make_idle, || {
                Outcome::GotThrough("the keeper is idle, for this command and all later ones".to_owned())
            })
        },
    )
    .baseline(Baseline::Unless(
        &[libc::EPERM, libc::ENOSYS, libc::EINVAL],
        "nobody may change another's here, or this kernel has no such class",
    )),
    changed(
        "processes/processors-of-the-parent",
        "binds the process that keeps the command to a processor that it keeps busy",
        |target| {
            to_the_keepers(target, "sched_setaffinity", sys::bind_to_a_processor, || {
                Outcome::GotThrough("the keeper is bound, for this command and all later ones".to_owned())
            })
        },
    ),
    changed(
        "processes/priority-of-the-parent",
        "gives the process that keeps the command the lowest priority",
        |target| {
            to_the_keepers(target, "setpriority", sys::be_nice, || {
                Outcome::GotThrough("the keeper is slow, for this command and all later ones".to_owned())
            })
        },
    ),
    program(
        "processes/umount-proc",
        "takes the sandbox's own /proc away, under which that of the machine lies",
        |_| match sys::umount(Path::new("/proc"), libc::MNT_DETACH) {
            Err(error) => Outcome::refused("umount", &error),
            Ok(()) => Outcome::GotThrough(format!(
                "/proc is gone, and there is now: {:?}",
                fs::read_dir("/proc").map(Iterator::count)
            )),
        },
    )
    .baseline(Baseline::InNamespacesUnless(
        &[libc::EINVAL, libc::EPERM],
        "mounts are locked together here",
    ))
    .falls_without(CONFINED),
    program(
        "processes/memory-of-the-sandbox",
        "opens the memory of the sandbox's own processes for writing",
        |target| {
            let mut wanted = keepers(target);
            wanted.push(1);
            let tries = wanted.into_iter().map(|pid| {
                let path = format!("/proc/{pid}/mem");
                Outcome::of(
                    "opening it for writing",
                    fs::File::options().read(true).write(true).open(path),
                )
            });
            Outcome::any(tries)
        },
    )
    .baseline(Baseline::Unless(
        &[libc::EPERM, libc::EACCES],
        "this kernel lets nobody look into a process that is not its child",
    )),
    program(
        "processes/trace-the-sandbox",
        "traces the sandbox's own processes, in which nothing would hold it",
        |target| {
            let mut wanted = keepers(target);
            wanted.extend((!target.baseline).then_some(1));
            Outcome::any(
                wanted
                    .into_iter()
                    .map(|pid| Outcome::of("PTRACE_SEIZE", sys::ptrace_seize(pid))),
            )
        },
    )
    .baseline(Baseline::Unless(
        &[libc::ENOSYS, libc::EPERM, libc::EIO],
        "nobody may trace another here",
    )),
    program(
        "processes/trace-what-the-sandbox-starts",
        "waits for a moment in which what the sandbox starts next can be traced as itself",
        |target| {
            if target.baseline {
                // Its own parent: a process of the same command.
                let parent = std::os::unix::process::parent_id().cast_signed();
                return Outcome::of("PTRACE_SEIZE of a parent", sys::in_child(|| sys::ptrace_seize(parent)));
            }
            let end = std::time::Instant::now() + Duration::from_millis(300);
            while std::time::Instant::now() < end {
                for keeper in keepers(target) {
                    if sys::ptrace_seize(keeper).is_ok() {
                        return Outcome::GotThrough(format!("process {keeper} was traced"));
                    }
                }
            }
            Outcome::held("the keepers cannot be traced at any moment")
        },
    )
    .baseline(Baseline::Unless(
        &[libc::ENOSYS, libc::EPERM, libc::EIO],
        "nobody may trace another here",
    )),
    program(
        "processes/descriptors-of-the-sandbox",
        "takes the sandbox's socket to the runner",
        |target| {
            let mut wanted = keepers(target);
            wanted.push(1);
            let tries = wanted
                .into_iter()
                .flat_map(|pid| (0..12).map(move |fd| Outcome::of("pidfd_getfd", sys::pidfd_getfd(pid, fd))));
            Outcome::any(tries)
        },
    )
    .baseline(Baseline::Unless(
        &[libc::ENOSYS, libc::EPERM],
        "nobody may take a descriptor here",
    )),
];
