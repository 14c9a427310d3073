//! How commands are confined, and what becomes of a runner that cannot confine them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use support::scene::{Outcome, Scene};

const NEW_USER: u64 = libc::CLONE_NEWUSER as u64;
const NEW_NET: u64 = libc::CLONE_NEWNET as u64;

async fn run(steps: Value) -> Outcome {
    Scene::new().await.workflow(&steps).run().await
}

#[tokio::test]
async fn a_missing_layer_is_named_with_what_to_do_and_nothing_is_run() {
    let cases = [
        (
            "user namespace",
            libc::SYS_unshare,
            NEW_USER,
            libc::EPERM,
            "runtimeClassName gvisor",
        ),
        (
            "mount, PID, network",
            libc::SYS_unshare,
            NEW_NET,
            libc::ENOSPC,
            "max_net_namespaces",
        ),
        ("read-only image", libc::SYS_mount, 0, libc::EPERM, "AppArmor"),
        ("read-only image", libc::SYS_pivot_root, 0, libc::ENOSYS, "AppArmor"),
        ("resource limits", libc::SYS_setrlimit, 0, libc::EPERM, "ulimit"),
        ("resource limits", libc::SYS_prlimit64, 0, libc::EPERM, "ulimit"),
        ("no privileges", libc::SYS_capset, 0, libc::EPERM, "capset"),
        (
            "system call filter",
            libc::SYS_seccomp,
            0,
            libc::EINVAL,
            "CONFIG_SECCOMP_FILTER",
        ),
    ];
    let mut limited = 0;
    for (layer, call, flags, errno, remedy) in cases {
        let scene = Scene::new().await.workflow(&json!([{ "run": "touch ran" }]));
        // So that a runner that is root gets as far as one that is not: see `OrdinaryUser`.
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(scene.workspace(), everybody).unwrap();
        let outcome = scene.refusing(&[call], flags, errno).run().await;
        // Which of the two calls sets a limit is the C library's choice.
        if layer == "resource limits" && outcome.finished.code == 0 {
            continue;
        }
        limited += usize::from(layer == "resource limits");
        let error = outcome.refused("sandbox");
        let message = error["message"].as_str().unwrap();
        for part in [layer, remedy, "SANDBOX=weak", "plue-runner doctor"] {
            assert!(message.contains(part), "{part:?} is missing in {message:?}");
        }
        assert!(!outcome.scene.workspace().join("ran").exists());
        assert_eq!(outcome.scene.left_running(), [""; 0]);
    }
    assert_eq!(limited, 1);
}

#[tokio::test]
async fn without_confinement_the_runner_warns_once_and_every_ending_says_so() {
    let steps = json!([{ "run": "true" }, { "run": "true" }]);
    let scene = Scene::new().await.weak().workflow(&steps);
    // No namespace can be had, and none is asked for.
    let outcome = scene.refusing(&[libc::SYS_unshare], 0, libc::EPERM).run().await;
    assert_eq!(outcome.done()["sandbox"], "weak");
    let warnings = outcome
        .finished
        .stdout
        .matches("SANDBOX=weak: commands are not confined")
        .count();
    assert_eq!(warnings, 1, "{}", outcome.finished.stdout);
}

#[tokio::test]
async fn no_task_can_choose_its_sandbox() {
    let step = json!({ "run": "echo $SANDBOX; ls /proc | grep -c '^[0-9]'", "env": { "SANDBOX": "weak" } });
    let task = json!({ "type": "workflow", "steps": [step], "sandbox": "weak" });
    let outcome = Scene::new().await.task(&task).run().await;
    assert_eq!(outcome.done()["sandbox"], "strict");
    let lines = outcome.lines("stdout", 0);
    assert!(
        lines[1].parse::<u32>().unwrap() < 8,
        "the command sees other processes: {lines:?}"
    );
}

