use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::ApiServer;

use support::scene::{Outcome, Scene};

async fn run(steps: Value) -> Outcome {
    Scene::new().await.workflow(&steps).run().await
}

/// What one script prints on standard output.
async fn output(script: &str) -> Vec<String> {
    let outcome = run(json!([{ "run": script }])).await;
    outcome.done();
    outcome.lines("stdout", 0)
}

#[tokio::test]
async fn steps_run_in_their_order_and_each_is_told() {
    let outcome = run(json!([
        { "name": "First", "run": "echo one" },
        { "run": "echo two >&2" },
        { "type": "checkout" },
    ]))
    .await;
    let done = outcome.done();
    assert_eq!(done.get("turns"), None, "a workflow asks no model");
    let told: Vec<(Value, Value, Value)> = outcome
        .events_of("step_end")
        .iter()
        .map(|end| {
            (
                end["step_index"].clone(),
                end["step_name"].clone(),
                end["step_state"].clone(),
            )
        })
        .collect();
    let expected = [
        (0, "First", "success"),
        (1, "step-1", "success"),
        (2, "step-2", "success"),
    ];
    assert_eq!(
        told,
        expected.map(|(index, name, state)| (json!(index), json!(name), json!(state)))
    );
    assert_eq!(outcome.events_of("step_end")[0]["exit_code"], 0);
    assert_eq!(outcome.lines("stdout", 0), ["one"]);
    assert_eq!(outcome.lines("stderr", 1), ["two"]);
}

#[tokio::test]
async fn a_step_that_fails_ends_the_workflow() {
    let outcome =
        run(json!([{ "run": "true" }, { "name": "Broken", "run": "echo why >&2; exit 3" }, { "run": "touch after" }]))
            .await;
    let error = outcome.failed("step_failed");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("Broken") && message.contains('3'), "{message}");
    let end = outcome.events_of("step_end").pop().unwrap();
    assert_eq!((&end["step_state"], &end["exit_code"]), (&json!("failure"), &json!(3)));
    assert!(end["output"].as_str().unwrap().contains('3'), "{end}");
    assert_eq!(outcome.events_of("step_start").len(), 2);
    assert!(!outcome.scene.workspace().join("after").exists());
}

#[tokio::test]
async fn a_script_ends_at_the_first_command_that_fails() {
    let outcome = run(json!([{ "run": "echo before\nfalse\necho after" }])).await;
    outcome.failed("step_failed");
    assert_eq!(outcome.lines("stdout", 0), ["before"]);
}

#[tokio::test]
async fn a_command_that_a_signal_ended_has_128_and_the_signal() {
    let outcome = run(json!([{ "run": "kill -9 $$" }])).await;
    outcome.failed("step_failed");
    assert_eq!(outcome.events_of("step_end")[0]["exit_code"], 137);
}

#[tokio::test]
async fn pipes_redirections_and_expansions_work() {
    assert_eq!(
        output("printf 'b\\na\\n' | sort > sorted; cat < sorted").await,
        ["a", "b"]
    );
    assert_eq!(
        output("A=$(echo x | tr x y); echo \"$A\" 2>&1 | cat; echo $((1 + 2))").await,
        ["y", "3"]
    );
    assert_eq!(output("cat <<END\nhere\nEND").await, ["here"]);
    assert_eq!(
        output("test ! -t 0 && cat && echo no input").await,
        ["no input"],
        "standard input is empty"
    );
}

