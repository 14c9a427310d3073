//! Tasks that try to give themselves more than the operator does, and an API server that sends the runner elsewhere.

use std::fs;

use anyhow::{Context, Result};
use plue_sandbox::mutation::Protection;
use serde_json::{Value, json};
use support::api_server::Answer;
use support::{Reply, Turn};

use super::task;
use crate::attack::{Attack, Baseline, Expect, TaskInput};
use crate::drive::MODEL;
use crate::scene::Scene;

fn config(task: &Value) -> TaskInput {
    TaskInput {
        config: Some(task.to_string()),
        ..TaskInput::default()
    }
}

/// An agent with these fields more, and a model that gives these answers.
fn agent(fields: Value, replies: Vec<Reply>) -> TaskInput {
    let mut task = json!({ "type": "agent", "model": MODEL, "messages": [{ "role": "user", "content": "Go." }] });
    for (name, value) in fields.as_object().into_iter().flatten() {
        task[name] = value.clone();
    }
    TaskInput {
        replies,
        ..config(&task)
    }
}

fn says() -> Vec<Reply> {
    vec![Turn::says("Done.").into()]
}

fn with_env(mut input: TaskInput, name: &str, value: &str) -> TaskInput {
    input.env.insert(name.to_owned(), value.to_owned());
    input
}

fn listener(scene: &Scene) -> String {
    format!("http://{}/", scene.listeners.tcp)
}

/// A command that prints every secret that it can reach: as it is, and in hexadecimal digits, which no redaction knows.
fn looks_around(scene: &Scene) -> String {
    let secret = scene.hidden.join("secret.txt");
    let secret = crate::surface::quoted(&secret.to_string_lossy());
    format!(
        "set +e\nlook() {{ cat -- {secret}; cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'; env; }}\nlook\n\
         look | grep -a plue-canary | od -An -v -tx1 | tr -d ' \\n'\necho\ntrue"
    )
}

/// Whoever runs without a sandbox can read what lies outside.
fn outside_is_there(scene: &Scene) -> Result<()> {
    fs::read(scene.hidden.join("secret.txt"))
        .context("read a canary")
        .map(|_| ())
}

/// What the operator would set to have less of a sandbox, and what a mutation run sets.
fn operators() -> Value {
    json!({
        "SANDBOX": "weak", "COMMAND_NETWORK": "pod", "COMMAND_READ_PATHS": "/", "COMMAND_MEMORY": "0",
        "COMMAND_PROCESSES": "0", "ALLOWED_TOOLS": "shell", "WORKSPACE": "/", "PLUGIN_DIR": ".", "LOG_LEVEL": "DEBUG",
        "PLUE_MUTATION": "mount,pid,network,environment,seccomp,privileges",
    })
}

/// A plugin folder in the workspace with a tool in it that was never installed.
fn plant_plugin(scene: &Scene) -> Result<()> {
    scene.file(
        "plugins/hostile/tool.wasm",
        support::guest::Guest::good("hostile").wasm(),
    )?;
    scene.file(
        "plugins/hostile/plugin.toml",
        "name = \"hostile\"\ncomponent = \"tool.wasm\"\n",
    )
}

/// The first event is sent elsewhere with this status, and what comes later is taken.
fn redirect(scene: &Scene, status: u16) -> Result<()> {
    let to = listener(scene);
    let mut first = true;
    scene.api.answer(move |_| match std::mem::take(&mut first) {
        true => Answer::Redirect(status, to.clone()),
        false => Answer::Ok,
    });
    Ok(())
}

/// Who follows the redirect reaches the listener, and it notices.
pub fn listener_answers(scene: &Scene) -> Result<()> {
    std::net::TcpStream::connect(scene.listeners.tcp)
        .context("connect to the other host")
        .map(|_| ())
}

fn one_step(_: &Scene) -> TaskInput {
    config(&json!({ "type": "workflow", "steps": [{ "run": "true" }] }))
}

