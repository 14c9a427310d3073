//! What the runner is told: no secret in a literal, no variable that it does not know, nothing that is not there.

use serde_json::Value;

use super::pod::has_only;
use super::{Manifests, Pod, list, named};

/// How the names of variables end whose values are secrets, as in the runner's redaction; headers carry keys too.
const SECRET: [&str; 6] = ["_KEY", "_TOKEN", "_SECRET", "_PASSWORD", "_CREDENTIALS", "_HEADERS"];

/// How keys of the Messages API begin.
const KEY_PREFIX: &str = "sk-ant-";

/// The one Secret. It is made by the operator and never rendered.
const OURS: &str = "plue-runner";

/// How the names of variables end that name a file with a secret. The file is called as the variable without it.
const FILE: &str = "_FILE";

/// How the names of variables end whose URLs may have a password.
const PROXY: &str = "_PROXY";

/// The modes of such files: root's, and perhaps the pod's group may read them (0400, 0440).
const MODES: [u32; 2] = [0o400, 0o440];

/// No secret is in what is applied, and none is a variable: those of the Secret are files, which only the runner reads,
/// and which it reads again when they are replaced.
pub fn secrets(manifests: &Manifests) -> Vec<String> {
    let mut wrong: Vec<String> = manifests
        .of_kind("Secret")
        .map(|secret| format!("{} is in the manifests", named(secret)))
        .collect();
    for object in manifests.objects {
        let map = if object["kind"] == "ConfigMap" {
            object["data"].as_object()
        } else {
            None
        };
        for name in map
            .into_iter()
            .flatten()
            .map(|(name, _)| name)
            .filter(|name| is_secret(name))
        {
            wrong.push(format!("{} has {name}", named(object)));
        }
        for (name, value) in map.into_iter().flatten() {
            if name.ends_with(PROXY) && value.as_str().is_some_and(|url| url.contains('@')) {
                wrong.push(format!("{} has a user or a password in {name}", named(object)));
            }
        }
        if object.to_string().contains(KEY_PREFIX) {
            wrong.push(format!("{} has what looks like a key", named(object)));
        }
    }
    for pod in &manifests.pods {
        for one in variables_of(pod) {
            let name = one["name"].as_str().unwrap_or_default();
            if is_secret(name) || !one["valueFrom"]["secretKeyRef"].is_null() {
                wrong.push(format!(
                    "{}: {name} is a secret in a variable: name its file by {name}{FILE}",
                    pod.owner
                ));
            }
        }
        let places = places_of_secrets(pod, &mut wrong);
        let environment = manifests.environment(pod);
        let files = environment
            .iter()
            .filter_map(|(name, path)| Some((name.strip_suffix(FILE)?, path)));
        for (key, path) in files.filter(|(key, _)| is_secret(key) || key.ends_with(PROXY)) {
            if !places.iter().any(|place| *path == format!("{place}/{key}")) {
                wrong.push(format!(
                    "{}: {key}{FILE} is {path}, and no Secret with {key} is mounted there",
                    pod.owner
                ));
            }
        }
    }
    wrong
}

/// Where the Secret is mounted in a pod: read-only, and as few may read it as can be.
fn places_of_secrets<'a>(pod: &Pod<'a>, wrong: &mut Vec<String>) -> Vec<&'a str> {
    let mut places = Vec::new();
    for volume in list(&pod.spec["volumes"]) {
        let secret = &volume["secret"];
        if secret.is_null() {
            continue;
        }
        let ours = secret["secretName"] == OURS && has_only(secret, &["secretName", "defaultMode"]);
        if !ours || !MODES.iter().any(|mode| secret["defaultMode"] == *mode) {
            wrong.push(format!(
                "{}: volume {} is not the Secret {OURS} with the mode 0400 or 0440",
                pod.owner, volume["name"]
            ));
        }
        let mounts = pod.containers().flat_map(|one| list(&one["volumeMounts"]));
        for mount in mounts.filter(|mount| mount["name"] == volume["name"]) {
            if mount["readOnly"] != true {
                wrong.push(format!("{}: {} can be written", pod.owner, volume["name"]));
            }
            places.extend(mount["mountPath"].as_str());
        }
    }
    places
}

