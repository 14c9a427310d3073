//! Commands that take more than their share.

use std::fs;
use std::io::{self, Write};
use std::time::Duration;

use plue_sandbox::mutation::Protection;

use super::{is_gvisor, program};
use crate::attack::{Attack, Baseline, Expect};
use crate::baseline::BASELINE;
use crate::sys;
use crate::target::{Outcome, Target};

/// What a command may use in these attacks, and what it takes: enough to be caught, little enough for any machine.
pub(super) const LITTLE_MEMORY: &[(&str, &str)] = &[("COMMAND_MEMORY", "96Mi")];
/// The same with little room in /tmp, which may be on a disk.
const LITTLE_TMP: &[(&str, &str)] = &[("COMMAND_MEMORY", "96Mi"), ("COMMAND_TMP_SIZE", "48Mi")];
pub(super) const FEW_PROCESSES: &[(&str, &str)] = &[("COMMAND_PROCESSES", "32")];
pub(super) const MUCH: usize = 320 << 20;

pub(super) const LITTLE_DEV_SHM: Baseline = Baseline::Unless(
    &[libc::ENOSPC, libc::ENOENT, libc::EACCES],
    "/dev/shm is small here, or not there",
);

/// How long it is held: long enough for everybody who looks from time to time.
const HELD_FOR: Duration = Duration::from_secs(2);

/// How long memory is held. In a baseline nobody looks.
pub(super) fn held_for() -> Duration {
    match std::env::var_os(BASELINE) {
        Some(_) => Duration::from_millis(200),
        None => HELD_FOR,
    }
}

const MEMORY: &[Protection] = &[Protection::Memory];
const RLIMITS: &[Protection] = &[Protection::Rlimits];

/// Takes memory, holds it for a while, and lives to tell.
pub(super) fn eat(what: &str, take: impl FnOnce() -> io::Result<()>) -> Outcome {
    match take() {
        Ok(()) => Outcome::GotThrough(format!("{} MiB were taken: {what}", MUCH >> 20)),
        Err(error) => Outcome::refused(what, &error),
    }
}

/// The ways to be ended differ (a call's `exhausted`, a step's `step_failed`): what counts is that it is.
pub(super) const fn eater(id: &'static str, what: &'static str, run: fn(&Target) -> Outcome) -> Attack {
    program(id, what, run)
        .env(LITTLE_MEMORY)
        .expect(Expect::Harmless)
        .falls_without(MEMORY)
}

/// A process that does nothing for a while.
pub(super) fn sleeps() -> io::Result<()> {
    std::thread::sleep(HELD_FOR);
    Ok(())
}

fn hold(file: &mut fs::File) -> io::Result<()> {
    let block = vec![7; 1 << 20];
    for _ in 0..MUCH >> 20 {
        file.write_all(&block)?;
    }
    std::thread::sleep(held_for());
    Ok(())
}

