//! A hostile tool that is written as any other is, with the SDK and the standard library: `hostile-plugin/`. Its
//! component is built by `cargo xtask build` and lies in `test-plugins` of the target folder, or where
//! `PLUE_TEST_PLUGINS_DIR` says.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use plue_sandbox::mutation::Protection;
use serde_json::{Value, json};

use super::compiled::form_of;
use super::filesystem::inside;
use super::{Make, NAME, component};
use crate::attack::{Attack, Expect, Plugin};

/// The component, and its compiled form with its name.
struct Component {
    wasm: Vec<u8>,
    form: (String, Vec<u8>),
}

/// Found and compiled once: it is larger than all others together.
fn hostile() -> Result<&'static Component> {
    static HOSTILE: OnceLock<Component> = OnceLock::new();
    if let Some(found) = HOSTILE.get() {
        return Ok(found);
    }
    let own = env::current_exe().context("find this program")?;
    let named = env::var_os("PLUE_TEST_PLUGINS_DIR").map(PathBuf::from);
    let beside = own.ancestors().map(|folder| folder.join("test-plugins"));
    let folder = named
        .into_iter()
        .chain(beside)
        .find(|folder| folder.is_dir())
        .context("there is no folder test-plugins: run `cargo xtask build`, or set PLUE_TEST_PLUGINS_DIR")?;
    let file = folder.join("hostile-plugin/hostile.wasm");
    let wasm = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
    let form = form_of(&wasm)?;
    Ok(HOSTILE.get_or_init(|| Component { wasm, form }))
}

/// The standard library brings `wasi:sockets` along, so that it only loads with that as inert.
const INERT: &str = "inert = [\"wasi:sockets\"]";

/// The tool under a manifest with these lines, and a call for each of these attempts.
fn with(manifest: &str, attempts: &[Value]) -> Result<Plugin> {
    let manifest = format!("name = \"{NAME}\"\ncomponent = \"tool.wasm\"\n{manifest}\n");
    let Component { wasm, form } = hostile()?;
    let mut plugin = super::plugin("hostile", wasm.clone(), &manifest);
    plugin.files.push((format!("hostile/{}", form.0), form.1.clone()));
    Ok(attempts.iter().cloned().fold(plugin, Plugin::calling))
}

fn write(attempt: Value) -> Result<Plugin> {
    with(&format!("{INERT}\nworkspace = \"read-write\""), &[attempt])
}

fn read(attempt: Value) -> Result<Plugin> {
    with(&format!("{INERT}\nworkspace = \"read\""), &[attempt])
}

fn limited(limit: &str, attempt: Value) -> Result<Plugin> {
    with(&format!("{INERT}\nworkspace = \"read\"\n{limit}"), &[attempt])
}

const fn attack(id: &'static str, what: &'static str, hostile: Make, harmless: Make, expect: Expect) -> Attack {
    // Its component is built for tests, and is in no pod.
    component(id, what, hostile, harmless)
        .setup(inside)
        .expect(expect)
        .not_live()
}

const fn denied(id: &'static str, what: &'static str, hostile: Make, harmless: Make) -> Attack {
    attack(id, what, hostile, harmless, Expect::Denied(&["denied"])).resolving_paths()
}

const fn killed(id: &'static str, what: &'static str, code: &'static str, hostile: Make, harmless: Make) -> Attack {
    attack(id, what, hostile, harmless, Expect::Killed(code))
}

fn echo() -> Result<Plugin> {
    write(json!({ "attempt": "echo", "target": "hello" }))
}

