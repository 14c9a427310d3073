//! What kubelet and containerd make of a pod: an OCI bundle, from the rendered manifest and the image's own settings.
//!
//! A field of a pod that is not known here is an error. So nothing that a manifest asks for is left out in silence, and
//! manifest, image and test cannot drift apart. What cannot be had on one machine is [`IGNORED`], with the reason.
//!
//! Formats: <https://github.com/opencontainers/runtime-spec/blob/main/config.md>,
//! <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/>.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::{mounts, quantity};

/// What decides where a pod is put and how it is fetched: nothing that runs in it can tell. Of what is known, requests
/// and limits of disk space are the scheduler's and kubelet's, the times of probes are the kubelet's, and gVisor is a
/// filter of system calls of its own, in the place of `seccompProfile`.
const IGNORED: [&str; 11] = [
    "affinity",
    // `/etc/hosts` answers here.
    "dnsConfig",
    "imagePullPolicy",
    "imagePullSecrets",
    "nodeSelector",
    "priorityClassName",
    "restartPolicy",
    "serviceAccountName",
    "terminationMessagePolicy",
    "tolerations",
    "topologySpreadConstraints",
];

/// What an image says of the container that is made of it.
pub struct Image {
    /// Its root file system.
    pub root: PathBuf,
    pub entrypoint: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
    /// `HEALTHCHECK`, without Docker's first word.
    pub health: Vec<String>,
}

/// What the cluster knows of a pod, and a manifest does not.
pub struct Cluster<'a> {
    /// The objects of the manifest, ConfigMaps among them.
    pub objects: &'a [Value],
    /// Secrets, by name and key.
    pub secrets: &'a [(&'a str, &'a str, &'a str)],
    /// `/etc/hosts`, in place of the cluster's DNS.
    pub hosts: &'a str,
    pub pod_name: &'a str,
}

/// Writes the bundle of a pod into a folder: `config.json` for runsc, and `pod.json` with what a kubelet does from
/// outside (probes, the hook, the grace) for `plue-pod`. `others` are folders of this machine that are mounted besides,
/// read-only.
pub fn lay_out(folder: &Path, pod: &Value, image: &Image, cluster: &Cluster, others: &[(&Path, &str)]) -> Result<()> {
    let spec = &pod["spec"];
    let [container] = list(spec, "containers")? else {
        bail!("a runner's pod has one container");
    };
    known(
        "pod",
        spec,
        &[
            "automountServiceAccountToken",
            "containers",
            "enableServiceLinks",
            "runtimeClassName",
            "securityContext",
            "terminationGracePeriodSeconds",
            "volumes",
        ],
    )?;
    known(
        "container",
        container,
        &[
            "args",
            "command",
            "env",
            "envFrom",
            "image",
            "lifecycle",
            "livenessProbe",
            "name",
            "readinessProbe",
            "resources",
            "securityContext",
            "startupProbe",
            "volumeMounts",
            "workingDir",
        ],
    )?;
    // What is neither given nor taken here has to be off, as the manifests have it.
    ensure!(
        spec["automountServiceAccountToken"] == false && spec["enableServiceLinks"] == false,
        "the pod is given a token or the addresses of services"
    );
    ensure!(spec["runtimeClassName"] == "gvisor", "the pod does not run in gVisor");
    fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
    let rights = Rights::of(spec, container, image)?;
    let mut mounts = mounts::mounts(folder, spec, container, &rights, cluster)?;
    mounts.extend(others.iter().map(
        |(source, place)| json!({"destination": place, "type": "bind", "source": source, "options": ["rbind", "ro"]}),
    ));
    let config = json!({
        "ociVersion": "1.0.0",
        "hostname": cluster.pod_name,
        "root": {"path": image.root, "readonly": rights.read_only},
        "mounts": mounts,
        "process": {
            "terminal": false,
            "user": {"uid": rights.user, "gid": rights.group, "additionalGids": [rights.volumes]},
            "args": arguments(container, image)?,
            "env": environment(container, image, cluster)?,
            "cwd": container["workingDir"].as_str().unwrap_or(&image.working_dir),
            "noNewPrivileges": rights.no_new_privileges,
            "capabilities": rights.capabilities(),
            // What containerd gives; a manifest has no word for it.
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 65536, "hard": 1_048_576}],
        },
        "linux": {
            // `plue-pod` adds the network, which is one for each pod that it starts.
            "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}],
            "resources": resources(&container["resources"]["limits"])?,
            "cgroupsPath": format!("/plue-{}-{}", std::process::id(), cluster.pod_name),
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/sched_debug", "/proc/timer_list"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    let outside = json!({
        "grace_seconds": spec["terminationGracePeriodSeconds"].as_u64().unwrap_or(30),
        "pre_stop": container["lifecycle"]["preStop"]["exec"]["command"],
        "startup": container["startupProbe"]["exec"]["command"],
        "liveness": container["livenessProbe"]["exec"]["command"],
        "readiness": container["readinessProbe"]["exec"]["command"],
        "health": image.health,
    });
    write(&folder.join("config.json"), &config)?;
    write(&folder.join("pod.json"), &outside)
}

