//! One agent task in gVisor: the demo, with its doubles and the runner inside of the container.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{DIST, Options, PROGRAMS, WORKSPACE, must_run};
use crate::demo;
use crate::layout::Layout;

/// It takes 4 s.
const LIMIT: Duration = Duration::from_secs(180);

/// Fails unless the container is the pod: an ordinary user without capabilities, few folders to write to, no network.
const POD: &str = r#"
test "$(id -u):$(id -g)" = 1000:1000
test "$(grep -cE '^Cap(Inh|Prm|Eff|Bnd):\s0{16}$' /proc/self/status)" = 4
touch /workspace/file /tmp/file
for place in / /etc /opt/plue /opt/plue/plugins; do
    if touch "$place/file" 2>/dev/null; then echo "$place can be written to"; exit 1; fi
done
test "$(grep -c : /proc/net/dev)" = 1
grep -q '^ *lo:' /proc/net/dev
grep -q '^Linux version 4.4.0' /proc/version"#;

/// Makes sure that the container is what it should be, and runs the demo in it.
pub fn run(layout: &Layout) -> Result<()> {
    let plain = Options {
        env: &[],
        programs: &[],
        limit: LIMIT,
    };
    let check = ["/bin/sh", "-euxc", POD].map(str::to_owned);
    must_run(layout, "looking at the container", &check, &plain).context("the container is not like the pod")?;
    let program = demo::program(layout);
    let argv = [
        format!("{PROGRAMS}/plue-demo"),
        "--runner".to_owned(),
        format!("{DIST}/plue-runner"),
        "--plugins".to_owned(),
        format!("{DIST}/plugins"),
    ];
    // The repository lies where it lies in the pod.
    let options = Options {
        env: &[("TMPDIR", WORKSPACE)],
        programs: &[&program],
        limit: LIMIT,
    };
    must_run(layout, "the demo", &argv, &options)
}
