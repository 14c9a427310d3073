//! A plugin that must not load: its bytes, its imports and exports, its manifest.

use plue_sandbox::mutation::Protection;
use serde_json::json;
use support::guest::{CLOCK, Guest, Import, PROCESS, SOCKETS, WORKSPACE, unknown_import};

use super::{NAME, bytes, good, plugin, refused, tool};
use crate::attack::{Attack, Plugin};

fn importing(import: Import) -> Guest {
    good().importing(import)
}

fn unknown(interface: &'static str) -> Guest {
    importing(unknown_import(interface))
}

fn version(version: &'static str) -> Guest {
    Guest { version, ..good() }
}

/// With these items and instructions of WebAssembly.
fn using(items: &str, call: &str) -> Guest {
    Guest {
        items: items.to_owned(),
        ..Guest::on_call(NAME, call)
    }
}

/// A component with an instance under the right name, and no such functions in it.
fn other_type() -> Vec<u8> {
    let text = r#"(component
        (core module $m (func (export "describe") (result i32) (i32.const 0)))
        (core instance $i (instantiate $m))
        (func $describe (result u32) (canon lift (core func $i "describe")))
        (instance $plugin (export "describe" (func $describe)))
        (export "plue:tool/plugin@1.0.0" (instance $plugin)))"#;
    wat::parse_str(text).unwrap_or_default()
}

fn truncated() -> Vec<u8> {
    let mut whole = good().wasm();
    whole.truncate(whole.len() / 2);
    whole
}

/// A component that is right but for 64 bytes in its middle.
fn flipped() -> Vec<u8> {
    let mut bytes = good().wasm();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0xff);
    bytes
}

/// A good component with this manifest, and nothing else in it.
fn with_manifest(manifest: &str) -> Plugin {
    plugin("hostile", good().wasm(), manifest).calling(json!({}))
}

/// The right manifest with these lines more.
fn lines(lines: &str) -> Plugin {
    with_manifest(&format!("name = \"hostile\"\ncomponent = \"tool.wasm\"\n{lines}\n"))
}

const SUBTYPES: &str = "(type $super (sub (func))) (type $sub (sub $super (func)))
    (func $callee (type $sub)) (table $t 1 1 funcref) (elem (i32.const 0) $callee)";

