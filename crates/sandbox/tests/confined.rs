//! Commands in the real sandbox: what a command sees, how it ends, and that nothing is left of it. What gets out of it
//! is tried by `escape/`.
//!
//! A program of its own and no test of libtest: the sandbox starts this very program as its init, which has to come
//! before any harness.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use futures::future::BoxFuture;
use plue_sandbox::strict::{CommandRules, StrictSandbox, run_if_asked};
use plue_sandbox::{CommandEvent, CommandSpec, Ending, ExitStatus, RunningCommand, Sandbox, StartError, Stream};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Far more than any command here takes.
const LONG: Duration = Duration::from_secs(60);
/// In the environment of this program, and to be in no other.
const SECRET: &str = "PLUE_CONFINED_SECRET";

type Case = (&'static str, fn() -> BoxFuture<'static, ()>);

const CASES: &[Case] = &[
    ("both_outputs_and_the_code_come_back", || {
        Box::pin(both_outputs_and_the_code_come_back())
    }),
    ("a_command_gets_no_variable_that_it_was_not_given", || {
        Box::pin(a_command_gets_no_variable_that_it_was_not_given())
    }),
    ("the_folder_can_be_written_and_the_image_cannot", || {
        Box::pin(the_folder_can_be_written_and_the_image_cannot())
    }),
    ("a_command_knows_who_and_where_it_is", || {
        Box::pin(a_command_knows_who_and_where_it_is())
    }),
    ("both_outputs_can_be_opened_by_their_names", || {
        Box::pin(both_outputs_can_be_opened_by_their_names())
    }),
    ("git_takes_every_folder_for_safe_and_knows_who_commits", || {
        Box::pin(git_takes_every_folder_for_safe_and_knows_who_commits())
    }),
    ("a_listener_of_the_machine_is_not_reached", || {
        Box::pin(a_listener_of_the_machine_is_not_reached())
    }),
    ("a_command_over_its_time_ends_with_all_that_it_started", || {
        Box::pin(a_command_over_its_time_ends_with_all_that_it_started())
    }),
    ("a_command_that_nobody_waits_for_ends", || {
        Box::pin(a_command_that_nobody_waits_for_ends())
    }),
    (
        "a_command_that_is_cancelled_while_it_starts_ends_as_a_cancelled_one",
        || Box::pin(a_command_that_is_cancelled_while_it_starts_ends_as_a_cancelled_one()),
    ),
    ("a_program_that_is_not_there_is_said_to_be_missing", || {
        Box::pin(a_program_that_is_not_there_is_said_to_be_missing())
    }),
    ("after_the_sandbox_was_shut_down_nothing_starts", || {
        Box::pin(after_the_sandbox_was_shut_down_nothing_starts())
    }),
];

fn main() -> ExitCode {
    run_if_asked();
    // As libtest does: who lists tests gets their names, and a word on the command line chooses among them.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        CASES.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if std::env::var_os(SECRET).is_none() {
        // Set for this program by starting it once more: changing one's own environment is not safe with threads.
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let status = again.args(&arguments).env(SECRET, "hunter2").status().unwrap();
        return ExitCode::from(u8::from(!status.success()));
    }
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    for (name, case) in CASES {
        if filters.is_empty() || filters.iter().any(|filter| name.contains(*filter)) {
            // A case that fails panics, and ends this program with a code that says so.
            runtime.block_on(case());
            println!("test {name} ... ok");
        }
    }
    ExitCode::SUCCESS
}

struct Confined {
    sandbox: StrictSandbox,
    folder: TempDir,
}

/// What came of a command.
struct Outcome {
    stdout: String,
    stderr: String,
    status: ExitStatus,
}

