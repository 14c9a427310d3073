//! What loads, and with which words everything else is refused: exit code 2 with the file and the reason.

use std::fs;
use std::time::Duration;

use plue_tool_host::{Host, HostConfig, LoadError, Toolbox, compile_plugins, list_plugins};

use crate::fixture::Fixture;
use support::guest::{ANY_OBJECT, Guest};

/// A good component under any manifest.
fn with_manifest(manifest: &str) -> Fixture {
    let fixture = Fixture::new();
    fixture.install_bytes("tool", &Guest::good("tool").wasm(), manifest);
    fixture
}

#[test]
fn a_manifest_that_is_wrong_is_refused_with_the_file_and_the_key() {
    let good = "name = \"tool\"\ncomponent = \"tool.wasm\"\n";
    let more = |line: &str| format!("{good}{line}");
    for (manifest, says) in [
        ("", "missing field `name`"),
        ("name = \"tool\"", "missing field `component`"),
        ("name = [", "TOML parse error"),
        (
            "name = \"a b\"\ncomponent = \"tool.wasm\"",
            "name: \"a b\" is no tool name",
        ),
        ("name = \"\"\ncomponent = \"tool.wasm\"", "name: \"\" is no tool name"),
        (
            "name = \"tool\"\ncomponent = \"../tool.wasm\"",
            "component: \"../tool.wasm\" is not the name of a file",
        ),
        (
            "name = \"tool\"\ncomponent = \"/etc/passwd\"",
            "component: \"/etc/passwd\"",
        ),
        (
            "name = \"tool\"\ncomponent = \"tool.wasm/\"",
            "component: \"tool.wasm/\"",
        ),
        ("name = \"tool\"\ncomponent = \"..\"", "component: \"..\""),
        (
            "name = \"tool\"\ncomponent = \"other.wasm\"",
            "other.wasm: the component cannot be read",
        ),
        (&more("network = true"), "unknown field `network`"),
        (
            &more("workspace = \"write\""),
            "unknown variant `write`, expected one of `none`, `read`, `read-write`",
        ),
        (&more("process = \"yes\""), "process"),
        (&more("inert = [\"wasi:http\"]"), "inert: \"wasi:http\" cannot be inert"),
        (
            &more("inert = [\"wasi:sockets-evil/x\"]"),
            "inert: \"wasi:sockets-evil/x\"",
        ),
        (&more("sha256 = \"abc\""), "sha256: \"abc\" is no digest"),
        (
            &more(&format!("sha256 = \"{}\"", "0".repeat(64))),
            "and the manifest says 000",
        ),
        (
            &more("limits.fuel = 1"),
            "limits.fuel: there is no limit of this name; the limits are deadline, cpu",
        ),
        (
            &more("limits.calls = 1"),
            "limits.calls: this limit is the same for every tool",
        ),
        (
            &more("limits.memory = 0"),
            "limits.memory: 0 is no amount for a limit in bytes",
        ),
        (
            &more("limits.memory = \"1 TB\""),
            "limits.memory: \"1 TB\" is no amount",
        ),
        (
            &more("limits.memory = \"5GiB\""),
            "limits.memory: \"5GiB\" is no amount",
        ),
        (
            &more("limits.deadline = -1"),
            "limits.deadline: -1 is no amount for a limit in seconds",
        ),
        (&more("limits.handles = 1.5"), "limits.handles: 1.5 is no amount"),
    ] {
        let refusal = with_manifest(manifest).refusal();
        assert!(
            refusal.contains("/tool/") && refusal.contains(says),
            "{manifest}\n{refusal}"
        );
    }
}

#[test]
fn a_manifest_in_another_format_is_refused_by_its_name() {
    let fixture = with_manifest("");
    let folder = fixture.plugin("tool");
    fs::rename(folder.join("plugin.toml"), folder.join("plugin.yaml")).unwrap();
    let refusal = fixture.refusal();
    assert!(
        refusal.contains("a manifest is TOML, and called plugin.toml; there is plugin.yaml"),
        "{refusal}"
    );
}