#[tokio::test]
async fn a_command_over_its_memory_or_processes_is_ended_and_the_next_step_of_a_new_task_runs() {
    let eater = "x=$(head -c 400M /dev/zero | tr '\\0' a); echo not ended";
    // Something comes after the sleep: a shell becomes its last command, and its memory is gone.
    let several =
        "for i in 1 2 3 4 5 6; do (x=$(head -c 60M /dev/zero | tr '\\0' a); sleep 5; :) & done; wait; echo not ended";
    let file = "head -c 70M /dev/zero > /tmp/a; x=$(head -c 110M /dev/zero | tr '\\0' a); sleep 1; echo not ended";
    let many = "for i in $(seq 100); do sleep 20 & done; wait; echo not ended";
    let cases = [
        (eater, "memory"),
        (several, "memory"),
        (file, "memory"),
        (many, "processes"),
    ];
    for (script, limit) in cases {
        let scene = Scene::new()
            .await
            .env("COMMAND_MEMORY", "160Mi")
            .env("COMMAND_PROCESSES", "40");
        let outcome = scene
            .workflow(&json!([{ "run": script, "timeout_seconds": 30 }]))
            .run()
            .await;
        let error = outcome.failed("step_failed");
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains(limit) && message.contains("COMMAND_"),
            "{script}: {message}"
        );
        assert!(!outcome.finished.stdout.contains("not ended"), "{script}");
        assert_eq!(outcome.scene.left_running(), [""; 0]);
    }
}

#[tokio::test]
async fn memory_that_processes_share_is_counted_once() {
    // One reads a file into memory; the others are copies of it that change nothing.
    let script = "x=$(head -c 100M /dev/zero | tr '\\0' a); for i in 1 2 3 4 5; do (sleep 1) & done; wait; echo ${#x}";
    let scene = Scene::new().await.env("COMMAND_MEMORY", "400Mi");
    let outcome = scene.workflow(&json!([{ "run": script }])).run().await;
    outcome.done();
    assert_eq!(outcome.lines("stdout", 0), ["104857600"]);
}

/// Processes whose argument is this word, wherever they are.
fn with_argument(word: &str) -> Vec<i32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let of = processes.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        command
            .split(|byte| *byte == 0)
            .any(|argument| argument == word.as_bytes())
            .then_some(pid)
    });
    of.collect()
}

fn parent(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.nth(1).and_then(|parent| parent.parse().ok()).unwrap_or_default()
}

