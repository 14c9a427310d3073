//! Task documents that are too large, too deep, or mean two things.

use serde_json::{Value, json};

use super::{MakeTask, task};
use crate::attack::{Attack, Expect, TaskInput};

/// On standard input.
fn stdin(text: impl Into<Vec<u8>>) -> TaskInput {
    TaskInput {
        stdin: Some(text.into()),
        ..TaskInput::default()
    }
}

/// In a file without an extension: YAML, unless it begins like JSON.
fn file(text: impl Into<Vec<u8>>) -> TaskInput {
    TaskInput {
        file: Some(text.into()),
        ..TaskInput::default()
    }
}

fn json_task(task: &Value) -> TaskInput {
    stdin(task.to_string())
}

/// A workflow of one step with these fields more.
fn step(fields: Value) -> TaskInput {
    let mut step = json!({ "run": "true" });
    for (name, value) in fields.as_object().into_iter().flatten() {
        step[name] = value.clone();
    }
    json_task(&json!({ "type": "workflow", "steps": [step] }))
}

/// An agent task with these fields more, for a model that is never asked.
fn agent(fields: Value) -> TaskInput {
    let mut task = json!({
        "type": "agent", "model": crate::drive::MODEL, "messages": [{ "role": "user", "content": "Go." }],
    });
    for (name, value) in fields.as_object().into_iter().flatten() {
        task[name] = value.clone();
    }
    TaskInput {
        replies: vec![support::Turn::says("Done.").into()],
        ..json_task(&task)
    }
}

fn good() -> TaskInput {
    step(json!({}))
}

fn env(name: &str, value: &str) -> TaskInput {
    TaskInput {
        env: [(name.to_owned(), value.to_owned())].into(),
        ..TaskInput::default()
    }
}

/// A task that is refused before anything of it runs, for a reason that the message says.
const fn refused(
    id: &'static str,
    what: &'static str,
    says: &'static str,
    hostile: MakeTask,
    harmless: MakeTask,
) -> Attack {
    task(id, what, hostile, harmless).expect(Expect::Refused(says))
}

const YAML: &str = "type: workflow\nsteps:\n  - run: 'true'\n";

/// Aliases that each stand for nine of the one before: a thousand million strings.
fn laughs() -> String {
    let mut text = String::from("type: workflow\nsteps: [{run: 'true'}]\na: &a [x,x,x,x,x,x,x,x,x]\n");
    for (name, before) in ('b'..='j').zip('a'..) {
        let nine = vec![format!("*{before}"); 9].join(",");
        text.push_str(&format!("{name}: &{name} [{nine}]\n"));
    }
    text
}

