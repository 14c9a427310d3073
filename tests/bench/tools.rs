//! What a tool call costs, against what it replaces.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use plue_sandbox::strict::{CommandRules, StrictSandbox};
use plue_tool_host::{Host, HostConfig, TaskToolbox, Toolbox};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// The tree that grep is measured on: 20,000 files in 200 folders, about 10 KB each, like a large repository.
const FOLDERS: usize = 200;
const FILES_PER_FOLDER: usize = 100;
const LINES: usize = 200;
/// Matches a few lines in the whole tree.
const PATTERN: &str = r"needle_[0-9]+\(";

pub fn benchmarks(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let small = workspace_with_a_file();
    let host = load(&runtime, small.path());
    let toolbox = toolbox(&host);

    let mut group = criterion.benchmark_group("call");
    group.bench_function("instantiate", |b| {
        b.iter(|| runtime.block_on(host.instantiate("read_file")).expect("an instance"));
    });
    group.bench_function("read_file_4k", |b| {
        b.iter(|| call(&runtime, &toolbox, "read_file", r#"{"path":"file.txt"}"#));
    });
    group.bench_function("spawn_true", |b| {
        b.iter(|| {
            let status = Command::new("/bin/true").stdin(Stdio::null()).status();
            assert!(status.expect("/bin/true runs").success());
        });
    });
    group.bench_function("shell_true", |b| {
        b.iter(|| call(&runtime, &toolbox, "shell", r#"{"command":"true"}"#));
    });
    group.finish();

    let tree = tree();
    let host = load(&runtime, tree.path());
    let toolbox = self::toolbox(&host);
    let input = format!(
        r#"{{"pattern":{},"max_results":1000}}"#,
        serde_json::to_string(PATTERN).expect("JSON")
    );
    let found = call(&runtime, &toolbox, "grep", &input).lines().count();
    assert_eq!(found, ripgrep(tree.path()).lines().count(), "both find the same lines");
    let mut group = criterion.benchmark_group("grep_20000_files");
    group.sample_size(10).measurement_time(Duration::from_secs(6));
    group.bench_function("component", |b| b.iter(|| call(&runtime, &toolbox, "grep", &input)));
    group.bench_function("rg_j1", |b| b.iter(|| ripgrep(tree.path())));
    group.finish();
}

fn workspace_with_a_file() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let line = "A line of text that is as long as lines of source code tend to be, more or less.\n";
    fs::write(folder.path().join("file.txt"), &line.repeat(60)[..4096]).expect("a file");
    folder
}

fn load(runtime: &Runtime, workspace: &Path) -> Host {
    let sandbox = runtime.block_on(StrictSandbox::start_by(
        &crate::runner(),
        workspace,
        &[],
        &CommandRules::default(),
    ));
    let sandbox = Arc::new(sandbox.expect("this machine has every layer"));
    let config = HostConfig {
        plugin_dir: crate::plugins(),
        workspace: workspace.to_owned(),
        sandbox,
    };
    Host::load(config).expect("the plugins load")
}

fn toolbox(host: &Host) -> TaskToolbox {
    host.toolbox(&host.names()).expect("the tools are installed")
}

fn call(runtime: &Runtime, toolbox: &TaskToolbox, name: &str, input: &str) -> String {
    let outcome = runtime.block_on(toolbox.call(name, input, Arc::new(|_| {}), CancellationToken::new()));
    assert_eq!(outcome.error, None, "{}", outcome.text);
    black_box(outcome.text)
}

fn ripgrep(folder: &Path) -> String {
    let output = Command::new("rg")
        .args(["-uuu", "-j1", "--no-heading", "-n", "-e", PATTERN, "."])
        .current_dir(folder)
        .output()
        .expect("rg runs: `cargo xtask bench` installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    black_box(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The same tree each time: what is measured must not depend on chance.
fn tree() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for outer in 0..FOLDERS {
        let inner = folder.path().join(format!("src/module_{outer:03}"));
        fs::create_dir_all(&inner).expect("a folder");
        for file in 0..FILES_PER_FOLDER {
            let mut text = String::with_capacity(LINES * 52);
            for line in 0..LINES {
                let number = (outer * 7919 + file * 104_729 + line * 31) % 100_000;
                text.push_str(&format!(
                    "    let value_{number} = compute({line}, \"needle in hay\");\n"
                ));
            }
            if file == 50 {
                text.push_str(&format!("fn needle_{outer}() {{}}\n"));
            }
            fs::write(inner.join(format!("file_{file:03}.rs")), text).expect("a file");
        }
    }
    folder
}
