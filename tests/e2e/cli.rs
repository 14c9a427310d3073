//! The commands for people: `check` and `plugin`.

use std::fs;
use std::io::pipe;
use std::path::Path;
use std::process::{Command, Output};

use support::RunnerProcess;

fn command(arguments: &[&str]) -> Output {
    command_with(&[], arguments)
}

fn command_with(env: &[(&str, &str)], arguments: &[&str]) -> Output {
    Command::new(RunnerProcess::built().binary())
        .args(arguments)
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

/// A line of shell with the runner as `$0`, its time bounded.
fn shell(line: &str) -> Output {
    Command::new("timeout")
        .args(["20", "bash", "-c", line])
        .arg(RunnerProcess::built().binary())
        .output()
        .unwrap()
}

fn task(folder: &Path, text: &str) -> String {
    let file = folder.join("task.yaml");
    fs::write(&file, text).unwrap();
    file.to_string_lossy().into_owned()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn check_says_what_a_valid_task_is() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        (
            "task.json",
            r#"{"messages":[{"role":"user","content":"hi"}],"tools":["grep"]}"#,
            "valid (agent, claude-sonnet-4-20250514, grep, at most 20 turns)",
        ),
        (
            "task.yaml",
            "steps:\n  - run: make\n  - run: make test\n",
            "valid (workflow, 2 steps)",
        ),
        (
            "ci.yml",
            "on: push\njobs:\n  a:\n    steps:\n      - run: make\n",
            "valid (workflow, 1 step)",
        ),
    ];
    for (name, task, expected) in cases {
        let file = folder.path().join(name);
        fs::write(&file, task).unwrap();
        let output = command(&["check", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        assert!(
            text(&output).ends_with(&format!("{name}: {expected}\n")),
            "{}",
            text(&output)
        );
        // The model of a task that names none is retired, and another one is asked.
        assert_eq!(
            text(&output).contains("claude-sonnet-5-5 is asked in its place"),
            name == "task.json"
        );
    }
}

#[test]
fn check_tells_all_problems_and_unknown_keys_are_among_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("task.json");
    fs::write(
        &file,
        r#"{"type":"workflow","stesp":1,"steps":[{"rn":"make"},{"run":true}]}"#,
    )
    .unwrap();
    let output = command(&["check", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let text = text(&output);
    for expected in [
        ": 4 problems\n",
        "  steps[0]: has neither `run` nor `type`",
        "  steps[1].run: must be a string, found the boolean true",
        "  stesp: is not known; did you mean `steps`?",
        "  steps[0].rn: is not known; did you mean `run`?",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in:\n{text}");
    }
}

#[test]
fn check_of_a_file_that_cannot_be_read_says_so() {
    let output = command(&["check", "/nowhere/task.json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output).starts_with("/nowhere/task.json: cannot be read: "),
        "{}",
        text(&output)
    );
}

#[test]
fn check_reads_no_more_than_a_task_may_have_and_waits_for_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let huge = folder.path().join("huge.json");
    fs::File::create(&huge).unwrap().set_len(1 << 40).unwrap();
    let fifo = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let cases = [
        (huge.to_string_lossy(), "longer than 33554432 bytes"),
        (fifo.to_string_lossy(), "is no regular file"),
        ("/dev/full".into(), "is no regular file"),
        (folder.path().to_string_lossy(), "is no regular file"),
    ];
    for (file, expected) in cases {
        let output = shell(&format!("ulimit -v 1000000; exec \"$0\" check '{file}'"));
        assert_eq!(output.status.code(), Some(2), "{file}: {output:?}");
        assert!(text(&output).contains(expected), "{}", text(&output));
    }
}

#[test]
fn check_goes_by_the_operators_models_aliases_tools_and_workspace() {
    let folder = tempfile::tempdir().unwrap();
    let agent = |fields: &str| format!("messages: [{{role: user, content: hi}}]\n{fields}\n");
    let step = |folder: &str| format!("steps: [{{run: x, working_directory: {folder}}}]");
    let sonnet = ("MODEL_ALIASES", "claude-sonnet-4-20250514=claude-sonnet-5-5");
    let haiku = ("MODEL_ALIASES", "claude-sonnet-4-20250514=claude-haiku-4-5");
    let cases = [
        (sonnet, agent("effort: max"), ": valid ("),
        (
            haiku,
            agent("effort: max"),
            "effort: claude-haiku-4-5 does not take effort",
        ),
        (
            sonnet,
            agent("thinking: {type: disabled}"),
            "thinking: claude-sonnet-5-5 does not take",
        ),
        (
            ("MODEL_ALIASES", "one"),
            agent(""),
            "MODEL_ALIASES: \"one\" is not of the form",
        ),
        (("ALLOWED_MODELS", " a ,b"), agent("model: a"), ": valid ("),
        (
            ("ALLOWED_MODELS", "a"),
            agent("model: b"),
            "model: \"b\" is not allowed",
        ),
        (("ALLOWED_TOOLS", "mine"), agent("tools: [mine]"), ": valid ("),
        (
            ("ALLOWED_TOOLS", "mine"),
            agent("tools: [grep]"),
            "tools[0]: the tool \"grep\" is not allowed",
        ),
        (("WORKSPACE", "/ws"), step("/ws/sub"), ": valid ("),
        (
            ("WORKSPACE", "/ws"),
            step("/etc"),
            "steps[0].working_directory: \"/etc\" is not in the workspace",
        ),
        (
            ("WORKSPACE", "/ws"),
            step("../x"),
            "steps[0].working_directory: \"../x\" leaves the workspace",
        ),
        (
            ("WORKSPACE", "/ws"),
            "jobs: {a: {needs: b, steps: [{run: x}]}}".into(),
            "jobs.a.needs: is not known",
        ),
        (
            ("WORKSPACE", "/ws"),
            "steps: [{type: checkout, run: x}]".into(),
            "steps[0].run: means nothing to a step of type checkout",
        ),
    ];
    for (variable, document, expected) in cases {
        let output = command_with(&[variable], &["check", &task(folder.path(), &document)]);
        let valid = expected.starts_with(": valid");
        assert_eq!(
            output.status.code(),
            Some(if valid { 0 } else { 2 }),
            "{}",
            text(&output)
        );
        assert!(text(&output).contains(expected), "{document}: {}", text(&output));
    }
}

#[test]
fn a_number_that_is_too_large_is_one_problem_among_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let document = "steps: [{run: x, env: {A: 18446744073709551616}, timeout_seconds: 18446744073709551616}, {run: 7}]";
    let output = command(&["check", &task(folder.path(), document)]);
    let text = text(&output);
    assert!(
        text.contains(": 2 problems\n") && text.contains("steps[0].timeout_seconds") && text.contains("steps[1].run"),
        "{text}"
    );
}

#[test]
fn output_that_nobody_takes_is_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let valid = task(folder.path(), "steps: [{run: x}]");
    let cases = [
        ("plugin list".to_owned(), 0),
        ("plugin list --json".to_owned(), 0),
        ("plugin list --plugin-dir /nowhere".to_owned(), 2),
        (format!("check {valid}"), 0),
        ("check /nowhere".to_owned(), 2),
        ("--help".to_owned(), 0),
    ];
    for (arguments, code) in cases {
        // The reader is gone before the runner starts to write.
        let gone = shell(&format!(
            "{{ sleep 0.1; \"$0\" {arguments}; exit $?; }} | true; exit ${{PIPESTATUS[0]}}"
        ));
        assert_eq!(gone.status.code(), Some(code), "{arguments}: {gone:?}");
        assert_eq!(gone.stderr, b"", "{arguments}: {gone:?}");
        let full = shell(&format!("exec \"$0\" {arguments} > /dev/full"));
        let said = String::from_utf8_lossy(&full.stderr).into_owned();
        assert!(!said.contains("panicked"), "{arguments}: {said}");
        if arguments != "--help" {
            assert_eq!(full.status.code(), Some(3), "{arguments}: {full:?}");
            assert!(
                said.starts_with("standard output cannot be written: "),
                "{arguments}: {said}"
            );
        }
    }
}

#[test]
fn a_runner_that_may_not_open_what_it_needs_to_start_is_invalid() {
    let mut critical = 0;
    // With fewer even the shell cannot start it; with more it starts.
    for files in 5..9 {
        let output = shell(&format!("ulimit -n {files}; exec \"$0\""));
        assert_eq!(output.status.code(), Some(2), "{files}: {output:?}");
        assert_eq!(text(&output).lines().count(), 1, "{files}: {output:?}");
        critical += usize::from(text(&output).contains("\"level\":\"CRITICAL\""));
    }
    assert!(critical > 0, "no limit kept the runner from starting");
}

#[test]
fn plugins_are_listed_with_their_grants() {
    let output = command(&["plugin", "list"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let lines: Vec<_> = text(&output).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert!(
        lines.contains(&"shell       workspace: read, runs commands".to_owned()),
        "{lines:?}"
    );
    assert!(
        lines.contains(&"write_file  workspace: read-write".to_owned()),
        "{lines:?}"
    );
    let output = command(&["plugin", "list", "--plugin-dir", "/nowhere"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("/nowhere"), "{}", text(&output));
}

#[test]
fn a_reader_that_has_gone_is_no_error_of_any_program_that_prints() {
    let folder = tempfile::tempdir().unwrap();
    let file = task(folder.path(), "steps: [{run: make}]");
    let runner = RunnerProcess::built().binary().to_owned();
    let escape = runner.with_file_name("plue-escape");
    let cases: &[(&Path, &[&str], i32)] = &[
        (&runner, &["--help"], 0),
        (&runner, &["--version"], 0),
        (&runner, &["check", &file], 0),
        (&runner, &["check", "/nowhere"], 2),
        (&runner, &["plugin", "list"], 0),
        (&runner, &["plugin", "list", "--json"], 0),
        (&runner, &["plugin", "list", "--plugin-dir", "/nowhere"], 2),
        (&runner, &["health"], 1),
        (&runner, &["drain"], 1),
        (&runner, &["escape-test", "--only", "files/absolute"], 0),
        (&escape, &["--help"], 0),
        (&escape, &["--list"], 0),
        (&escape, &["--list", "--only", "no/such-attack"], 2),
    ];
    for (program, arguments, code) in cases {
        let (gone, out) = pipe().unwrap();
        drop(gone);
        let (gone, err) = pipe().unwrap();
        drop(gone);
        let mut command = Command::new(program);
        command.args(*arguments).env_clear().env("PATH", "/usr/bin:/bin");
        command.env("SPOOL_DIR", folder.path());
        let status = command.stdout(out).stderr(err).status().unwrap();
        assert_eq!(status.code(), Some(*code), "{} {arguments:?}", program.display());
    }
}
