//! What every pod is: restricted, in gVisor, bounded.

use serde_json::Value;

use super::{LABEL, Manifests, Pod, list, named, quantity};

/// The image's user, above those that a machine gives to people: one that gets out of its container is nobody's there.
const USER: u32 = 10001;

/// Kinds that are in no namespace.
const OF_THE_CLUSTER: [&str; 2] = ["Namespace", "RuntimeClass"];

/// All is in one namespace, whose pods Kubernetes holds to the restricted profile.
pub fn namespace(manifests: &Manifests) -> Vec<String> {
    let mut wrong = Vec::new();
    for object in manifests.objects {
        let place = object["metadata"]["namespace"].as_str();
        let of_the_cluster = OF_THE_CLUSTER.iter().any(|kind| object["kind"] == *kind);
        if !of_the_cluster && place != Some("plue") {
            wrong.push(format!("{} is in namespace {place:?}", named(object)));
        }
    }
    let label = "pod-security.kubernetes.io/enforce";
    let enforced = manifests
        .named("Namespace", "plue")
        .map(|space| &space["metadata"]["labels"][label]);
    if !manifests.pods.is_empty() && enforced.is_none_or(|level| level != "restricted") {
        wrong.push(format!(
            "no Namespace plue with {label}: restricted comes with the pods"
        ));
    }
    wrong
}

/// No pod is outside of gVisor.
pub fn gvisor(manifests: &Manifests) -> Vec<String> {
    let outside = manifests
        .pods
        .iter()
        .filter(|pod| pod.spec["runtimeClassName"] != "gvisor");
    outside
        .map(|pod| format!("{} is not in the runtime class gvisor", pod.owner))
        .collect()
}

/// The restricted profile, without the options that it leaves:
/// <https://kubernetes.io/docs/concepts/security/pod-security-standards/>.
pub fn restricted(manifests: &Manifests) -> Vec<String> {
    let mut wrong = Vec::new();
    for pod in &manifests.pods {
        let context = &pod.spec["securityContext"];
        let mut demand = |holds: bool, what: &str| {
            if !holds {
                wrong.push(format!("{}: {what}", pod.owner));
            }
        };
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            demand(absent_or_false(&pod.spec[field]), &format!("{field} is set"));
        }
        demand(context["runAsNonRoot"] == true, "runAsNonRoot is not set");
        demand(
            context["seccompProfile"]["type"] == "RuntimeDefault",
            "the seccomp profile is not RuntimeDefault",
        );
        for user in ["runAsUser", "runAsGroup", "fsGroup"] {
            demand(context[user] == USER, &format!("{user} is not the image's, {USER}"));
        }
        demand(
            has_only(
                context,
                &["runAsNonRoot", "runAsUser", "runAsGroup", "fsGroup", "seccompProfile"],
            ),
            "its securityContext has more than these tests understand",
        );
        for container in pod.containers() {
            let name = container["name"].as_str().unwrap_or("?");
            let context = &container["securityContext"];
            demand(
                context["allowPrivilegeEscalation"] == false,
                &format!("{name}: allowPrivilegeEscalation is not false"),
            );
            demand(
                context["capabilities"] == serde_json::json!({"drop": ["ALL"]}),
                &format!("{name}: capabilities are not just drop: [ALL]"),
            );
            demand(
                has_only(
                    context,
                    &["allowPrivilegeEscalation", "capabilities", "readOnlyRootFilesystem"],
                ),
                &format!("{name}: its securityContext has more than these tests understand"),
            );
            demand(
                list(&container["ports"]).is_empty() || !pod.is_runner(),
                &format!("{name}: opens a port"),
            );
        }
    }
    wrong
}

/// What the restricted profile does not ask for, and we do.
pub fn hardened(manifests: &Manifests) -> Vec<String> {
    let mut wrong = Vec::new();
    for pod in &manifests.pods {
        for field in ["automountServiceAccountToken", "enableServiceLinks"] {
            if pod.spec[field] != false {
                wrong.push(format!("{}: {field} is not false", pod.owner));
            }
        }
        for container in pod.containers() {
            if container["securityContext"]["readOnlyRootFilesystem"] != true {
                wrong.push(format!(
                    "{}: the root of {} can be written",
                    pod.owner, container["name"]
                ));
            }
        }
    }
    wrong
}

