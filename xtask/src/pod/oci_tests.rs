//! Pods that are read as they should be, and pods that are refused.

use std::os::unix::fs::MetadataExt;

use super::*;

/// A pod as the manifests have it, one field of which is changed.
fn pod(pointer: &str, value: Value) -> Value {
    let mut pod = json!({"spec": {
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "runtimeClassName": "gvisor",
        "terminationGracePeriodSeconds": 77,
        "securityContext": {"runAsNonRoot": true, "runAsUser": 10001, "fsGroup": own_group()},
        "containers": [{
            "name": "runner",
            "image": "plue-runner",
            "envFrom": [{"configMapRef": {"name": "settings"}}],
            "env": [
                {"name": "MODE", "value": "standby"},
                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "KEY"}}},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "TOKEN", "optional": true}}},
            ],
            "resources": {"limits": {"memory": "2Gi", "cpu": "1500m"}},
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [
                {"name": "workspace", "mountPath": "/workspace"},
                {"name": "secrets", "mountPath": "/run/secrets/plue", "readOnly": true},
            ],
            "lifecycle": {"preStop": {"exec": {"command": ["plue-runner", "drain"]}}},
        }],
        "volumes": [
            {"name": "workspace", "emptyDir": {"sizeLimit": "8Gi"}},
            {"name": "secrets", "secret": {"secretName": "secret", "defaultMode": 0o440}},
        ],
    }});
    match pod.pointer_mut(pointer) {
        Some(field) => *field = value,
        None => {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            pod.pointer_mut(parent).unwrap()[name] = value;
        }
    }
    pod
}

/// A group that whoever runs the test may give a folder to.
fn own_group() -> u32 {
    fs::metadata("/proc/self").unwrap().gid()
}

fn lay_out_pod(name: &str, pod: &Value) -> Result<(Value, Value)> {
    let folder = std::env::temp_dir().join(format!("xtask-oci-{}-{name}", std::process::id()));
    let image = Image {
        root: PathBuf::from("/image"),
        entrypoint: vec!["plue-runner".to_owned()],
        env: vec!["PATH=/opt/plue".to_owned(), "MODE=active".to_owned()],
        user: "10001:0".to_owned(),
        working_dir: "/workspace".to_owned(),
        health: vec!["plue-runner".to_owned(), "health".to_owned()],
    };
    let objects = [json!({"kind": "ConfigMap", "metadata": {"name": "settings"},
        "data": {"LOG_LEVEL": "INFO", "MODE": "from-the-map"}})];
    let cluster = Cluster {
        objects: &objects,
        secrets: &[("secret", "KEY", "of-the-test")],
        hosts: "127.0.0.1 localhost\n",
        pod_name: "runner-1",
    };
    let made = lay_out(&folder, pod, &image, &cluster, &[]);
    let read = |name: &str| serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap();
    let made = made.map(|()| (read("config.json"), read("pod.json")));
    if made.is_ok() {
        // As kubelet has it: a link into a folder that is replaced as a whole.
        let key = folder.join("volumes/secrets/KEY");
        assert_eq!(fs::read_link(&key).unwrap(), Path::new("..data/KEY"));
        assert_eq!(fs::read_to_string(&key).unwrap(), "of-the-test");
        assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o440);
    }
    let _ = fs::remove_dir_all(&folder);
    made
}

#[test]
fn a_pod_becomes_a_container_with_what_manifest_and_image_say() {
    let (config, outside) = lay_out_pod("whole", &pod("/spec/terminationGracePeriodSeconds", json!(77))).unwrap();
    let process = &config["process"];
    assert_eq!(process["args"], json!(["plue-runner"]));
    assert_eq!(
        process["env"],
        json!([
            "HOSTNAME=runner-1",
            "KEY=of-the-test",
            "LOG_LEVEL=INFO",
            "MODE=standby",
            "PATH=/opt/plue"
        ])
    );
    assert_eq!(
        (&process["user"]["uid"], &process["user"]["gid"]),
        (&json!(10001), &json!(0))
    );
    assert_eq!(process["noNewPrivileges"], true);
    assert!(
        process["capabilities"]
            .as_object()
            .unwrap()
            .values()
            .all(|set| *set == json!([]))
    );
    assert_eq!(config["root"], json!({"path": "/image", "readonly": true}));
    let resources = &config["linux"]["resources"];
    assert_eq!(resources["memory"]["limit"], 2_147_483_648_u64);
    assert_eq!(resources["cpu"], json!({"period": 100_000, "quota": 150_000}));
    let binds = config["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|mount| mount["type"] == "bind");
    let binds: Vec<_> = binds
        .map(|mount| (&mount["destination"], &mount["options"][1]))
        .collect();
    assert_eq!(
        binds,
        [
            (&json!("/etc/hosts"), &json!("ro")),
            (&json!("/workspace"), &json!("rw")),
            (&json!("/run/secrets/plue"), &json!("ro"))
        ]
    );
    assert_eq!(outside["grace_seconds"], 77);
    assert_eq!(outside["pre_stop"], json!(["plue-runner", "drain"]));
}

#[test]
fn what_is_not_known_or_not_safe_is_an_error_and_never_left_out() {
    let container = |field: &str| format!("/spec/containers/0/{field}");
    for (name, pointer, value, expected) in [
        ("field", "/spec/hostNetwork".to_owned(), json!(true), "`hostNetwork`"),
        ("own", container("tty"), json!(true), "`tty`"),
        (
            "root",
            "/spec/securityContext/runAsUser".to_owned(),
            json!(0),
            "runAsNonRoot",
        ),
        (
            "token",
            "/spec/automountServiceAccountToken".to_owned(),
            json!(true),
            "a token",
        ),
        ("runtime", "/spec/runtimeClassName".to_owned(), json!("runc"), "gVisor"),
        (
            "rights",
            container("securityContext/privileged"),
            json!(true),
            "`privileged`",
        ),
        (
            "capabilities",
            container("securityContext/capabilities"),
            json!({"add": ["NET_ADMIN"]}),
            "drop: [ALL]",
        ),
        (
            "map",
            container("envFrom/0/configMapRef/name"),
            json!("other"),
            "no ConfigMap other",
        ),
        (
            "secret",
            container("env/1/valueFrom/secretKeyRef/key"),
            json!("OTHER"),
            "no key OTHER",
        ),
        (
            "volume",
            "/spec/volumes/0".to_owned(),
            json!({"name": "workspace", "hostPath": {"path": "/"}}),
            "hostPath",
        ),
        (
            "no-secret",
            "/spec/volumes/1/secret/secretName".to_owned(),
            json!("other"),
            "no Secret other",
        ),
        (
            "mode",
            "/spec/volumes/1/secret/defaultMode".to_owned(),
            Value::Null,
            "no defaultMode",
        ),
        ("memory", container("resources/limits/memory"), json!("much"), "much"),
    ] {
        let error = lay_out_pod(name, &pod(&pointer, value)).map(drop).unwrap_err();
        assert!(format!("{error:#}").contains(expected), "{name}: {error:#}");
    }
}
