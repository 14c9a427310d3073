//! What a container is: an OCI `config.json`, as close to the pod as one machine can have it.
//!
//! The format: <https://github.com/opencontainers/runtime-spec/blob/main/config.md>.

use std::path::Path;

use serde_json::{Value, json};

use super::USER;

/// Where the container sees `target/dist`.
pub const DIST: &str = "/opt/plue";

/// Where the container sees programs that are not shipped.
pub const PROGRAMS: &str = "/opt/programs";

/// The folder that is the workspace of the pod, the only one that is kept.
pub const WORKSPACE: &str = "/workspace";

/// What one container is made of.
pub struct Bundle<'a> {
    /// The program and its arguments.
    pub argv: &'a [String],
    /// Variables besides the few that every container has.
    pub env: &'a [(&'a str, &'a str)],
    /// The image.
    pub root: &'a Path,
    /// The folder that becomes the workspace.
    pub workspace: &'a Path,
    /// What is shipped.
    pub dist: &'a Path,
    /// The folder that is bound to [`PROGRAMS`], when there is one.
    pub programs: Option<&'a Path>,
}

/// The text of `config.json`.
pub fn config(bundle: &Bundle) -> Value {
    let mut env = vec![
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        format!("HOME={WORKSPACE}"),
        "LANG=C.UTF-8".to_owned(),
    ];
    env.extend(bundle.env.iter().map(|(name, value)| format!("{name}={value}")));
    let read_only = |folder: &Path, place: &str| bind(folder, place, "ro");
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc"}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}),
        json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "nodev", "mode=1777"]}),
        bind(bundle.workspace, WORKSPACE, "rw"),
        read_only(bundle.dist, DIST),
    ];
    mounts.extend(bundle.programs.map(|folder| read_only(folder, PROGRAMS)));
    json!({
        "ociVersion": "1.0.0",
        "hostname": "pod",
        "root": {"path": bundle.root, "readonly": true},
        "mounts": mounts,
        "process": {
            "terminal": false,
            "user": {"uid": USER, "gid": USER},
            "args": bundle.argv,
            "env": env,
            "cwd": WORKSPACE,
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": []
            },
            // What containerd gives to a pod; runsc's own default is lower than a test needs.
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 65536, "hard": 65536}],
        },
        "linux": {"namespaces": [
            {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}
        ]},
    })
}

fn bind(folder: &Path, place: &str, right: &str) -> Value {
    json!({"destination": place, "type": "bind", "source": folder, "options": ["rbind", right]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_an_ordinary_user_no_capabilities_and_one_folder_to_write_to() {
        let config = config(&Bundle {
            argv: &["/bin/true".to_owned()],
            env: &[("TMPDIR", "/workspace")],
            root: Path::new("/image"),
            workspace: Path::new("/kept"),
            dist: Path::new("/dist"),
            programs: Some(Path::new("/programs")),
        });
        let process = &config["process"];
        assert_eq!(process["user"], json!({"uid": 1000, "gid": 1000}));
        assert_eq!(process["noNewPrivileges"], true);
        let capabilities = process["capabilities"].as_object().unwrap();
        assert_eq!(capabilities.len(), 5);
        assert!(capabilities.values().all(|set| *set == json!([])));
        assert_eq!(config["root"], json!({"path": "/image", "readonly": true}));
        let writable: Vec<_> = config["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|mount| mount["type"] == "bind" && mount["options"] != json!(["rbind", "ro"]))
            .map(|mount| mount["destination"].as_str().unwrap())
            .collect();
        assert_eq!(writable, [WORKSPACE]);
    }
}
