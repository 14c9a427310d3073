//! `plue-runner doctor`: what is missing where the runner stands, found by trying it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use support::{ApiServer, Claude, Finished, RunnerProcess, Turn};
use tempfile::TempDir;

/// What stands around a runner in good order.
struct Place {
    folder: TempDir,
    api: ApiServer,
    model: Claude,
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("plue-doctor-").tempdir().unwrap();
        let workspace = folder.path().join("workspace");
        fs::create_dir(&workspace).unwrap();
        // So that a runner that is root gets as far as one that is not, whatever it is refused.
        for path in [folder.path(), &workspace] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        Self {
            folder,
            api: ApiServer::with().start().await.unwrap(),
            model: Claude::script([Turn::says("nobody asks")]).await.unwrap(),
        }
    }

    fn doctor(&self, arguments: &[&str]) -> RunnerProcess {
        RunnerProcess::built()
            .args(&[&["doctor"], arguments].concat())
            .env("WORKSPACE", self.folder.path().join("workspace").to_string_lossy())
            .env("CALLBACK_URL", self.api.url())
            .env("ANTHROPIC_BASE_URL", self.model.url())
    }
}

fn checks(finished: &Finished) -> Vec<Value> {
    let problem = |error| panic!("{error}: {}{}", finished.stdout, finished.stderr);
    serde_json::from_str(&finished.stdout).unwrap_or_else(problem)
}

/// The one check of this name.
#[track_caller]
fn check<'a>(checks: &'a [Value], name: &str) -> &'a Value {
    let mut found = checks.iter().filter(|check| check["name"] == name);
    let check = found.next().unwrap_or_else(|| panic!("no {name:?} in {checks:#?}"));
    assert!(found.next().is_none(), "{name:?} is there twice");
    check
}