#[test]
fn bytes_that_are_no_component_are_refused_by_what_they_are() {
    let whole = Guest::good("tool").wasm();
    let core = wat::parse_str("(module)").unwrap();
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle..middle + 64].fill(0xff);
    let empty = wat::parse_str("(component)").unwrap();
    for (bytes, says) in [
        (&core[..], "is a core WebAssembly module, and a tool is a component"),
        (b"not wasm at all", "is no WebAssembly component"),
        (b"", "is no WebAssembly component"),
        (b"(component)", "is no WebAssembly component"),
        (b"\x7fELF\x02\x01\x01", "is no WebAssembly component"),
        (&whole[..8], "exports no `plue:tool/plugin`"),
        (&whole[..whole.len() - 10], "does not compile"),
        (&whole[..whole.len() / 2], "does not compile"),
        (&flipped, "does not compile"),
        (&empty, "exports no `plue:tool/plugin`"),
    ] {
        let fixture = Fixture::new();
        fixture.install_bytes("tool", bytes, "name = \"tool\"\ncomponent = \"tool.wasm\"");
        let refusal = fixture.refusal();
        assert!(
            refusal.contains("tool/tool.wasm: ") && refusal.contains(says),
            "{says}\n{refusal}"
        );
    }
}

#[test]
fn what_is_no_regular_file_is_refused_and_never_waited_for() {
    let good = "name = \"tool\"\ncomponent = \"tool.wasm\"\n";
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    for file in ["tool.wasm", "plugin.toml"] {
        let fixture = with_manifest(good);
        let path = fixture.plugin("tool").join(file);
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        // A load that waits for a writer would wait for ever.
        let (send, refusal) = std::sync::mpsc::channel();
        std::thread::spawn(move || send.send(fixture.refusal()));
        let refusal = refusal.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(
            refusal.contains(&format!("/tool/{file}: ")) && refusal.contains("it is not a regular file"),
            "{refusal}"
        );
        let fixture = with_manifest(good);
        let path = fixture.plugin("tool").join(file);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(fixture.refusal().contains("it is not a regular file"));
    }
}

#[test]
fn a_plugin_folder_without_plugins_is_said() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.plugins().join("no-plugin")).unwrap();
    let says = format!("there is no plugin in {}", fixture.plugins().display());
    for error in [
        list_plugins(&fixture.plugins()).map(|_| ()).unwrap_err(),
        compile_plugins(&fixture.plugins()).map(|_| ()).unwrap_err(),
    ] {
        assert!(error.to_string().starts_with(&says), "{error}");
    }
    // A task that uses no tool needs no plugin.
    assert!(fixture.load().is_ok_and(|host| host.names().is_empty()));
}

#[test]
fn a_component_of_100_mb_is_refused_without_reading_it() {
    let fixture = with_manifest("name = \"tool\"\ncomponent = \"tool.wasm\"");
    let file = fs::OpenOptions::new()
        .write(true)
        .open(fixture.plugin("tool").join("tool.wasm"))
        .unwrap();
    file.set_len(100 << 20).unwrap();
    let refusal = fixture.refusal();
    assert!(refusal.contains("has 104857600 bytes; at most 64 MiB"), "{refusal}");
}

#[test]
fn only_the_supported_versions_of_the_contract_load() {
    for version in ["1.0.0", "1.0.7"] {
        Fixture::with(
            &Guest {
                version,
                ..Guest::good("tool")
            },
            "",
        )
        .toolbox();
    }
    for version in ["0.9.0", "1.1.0", "2.0.0", "1.0.0-rc.1"] {
        let refusal = Fixture::with(
            &Guest {
                version,
                ..Guest::good("tool")
            },
            "",
        )
        .refusal();
        let says = format!("was built for plue:tool {version:?}; this runner speaks 1.0");
        assert!(refusal.contains(&says), "{refusal}");
    }
}

