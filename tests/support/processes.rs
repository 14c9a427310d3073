//! Other processes, as /proc has them.

use std::fs;

/// The parent of a process; `None` when it is gone.
pub fn parent(id: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // `pid (name) state ppid …`, and the name may hold anything.
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

/// Everything below a process, with its command line.
pub fn below(root: i32) -> Vec<(i32, String)> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let parents: Vec<(i32, i32)> = ids.filter_map(|id| Some((id, parent(id)?))).collect();
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(of) = open.pop() {
        for (id, _) in parents.iter().filter(|(_, parent)| *parent == of) {
            open.push(*id);
            let command = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            found.push((*id, String::from_utf8_lossy(&command).replace('\0', " ")));
        }
    }
    found
}

/// A figure of its memory in bytes, such as `VmRSS`; `None` when the process has ended.
pub fn memory(id: u32, figure: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'))?;
    Some(line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()? * 1024)
}