impl Confined {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sandbox = StrictSandbox::start(folder.path(), &[], &CommandRules::default()).await;
        Self {
            sandbox: sandbox.expect("this machine has every layer"),
            folder,
        }
    }

    async fn start(&self, argv: &[&str], timeout: Duration) -> Result<RunningCommand, StartError> {
        let command = CommandSpec {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            working_directory: PathBuf::from("."),
            env: BTreeMap::from([("GIVEN".to_owned(), "yes".to_owned())]),
            timeout,
        };
        self.sandbox.start(command, CancellationToken::new()).await
    }

    async fn run(&self, script: &str, timeout: Duration) -> Outcome {
        let mut running = self.start(&["/bin/sh", "-c", script], timeout).await.unwrap();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(event) = running.events.recv().await {
            match event {
                CommandEvent::Output(Stream::Stdout, bytes) => stdout.extend(bytes),
                CommandEvent::Output(Stream::Stderr, bytes) => stderr.extend(bytes),
                CommandEvent::Exited(status) => {
                    assert!(running.events.recv().await.is_none(), "`Exited` comes last");
                    let text = |bytes| String::from_utf8(bytes).unwrap();
                    return Outcome {
                        stdout: text(stdout),
                        stderr: text(stderr),
                        status,
                    };
                }
            }
        }
        panic!("the command ended without a word")
    }
}

async fn both_outputs_and_the_code_come_back() {
    let confined = Confined::new().await;
    let outcome = confined.run("echo out; echo err >&2; exit 3", LONG).await;
    assert_eq!((&*outcome.stdout, &*outcome.stderr), ("out\n", "err\n"));
    let expected = ExitStatus {
        code: 3,
        ending: Ending::Exited,
    };
    assert_eq!(outcome.status, expected);
}

async fn a_command_gets_no_variable_that_it_was_not_given() {
    let confined = Confined::new().await;
    let outcome = confined.run("env", LONG).await;
    assert!(outcome.stdout.contains("GIVEN=yes\n"), "{}", outcome.stdout);
    assert!(!outcome.stdout.contains(SECRET), "{}", outcome.stdout);
}

async fn the_folder_can_be_written_and_the_image_cannot() {
    let confined = Confined::new().await;
    let script = "echo here > file; echo there > /etc/plue-confined; echo there > /usr/plue-confined; ls -A /root";
    let outcome = confined.run(script, LONG).await;
    assert_eq!(
        fs::read_to_string(confined.folder.path().join("file")).unwrap(),
        "here\n"
    );
    assert!(!Path::new("/etc/plue-confined").exists() && !Path::new("/usr/plue-confined").exists());
    assert_eq!(outcome.stdout, "", "homes are empty");
}

async fn a_command_knows_who_and_where_it_is() {
    let confined = Confined::new().await;
    let script = "id -un; id -gn; getent passwd $(id -u) | cut -d: -f6,7; echo $USER $LOGNAME $HOME $SHELL $TMPDIR";
    let outcome = confined.run(script, LONG).await;
    let expected = "runner\nrunner\n/tmp/home:/bin/sh\nrunner runner /tmp/home /bin/sh /tmp\n";
    assert_eq!(outcome.stdout, expected, "{}", outcome.stderr);
    // The image's own users are known, too, and nobody can change who is who.
    let script = "id -u root; getent hosts localhost $(hostname) | wc -l; echo x >> /etc/passwd";
    let outcome = confined.run(script, LONG).await;
    assert_eq!(outcome.stdout, "0\n2\n", "{}", outcome.stderr);
    assert_ne!(outcome.status.code, 0);
}

async fn both_outputs_can_be_opened_by_their_names() {
    let confined = Confined::new().await;
    let script = "echo a > /dev/stdout; echo b | tee /dev/stderr; echo c > /dev/fd/2; echo d > /proc/self/fd/1";
    let outcome = confined.run(script, LONG).await;
    assert_eq!((&*outcome.stdout, &*outcome.stderr), ("a\nb\nd\n", "b\nc\n"));
}