#[test]
fn a_schema_that_is_none_is_refused() {
    let large = format!(r#"{{"type":"object","description":"{}"}}"#, "x".repeat(256 << 10));
    let deep = format!(r#"{{"type":"object","allOf":{}{}}}"#, "[".repeat(300), "]".repeat(300));
    for (schema, says) in [
        ("", "the input schema is not JSON"),
        ("{\"type\":", "the input schema is not JSON"),
        ("[]", "is not of `type: object`"),
        ("true", "is not of `type: object`"),
        (r#"{"type":"string"}"#, "is not of `type: object`"),
        (
            r#"{"type":"object","required":"path"}"#,
            "is no JSON Schema of draft 2020-12",
        ),
        (
            r#"{"type":"object","properties":{"a":{"type":"text"}}}"#,
            "is no JSON Schema of draft 2020-12",
        ),
        (
            r#"{"type":"object","properties":{"a":{"pattern":"("}}}"#,
            "is no JSON Schema of draft 2020-12",
        ),
        (
            r#"{"type":"object","$ref":"https://example.com/schema.json"}"#,
            "is no JSON Schema of draft 2020-12",
        ),
        (
            r#"{"type":"object","$ref":"file:///etc/passwd"}"#,
            "is no JSON Schema of draft 2020-12",
        ),
        (&large, "at most 262144 are allowed"),
        (&deep, "the input schema is not JSON"),
    ] {
        let guest = Guest {
            schema: schema.to_owned(),
            ..Guest::good("tool")
        };
        let refusal = Fixture::with(&guest, "").refusal();
        assert!(refusal.contains(says), "{says}\n{refusal}");
    }
}

#[test]
fn a_name_is_taken_once_and_is_the_same_in_manifest_and_component() {
    let fixture = Fixture::new();
    fixture.install(&Guest::good("read_file"), "");
    fixture.install_bytes(
        "shadow",
        &Guest::good("read_file").wasm(),
        "name = \"read_file\"\ncomponent = \"tool.wasm\"",
    );
    let refusal = fixture.refusal();
    assert!(
        refusal.contains("shadow/plugin.toml: the name \"read_file\" is already taken by"),
        "{refusal}"
    );

    let refusal = with_manifest("name = \"other\"\ncomponent = \"tool.wasm\"").refusal();
    assert!(
        refusal.contains("called \"other\", and the component says \"tool\""),
        "{refusal}"
    );
}

#[test]
fn every_plugin_that_does_not_load_is_named() {
    let fixture = Fixture::new();
    fixture.install_bytes("one", b"", "name = \"one\"\ncomponent = \"tool.wasm\"");
    fixture.install_bytes("two", b"", "");
    let refusal = fixture.refusal();
    assert!(
        refusal.contains("/one/tool.wasm") && refusal.contains("/two/plugin.toml"),
        "{refusal}"
    );
}

#[test]
fn a_crash_in_describe_is_a_reason_not_to_load() {
    let guest = Guest {
        describe: "unreachable".to_owned(),
        ..Guest::good("tool")
    };
    let refusal = Fixture::with(&guest, "").refusal();
    assert!(refusal.contains("describe() failed with trap"), "{refusal}");
}

#[test]
fn folders_that_are_not_there_or_not_apart_are_refused() {
    let fixture = Fixture::with(&Guest::good("tool"), "");
    let nowhere = fixture.plugins().join("nowhere");
    let load = |change: &dyn Fn(&mut HostConfig)| {
        let mut config = fixture.config();
        change(&mut config);
        Host::load(config).map(|_| ()).unwrap_err()
    };
    assert!(matches!(
        load(&|config| config.plugin_dir = nowhere.clone()),
        LoadError::PluginDir { .. }
    ));
    assert!(matches!(
        load(&|config| config.workspace = nowhere.clone()),
        LoadError::Workspace { .. }
    ));
    for workspace in [fixture.plugins(), fixture.plugin("tool"), fixture.plugins().join("..")] {
        let error = load(&|config| config.workspace = workspace.clone());
        assert!(matches!(error, LoadError::NotApart { .. }), "{error}");
    }
}

#[test]
fn tools_that_are_not_installed_are_an_error_that_lists_what_is_there() {
    let fixture = Fixture::with(&Guest::good("tool"), "");
    let host = Host::load(fixture.config()).unwrap();
    let refused = host.toolbox(&["shell".to_owned()]).map(|_| ()).unwrap_err().to_string();
    assert_eq!(refused, "tools: there is no plugin named shell; there are: good, tool");
    let names = ["tool".to_owned(), "tool".to_owned()];
    assert_eq!(host.toolbox(&names).unwrap().definitions().len(), 1);
    assert!(host.toolbox(&[]).unwrap().definitions().is_empty());
}

#[test]
fn the_list_of_plugins_says_grant_and_imports() {
    let fixture = Fixture::with(
        &Guest::good("tool").importing(support::guest::CLOCK),
        "workspace = \"read\"",
    );
    let list = list_plugins(&fixture.plugins()).unwrap();
    let tool = list.iter().find(|plugin| plugin.name == "tool").unwrap();
    assert_eq!((tool.workspace, tool.process), ("read", false));
    assert_eq!(
        tool.imports,
        [
            "plue:tool/types@1.0.0",
            "wasi:io/poll@0.2.3",
            "wasi:clocks/monotonic-clock@0.2.3"
        ]
    );
}

#[test]
fn the_model_gets_the_schema_as_the_tool_wrote_it() {
    let fixture = Fixture::with(
        &Guest {
            schema: ANY_OBJECT.to_owned(),
            ..Guest::good("tool")
        },
        "",
    );
    let toolbox = fixture.toolbox();
    let tool = toolbox.definitions().iter().find(|tool| tool.name == "tool").unwrap();
    assert_eq!(tool.input_schema.get(), ANY_OBJECT);
}