pub const ATTACKS: &[Attack] = &[
    eater(
        "processes/memory",
        "one process takes more memory than a command may",
        |_| {
            eat("in one process", || {
                let taken = vec![7_u8; MUCH];
                std::thread::sleep(held_for());
                std::hint::black_box(&taken);
                Ok(())
            })
        },
    ),
    eater(
        "processes/memory-in-many-processes",
        "each of many processes takes little memory, and all together too much",
        |_| {
            eat("in 16 processes", || {
                sys::in_children(16, || {
                    let taken = vec![7_u8; MUCH / 16];
                    std::thread::sleep(held_for());
                    std::hint::black_box(&taken);
                    Ok(())
                })
            })
        },
    ),
    eater("processes/files-in-tmp", "fills /tmp, which is of a size", |target| {
        let path = std::env::temp_dir().join(format!("plue-escape-{}-filler", target.scene));
        let result = eat("in /tmp", || hold(&mut fs::File::create(&path)?));
        let _ = fs::remove_file(path);
        result
    })
    .env(LITTLE_TMP)
    // In memory it has a size besides.
    .falls_without(&[]),
    eater(
        "processes/memory-in-dev-shm",
        "fills /dev/shm, which is memory",
        |target| {
            let path = format!("/dev/shm/plue-escape-{}-filler", target.scene);
            let result = eat("in /dev/shm", || hold(&mut fs::File::create(&path)?));
            let _ = fs::remove_file(path);
            result
        },
    )
    .baseline(LITTLE_DEV_SHM)
    .falls_without(&[]),
    eater(
        "processes/memory-in-a-memfd",
        "fills a file that is memory and has no name",
        |_| eat("in a memfd", || hold(&mut sys::memfd()?)),
    )
    .falls_without(MEMORY),
    eater("processes/memory-shared", "fills shared memory without a file", |_| {
        eat("in shared memory", || {
            sys::fill_shared(MUCH)?;
            std::thread::sleep(held_for());
            Ok(())
        })
    }),
    eater(
        "processes/memory-of-system-v",
        "fills a System V segment, which belongs to no process",
        |_| eat("in a System V segment", || sys::fill_system_v(MUCH, held_for())),
    )
    .baseline(Baseline::Unless(&[libc::ENOSYS, libc::ENOSPC], "this kernel has none"))
    .falls_without(MEMORY),
    program(
        "processes/descriptors-in-flight",
        "has so many descriptors on their way between processes that no other program of its user may send one",
        |_| {
            if is_gvisor() {
                // The kernel is the pod's alone, and counts them for nobody.
                return Outcome::refused("count them", &io::Error::from_raw_os_error(libc::ENOSYS));
            }
            Outcome::of("3000 descriptors on their way", sys::descriptors_in_flight(3000))
        },
    )
    .baseline(Baseline::Unless(
        &[libc::ETOOMANYREFS, libc::ENOSYS],
        "this user may have as few as a command, or nobody counts",
    )),
    program(
        "processes/signals-in-the-queue",
        "has so many signals wait that no other program of its user gets one",
        |_| {
            if is_gvisor() {
                // The kernel is the pod's alone, and counts them for nobody.
                return Outcome::refused("count them", &io::Error::from_raw_os_error(libc::ENOSYS));
            }
            Outcome::of("5000 signals in the queue", sys::queue_signals(5000))
        },
    )
    .baseline(Baseline::Unless(
        &[libc::EAGAIN, libc::ENOSYS],
        "this user may have as few as a command, or nobody counts",
    ))
    .falls_without(RLIMITS),
    program(
        "processes/standing-when-memory-is-short",
        "takes itself out of the kernel's sight when memory is short",
        |_| Outcome::of("write oom_score_adj", fs::write("/proc/self/oom_score_adj", "1000")),
    ),
    program(
        "processes/fork-bomb",
        "starts more processes than a command may",
        |_| match sys::in_children(300, sleeps) {
            Ok(()) => Outcome::GotThrough("300 processes ran at once".to_owned()),
            Err(error) => Outcome::refused("fork", &error),
        },
    )
    .env(FEW_PROCESSES)
    .expect(Expect::Harmless)
    .falls_without(&[Protection::Processes]),
    program(
        "processes/thread-bomb",
        "starts more threads than anybody needs",
        |_| {
            let mut threads = Vec::new();
            for _ in 0..6000 {
                let thread = std::thread::Builder::new()
                    .stack_size(16 << 10)
                    .spawn(|| std::thread::sleep(HELD_FOR));
                match thread {
                    Ok(thread) => threads.push(thread),
                    Err(error) => return Outcome::refused("a thread", &error),
                }
            }
            Outcome::GotThrough("6000 threads ran at once".to_owned())
        },
    )
    .env(FEW_PROCESSES)
    .expect(Expect::Harmless)
    .baseline(Baseline::Unless(
        &[libc::EAGAIN, libc::ENOMEM],
        "nobody gets so many threads here",
    )),
    program("processes/open-files", "opens more files than anybody needs", |_| {
        let _ = sys::raise_limit(libc::RLIMIT_NOFILE as i32);
        let mut files = Vec::new();
        for _ in 0..15_000 {
            match fs::File::open("/dev/null") {
                Ok(file) => files.push(file),
                Err(error) => return Outcome::refused("open", &error),
            }
        }
        Outcome::GotThrough("15000 files were open at once".to_owned())
    })
    .baseline(Baseline::Unless(
        &[libc::EMFILE, libc::ENFILE],
        "nobody may open so many here",
    ))
    .falls_without(RLIMITS),
    program(
        "processes/huge-file",
        "makes a file of 1 TiB in the workspace",
        |target| {
            sys::ignore_file_size_signal();
            let made = fs::File::create(target.workspace.join("huge")).and_then(|file| file.set_len(1 << 40));
            Outcome::of("a file of 1 TiB", made)
        },
    )
    .baseline(Baseline::Unless(
        &[libc::EFBIG, libc::ENOSPC, libc::EINVAL],
        "no file system here takes such a file",
    ))
    .falls_without(RLIMITS),
    program(
        "processes/core-dump",
        "lets the kernel write its memory to disk",
        |_| Outcome::of("RLIMIT_CORE", sys::allow_core_dumps()),
    )
    .baseline(Baseline::Unless(&[libc::EPERM], "nobody gets a core dump here")),
    program(
        "processes/raise-limits",
        "raises a limit above the highest it may have",
        |_| Outcome::of("setrlimit", sys::raise_hard_limit()),
    )
    .baseline(Baseline::Unless(&[libc::EPERM], "this user may raise no limit")),
];
