//! The processes of the sandbox, or below a supervisor, by who started whom.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

/// A process whose page tables may hold more than its resident memory tells maps more than this, in bytes.
const SPARSE: u64 = 4 << 30;

/// One process, as /proc has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    parent: i32,
    /// Ended, and waits for its parent to notice: it has no memory any more, and hears no signal.
    dead: bool,
    /// At least one.
    threads: u64,
    /// All that it maps, in bytes.
    mapped: u64,
    resident_pages: u64,
}

/// All processes of the PID namespace at one moment.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    processes: BTreeMap<i32, Process>,
}

/// What the processes below one have together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Those that have not ended.
    pub(super) live: Vec<i32>,
    /// All, those too that have ended and that nobody has noticed: their numbers are taken.
    pub(super) processes: u64,
    pub(super) threads: u64,
    /// In bytes. Memory that they share is counted for each of them.
    pub(super) resident: u64,
    /// The page tables of those that map so much that these count, in bytes.
    pub(super) tables: u64,
}

impl Usage {
    /// In bytes.
    pub(super) fn taken(&self) -> u64 {
        self.resident + self.tables
    }
}

/// The numbers of all processes of the PID namespace.
pub fn numbers() -> io::Result<Vec<i32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir("/proc")? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(numbers)
}

/// The parent of a process, and whether it has ended and only waits for that one to notice. `None` when it is gone.
pub fn parent_of(pid: i32) -> io::Result<Option<(i32, bool)>> {
    Ok(look(pid)?.map(|process| (process.parent, process.dead)))
}

