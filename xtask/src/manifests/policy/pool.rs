//! How pods begin and end, and how many there are.

use serde_json::{Value, json};

use super::{Manifests, list, named, selects};

/// How long a runner that hangs may still be given.
const MAX_FOR_THE_HUNG: u64 = 60;

/// The metric of the API server that the pool's size follows.
const METRIC: &str = "plue_runners_wanted";

/// A pod is given the time that its ending takes.
pub fn grace(manifests: &Manifests) -> Vec<String> {
    let mut wrong = Vec::new();
    for pod in manifests.runners() {
        let environment = manifests.environment(pod);
        let seconds = |name: &str| environment.get(name).and_then(|text| text.parse::<u64>().ok());
        let (Some(shutdown), Some(flush)) = (seconds("SHUTDOWN_GRACE"), seconds("FLUSH_TIMEOUT")) else {
            wrong.push(format!("{}: SHUTDOWN_GRACE or FLUSH_TIMEOUT is not set", pod.owner));
            continue;
        };
        let given = pod.spec["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
        // An active runner is told to stop, and stops. A standby one ends its task, however long that may be, and tells
        // all of it before.
        let taken = if environment.get("MODE").is_some_and(|mode| mode == "standby") {
            flush + shutdown
        } else {
            shutdown
        };
        if given <= taken {
            wrong.push(format!("{}: {given} s are given for what takes {taken} s", pod.owner));
        }
    }
    for job in manifests.of_kind("Job") {
        let spec = &job["spec"];
        if spec["backoffLimit"] != 0 || spec.pointer("/template/spec/restartPolicy") != Some(&json!("Never")) {
            wrong.push(format!("{} runs its task again when it fails", named(job)));
        }
        if !spec["activeDeadlineSeconds"].is_u64() || !spec["ttlSecondsAfterFinished"].is_u64() {
            wrong.push(format!("{} may run, or be kept, for ever", named(job)));
        }
    }
    wrong
}

/// A runner that waits for tasks is probed without a port, and drained before it is stopped.
pub fn standby(manifests: &Manifests) -> Vec<String> {
    let mut wrong = Vec::new();
    for pod in manifests.runners() {
        if manifests
            .environment(pod)
            .get("MODE")
            .is_none_or(|mode| mode != "standby")
        {
            continue;
        }
        for container in pod.containers() {
            let hook = container.pointer("/lifecycle/preStop/exec/command");
            if !hook.is_some_and(|hook| leaves_time(hook, pod.spec, manifests.environment(pod).get("SHUTDOWN_GRACE"))) {
                wrong.push(format!(
                    "{}: its preStop hook is not `plue-runner drain --at-most SECONDS` with SHUTDOWN_GRACE left after \
                        it",
                    pod.owner
                ));
            }
            // A runner that hangs ends by no hook; without this it has as long as the longest task.
            for probe in ["livenessProbe", "startupProbe"] {
                let given = container[probe]["terminationGracePeriodSeconds"].as_u64();
                if given.is_none_or(|given| given > MAX_FOR_THE_HUNG) {
                    wrong.push(format!(
                        "{}: a runner that hangs is given too long ({probe})",
                        pod.owner
                    ));
                }
            }
            for (field, command) in [
                ("/startupProbe", json!(["plue-runner", "health"])),
                ("/readinessProbe", json!(["plue-runner", "health", "--ready"])),
                ("/livenessProbe", json!(["plue-runner", "health"])),
            ] {
                let found = container.pointer(field).map(|hook| &hook["exec"]["command"]);
                if found != Some(&command) {
                    wrong.push(format!("{}: its {field} does not run {command}", pod.owner));
                }
            }
        }
    }
    wrong
}

/// Whether a hook drains, and ends so long before the pod's time does that SIGTERM's ending fits in.
fn leaves_time(hook: &Value, spec: &Value, shutdown: Option<&String>) -> bool {
    let [program, command, option, seconds] = list(hook) else {
        return false;
    };
    let seconds = seconds.as_str().and_then(|seconds| seconds.parse::<u64>().ok());
    let shutdown = shutdown.and_then(|seconds| seconds.parse::<u64>().ok());
    let (Some(seconds), Some(shutdown)) = (seconds, shutdown) else {
        return false;
    };
    let drains = (program.as_str(), command.as_str(), option.as_str())
        == (Some("plue-runner"), Some("drain"), Some("--at-most"));
    drains && seconds + shutdown < spec["terminationGracePeriodSeconds"].as_u64().unwrap_or(30)
}

/// A pool has its size from the API server, or from its manifest; it never shrinks to be updated, and a budget holds
/// it.
pub fn pool(manifests: &Manifests) -> Vec<String> {
    let mut wrong = Vec::new();
    let runners = |deployment: &&Value| {
        let owner = named(deployment);
        manifests.runners().any(|pod| pod.owner == owner)
    };
    for deployment in manifests.of_kind("Deployment").filter(runners) {
        let (owner, spec) = (named(deployment), &deployment["spec"]);
        let labels = &spec["template"]["metadata"]["labels"];
        let mut demand = |holds: bool, what: &str| {
            if !holds {
                wrong.push(format!("{owner}: {what}"));
            }
        };
        let scales = |scaler: &&Value| scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"];
        let scalers: Vec<&Value> = manifests.of_kind("HorizontalPodAutoscaler").filter(scales).collect();
        demand(
            spec["replicas"].is_null() != scalers.is_empty(),
            "its size is said twice, or by nobody",
        );
        for scaler in scalers {
            let [metric] = list(&scaler["spec"]["metrics"]) else {
                demand(false, "its size does not follow one metric");
                continue;
            };
            demand(
                metric["external"]["metric"]["name"] == METRIC,
                &format!("its size does not follow {METRIC}"),
            );
            demand(
                metric["external"]["target"] == json!({"type": "AverageValue", "averageValue": "1"}),
                "its size is not one runner for each that is wanted",
            );
        }
        let rolling = &spec["strategy"]["rollingUpdate"];
        demand(rolling["maxUnavailable"] == 0, "an update makes the pool smaller");
        let mut budgets = manifests.of_kind("PodDisruptionBudget");
        demand(
            budgets.any(|budget| selects(&budget["spec"]["selector"], labels)),
            "no disruption budget selects its pods",
        );
        demand(
            selects(&spec["selector"], labels),
            "its selector does not select its own pods",
        );
    }
    wrong
}

/// A sandbox has our policies and no others, and nothing that a claim adds.
pub fn agent_sandbox(manifests: &Manifests) -> Vec<String> {
    let mut wrong = Vec::new();
    for template in manifests.of_kind("SandboxTemplate") {
        for (field, value) in [
            ("networkPolicyManagement", json!("Unmanaged")),
            ("envVarsInjectionPolicy", json!("Disallowed")),
            ("volumeClaimTemplatesPolicy", json!("Disallowed")),
            ("service", json!(false)),
        ] {
            if template["spec"][field] != value {
                wrong.push(format!("{}: {field} is not {value}", named(template)));
            }
        }
    }
    for (kind, field, target) in [
        ("SandboxWarmPool", "sandboxTemplateRef", "SandboxTemplate"),
        ("SandboxClaim", "warmPoolRef", "SandboxWarmPool"),
    ] {
        for object in manifests.of_kind(kind) {
            let name = object["spec"][field]["name"].as_str().unwrap_or_default();
            if manifests.named(target, name).is_none() {
                wrong.push(format!("{}: there is no {target} {name:?}", named(object)));
            }
        }
    }
    wrong
}
