//! The built runner as a process of its own, as it is in a pod: an environment that holds what is given and nothing
//! else, its log caught and checked, its time bounded.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::schema;

/// How long a runner may take when the test does not say. Far above what any test needs.
const LIMIT: Duration = Duration::from_secs(60);

/// A runner that is to be started.
#[derive(Clone, Debug)]
pub struct RunnerProcess {
    binary: PathBuf,
    arguments: Vec<String>,
    env: BTreeMap<String, String>,
    stdin: Option<Vec<u8>>,
    limit: Duration,
    filter: Option<BpfProgram>,
    unread: bool,
}

/// A runner that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The exit code, or minus the signal that ended it.
    pub code: i32,
    /// The lines on standard output, parsed.
    pub log: Vec<Value>,
    /// What was wrong with those lines: no JSON, or not of the log schema.
    pub log_errors: Vec<String>,
    pub stdout: String,
    pub stderr: String,
    pub elapsed: Duration,
    pub ended: Instant,
}

impl RunnerProcess {
    /// The binary in `PLUE_RUNNER_BIN`, else the one that `cargo xtask build` made.
    pub fn built() -> Self {
        let binary = std::env::var_os("PLUE_RUNNER_BIN").map_or_else(dist_binary, PathBuf::from);
        assert!(
            binary.is_file(),
            "{} is not there: run `cargo xtask build`, or set PLUE_RUNNER_BIN to a runner with plugins/ beside it",
            binary.display()
        );
        Self::new(binary)
    }

    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            arguments: Vec::new(),
            env: BTreeMap::new(),
            stdin: None,
            limit: LIMIT,
            filter: None,
            unread: false,
        }
    }

    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The folder of the components that belong to the binary.
    pub fn plugins(&self) -> PathBuf {
        self.binary.parent().unwrap_or(Path::new(".")).join("plugins")
    }

    /// A command of the runner, in place of a task. What it prints is no log: `log_errors` says nothing of it.
    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.insert(name.to_owned(), value.into());
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    /// What it reads on standard input. Without it, it reads nothing.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// How long it may run before it is killed.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Refuses it these system calls with an error, as a kernel, a container or an operator may: those with all bits of
    /// `flags` in the first argument, or all when there are none.
    pub fn refusing(mut self, calls: &[i64], flags: u64, errno: i32) -> Self {
        let rule = || {
            let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(flags), flags);
            SeccompRule::new(vec![condition.expect("an argument that there is")]).expect("a condition")
        };
        let rules = calls
            .iter()
            .map(|&call| (call, if flags == 0 { Vec::new() } else { vec![rule()] }));
        let architecture = std::env::consts::ARCH.try_into().expect("an architecture with filters");
        let answer = SeccompAction::Errno(errno.unsigned_abs());
        let filter = SeccompFilter::new(rules.collect(), SeccompAction::Allow, answer, architecture);
        let program = filter.and_then(BpfProgram::try_from).expect("a filter that fits");
        self.filter = Some(program);
        self
    }

    /// Nobody reads what it says: its standard output is a pipe that is soon full.
    pub fn unread(mut self) -> Self {
        self.unread = true;
        self
    }

    pub fn start(self) -> io::Result<Running> {
        let started = Instant::now();
        let mut command = Command::new(&self.binary);
        if let Some(filter) = self.filter.clone() {
            under(&mut command, filter);
        }
        let (unread, full) = match self.unread {
            true => {
                let (reader, writer) = io::pipe()?;
                rustix::pipe::fcntl_setpipe_size(&writer, 4096)?;
                (Some(reader), Stdio::from(writer))
            }
            false => (None, Stdio::piped()),
        };
        let mut child = command
            .args(&self.arguments)
            .env_clear()
            .envs(&self.env)
            .stdin(if self.stdin.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(full)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let (Some(bytes), Some(mut pipe)) = (self.stdin, child.stdin.take()) {
            tokio::spawn(async move {
                // A runner that does not read its input is a case of its own.
                let _ = pipe.write_all(&bytes).await;
            });
        }
        let stdout = read_all(child.stdout.take());
        let stderr = read_all(child.stderr.take());
        Ok(Running {
            child,
            stdout,
            stderr,
            started,
            limit: self.limit,
            _unread: unread,
        })
    }

    /// Starts it and waits for its end.
    pub async fn run(self) -> io::Result<Finished> {
        self.start()?.finish().await
    }
}

/// Has the command run under a filter.
#[allow(unsafe_code)]
fn under(command: &mut Command, filter: BpfProgram) {
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; the filter is ready, and what is left are
    // two system calls.
    unsafe {
        command.pre_exec(move || seccompiler::apply_filter(&filter).map_err(io::Error::other));
    }
}

fn dist_binary() -> PathBuf {
    // <target>/release/deps/e2e-0123456789abcdef
    let test = std::env::current_exe().expect("a test knows its own path");
    let target = test
        .ancestors()
        .find(|folder| folder.join("release").is_dir() || folder.join("dist").is_dir());
    target.unwrap_or(Path::new("target")).join("dist").join("plue-runner")
}

fn read_all(pipe: Option<impl tokio::io::AsyncRead + Unpin + Send + 'static>) -> JoinHandle<Vec<u8>> {
    tokio::spawn(async move {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes).await;
        }
        bytes
    })
}

/// A runner that runs. Dropping it kills it.
pub struct Running {
    child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
    started: Instant,
    limit: Duration,
    _unread: Option<io::PipeReader>,
}

impl Running {
    /// Its process id, for as long as it has not ended.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let id = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = id.ok_or_else(|| io::Error::other("the runner has ended already"))?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Waits for its end. A runner that takes longer than its limit is killed, and that is an error.
    pub async fn finish(mut self) -> io::Result<Finished> {
        let status = match tokio::time::timeout(self.limit, self.child.wait()).await {
            Ok(status) => status?,
            Err(_) => {
                self.child.kill().await?;
                let stdout = text(self.stdout).await;
                return Err(io::Error::other(format!(
                    "the runner did not end within {:?}, and was killed. It said:\n{stdout}",
                    self.limit
                )));
            }
        };
        let ended = Instant::now();
        let elapsed = ended - self.started;
        let (stdout, stderr) = (text(self.stdout).await, text(self.stderr).await);
        let mut log = Vec::new();
        let mut log_errors = Vec::new();
        for line in stdout.lines() {
            match serde_json::from_str::<Value>(line) {
                Ok(value) => {
                    log_errors.extend(
                        schema::log_line_errors(&value)
                            .into_iter()
                            .map(|error| format!("{error} [{line}]")),
                    );
                    log.push(value);
                }
                Err(error) => log_errors.push(format!("a log line is no JSON: {error} [{line}]")),
            }
        }
        let code = status
            .code()
            .unwrap_or_else(|| -std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or_default());
        Ok(Finished {
            code,
            log,
            log_errors,
            stdout,
            stderr,
            elapsed,
            ended,
        })
    }
}

/// What was caught. A grandchild that keeps the pipe open must not hold the test for ever.
async fn text(reader: JoinHandle<Vec<u8>>) -> String {
    match tokio::time::timeout(Duration::from_secs(5), reader).await {
        Ok(Ok(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        _ => panic!("the runner has ended, and something that it started still holds its output open"),
    }
}
