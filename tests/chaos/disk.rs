//! A spool on a disk that is full: log lines are cut, and said to be; nothing else is lost.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use support::{Answer, ApiServer, Turn};

use crate::seed::each_seed;
use support::scene::{Outcome, Scene};

/// A small disk of its own.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Needs root's rights, as the container of gVisor does.
    fn mount(at: &Path, kib: u64) -> Self {
        std::fs::create_dir(at).unwrap();
        let size = format!("size={kib}k,mode=1777");
        as_root(&["mount", "-t", "tmpfs", "-o", &size, "plue-chaos", &at.to_string_lossy()]);
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        as_root(&["umount", "--lazy", &self.0.to_string_lossy()]);
    }
}

fn as_root(command: &[&str]) {
    let sudo: &[&str] = if rustix::process::geteuid().is_root() {
        &[]
    } else {
        &["sudo", "--non-interactive"]
    };
    let all = [sudo, command].concat();
    let status = Command::new(all[0]).args(&all[1..]).status().unwrap();
    assert!(status.success(), "{all:?}: {status}");
}

/// What the first step printed, as far as it was kept. On a busy machine a line may be told in two pieces.
fn printed(outcome: &Outcome) -> String {
    let mut text = String::new();
    for log in outcome.events_of("log") {
        if log["level"] == "stdout" && log["step_index"] == 0 {
            text.push_str(log["message"].as_str().unwrap());
            text.push_str(if log["partial"] == true { "" } else { "\n" });
        }
    }
    text
}

#[tokio::test]
async fn on_a_full_disk_log_lines_are_cut_with_a_note_and_nothing_else_is_lost() {
    each_seed(|seed| async move {
        let mut chance = seed.of("disk");
        let settings = ApiServer::with().answering(|attempt| match attempt.event["type"].as_str() {
            Some("log") => Answer::Late(Duration::from_millis(60), Box::new(Answer::Ok)),
            _ => Answer::Ok,
        });
        let scene = Scene::with(settings).await.limit(Duration::from_secs(120));
        let folder = scene.outside().join("spool");
        let disk = SmallDisk::mount(&folder, 512 + chance.below(4096));
        let lines = 280_000 + chance.below(120_000);
        let script = format!("seq -f '%09.0f {}' 1 {lines}", "y".repeat(89));
        let scene = scene
            .workflow(&json!([{ "run": script }, { "run": "echo after" }]))
            .env("SPOOL_DIR", &folder.to_string_lossy());
        let outcome = scene.run().await;
        outcome.done();
        drop(disk);
        let missing = |step| -> u64 {
            let notes = outcome.lines("error", step);
            notes
                .iter()
                .map(|note| note.split(' ').next().unwrap().parse::<u64>().unwrap())
                .sum()
        };
        assert!(missing(0) > 0, "{lines} lines fit");
        let kept = printed(&outcome);
        assert_eq!(kept.len() as u64 + missing(0), lines * 100);
        assert!(kept.lines().is_sorted(), "what is kept is in order");
        // There may still be no room for this one; then its step says so.
        let after = outcome.lines("stdout", 1).join("").len() as u64;
        assert_eq!(after + missing(1), if after == 0 { 6 } else { 5 });
        assert!(
            outcome.finished.stdout.contains("SPOOL_DIR"),
            "{}",
            outcome.finished.stdout
        );
    })
    .await;
}

#[tokio::test]
async fn on_a_full_disk_no_token_and_no_result_of_a_tool_is_lost() {
    each_seed(|seed| async move {
        let mut chance = seed.of("disk");
        let settings = ApiServer::with().answering(|_| Answer::Late(Duration::from_millis(20), Box::new(Answer::Ok)));
        let scene = Scene::with(settings).await.limit(Duration::from_secs(120));
        let folder = scene.outside().join("spool");
        let disk = SmallDisk::mount(&folder, 64);
        let calls = 20 + chance.below(10);
        // Each result is about 100 KB, which the model reads in its next turn: together more than fits in memory. Each
        // is of another file: the same one again and again would be a circle.
        let mut turns: Vec<Turn> = (0..calls)
            .map(|call| {
                let input = json!({ "path": format!("large{call}") });
                Turn::says(&format!("Call {call}. ")).call(&format!("t{call}"), "read_file", input)
            })
            .collect();
        turns.push(Turn::says("Done."));
        let files = 0..calls;
        let scene = files.fold(scene, |scene, call| {
            scene.file(&format!("large{call}"), "z".repeat(99_000))
        });
        let scene = scene
            .agent(json!({ "tools": ["read_file"], "max_turns": 100 }), turns)
            .await
            .env("SPOOL_DIR", &folder.to_string_lossy())
            .env("SPOOL_SIZE", "0");
        let outcome = scene.run().await;
        outcome.done();
        drop(disk);
        let ends = outcome.events_of("tool_end");
        assert_eq!(ends.len() as u64, calls);
        assert!(ends.iter().all(|end| end["output"].as_str().unwrap().len() >= 99_000));
        let expected: String = (0..calls).map(|call| format!("Call {call}. ")).collect();
        assert_eq!(outcome.text(), expected + "Done.");
    })
    .await;
}
