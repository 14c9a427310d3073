//! What `/proc` tells of processes and of mounts, read in one place.
//!
//! Not by a library: gVisor's `/proc` lacks some of Linux's lines and files, and what is missing must not end a
//! command.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The PID of this process.
pub fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// The PIDs of all processes that this one sees, in no order. Zombies are among them.
///
/// # Errors
/// When `/proc` cannot be listed.
pub fn pids() -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(pids)
}

/// One process, as its `/proc/PID/stat` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// The PID of its parent; 0 when that is outside of the PID namespace.
    pub parent: i32,
    /// The number of its process group.
    pub group: i32,
    /// A zombie: it has exited, and its parent has not called waitpid. It has no memory any more, and hears no signal.
    pub is_zombie: bool,
    /// One at least.
    pub threads: u64,
    /// All that it maps, in bytes.
    pub mapped: u64,
    /// Pages of its memory that are in the machine's.
    pub resident_pages: u64,
}

impl Process {
    /// A process as it is now; `None` when it is gone.
    ///
    /// # Errors
    /// When `/proc` cannot be read, for another reason than the end of the process.
    pub fn read(pid: i32) -> io::Result<Option<Self>> {
        match fs::read(format!("/proc/{pid}/stat")) {
            Ok(stat) => Ok(Self::parse(&stat).map(|process| process.with_its_threads(pid))),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Its resident memory, in bytes. What it shares with others is counted whole.
    pub fn resident(&self) -> u64 {
        self.resident_pages * rustix::param::page_size() as u64
    }

    /// Reads a line of `/proc/PID/stat`: `pid (name) state parent group …`. The name may hold anything, parentheses and
    /// newlines too, so that the last `)` ends it. `None` when it is no such line.
    pub(super) fn parse(stat: &[u8]) -> Option<Self> {
        let end = stat.iter().rposition(|&byte| byte == b')')?;
        let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
        // The state is field 3 of the line.
        let mut fields = rest.split_ascii_whitespace();
        let is_zombie = matches!(fields.next()?, "Z" | "X");
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().unwrap_or(0);
        let threads = fields.nth(14)?.parse::<u64>().unwrap_or(0).max(1);
        let mapped = fields.nth(2)?.parse().unwrap_or(0);
        let resident_pages = fields.next()?.parse().unwrap_or(0);
        Some(Self {
            parent,
            group,
            is_zombie,
            threads,
            mapped,
            resident_pages,
        })
    }

    /// A process whose first thread has exited looks like a zombie, and shows no memory there. Its other threads go on,
    /// and have all of it: one of them is looked at in its place.
    fn with_its_threads(self, pid: i32) -> Self {
        if !self.is_zombie || self.threads <= 1 {
            return self;
        }
        let threads = fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten();
        let stats = threads.filter_map(|thread| Self::parse(&fs::read(thread.path().join("stat")).ok()?));
        let living = stats
            .filter(|thread| !thread.is_zombie)
            .max_by_key(|thread| thread.resident_pages);
        living.map_or(self, |thread| Self {
            parent: self.parent,
            ..thread
        })
    }
}

/// Whether a file of a process cannot be read because the process is gone.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// The resident memory of a process, of which what it shares with others can be told apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shared {
    /// What counts for this process, in bytes.
    pub(super) own: u64,
    /// Files that it has mapped, by device and number, with what is resident of each. They count once for all.
    pub(super) files: BTreeMap<(String, u64), u64>,
}

/// Looks at a process that way. Slow: the kernel walks its page tables. `None` where it cannot be had, and for a
/// process that has exited.
pub(super) fn shared(pid: i32) -> Option<Shared> {
    // Pages that it shares count in part there (Pss).
    if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
        let own = line_in_kib(&text, "Pss:")?;
        return Some(Shared {
            own,
            ..Shared::default()
        });
    }
    // gVisor has only the longer form, in which shared pages count whole.
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?;
    shared_by_mappings(&text)
}

/// The value of a line `name 12 kB`, in bytes.
fn line_in_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace()
        .next()?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

