//! Secrets that are files: read for the task, told to nobody, and seen by no command.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use serde_json::json;
use support::claude::KEY;
use support::{ApiServer, Collector, Turn};

use support::scene::Scene;

const TOKEN: &str = "callback-token-0123456789";
const HEADERS: &str = "authorization=Bearer%20collector-token-0123456789";

/// A volume of Kubernetes: the files are links into a folder that is swapped.
pub struct Volume {
    folder: PathBuf,
    versions: u32,
}

impl Volume {
    pub fn new(folder: PathBuf, files: &[(&str, &str)]) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let mut volume = Self { folder, versions: 0 };
        for (name, _) in files {
            symlink(format!("..data/{name}"), volume.folder.join(name)).unwrap();
        }
        volume.swap(files);
        volume
    }

    /// Replaces all files at once.
    pub fn swap(&mut self, files: &[(&str, &str)]) {
        self.versions += 1;
        let version = format!("..version_{}", self.versions);
        let folder = self.folder.join(&version);
        fs::create_dir(&folder).unwrap();
        for (name, content) in files {
            fs::write(folder.join(name), content).unwrap();
            fs::set_permissions(folder.join(name), PermissionsExt::from_mode(0o444)).unwrap();
        }
        symlink(&version, self.folder.join("..next")).unwrap();
        fs::rename(self.folder.join("..next"), self.folder.join("..data")).unwrap();
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }
}

#[tokio::test]
async fn key_token_and_headers_may_be_files_and_are_secrets_as_much() {
    let collector = Collector::start().await.unwrap();
    let scene = Scene::with(ApiServer::with().token(TOKEN)).await;
    let secrets = Volume::new(
        scene.outside().join("secrets"),
        &[("KEY", &format!("{KEY}\n")), ("TOKEN", TOKEN), ("HEADERS", HEADERS)],
    );
    let call = json!({ "command": format!("echo {KEY} {TOKEN} collector-token-0123456789") });
    let scene = scene
        .agent(
            json!({ "tools": ["shell"] }),
            [Turn::new().call("t1", "shell", call), Turn::says("Done.")],
        )
        .await
        .without("ANTHROPIC_API_KEY")
        .env("ANTHROPIC_API_KEY_FILE", &secrets.path("KEY"))
        .env("CALLBACK_TOKEN_FILE", &secrets.path("TOKEN"))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())
        .env("OTEL_EXPORTER_OTLP_HEADERS_FILE", &secrets.path("HEADERS"));
    let outcome = scene.run().await;
    outcome.done();
    let output = outcome.events_of("tool_end")[0]["output"].to_string();
    assert!(output.contains("*** *** ***"), "{output}");
    let received = collector.received();
    assert!(!received.requests.is_empty());
    for (_, headers, _) in &received.requests {
        assert_eq!(headers["authorization"], "Bearer collector-token-0123456789");
    }
}

#[tokio::test]
async fn no_command_reads_a_file_with_a_secret_also_when_it_is_replaced_and_the_operator_opens_its_place() {
    let scene = Scene::new().await;
    // Around it lies what commands may read: the folder is hidden, and not the place that it is in.
    let place = scene.outside().join("opened");
    let mut secrets = Volume::new(place.join("secrets"), &[("KEY", KEY)]);
    fs::write(place.join("tool"), "a tool\n").unwrap();
    for folder in [scene.outside(), &place, &place.join("secrets")] {
        fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let shown = place.to_string_lossy().into_owned();
    let script = format!(
        "cat {shown}/tool; echo begun; for i in $(seq 200); do test -e swapped && break; sleep 0.05; done\n\
         ls -A {shown}/secrets; cat {shown}/secrets/KEY {shown}/secrets/..*/KEY 2>/dev/null || echo hidden"
    );
    let task = json!({ "type": "workflow", "steps": [{ "run": script }] });
    let scene = scene
        .task(&task)
        .env("COMMAND_READ_PATHS", &shown)
        .env("ANTHROPIC_API_KEY_FILE", &secrets.path("KEY"));
    let running = scene.start();
    scene
        .api
        .wait_for(|event| event["message"].as_str().is_some_and(|text| text.contains("begun")))
        .await;
    secrets.swap(&[("KEY", "another-key-0123456789")]);
    fs::write(scene.workspace().join("swapped"), "").unwrap();
    let outcome = scene.finish(running).await;
    outcome.done();
    assert_eq!(outcome.lines("stdout", 0), ["a tool", "begun", "hidden"]);
}

#[tokio::test]
async fn a_file_that_holds_no_secret_is_named_without_its_content() {
    let cases = [
        ("missing", "cannot be read"),
        ("empty", "is empty"),
        ("long", "more than 64 KiB"),
        (".", "is a folder"),
        ("../workspace/key", "is in WORKSPACE"),
        ("control", "no HTTP header may have"),
    ];
    for (name, problem) in cases {
        let scene = Scene::new().await.file("key", "hunter2-in-the-workspace");
        let folder = scene.outside().join("secrets");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("empty"), "\n").unwrap();
        fs::write(folder.join("long"), "hunter2".repeat(10_000)).unwrap();
        fs::write(folder.join("control"), "hunter2\u{1}hunter2").unwrap();
        let path = folder.join(name);
        let scene = scene
            .workflow(&json!([{ "run": "true" }]))
            .env("ANTHROPIC_API_KEY_FILE", &path.to_string_lossy());
        let outcome = scene.run().await;
        let error = outcome.refused("internal");
        let message = error["message"].as_str().unwrap();
        assert!(
            message.starts_with("ANTHROPIC_API_KEY_FILE: ") && message.contains(problem),
            "{message}"
        );
        assert!(
            !format!("{error}{}", outcome.finished.stdout).contains("hunter2"),
            "{message}"
        );
    }
    let scene = Scene::new().await.workflow(&json!([{ "run": "true" }]));
    let scene = scene
        .env("ANTHROPIC_API_KEY", KEY)
        .env("ANTHROPIC_API_KEY_FILE", "/run/secrets/key");
    let error = scene.run().await.refused("internal")["message"].to_string();
    assert!(
        error.contains("ANTHROPIC_API_KEY_FILE: it is set together with ANTHROPIC_API_KEY"),
        "{error}"
    );
}
