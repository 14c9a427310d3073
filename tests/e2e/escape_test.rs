//! `plue-runner escape-test`: the attacks, asked for through the runner that they attack.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use support::RunnerProcess;

/// A few that take little time: through all file tools and both ways to run a command.
const FEW: [&str; 4] = ["--only", "files/absolute", "--only", "processes/environment-of-others"];

fn escape_test(env: &[(&str, &str)], arguments: &[&str]) -> Output {
    Command::new(RunnerProcess::built().binary())
        .arg("escape-test")
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[test]
fn escape_test_prints_the_table_and_succeeds_when_all_held() {
    let output = escape_test(&[], &FEW);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for part in ["read_file", "shell", "step", "files", "processes", "0 got through"] {
        assert!(said.contains(part), "{part:?} is missing in:\n{said}");
    }
}

#[test]
fn escape_test_fails_and_names_what_got_through() {
    let output = escape_test(&[("SANDBOX", "weak")], &["--json", FEW[2], FEW[3]]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["got_through"].as_u64().unwrap() > 0, "{report:#}");
    assert_eq!(report["conditions"], serde_json::json!(["SANDBOX=weak"]));
}

#[test]
fn escape_test_that_cannot_be_run_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("plue-runner");
    fs::copy(RunnerProcess::built().binary(), &alone).unwrap();
    let output = Command::new(&alone).arg("escape-test").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let harness = folder.path().canonicalize().unwrap().join("plue-escape");
    assert!(said(&output).contains(&*harness.to_string_lossy()), "{}", said(&output));
    assert!(
        said(&output).contains("beside the runner's binary"),
        "{}",
        said(&output)
    );
    let output = escape_test(&[], &["--only", "no/such-attack"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}