/// Reads the form with a head for each mapping, `from-to rights offset device inode path`, and lines about it. `None`
/// when nothing is told.
fn shared_by_mappings(text: &str) -> Option<Shared> {
    let mut shared = None;
    let mut file = None;
    for line in text.lines() {
        if let Some(kib) = line.strip_prefix("Rss:") {
            let kib: u64 = kib.split_whitespace().next()?.parse().ok()?;
            let shared: &mut Shared = shared.get_or_insert_default();
            match file.take() {
                Some(file) => *shared.files.entry(file).or_default() += kib * 1024,
                None => shared.own += kib * 1024,
            }
        } else if let Some((head, _)) = line.split_once(' ').filter(|(head, _)| head.contains('-')) {
            let mut fields = line[head.len()..].split_whitespace();
            let (rights, device, inode) = (fields.next(), fields.nth(1), fields.next());
            let inode = inode.and_then(|inode| inode.parse().ok()).filter(|inode| *inode != 0);
            // What a process has written in its own view of a file is its own.
            let is_own = rights.is_none_or(|rights| rights.contains('w') && rights.ends_with('p'));
            file = inode
                .filter(|_| !is_own)
                .map(|inode| (device.unwrap_or_default().to_owned(), inode));
        }
    }
    shared
}

/// What of a process's memory is in no count of what is resident, in bytes: its page tables, 2 MiB for each GiB that is
/// touched thinly, what is swapped out, and its huge pages.
pub(super) fn beside_resident(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    // gVisor has no such lines, and no such tables.
    let names = ["VmPTE:", "VmSwap:", "HugetlbPages:"];
    names.iter().filter_map(|name| line_in_kib(&status, name)).sum()
}

/// The name of a process's program, as the kernel has it; `None` when it is gone.
pub(super) fn name(pid: i32) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end_matches('\n').to_owned())
}

/// How often somebody in our network namespace has asked for a place that no route leads to, or for a name server where
/// there is none. `None` where the kernel does not count.
pub(super) fn unreached() -> Option<u64> {
    counted_unreached(&fs::read_to_string("/proc/net/snmp").ok()?)
}

/// The two numbers in the lines of /proc/net/snmp, of which each pair has the names first: `Ip: A B` and `Ip: 1 2`.
fn counted_unreached(text: &str) -> Option<u64> {
    let value = |group: &str, wanted: &str| {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(group));
        let (names, values) = (lines.next()?, lines.next()?);
        let place = names.split_whitespace().position(|name| name == wanted)?;
        values.split_whitespace().nth(place)?.parse::<u64>().ok()
    };
    Some(value("Ip: ", "OutNoRoutes")? + value("Udp: ", "NoPorts").unwrap_or(0))
}

/// One mount, as a line of `/proc/self/mountinfo` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its number.
    pub id: u64,
    /// The number of the mount that it lies in.
    pub parent: u64,
    /// Where it is mounted.
    pub place: PathBuf,
    /// Its own options with commas between them, `ro,nosuid` for instance. Not those of its file system.
    pub options: String,
    /// The kind of its file system, `ext4` for instance; empty when the line does not tell.
    pub kind: String,
}

impl Mount {
    /// Whether it has this option.
    pub fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|one| one == option)
    }

    /// Reads a line: `id parent device root place options … - kind …`. `None` when it is no such line.
    fn parse(line: &[u8]) -> Option<Self> {
        fn number(field: &[u8]) -> Option<u64> {
            std::str::from_utf8(field).ok()?.parse().ok()
        }
        let mut fields = line.split(|&byte| byte == b' ');
        Some(Self {
            id: number(fields.next()?)?,
            parent: number(fields.next()?)?,
            place: unescape(fields.nth(2)?),
            options: String::from_utf8_lossy(fields.next()?).into_owned(),
            kind: {
                let kind = fields.skip_while(|field| *field != b"-").nth(1);
                String::from_utf8_lossy(kind.unwrap_or_default()).into_owned()
            },
        })
    }
}

/// All mounts that this process sees. Of several at one place the last lies over the others.
///
/// # Errors
/// When the table cannot be read.
pub fn mounts() -> io::Result<Vec<Mount>> {
    let table = fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|&byte| byte == b'\n').filter_map(Mount::parse).collect())
}

