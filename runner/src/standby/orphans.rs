//! Ends what a task's worker has left running. The supervisor is the subreaper, or PID 1: whatever loses its parent
//! comes to it, so that nothing gets away by a double fork or a session of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use plue_sandbox::proc::{Process, own_pid, pids};

/// How long processes may take to be gone. One that waits for a device hears no signal.
const LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at processes that were killed and are not gone yet.
const PAUSE: Duration = Duration::from_millis(1);
/// How many rounds of stopping there are at most, before those that were stopped are killed.
const STOPPING: u32 = 20;
/// How many generations there may be between a process and us. Numbers come back, and must not lead in a circle.
const DEEPEST: u32 = 40_000;

/// Makes this process the parent of whatever loses its own below it.
///
/// # Errors
/// When the kernel does not have that.
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Ends and reaps every process below this one, but for those to keep and what is below them. Gives the names of what
/// it ended. Blocks until all are gone.
///
/// A child that somebody waits for has to be kept, or waited for before: it would be reaped under their hands.
///
/// # Errors
/// When processes cannot be seen, or some are not gone in time.
pub fn end_processes(keep: &[Pid]) -> io::Result<Vec<String>> {
    let keep = keep.iter().map(|pid| pid.as_raw_nonzero().get()).collect();
    let family = Family { us: own_pid(), keep };
    let deadline = Instant::now() + LIMIT;
    let mut ended = BTreeMap::new();
    loop {
        // Who is killed makes room for another one, who is stopped does not: so first all of them are stopped.
        for _ in 0..STOPPING {
            let found = family.sweep(Signal::STOP)?;
            let mut fresh = false;
            for pid in found.live {
                ended.entry(pid).or_insert_with(|| {
                    fresh = true;
                    name_of(pid)
                });
            }
            if !fresh {
                break;
            }
        }
        let left = family.sweep(Signal::KILL)?;
        if left.live.is_empty() && left.others == 0 {
            return Ok(ended.into_values().collect());
        }
        if Instant::now() > deadline {
            let names: Vec<String> = left.live.into_iter().map(name_of).collect();
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "processes that were killed are not gone after {LIMIT:?}: {} and {} that have ended",
                    names.join(", "),
                    left.others
                ),
            ));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Who is ours to end.
struct Family {
    us: i32,
    keep: BTreeSet<i32>,
}

/// What one look at all processes has found of them.
#[derive(Default)]
struct Found {
    live: BTreeSet<i32>,
    /// Those that have ended, and those that cannot be told yet. The next look knows more.
    others: usize,
}

impl Family {
    /// Sends a signal to every one of them that runs, and reaps those that have ended.
    ///
    /// The youngest come first, and each hears of it as soon as it is seen: one that starts the next one and ends lives
    /// for a millisecond, less than it takes to look at all.
    fn sweep(&self, signal: Signal) -> io::Result<Found> {
        let mut found = Found::default();
        let mut pids = pids()?;
        pids.sort_unstable_by(|one, other| other.cmp(one));
        for pid in pids {
            if pid == self.us || self.keep.contains(&pid) {
                continue;
            }
            let Some(Process { parent, is_zombie, .. }) = Process::read(pid)? else {
                continue;
            };
            match self.has(parent)? {
                Some(false) => {}
                Some(true) if !is_zombie => {
                    send(pid, signal);
                    found.live.insert(pid);
                }
                Some(true) => {
                    if parent == self.us {
                        reap(pid);
                    }
                    found.others += 1;
                }
                None => found.others += 1,
            }
        }
        Ok(found)
    }

    /// Whether the children of a process are of the family. `None` when it is gone already, and they have another
    /// parent.
    fn has(&self, parent: i32) -> io::Result<Option<bool>> {
        let mut pid = parent;
        for _ in 0..DEEPEST {
            if pid == self.us {
                return Ok(Some(true));
            }
            if pid <= 1 || self.keep.contains(&pid) {
                return Ok(Some(false));
            }
            match Process::read(pid)? {
                Some(process) => pid = process.parent,
                None => return Ok(None),
            }
        }
        Ok(None)
    }
}

fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // Gone already: just as well.
        let _ = kill_process(pid, signal);
    }
}

/// Has the kernel forget one that has ended. When it is not our child yet, its parent is about to end.
fn reap(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

fn name_of(pid: i32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name = String::from_utf8_lossy(name.strip_suffix(b"\n").unwrap_or(&name)).into_owned();
    format!("{} ({pid})", name.escape_debug())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::{Command, Stdio};

    use super::*;

    /// Ends every process below the one that it runs in, so that it needs one of its own.
    fn in_its_own_process(test: &str) {
        let module = module_path!().split_once("::").unwrap().1;
        let output = Command::new(std::env::current_exe().unwrap())
            .args([&format!("{module}::{test}"), "--exact", "--ignored", "--nocapture"])
            .env("PLUE_TEST_ALONE", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }

    /// Whether this is the process of [`in_its_own_process`], and not one where all ignored tests run.
    fn alone() -> bool {
        std::env::var_os("PLUE_TEST_ALONE").is_some()
    }

    fn shell(script: &str) -> std::process::Child {
        Command::new("/bin/sh")
            .args(["-c", script])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn below_us() -> usize {
        let family = Family {
            us: own_pid(),
            keep: BTreeSet::new(),
        };
        // SIGCONT does nothing to a process that runs.
        let found = family.sweep(Signal::CONT).unwrap();
        found.live.len() + found.others
    }

    fn wait_until(what: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !what() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(PAUSE);
        }
    }

    #[test]
    fn a_daemon_in_a_session_of_its_own_is_ended_and_what_is_kept_is_not() {
        in_its_own_process("daemon");
    }

    #[test]
    #[ignore = "run by the test above"]
    fn daemon() {
        if !alone() {
            return;
        }
        become_subreaper().unwrap();
        let mut kept = shell("sleep 97 & wait");
        // The shell ends, and so does its child: what setsid starts has no parent but us.
        let mut gone = shell("(setsid sh -c 'trap \"\" TERM HUP; sleep 98 & wait' &) ; exit 0");
        gone.wait().unwrap();
        wait_until(|| below_us() == 4);
        let keep = Pid::from_child(&kept);
        let ended = end_processes(&[keep]).unwrap();
        assert_eq!(ended.len(), 2, "{ended:?}");
        // One that has just been forked still has its parent's name.
        let named = |name: &String| name.starts_with("sleep (") || name.starts_with("sh (");
        assert!(ended.iter().all(named), "{ended:?}");
        assert_eq!(below_us(), 2);
        assert_eq!(end_processes(&[keep]).unwrap(), Vec::<String>::new());
        assert_eq!(kept.try_wait().unwrap(), None);
        end_processes(&[]).unwrap();
        assert_eq!(below_us(), 0);
    }

    #[test]
    fn nothing_escapes_that_forks_while_it_is_ended() {
        in_its_own_process("storm");
    }

    #[test]
    #[ignore = "run by the test above"]
    fn storm() {
        if !alone() {
            return;
        }
        become_subreaper().unwrap();
        // Eight chains: each process starts the next one, in a session of its own, and ends.
        let link = "trap '' TERM; [ $1 -gt 0 ] && setsid sh -c \"$0\" \"$0\" $(($1 - 1)) & exit 0";
        let chains: Vec<_> = (0..8)
            .map(|_| {
                Command::new("/bin/sh")
                    .args(["-c", link, link, "100000"])
                    .spawn()
                    .unwrap()
            })
            .collect();
        std::thread::sleep(Duration::from_millis(200));
        let ended = end_processes(&[]).unwrap();
        assert!(!ended.is_empty());
        // Whatever had got away would show up again.
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(below_us(), 0);
        drop(chains);
    }
}
