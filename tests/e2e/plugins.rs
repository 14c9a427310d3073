//! The folder of components: what is missing or broken there is told with the file and the reason, before anything
//! runs.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use support::Turn;

use support::scene::{Outcome, Scene};

async fn agent(tools: &[&str]) -> Scene {
    Scene::new()
        .await
        .agent(json!({ "tools": tools }), [Turn::says("Hi.")])
        .await
}

/// A copy of the built plugins, and the folder of one of them.
fn copied_plugins(scene: &Scene, name: &str) -> (PathBuf, PathBuf) {
    let copy = scene.outside().join("plugins");
    copy_folder(&scene.plugins(), &copy);
    let folders = fs::read_dir(&copy).unwrap().map(|entry| entry.unwrap().path());
    let mine = |folder: &PathBuf| {
        fs::read_to_string(folder.join("plugin.toml")).is_ok_and(|text| text.contains(&format!("name = \"{name}\"")))
    };
    let folder = folders
        .into_iter()
        .find(mine)
        .unwrap_or_else(|| panic!("there is no plugin {name} in {}", copy.display()));
    (copy, folder)
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// The component of a plugin's folder. Its compiled form is removed, since it would be loaded in its place.
fn component(folder: &Path) -> PathBuf {
    let mut found = None;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("wasm") => found = Some(path),
            Some("cwasm") => fs::remove_file(path).unwrap(),
            _ => {}
        }
    }
    found.unwrap()
}

#[track_caller]
fn told(outcome: &Outcome, named: &[&str]) {
    assert_eq!(outcome.finished.code, 2, "{}", outcome.finished.stdout);
    let error = outcome.scene.api.terminal().unwrap();
    assert_eq!((outcome.events().len(), &error["type"]), (1, &json!("error")));
    let message = error["message"].as_str().unwrap();
    for name in named {
        assert!(message.contains(name), "{name:?} is missing in {message:?}");
        let line = outcome.finished.log.iter().any(|line| line.to_string().contains(name));
        assert!(line, "{name:?} is missing in the log: {}", outcome.finished.stdout);
    }
    assert_eq!(outcome.model().requests().len(), 0, "the model was not asked");
}

#[tokio::test]
async fn a_plugin_folder_that_is_missing_is_named() {
    let scene = agent(&["read_file"]).await;
    let missing = scene.outside().join("no-plugins").to_string_lossy().into_owned();
    let outcome = scene.env("PLUGIN_DIR", &missing).run().await;
    told(&outcome, &["no-plugins", "PLUGIN_DIR"]);
}

#[tokio::test]
async fn a_tool_without_a_plugin_is_named() {
    let scene = agent(&["read_file", "grep"]).await;
    let (plugins, folder) = copied_plugins(&scene, "grep");
    fs::remove_dir_all(folder).unwrap();
    let outcome = scene.env("PLUGIN_DIR", &plugins.to_string_lossy()).run().await;
    told(&outcome, &["grep"]);
}

#[tokio::test]
async fn a_component_that_does_not_load_is_named_with_the_reason() {
    let core_module = wat::parse_str("(module)").unwrap();
    let other_version = "(component (instance $it) (export \"plue:tool/plugin@9.0.0\" (instance $it)))";
    let other_version = wat::parse_str(other_version).unwrap();
    let nothing = wat::parse_str("(component)").unwrap();
    let cases: [(&str, &[u8], &[&str]); 5] = [
        ("garbage", b"this is no component", &[]),
        ("empty", b"", &[]),
        ("a core module", &core_module, &["component"]),
        ("another version", &other_version, &["9.0.0", "1.0"]),
        ("no exports", &nothing, &["plue:tool/plugin"]),
    ];
    for (what, bytes, named) in cases {
        let scene = agent(&["read_file"]).await;
        let (plugins, folder) = copied_plugins(&scene, "read_file");
        let component = component(&folder);
        fs::write(&component, bytes).unwrap();
        let file = component.file_name().unwrap().to_string_lossy().into_owned();
        let outcome = scene.env("PLUGIN_DIR", &plugins.to_string_lossy()).run().await;
        eprintln!("{what}:");
        told(&outcome, &[named, &[file.as_str()]].concat());
    }
}

#[tokio::test]
async fn a_manifest_that_is_wrong_is_named() {
    let cases = [
        ("name = \"read_file\"\ncomponent = \"missing.wasm\"\n", "missing.wasm"),
        ("name = \"read_file\"\ncomponent = \"../../x.wasm\"\n", "component"),
        ("name = \"read_file\"\nworkspace = \"everything\"\n", "workspace"),
        ("this is no TOML", "plugin.toml"),
    ];
    for (text, named) in cases {
        let scene = agent(&["read_file"]).await;
        let (plugins, folder) = copied_plugins(&scene, "read_file");
        component(&folder);
        fs::write(folder.join("plugin.toml"), text).unwrap();
        let outcome = scene.env("PLUGIN_DIR", &plugins.to_string_lossy()).run().await;
        assert_eq!(outcome.finished.code, 2, "{text:?}: {}", outcome.finished.stdout);
        let error = outcome.scene.api.terminal().unwrap();
        assert!(error["message"].as_str().unwrap().contains(named), "{text:?}: {error}");
    }
}

#[tokio::test]
async fn a_grant_that_is_taken_away_is_found_when_the_component_is_loaded() {
    let scene = agent(&["shell"]).await;
    let (plugins, folder) = copied_plugins(&scene, "shell");
    let manifest = folder.join("plugin.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    assert!(text.contains("process = true"), "{text}");
    fs::write(&manifest, text.replace("process = true", "process = false")).unwrap();
    let outcome = scene.env("PLUGIN_DIR", &plugins.to_string_lossy()).run().await;
    told(&outcome, &["plue:tool/process"]);
}

#[tokio::test]
async fn plugins_work_from_another_folder_and_without_their_compiled_forms() {
    let turns = [Turn::new().call("t", "list_files", json!({})), Turn::says("Done.")];
    let scene = Scene::new()
        .await
        .file("a.txt", "")
        .agent(json!({ "tools": ["list_files"] }), turns)
        .await;
    let (plugins, folder) = copied_plugins(&scene, "list_files");
    component(&folder);
    let outcome = scene.env("PLUGIN_DIR", &plugins.to_string_lossy()).run().await;
    outcome.done();
    assert_eq!(
        outcome.events_of("tool_end")[0]["output"].as_str().unwrap().trim_end(),
        "a.txt"
    );
}

#[tokio::test]
async fn an_operator_can_take_a_tool_away() {
    let outcome = agent(&["grep", "shell"])
        .await
        .env("ALLOWED_TOOLS", "grep,read_file")
        .run()
        .await;
    let error = outcome.refused("invalid_task");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("tools[1]") && message.contains("shell"), "{message}");
}