/// A path as it stands in the table: space, tab, newline and backslash as a backslash and three octal digits.
fn unescape(mut field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    while let Some((&first, rest)) = field.split_first() {
        let code = rest.get(..3).filter(|_| first == b'\\');
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(first));
        field = if code.is_some() { &rest[3..] } else { rest };
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        for name in ["sh", "a b) S 1 (c", ") Z 1", "", "\u{202e}", "\n"] {
            let between = "1 ".repeat(14);
            let line = format!("7 ({name}) S 3 5 {between}3 0 0 4096 25 18446744073709551615 1 1");
            let expected = Process {
                parent: 3,
                group: 5,
                is_zombie: false,
                threads: 3,
                mapped: 4096,
                resident_pages: 25,
            };
            assert_eq!(Process::parse(line.as_bytes()), Some(expected), "{name:?}");
        }
        assert_eq!(Process::parse(b"7 (sh"), None);
    }

    #[test]
    fn this_process_is_among_all_and_shows_its_threads_and_memory() {
        assert!(pids().unwrap().contains(&own_pid()));
        let process = Process::read(own_pid()).unwrap().unwrap();
        assert!(!process.is_zombie && process.threads > 1 && process.resident() > 0);
        assert_eq!(process.parent, std::os::unix::process::parent_id().cast_signed());
        assert_eq!(process.group, rustix::process::getpgrp().as_raw_nonzero().get());
        // No system gives out so large a PID.
        assert_eq!(Process::read(i32::MAX).unwrap(), None);
    }

    #[test]
    fn a_file_that_is_mapped_is_told_apart_from_what_is_a_processs_own() {
        let text = "00400000-00500000 r-xp 00000000 00:0b 77 /usr/bin/program\nSize: 1024 kB\nRss: 100 kB\nPss: 100 \
            kB\n\
                    00500000-00600000 r--p 00100000 00:0b 77 /usr/bin/program\nRss: 20 kB\n\
                    00600000-00700000 rw-p 00100000 00:0b 77 /usr/bin/program\nRss: 5 kB\n\
                    00700000-00800000 rw-s 00000000 00:01 9 /dev/shm/x\nRss: 50 kB\n\
                    7f0000000000-7f0000100000 rw-p 00000000 00:00 0\nRss: 7 kB\n";
        let shared = shared_by_mappings(text).unwrap();
        assert_eq!(shared.own, 12 << 10);
        let file = |device: &str, inode| (device.to_owned(), inode);
        let expected = [(file("00:01", 9), 50 << 10), (file("00:0b", 77), 120 << 10)];
        assert_eq!(shared.files, BTreeMap::from(expected));
        assert_eq!(shared_by_mappings(""), None);
        let own = super::shared(own_pid()).unwrap();
        assert!(own.own > 0 && own.files.is_empty());
    }

    #[test]
    fn what_no_route_leads_to_is_counted_with_name_servers_that_are_not_there() {
        let text = "Ip: Forwarding OutNoRoutes\nIp: 2 3\nUdp: InDatagrams NoPorts\nUdp: 0 4\n";
        assert_eq!(counted_unreached(text), Some(7));
        assert_eq!(counted_unreached("Ip: Forwarding\nIp: 1\n"), None);
        assert!(unreached().is_some());
    }

    #[test]
    fn a_line_of_the_mount_table_is_read_whatever_the_place_is_called() {
        let mount = |place: &[u8], options: &str, kind: &str| Mount {
            id: 36,
            parent: 35,
            place: Path::new(std::ffi::OsStr::from_bytes(place)).to_owned(),
            options: options.to_owned(),
            kind: kind.to_owned(),
        };
        let cases: [(&[u8], Option<Mount>); 5] = [
            (
                br"36 35 98:0 /a /mnt/a\040b\134c\012 rw,noexec master:1 - ext3 /dev/root rw,errors=continue",
                Some(mount(b"/mnt/a b\\c\n", "rw,noexec", "ext3")),
            ),
            (b"36 35 98:0 / /\xff ro", Some(mount(b"/\xff", "ro", ""))),
            (br"36 35 98:0 / /end\ rw", Some(mount(br"/end\", "rw", ""))),
            (b"36 35", None),
            (b"no mount", None),
        ];
        for (line, expected) in cases {
            assert_eq!(Mount::parse(line), expected);
        }
        assert!(mounts().unwrap().iter().any(|mount| mount.place == Path::new("/")));
        let mount = Mount::parse(b"1 2 0:1 / / ro,nosuid rw").unwrap();
        assert!(mount.has("ro") && !mount.has("rw"));
    }
}
