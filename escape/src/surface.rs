//! From an attack and a surface to what the runner is started with.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use support::{Reply, Turn};

use crate::attack::{Action, Attack, Expect, Kind, Plugin, Surface};
use crate::drive::{Harness, Launch, Race};
use crate::scene::Scene;
use crate::target::SCRIPT_FUNCTIONS;

/// The five tools of the runner.
pub const TOOLS: [&str; 5] = ["read_file", "write_file", "list_files", "grep", "shell"];

/// What the runner is started with.
pub fn launch(harness: &Harness, scene: &Scene, attack: &Attack, surface: Surface) -> Result<Launch> {
    let launch = match (surface, attack.action) {
        (_, Action::Alike(calls)) => {
            let tool = surface.name();
            let calls = calls(scene, surface).into_iter().map(|arguments| (&*tool, arguments));
            agent(calls.chain([("list_files", json!({ "max_results": 10 }))]).collect())
        }
        (_, Action::Call(_)) | (Surface::ReadFile | Surface::WriteFile | Surface::ListFiles | Surface::Grep, _) => {
            let tool = surface.name();
            let calls = vec![(&*tool, arguments(scene, attack, surface)?); attack.repeat];
            let last = ("list_files", json!({ "max_results": 10 }));
            match attack.expect {
                Expect::Raced(codes) => {
                    let turns = vec![calls; RACE_TURNS];
                    Launch {
                        race: Some(Race {
                            turns: RACE_TURNS,
                            both: !codes.is_empty(),
                        }),
                        ..turns_of(turns.into_iter().chain([vec![last]]))
                    }
                }
                _ => agent(calls.into_iter().chain([last]).collect()),
            }
        }
        (Surface::Shell, _) => {
            let script = command(scene, attack)?;
            let hostile = json!({ "command": script, "timeout": attack.seconds });
            agent(vec![
                ("shell", hostile),
                ("shell", json!({ "command": attack.then, "timeout": 60 })),
            ])
        }
        (Surface::Step, _) => Launch::workflow(vec![
            json!({ "name": "Hostile", "run": command(scene, attack)?, "timeout_seconds": attack.seconds }),
            json!({ "name": "After", "run": attack.then, "timeout_seconds": 60 }),
        ]),
        (Surface::Component, Action::Component(plugin)) => component(harness, scene, plugin(scene)?)?,
        (Surface::Task, Action::Task(task)) => {
            let input = task(scene);
            let mut launch = Launch::default().envs(input.env);
            launch.stdin = input.stdin;
            launch.replies = (!input.replies.is_empty()).then_some(input.replies);
            if let Some(config) = input.config {
                launch = launch.env("TASK_CONFIG", config);
            }
            if let Some(file) = input.file {
                // In the workspace's parent it would be a change of the canaries.
                let path = scene.task_file();
                fs::write(&path, file).context("write the task file")?;
                launch = launch.env("TASK_FILE", path.to_string_lossy());
            }
            launch
        }
        (Surface::Model, Action::Model(model)) => {
            let input = model(scene);
            let mut task = json!({
                "type": "agent",
                "model": crate::drive::MODEL,
                "messages": [{ "role": "user", "content": "Go." }],
                "tools": TOOLS,
            });
            for (name, value) in input.fields {
                task[name] = value;
            }
            Launch {
                replies: Some(input.replies),
                ..Launch::default().task(&task).envs(input.env)
            }
        }
        (surface, _) => bail!("{} has no way through {}", attack.id, surface.name()),
    };
    Ok(attack
        .env
        .iter()
        .fold(launch, |launch, (name, value)| launch.env(name, *value)))
}

/// How many turns a race has at most; most are met in the first.
const RACE_TURNS: usize = 20;

/// An agent that makes these calls, the last one in a turn of its own, and then ends.
fn agent(mut calls: Vec<(&str, Value)>) -> Launch {
    let last = calls.pop();
    turns_of([calls, last.into_iter().collect()])
}