fn kill(pid: i32) {
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

/// Waits until none of them is left.
async fn gone(word: &str) {
    for _ in 0..500 {
        if with_argument(word).is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("processes are left: {:?}", with_argument(word));
}

/// Waits until these processes of the sandbox have ended. One that is dead and not yet waited for has.
async fn ended(victim: &str, sandbox: [i32; 3]) {
    let lives = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
        !state.is_empty() && !state.starts_with(['Z', 'X'])
    };
    for _ in 0..500 {
        if !sandbox.iter().any(lives) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let left: Vec<&i32> = sandbox.iter().filter(|pid| lives(pid)).collect();
    panic!("after the end of the {victim}, processes of the sandbox are left: {left:?}");
}

#[tokio::test]
async fn whoever_is_killed_no_process_is_left() {
    for victim in ["command", "attendant", "init", "keeper", "runner"] {
        // A duration that nobody else sleeps for marks the processes of this run.
        let word = format!("30{}.{}", victim.len(), std::process::id());
        let script = format!("setsid sleep {word} & sleep {word} & echo ready; exec sleep {word}");
        let scene = Scene::new()
            .await
            .workflow(&json!([{ "run": script }, { "run": "touch after" }]));
        let running = scene.start();
        scene.api.wait_for(|event| event["type"] == "log").await;
        let runner = i32::try_from(running.id().unwrap()).unwrap();
        let command = loop {
            // The command is a child of its attendant, that one of the init, that of the keeper, that of the runner.
            let ancestor = |pid: &i32| parent(parent(parent(parent(*pid))));
            let sleepers = with_argument(&word);
            if let Some(command) = sleepers
                .iter()
                .find(|pid| sleepers.len() == 3 && ancestor(pid) == runner)
            {
                break *command;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let attendant = parent(command);
        let init = parent(attendant);
        let keeper = parent(init);
        kill(match victim {
            "command" => command,
            "attendant" => attendant,
            "init" => init,
            "keeper" => keeper,
            _ => runner,
        });
        gone(&word).await;
        let sandbox = [attendant, init, keeper];
        if victim == "runner" {
            // Nobody is left to say how it ended.
            assert_eq!(running.finish().await.unwrap().code, -9);
            assert!(scene.api.terminal().is_none());
            ended(victim, sandbox).await;
            continue;
        }
        let outcome = scene.finish(running).await;
        ended(victim, sandbox).await;
        let error = outcome.failed("step_failed");
        assert!(error["message"].as_str().unwrap().contains("137"), "{victim}: {error}");
        assert!(!outcome.scene.workspace().join("after").exists());
    }
}

#[tokio::test]
async fn a_command_that_kills_everything_it_can_ends_itself_and_not_the_task() {
    let turns = [
        support::Turn::new().call("t1", "shell", json!({ "command": "kill -9 -1; sleep 5; echo alive" })),
        support::Turn::new().call("t2", "shell", json!({ "command": "echo after" })),
        support::Turn::says("Done."),
    ];
    let scene = Scene::new().await.agent(json!({ "tools": ["shell"] }), turns).await;
    let outcome = scene.run().await;
    outcome.done();
    let ends = outcome.events_of("tool_end");
    assert!(!ends[0]["output"].as_str().unwrap().contains("alive"), "{}", ends[0]);
    assert!(ends[1]["output"].as_str().unwrap().contains("after"), "{}", ends[1]);
}

#[tokio::test]
async fn what_a_command_makes_belongs_to_the_owner_of_the_workspace() {
    let outcome = run(json!([{ "run": "mkdir -p made && echo text > made/file && ls -ln made" }])).await;
    outcome.done();
    let workspace = outcome.scene.workspace();
    let (folder, file) = (
        fs::metadata(&workspace).unwrap(),
        fs::metadata(workspace.join("made/file")).unwrap(),
    );
    assert_eq!((folder.uid(), folder.gid()), (file.uid(), file.gid()));
}

#[tokio::test]
async fn a_command_is_never_root_and_changes_what_the_tools_have_written() {
    let scene = Scene::new()
        .await
        .file("ours", "before")
        .workflow(&json!([{ "run": "echo after > ours; id -u" }]));
    let outcome = scene.run().await;
    outcome.done();
    assert_ne!(outcome.lines("stdout", 0), ["0"]);
    assert_eq!(
        fs::read_to_string(outcome.scene.workspace().join("ours")).unwrap(),
        "after\n"
    );
}

#[tokio::test]
async fn the_plugins_are_hidden_also_when_they_lie_in_the_workspace() {
    let scene = Scene::new().await;
    let plugins = scene.workspace().join("tools/plugins");
    fs::create_dir_all(&plugins).unwrap();
    fs::write(plugins.join("plugin.toml"), "").unwrap();
    let script = "ls -A tools/plugins; touch tools/plugins/x || echo closed";
    let scene = scene
        .env("PLUGIN_DIR", &plugins.to_string_lossy())
        .workflow(&json!([{ "run": script }]));
    let outcome = scene.run().await;
    outcome.done();
    assert_eq!(outcome.lines("stdout", 0), ["closed"]);
}

#[tokio::test]
async fn the_operator_opens_folders_and_the_network() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let outside = tempfile::Builder::new()
        .prefix("plue-read-")
        .tempdir_in("/var/tmp")
        .unwrap();
    fs::write(outside.path().join("tool"), "a tool\n").unwrap();
    let folder = outside.path().to_string_lossy().into_owned();
    // A folder for everybody, as a toolchain is.
    fs::set_permissions(outside.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let script = format!(
        "cat {folder}/tool || echo hidden; touch {folder}/x 2>/dev/null || echo read-only\n\
         bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}' 2>/dev/null && echo network || echo none"
    );
    let steps = json!([{ "run": script }]);
    let closed = Scene::new().await.workflow(&steps).run().await;
    closed.done();
    assert_eq!(closed.lines("stdout", 0), ["hidden", "read-only", "none"]);
    let scene = Scene::new()
        .await
        .env("COMMAND_READ_PATHS", &folder)
        .env("COMMAND_NETWORK", "pod");
    let open = scene.workflow(&steps).run().await;
    open.done();
    assert_eq!(open.lines("stdout", 0), ["a tool", "read-only", "network"]);
    assert!(!Path::new(&folder).join("x").exists());
}

#[tokio::test]
async fn steps_of_one_task_share_a_tmp_and_no_other_task_sees_it() {
    let outcome = run(json!([{ "run": "echo kept > /tmp/plue-test-note; mkdir \
            $HOME/x" }, { "run": "cat /tmp/plue-test-note; ls $HOME" }]))
    .await;
    outcome.done();
    assert_eq!(outcome.lines("stdout", 1), ["kept", "x"]);
    let next = run(json!([{ "run": "ls -A $HOME; cat /tmp/plue-test-note 2>/dev/null || true" }])).await;
    next.done();
    assert_eq!(next.lines("stdout", 0), [""; 0]);
    assert!(!Path::new("/tmp/plue-test-note").exists());
}
