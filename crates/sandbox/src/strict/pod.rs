//! What the pod as a whole has of memory: the bound on commands follows from it, and it shows what no process's own
//! count does. Socket buffers, page tables and shared memory that nobody maps any more belong to no process, and in a
//! pod the kernel would end the runner for them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
const MEMINFO: &str = "/proc/meminfo";
/// What gVisor's own process takes, which other kernels do not have.
const GVISOR: &str = "/proc/sentry-meminfo";
/// The longest file that is read here, in bytes.
const MAX_FILE: usize = 16 * 1024;
/// The share of a limit that must be left, and what is enough of it on a large machine.
const RESERVE_SHARE: u64 = 32;
const MAX_RESERVE: u64 = 256 << 20;
/// A cgroup of the first version without a limit has the largest multiple of a page.
const NO_LIMIT: u64 = 1 << 62;

/// Whether the kernel is gVisor's, by what only it tells.
pub(super) fn is_gvisor() -> bool {
    Path::new(GVISOR).exists()
}

/// The two versions of the kernel's interface: the files of the use and its limit, and the lines of `memory.stat` that
/// count what the kernel gives back when it has to.
struct Version {
    usage: &'static str,
    limit: &'static str,
    reclaimable: &'static [&'static str],
}

const VERSION_2: Version = Version {
    usage: "memory.current",
    limit: "memory.max",
    reclaimable: &["inactive_file", "active_file", "slab_reclaimable"],
};
const VERSION_1: Version = Version {
    usage: "memory.usage_in_bytes",
    limit: "memory.limit_in_bytes",
    reclaimable: &["total_inactive_file", "total_active_file"],
};

/// The tightest control group that we are in.
struct Group {
    version: &'static Version,
    folder: PathBuf,
    /// In bytes.
    limit: u64,
}

impl Group {
    /// `None`: none has a limit, or there are no control groups to be seen.
    fn find() -> Option<Self> {
        let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::find_in(Path::new(CGROUPS), &membership)
    }

    /// The same with the lines of /proc/self/cgroup: `number:controllers:path`, where the second version has no
    /// controllers.
    fn find_in(mounted: &Path, membership: &str) -> Option<Self> {
        let lines = membership.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let path = path.trim_start_matches('/');
            match controllers {
                "" => Some((&VERSION_2, mounted.to_owned(), path)),
                _ if controllers.split(',').any(|name| name == "memory") => {
                    Some((&VERSION_1, mounted.join("memory"), path))
                }
                _ => None,
            }
        });
        let groups = lines.flat_map(|(version, root, path)| {
            // What is mounted may be our own group, which then has no path to it.
            let own = root.join(path);
            let above: Vec<PathBuf> = own
                .ancestors()
                .take_while(|folder| folder.starts_with(&root))
                .map(Path::to_owned)
                .collect();
            above.into_iter().filter_map(move |folder| {
                let limit = number(&fs::read_to_string(folder.join(version.limit)).ok()?)?;
                (limit < NO_LIMIT).then_some(Group { version, folder, limit })
            })
        });
        groups.min_by_key(|group| group.limit)
    }
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The value of a line `name value`, or `name: value kB`, in its own unit.
fn line(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix([' ', ':']))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What this pod, or machine, may use, in bytes.
pub(super) fn memory() -> u64 {
    let meminfo = fs::read_to_string(MEMINFO).unwrap_or_default();
    // A machine that does not even say how much memory it has gets a bound that a small pod can keep.
    let machine = line(&meminfo, "MemTotal").map_or(1 << 30, |kib| kib * 1024);
    Group::find().map_or(machine, |group| machine.min(group.limit))
}

/// What `cpu.max` says when nothing is held back.
pub(super) const ALL_PROCESSORS: &str = "max 100000";

/// The smallest share of the processors that a control group gives us, as `cpu.max` says it: microseconds in each
/// period of so many. `None`: none is told.
pub(super) fn processor_share() -> Option<String> {
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    processor_share_in(Path::new(CGROUPS), &membership)
}

fn processor_share_in(mounted: &Path, membership: &str) -> Option<String> {
    let path = membership.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let own = mounted.join(path);
    let groups = own.ancestors().take_while(|folder| folder.starts_with(mounted));
    let shares = groups.filter_map(|folder| {
        let text = fs::read_to_string(folder.join("cpu.max")).ok()?;
        let (quota, period) = text.trim().split_once(' ')?;
        let (quota, period) = (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?);
        // By thousandths of a processor.
        (period > 0).then(|| (quota * 1000 / period, format!("{quota} {period}")))
    });
    shares.min().map(|(_, text)| text)
}

/// Reads what the pod uses, again and again, from files that were opened before commands' own /sys covers them.
pub(super) struct Meter {
    source: Source,
}

enum Source {
    /// A kernel that is the pod's alone, and tells what itself takes: buffers, names, and all else that it keeps for
    /// us.
    Gvisor {
        meminfo: File,
        kernel: File,
    },
    Group {
        group: Group,
        usage: File,
        stat: File,
    },
    Machine {
        meminfo: File,
    },
}

/// What a [`Meter`] reads, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// What the kernel cannot take back. Of a machine that is not ours alone, the shared memory only.
    pub(super) held: u64,
    /// Whether so little is left that the kernel may soon end somebody.
    pub(super) is_short: bool,
}