pub const ATTACKS: &[Attack] = &[
    denied(
        "components/std-read-absolute",
        "std::fs::read of a file outside, by its absolute path",
        |scene| {
            let path = scene.hidden.join("secret.txt");
            write(json!({ "attempt": "read", "target": path }))
        },
        |_| write(json!({ "attempt": "read", "target": "inside.txt" })),
    )
    // No folder that it was given holds such a path: it is not even asked for.
    .expect(Expect::Denied(&["not_found"])),
    denied(
        "components/std-read-parent",
        "std::fs::read of a file outside, by `..`",
        |_| write(json!({ "attempt": "read", "target": "../secret.txt" })),
        |_| write(json!({ "attempt": "read", "target": "folder/../inside.txt" })),
    ),
    denied(
        "components/std-read-link",
        "std::fs::read of a file outside, by a link in the workspace",
        |scene| {
            scene.link("out", "../secret.txt")?;
            write(json!({ "attempt": "read", "target": "out" }))
        },
        |_| write(json!({ "attempt": "read", "target": "to-inside" })),
    ),
    denied(
        "components/std-make-link",
        "a symbolic link to a place outside, made and read by the tool",
        |_| write(json!({ "attempt": "symbolic_link", "target": "../secret.txt", "second": "made" })),
        |_| write(json!({ "attempt": "symbolic_link", "target": "inside.txt", "second": "made" })),
    ),
    denied(
        "components/std-hard-link",
        "a hard link to a file outside, made and read by the tool",
        |_| write(json!({ "attempt": "hard_link", "target": "../secret.txt", "second": "made" })),
        |_| write(json!({ "attempt": "hard_link", "target": "inside.txt", "second": "made" })),
    ),
    denied(
        "components/std-list-parent",
        "std::fs::read_dir of the workspace's parent",
        |_| write(json!({ "attempt": "list", "target": ".." })),
        |_| write(json!({ "attempt": "list", "target": "folder" })),
    ),
    denied(
        "components/std-look-outside",
        "std::fs::metadata of a file outside",
        |_| write(json!({ "attempt": "look", "target": "../secret.txt" })),
        |_| write(json!({ "attempt": "look", "target": "inside.txt" })),
    ),
    denied(
        "components/std-write-outside",
        "std::fs::write to a file outside",
        |_| write(json!({ "attempt": "write", "target": "../secret.txt" })),
        |_| write(json!({ "attempt": "write", "target": "inside.txt" })),
    ),
    denied(
        "components/std-rename-outside",
        "std::fs::rename of a file to a place outside",
        |_| write(json!({ "attempt": "rename", "target": "inside.txt", "second": "../planted" })),
        |_| write(json!({ "attempt": "rename", "target": "inside.txt", "second": "planted" })),
    ),
    // What else changes something ends in the functions that the attacks on a read grant call themselves.
    denied(
        "components/std-read-only-write",
        "std::fs::write through a read grant",
        |_| read(json!({ "attempt": "write", "target": "inside.txt" })),
        |_| write(json!({ "attempt": "write", "target": "inside.txt" })),
    )
    .falls_without(&[Protection::Grant]),
    attack(
        "components/std-environment",
        "the environment, the arguments and the current folder: the runner's hold its secrets",
        |_| write(json!({ "attempt": "environment" })),
        |_| echo(),
        Expect::Contained,
    ),
    attack(
        "components/std-standard-input",
        "standard input, from which the runner may have read the task",
        |_| write(json!({ "attempt": "standard_input" })),
        |_| echo(),
        Expect::Answers(""),
    ),
    attack(
        "components/std-sockets-without-inert",
        "a tool that brings wasi:sockets along, and whose manifest does not say so",
        |_| with("", &[json!({ "attempt": "echo" })]),
        |_| echo(),
        Expect::Refused("no tool gets a network"),
    )
    .falls_without(&[Protection::Grant]),
    denied(
        "components/std-connect",
        "std::net::TcpStream to a listener outside, with sockets inert",
        |scene| write(json!({ "attempt": "connect", "target": scene.listeners.tcp.to_string() })),
        |_| echo(),
    ),
    denied(
        "components/std-send",
        "std::net::UdpSocket to a listener outside, with sockets inert",
        |scene| write(json!({ "attempt": "send", "target": scene.listeners.udp.to_string() })),
        |_| echo(),
    ),
    denied(
        "components/std-look-up",
        "the address of a name, with sockets inert",
        |_| write(json!({ "attempt": "look_up", "target": "localhost" })),
        |_| echo(),
    )
    .expect(Expect::Denied(&["failed"])),
    killed(
        "components/std-allocate",
        "1 GiB on the heap",
        "limit_memory",
        |_| write(json!({ "attempt": "allocate", "amount": 1_u64 << 30 })),
        |_| write(json!({ "attempt": "allocate", "amount": 16 << 20 })),
    ),
    killed(
        "components/std-compute",
        "a computation without end",
        "timeout",
        |_| limited("limits.deadline = 0.3", json!({ "attempt": "compute" })),
        |_| limited("limits.deadline = 5", json!({ "attempt": "echo" })),
    ),
    killed(
        "components/std-sleep",
        "std::thread::sleep for an hour",
        "timeout",
        |_| limited("limits.deadline = 0.3", json!({ "attempt": "sleep" })),
        |_| limited("limits.deadline = 5", json!({ "attempt": "echo" })),
    ),
    killed(
        "components/std-recurse",
        "recursion until the stack is full",
        "trap",
        |_| write(json!({ "attempt": "recurse" })),
        |_| echo(),
    ),
    killed(
        "components/std-log",
        "a million log lines by the SDK",
        "limit_live_output",
        |_| write(json!({ "attempt": "log", "amount": 1_000_000 })),
        |_| write(json!({ "attempt": "log", "amount": 10 })),
    ),
    killed(
        "components/std-show",
        "a million pieces of live output by the SDK",
        "limit_live_output",
        |_| write(json!({ "attempt": "show", "amount": 1_000_000 })),
        |_| write(json!({ "attempt": "show", "amount": 10 })),
    ),
    attack(
        "components/std-print",
        "200,000 lines on standard output, of which the log may get the beginning only",
        |_| write(json!({ "attempt": "print", "amount": 200_000 })),
        |_| write(json!({ "attempt": "print", "amount": 10 })),
        Expect::Answers("done"),
    ),
    killed(
        "components/std-answer",
        "an answer of 10 MB",
        "limit_output",
        |_| write(json!({ "attempt": "answer", "amount": 10_000_000 })),
        |_| write(json!({ "attempt": "answer", "amount": 1000 })),
    ),
    killed(
        "components/std-open",
        "a file opened 1,000 times",
        "limit_open_files",
        |_| write(json!({ "attempt": "open", "target": "inside.txt", "amount": 1000 })),
        |_| write(json!({ "attempt": "open", "target": "inside.txt", "amount": 10 })),
    ),
    killed(
        "components/std-exit",
        "std::process::exit, which must end the tool and not the runner",
        "trap",
        |_| write(json!({ "attempt": "exit" })),
        |_| echo(),
    ),
    attack(
        "components/std-state-after-a-crash",
        "a global variable that an earlier call has written before it crashed",
        |_| {
            let calls = [
                json!({ "attempt": "count" }),
                json!({ "attempt": "count_and_crash" }),
                json!({ "attempt": "count" }),
            ];
            with(INERT, &calls)
        },
        |_| with(INERT, &[json!({ "attempt": "count" })]),
        Expect::Answers("1"),
    ),
];