#[tokio::test]
async fn a_step_that_runs_too_long_is_ended_with_everything_it_started() {
    let script = "echo started\n(trap '' TERM; echo $$ > /dev/null; sleep 300) &\nsetsid sleep 300 &\nwait";
    let started = Instant::now();
    let outcome = run(json!([{ "name": "Slow", "run": script, "timeout_seconds": 1 }, { "run": "touch after" }])).await;
    let error = outcome.failed("timeout");
    assert!(error["message"].as_str().unwrap().contains("Slow"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_eq!(outcome.events_of("step_end")[0]["step_state"], "failure");
    assert_eq!(outcome.lines("stdout", 0), ["started"]);
    let workspace = outcome.scene.workspace();
    assert!(!workspace.join("after").exists());
    assert_eq!(outcome.scene.left_running(), [""; 0]);
}

#[tokio::test]
async fn what_a_step_leaves_behind_ends_with_it() {
    let outcome = run(json!([{ "run": "sleep 300 & setsid sh -c 'sleep 300' &" }])).await;
    outcome.done();
    assert!(outcome.finished.elapsed < Duration::from_secs(30));
    assert_eq!(outcome.scene.left_running(), [""; 0]);
}

#[tokio::test]
async fn variables_come_from_env_steps_and_from_the_step_itself() {
    let outcome = run(json!([
        { "type": "env", "env": { "A": "1", "B": "2" } },
        { "run": "echo $A $B $C", "env": { "B": "3", "C": "a b  c" } },
        { "run": "echo $A $B $C." },
    ]))
    .await;
    outcome.done();
    assert_eq!(outcome.lines("stdout", 1), ["1 3 a b c"]);
    assert_eq!(outcome.lines("stdout", 2), ["1 2 ."]);
}

#[tokio::test]
async fn a_step_runs_in_its_working_directory() {
    let scene = Scene::new().await.file("sub dir/x.txt", "here");
    let inside = scene.workspace().join("sub dir").to_string_lossy().into_owned();
    let steps = json!([
        { "run": "cat x.txt", "working_directory": "sub dir" },
        { "run": "cat x.txt", "working-directory": "./sub dir/" },
        { "run": "cat x.txt", "working_directory": inside },
    ]);
    let outcome = scene.workflow(&steps).run().await;
    outcome.done();
    for step in 0..3 {
        assert_eq!(outcome.lines("stdout", step), ["here"]);
    }
}

#[tokio::test]
async fn a_working_directory_that_is_missing_or_leads_outside_fails_the_step() {
    for directory in ["missing", "out", "x.txt"] {
        let steps = json!([{ "run": "pwd", "working_directory": directory }]);
        let scene = Scene::new().await.file("x.txt", "").workflow(&steps);
        std::os::unix::fs::symlink("/etc", scene.workspace().join("out")).unwrap();
        let outcome = scene.run().await;
        let error = outcome.failed("step_failed");
        let end = &outcome.events_of("step_end")[0];
        assert_eq!(end["step_state"], "error", "{directory}: {end}");
        assert!(error["message"].as_str().unwrap().contains(directory), "{error}");
        assert_eq!(outcome.events_of("log").len(), 0);
    }
}

#[tokio::test]
async fn a_workspace_that_is_named_by_a_relative_path_or_a_link_is_the_same_folder() {
    let scene = Scene::new().await.file("sub/x.txt", "here");
    let link = scene.outside().join("link");
    std::os::unix::fs::symlink(scene.workspace(), &link).unwrap();
    let steps = json!([
        { "run": "cat x.txt", "working_directory": link.join("sub") },
        { "run": "cat x.txt", "working_directory": scene.workspace().join("sub") },
    ]);
    let up = "../".repeat(std::env::current_dir().unwrap().components().count());
    let relative = format!("{up}{}", link.to_string_lossy().trim_start_matches('/'));
    for (workspace, step) in [(link.to_string_lossy().into_owned(), 0..2), (relative, 1..2)] {
        let steps = json!(steps.as_array().unwrap()[step]);
        let outcome = Scene::new()
            .await
            .workflow(&steps)
            .env("WORKSPACE", &workspace)
            .run()
            .await;
        outcome.done();
        assert_eq!(outcome.lines("stdout", 0), ["here"], "{workspace}");
    }
}

#[tokio::test]
async fn lines_are_live() {
    let steps = json!([{ "run": "echo ready; while [ ! -f go ]; do sleep 0.05; done; echo went" }]);
    let scene = Scene::new().await.workflow(&steps);
    let running = scene.start();
    let ready = scene.api.wait_for(|event| event["type"] == "log").await;
    assert_eq!((&ready["message"], &ready["step_index"]), (&json!("ready"), &json!(0)));
    fs::write(scene.workspace().join("go"), "").unwrap();
    let outcome = scene.finish(running).await;
    outcome.done();
    assert_eq!(outcome.lines("stdout", 0), ["ready", "went"]);
}

#[tokio::test]
async fn a_line_without_an_end_is_sent_after_a_second() {
    let steps = json!([{ "run": "printf 'Password: '; while [ ! -f go ]; do sleep 0.05; done; echo none" }]);
    let scene = Scene::new().await.workflow(&steps);
    let running = scene.start();
    let prompt = scene.api.wait_for(|event| event["type"] == "log").await;
    assert_eq!(
        (&prompt["message"], &prompt["partial"]),
        (&json!("Password: "), &json!(true))
    );
    fs::write(scene.workspace().join("go"), "").unwrap();
    let outcome = scene.finish(running).await;
    outcome.done();
    let rest = outcome.events_of("log").pop().unwrap();
    assert_eq!((&rest["message"], rest.get("partial")), (&json!("none"), None));
}

#[tokio::test]
async fn bytes_that_are_no_text_become_the_replacement_character() {
    assert_eq!(
        output("printf 'a\\377b\\000c\\n'; printf 'z\\303\\244\\n'").await,
        ["a\u{fffd}b\u{fffd}c", "zä"]
    );
}

#[tokio::test]
async fn nothing_of_a_large_output_is_lost_or_out_of_order() {
    let scene = Scene::with(ApiServer::with()).await;
    let outcome = scene
        .workflow(&json!([{ "run": "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i + 1)); done" }]))
        .run()
        .await;
    outcome.done();
    let lines = outcome.lines("stdout", 0);
    assert_eq!(lines.len(), 20_000);
    let wrong = lines
        .iter()
        .enumerate()
        .find(|(index, line)| **line != format!("line {index}"));
    assert_eq!(wrong, None);
    let logs = outcome.events_of("log").len();
    assert!(
        logs < 20_000,
        "neighbouring lines are merged while a request is in flight: {logs} events"
    );
}

#[tokio::test]
async fn a_line_longer_than_16_kib_comes_in_parts() {
    let outcome = run(json!([{ "run": "head -c 40000 /dev/zero | tr '\\0' x; echo" }])).await;
    outcome.done();
    let logs = outcome.events_of("log");
    let texts: Vec<&str> = logs.iter().map(|log| log["message"].as_str().unwrap()).collect();
    assert!(
        texts.iter().all(|text| text.len() <= 16 * 1024),
        "{:?}",
        texts.iter().map(|text| text.len()).collect::<Vec<_>>()
    );
    assert_eq!(texts.concat(), "x".repeat(40_000));
    let partial: Vec<bool> = logs.iter().map(|log| log["partial"] == true).collect();
    assert_eq!(
        partial.iter().filter(|partial| !**partial).count(),
        1,
        "the last part ends the line"
    );
}

#[tokio::test]
async fn the_time_limit_of_the_task_ends_it() {
    let task = json!({ "type": "workflow", "timeout_seconds": 1, "steps": [{ "run": "sleep 60" }] });
    let outcome = Scene::new().await.task(&task).run().await;
    outcome.failed("timeout");
    assert!(outcome.finished.elapsed < Duration::from_secs(30));
}

#[tokio::test]
async fn a_workflow_needs_no_key_and_no_plugins() {
    let empty = tempfile::tempdir().unwrap();
    let scene = Scene::new().await.workflow(&json!([{ "run": "true" }]));
    scene
        .env("PLUGIN_DIR", &empty.path().join("none").to_string_lossy())
        .run()
        .await
        .done();
}

#[tokio::test]
async fn a_command_that_closes_its_output_before_it_ends_costs_no_wait() {
    let step = json!({ "run": "echo said; exec >&- 2>&-; sleep 0.1" });
    let outcome = run(json!([step, step, step])).await;
    outcome.done();
    for end in outcome.events_of("step_end") {
        assert!(end["duration_ms"].as_u64().unwrap() < 900, "{end}");
    }
}

#[tokio::test]
async fn the_home_of_a_step_is_gone_when_the_step_has_ended() {
    let script = "mkdir -p $HOME/a/b && touch $HOME/a/b/c && chmod -R a-w $HOME/a && echo $HOME";
    let steps = json!([{ "run": script }, { "run": "sleep 0.1" }]);
    let outcome = Scene::new().await.weak().workflow(&steps).run().await;
    outcome.done();
    let home = &outcome.lines("stdout", 0)[0];
    assert!(home.contains("plue-home-") && !Path::new(home).exists(), "{home}");
    // Where commands have a /tmp of their own it goes with that, at the end of the task.
    let outcome = Scene::new().await.workflow(&steps).run().await;
    outcome.done();
    let home = &outcome.lines("stdout", 0)[0];
    assert!(home.starts_with("/tmp/") && !Path::new(home).exists(), "{home}");
}

#[tokio::test]
async fn what_leaves_its_session_is_reaped_when_it_has_ended() {
    let daemon = "for i in 1 2 3 4 5; do setsid sh -c 'sleep 0.1' & done; sleep 0.5";
    let steps = json!([
        { "run": daemon },
        { "run": "true" },
        { "run": "grep -l \"^PPid:[[:space:]]*$PPID$\" /proc/[0-9]*/status | xargs grep -l '^State:[[:space:]]*Z' || \
            echo none" },
    ]);
    let outcome = Scene::new().await.workflow(&steps).run().await;
    outcome.done();
    assert_eq!(outcome.lines("stdout", 2), ["none"]);
}
