//! What a command does to processes that are not its own: the runner, a bystander, the sandbox itself.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use plue_sandbox::mutation::Protection;

use super::{in_sight, is_outside, program, to_the_outside};
use crate::attack::{Attack, Baseline, Expect};
use crate::secrets;
use crate::sys;
use crate::target::{Outcome, Target};

/// How much of one process's memory is searched.
const MAX_MEMORY: u64 = 64 << 20;

const NOT_INTO_OTHERS: Baseline = Baseline::Unless(
    &[libc::EACCES, libc::EPERM],
    "this kernel lets nobody look into a process that is not its child",
);

/// Looks for a secret in a file of every process in sight.
fn search(target: &Target, what: &str, read: impl Fn(i32) -> io::Result<Vec<u8>>) -> Outcome {
    let mut last = Outcome::held("no other process is in sight");
    for pid in in_sight().into_iter().chain([target.runner, target.bystander]) {
        match read(pid) {
            Ok(bytes) if secrets::secret_in(&bytes, &target.secret_prefix).is_some() => {
                return Outcome::GotThrough(format!("a secret is in {what} of process {pid}"));
            }
            Ok(_) => last = Outcome::held(format!("no secret is in {what} of any process")),
            Err(error) => last = Outcome::refused(what, &error),
        }
    }
    last
}

/// The writable mappings of a process: where its heap and its variables are.
fn mappings(pid: i32) -> io::Result<Vec<(u64, u64)>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    Ok(maps
        .lines()
        .filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw")))
        .filter_map(|line| {
            let (from, to) = line.split(' ').next()?.split_once('-')?;
            Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?))
        })
        .collect())
}

fn memory_by_file(pid: i32) -> io::Result<Vec<u8>> {
    let mut memory = fs::File::open(format!("/proc/{pid}/mem"))?;
    let mut found = Vec::new();
    // From the end: the variables lie on the stack.
    for (from, to) in mappings(pid)?.into_iter().rev() {
        let mut part = vec![0; (to - from).min(MAX_MEMORY) as usize];
        memory.seek(SeekFrom::Start(from))?;
        let got = memory.read(&mut part).unwrap_or(0);
        found.extend_from_slice(&part[..got]);
        if found.len() as u64 > MAX_MEMORY {
            break;
        }
    }
    Ok(found)
}

fn memory_by_call(pid: i32) -> io::Result<Vec<u8>> {
    let mut found = Vec::new();
    for (from, to) in mappings(pid)?.into_iter().rev() {
        let mut part = vec![0; (to - from).min(1 << 20) as usize];
        let got = sys::process_vm_readv(pid, to - part.len() as u64, &mut part)?;
        found.extend_from_slice(&part[..got]);
    }
    Ok(found)
}

/// How much of an open file of others is read.
const BEGINNING: u64 = 64 << 10;

/// A file below the links that /proc has for a process.
fn through(target: &Target, link: &str) -> Outcome {
    let below = target.hidden.strip_prefix("/").unwrap_or(&target.hidden);
    search(target, link, |pid| {
        let base = Path::new("/proc").join(pid.to_string()).join(link);
        match link {
            "root" => fs::read(base.join(below).join("secret.txt")),
            "cwd" => fs::read(base.join("../secret.txt")).or_else(|_| fs::read(base.join("secret.txt"))),
            _ => {
                let mut found = Vec::new();
                for entry in fs::read_dir(base)?.flatten() {
                    // Only what is a file: reading a pipe of somebody may never end. And only its beginning: others
                    // have files of gigabytes open.
                    if fs::metadata(entry.path()).is_ok_and(|meta| meta.is_file()) {
                        let file = fs::File::open(entry.path());
                        let _ = file.and_then(|file| file.take(BEGINNING).read_to_end(&mut found));
                    }
                }
                Ok(found)
            }
        }
    })
}

