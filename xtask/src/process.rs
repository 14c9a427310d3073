//! Running other programs: what is being done and for how long is always visible, and a failure says what to look at.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a log that nobody watches is told that a long command still runs.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How often a person at a terminal sees the time move.
const TICK: Duration = Duration::from_secs(1);
/// How often a command is looked at; what a command takes longer than it needs is at most this.
const POLL: Duration = Duration::from_millis(10);
/// How long the rest of a command's output is waited for when the command has ended.
const RELAY_LIMIT: Duration = Duration::from_secs(5);
/// How much of a quiet command's output is shown when it fails.
const SHOWN_LINES: usize = 60;

/// What cargo sets for the program that it runs, besides `CARGO_PKG_…`. A cargo that is started by that program must
/// not see it: build scripts watch some of these, and would run again.
const SET_BY_CARGO_RUN: [&str; 3] = ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PRIMARY_PACKAGE"];

/// One command that is about to run, and what it is for.
pub struct Run {
    purpose: String,
    command: Command,
    limit: Option<Duration>,
}

impl Run {
    /// A command. `purpose` says what is being done, as in "installing cargo-deny".
    pub fn new(purpose: impl Into<String>, program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || SET_BY_CARGO_RUN.contains(&text.as_ref()) {
                command.env_remove(&name);
            }
        }
        Self {
            purpose: purpose.into(),
            command,
            limit: None,
        }
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    pub fn dir(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Ends the command when it takes longer.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Lets the command show its own output, and fails when it does.
    pub fn live(self) -> Result<()> {
        let line = self.line();
        let purpose = self.purpose.clone();
        let status = self.live_status()?;
        if !status.success() {
            bail!("{purpose} failed ({status}): {line}");
        }
        Ok(())
    }

    /// Lets the command show its own output, and gives how it ended.
    pub fn live_status(mut self) -> Result<ExitStatus> {
        let child = self.start()?;
        // On a terminal the command shows by itself that it is alive, and a line of ours would tear its output apart.
        let progress = if io::stderr().is_terminal() {
            Progress::None
        } else {
            Progress::Heartbeat
        };
        self.wait(child, progress)
    }

    /// Like [`Run::live_status`], for commands that must not have our own output in their hands: gVisor writes to a
    /// file at an offset of its own, so that what it says would overwrite what others say.
    pub fn relayed_status(mut self) -> Result<ExitStatus> {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.start()?;
        let output = child.stdout.take().map(|from| relay(from, io::stdout()));
        let complaints = child.stderr.take().map(|from| relay(from, io::stderr()));
        let status = self.wait(child, Progress::Heartbeat);
        for relay in [output, complaints].into_iter().flatten() {
            let late = Instant::now() + RELAY_LIMIT;
            while !relay.is_finished() && Instant::now() < late {
                thread::sleep(POLL);
            }
        }
        status
    }

    /// Starts the command, all of whose output goes into a file.
    pub fn into_file(mut self, file: File) -> Result<Child> {
        let copy = file.try_clone().context("could not have a file twice")?;
        self.command.stdout(file).stderr(copy);
        self.start()
    }

    /// Keeps the command's output in the file `log`, shows how long it takes, and on a failure the output's end.
    pub fn quiet(mut self, log: &Path) -> Result<()> {
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder).with_context(|| format!("could not make the folder {}", folder.display()))?;
        }
        let file = File::create(log).with_context(|| format!("could not write the log {}", log.display()))?;
        let copy = file
            .try_clone()
            .with_context(|| format!("could not write the log {}", log.display()))?;
        self.command.stdout(file).stderr(copy);
        let child = self.start()?;
        let progress = if io::stderr().is_terminal() {
            Progress::Ticking
        } else {
            Progress::Heartbeat
        };
        let status = self.wait(child, progress)?;
        if !status.success() {
            let output = fs::read(log).unwrap_or_default();
            let output = String::from_utf8_lossy(&output);
            let lines: Vec<&str> = output.lines().collect();
            let end = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
            bail!(
                "{} failed ({status}): {}\n{end}\n(all of it: {})",
                self.purpose,
                self.line(),
                log.display()
            );
        }
        Ok(())
    }

    /// The command's standard output as text; its standard error is part of the error when it fails.
    pub fn read(mut self) -> Result<String> {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = self.start()?;
        let output = child
            .wait_with_output()
            .with_context(|| format!("{}: lost {}", self.purpose, self.line()))?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{} failed ({}): {}\n{}",
                self.purpose,
                output.status,
                self.line(),
                complaint.trim_end()
            );
        }
        String::from_utf8(output.stdout)
            .with_context(|| format!("{}: the output of {} is no UTF-8", self.purpose, self.line()))
    }

    /// The command as one would type it, for messages.
    fn line(&self) -> String {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    fn start(&mut self) -> Result<Child> {
        self.command.spawn().with_context(|| {
            format!(
                "{}: could not start {}; is it installed?",
                self.purpose,
                self.command.get_program().display()
            )
        })
    }

    fn wait(&self, mut child: Child, progress: Progress) -> Result<ExitStatus> {
        let started = Instant::now();
        let mut next = started + progress.interval();
        loop {
            let status = child
                .try_wait()
                .with_context(|| format!("{}: lost {}", self.purpose, self.line()))?;
            if let Some(status) = status {
                progress.clear();
                return Ok(status);
            }
            if self.limit.is_some_and(|limit| started.elapsed() > limit) {
                progress.clear();
                let _ = child.kill();
                let _ = child.wait();
                bail!(
                    "{} took more than {}: {}",
                    self.purpose,
                    spoken(started.elapsed()),
                    self.line()
                );
            }
            if Instant::now() >= next {
                next += progress.interval();
                progress.show(&self.purpose, started.elapsed());
            }
            thread::sleep(POLL);
        }
    }
}

