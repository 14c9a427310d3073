//! The demo is what people see first, so it is run as they run it.

use std::process::{Command, Output};

use support::RunnerProcess;

/// Runs `plue-demo` with this runner and nothing in the environment.
fn demo(runner: &str, plugins: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plue-demo"));
    command
        .env_clear()
        .args(["--runner", runner, "--plugins", plugins])
        .output()
        .unwrap()
}

#[test]
fn the_demo_goes_from_red_to_green_and_shows_the_change() {
    let built = RunnerProcess::built();
    let output = demo(&built.binary().to_string_lossy(), &built.plugins().to_string_lossy());
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{stdout}{stderr}");
    for part in [
        "not ok 4 - shipping 5000: expected 0, got 490",
        "▸ list_files",
        "▸ grep",
        "▸ read_file",
        "▸ write_file",
        "▸ shell",
        "5 checks are green",
        "+    if [ \"$1\" -ge 5000 ]; then",
        "6 tool_end",
        "sandbox: strict",
    ] {
        assert!(stdout.contains(part), "{part:?} is missing in {stdout}");
    }
    assert!(!stdout.contains('\x1b'), "no colours where there is no terminal");
}

#[test]
fn the_demo_fails_loudly_when_the_runner_does_nothing_or_has_no_plugins() {
    let built = RunnerProcess::built();
    let runner = built.binary().to_string_lossy().into_owned();
    let plugins = built.plugins().to_string_lossy().into_owned();
    for (runner, plugins) in [
        ("/bin/true", plugins.as_str()),
        ("/nowhere/plue-runner", &plugins),
        (&runner, "/nowhere"),
    ] {
        let output = demo(runner, plugins);
        assert_eq!(output.status.code(), Some(1), "{runner} {plugins}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("The demo FAILED"), "{stderr}");
    }
}
