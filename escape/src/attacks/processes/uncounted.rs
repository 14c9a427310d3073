//! Memory that is in no process's own count, and processes that look as if they were dead.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use super::limits::{FEW_PROCESSES, LITTLE_DEV_SHM, MUCH, eat, eater, held_for, sleeps};
use super::program;
use crate::attack::{Attack, Baseline, Expect};
use crate::sys;
use crate::target::{Outcome, Target};

fn hold() {
    std::thread::sleep(held_for());
}

/// Memory behind a first thread that has ended.
fn eats_behind_a_dead_leader() -> io::Result<()> {
    sys::in_child(|| {
        sys::behind_a_dead_leader(|| {
            let taken = vec![7_u8; MUCH];
            hold();
            std::hint::black_box(&taken);
            Ok(())
        })
    })
}

/// Files that are empty: each takes more than a thousand bytes of the kernel's memory all the same.
fn many_names(target: &Target) -> io::Result<()> {
    /// With a name of 250 bytes, and a link that is kept in the inode.
    const EACH: usize = 1300;
    let count = if target.baseline { 10_000 } else { MUCH / EACH };
    let folder = std::path::Path::new("/dev/shm").join(format!("plue-escape-{}-names", target.scene));
    fs::create_dir(&folder)?;
    let content = "x".repeat(120);
    let made = (0..count).try_for_each(|index| symlink(&content, folder.join(format!("{index:0250}"))));
    if made.is_ok() {
        hold();
    }
    fs::remove_dir_all(folder)?;
    made
}

/// Queues with 16 KiB in each, which is all that one may hold.
fn queues() -> io::Result<()> {
    let mut made = Vec::new();
    let mut fill = || {
        for _ in 0..MUCH / (16 << 10) {
            let queue = sys::queue(0, true)?;
            made.push(queue);
            for _ in 0..2 {
                sys::send(queue, 8192)?;
            }
        }
        Ok(())
    };
    let result = fill();
    if result.is_ok() {
        hold();
    }
    made.into_iter().for_each(sys::remove_queue);
    result
}

/// Sets of semaphores, each as large as a set may be.
fn semaphores() -> io::Result<()> {
    /// What the kernel takes for a semaphore at least, and how many a set has.
    const EACH: usize = 64;
    const IN_A_SET: usize = 32_000;
    let mut made = Vec::new();
    let mut fill = || {
        for _ in 0..MUCH / (EACH * IN_A_SET) {
            made.push(sys::semaphores(IN_A_SET as i32)?);
        }
        Ok(())
    };
    let result = fill();
    if result.is_ok() {
        hold();
    }
    made.into_iter().for_each(sys::remove_semaphore);
    result
}

const NO_PAGE_TABLES: Baseline = Baseline::Unless(
    &[libc::ENODATA, libc::ENOMEM],
    "this kernel says nothing of page tables, or gives nobody so many addresses",
);

/// How many processes share what looks like little in each: 2.5 GiB of addresses.
const MANY: usize = 64;

pub const ATTACKS: &[Attack] = &[
    eater(
        "processes/memory-let-go",
        "fills shared memory and lets go of it, so that it is there and resident in nobody",
        |_| {
            eat("in shared memory that is resident in nobody", || {
                sys::fill_and_let_go(MUCH, hold)
            })
        },
    )
    .falls_without(&[]),
    eater(
        "processes/memory-in-page-tables",
        "makes the kernel keep page tables for memory that is never written",
        |_| {
            eat("in page tables", || {
                sys::fill_page_tables(MUCH)?;
                hold();
                Ok(())
            })
        },
    )
    .falls_without(&[])
    .baseline(NO_PAGE_TABLES),
    eater(
        "processes/memory-in-page-tables-of-many",
        "has each of many processes map less than what looks like much, and the kernel keep page tables for all",
        |_| {
            eat("in page tables of many", || {
                sys::in_children(MANY, || {
                    sys::fill_page_tables(MUCH / MANY)?;
                    hold();
                    Ok(())
                })
            })
        },
    )
    .falls_without(&[])
    .baseline(NO_PAGE_TABLES),
    eater(
        "processes/memory-in-large-pages",
        "takes pages of a size that no process's count has",
        |_| eat("in large pages", || sys::fill_large_pages(MUCH, hold)),
    )
    .falls_without(&[])
    .baseline(Baseline::Unless(
        &[libc::ENOMEM, libc::EPERM, libc::EINVAL],
        "this machine has set none aside",
    )),
    eater(
        "processes/memory-in-semaphores",
        "makes so many System V semaphores that they alone are more than it may have",
        |_| eat("in semaphores", semaphores),
    )
    .falls_without(&[])
    .baseline(Baseline::Unless(
        &[libc::ENOSYS, libc::ENOSPC, libc::EINVAL],
        "this kernel has none, or few",
    )),
    eater(
        "processes/memory-in-names",
        "makes so many names in /dev/shm that they alone are more than it may have",
        |target| eat("in names in /dev/shm", || many_names(target)),
    )
    .falls_without(&[])
    .baseline(LITTLE_DEV_SHM),
    eater(
        "processes/memory-in-message-queues",
        "fills System V message queues, which belong to no process",
        |_| eat("in message queues", queues),
    )
    .falls_without(&[])
    .baseline(Baseline::Unless(
        &[libc::ENOSYS, libc::ENOSPC],
        "this kernel has none, or few",
    )),
    eater(
        "processes/memory-behind-a-dead-leader",
        "takes memory in a process whose first thread has ended, which then looks dead",
        |_| eat("in a process that looks dead", eats_behind_a_dead_leader),
    )
    .falls_without(&[]),
    program(
        "processes/fork-bomb-of-dead-leaders",
        "starts more processes than a command may, each of which looks dead",
        |_| match sys::in_children(100, || sys::behind_a_dead_leader(sleeps)) {
            Ok(()) => Outcome::GotThrough("100 processes ran at once that look dead".to_owned()),
            Err(error) => Outcome::refused("fork", &error),
        },
    )
    .env(FEW_PROCESSES)
    .expect(Expect::Harmless),
];