/// Copies what comes, at once, until the end.
fn relay(mut from: impl Read + Send + 'static, mut to: impl Write + Send + 'static) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        // Nobody is there to be told of an error; a reader that has gone away must not stop the command.
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let _ = to.write_all(&buffer[..count]).and_then(|()| to.flush());
        }
    })
}

/// How a running command shows that it goes on.
#[derive(Clone, Copy)]
enum Progress {
    None,
    Heartbeat,
    Ticking,
}

impl Progress {
    fn interval(self) -> Duration {
        if matches!(self, Self::Ticking) { TICK } else { HEARTBEAT }
    }

    fn show(self, purpose: &str, elapsed: Duration) {
        match self {
            Self::None => {}
            Self::Heartbeat => say(&format!("    … {purpose}: {} so far", spoken(elapsed))),
            Self::Ticking => {
                let mut terminal = io::stderr();
                let _ = write!(terminal, "\r\x1b[K    … {purpose}: {} so far", spoken(elapsed));
                let _ = terminal.flush();
            }
        }
    }

    fn clear(self) {
        if matches!(self, Self::Ticking) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Says what begins now.
pub fn announce(what: &str) {
    say(&format!("==> {what}"));
}

/// Says something about the step that runs.
pub fn note(what: &str) {
    say(&format!("    {what}"));
}

/// A line on standard error. Whoever listens may go; the work goes on.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// A text on standard output, which is what was asked for. A reader that has gone (`… | head`) had what it wanted.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("could not write to standard output")
        }
        _ => Ok(()),
    }
}

/// A duration for people: `0.4 s`, `12 s`, `3 min 05 s`.
pub fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        _ => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}

/// How a command ended, as our own exit code.
pub fn exit_code(status: ExitStatus) -> ExitCode {
    // A signal has no code; it is a failure all the same.
    status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}

/// A command with the rights of root: by sudo when we are not root, where that asks for no password.
pub fn as_root(purpose: impl Into<String>, program: impl AsRef<OsStr>) -> Result<Run> {
    Ok(if is_root()? {
        Run::new(purpose, program)
    } else {
        Run::new(purpose, "sudo").arg("--non-interactive").arg(program)
    })
}

/// Removes a folder, and what other users have in it.
pub fn remove_as_root(folder: &Path) -> Result<()> {
    as_root("removing a folder", "rm")?
        .args(["-rf", "--one-file-system", "--"])
        .arg(folder)
        .read()
        .map(drop)
}

/// Whether root runs this.
pub fn is_root() -> Result<bool> {
    Ok(Run::new("asking who runs this", "id").arg("-u").read()?.trim() == "0")
}

/// The cargo that started this program.
pub fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Where a program lies on the PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_reported_with_its_purpose_and_the_end_of_its_output() {
        let log = env::temp_dir().join(format!("xtask-quiet-{}.log", std::process::id()));
        let failed = Run::new("counting", "sh")
            .args(["-c", "echo first; echo last >&2; exit 3"])
            .quiet(&log);
        fs::remove_file(&log).unwrap();
        let message = failed.unwrap_err().to_string();
        for part in ["counting failed", "exit status: 3", "first", "last"] {
            assert!(message.contains(part), "{part:?} is missing in {message}");
        }
    }

    #[test]
    fn a_command_over_its_limit_is_ended() {
        let started = Instant::now();
        let log = env::temp_dir().join(format!("xtask-limit-{}.log", std::process::id()));
        let late = Run::new("sleeping", "sleep")
            .arg("60")
            .limit(Duration::from_millis(50))
            .quiet(&log);
        fs::remove_file(&log).unwrap();
        assert!(late.unwrap_err().to_string().contains("sleeping took more than"));
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_relayed_command_is_ended_too_and_gives_its_own_exit_code() {
        let run = |line| Run::new("relaying", "sh").args(["-c", line]);
        assert_eq!(run("exit 7").relayed_status().unwrap().code(), Some(7));
        let started = Instant::now();
        let late = run("exec sleep 60").limit(Duration::from_millis(50)).relayed_status();
        assert!(late.unwrap_err().to_string().contains("relaying took more than"));
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Run::new("asking", "no-such-program-here").read().unwrap_err();
        assert!(
            error.to_string().contains("could not start no-such-program-here"),
            "{error}"
        );
    }

    #[test]
    fn durations_read_well() {
        for (milliseconds, text) in [(420, "0.4 s"), (12_300, "12 s"), (185_000, "3 min 05 s")] {
            assert_eq!(spoken(Duration::from_millis(milliseconds)), text);
        }
    }
}