/// Volumes are the pod's own and bounded, or ConfigMaps, or a runner's Secret ([`super::settings`]). That leaves out
/// the node's files and tokens of service accounts.
pub fn volumes(manifests: &Manifests) -> Vec<String> {
    let mut wrong = Vec::new();
    for pod in &manifests.pods {
        for volume in list(&pod.spec["volumes"]) {
            let limit = quantity(&volume["emptyDir"]["sizeLimit"]);
            // One in memory would count as the container's.
            let on_disk = volume["emptyDir"]["medium"].is_null();
            let bounded = has_only(volume, &["name", "emptyDir"]) && limit.is_some() && on_disk;
            let of_runner = pod.is_runner() && has_only(volume, &["name", "secret"]);
            if !bounded && !of_runner && !has_only(volume, &["name", "configMap"]) {
                wrong.push(format!(
                    "{}: volume {} is no bounded emptyDir, no configMap, and no runner's secret",
                    pod.owner, volume["name"]
                ));
            }
        }
        let room: u64 = list(&pod.spec["volumes"])
            .iter()
            .filter_map(|one| quantity(&one["emptyDir"]["sizeLimit"]))
            .sum();
        let limit = pod
            .containers()
            .filter_map(|one| quantity(&one["resources"]["limits"]["ephemeral-storage"]))
            .sum();
        if room > limit {
            wrong.push(format!(
                "{}: its volumes may hold {room} bytes, and it may use {limit}",
                pod.owner
            ));
        }
    }
    wrong
}

/// What a pod asks for and may take is said of processor, memory and disk.
pub fn resources(manifests: &Manifests) -> Vec<String> {
    let mut wrong = Vec::new();
    for pod in &manifests.pods {
        for container in pod.containers() {
            for bound in ["requests", "limits"] {
                for resource in ["cpu", "memory", "ephemeral-storage"] {
                    if !container["resources"][bound][resource].is_string() {
                        wrong.push(format!(
                            "{}: {} has no {bound} of {resource}",
                            pod.owner, container["name"]
                        ));
                    }
                }
            }
        }
    }
    wrong
}

/// What makes a pod a runner: its label, one container named `runner`, a mounted workspace (only a mount is ever
/// emptied) and a /tmp with room for the spool.
pub fn runner(manifests: &Manifests) -> Vec<String> {
    let mut wrong = Vec::new();
    for pod in manifests.runners() {
        let mut demand = |holds: bool, what: &str| {
            if !holds {
                wrong.push(format!("{}: {what}", pod.owner));
            }
        };
        demand(
            pod.labels[LABEL.0] == LABEL.1,
            "a runner without the label that the network policies select by",
        );
        let containers: Vec<&Value> = pod.containers().map(|one| &one["name"]).collect();
        demand(containers == ["runner"], "its containers are not just `runner`");
        let mut size = |name| {
            let set = manifests.environment(pod).remove(name).map(Value::from);
            let size = set.as_ref().and_then(quantity);
            demand(size.is_some(), &format!("{name} is not set"));
            size
        };
        let both = size("SPOOL_SIZE")
            .zip(size("COMMAND_TMP_SIZE"))
            .map(|(one, other)| one + other);
        demand(
            room_at(pod, "/tmp") > both,
            "the volume at /tmp has no room for SPOOL_SIZE and COMMAND_TMP_SIZE",
        );
        demand(
            room_at(pod, "/workspace").is_some(),
            "no volume is mounted at /workspace",
        );
    }
    wrong
}

/// The size of the emptyDir that is mounted at a place.
fn room_at(pod: &Pod, place: &str) -> Option<u64> {
    let mut mounts = pod.containers().flat_map(|one| list(&one["volumeMounts"]));
    let mount = mounts.find(|mount| mount["mountPath"] == place)?;
    let volume = list(&pod.spec["volumes"])
        .iter()
        .find(|volume| volume["name"] == mount["name"])?;
    quantity(&volume["emptyDir"]["sizeLimit"])
}

fn absent_or_false(value: &Value) -> bool {
    value.is_null() || value == false
}

/// Whether all keys are among these.
pub fn has_only(value: &Value, keys: &[&str]) -> bool {
    value
        .as_object()
        .is_some_and(|fields| fields.keys().all(|key| keys.contains(&key.as_str())))
}
