//! Commands in the real sandbox: what a command sees, how it ends, and that nothing is left of it. What gets out of it
//! is tried by `escape/`.
//!
//! A program of its own and no test of libtest: the sandbox starts this very program as its init, which has to come
//! before any harness.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use futures::future::BoxFuture;
use plue_sandbox::strict::{CommandRules, StrictSandbox, run_if_asked};
use plue_sandbox::{CommandEvent, CommandSpec, Ending, ExitStatus, Note, RunningCommand, Sandbox, StartError, Stream};
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
    ("a_file_cannot_be_given_away_as_everywhere", || {
        Box::pin(a_file_cannot_be_given_away_as_everywhere())
    }),
    ("terminals_are_to_be_had", || Box::pin(terminals_are_to_be_had())),
    (
        "network_interfaces_are_listed_and_nothing_else_of_the_kernel_answers",
        || Box::pin(network_interfaces_are_listed_and_nothing_else_of_the_kernel_answers()),
    ),
    ("a_folder_keeps_its_group_id_and_no_file_gets_it", || {
        Box::pin(a_folder_keeps_its_group_id_and_no_file_gets_it())
    }),
    (
        "memory_without_a_name_and_system_v_objects_are_to_be_had_and_go_with_their_command",
        || Box::pin(memory_without_a_name_and_system_v_objects_are_to_be_had_and_go_with_their_command()),
    ),
    ("a_process_traces_its_own_and_not_the_sandbox", || {
        Box::pin(a_process_traces_its_own_and_not_the_sandbox())
    }),
    ("programs_see_their_own_bounds", || {
        Box::pin(programs_see_their_own_bounds())
    }),
    ("a_script_is_as_long_as_it_likes_and_a_variable_is_not", || {
        Box::pin(a_script_is_as_long_as_it_likes_and_a_variable_is_not())
    }),
    ("outputs_come_in_the_order_in_which_they_were_written", || {
        Box::pin(outputs_come_in_the_order_in_which_they_were_written())
    }),
    ("what_a_command_leaves_is_counted_and_named", || {
        Box::pin(what_a_command_leaves_is_counted_and_named())
    }),
    ("a_signal_is_told_and_so_is_a_network_that_is_not_there", || {
        Box::pin(a_signal_is_told_and_so_is_a_network_that_is_not_there())
    }),
    ("sockets_and_homes_of_the_machine_are_covered", || {
        Box::pin(sockets_and_homes_of_the_machine_are_covered())
    }),
    ("temporary_files_lie_on_a_disk_and_have_a_size", || {
        Box::pin(temporary_files_lie_on_a_disk_and_have_a_size())
    }),
    ("keys_of_the_operator_are_not_to_be_seen", || {
        Box::pin(keys_of_the_operator_are_not_to_be_seen())
    }),
    ("a_folder_to_read_that_is_not_there_is_named", || {
        Box::pin(a_folder_to_read_that_is_not_there_is_named())
    }),
    ("a_command_yields_to_its_keeper", || {
        Box::pin(a_command_yields_to_its_keeper())
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
        let mut again = std::process::Command::new("python3");
        again
            .args(["-c", WITH_A_KEY, KEY])
            .arg(std::env::current_exe().unwrap());
        let home = private_folder();
        let status = again
            .args(&arguments)
            .env(SECRET, "hunter2")
            .env("XDG_DATA_HOME", &home)
            .status();
        let _ = fs::remove_dir_all(home);
        let status = status.unwrap();
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

/// The name of a key in this program's session keyring.
const KEY: &str = "plue-confined-key";
/// Takes a session keyring, puts the key into it, and becomes the program that comes after it.
const WITH_A_KEY: &str = "import ctypes, os, platform, sys
libc = ctypes.CDLL(None)
keyctl, add_key = (250, 248) if platform.machine() == 'x86_64' else (219, 217)
libc.syscall(keyctl, 1, None)
libc.syscall(add_key, b'user', sys.argv[1].encode(), b'x', ctypes.c_size_t(1), -3)
os.execv(sys.argv[2], sys.argv[2:])
";

/// A folder of somebody's that no list of users names.
fn private_folder() -> PathBuf {
    PathBuf::from(format!("/opt/plue-confined-{}", std::process::id()))
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
    notes: Vec<Note>,
}

impl Confined {
    async fn new() -> Self {
        Self::with(&CommandRules::default()).await
    }

    async fn with(rules: &CommandRules) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sandbox = StrictSandbox::start(folder.path(), &[], rules).await;
        Self {
            sandbox: sandbox.expect("this machine has every layer"),
            folder,
        }
    }

    async fn start(&self, argv: &[&str], timeout: Duration) -> Result<RunningCommand, StartError> {
        self.start_as(argv, ("GIVEN", "yes"), timeout).await
    }

    async fn start_as(
        &self,
        argv: &[&str],
        (name, value): (&str, &str),
        timeout: Duration,
    ) -> Result<RunningCommand, StartError> {
        let command = CommandSpec {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            working_directory: PathBuf::from("."),
            env: BTreeMap::from([(name.to_owned(), value.to_owned())]),
            timeout,
        };
        self.sandbox.start(command, CancellationToken::new()).await
    }

    /// What a program in Python prints, which has to succeed.
    async fn python(&self, program: &str) -> String {
        fs::write(self.folder.path().join("program.py"), program).unwrap();
        let outcome = self.run("exec python3 program.py", LONG).await;
        assert_eq!(outcome.status.code, 0, "{}", outcome.stderr);
        outcome.stdout
    }

    async fn run(&self, script: &str, timeout: Duration) -> Outcome {
        let mut running = self.start(&["/bin/sh", "-c", script], timeout).await.unwrap();
        let (mut stdout, mut stderr, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(event) = running.events.recv().await {
            match event {
                CommandEvent::Output(Stream::Stdout, bytes) => stdout.extend(bytes),
                CommandEvent::Output(Stream::Stderr, bytes) => stderr.extend(bytes),
                CommandEvent::Note(note) => notes.push(note),
                CommandEvent::Exited(status) => {
                    assert!(running.events.recv().await.is_none(), "`Exited` comes last");
                    let text = |bytes| String::from_utf8(bytes).unwrap();
                    return Outcome {
                        stdout: text(stdout),
                        stderr: text(stderr),
                        status,
                        notes,
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
    assert_eq!(outcome.status, ExitStatus::exited(3));
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
    let script = "id -u root; getent hosts localhost $(hostname) | wc -l; grep -c ^nameserver /etc/resolv.conf; \
                  echo x >> /etc/passwd";
    let outcome = confined.run(script, LONG).await;
    assert_eq!(outcome.stdout, "0\n2\n0\n", "{}", outcome.stderr);
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

async fn a_file_cannot_be_given_away_as_everywhere() {
    let confined = Confined::new().await;
    let python = "import os
open('file', 'w')
me = (os.getuid(), os.getgid())
for to in [me, (-1, -1), (me[0], -1), (0, 0), (0, -1), (-1, 5)]:
    try: os.chown('file', *to); print('done', end=' ')
    except OSError as error: print(error.errno, end=' ')
";
    assert_eq!(confined.python(python).await, "done done done 1 1 1 ", "EPERM is 1");
}

async fn terminals_are_to_be_had() {
    let confined = Confined::new().await;
    let python = "import os, pty, sys
pid, master = pty.fork()
if pid == 0:
    open('/dev/tty', 'w').write('%s %s' % (os.isatty(0), os.ttyname(0)))
    sys.exit(0)
said = b''
try:
    while part := os.read(master, 100): said += part
except OSError: pass
print(said.decode())
";
    assert_eq!(confined.python(python).await.trim_end(), "True /dev/pts/0");
    // What is typed into a terminal by somebody else than its user.
    let python = "import fcntl, pty
master, slave = pty.openpty()
for request in (0x5412, 0x541c):
    try: fcntl.ioctl(slave, request, b'x')
    except OSError as error: print(error.errno)
";
    assert_eq!(confined.python(python).await, "1\n1\n");
}

async fn network_interfaces_are_listed_and_nothing_else_of_the_kernel_answers() {
    let confined = Confined::new().await;
    let python = "import socket
print(socket.if_nameindex())
answers = set()
for protocol in range(1, 32):
    try: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol); answers.add('opened %d' % protocol)
    except OSError as error: answers.add(error.errno)
print(answers)
";
    assert_eq!(
        confined.python(python).await,
        "[(1, 'lo')]\n{93}\n",
        "EPROTONOSUPPORT is 93"
    );
}

async fn a_folder_keeps_its_group_id_and_no_file_gets_it() {
    let confined = Confined::new().await;
    let script = "umask 022; mkdir d && chmod 2755 d && stat -c %a d && chmod 755 d && stat -c %a d && mkdir d/e && \
                  cp -a d f && stat -c %a f/e && tar -c d | (mkdir g && tar -xp -C g) && stat -c %a g/d/e && \
                  (cd d && chmod g+s . && chmod 2750 ../d/e) && stat -c %a d/e && ln -s d l && chmod 2711 l && \
                  stat -c %a d";
    let outcome = confined.run(script, LONG).await;
    assert_eq!(
        outcome.stdout, "2755\n2755\n2755\n2755\n2750\n2711\n",
        "{}",
        outcome.stderr
    );
    let python = "import os
open('file', 'w'); os.symlink('file', 'link'); os.mkdir('folder')
descriptor, folder = os.open('file', os.O_RDONLY), os.open('folder', os.O_RDONLY)
ways = {
    'chmod': lambda: os.chmod('file', 0o2755), 'link': lambda: os.chmod('link', 0o2755),
    'fchmod': lambda: os.fchmod(descriptor, 0o2755), 'at': lambda: os.chmod('../file', 0o2755, dir_fd=folder),
    'user': lambda: os.chmod('folder', 0o6755), 'create': lambda: os.open('new', os.O_CREAT, 0o2755),
    'nowhere': lambda: os.chmod('nowhere', 0o2755), 'outside': lambda: os.chmod('/etc', 0o2755),
}
for name, way in ways.items():
    try: way(); print(name, 'done')
    except OSError as error: print(name, error.errno, end=' ')
os.fchmod(folder, 0o2700); os.chmod('../folder', 0o2701, dir_fd=folder)
print(oct(os.stat('folder').st_mode), oct(os.stat('file').st_mode))
";
    let expected = "chmod 1 link 1 fchmod 1 at 1 user 1 create 1 nowhere 2 outside 30 0o42701 0o100644\n";
    assert_eq!(confined.python(python).await, expected);
}

async fn memory_without_a_name_and_system_v_objects_are_to_be_had_and_go_with_their_command() {
    let confined = Confined::new().await;
    let python = "import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
os.write(os.memfd_create('x'), b'some')
made = [libc.shmget(77, 4096, 0o1600), libc.semget(77, 3, 0o1600), libc.msgget(77, 0o1600)]
made.append(libc.mq_open(b'/queue', 0o102, 0o600, None))
print([number >= 0 for number in made])
";
    assert_eq!(confined.python(python).await, "[True, True, True, True]\n");
    let python = "import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print([libc.shmget(77, 0, 0), libc.semget(77, 0, 0), libc.msgget(77, 0), libc.mq_open(b'/queue', 0)])
libc.memfd_create(b'', 0xffffffff); print(ctypes.get_errno())
large = [libc.memfd_create(b'x', 4), libc.shmget(0, 1 << 21, 0o5600), libc.mmap(None, 1 << 21, 3, 0x40022, -1, 0)]
print(large, ctypes.get_errno())
";
    let expected = "[-1, -1, -1, -1]\n22\n[-1, -1, -1] 12\n";
    assert_eq!(
        confined.python(python).await,
        expected,
        "nothing is left, and there are no large pages"
    );
}

async fn a_process_traces_its_own_and_not_the_sandbox() {
    let confined = Confined::new().await;
    let python = "import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
def trace(pid):
    done = libc.ptrace(0x4206, pid, None, None)
    return done if done == 0 else ctypes.get_errno()
child = os.fork()
if child == 0: time.sleep(60)
print(trace(child), trace(1), trace(os.getppid()))
os.kill(child, 9)
";
    assert_eq!(
        confined.python(python).await,
        "0 1 1\n",
        "its child; the init; the attendant"
    );
}

async fn programs_see_their_own_bounds() {
    let rules = CommandRules {
        memory: Some(256 << 20),
        processes: 100,
        ..CommandRules::default()
    };
    let confined = Confined::with(&rules).await;
    let script = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max; cat /sys/devices/system/cpu/present; \
                  grep -c ^0::/$ /proc/self/cgroup; grep -q ' cgroup2 ' /proc/self/mountinfo && echo 1; ulimit -n; \
                  (echo 1 > /sys/fs/cgroup/memory.max) 2>&1 | wc -l; \
                  (echo 0 > /proc/self/oom_score_adj) 2>&1 | wc -l; ls /sys; \
                  cat /sys/fs/cgroup/memory/memory.limit_in_bytes; cut -f 2 /proc/cgroups | sort -u | wc -l";
    let outcome = confined.run(script, LONG).await;
    let present = fs::read_to_string("/sys/devices/system/cpu/present").unwrap();
    let expected = format!("268435456\n100\n{present}1\n1\n1024\n1\n1\ndevices\nfs\n268435456\n2\n");
    assert_eq!(outcome.stdout, expected, "{}", outcome.stderr);
}

async fn a_script_is_as_long_as_it_likes_and_a_variable_is_not() {
    let confined = Confined::new().await;
    let long = "x".repeat(300_000);
    let script =
        format!("set -e\necho $0 $# >&2\nls /proc/self/fd | wc -l >&2\ncat <<'end' | wc -c\n{long}\nend\nexit 7");
    let outcome = confined.run(&script, LONG).await;
    assert_eq!(
        (&*outcome.stdout, outcome.status.code),
        ("300001\n", 7),
        "{}",
        outcome.stderr
    );
    assert_eq!(
        outcome.stderr, "/bin/sh 0\n4\n",
        "as a short one, and without another descriptor"
    );
    let refused = confined.start_as(&["true"], ("LONG", &long), LONG).await;
    let Err(StartError::Invalid(message)) = refused.map(drop) else {
        panic!("a variable of 300,000 bytes was taken")
    };
    assert!(message.contains("LONG"), "{message}");
}

async fn outputs_come_in_the_order_in_which_they_were_written() {
    let confined = Confined::new().await;
    let script = "i=0; while [ $i -lt 100 ]; do echo e$i >&2; echo o$i; i=$((i+1)); sleep 0.005; done";
    let mut running = confined.start(&["/bin/sh", "-c", script], LONG).await.unwrap();
    let mut words = Vec::new();
    while let Some(event) = running.events.recv().await {
        if let CommandEvent::Output(_, bytes) = event {
            words.extend(
                String::from_utf8(bytes.to_vec())
                    .unwrap()
                    .split_whitespace()
                    .map(str::to_owned),
            );
        }
    }
    let place = |word: String| words.iter().position(|one| *one == word).unwrap();
    let inverted = (0..100).filter(|index| place(format!("o{index}")) < place(format!("e{index}")));
    let inverted = inverted.count();
    // A machine that is busy elsewhere for long gives several pairs at once, of which two pipes tell the first alone.
    // Who reads one pipe after the other inverts all.
    assert!(inverted < 50, "{inverted} of 100 pairs are inverted: {words:?}");
}

async fn what_a_command_leaves_is_counted_and_named() {
    let confined = Confined::new().await;
    let outcome = confined
        .run("sleep 60 & sleep 61 & tail -f /dev/null & sleep 0.3", LONG)
        .await;
    let [Note::Left { count: 3, names }] = &outcome.notes[..] else {
        panic!("{:?}", outcome.notes)
    };
    let mut names = names.clone();
    names.sort();
    assert_eq!(names, ["sleep", "tail"]);
    assert_eq!(confined.run("sleep 0.01 & wait", LONG).await.notes, []);
}

async fn a_signal_is_told_and_so_is_a_network_that_is_not_there() {
    let confined = Confined::new().await;
    let outcome = confined.run("kill -KILL $$", LONG).await;
    assert_eq!(
        (outcome.status.signal, outcome.status.signal_name()),
        (Some(9), Some("SIGKILL"))
    );
    let outcome = confined.run("sh -c 'kill -SEGV $$'; exit $?", LONG).await;
    assert_eq!(
        (outcome.status.signal, outcome.status.signal_name()),
        (None, Some("SIGSEGV"))
    );
    assert_eq!(confined.run("exit 129", LONG).await.status.signal_name(), None);
    for asks in [
        "socket.create_connection(('192.0.2.1', 80), 5)",
        "socket.getaddrinfo('example.com', 80)",
    ] {
        let outcome = confined
            .run(&format!("python3 -c \"import socket; {asks}\""), LONG)
            .await;
        assert_eq!(outcome.notes, [Note::SoughtNetwork], "{asks}: {}", outcome.stderr);
        // One that does without is not told of it.
        let outcome = confined
            .run(&format!("python3 -c \"import socket; {asks}\" || true"), LONG)
            .await;
        assert_eq!(outcome.notes, [], "{asks}");
    }
    assert_eq!(confined.run("exit 1", LONG).await.notes, []);
}

async fn sockets_and_homes_of_the_machine_are_covered() {
    // Who may write no folder of the image has no socket and no home there that could be in sight.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let outside = tempfile::tempdir_in("/opt").unwrap();
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let socket = outside.path().join("a socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let home = PathBuf::from(std::env::var_os("XDG_DATA_HOME").unwrap());
    fs::create_dir(&home).unwrap();
    fs::write(home.join("key"), "secret").unwrap();
    let proc = outside.path().join("proc");
    fs::create_dir(&proc).unwrap();
    rustix::mount::mount("proc", &proc, "proc", rustix::mount::MountFlags::empty(), None).unwrap();
    let confined = Confined::new().await;
    let script = format!(
        "stat -c %F {socket:?}; cat {}/key; ls {} | wc -l",
        home.display(),
        proc.display()
    );
    let outcome = confined.run(&script, LONG).await;
    rustix::mount::unmount(&proc, rustix::mount::UnmountFlags::empty()).unwrap();
    assert_eq!(outcome.stdout, "regular empty file\n0\n", "{}", outcome.stderr);
    let covered = confined.sandbox.covered();
    assert!(covered.sockets > 0 && covered.private.contains(&home), "{covered:?}");
}

async fn temporary_files_lie_on_a_disk_and_have_a_size() {
    let rules = CommandRules {
        memory: Some(64 << 20),
        tmp_size: Some(200 << 20),
        ..CommandRules::default()
    };
    let on_disk = rustix::fs::statfs(std::env::temp_dir()).unwrap().f_type != libc::TMPFS_MAGIC;
    let confined = Confined::with(&rules).await;
    // More than its memory is, in HOME, and a program there.
    let script = "dd if=/dev/zero of=$HOME/x bs=1M count=100 2>&1 && cp /bin/true /var/tmp/t && /var/tmp/t && \
                  echo done | tee /dev/shm/said >&2 && stat -f -c %T /tmp";
    let outcome = confined.run(script, LONG).await;
    if on_disk {
        assert_eq!(outcome.stderr, "done\n", "{}", outcome.stdout);
        assert!(!outcome.stdout.contains("tmpfs"), "{}", outcome.stdout);
        let outcome = confined
            .run("dd if=/dev/zero of=/tmp/y bs=1M count=400; sleep 30", LONG)
            .await;
        assert_eq!(
            (outcome.status.ending, &*outcome.notes),
            (Ending::Memory, &[Note::TmpFull][..])
        );
        assert!(Note::TmpFull.to_string().contains("COMMAND_TMP_SIZE"));
    }
    let left = || {
        let entries = fs::read_dir(std::env::temp_dir()).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names
            .filter(|name| name.starts_with("plue-commands-"))
            .collect::<Vec<_>>()
    };
    let before = left();
    confined.sandbox.shut_down().await;
    if on_disk {
        let after = left();
        assert!(before.iter().any(|name| !after.contains(name)), "{before:?} {after:?}");
    }
}

async fn keys_of_the_operator_are_not_to_be_seen() {
    assert!(
        fs::read_to_string("/proc/keys").unwrap().contains(KEY),
        "this program has a key"
    );
    let confined = Confined::new().await;
    let outcome = confined.run("cat /proc/keys", LONG).await;
    assert!(!outcome.stdout.contains(KEY), "{}", outcome.stdout);
}

async fn a_folder_to_read_that_is_not_there_is_named() {
    let rules = CommandRules {
        read_paths: vec!["/usr".into(), "/nowhere/tools".into()],
        ..CommandRules::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let missing = StrictSandbox::start(folder.path(), &[], &rules)
        .await
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(
        missing.contains("/nowhere/tools") && missing.contains("COMMAND_READ_PATHS"),
        "{missing}"
    );
    assert!(!missing.contains("AppArmor"), "{missing}");
}

async fn a_command_yields_to_its_keeper() {
    let confined = Confined::new().await;
    let script = "sleep 0.2; awk '{ print $19 }' /proc/self/stat; (sleep 0.2; awk '{ print $19 }' /proc/self/stat)";
    let outcome = confined.run(script, LONG).await;
    assert_eq!(outcome.stdout, "10\n10\n", "{}", outcome.stderr);
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
    let rules = CommandRules {
        grace: Duration::from_secs(1),
        ..CommandRules::default()
    };
    let confined = Confined::with(&rules).await;
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
