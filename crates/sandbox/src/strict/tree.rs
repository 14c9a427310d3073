//! The tree of processes: which are below another, by who started whom, and what they use together.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::proc::{self, Process};

/// Processes that map more than this together, in bytes, may have page tables that count beside their resident memory.
const SPARSE: u64 = 4 << 30;

/// All processes of the PID namespace at one moment.
#[derive(Debug, Default)]
pub(super) struct Tree {
    processes: BTreeMap<i32, Process>,
}

/// What the processes below one have together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// The PIDs of those that are no zombies.
    pub(super) live: Vec<i32>,
    /// How many there are. Zombies too: their PIDs are taken.
    pub(super) processes: u64,
    /// How many threads they have, zombies at least one each.
    pub(super) threads: u64,
    /// Their resident memory in bytes. Memory that they share is counted for each of them.
    pub(super) resident: u64,
    /// What is not resident and counts all the same, page tables for one, when there may be much of it.
    pub(super) tables: u64,
}

impl Usage {
    /// What they take of the memory, in bytes.
    pub(super) fn taken(&self) -> u64 {
        self.resident + self.tables
    }
}

impl Tree {
    /// Looks at /proc. What is gone before it is looked at is left out.
    ///
    /// # Errors
    /// When it cannot be looked at, or does not even show ourselves.
    pub(super) fn read() -> io::Result<Self> {
        let mut processes = BTreeMap::new();
        for pid in proc::pids()? {
            processes.extend(Process::read(pid)?.map(|process| (pid, process)));
        }
        if !processes.contains_key(&proc::own_pid()) {
            return Err(io::Error::other("/proc does not show its reader"));
        }
        Ok(Self { processes })
    }

    /// The parent of a process; `None` when there is no such process.
    pub(super) fn parent(&self, pid: i32) -> Option<i32> {
        self.processes.get(&pid).map(|process| process.parent)
    }

    /// The children of a process, zombies too.
    pub(super) fn children(&self, parent: i32) -> impl Iterator<Item = i32> {
        let children = self
            .processes
            .iter()
            .filter(move |(pid, process)| process.parent == parent && **pid != parent);
        children.map(|(pid, _)| *pid)
    }

    /// All processes below this one, zombies too.
    pub(super) fn all_below(&self, root: i32) -> BTreeSet<i32> {
        let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for (pid, process) in &self.processes {
            children.entry(process.parent).or_default().push(*pid);
        }
        let mut found = BTreeSet::new();
        let mut open = vec![root];
        while let Some(pid) = open.pop() {
            for child in children.get(&pid).into_iter().flatten() {
                // /proc is not read in one moment: a PID may have been given to another process meanwhile.
                if *child != root && found.insert(*child) {
                    open.push(*child);
                }
            }
        }
        found
    }

    /// All processes below this one but zombies.
    pub(super) fn below(&self, root: i32) -> Vec<i32> {
        self.usage(root).live
    }

    /// What these processes have together, in bytes, with memory that they share counted once where that can be told.
    pub(super) fn shared_once(&self, processes: &[i32]) -> u64 {
        let mut total = 0;
        let mut files = BTreeMap::new();
        for pid in processes {
            let counted = self.processes.get(pid).map_or(0, Process::resident);
            let Some(shared) = proc::shared(*pid) else {
                total += counted;
                continue;
            };
            total += shared.own.min(counted);
            for (file, resident) in shared.files {
                // Each sees a part of it: the largest is what there is at least.
                let most: &mut u64 = files.entry(file).or_default();
                *most = resident.max(*most);
            }
        }
        total + files.values().sum::<u64>()
    }

    /// What all processes below this one have.
    pub(super) fn usage(&self, root: i32) -> Usage {
        let mut usage = Usage::default();
        let mut mapped = 0_u64;
        for pid in self.all_below(root) {
            let Some(process) = self.processes.get(&pid) else {
                continue;
            };
            usage.processes += 1;
            usage.threads += process.threads;
            if !process.is_zombie {
                usage.live.push(pid);
                usage.resident += process.resident();
                mapped = mapped.saturating_add(process.mapped);
            }
        }
        // Another file for each of them: not for nothing.
        if mapped > SPARSE {
            usage.tables = usage.live.iter().map(|pid| proc::beside_resident(*pid)).sum();
        }
        usage
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn process(parent: i32, is_zombie: bool) -> Process {
        Process {
            parent,
            group: 1,
            is_zombie,
            threads: 3,
            mapped: 4096,
            resident_pages: 10,
        }
    }

    #[test]
    fn those_below_a_process_are_found_at_any_depth_and_zombies_have_no_memory_and_the_others_do_not_count() {
        let tree = Tree {
            processes: [
                // The init, and an attendant with a command: a shell, its child, and a child of that.
                (1, process(0, false)),
                (2, process(1, false)),
                (3, process(2, false)),
                (4, process(3, true)),
                (5, process(4, false)),
                // Another attendant with another command.
                (6, process(1, false)),
                (7, process(6, false)),
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
    fn the_tree_shows_its_reader() {
        let parent = std::os::unix::process::parent_id().cast_signed();
        assert_eq!(Tree::read().unwrap().parent(proc::own_pid()), Some(parent));
    }
}