pub const ATTACKS: &[Attack] = &[
    Attack::task(
        "input/operators-keys-in-the-task",
        "a workflow that names the operator's settings as keys of its own",
        |scene| {
            let mut task = json!({ "type": "workflow", "steps": [{ "run": looks_around(scene) }] });
            for (name, value) in operators().as_object().into_iter().flatten() {
                task[name.to_lowercase()] = value.clone();
                task[name] = value.clone();
            }
            config(&task)
        },
    )
    .baseline(Baseline::Bounded(outside_is_there))
    .falls_without(&[Protection::Mount]),
    Attack::task(
        "input/operators-variables-of-a-step",
        "a step whose environment has the names of the operator's variables",
        |scene| {
            let step = json!({ "run": looks_around(scene), "env": operators() });
            config(&json!({ "type": "workflow", "steps": [step] }))
        },
    )
    .baseline(Baseline::Bounded(outside_is_there))
    .falls_without(&[Protection::Mount]),
    Attack::task(
        "input/operators-variables-of-an-env-step",
        "a step of type `env` that sets the operator's variables for all that follow",
        |scene| {
            let steps = json!([{ "type": "env", "env": operators() }, { "run": looks_around(scene) }]);
            config(&json!({ "type": "workflow", "steps": steps }))
        },
    )
    .baseline(Baseline::Bounded(outside_is_there))
    .falls_without(&[Protection::Mount]),
    Attack::task(
        "input/operators-variables-of-a-job",
        "a job whose environment has the names of the operator's variables",
        |scene| {
            let job = json!({ "env": operators(), "steps": [{ "run": looks_around(scene) }] });
            config(&json!({ "type": "workflow", "jobs": { "hostile": job } }))
        },
    )
    .baseline(Baseline::Bounded(outside_is_there))
    .falls_without(&[Protection::Mount]),
    Attack::task(
        "input/shell-of-the-workspace",
        "a step whose PATH leads to a `sh` of the workspace, which the runner might start by its name",
        |scene| {
            let bin = scene.workspace.join("bin").display().to_string();
            let env = json!({ "PATH": format!("{bin}:/usr/bin:/bin"), "LD_LIBRARY_PATH": bin });
            config(&json!({ "type": "workflow", "steps": [{ "run": "true", "env": env }] }))
        },
    )
    .setup(|scene| {
        use std::os::unix::fs::PermissionsExt;
        let script = format!("#!/bin/bash\n{}\n", looks_around(scene));
        for name in ["sh", "bash", "true", "env"] {
            scene.file(&format!("bin/{name}"), &script)?;
            fs::set_permissions(
                scene.workspace.join("bin").join(name),
                fs::Permissions::from_mode(0o755),
            )?;
        }
        Ok(())
    })
    .baseline(Baseline::Bounded(outside_is_there)),
    task(
        "input/working-directory-by-a-link",
        "a step that runs in a folder outside, by a link in the workspace",
        |_| config(&json!({ "type": "workflow", "steps": [{ "run": "pwd; ls", "working_directory": "out" }] })),
        |_| config(&json!({ "type": "workflow", "steps": [{ "run": "pwd; ls", "working_directory": "in" }] })),
    )
    .setup(|scene| {
        scene.link("out", "../folder")?;
        scene.file("folder/file", "")?;
        scene.link("in", "folder")
    })
    .expect(Expect::Denied(&["step_failed"])),
    task(
        "input/tool-that-is-not-allowed",
        "a task that names a tool which the operator took away",
        |_| {
            with_env(
                agent(json!({ "tools": ["shell"] }), says()),
                "ALLOWED_TOOLS",
                "list_files",
            )
        },
        |_| {
            with_env(
                agent(json!({ "tools": ["list_files"] }), says()),
                "ALLOWED_TOOLS",
                "list_files",
            )
        },
    )
    .expect(Expect::Refused("the tool \"shell\" is not allowed")),
    task(
        "input/empty-list-of-tools",
        "an operator's empty list of tools, taken for all",
        |_| with_env(agent(json!({ "tools": ["shell"] }), says()), "ALLOWED_TOOLS", ""),
        |_| with_env(agent(json!({ "tools": [] }), says()), "ALLOWED_TOOLS", ""),
    )
    .expect(Expect::Refused("the tool \"shell\" is not allowed")),
    task(
        "input/list-of-tools-with-commas-only",
        "an operator's list of tools with nothing between its commas, taken for all",
        |_| with_env(agent(json!({ "tools": ["shell"] }), says()), "ALLOWED_TOOLS", " , "),
        |_| with_env(agent(json!({ "tools": [] }), says()), "ALLOWED_TOOLS", " , "),
    )
    .expect(Expect::Refused("the tool \"shell\" is not allowed")),
    task(
        "input/plugin-folder-of-the-task",
        "a task that names a plugin folder in the workspace and a tool of it",
        |scene| {
            let folder = scene.workspace.join("plugins");
            agent(
                json!({ "tools": ["hostile"], "plugin_dir": folder, "PLUGIN_DIR": folder }),
                says(),
            )
        },
        |_| agent(json!({ "tools": ["list_files"] }), says()),
    )
    .setup(plant_plugin)
    .expect(Expect::Refused("the tool \"hostile\" is not allowed")),
    task(
        "input/other-hosts-in-the-task",
        "a task that names another callback and another model's server",
        |scene| {
            let url = listener(scene);
            let fields = json!({
                "callback_url": url, "CALLBACK_URL": url, "base_url": url, "anthropic_base_url": url,
                "ANTHROPIC_BASE_URL": url, "proxy": url,
            });
            agent(fields, says())
        },
        |_| agent(json!({}), says()),
    )
    .expect(Expect::Answers("")),
    task(
        "input/proxy-of-the-environment",
        "a proxy in the environment, which would get the key and every event",
        |scene| {
            let mut input = agent(json!({}), says());
            for name in [
                "HTTP_PROXY",
                "http_proxy",
                "HTTPS_PROXY",
                "https_proxy",
                "ALL_PROXY",
                "all_proxy",
            ] {
                input = with_env(input, name, &listener(scene));
            }
            input
        },
        |_| agent(json!({}), says()),
    )
    .expect(Expect::Answers("")),
    Attack::task(
        "input/callback-redirect-307",
        "a callback that sends an event to another host, body and token included",
        one_step,
    )
    .setup(|scene| redirect(scene, 307))
    .expect(Expect::Answers(""))
    .baseline(Baseline::Bounded(listener_answers)),
    Attack::task(
        "input/callback-redirect-302",
        "a callback that sends the runner to another host",
        one_step,
    )
    .setup(|scene| redirect(scene, 302))
    .expect(Expect::Answers(""))
    .baseline(Baseline::Bounded(listener_answers)),
    task(
        "input/callback-that-never-stops",
        "a callback that answers with 50 MB",
        one_step,
        one_step,
    )
    .setup(|scene| {
        let long = "x".repeat(50 << 20);
        let mut first = true;
        scene.api.answer(move |_| match std::mem::take(&mut first) {
            true => Answer::Say(json!({ "ok": true, "more": long })),
            false => Answer::Ok,
        });
        Ok(())
    })
    .expect(Expect::Answers("")),
];
