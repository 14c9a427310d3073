//! The cases of [`crate::file_tools`] by number: the same ones each time. `PLUE_PATHS_SEED=n` runs number n alone, and
//! `PLUE_PATHS_CASES=n` the first n.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::file_tools::Runs;

/// How many cases a run has when nobody says.
const CASES: u64 = 400;
/// As many bytes as the largest case takes.
const CASE_BYTES: usize = 1024;
/// Says to the process that it is the second run.
const WITHOUT_OPENAT2: &str = "PLUE_PATHS_WITHOUT_OPENAT2";
/// The same number on every architecture.
const OPENAT2: i64 = 437;

#[test]
fn the_file_tools_reach_what_a_chroot_reaches_and_refuse_what_leaves() {
    let mut runs = Runs::new(&plugins(), || {
        if std::env::var_os(WITHOUT_OPENAT2).is_some() {
            take_openat2_away();
        }
    });
    let number = |name| {
        let text = std::env::var(name).ok()?;
        Some(
            text.parse::<u64>()
                .unwrap_or_else(|error| panic!("{name}={text}: {error}")),
        )
    };
    if let Some(seed) = number("PLUE_PATHS_SEED") {
        return check(&mut runs, seed);
    }
    for seed in 0..number("PLUE_PATHS_CASES").unwrap_or(CASES) {
        check(&mut runs, seed);
    }
    every_kind_of_answer_came(&runs.seen);
}

fn check(runs: &mut Runs, seed: u64) {
    if let Err(wrong) = runs.check(&bytes(seed)) {
        panic!("case {seed}, which PLUE_PATHS_SEED={seed} runs alone:\n{wrong}");
    }
}

/// A run in which no path was ever refused, or none ever taken, would show nothing.
fn every_kind_of_answer_came(seen: &BTreeMap<String, usize>) {
    for tool in ["read_file", "write_file", "list_files", "grep"] {
        for (kind, least) in [
            ("succeeds", 50),
            ("denied", 50),
            ("not_found", 50),
            ("invalid_input", 10),
        ] {
            let came = seen.get(&format!("{tool} {kind}")).copied().unwrap_or(0);
            assert!(came >= least, "{tool} {kind}: {came} times; {seen:?}");
        }
    }
}

/// Where the kernel has no openat2, cap-std follows a path itself, part by part: another way, with rules of its own.
/// It is tried once for each process, so the run without it is a process of its own.
#[test]
fn the_file_tools_do_so_without_openat2_too() {
    let done = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "random::the_file_tools_reach_what_a_chroot_reaches_and_refuse_what_leaves",
        ])
        .env(WITHOUT_OPENAT2, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success() && said.contains("1 passed"),
        "without openat2 ({WITHOUT_OPENAT2}=1): {said}{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// For this thread and those that it starts.
fn take_openat2_away() {
    let no_such_call = rustix::io::Errno::NOSYS.raw_os_error() as u32;
    let filter = SeccompFilter::new(
        [(OPENAT2, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(no_such_call),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
    let flags = rustix::fs::OFlags::RDONLY;
    let opened = rustix::fs::openat2(
        rustix::fs::CWD,
        ".",
        flags,
        rustix::fs::Mode::empty(),
        rustix::fs::ResolveFlags::BENEATH,
    );
    assert_eq!(opened.err(), Some(rustix::io::Errno::NOSYS));
}

/// SplitMix64.
fn bytes(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(CASE_BYTES);
    while bytes.len() < CASE_BYTES {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes
}

fn plugins() -> PathBuf {
    std::env::var_os("PLUE_PLUGINS_DIR").map_or_else(
        || {
            let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
            target.join("dist/plugins")
        },
        PathBuf::from,
    )
}
