use std::fs;

use serde_json::{Value, json};
use support::{Block, Claude, Turn};

use support::scene::{Outcome, Scene};

const ALL: [&str; 5] = ["read_file", "write_file", "list_files", "grep", "shell"];

async fn scene() -> Scene {
    Scene::new()
        .await
        .file("a.txt", "one\ntwo\nthree\n")
        .file("sub/b c.txt", "two words\n")
        .file(".hidden", "nothing\n")
}

/// Runs an agent that makes one call and then ends.
async fn one_call(name: &str, input: Value, tools: &[&str]) -> Outcome {
    let turns = [Turn::new().call("toolu_1", name, input), Turn::says("Done.")];
    scene().await.agent(json!({ "tools": tools }), turns).await.run().await
}

/// What the API server and the model were told of the only call.
#[track_caller]
fn result(outcome: &Outcome) -> (Value, String) {
    outcome.done();
    let ends = outcome.events_of("tool_end");
    assert_eq!(ends.len(), 1);
    let results = outcome.model().requests()[1].results();
    assert_eq!(results.len(), 1);
    assert_eq!(results[0].id, "toolu_1");
    assert_eq!(results[0].is_error, ends[0]["tool_state"] == "error");
    assert_eq!(
        results[0].text,
        ends[0]["output"].as_str().unwrap(),
        "the model and the API server see the same"
    );
    (ends[0].clone(), results[0].text.clone())
}

#[tokio::test]
async fn each_tool_answers_in_the_form_of_the_protocol() {
    let cases = [
        ("read_file", json!({ "path": "a.txt" }), "one\ntwo\nthree"),
        (
            "read_file",
            json!({ "path": "a.txt", "start_line": 2, "end_line": 2 }),
            "two",
        ),
        (
            "write_file",
            json!({ "path": "new/d.txt", "content": "hé" }),
            "Successfully wrote 3 bytes to new/d.txt",
        ),
        (
            "write_file",
            json!({ "path": "a.txt", "content": "four", "append": true }),
            "Successfully wrote 4 bytes to a.txt",
        ),
        ("list_files", json!({}), "a.txt\nsub/"),
        (
            "list_files",
            json!({ "recursive": true, "include_hidden": true }),
            ".hidden\na.txt\nsub/\nsub/b c.txt",
        ),
        (
            "grep",
            json!({ "pattern": "^two" }),
            "a.txt:2:two\nsub/b c.txt:1:two words",
        ),
        (
            "grep",
            json!({ "pattern": "TWO", "ignore_case": true, "include": "*.txt", "path": "sub" }),
            "sub/b c.txt:1:two words",
        ),
    ];
    for (name, input, expected) in cases {
        let outcome = one_call(name, input.clone(), &[name]).await;
        let (end, text) = result(&outcome);
        assert_eq!(
            (text.trim_end(), &end["tool_state"]),
            (expected, &json!("success")),
            "{name} {input}"
        );
        let starts = outcome.events_of("tool_start");
        assert_eq!(starts.len(), 2);
        assert_eq!((starts[0].get("args"), &starts[1]["args"]), (None, &input));
        assert!(
            starts
                .iter()
                .all(|start| start["tool_name"] == name && start["tool_id"] == "toolu_1")
        );
    }
}

#[tokio::test]
async fn what_write_file_writes_is_in_the_workspace() {
    let outcome = one_call(
        "write_file",
        json!({ "path": "deep/er/x.txt", "content": "line\n" }),
        &["write_file"],
    )
    .await;
    result(&outcome);
    assert_eq!(
        fs::read_to_string(outcome.scene.workspace().join("deep/er/x.txt")).unwrap(),
        "line\n"
    );
}