impl Meter {
    /// # Errors
    /// When neither a control group nor the machine says what is used.
    pub(super) fn open() -> io::Result<Self> {
        let meminfo = || File::open(MEMINFO);
        if let Ok(kernel) = File::open(GVISOR) {
            let source = Source::Gvisor {
                meminfo: meminfo()?,
                kernel,
            };
            return Ok(Self { source });
        }
        let source = match Group::find() {
            Some(group) => Source::Group {
                usage: File::open(group.folder.join(group.version.usage))?,
                stat: File::open(group.folder.join("memory.stat"))?,
                group,
            },
            None => Source::Machine { meminfo: meminfo()? },
        };
        Ok(Self { source })
    }

    /// # Errors
    /// When a file cannot be read any more, or does not say it.
    pub(super) fn read(&self) -> io::Result<Reading> {
        let missing = || io::Error::new(io::ErrorKind::InvalidData, "the memory of the pod is not told");
        let (held, left, limit) = match &self.source {
            Source::Group { group, usage, stat } => {
                let used = number(&again(usage)?).ok_or_else(missing)?;
                let stat = again(stat)?;
                let reclaimable: u64 = group
                    .version
                    .reclaimable
                    .iter()
                    .filter_map(|name| line(&stat, name))
                    .sum();
                let held = used.saturating_sub(reclaimable);
                (held, group.limit.saturating_sub(held), group.limit)
            }
            Source::Gvisor { meminfo, kernel } => {
                let (meminfo, kernel) = (again(meminfo)?, again(kernel)?);
                let kib = |text: &str, name| line(text, name).ok_or_else(missing);
                // What is in memory file systems is among the anonymous pages here.
                let held = kib(&meminfo, "AnonPages")? + kib(&kernel, "Sys")?;
                (
                    held * 1024,
                    kib(&meminfo, "MemAvailable")? * 1024,
                    kib(&meminfo, "MemTotal")? * 1024,
                )
            }
            Source::Machine { meminfo } => {
                let meminfo = again(meminfo)?;
                let kib = |name| line(&meminfo, name).ok_or_else(missing);
                (
                    kib("Shmem")? * 1024,
                    kib("MemAvailable")? * 1024,
                    kib("MemTotal")? * 1024,
                )
            }
        };
        let is_short = left < (limit / RESERVE_SHARE).min(MAX_RESERVE);
        Ok(Reading { held, is_short })
    }
}

/// The whole of a file of the kernel's, as it is now.
fn again(file: &File) -> io::Result<String> {
    let mut buffer = vec![0; MAX_FILE];
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], length as u64)? {
            0 => break,
            count => length += count,
        }
    }
    buffer.truncate(length);
    String::from_utf8(buffer).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn group(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        for (name, content) in files {
            fs::write(folder.join(name), content).unwrap();
        }
    }

    #[test]
    fn the_tightest_group_counts_whichever_it_is() {
        let mounted = tempfile::tempdir().unwrap();
        let root = mounted.path();
        assert!(Group::find_in(root, "0::/a/b\n").is_none());
        group(&root.join("a"), &[("memory.max", "1000\n")]);
        group(&root.join("a/b"), &[("memory.max", "max\n")]);
        group(
            &root.join("memory"),
            &[("memory.limit_in_bytes", "9223372036854771712\n")],
        );
        group(&root.join("memory/c"), &[("memory.limit_in_bytes", "900\n")]);
        let of = |membership: &str| Group::find_in(root, membership).map(|group| (group.limit, group.folder));
        assert_eq!(of("0::/a/b\n"), Some((1000, root.join("a"))));
        assert_eq!(of("4:cpu,memory:/c\n0::/a/b\n"), Some((900, root.join("memory/c"))));
        assert_eq!(of("3:memory:/\n2:cpuset:/c\n"), None);
        // A container sees its own group as the root of them all.
        group(root, &[("memory.max", "500\n")]);
        assert_eq!(of("0::/\n"), Some((500, root.to_owned())));
    }

    #[test]
    fn what_the_kernel_gives_back_is_not_held_and_the_last_of_a_limit_is_short() {
        let mounted = tempfile::tempdir().unwrap();
        let stat = "anon 5\ninactive_file 200\nactive_file 100\nslab_reclaimable 50\n";
        group(
            mounted.path(),
            &[
                ("memory.max", "6400"),
                ("memory.current", "1350\n"),
                ("memory.stat", stat),
            ],
        );
        let group = Group::find_in(mounted.path(), "0::/\n").unwrap();
        let open = |name| File::open(mounted.path().join(name)).unwrap();
        let meter = Meter {
            source: Source::Group {
                group,
                usage: open("memory.current"),
                stat: open("memory.stat"),
            },
        };
        assert_eq!(
            meter.read().unwrap(),
            Reading {
                held: 1000,
                is_short: false
            }
        );
        fs::write(mounted.path().join("memory.current"), "6560\n").unwrap();
        assert_eq!(
            meter.read().unwrap(),
            Reading {
                held: 6210,
                is_short: true
            }
        );
    }

    #[test]
    fn the_smallest_share_of_the_processors_counts() {
        let mounted = tempfile::tempdir().unwrap();
        let root = mounted.path();
        assert_eq!(processor_share_in(root, "0::/a/b\n"), None);
        group(&root.join("a/b"), &[("cpu.max", "max 100000\n")]);
        assert_eq!(processor_share_in(root, "0::/a/b\n"), None);
        group(&root.join("a"), &[("cpu.max", "150000 100000\n")]);
        group(root, &[("cpu.max", "50000 25000\n")]);
        assert_eq!(processor_share_in(root, "0::/a/b\n").as_deref(), Some("150000 100000"));
    }

    #[test]
    fn this_machine_tells_its_memory() {
        assert!(memory() > 1 << 20);
        let meter = Meter::open().unwrap();
        assert!(!meter.read().unwrap().is_short);
    }
}
