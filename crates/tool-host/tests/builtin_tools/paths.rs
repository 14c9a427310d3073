//! One set of rules for paths, whichever tool is asked.

use std::fs;
use std::os::unix::net::UnixListener;

use plue_tool_host::ToolErrorCode;
use serde_json::{Value, json};

use crate::fixture::Fixture;

/// A call of each tool that would touch this path.
fn calls(path: &str) -> [(&'static str, Value); 6] {
    [
        ("read_file", json!({"path": path})),
        ("read_file", json!({"path": path, "start_line": 1})),
        ("write_file", json!({"path": path, "content": "overwritten"})),
        (
            "write_file",
            json!({"path": path, "content": "appended", "append": true}),
        ),
        ("list_files", json!({"path": path})),
        ("grep", json!({"path": path, "pattern": ""})),
    ]
}

#[test]
fn no_path_leaves_the_workspace_and_no_refusal_tells_what_is_there() {
    let fixture = Fixture::new();
    let outside = fixture.outside.path();
    fs::write(outside.join("secret.txt"), "the secret").unwrap();
    fs::create_dir(outside.join("work space-evil")).unwrap();
    fs::write(outside.join("work space-evil/secret.txt"), "the secret").unwrap();
    fixture.file("folder/file.txt", "inside");
    fixture.link("up", "..");
    fixture.link("absolute", outside.to_str().unwrap());
    fixture.link("absolute-inside", fixture.path("folder").to_str().unwrap());
    fixture.link("relative.txt", "../secret.txt");
    fixture.link("dangling", "../new.txt");
    fixture.link("folder/chain", "../up/secret.txt");
    fixture.link("device", "/dev/zero");
    fixture.link("environment", "/proc/self/environ");
    let sibling = format!(
        "{}-evil/secret.txt",
        fixture.path("").to_str().unwrap().trim_end_matches('/')
    );
    let absolute = outside.join("secret.txt");
    let behind = format!("{}/../../secret.txt", fixture.path("folder").to_str().unwrap());
    for path in [
        "..",
        "../secret.txt",
        "./../secret.txt",
        "folder/../../secret.txt",
        "folder/./..//../secret.txt",
        "/",
        "/etc/passwd",
        "/workspace",
        "/workspace/folder/file.txt",
        "/proc/self/environ",
        "//etc//passwd",
        absolute.to_str().unwrap(),
        &sibling,
        &behind,
        "up",
        "up/",
        "up/secret.txt",
        "absolute/secret.txt",
        "absolute-inside/file.txt",
        "relative.txt",
        "dangling",
        "folder/chain",
        "device",
        "environment",
    ] {
        for (tool, input) in calls(path) {
            let said = fixture.refused(tool, input.clone(), ToolErrorCode::Denied);
            assert!(!said.contains("the secret"), "{tool} {input}: {said}");
            // What the model wrote may be said back to it, and nothing more.
            let said = said.replace(path, "");
            let workspace = fixture.path("");
            let said = said.replace(workspace.to_str().unwrap().trim_end_matches('/'), "");
            assert!(!said.contains(outside.to_str().unwrap()), "{tool} {input}: {said}");
        }
        let directory = json!({"command": "true", "working_directory": path});
        fixture.refused("shell", directory, ToolErrorCode::Denied);
    }
    assert!(fixture.sandbox.asked.lock().unwrap().is_empty());
    assert_eq!(fs::read_to_string(outside.join("secret.txt")).unwrap(), "the secret");
    assert!(!outside.join("new.txt").exists());
    assert_eq!(fs::read_to_string(fixture.path("folder/file.txt")).unwrap(), "inside");
}

#[test]
fn a_path_that_stays_inside_works_in_every_spelling() {
    let fixture = Fixture::new();
    fixture.file("folder/my file.txt", "inside");
    fixture.file("-rf", "dash");
    fixture.link("link.txt", "folder/my file.txt");
    fixture.link("chain.txt", "./link.txt");
    fixture.link("sub", "folder");
    fixture.link("folder/back", "..");
    let absolute = fixture.path("folder/my file.txt");
    let doubled = absolute.to_str().unwrap().replace("/folder", "//./folder");
    for path in [
        "folder/my file.txt",
        "./folder//my file.txt",
        "folder/../folder/my file.txt",
        "link.txt",
        "chain.txt",
        "sub/my file.txt",
        "folder/back/link.txt",
        "sub/back/sub/my file.txt",
        absolute.to_str().unwrap(),
        &doubled,
    ] {
        assert_eq!(fixture.text("read_file", json!({"path": path})), "inside", "{path}");
        let found = fixture.text("grep", json!({"path": path, "pattern": "^inside$"}));
        assert!(
            found.ends_with(":1:inside") && !found.starts_with('/'),
            "{path}: {found}"
        );
        let written = fixture.text("write_file", json!({"path": path, "content": "inside"}));
        assert_eq!(written, format!("Successfully wrote 6 bytes to {path}"));
    }
    assert_eq!(fixture.text("read_file", json!({"path": "-rf"})), "dash");
    assert!(fixture.path("link.txt").is_symlink());
}

#[test]
fn a_workspace_behind_a_link_is_known_by_both_its_names() {
    let fixture = Fixture::behind_a_link();
    fixture.file("folder/file", "inside");
    fs::write(fixture.outside.path().join("secret.txt"), "the secret").unwrap();
    let outside = fixture.outside.path().canonicalize().unwrap();
    let outside = outside.to_str().unwrap();
    for name in ["link", "work space"] {
        let path = format!("{outside}/{name}/folder/file");
        assert_eq!(fixture.text("read_file", json!({"path": path})), "inside");
        let found = fixture.text("grep", json!({"path": path, "pattern": "inside"}));
        assert_eq!(found, "folder/file:1:inside");
        fixture.text("write_file", json!({"path": path, "content": "inside"}));
        let folder = format!("{outside}/{name}/folder");
        assert_eq!(fixture.text("list_files", json!({"path": folder})), "file");
        for leaves in ["..", "../secret.txt", "folder/../../secret.txt"] {
            for (tool, input) in calls(&format!("{outside}/{name}/{leaves}")) {
                let said = fixture.refused(tool, input, ToolErrorCode::Denied);
                assert!(!said.contains("the secret"), "{said}");
            }
        }
    }
    for path in [format!("{outside}/secret.txt"), format!("{outside}/link-evil/x")] {
        for (tool, input) in calls(&path) {
            let said = fixture.refused(tool, input, ToolErrorCode::Denied);
            // The refusal names the workspace as the operator does.
            assert!(said.contains("/link.") && !said.contains("work space"), "{said}");
        }
    }
}

#[test]
fn a_path_that_is_no_path_is_invalid_and_one_that_is_not_there_not_found() {
    let fixture = Fixture::new();
    fixture.file("file", "x");
    fixture.link("circle", "circle");
    let long = "x".repeat(300);
    let longer = "long/".repeat(1000);
    for (path, code) in [
        ("", ToolErrorCode::InvalidInput),
        ("\0", ToolErrorCode::InvalidInput),
        ("a\0b", ToolErrorCode::InvalidInput),
        (&long, ToolErrorCode::InvalidInput),
        (&longer, ToolErrorCode::InvalidInput),
        ("circle", ToolErrorCode::Denied),
    ] {
        for (tool, input) in calls(path) {
            let said = fixture.refused(tool, input, code);
            assert!(said.len() < 700, "{said}");
        }
    }
    for path in ["missing", "missing/too", "file/below", "file/", "missing/../file"] {
        for (tool, input) in calls(path) {
            if tool != "write_file" {
                fixture.refused(tool, input, ToolErrorCode::NotFound);
            }
        }
    }
}

#[test]
fn what_is_no_regular_file_is_refused_and_never_opened() {
    let fixture = Fixture::new();
    fixture.file("folder/file", "x");
    fixture.fifo("fifo");
    fixture.fifo("folder/fifo");
    fixture.link("to-fifo", "folder/fifo");
    let _socket = UnixListener::bind(fixture.path("socket")).unwrap();
    for path in ["fifo", "folder/fifo", "to-fifo", "socket"] {
        for (tool, input) in calls(path) {
            let code = if tool == "list_files" {
                ToolErrorCode::InvalidInput
            } else {
                ToolErrorCode::Denied
            };
            fixture.refused(tool, input, code);
        }
    }
    for path in ["folder", "folder/", "."] {
        for (tool, input) in calls(path) {
            if tool.ends_with("_file") {
                let said = fixture.refused(tool, input, ToolErrorCode::InvalidInput);
                assert!(said.contains("is a folder"), "{said}");
            }
        }
    }
    // A walk goes past them.
    assert_eq!(fixture.text("grep", json!({"pattern": ""})), "folder/file:1:x");
    assert_eq!(
        fixture.text("list_files", json!({"recursive": true})),
        "fifo\nfolder/\nfolder/fifo\nfolder/file\nsocket\nto-fifo"
    );
}
