//! What confinement costs: a command through the sandbox, against a fork and an exec without any.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use criterion::Criterion;
use plue_runner::sandbox::strict::{CommandRules, StrictSandbox};
use plue_runner::sandbox::{CommandEvent, CommandSpec, Sandbox};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const PROGRAM: &str = "/bin/true";

pub fn benchmarks(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let workspace = tempfile::tempdir().expect("a folder");
    let rules = CommandRules::default();
    let sandbox = runtime.block_on(StrictSandbox::start_by(&crate::runner(), workspace.path(), &[], &rules));
    let sandbox = sandbox.expect("this machine has every layer");
    let mut group = criterion.benchmark_group("command");
    group.bench_function("bare_true", |b| {
        b.iter(|| {
            // Both outputs are read to their ends, as the sandbox does.
            let output = Command::new(PROGRAM).stdin(Stdio::null()).output();
            assert!(output.expect("it runs").status.success());
        });
    });
    group.bench_function("sandbox_true", |b| b.iter(|| runtime.block_on(confined(&sandbox))));
    group.finish();
    runtime.block_on(sandbox.shut_down());
}

async fn confined(sandbox: &StrictSandbox) {
    let spec = CommandSpec {
        argv: vec![PROGRAM.into()],
        working_directory: ".".into(),
        env: BTreeMap::new(),
        timeout: Duration::from_secs(10),
    };
    let mut command = sandbox.start(spec, CancellationToken::new()).await.expect("it starts");
    loop {
        match command.events.recv().await.expect("it ends") {
            CommandEvent::Output(..) => {}
            CommandEvent::Exited(status) => {
                assert_eq!(status.code, 0);
                return;
            }
        }
    }
}
