//! Commands that do not end when they should, and what they leave behind.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use plue_sandbox::mutation::Protection;

use super::program;
use crate::attack::{Attack, Baseline, Class, Expect};
use crate::scene::Scene;
use crate::sys;
use crate::target::Outcome;

/// Whether the file that a daemon writes to still grows.
const NO_HEARTBEAT: &str = "a=$(wc -c < heartbeat); sleep 0.6; b=$(wc -c < heartbeat); \
    if [ \"$a\" = \"$b\" ]; then echo still-here; else echo 'the daemon of the last command lives'; fi";

/// Writes to a file for ten seconds; in a baseline, which waits for the end of all that it started, for one.
fn beat(path: &Path, baseline: bool) {
    for _ in 0..if baseline { 20 } else { 200 } {
        if let Ok(mut file) = fs::File::options().create(true).append(true).open(path) {
            let _ = file.write_all(b".");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

const fn script(id: &'static str, what: &'static str, script: fn(&Scene) -> String) -> Attack {
    Attack::script(id, Class::Processes, what, script)
}

/// A command that ends by its time limit alone.
const fn endless(id: &'static str, what: &'static str, run: fn(&Scene) -> String) -> Attack {
    script(id, what, run)
        .seconds(1)
        .expect(Expect::Killed("timeout"))
        .baseline(Baseline::Same)
}

/// Outside, the script goes on for longer than a command here may.
fn goes_on(scene: &Scene, script: &str) -> anyhow::Result<()> {
    let (said, ended) = scene.outside(script, Duration::from_millis(2500))?;
    ensure!(!ended, "it comes to an end: {said}");
    Ok(())
}

pub const ATTACKS: &[Attack] = &[
    program(
        "processes/daemon",
        "a daemon by double fork and setsid, which outlives its command",
        |target| {
            let path = target.workspace.join("heartbeat");
            let started = sys::daemon(|| beat(&path, target.baseline));
            while started.is_ok() && !path.exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
            match started {
                Ok(()) if target.baseline => Outcome::GotThrough("the daemon runs".to_owned()),
                Ok(()) => Outcome::held("the daemon was started; the next command looks for it"),
                Err(error) => Outcome::refused("fork", &error),
            }
        },
    )
    .then(NO_HEARTBEAT)
    .falls_without(&[Protection::Reaping]),
    program(
        "processes/daemon-and-a-timeout",
        "a daemon by double fork and setsid that ignores TERM, of a command that is ended by its time limit",
        |target| {
            let path = target.workspace.join("heartbeat");
            let started = sys::daemon(|| {
                sys::ignore_term();
                beat(&path, target.baseline);
            });
            match started {
                Ok(()) if target.baseline => Outcome::GotThrough("the daemon runs".to_owned()),
                Ok(()) => {
                    std::thread::sleep(Duration::from_secs(4));
                    Outcome::GotThrough("the command ran for four seconds".to_owned())
                }
                Err(error) => Outcome::refused("fork", &error),
            }
        },
    )
    .seconds(1)
    .expect(Expect::Killed("timeout"))
    .then(NO_HEARTBEAT),
    script(
        "processes/background",
        "a background process that holds the outputs open",
        |_| {
            "(trap '' HUP TERM; while :; do printf . >> heartbeat; sleep 0.1; done) & sleep 0.3; held 'it was started'"
                .to_owned()
        },
    )
    .then(NO_HEARTBEAT)
    .baseline(Baseline::Bounded(|scene| {
        let script =
            "(trap '' HUP TERM; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do printf . >> heartbeat; sleep 0.1; done) &";
        scene.outside(script, Duration::from_secs(5))?;
        std::thread::sleep(Duration::from_millis(300));
        let before = fs::metadata(scene.workspace.join("heartbeat"))?.len();
        std::thread::sleep(Duration::from_millis(500));
        ensure!(
            fs::metadata(scene.workspace.join("heartbeat"))?.len() > before,
            "it does not go on"
        );
        Ok(())
    })),
    endless(
        "processes/never-ends",
        "a command that sleeps longer than it may",
        |_| "sleep 3; through 'it ran for three seconds'".to_owned(),
    )
    .falls_without(&[Protection::Deadline]),
    endless("processes/busy-loop", "a command that counts for ever", |_| {
        "while :; do :; done".to_owned()
    })
    .baseline(Baseline::Bounded(|scene| goes_on(scene, "while :; do :; done"))),
    endless(
        "processes/ignores-term",
        "a command that ignores every signal it can",
        |_| "trap '' TERM HUP INT QUIT USR1 ALRM; while :; do sleep 0.1; done".to_owned(),
    )
    .baseline(Baseline::Bounded(|scene| {
        goes_on(
            scene,
            "trap '' TERM HUP INT; kill -TERM $$; kill -HUP $$; while :; do sleep 0.1; done",
        )
    })),
    endless(
        "processes/stops-itself",
        "a command that stops itself, and so does not notice a TERM",
        |_| "kill -STOP $$; through 'it went on'".to_owned(),
    )
    .baseline(Baseline::Bounded(|scene| goes_on(scene, "kill -STOP $$"))),
    endless(
        "processes/forks-faster-than-it-is-killed",
        "every process starts the next and ends",
        |_| "f() { (f) & }; while :; do (sleep 0.05 &) ; done".to_owned(),
    )
    .env(&[("COMMAND_PROCESSES", "400")])
    .baseline(Baseline::Bounded(|scene| {
        goes_on(scene, "while :; do (sleep 0.05 &) ; done")
    })),
    endless("processes/endless-output", "10 GB of output", |_| {
        "yes 'a line of endless output' | head -c 10000000000; sleep 60".to_owned()
    })
    .baseline(Baseline::Bounded(|scene| {
        goes_on(scene, "yes 'a line of endless output' > /dev/null")
    })),
    script(
        "processes/output-without-a-line",
        "20 MB of output without a line break",
        |_| "head -c 20000000 /dev/zero | tr '\\000' x; held 'all was written'".to_owned(),
    )
    .baseline(Baseline::Bounded(|scene| {
        let (said, _) = scene.outside("head -c 1000 /dev/zero | tr '\\000' x", Duration::from_secs(10))?;
        ensure!(said.len() >= 1000, "there is no output");
        Ok(())
    })),
    script("processes/output-of-zeros", "output that is no text", |_| {
        "head -c 300000 /dev/zero; head -c 300000 /dev/urandom; held 'all was written'".to_owned()
    })
    .baseline(Baseline::Bounded(|scene| {
        let (said, _) = scene.outside("head -c 1000 /dev/zero | wc -c", Duration::from_secs(10))?;
        ensure!(said.trim() == "1000", "there is no output: {said}");
        Ok(())
    })),
    script(
        "processes/waits-for-input",
        "a command that reads its standard input",
        |_| "cat; held 'the input came to an end'".to_owned(),
    )
    .seconds(10)
    .baseline(Baseline::Bounded(|scene| goes_on(scene, "cat"))),
    script(
        "processes/closes-its-outputs",
        "a command that closes its outputs and goes on",
        |_| "(held 'it is closed from here on'); exec >&- 2>&-; sleep 0.3".to_owned(),
    )
    .baseline(Baseline::Bounded(|scene| {
        let (_, ended) = scene.outside("exec >&- 2>&-; sleep 0.1", Duration::from_secs(10))?;
        ensure!(ended, "it does not end");
        Ok(())
    })),
];