/// An agent that makes the calls of each turn, and then ends.
fn turns_of<'a>(turns: impl IntoIterator<Item = Vec<(&'a str, Value)>>) -> Launch {
    let mut replies: Vec<Reply> = Vec::new();
    for (turn, calls) in turns.into_iter().enumerate() {
        let mut reply = Turn::new();
        for (index, (tool, arguments)) in calls.into_iter().enumerate() {
            reply = reply.call(&format!("toolu_{turn}_{index}"), tool, arguments);
        }
        replies.push(reply.into());
    }
    replies.push(Turn::says("Done.").into());
    Launch::agent(&TOOLS, replies)
}

/// The arguments of a file tool.
pub fn arguments(scene: &Scene, attack: &Attack, surface: Surface) -> Result<Value> {
    let path = match attack.action {
        Action::Call(call) => return Ok(call(scene, surface)),
        Action::Path(path) => path,
        _ => bail!("{} gives no path", attack.id),
    };
    Ok(match surface {
        Surface::ReadFile => json!({ "path": path(scene, Kind::File) }),
        Surface::WriteFile => json!({ "path": path(scene, Kind::File), "content": OVERWRITTEN }),
        Surface::ListFiles => json!({ "path": path(scene, Kind::Folder), "include_hidden": true, "recursive": true }),
        Surface::Grep => json!({ "path": path(scene, Kind::Folder), "pattern": "" }),
        other => bail!("{} takes no path", other.name()),
    })
}

/// What write_file and `tee` write.
pub const OVERWRITTEN: &str = "written by an attack\n";

/// The command line of an attack.
pub fn command(scene: &Scene, attack: &Attack) -> Result<String> {
    // The scene's id stands in the arguments of the shell: what is left of it is found by that.
    let mark = format!(": {}\n", scene.id);
    Ok(match attack.action {
        Action::Program(_) => format!("{mark}{}", scene.program(attack.id)?),
        Action::Script(script) => format!("{mark}{SCRIPT_FUNCTIONS}{}", script(scene)),
        Action::Path(path) => {
            let (file, folder) = (quoted(&path(scene, Kind::File)), quoted(&path(scene, Kind::Folder)));
            format!(
                "{mark}set +e\ncat -- {file}\nls -laR -- {folder}\ngrep -r '' -- {folder}\nprintf '{}' | tee -a -- \
                    {file}\n\
                 echo tried",
                OVERWRITTEN.trim_end()
            )
        }
        _ => bail!("{} is no command", attack.id),
    })
}

/// A word for /bin/sh.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A folder with the runner's tools and the hostile ones, and an agent that calls those.
fn component(harness: &Harness, scene: &Scene, plugin: Plugin) -> Result<Launch> {
    let folder = scene.plugin_folder();
    copy_tree(&harness.plugins, &folder)?;
    for (path, bytes) in &plugin.files {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
    }
    for (path, mode) in &plugin.modes {
        let path = folder.join(path);
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode))
            .with_context(|| format!("change the mode of {}", path.display()))?;
    }
    let calls: Vec<(&str, Value)> = plugin
        .calls
        .iter()
        .map(|(tool, arguments)| (tool.as_str(), arguments.clone()))
        .chain([("list_files", json!({ "max_results": 10 }))])
        .collect();
    let mut tools: Vec<&str> = plugin.tools.iter().map(String::as_str).collect();
    if !tools.contains(&"list_files") {
        tools.push("list_files");
    }
    let launch = agent(calls);
    Ok(Launch {
        replies: launch.replies,
        ..Launch::agent(&tools, Vec::new())
    }
    .env("ALLOWED_TOOLS", tools.join(","))
    .env("PLUGIN_DIR", folder.to_string_lossy())
    .envs(plugin.env))
}

fn copy_tree(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).with_context(|| format!("copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}