/// Fails for a field that is neither known nor ignored.
pub fn known(what: &str, object: &Value, names: &[&str]) -> Result<()> {
    for name in object.as_object().into_iter().flatten().map(|(name, _)| name.as_str()) {
        ensure!(
            names.contains(&name) || IGNORED.contains(&name),
            "the manifest's {what} has `{name}`, which `cargo xtask pod` does not know: teach it (xtask/src/pod/oci.rs)"
        );
    }
    Ok(())
}

/// Who the process is, and what it may.
pub struct Rights {
    user: u64,
    group: u64,
    /// The group of the volumes.
    pub volumes: u64,
    read_only: bool,
    no_new_privileges: bool,
}

impl Rights {
    fn of(spec: &Value, container: &Value, image: &Image) -> Result<Self> {
        let (of_pod, own) = (&spec["securityContext"], &container["securityContext"]);
        known(
            "securityContext",
            of_pod,
            &[
                "fsGroup",
                "fsGroupChangePolicy",
                "runAsGroup",
                "runAsNonRoot",
                "runAsUser",
                "seccompProfile",
            ],
        )?;
        known(
            "container's securityContext",
            own,
            &[
                "allowPrivilegeEscalation",
                "capabilities",
                "readOnlyRootFilesystem",
                "runAsGroup",
                "runAsNonRoot",
                "runAsUser",
                "seccompProfile",
            ],
        )?;
        let either = |name: &str| own.get(name).or_else(|| of_pod.get(name)).and_then(Value::as_u64);
        let of_image = |index| image.user.split(':').nth(index).and_then(|id| id.parse().ok());
        let user = either("runAsUser").or_else(|| of_image(0));
        let user = user.context("neither the manifest nor the image says as whom the runner runs, by number")?;
        let group = either("runAsGroup").or_else(|| of_image(1)).unwrap_or(0);
        ensure!(
            own["capabilities"] == json!({"drop": ["ALL"]}),
            "only `capabilities: {{drop: [ALL]}}` is known here, and the manifest has {}",
            own["capabilities"]
        );
        ensure!(
            user != 0 || (own["runAsNonRoot"] != true && of_pod["runAsNonRoot"] != true),
            "the manifest says runAsNonRoot, and the user is root"
        );
        Ok(Self {
            user,
            group,
            volumes: of_pod["fsGroup"].as_u64().unwrap_or(group),
            read_only: own["readOnlyRootFilesystem"] == true,
            no_new_privileges: own["allowPrivilegeEscalation"] == false,
        })
    }

    /// None, of all five kinds.
    fn capabilities(&self) -> Value {
        json!({"bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": []})
    }
}

/// The command line: what the manifest says, and else the image.
fn arguments(container: &Value, image: &Image) -> Result<Vec<String>> {
    let command = match container.get("command") {
        Some(_) => strings(container, "command")?,
        None => image.entrypoint.clone(),
    };
    Ok([command, strings(container, "args")?].concat())
}

