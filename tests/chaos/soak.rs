//! One standby runner, 500 tasks: nothing grows, and nothing is left.

use std::fs;
use std::time::Duration;

use serde_json::json;
use support::processes::memory;
use support::{ApiServer, Assignment, Turn};

use support::standby::{Standby, workflow};

const TASKS: i64 = 500;
/// What a process may grow by from the first tasks to the last, in bytes and descriptors: what an allocator keeps.
const GROWTH: u64 = 4 << 20;

/// Over how many tasks in a row the least is taken: every kind of task comes in them twice.
const WINDOW: i64 = 10;
/// How often the runner is looked at: several times a task.
const LOOK: Duration = Duration::from_millis(2);

/// What a runner holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    resident: u64,
    descriptors: usize,
}

impl Held {
    fn now(runner: u32) -> Self {
        Self {
            resident: memory(runner, "VmRSS").unwrap(),
            descriptors: fs::read_dir(format!("/proc/{runner}/fd")).unwrap().count(),
        }
    }

    /// What the runner never went below while tasks `first` and its next ones ran. A single look would fall into some
    /// moment of a task, and a task in its midst holds more than one that begins; what leaks is there at every moment.
    async fn least(runner: u32, api: &ApiServer, first: i64) -> Self {
        let mut least = Self {
            resident: u64::MAX,
            descriptors: usize::MAX,
        };
        while api.task(first).terminal().is_none() {
            tokio::time::sleep(LOOK).await;
        }
        while api.task(first + WINDOW).terminal().is_none() {
            let now = Self::now(runner);
            least.resident = least.resident.min(now.resident);
            least.descriptors = least.descriptors.min(now.descriptors);
            tokio::time::sleep(LOOK).await;
        }
        least
    }
}

/// What lies in /tmp and may be ours, but for the scenes of tests.
fn left_in_tmp() -> Vec<String> {
    let names = fs::read_dir("/tmp").unwrap().flatten();
    let mut names: Vec<String> = names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(".plue-") || name.starts_with("plue-sandbox") || name.starts_with("home"))
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn five_hundred_tasks_leave_a_runner_as_it_was() {
    let before = left_in_tmp();
    let model = support::Claude::answering(|_| Turn::says("Hello from the model.").into())
        .await
        .unwrap();
    let scene = Standby::new()
        .await
        .env("ANTHROPIC_API_KEY", support::claude::KEY)
        .env("ANTHROPIC_BASE_URL", &model.url())
        .env("ALLOWED_MODELS", support::scene::MODEL)
        .limit(Duration::from_secs(600));
    for id in 1..=TASKS {
        let task = match id % 5 {
            0 => json!({ "type": "agent", "model": support::scene::MODEL,
                "messages": [{ "role": "user", "content": "Go." }] }),
            1 => workflow(&json!([{ "run": "seq 1 2000; mkdir -p a/b; echo x > a/b/c; (sleep 60 &)" }])),
            2 => json!({ "type": "nonsense" }),
            3 => workflow(&json!([{ "run": "exit 3" }])),
            _ => workflow(&json!([{ "run": "echo $HOME > file; echo hello" }])),
        };
        scene.api.assign(Assignment::new(id, task));
    }
    let scene = scene.tasks(u32::try_from(TASKS).unwrap());
    let running = scene.start();
    let id = running.id().unwrap();
    let mut seen = Vec::new();
    // The first figure is taken when everything has happened once, the last before the runner ends.
    for first in [TASKS / 20, TASKS / 2, TASKS - WINDOW - 5] {
        seen.push(Held::least(id, &scene.api, first).await);
    }
    let ended = scene.finish(running).await;
    println!("first, middle, last of {TASKS} tasks: {seen:?}");
    assert_eq!(ended.finished.code, 0, "{}", ended.finished.stdout);
    for id in 1..=TASKS {
        let ending = ended.ending(id);
        let expected = match id % 5 {
            2 => "invalid_task",
            3 => "step_failed",
            _ => "done",
        };
        assert_eq!(
            ending["code"].as_str().unwrap_or("done"),
            expected,
            "task {id}: {ending}"
        );
    }
    let (first, last) = (seen[0], seen[2]);
    assert!(last.resident <= first.resident + GROWTH, "{seen:?}");
    assert!(last.descriptors <= first.descriptors + 2, "{seen:?}");
    assert_eq!(ended.scene.left(), [".plue-workspace"]);
    assert_eq!(left_in_tmp(), before);
    drop(model);
}