/// Every variable of a runner is one that it knows, and those that its mode needs are there.
pub fn variables(manifests: &Manifests) -> Vec<String> {
    let mut wrong = Vec::new();
    for pod in manifests.runners() {
        let environment = manifests.environment(pod);
        let by_name = variables_of(pod).filter_map(|one| one["name"].as_str());
        let mut names: Vec<&str> = by_name.chain(environment.keys().map(String::as_str)).collect();
        names.sort_unstable();
        names.dedup();
        for name in &names {
            if !manifests.variables.iter().any(|known| known == name) {
                wrong.push(format!("{}: the runner knows no variable {name}", pod.owner));
            }
        }
        let needed: &[&str] = match environment.get("MODE").map(String::as_str) {
            Some("active") => &["TASK_ID", "CALLBACK_URL", "TASK_FILE"],
            Some("standby") => &["REGISTER_URL", "POD_NAME", "POD_IP", "NODE_NAME"],
            _ => &["MODE"],
        };
        for name in needed.iter().chain(&["ANTHROPIC_API_KEY_FILE", "MODEL_ALIASES"]) {
            if !names.contains(name) {
                wrong.push(format!("{}: {name} is not set", pod.owner));
            }
        }
    }
    wrong
}

/// What a pod names is there: ConfigMaps, the account, the task's file.
pub fn references(manifests: &Manifests) -> Vec<String> {
    let mut wrong = Vec::new();
    for pod in &manifests.pods {
        let mut demand = |holds: bool, what: String| {
            if !holds {
                wrong.push(format!("{}: {what}", pod.owner));
            }
        };
        let volumes = list(&pod.spec["volumes"])
            .iter()
            .map(|volume| &volume["configMap"]["name"]);
        let sources: Vec<&Value> = pod.containers().flat_map(|one| list(&one["envFrom"])).collect();
        for source in &sources {
            demand(
                !source["configMapRef"].is_null(),
                format!("variables come from {source}"),
            );
        }
        for name in volumes
            .chain(sources.iter().map(|source| &source["configMapRef"]["name"]))
            .filter_map(Value::as_str)
        {
            demand(
                manifests.named("ConfigMap", name).is_some(),
                format!("there is no ConfigMap {name}"),
            );
        }
        let account = pod.spec["serviceAccountName"].as_str().unwrap_or("default");
        let without_token = |account: &Value| account["automountServiceAccountToken"] == false;
        demand(
            manifests.named("ServiceAccount", account).is_some_and(without_token),
            format!("there is no ServiceAccount {account} without a token"),
        );
        if let Some(file) = manifests.environment(pod).get("TASK_FILE") {
            demand(
                is_mounted(manifests, pod, file),
                format!("no ConfigMap is mounted that has {file}"),
            );
        }
    }
    wrong
}

/// Whether a ConfigMap has the file, where it is mounted.
fn is_mounted(manifests: &Manifests, pod: &Pod, file: &str) -> bool {
    let Some((folder, key)) = file.rsplit_once('/') else {
        return false;
    };
    let mounts = pod.containers().flat_map(|one| list(&one["volumeMounts"]));
    let there: Vec<&Value> = mounts
        .filter(|mount| mount["mountPath"] == folder)
        .map(|mount| &mount["name"])
        .collect();
    let mut volumes = list(&pod.spec["volumes"])
        .iter()
        .filter(|volume| there.contains(&&volume["name"]));
    volumes.any(|volume| {
        let name = volume["configMap"]["name"].as_str().unwrap_or_default();
        manifests
            .named("ConfigMap", name)
            .is_some_and(|map| map["data"][key].is_string())
    })
}

fn variables_of<'a>(pod: &Pod<'a>) -> impl Iterator<Item = &'a Value> {
    pod.containers().flat_map(|container| list(&container["env"]))
}

fn is_secret(name: &str) -> bool {
    SECRET.iter().any(|end| name.ends_with(end))
}
