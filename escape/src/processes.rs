//! What is left of a run when it should be over, by looking into /proc.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a process that was killed may take to go.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it has to be seen at least. On a busy machine that much time may lie between two looks, and what one of
/// them sees may be another scene's, and about to end: then it has no arguments any more that would tell.
const LOOKS: u32 = 5;
/// How long there may be processes that come and go.
const PATIENCE_WITH_ALL: Duration = Duration::from_secs(15);

/// The children that this program has by itself. What is left of a runner's processes becomes our child, since we are
/// their subreaper; it is told apart from these by when it appears.
#[derive(Debug, Default)]
pub struct Adopted {
    /// How many of them have a number: one that has ended may not be forgotten yet when the next gets its number.
    /// Attacks that fork bring all numbers round within seconds.
    known: Mutex<BTreeMap<i32, u32>>,
}

impl Adopted {
    /// Starts a child of our own, which is known before anybody can look for it.
    pub fn start<T>(
        &self,
        start: impl FnOnce() -> io::Result<T>,
        id: impl FnOnce(&T) -> Option<u32>,
    ) -> io::Result<(T, i32)> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let child = start()?;
        let pid = id(&child).and_then(|id| i32::try_from(id).ok());
        let pid = pid.ok_or_else(|| io::Error::other("a child that was just started has no id"))?;
        *known.entry(pid).or_default() += 1;
        Ok((child, pid))
    }

    /// It has ended, and its number may come again.
    pub fn forget(&self, pid: i32) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = known.get_mut(&pid) {
            *count -= 1;
            if *count == 0 {
                known.remove(&pid);
            }
        }
    }

    fn is_known(&self, pid: i32) -> bool {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(&pid)
    }

    /// The processes of a scene that are still there after a while, by what they are. They are ended.
    pub async fn left_over(&self, scene: &str) -> Vec<String> {
        let started = Instant::now();
        let mut seen: BTreeMap<i32, (Instant, u32)> = BTreeMap::new();
        loop {
            let left: Vec<Process> = self.of_scene(scene);
            if left.is_empty() {
                return Vec::new();
            }
            seen.retain(|pid, _| left.iter().any(|process| process.pid == *pid));
            for process in &left {
                seen.entry(process.pid).or_insert((Instant::now(), 0)).1 += 1;
            }
            let stays = seen
                .values()
                .any(|(since, looks)| since.elapsed() > PATIENCE && *looks >= LOOKS);
            if stays || started.elapsed() > PATIENCE_WITH_ALL {
                end(&left);
                return left
                    .into_iter()
                    .map(|process| format!("process {} ({})", process.pid, process.shown))
                    .collect();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends what is left of a baseline.
    pub async fn end_all(&self, scene: &str) {
        for _ in 0..50 {
            let left: Vec<Process> = self.of_scene(scene);
            if left.is_empty() {
                return;
            }
            end(&left);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The processes that carry the scene's mark, and those that became ours because their parent ended.
    fn of_scene(&self, scene: &str) -> Vec<Process> {
        let us = std::process::id().cast_signed();
        let mut found = Vec::new();
        for process in all() {
            if process.pid == us || self.is_known(process.pid) {
                continue;
            }
            let orphan = process.parent == us;
            if process.dead {
                if orphan {
                    let pid = rustix::process::Pid::from_raw(process.pid);
                    let _ = rustix::process::waitpid(pid, rustix::process::WaitOptions::NOHANG);
                }
                continue;
            }
            // One that is another scene's is left to that.
            let nobodys = orphan && !carries(process.pid, "plue-escape-");
            if nobodys || carries(process.pid, scene) {
                found.push(process);
            }
        }
        found
    }
}

struct Process {
    pid: i32,
    parent: i32,
    dead: bool,
    shown: String,
}

fn end(processes: &[Process]) {
    for process in processes {
        if let Some(pid) = rustix::process::Pid::from_raw(process.pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // `pid (name) state ppid …`, and the name may hold anything.
            let (name, rest) = stat.rsplit_once(')')?;
            let mut fields = rest.split_whitespace();
            let dead = matches!(fields.next()?, "Z" | "X");
            let parent = fields.next()?.parse().ok()?;
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let shown = if command.trim().is_empty() {
                name.rsplit_once('(').map_or("", |(_, name)| name).to_owned()
            } else {
                command.trim().chars().take(200).collect()
            };
            Some(Process {
                pid,
                parent,
                dead,
                shown,
            })
        })
        .collect()
}

/// Whether this mark is in a process's arguments, variables, working directory or program.
fn carries(pid: i32, mark: &str) -> bool {
    let folder = Path::new("/proc").join(pid.to_string());
    let holds = |bytes: &[u8]| crate::secrets::contains(bytes, mark.as_bytes());
    ["cmdline", "environ"]
        .iter()
        .any(|file| fs::read(folder.join(file)).is_ok_and(|bytes| holds(&bytes)))
        || ["cwd", "exe"]
            .iter()
            .any(|link| fs::read_link(folder.join(link)).is_ok_and(|path| holds(path.as_os_str().as_encoded_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_known_until_it_is_forgotten_itself_and_not_another_that_had_its_number() {
        let adopted = Adopted::default();
        for _ in 0..2 {
            adopted.start(|| Ok(()), |()| Some(7)).unwrap();
        }
        adopted.forget(7);
        assert!(adopted.is_known(7));
        adopted.forget(7);
        assert!(!adopted.is_known(7));
        adopted.forget(7);
    }
}