pub const ATTACKS: &[Attack] = &[
    refused(
        "input/task-of-100-megabytes",
        "a task of 100 MB on standard input",
        "longer than",
        |_| stdin(vec![b' '; 100 << 20]),
        |_| good(),
    ),
    refused(
        "input/task-file-of-100-megabytes",
        "a task of 100 MB in a file",
        "longer than",
        |_| file(vec![b'#'; 100 << 20]),
        |_| file(YAML),
    ),
    refused(
        "input/task-without-an-end",
        "a task that is read from a device without an end",
        "longer than",
        |_| env("TASK_FILE", "/dev/zero"),
        |_| file(YAML),
    ),
    refused(
        "input/json-without-a-bottom",
        "10,000 levels of JSON",
        "no valid JSON",
        |_| stdin(format!("{{\"type\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000))),
        |_| good(),
    ),
    refused(
        "input/yaml-without-a-bottom",
        "10,000 levels of YAML",
        "no valid YAML",
        |_| file(format!("type: {}1{}\n", "[".repeat(10_000), "]".repeat(10_000))),
        |_| file(YAML),
    ),
    refused(
        "input/yaml-without-a-bottom-by-indentation",
        "10,000 levels of YAML by indentation",
        "no valid YAML",
        |_| file(format!("{}x\n", "- ".repeat(10_000))),
        |_| file(YAML),
    ),
    refused(
        "input/yaml-aliases",
        "YAML aliases that multiply to a thousand million strings",
        "no valid YAML",
        |_| file(laughs()),
        |_| file("type: workflow\nsteps:\n  - &step {run: 'true'}\n  - *step\n"),
    ),
    refused(
        "input/yaml-tags",
        "a YAML tag that asks for an object of a programming language",
        "steps[0]: must be an object",
        |_| file("type: workflow\nsteps: !!python/object/apply:os.system ['touch hostile']\n"),
        |_| file(YAML),
    ),
    refused(
        "input/yaml-merge",
        "a YAML merge that brings a second `run` into a step",
        "steps[0]: has neither `run` nor `type`",
        |_| file("type: workflow\nsteps:\n  - <<: {run: 'touch hostile'}\n"),
        |_| file(YAML),
    ),
    refused(
        "input/json-duplicate-keys",
        "JSON whose second `run` is another than its first",
        "stands twice",
        |_| stdin(r#"{"type":"workflow","steps":[{"run":"true","run":"touch hostile"}]}"#),
        |_| good(),
    ),
    refused(
        "input/yaml-duplicate-keys",
        "YAML whose second `run` is another than its first",
        "no valid YAML",
        |_| file("type: workflow\nsteps:\n  - run: 'true'\n    run: touch hostile\n"),
        |_| file(YAML),
    ),
    refused(
        "input/no-utf-8",
        "a task that is no UTF-8",
        "UTF-8",
        |_| stdin(b"{\"type\":\"workflow\xff\"}".to_vec()),
        |_| good(),
    ),
    refused(
        "input/two-documents",
        "a second document behind the first",
        "no valid JSON",
        |_| stdin(r#"{"type":"workflow","steps":[{"run":"true"}]} {"type":"agent"}"#),
        |_| good(),
    ),
    refused(
        "input/nul-in-a-value",
        "a NUL in the value of an environment variable",
        "NUL",
        |_| step(json!({ "env": { "A": "a\0B=b" } })),
        |_| step(json!({ "env": { "A": "a" } })),
    ),
    refused(
        "input/nul-in-a-command",
        "a NUL in a command",
        "NUL",
        |_| step(json!({ "run": "true\0; touch hostile" })),
        |_| good(),
    ),
    refused(
        "input/equals-in-a-name",
        "an environment variable whose name holds another one",
        "is no name for an environment variable",
        |_| step(json!({ "env": { "A=1\nB": "b" } })),
        |_| step(json!({ "env": { "A": "b" } })),
    ),
    refused(
        "input/working-directory-parent",
        "a step that runs in the workspace's parent",
        "leaves the workspace",
        |_| step(json!({ "working_directory": "a/../.." })),
        |_| step(json!({ "working_directory": "./" })),
    ),
    refused(
        "input/working-directory-absolute",
        "a step that runs in a folder outside, by its absolute path",
        "working_directory",
        |scene| step(json!({ "working_directory": scene.hidden })),
        |scene| step(json!({ "working_directory": scene.workspace })),
    ),
    refused(
        "input/time-without-an-end",
        "a step that may run for 10^18 seconds",
        "timeout_seconds",
        |_| step(json!({ "timeout_seconds": 1_000_000_000_000_000_000_u64 })),
        |_| step(json!({ "timeout_seconds": 60 })),
    ),
    refused(
        "input/turns-without-an-end",
        "an agent that may take a thousand million turns",
        "max_turns",
        |_| agent(json!({ "max_turns": 1_000_000_000 })),
        |_| agent(json!({ "max_turns": 3 })),
    ),
    refused(
        "input/model-that-is-not-allowed",
        "a model that the operator does not pay for, with a header behind it",
        "is not allowed",
        |_| agent(json!({ "model": "claude-opus-5\r\nx-api-key: other" })),
        |_| agent(json!({})),
    ),
    refused(
        "input/hundred-thousand-problems",
        "a task with 100,000 problems, each of which is to be told",
        "steps[0]",
        |_| json_task(&json!({ "type": "workflow", "steps": vec![json!(7); 100_000] })),
        |_| json_task(&json!({ "type": "workflow", "steps": vec![json!({ "run": "true" }); 3] })),
    ),
    refused(
        "input/value-of-a-megabyte",
        "a wrong value of a megabyte, which the message would repeat",
        "type",
        |_| json_task(&json!({ "type": "x".repeat(1 << 20) })),
        |_| good(),
    ),
];