/// The image's variables, then those of whole ConfigMaps, then single ones: later ones win.
fn environment(container: &Value, image: &Image, cluster: &Cluster) -> Result<Vec<String>> {
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    for pair in &image.env {
        let (name, value) = pair
            .split_once('=')
            .with_context(|| format!("the image's variable {pair} has no value"))?;
        variables.insert(name.to_owned(), value.to_owned());
    }
    // As every container has it.
    variables.insert("HOSTNAME".to_owned(), cluster.pod_name.to_owned());
    for source in list(container, "envFrom")? {
        let name = text(&source["configMapRef"], "name").context("envFrom: only a configMapRef is known")?;
        for (name, value) in cluster.config_map(name)? {
            let value = value.as_str().with_context(|| format!("{name} is no text"))?;
            variables.insert(name.clone(), value.to_owned());
        }
    }
    for variable in list(container, "env")? {
        let name = text(variable, "name")?;
        let value = match variable.get("value") {
            Some(value) => {
                let value = value.as_str().with_context(|| format!("{name} is no text"))?;
                ensure!(
                    !value.contains("$("),
                    "{name}: references to other variables are not known here"
                );
                Some(value.to_owned())
            }
            None => cluster.value_of(name, &variable["valueFrom"])?,
        };
        variables.extend(value.map(|value| (name.to_owned(), value)));
    }
    Ok(variables
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect())
}

impl Cluster<'_> {
    pub fn config_map(&self, name: &str) -> Result<&Map<String, Value>> {
        self.objects
            .iter()
            .find(|object| object["kind"] == "ConfigMap" && object["metadata"]["name"] == name)
            .and_then(|object| object["data"].as_object())
            .with_context(|| format!("the manifest has no ConfigMap {name}"))
    }

    /// A variable that the manifest takes from elsewhere; none when that is optional and not there.
    fn value_of(&self, variable: &str, from: &Value) -> Result<Option<String>> {
        if let Some(field) = from["fieldRef"]["fieldPath"].as_str() {
            return Ok(Some(match field {
                "metadata.name" => self.pod_name.to_owned(),
                "status.podIP" => "127.0.0.1".to_owned(),
                "spec.nodeName" => "this-machine".to_owned(),
                other => bail!("{variable}: the field {other} is not known here"),
            }));
        }
        let source = &from["secretKeyRef"];
        let (name, key) = (text(source, "name")?, text(source, "key")?);
        let found = self.secrets.iter().find(|secret| (secret.0, secret.1) == (name, key));
        ensure!(
            found.is_some() || source["optional"] == true,
            "{variable}: there is no key {key} in the Secret {name}"
        );
        Ok(found.map(|secret| secret.2.to_owned()))
    }
}

/// The limits, in the words of cgroups.
fn resources(limits: &Value) -> Result<Value> {
    let memory = quantity::bytes(&limits["memory"])?.context("the container has no limit for memory")?;
    let mut resources = json!({"memory": {"limit": memory}});
    if let Some(cpu) = quantity::milli_cpus(&limits["cpu"])? {
        resources["cpu"] = json!({"period": 100_000, "quota": cpu * 100});
    }
    Ok(resources)
}

pub fn list<'a>(object: &'a Value, name: &str) -> Result<&'a [Value]> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(other) => bail!("`{name}` is no list: {other}"),
    }
}

fn strings(object: &Value, name: &str) -> Result<Vec<String>> {
    let words = list(object, name)?.iter().map(|word| word.as_str().map(str::to_owned));
    words
        .collect::<Option<_>>()
        .with_context(|| format!("`{name}` is no list of texts"))
}

pub fn text<'a>(object: &'a Value, name: &str) -> Result<&'a str> {
    object[name]
        .as_str()
        .with_context(|| format!("`{name}` is missing in {object}"))
}

fn write(path: &Path, value: &Value) -> Result<()> {
    fs::write(path, format!("{value:#}\n")).with_context(|| format!("could not write {}", path.display()))
}

#[cfg(test)]
#[path = "oci_tests.rs"]
mod tests;
