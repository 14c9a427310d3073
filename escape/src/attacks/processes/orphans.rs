//! What a command leaves for the next one, and for those outside: names in the kernel, and bits on files.

use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

use super::{is_gvisor, program};
use crate::attack::{Attack, Baseline};
use crate::sys;
use crate::target::{Outcome, Target};

const NOT_IN_THIS_KERNEL: Baseline = Baseline::Unless(&[libc::ENOSYS], "this kernel has none");

/// Looks for what an earlier command left under a name, else leaves it there for the next. In a baseline both at once.
fn left_behind(target: &Target, what: &str, make: impl Fn(bool) -> io::Result<i32>, remove: impl Fn(i32)) -> Outcome {
    if let Ok(found) = make(false) {
        remove(found);
        return Outcome::GotThrough(format!("{what} of an earlier command is there"));
    }
    match make(true) {
        Ok(_) if target.baseline => {
            let found = make(false);
            if let Ok(found) = found {
                remove(found);
            }
            Outcome::of(what, found)
        }
        Ok(_) => Outcome::held(format!("{what} was made; the next command looks for it")),
        Err(error) => Outcome::refused(what, &error),
    }
}

/// A number for a name in the kernel, which is this scene's alone.
fn key(target: &Target) -> i32 {
    let sum = target
        .scene
        .bytes()
        .fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    // Neither zero, which is no name, nor negative.
    (sum >> 2 | 1).cast_signed()
}

/// The next command is the same attack: it says what it finds.
macro_rules! finds {
    ($id:literal) => {
        concat!(
            "./.plue-escape/plue-escape attack ",
            $id,
            " .plue-escape/target.json > found; if grep -q got_through found; then cat found; else echo still-here; fi"
        )
    };
}

/// No file that was planted may give whoever runs it the user or group of its owner.
const NO_BITS: &str = "for file in planted-*; do if [ -u \"$file\" ] || [ -g \"$file\" ]; \
    then echo \"$file gives who runs it another user\"; exit; fi; done; echo still-here";

/// A way to make a file, with its name.
type Way<'a> = (&'a str, fn(&std::path::Path) -> io::Result<()>);

/// What would run with the rights of who owns it.
fn plant(target: &Target, ways: &[Way]) -> Outcome {
    let mut planted = Vec::new();
    let mut last = Outcome::held("nothing was tried");
    for (name, way) in ways {
        let path = target.workspace.join(format!("planted-by-{name}"));
        let made = way(&path).and_then(|()| fs::metadata(&path));
        match made {
            Ok(meta) if meta.permissions().mode() & 0o6000 != 0 => planted.push(*name),
            Ok(_) => last = Outcome::held(format!("{name}: the bits were left out")),
            Err(error) => last = Outcome::refused(name, &error),
        }
    }
    match planted.is_empty() {
        true => last,
        false if target.baseline => Outcome::GotThrough(format!("by {}", planted.join(", "))),
        false => Outcome::held(format!(
            "there are bits by {}; the next command looks whether they stay",
            planted.join(", ")
        )),
    }
}

fn create(path: &std::path::Path) -> io::Result<fs::File> {
    fs::File::create(path)
}

pub const ATTACKS: &[Attack] = &[
    program(
        "processes/semaphores-left",
        "leaves a System V semaphore, by which the next command learns what this one wants to tell it",
        |target| {
            left_behind(
                target,
                "a semaphore",
                |make| sys::semaphore(key(target), make),
                sys::remove_semaphore,
            )
        },
    )
    .baseline(NOT_IN_THIS_KERNEL)
    .then(finds!("processes/semaphores-left")),
    program(
        "processes/message-queue-left",
        "leaves a System V message queue for the next command",
        |target| {
            left_behind(
                target,
                "a message queue",
                |make| sys::queue(key(target), make),
                sys::remove_queue,
            )
        },
    )
    .baseline(NOT_IN_THIS_KERNEL)
    .then(finds!("processes/message-queue-left")),
    program(
        "processes/posix-queue-left",
        "leaves a POSIX message queue for the next command",
        |target| {
            let name = format!("plue-escape-{}", target.scene);
            left_behind(
                target,
                "a POSIX queue",
                |make| sys::posix_queue(&name, make).map(|()| 0),
                |_| {
                    let _ = sys::remove_posix_queue(&name);
                },
            )
        },
    )
    .baseline(NOT_IN_THIS_KERNEL)
    .then(finds!("processes/posix-queue-left")),
    program(
        "processes/set-user-id-by-chmod",
        "gives a program in the workspace the set-user-id bit, for somebody outside to run",
        |target| {
            plant(
                target,
                &[
                    ("chmod", |path| {
                        create(path)?;
                        fs::set_permissions(path, fs::Permissions::from_mode(0o6755))
                    }),
                    ("fchmod", |path| {
                        create(path)?.set_permissions(fs::Permissions::from_mode(0o6755))
                    }),
                    ("fchmodat2", |path| {
                        create(path)?;
                        sys::fchmodat2(path, 0o6755)
                    }),
                ],
            )
        },
    )
    .then(NO_BITS),
    program(
        "processes/set-group-id-by-exchange",
        "has the set-group-id bit asked for a folder, and puts a file in its place meanwhile",
        |target| {
            if is_gvisor() {
                // No other process can answer for a filter there, and so a file may have the bit: for the containers
                // of the same pod, of which none gains a group by executing it.
                return Outcome::refused("have it asked", &io::Error::from_raw_os_error(libc::ENOSYS));
            }
            let (folder, file) = (target.workspace.join("turned"), target.workspace.join("exchanged"));
            let prepared = create(&file).and_then(|_| fs::create_dir(&folder));
            let raced = prepared.and_then(|()| {
                sys::in_child(|| {
                    let end = std::time::Instant::now() + std::time::Duration::from_millis(500);
                    sys::while_exchanging(&folder, &file, || {
                        while std::time::Instant::now() < end {
                            let _ = fs::set_permissions(&folder, fs::Permissions::from_mode(0o2755));
                        }
                    })
                })
            });
            let bits = |path: &std::path::Path| {
                let found = fs::symlink_metadata(path);
                found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o2000 != 0)
            };
            match raced {
                Ok(()) if bits(&folder) || bits(&file) => Outcome::GotThrough("a file has the bit".to_owned()),
                Ok(()) => Outcome::held("no file has the bit"),
                Err(error) => Outcome::refused("exchange them", &error),
            }
        },
    )
    .baseline(Baseline::Unless(
        &[libc::ENOSYS, libc::EINVAL],
        "nothing can be exchanged here, or nobody is asked",
    )),
    program(
        "processes/set-user-id-by-creating",
        "creates a program with the set-user-id bit, by each call that takes a mode",
        |target| {
            plant(
                target,
                &[
                    ("open", |path| {
                        fs::File::options()
                            .write(true)
                            .create_new(true)
                            .mode(0o6755)
                            .open(path)
                            .map(drop)
                    }),
                    ("openat2", |path| sys::create_by_openat2(path, 0o6755)),
                    ("mknod", |path| sys::make_file_by_mknod(path, 0o6755)),
                ],
            )
        },
    )
    .then(NO_BITS),
];