/// A process as it is now; `None` when it is gone.
fn look(pid: i32) -> io::Result<Option<Process>> {
    match fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => Ok(parse(&stat).map(|process| with_its_threads(pid, process))),
        Err(error) if has_ended(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Tree {
    /// Looks at /proc. What ends meanwhile is left out.
    ///
    /// # Errors
    /// When it cannot be looked at, or does not even show ourselves.
    pub(crate) fn read() -> io::Result<Self> {
        let mut processes = BTreeMap::new();
        for pid in numbers()? {
            processes.extend(look(pid)?.map(|process| (pid, process)));
        }
        if !processes.contains_key(&rustix::process::getpid().as_raw_nonzero().get()) {
            return Err(io::Error::other("/proc does not show its reader"));
        }
        Ok(Self { processes })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.processes.len()
    }

    /// The parent of a process.
    pub(super) fn parent(&self, pid: i32) -> Option<i32> {
        self.processes.get(&pid).map(|process| process.parent)
    }

    /// The children of a process, the ended ones too.
    pub(super) fn children(&self, parent: i32) -> impl Iterator<Item = i32> {
        let children = self
            .processes
            .iter()
            .filter(move |(pid, process)| process.parent == parent && **pid != parent);
        children.map(|(pid, _)| *pid)
    }

    /// All processes below this one, those too that have ended.
    pub(crate) fn all_below(&self, root: i32) -> BTreeSet<i32> {
        let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for (pid, process) in &self.processes {
            children.entry(process.parent).or_default().push(*pid);
        }
        let mut found = BTreeSet::new();
        let mut open = vec![root];
        while let Some(pid) = open.pop() {
            for child in children.get(&pid).into_iter().flatten() {
                // /proc is not read in one moment: a number may have come back in another place.
                if *child != root && found.insert(*child) {
                    open.push(*child);
                }
            }
        }
        found
    }

    /// All processes below this one that have not ended.
    pub(super) fn below(&self, root: i32) -> Vec<i32> {
        self.usage(root).live
    }

    /// What these processes have together, in bytes, with memory that they share counted once where that can be told.
    pub(super) fn shared_once(&self, processes: &[i32]) -> u64 {
        let of = |pid: &i32| {
            let counted = self.processes.get(pid).map_or(0, Process::resident);
            proportional(*pid).map_or(counted, |exact| exact.min(counted))
        };
        processes.iter().map(of).sum()
    }

    /// What all processes below this one have.
    pub(super) fn usage(&self, root: i32) -> Usage {
        let mut usage = Usage::default();
        for pid in self.all_below(root) {
            let Some(process) = self.processes.get(&pid) else {
                continue;
            };
            usage.processes += 1;
            usage.threads += process.threads;
            if !process.dead {
                usage.live.push(pid);
                usage.resident += process.resident();
                if process.mapped > SPARSE {
                    usage.tables += page_tables(pid);
                }
            }
        }
        usage
    }
}

impl Process {
    /// In bytes.
    fn resident(&self) -> u64 {
        self.resident_pages * rustix::param::page_size() as u64
    }
}

/// What a process has, in bytes, with its part of what it shares with others. Slow: the kernel walks its page tables.
/// `None` where it cannot be had, or the process has ended.
fn proportional(pid: i32) -> Option<u64> {
    // gVisor has only the longer form, with one count for each mapping.
    let forms = ["smaps_rollup", "smaps"].iter();
    let text = forms
        .filter_map(|form| fs::read_to_string(format!("/proc/{pid}/{form}")).ok())
        .next()?;
    let parts = text.lines().filter_map(|line| line.strip_prefix("Pss:"));
    let kib: Vec<u64> = parts
        .map_while(|part| part.split_whitespace().next()?.parse().ok())
        .collect();
    // Nothing is told of a process whose first thread has ended.
    (!kib.is_empty()).then(|| kib.iter().sum::<u64>() * 1024)
}

/// Whether a file of /proc cannot be read because its process has ended meanwhile.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// A process whose first thread has ended looks ended, and has no memory there; its other threads go on, and have all of it.
fn with_its_threads(pid: i32, process: Process) -> Process {
    if !process.dead || process.threads <= 1 {
        return process;
    }
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let stats = threads.filter_map(|thread| parse(&fs::read(thread.path().join("stat")).ok()?));
    let living = stats
        .filter(|thread| !thread.dead)
        .max_by_key(|thread| thread.resident_pages);
    living.map_or(process, |thread| Process {
        parent: process.parent,
        ..thread
    })
}

/// What the page tables of a process take, in bytes: 2 MiB for each GiB that is touched thinly, and in no other count.
fn page_tables(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPTE:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    // gVisor has no such line, and no such tables.
    kib.unwrap_or(0) * 1024
}

/// Reads a line of /proc/PID/stat: `pid (name) state parent …`, where the name may hold anything.
fn parse(stat: &[u8]) -> Option<Process> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    // The state is field 3 of the line.
    let mut fields = rest.split_ascii_whitespace();
    let dead = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let threads = fields.nth(15)?.parse::<u64>().unwrap_or(0).max(1);
    let mapped = fields.nth(2)?.parse().unwrap_or(0);
    let resident_pages = fields.next()?.parse().unwrap_or(0);
    Some(Process {
        parent,
        dead,
        threads,
        mapped,
        resident_pages,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn stat(pid: i32, name: &str, state: char, parent: i32, pages: u64) -> (i32, Process) {
        let between = "1 ".repeat(15);
        let line = format!("{pid} ({name}) {state} {parent} {between}3 0 0 4096 {pages} 18446744073709551615 1 1");
        (pid, parse(line.as_bytes()).unwrap())
    }

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        for name in ["sh", "a b) S 1 (c", ") Z 1", "", "\u{202e}"] {
            let (_, process) = stat(7, name, 'S', 3, 25);
            let expected = Process {
                parent: 3,
                dead: false,
                threads: 3,
                mapped: 4096,
                resident_pages: 25,
            };
            assert_eq!(process, expected, "{name:?}");
        }
        assert_eq!(parse(b"7 (sh"), None);
    }

    #[test]
    fn those_below_a_process_are_found_at_any_depth_and_the_dead_have_no_memory_and_the_others_do_not_count() {
        let tree = Tree {
            processes: [
                stat(1, "init", 'S', 0, 9),
                stat(2, "supervisor", 'S', 1, 9),
                stat(3, "sh", 'S', 2, 10),
                stat(4, "child", 'Z', 3, 10),
                stat(5, "grandchild", 'R', 4, 10),
                stat(6, "another", 'S', 1, 9),
                stat(7, "another's", 'S', 6, 10),
            ]
            .into_iter()
            .collect(),
        };
        let expected = Usage {
            live: vec![3, 5],
            processes: 3,
            threads: 9,
            resident: 20 * rustix::param::page_size() as u64,
            tables: 0,
        };
        assert_eq!(tree.usage(2), expected);
        assert_eq!(tree.children(1).collect::<Vec<_>>(), [2, 6]);
        assert_eq!(tree.parent(5), Some(4));
    }

    #[test]
    fn the_tree_shows_ourselves_and_our_threads() {
        let tree = Tree::read().unwrap();
        let us = rustix::process::getpid().as_raw_nonzero().get();
        assert!(tree.processes[&us].threads > 1 && tree.processes[&us].resident_pages > 0);
    }
}