pub const ATTACKS: &[Attack] = &[
    refused(
        "components/truncated",
        "a component that ends in its middle",
        "does not compile",
        |_| Ok(bytes(truncated(), "")),
        |_| tool(&good(), ""),
    ),
    refused(
        "components/garbage-inside",
        "a component with garbage in its middle",
        "does not compile",
        |_| Ok(bytes(flipped(), "")),
        |_| tool(&good(), ""),
    ),
    refused(
        "components/garbage",
        "a file that is no WebAssembly at all",
        "is no WebAssembly component",
        |_| Ok(bytes(vec![0x90; 4096], "")),
        |_| tool(&good(), ""),
    ),
    refused(
        "components/core-module",
        "a core module in the place of a component",
        "is a core WebAssembly module",
        |_| Ok(bytes(wat::parse_str("(module)")?, "")),
        |_| tool(&good(), ""),
    ),
    refused(
        "components/hundred-megabytes",
        "a component of 100 MB",
        "at most 64 MiB",
        |_| {
            let mut large = good().wasm();
            large.resize(100 << 20, 0);
            Ok(bytes(large, ""))
        },
        |_| tool(&good(), ""),
    ),
    refused(
        "components/program",
        "a native program in the place of a component",
        "is no WebAssembly component",
        |_| {
            Ok(bytes(
                std::fs::read("/proc/self/exe")?.into_iter().take(1 << 20).collect(),
                "",
            ))
        },
        |_| tool(&good(), ""),
    ),
    refused(
        "components/call-by-a-supertype",
        "a call by a supertype, which aborted the whole process (RUSTSEC-2026-0570)",
        "does not compile",
        |_| tool(&using(SUBTYPES, "(call_indirect $t (type $super) (i32.const 0))"), ""),
        |_| {
            let items = "(func $callee) (table $t 1 1 funcref) (elem (i32.const 0) $callee)";
            tool(&using(items, "(call_indirect $t (i32.const 0))"), "")
        },
    ),
    refused(
        "components/shared-memory",
        "a memory shared between threads, which no limit counts",
        "does not compile",
        |_| tool(&using("(memory $s 1 1 shared)", ""), ""),
        |_| tool(&using("(memory $s 1 1)", ""), ""),
    ),
    refused(
        "components/wait-for-a-thread",
        "an atomic wait without end, where no interruption reaches",
        "does not compile",
        |_| {
            let wait = "(drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1)))";
            tool(&using("", wait), "")
        },
        |_| tool(&using("", "(drop (i32.load (i32.const 0)))"), ""),
    ),
    refused(
        "components/memory-of-64-bits",
        "a memory of 64 bits, which may grow beyond every reservation",
        "does not compile",
        |_| tool(&using("(memory $m i64 1)", ""), ""),
        |_| tool(&using("(memory $m 1)", ""), ""),
    ),
    refused(
        "components/import-of-sockets",
        "an import of wasi:sockets",
        "no tool gets a network",
        |_| tool(&importing(SOCKETS), ""),
        |_| tool(&importing(SOCKETS), "inert = [\"wasi:sockets\"]"),
    )
    .falls_without(&[Protection::Grant]),
    refused(
        "components/import-of-http",
        "an import of wasi:http, with every grant there is",
        "wasi:http/outgoing-handler@0.2.6 (no grant gives it)",
        |_| {
            let all = "workspace = \"read-write\"\nprocess = true\ninert = [\"wasi:sockets\"]";
            tool(&unknown("wasi:http/outgoing-handler@0.2.6"), all)
        },
        |_| tool(&importing(CLOCK), ""),
    ),
    refused(
        "components/inert-http",
        "a manifest that lists wasi:http as inert",
        "inert: \"wasi:http\" cannot be inert",
        |_| tool(&good(), "inert = [\"wasi:http\"]"),
        |_| tool(&good(), "inert = [\"wasi:sockets\"]"),
    ),
    refused(
        "components/import-of-process",
        "an import of plue:tool/process without the grant",
        "needs process = true",
        |_| tool(&importing(PROCESS), "workspace = \"read-write\""),
        |_| tool(&importing(PROCESS), "process = true"),
    )
    .falls_without(&[Protection::Grant]),
    refused(
        "components/import-of-read-write",
        "an import of plue:tool/workspace under a read grant",
        "needs workspace = \"read-write\"",
        |_| tool(&importing(WORKSPACE), "workspace = \"read\"\nprocess = true"),
        |_| tool(&importing(WORKSPACE), "workspace = \"read-write\""),
    )
    .falls_without(&[Protection::Grant]),
    refused(
        "components/import-of-another-wasi",
        "an import of a version of WASI that the host has not",
        "wasi:io/poll@0.1.0 (no grant gives it)",
        |_| tool(&unknown("wasi:io/poll@0.1.0"), ""),
        |_| tool(&importing(CLOCK), ""),
    ),
    refused(
        "components/import-of-the-hosts-own",
        "an import of an interface that the host might have for itself",
        "plue:tool/secrets@1.0.0 (no grant gives it)",
        |_| tool(&unknown("plue:tool/secrets@1.0.0"), "process = true"),
        |_| tool(&importing(PROCESS), "process = true"),
    ),
    refused(
        "components/import-of-another-type",
        "an import of a granted interface with a function that it has not",
        "does not fit the interfaces",
        |_| tool(&unknown("wasi:cli/environment@0.2.6"), ""),
        |_| tool(&importing(CLOCK), ""),
    ),
    refused(
        "components/export-of-another-version",
        "a tool of a later contract",
        "was built for plue:tool \"2.0.0\"",
        |_| tool(&version("2.0.0"), ""),
        |_| tool(&version("1.0.7"), ""),
    ),
    refused(
        "components/export-of-another-type",
        "an export of the right name with other functions in it",
        "does not fit",
        |_| Ok(bytes(other_type(), "")),
        |_| tool(&good(), ""),
    ),
    refused(
        "components/no-export",
        "a component that exports nothing",
        "exports no `plue:tool/plugin`",
        |_| Ok(bytes(wat::parse_str("(component)")?, "")),
        |_| tool(&good(), ""),
    ),
    refused(
        "components/two-of-a-name",
        "two plugins with one name",
        "the name \"hostile\" is already taken by",
        |_| {
            Ok(lines("").and(plugin(
                "other",
                good().wasm(),
                "name = \"hostile\"\ncomponent = \"tool.wasm\"\n",
            )))
        },
        |_| Ok(lines("")),
    ),
    refused(
        "components/name-of-a-built-in",
        "a plugin that takes the name of read_file",
        "the name \"read_file\" is already taken by",
        |_| {
            let wasm = Guest::good("read_file").wasm();
            let shadow = plugin("shadow", wasm, "name = \"read_file\"\ncomponent = \"tool.wasm\"\n");
            Ok(lines("").and(shadow))
        },
        |_| Ok(lines("")),
    ),
    refused(
        "components/name-that-differs",
        "a component that calls itself otherwise than its manifest, to be taken for another tool",
        "and the component says \"shell\"",
        |_| tool(&Guest::good("shell"), ""),
        |_| tool(&good(), ""),
    ),
    refused(
        "components/name-that-is-a-path",
        "a plugin whose name is a path",
        "is no tool name",
        |_| Ok(with_manifest("name = \"../hostile\"\ncomponent = \"tool.wasm\"\n")),
        |_| Ok(lines("")),
    ),
    refused(
        "components/component-by-a-path",
        "a manifest that takes its component from the workspace",
        "is not the name of a file",
        |scene| {
            scene.file("evil.wasm", good().wasm())?;
            let path = scene.workspace.join("evil.wasm");
            Ok(with_manifest(&format!(
                "name = \"hostile\"\ncomponent = \"{}\"\n",
                path.display()
            )))
        },
        |_| Ok(lines("")),
    ),
    refused(
        "components/component-that-differs",
        "a component that was swapped after the operator pinned its digest",
        "and the manifest says",
        |_| Ok(lines(&format!("sha256 = \"{}\"", "0".repeat(64)))),
        |_| Ok(lines("")),
    ),
    refused(
        "components/grant-that-is-none",
        "a manifest with a grant of its own invention",
        "unknown field `network`",
        |_| Ok(lines("network = true")),
        |_| Ok(lines("process = true")),
    ),
    refused(
        "components/limit-for-all",
        "a manifest that raises a limit which is the same for every tool",
        "this limit is the same for every tool",
        |_| Ok(lines("limits.calls = 1000")),
        |_| Ok(lines("limits.handles = 1000")),
    ),
    refused(
        "components/plugins-in-the-workspace",
        "a plugin folder in the workspace, where the model can write",
        "are not apart; a tool could change the plugins",
        |scene| {
            scene.file("plugins/hostile/tool.wasm", good().wasm())?;
            scene.file(
                "plugins/hostile/plugin.toml",
                "name = \"hostile\"\ncomponent = \"tool.wasm\"\n",
            )?;
            let mut plugin = lines("");
            let folder = scene.workspace.join("plugins");
            plugin.env.insert("PLUGIN_DIR".to_owned(), folder.display().to_string());
            Ok(plugin)
        },
        |_| Ok(lines("")),
    ),
];