pub const ATTACKS: &[Attack] = &[
    program(
        "processes/own-environment",
        "the runner's secrets are among the command's own variables",
        |target| match fs::read("/proc/self/environ") {
            Ok(bytes) if secrets::secret_in(&bytes, &target.secret_prefix).is_some() => {
                Outcome::GotThrough("a secret is in /proc/self/environ".to_owned())
            }
            Ok(_) => Outcome::held("no secret is in /proc/self/environ"),
            Err(error) => Outcome::refused("read /proc/self/environ", &error),
        },
    )
    .falls_without(&[Protection::Environment]),
    program(
        "processes/environment-of-others",
        "reads the variables of the runner and of every process in sight",
        |target| search(target, "environ", |pid| fs::read(format!("/proc/{pid}/environ"))),
    ),
    program(
        "processes/memory-of-others",
        "reads the memory of every process in sight by /proc/PID/mem",
        |target| search(target, "mem", memory_by_file),
    )
    .baseline(NOT_INTO_OTHERS),
    program(
        "processes/memory-of-others-by-call",
        "reads the memory of every process in sight by process_vm_readv",
        |target| search(target, "the memory", memory_by_call),
    )
    .baseline(Baseline::Unless(
        &[libc::ENOSYS, libc::EPERM],
        "nobody may read another's memory here",
    )),
    program(
        "processes/write-memory-of-others-by-call",
        "writes into the memory of the runner and of every process in sight by process_vm_writev",
        |target| {
            // The end of the stack, where a zero is anyway: it shows that it could, and changes nothing.
            let write = |pid: i32| {
                let stack = mappings(pid).ok().and_then(|all| all.last().copied());
                sys::process_vm_writev(pid, stack.map_or(8, |(_, end)| end - 1))
            };
            if target.baseline {
                return Outcome::of("process_vm_writev", write(target.bystander));
            }
            let own_shell = std::os::unix::process::parent_id().cast_signed();
            let others = in_sight().into_iter().filter(|pid| *pid != own_shell);
            let tries = others.chain([target.runner, target.bystander]);
            Outcome::any(tries.map(|pid| Outcome::of("process_vm_writev", write(pid))))
        },
    )
    .baseline(Baseline::Unless(
        &[libc::ENOSYS, libc::EPERM],
        "nobody may write another's memory here",
    )),
    program(
        "processes/root-of-others",
        "goes to the outside by /proc/PID/root",
        |target| through(target, "root"),
    )
    .baseline(NOT_INTO_OTHERS),
    program(
        "processes/folder-of-others",
        "goes to the outside by /proc/PID/cwd",
        |target| through(target, "cwd"),
    )
    .baseline(NOT_INTO_OTHERS),
    program(
        "processes/descriptors-of-others",
        "reads the open files of others by /proc/PID/fd",
        |target| through(target, "fd"),
    )
    .baseline(NOT_INTO_OTHERS),
    program(
        "processes/sees-the-outside",
        "sees that there are processes outside, and their arguments",
        |target| match [target.runner, target.bystander]
            .into_iter()
            .chain(in_sight())
            .find(|pid| is_outside(*pid))
        {
            Some(pid) => Outcome::GotThrough(format!("process {pid} is in sight")),
            None => Outcome::held("no process outside is in sight"),
        },
    )
    .falls_without(&[Protection::Pid]),
    program(
        "processes/inherited-descriptors",
        "uses a descriptor that the runner left open (CVE-2024-21626)",
        |target| {
            let open: Vec<String> = fs::read_dir("/proc/self/fd")
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|entry| {
                    let number: i32 = entry.file_name().to_str()?.parse().ok()?;
                    let shown = fs::read_link(entry.path()).ok()?.display().to_string();
                    (number > 2 && !shown.starts_with("/proc/")).then(|| format!("{number} is {shown}"))
                })
                .collect();
            if open.is_empty() {
                return Outcome::held(format!("descriptors 0, 1 and 2 are open, for {}", target.scene));
            }
            Outcome::GotThrough(open.join(", "))
        },
    ),
    program(
        "processes/kill",
        "sends a signal to a process outside by kill",
        |target| to_the_outside(target.bystander, "kill", || sys::kill(target.bystander, libc::SIGURG)),
    ),
    program(
        "processes/tgkill",
        "sends a signal to a thread outside by tgkill",
        |target| {
            to_the_outside(target.bystander, "tgkill", || {
                sys::tgkill(target.bystander, libc::SIGURG)
            })
        },
    ),
    program(
        "processes/sigqueue",
        "sends a signal with a forged sender by rt_sigqueueinfo",
        |target| {
            to_the_outside(target.bystander, "rt_sigqueueinfo", || {
                sys::sigqueue(target.bystander, libc::SIGURG)
            })
        },
    ),
    program(
        "processes/pidfd-signal",
        "sends a signal by pidfd_open and pidfd_send_signal",
        |target| {
            to_the_outside(target.bystander, "pidfd_send_signal", || {
                sys::pidfd_signal(target.bystander, libc::SIGURG)
            })
        },
    )
    .baseline(Baseline::Unless(&[libc::ENOSYS], "this kernel has no pidfd")),
    program(
        "processes/signal-by-a-descriptor",
        "lets a pipe send a signal to a process outside (F_SETOWN)",
        |target| {
            to_the_outside(target.bystander, "F_SETOWN", || {
                sys::signal_by_descriptor(target.bystander, libc::SIGURG)
            })
        },
    )
    .baseline(Baseline::Unless(
        &[libc::ENOSYS, libc::EINVAL],
        "pipes send no signals here",
    )),
    program(
        "processes/steal-a-descriptor",
        "takes a descriptor of a process outside by pidfd_getfd",
        |target| {
            to_the_outside(target.bystander, "pidfd_getfd", || {
                sys::pidfd_getfd(target.bystander, 1)
            })
        },
    )
    .baseline(Baseline::Unless(
        &[libc::ENOSYS, libc::EPERM],
        "nobody may take a descriptor here",
    )),
    program("processes/ptrace-the-outside", "traces a process outside", |target| {
        to_the_outside(target.bystander, "PTRACE_SEIZE", || sys::ptrace_seize(target.bystander))
    })
    .baseline(Baseline::Unless(
        &[libc::ENOSYS, libc::EPERM, libc::EIO],
        "nobody may trace another here",
    )),
    program(
        "processes/limits-of-the-outside",
        "changes the limits of a process outside",
        |target| to_the_outside(target.bystander, "prlimit", || sys::lower_core_limit(target.bystander)),
    )
    .baseline(Baseline::Unless(
        &[libc::EPERM],
        "nobody may change another's limits here",
    )),
    program(
        "processes/priority-of-the-outside",
        "changes the priority of a process outside",
        |target| to_the_outside(target.bystander, "setpriority", || sys::be_nice(target.bystander)),
    ),
    program(
        "processes/out-of-memory-score-of-the-outside",
        "marks a process outside as the first to go",
        |target| {
            to_the_outside(target.bystander, "oom_score_adj", || {
                fs::write(format!("/proc/{}/oom_score_adj", target.bystander), "1000")
            })
        },
    ),
    program(
        "processes/namespaces-of-the-outside",
        "joins the namespaces of a process outside",
        |target| {
            let mut last = Outcome::held("none was tried");
            for kind in ["net", "mnt", "pid", "ipc", "uts"] {
                let path = format!("/proc/{}/ns/{kind}", target.bystander);
                last = to_the_outside(target.bystander, "setns", || sys::setns(&fs::File::open(path)?));
                if matches!(last, Outcome::GotThrough(_)) {
                    break;
                }
            }
            last
        },
    )
    .baseline(Baseline::Unless(
        &[libc::EPERM, libc::ENOSYS, libc::EINVAL],
        "this user may join no namespace",
    )),
    program("processes/signal-to-all", "kill -1, to everything in sight", |target| {
        if in_sight().into_iter().any(is_outside) {
            // Only whether it could: others run on this machine.
            return Outcome::of("kill(-1)", sys::kill(-1, 0));
        }
        let result = sys::kill(-1, libc::SIGKILL);
        Outcome::held(format!(
            "everything in sight of {} was killed: {result:?}",
            target.scene
        ))
    })
    .expect(Expect::Harmless),
];