#[tokio::test]
async fn shell_gives_both_outputs_and_the_code_and_a_failing_command_is_a_successful_call() {
    let cases = [
        ("echo out; echo err >&2; exit 3", "out", "err", 3),
        ("printf 'a b' | tr ab ba > f; cat < f", "b a", "", 0),
        ("kill -9 $$", "", "", 137),
    ];
    for (command, stdout, stderr, code) in cases {
        let outcome = one_call("shell", json!({ "command": command }), &["shell"]).await;
        let (end, text) = result(&outcome);
        assert_eq!(end["tool_state"], "success", "{command}: {text}");
        let (out, rest) = text
            .strip_prefix("STDOUT:\n")
            .unwrap()
            .split_once("\n\nSTDERR:\n")
            .unwrap();
        let (err, exit) = rest.split_once("\n\nEXIT CODE: ").unwrap();
        assert_eq!(
            (out.trim_end(), err.trim_end(), exit),
            (stdout, stderr, code.to_string().as_str()),
            "{command}"
        );
    }
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_ended_with_what_it_said_so_far() {
    let input = json!({ "command": "echo started; sleep 60", "timeout": 1 });
    let outcome = one_call("shell", input, &["shell"]).await;
    let (end, text) = result(&outcome);
    assert_eq!((&end["tool_state"], &end["code"]), (&json!("error"), &json!("timeout")));
    assert!(text.contains("started"), "{text}");
    assert!(outcome.finished.elapsed.as_secs() < 30);
}

#[tokio::test]
async fn a_call_that_fails_has_its_code_and_the_agent_goes_on() {
    let all = &ALL[..];
    let cases: Vec<(&str, Value, &[&str], &str)> = vec![
        ("read_file", json!({ "path": "missing.txt" }), all, "not_found"),
        ("read_file", json!({ "path": "../outside" }), all, "denied"),
        ("read_file", json!({ "path": "/etc/passwd" }), all, "denied"),
        (
            "write_file",
            json!({ "path": "../outside", "content": "x" }),
            all,
            "denied",
        ),
        ("list_files", json!({ "path": "missing" }), all, "not_found"),
        ("grep", json!({ "pattern": "(" }), all, "invalid_input"),
        ("read_file", json!({}), all, "invalid_input"),
        ("read_file", json!({ "path": 7 }), all, "invalid_input"),
        (
            "shell",
            json!({ "command": "true", "timeout": true }),
            all,
            "invalid_input",
        ),
        ("grep", json!({ "pattern": "x" }), &["read_file"], "not_allowed"),
        ("delete_everything", json!({}), all, "unknown_tool"),
        ("delete_everything", json!({}), &[], "unknown_tool"),
    ];
    for (name, input, tools, code) in cases {
        let outcome = one_call(name, input.clone(), tools).await;
        let (end, text) = result(&outcome);
        assert_eq!(
            (&end["tool_state"], &end["code"]),
            (&json!("error"), &json!(code)),
            "{name} {input}: {text}"
        );
        assert!(!text.trim().is_empty(), "the model must be told why: {name} {input}");
        assert_eq!(outcome.text(), "Done.", "the agent goes on");
    }
}

#[tokio::test]
async fn arguments_that_are_no_object_are_told_to_the_model() {
    for pieces in [&["{\"path\": ", "\"a.t"][..], &["[1, 2]"], &["nonsense"]] {
        let call = Block::call_in_pieces("toolu_1", "read_file", pieces);
        let turns = [Turn::new().block(call), Turn::says("Done.")];
        let outcome = scene()
            .await
            .agent(json!({ "tools": ["read_file"] }), turns)
            .await
            .run()
            .await;
        let (end, text) = result(&outcome);
        assert_eq!(end["code"], "invalid_input", "{pieces:?}: {text}");
        let start = &outcome.events_of("tool_start")[1];
        assert!(start["args"].is_object(), "{start}");
    }
}

#[tokio::test]
async fn a_call_without_arguments_has_an_empty_object() {
    let call = Block::call_in_pieces("toolu_1", "list_files", &[""]);
    let turns = [Turn::new().block(call), Turn::says("Done.")];
    let outcome = scene()
        .await
        .agent(json!({ "tools": ["list_files"] }), turns)
        .await
        .run()
        .await;
    let (_, text) = result(&outcome);
    assert_eq!(text.trim_end(), "a.txt\nsub/");
    assert_eq!(outcome.events_of("tool_start")[1]["args"], json!({}));
}

#[tokio::test]
async fn several_calls_of_one_turn_are_answered_in_one_message_in_their_order() {
    let turn = Turn::new()
        .say("All at once.")
        .call("toolu_a", "list_files", json!({}))
        .call("toolu_b", "read_file", json!({ "path": "missing" }))
        .call("toolu_c", "write_file", json!({ "path": "made.txt", "content": "x" }))
        .call("toolu_d", "shell", json!({ "command": "cat made.txt" }))
        .call("toolu_e", "grep", json!({ "pattern": "x", "path": "made.txt" }));
    let outcome = scene()
        .await
        .agent(json!({ "tools": ALL }), [turn, Turn::says("Done.")])
        .await
        .run()
        .await;
    let done = outcome.done();
    assert_eq!(done["turns"], 2);
    let request = &outcome.model().requests()[1];
    assert_eq!(request.messages().len(), 3);
    let results = request.results();
    assert_eq!(
        request.messages()[2]["content"].as_array().unwrap().len(),
        results.len(),
        "nothing but results"
    );
    let ids: Vec<&str> = results.iter().map(|result| result.id.as_str()).collect();
    assert_eq!(ids, ["toolu_a", "toolu_b", "toolu_c", "toolu_d", "toolu_e"]);
    let failed: Vec<bool> = results.iter().map(|result| result.is_error).collect();
    assert_eq!(failed, [false, true, false, false, false]);
    assert!(
        results[3].text.contains("STDOUT:\nx"),
        "the calls run in their order: {}",
        results[3].text
    );
    assert_eq!(results[4].text.trim_end(), "made.txt:1:x");
    let ended: Vec<Value> = outcome
        .events_of("tool_end")
        .iter()
        .map(|end| end["tool_id"].clone())
        .collect();
    assert_eq!(ended, ids);
}

#[tokio::test]
async fn tools_are_offered_as_the_protocol_describes_them() {
    let outcome = scene()
        .await
        .agent(json!({ "tools": ALL }), [Turn::says("Hi.")])
        .await
        .run()
        .await;
    outcome.done();
    let request = &outcome.model().requests()[0];
    assert_eq!(request.tools(), ALL, "in the order of the task");
    let cases = [
        ("read_file", &["path"][..], &["path", "start_line", "end_line"][..]),
        ("write_file", &["path", "content"], &["path", "content", "append"]),
        (
            "list_files",
            &[],
            &["path", "recursive", "include_hidden", "max_results"],
        ),
        (
            "grep",
            &["pattern"],
            &["pattern", "path", "include", "ignore_case", "max_results"],
        ),
        ("shell", &["command"], &["command", "working_directory", "timeout"]),
    ];
    for (name, required, properties) in cases {
        let tools = request.body["tools"].as_array().unwrap();
        let tool = tools.iter().find(|tool| tool["name"] == name).unwrap();
        let schema = &tool["input_schema"];
        let mut found: Vec<&str> = schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let mut expected = properties.to_vec();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{name}");
        let found = schema
            .get("required")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        assert!(
            found.len() == required.len() && required.iter().all(|name| found.contains(&json!(name))),
            "{schema}"
        );
        assert!(
            tool["description"].as_str().is_some_and(|text| !text.is_empty()),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_task_without_tools_sends_no_tools() {
    for fields in [json!({}), json!({ "tools": [] })] {
        let outcome = Scene::new()
            .await
            .agent(fields, [Turn::says("Hello there.")])
            .await
            .run()
            .await;
        let done = outcome.done();
        assert_eq!(done["turns"], 1);
        assert_eq!(outcome.request(0).get("tools"), None);
        assert_eq!(outcome.text(), "Hello there.");
    }
}

#[tokio::test]
async fn an_agent_uses_all_five_tools_and_each_turn_is_a_message_of_its_own() {
    let model = Claude::answering(|request| {
        let last = request.results().pop();
        let turn = match (request.index, last) {
            (0, _) => Turn::new().call("t0", "list_files", json!({ "recursive": true })),
            (1, Some(list)) if list.text.contains("a.txt") => {
                Turn::new().call("t1", "grep", json!({ "pattern": "three" }))
            }
            (2, Some(found)) if found.text.starts_with("a.txt:3:") => {
                Turn::new().call("t2", "read_file", json!({ "path": "a.txt" }))
            }
            (3, Some(read)) => {
                let content = read.text.replace("three", "3");
                Turn::new().call("t3", "write_file", json!({ "path": "a.txt", "content": content }))
            }
            (4, Some(_)) => Turn::new().call("t4", "shell", json!({ "command": "tail -n 1 a.txt" })),
            (5, Some(shell)) if shell.text.contains("STDOUT:\n3\n") => Turn::says("It is 3 now."),
            (index, last) => return support::Reply::Wrong(format!("request {index} with {last:?}")),
        };
        turn.into()
    });
    let outcome = scene()
        .await
        .agent_with(json!({ "tools": ALL }), model.await.unwrap())
        .run()
        .await;
    let done = outcome.done();
    assert_eq!(done["turns"], 6);
    assert_eq!(done["usage"]["input_tokens"], 600);
    assert_eq!(done["usage"]["output_tokens"], 120);
    let mut messages: Vec<Value> = outcome
        .events_of("tool_start")
        .iter()
        .map(|e| e["message_id"].clone())
        .collect();
    messages.dedup();
    assert_eq!(messages.len(), 5);
    assert_eq!(
        fs::read_to_string(outcome.scene.workspace().join("a.txt"))
            .unwrap()
            .trim_end(),
        "one\ntwo\n3"
    );
}

#[tokio::test]
async fn extra_events_are_sent_when_they_are_asked_for_and_only_then() {
    for asked in [false, true] {
        let turns = [
            Turn::new().block(Block::thinking(&["Let me ", "see."], "c2ln")).call(
                "toolu_1",
                "shell",
                json!({ "command": "echo live" }),
            ),
            Turn::says("Done."),
        ];
        let scene = Scene::new()
            .await
            .env("CALLBACK_EXTRA_EVENTS", if asked { "1" } else { "0" });
        let outcome = scene.agent(json!({ "tools": ["shell"] }), turns).await.run().await;
        let done = outcome.done();
        let text = |kind: &str| -> String {
            let events = outcome.events_of(kind);
            events.iter().map(|event| event["text"].as_str().unwrap()).collect()
        };
        let usage = outcome.events_of("usage");
        if asked {
            assert_eq!(
                (text("thinking").as_str(), text("tool_output").as_str()),
                ("Let me see.", "live\n")
            );
            let output: u64 = usage.iter().map(|turn| turn["output_tokens"].as_u64().unwrap()).sum();
            assert_eq!((usage.len(), &json!(output)), (2, &done["usage"]["output_tokens"]));
        } else {
            assert_eq!((text("thinking"), text("tool_output"), usage.len()), Default::default());
        }
    }
}