async fn git_takes_every_folder_for_safe_and_knows_who_commits() {
    let confined = Confined::new().await;
    let script = "git init -q . && touch a && git add a && git commit -qm first && git log --format=%an,%ae";
    let outcome = confined.run(script, LONG).await;
    assert_eq!(
        outcome.stdout, "Plue Runner,runner@sandbox.invalid\n",
        "{}",
        outcome.stderr
    );
    // What a repository says of itself counts more.
    let script = "git config user.name Bot && git config user.email b@c.d && git commit -q --allow-empty -m second && \
                  git log -1 --format=%an,%ae";
    let outcome = confined.run(script, LONG).await;
    assert_eq!(outcome.stdout, "Bot,b@c.d\n", "{}", outcome.stderr);
    // A folder of somebody else, where there is somebody else: root's tests are run with a runner that is root.
    if rustix::process::geteuid().is_root() {
        let other = rustix::process::Uid::from_raw(54_321);
        rustix::fs::chown(confined.folder.path().join(".git"), Some(other), None).unwrap();
        let outcome = confined.run("git log --oneline | wc -l", LONG).await;
        assert_eq!(outcome.stdout, "2\n", "{}", outcome.stderr);
    }
}

async fn a_listener_of_the_machine_is_not_reached() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let confined = Confined::new().await;
    // The kernel's own list of sockets: a network namespace shows those that are in it.
    let outcome = confined.run("cat /proc/net/tcp /proc/net/route", LONG).await;
    let address = format!("0100007F:{port:04X}");
    assert!(outcome.stdout.contains("local_address"), "{}", outcome.stderr);
    assert!(!outcome.stdout.contains(&address), "{}", outcome.stdout);
    let script = format!("command -v bash && bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}'");
    assert_ne!(confined.run(&script, LONG).await.status.code, 0);
    assert!(listener.accept().is_err(), "somebody came through");
}

async fn a_command_over_its_time_ends_with_all_that_it_started() {
    let confined = Confined::new().await;
    let marker = confined.folder.path().join("still-here");
    let script = "trap '' TERM; (sleep 3; touch still-here) & setsid sh -c 'sleep 3; touch still-here' & sleep 600";
    let outcome = confined.run(script, Duration::from_millis(300)).await;
    assert_eq!(outcome.status.ending, Ending::TimedOut);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!marker.exists(), "what the command started went on");
}

async fn a_command_that_nobody_waits_for_ends() {
    let confined = Confined::new().await;
    let marker = confined.folder.path().join("still-here");
    let running = confined
        .start(&["/bin/sh", "-c", "sleep 2; touch still-here"], LONG)
        .await;
    drop(running.unwrap());
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!marker.exists(), "the command went on");
}

async fn a_command_that_is_cancelled_while_it_starts_ends_as_a_cancelled_one() {
    let confined = Confined::new().await;
    let command = CommandSpec {
        argv: vec!["sleep".to_owned(), "60".to_owned()],
        working_directory: PathBuf::from("."),
        env: BTreeMap::new(),
        timeout: LONG,
    };
    let cancel = CancellationToken::new();
    cancel.cancel();
    let mut running = confined.sandbox.start(command, cancel).await.unwrap();
    match running.events.recv().await {
        Some(CommandEvent::Exited(status)) => assert_eq!(status.ending, Ending::Cancelled),
        other => panic!("{other:?}"),
    }
    // Nothing of it is in the way of the next.
    assert_eq!(confined.run("echo next", LONG).await.stdout, "next\n");
}

async fn a_program_that_is_not_there_is_said_to_be_missing() {
    let confined = Confined::new().await;
    let refused = confined.start(&["no-such-program"], LONG).await;
    match refused.map(drop) {
        Err(StartError::NotFound(message)) => assert!(message.contains("no-such-program"), "{message}"),
        other => panic!("{other:?}"),
    }
}

async fn after_the_sandbox_was_shut_down_nothing_starts() {
    let confined = Confined::new().await;
    assert_eq!(confined.run("true", LONG).await.status.code, 0);
    confined.sandbox.shut_down().await;
    assert!(matches!(
        confined.start(&["true"], LONG).await.map(drop),
        Err(StartError::Failed(_))
    ));
}