/// The names of those in this state.
fn named<'a>(checks: &'a [Value], state: &str) -> Vec<&'a str> {
    let of = checks.iter().filter(|check| check["state"] == state);
    of.map(|check| check["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn doctor_finds_every_layer_and_all_that_a_task_needs() {
    let place = Place::new().await;
    let finished = place.doctor(&[]).run().await.unwrap();
    assert_eq!(finished.code, 0, "{}", finished.stdout);
    assert!(finished.stdout.ends_with("nothing that a task needs is missing\n"));
    let finished = place.doctor(&["--json"]).run().await.unwrap();
    assert_eq!(finished.code, 0, "{}", finished.stdout);
    let checks = checks(&finished);
    for name in [
        "user namespace",
        "mount, PID, network, IPC and UTS namespaces",
        "read-only image",
        "fresh /proc",
        "workspace",
        "system call filter",
        "plugin folder",
        "plugins",
        "callback",
        "pod name",
        "model",
    ] {
        assert_eq!(check(&checks, name)["state"], "ok", "{checks:#?}");
    }
    // What only some kernels have.
    check(&checks, "openat2");
    check(&checks, "pooled tool memory");
}

#[tokio::test]
async fn doctor_names_the_layer_that_is_missing_and_what_to_do() {
    let cases = [
        (
            "user namespace",
            libc::SYS_unshare,
            libc::CLONE_NEWUSER as u64,
            "runtimeClassName gvisor",
        ),
        (
            "mount, PID, network, IPC and UTS namespaces",
            libc::SYS_unshare,
            libc::CLONE_NEWNET as u64,
            "max_net_namespaces",
        ),
        ("read-only image", libc::SYS_pivot_root, 0, "AppArmor"),
        ("system call filter", libc::SYS_seccomp, 0, "CONFIG_SECCOMP_FILTER"),
    ];
    for (layer, call, flags, remedy) in cases {
        let place = Place::new().await;
        let refused = |arguments: &[&str]| place.doctor(arguments).refusing(&[call], flags, libc::EPERM);
        let finished = refused(&[]).run().await.unwrap();
        assert_eq!(finished.code, 1, "{layer}: {}", finished.stdout);
        let row = finished.stdout.lines().position(|line| line.starts_with(layer));
        let lines: Vec<&str> = finished.stdout.lines().collect();
        let row = row.unwrap_or_else(|| panic!("no {layer:?} in {}", finished.stdout));
        assert!(lines[row].contains("  MISSING  "), "{}", lines[row]);
        assert!(lines[row + 1].contains("what for: "), "{}", lines[row + 1]);
        assert!(lines[row + 2].contains(remedy), "{}", lines[row + 2]);

        let finished = refused(&["--json"]).run().await.unwrap();
        assert_eq!(finished.code, 1, "{layer}: {}", finished.stdout);
        let checks = checks(&finished);
        assert_eq!(named(&checks, "missing"), [layer], "{checks:#?}");
        assert!(check(&checks, layer)["remedy"].as_str().unwrap().contains(remedy));
        // What is around the sandbox is told all the same.
        assert_eq!(check(&checks, "callback")["state"], "ok", "{checks:#?}");
        assert_eq!(check(&checks, "plugins")["state"], "ok", "{checks:#?}");
    }
}

#[tokio::test]
async fn doctor_finds_a_plugin_folder_that_others_can_write() {
    let place = Place::new().await;
    let plugins = place.folder.path().join("plugins");
    fs::create_dir(&plugins).unwrap();
    fs::set_permissions(&plugins, fs::Permissions::from_mode(0o757)).unwrap();
    let doctor = place.doctor(&["--json"]).env("PLUGIN_DIR", plugins.to_string_lossy());
    let finished = doctor.run().await.unwrap();
    assert_eq!(finished.code, 1, "{}", finished.stdout);
    let checks = checks(&finished);
    let folder = check(&checks, "plugin folder");
    assert_eq!(folder["state"], "missing", "{checks:#?}");
    assert!(folder["seen"].as_str().unwrap().contains("mode 757"), "{folder:#}");
    assert!(
        folder["remedy"].as_str().unwrap().contains("chmod -R go-w"),
        "{folder:#}"
    );
}

#[tokio::test]
async fn doctor_finds_that_the_callback_or_the_model_is_out_of_reach() {
    let place = Place::new().await;
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/events", listener.local_addr().unwrap())
    };
    let doctor = place.doctor(&["--json"]).env("CALLBACK_URL", &*nobody);
    let finished = doctor.run().await.unwrap();
    assert_eq!(finished.code, 1, "{}", finished.stdout);
    let found = checks(&finished);
    assert_eq!(named(&found, "missing"), ["callback"], "{found:#?}");
    let remedy = check(&found, "callback")["remedy"].as_str().unwrap();
    assert!(
        remedy.contains("CALLBACK_URL") && remedy.contains("NetworkPolicy"),
        "{remedy}"
    );

    // A workflow does without a model, and without a callback there is nothing to try.
    let doctor = place.doctor(&["--json"]).env("ANTHROPIC_BASE_URL", &*nobody);
    let finished = doctor.without("CALLBACK_URL").run().await.unwrap();
    assert_eq!(finished.code, 0, "{}", finished.stdout);
    let found = checks(&finished);
    assert_eq!(check(&found, "model")["state"], "without", "{found:#?}");
    assert_eq!(check(&found, "callback")["state"], "not_tried", "{found:#?}");
}

#[tokio::test]
async fn doctor_with_a_malformed_variable_names_it_and_tries_nothing() {
    let place = Place::new().await;
    for arguments in [&[][..], &["--json"]] {
        let doctor = place.doctor(arguments).env("COMMAND_MEMORY", "a lot");
        let finished = doctor.run().await.unwrap();
        assert_eq!(finished.code, 2, "{}", finished.stdout);
        assert!(finished.stdout.contains("COMMAND_MEMORY"), "{}", finished.stdout);
    }
}
