//! How a manifest may be wrong: at least one way for each policy.

use serde_json::{Value, json};

const RUNNER: &str = "Deployment/plue-runner";

/// A way to break the manifests: the policy that must notice, the object, the path in it, and what is put there. `null`
/// takes away; `+` at a path's end adds to a list.
pub type Break = (&'static str, &'static str, &'static str, Value);

/// The spec of the warm pool's pod, and its container.
const SPEC: &str = "/spec/template/spec";
const CONTAINER: &str = "/spec/template/spec/containers/0";

pub fn breaks() -> Vec<Break> {
    let of = |base: &str, path: &str| -> &'static str { Box::leak(format!("{base}{path}").into_boxed_str()) };
    let pod = |path| of(SPEC, path);
    let container = |path| of(CONTAINER, path);
    let context = |path| of(CONTAINER, &format!("/securityContext{path}"));
    let model = "NetworkPolicy/plue-runner-model";
    let settings = "ConfigMap/plue-runner";
    let grown = json!({"name": "x", "emptyDir": {"sizeLimit": "9Gi"}});
    vec![
        ("namespace", RUNNER, "/metadata/namespace", json!("default")),
        (
            "namespace",
            "Namespace/plue",
            "/metadata/labels/pod-security.kubernetes.io~1enforce",
            json!("baseline"),
        ),
        ("gvisor", RUNNER, pod("/runtimeClassName"), Value::Null),
        ("gvisor", "Job/plue-runner-1", pod("/runtimeClassName"), json!("runc")),
        (
            "gvisor",
            "SandboxTemplate/plue-runner",
            "/spec/podTemplate/spec/runtimeClassName",
            Value::Null,
        ),
        ("restricted", RUNNER, pod("/hostNetwork"), json!(true)),
        ("restricted", RUNNER, pod("/hostPID"), json!(true)),
        ("restricted", RUNNER, pod("/hostIPC"), json!(true)),
        ("restricted", RUNNER, pod("/securityContext/runAsNonRoot"), json!(false)),
        ("restricted", RUNNER, pod("/securityContext/runAsUser"), json!(0)),
        ("restricted", RUNNER, pod("/securityContext/runAsUser"), json!(1000)),
        (
            "restricted",
            RUNNER,
            pod("/securityContext/seccompProfile/type"),
            json!("Unconfined"),
        ),
        ("restricted", RUNNER, pod("/securityContext/sysctls"), json!([])),
        ("restricted", RUNNER, context("/allowPrivilegeEscalation"), Value::Null),
        ("restricted", RUNNER, context("/privileged"), json!(true)),
        ("restricted", RUNNER, context("/runAsUser"), json!(0)),
        ("restricted", RUNNER, context("/capabilities/drop"), json!(["NET_RAW"])),
        ("restricted", RUNNER, context("/capabilities/add"), json!(["SYS_ADMIN"])),
        (
            "restricted",
            RUNNER,
            container("/ports"),
            json!([{"containerPort": 8080}]),
        ),
        ("hardened", RUNNER, pod("/automountServiceAccountToken"), Value::Null),
        ("hardened", RUNNER, pod("/enableServiceLinks"), json!(true)),
        ("hardened", RUNNER, context("/readOnlyRootFilesystem"), json!(false)),
        (
            "volumes",
            RUNNER,
            pod("/volumes/+"),
            json!({"name": "x", "hostPath": {"path": "/"}}),
        ),
        (
            "volumes",
            RUNNER,
            pod("/volumes/+"),
            json!({"name": "x", "projected": {"sources": []}}),
        ),
        (
            "volumes",
            RUNNER,
            pod("/volumes/+"),
            json!({"name": "x", "secret": {"secretName": "plue-runner"}, "emptyDir": {"sizeLimit": "1Gi"}}),
        ),
        (
            "secrets",
            RUNNER,
            pod("/volumes/+"),
            json!({"name": "x", "secret": {"secretName": "other", "defaultMode": 0o440}}),
        ),
        (
            "secrets",
            RUNNER,
            pod("/volumes/+"),
            json!({"name": "x", "secret": {"secretName": "plue-runner", "defaultMode": 0o444}}),
        ),
        ("secrets", RUNNER, container("/volumeMounts/2/readOnly"), Value::Null),
        (
            "secrets",
            RUNNER,
            container("/volumeMounts/2/mountPath"),
            json!("/etc/other"),
        ),
        (
            "secrets",
            settings,
            "/data/CALLBACK_TOKEN_FILE",
            json!("/run/secrets/plue/TOKEN"),
        ),
        ("volumes", RUNNER, pod("/volumes/0/emptyDir/sizeLimit"), Value::Null),
        ("volumes", RUNNER, pod("/volumes/0/emptyDir/medium"), json!("Memory")),
        ("volumes", RUNNER, pod("/volumes/+"), grown),
        ("resources", RUNNER, container("/resources/limits/memory"), Value::Null),
        (
            "resources",
            RUNNER,
            container("/resources/requests/ephemeral-storage"),
            Value::Null,
        ),
        (
            "runner",
            RUNNER,
            "/spec/template/metadata/labels/app.kubernetes.io~1name",
            json!("runner"),
        ),
        ("runner", RUNNER, pod("/initContainers"), json!([{"name": "setup"}])),
        ("runner", RUNNER, container("/volumeMounts/0/mountPath"), json!("/work")),
        ("runner", settings, "/data/SPOOL_SIZE", json!("4Gi")),
        ("runner", settings, "/data/COMMAND_TMP_SIZE", json!("8Gi")),
        (
            "selected",
            "NetworkPolicy/plue-runner",
            "/spec/policyTypes",
            json!(["Ingress"]),
        ),
        (
            "selected",
            "NetworkPolicy/plue-runner",
            "/spec/podSelector/matchLabels/tier",
            json!("cold"),
        ),
        (
            "selected",
            "NetworkPolicy/plue-runner",
            "/metadata/namespace",
            json!("other"),
        ),
        ("no ingress", "NetworkPolicy/plue-runner", "/spec/ingress/+", json!({})),
        ("egress", model, "/spec/egress/0/to", Value::Null),
        ("egress", model, "/spec/egress/0/to/0/ipBlock/cidr", json!("0.0.0.0/0")),
        ("egress", model, "/spec/egress/0/to/2/ipBlock/cidr", json!("::/0")),
        ("egress", model, "/spec/egress/0/ports", Value::Null),
        ("egress", model, "/spec/egress/0/ports/0/endPort", json!(65535)),
        (
            "egress",
            "NetworkPolicy/plue-runner-api",
            "/spec/egress/0/to/0/podSelector",
            json!({}),
        ),
        (
            "egress",
            "NetworkPolicy/plue-runner-api",
            "/spec/egress/0/to/0/namespaceSelector",
            json!({}),
        ),
        (
            "egress",
            "NetworkPolicy/plue-runner-api",
            "/spec/egress/0/to/+",
            json!({"podSelector": {"matchLabels": {"app": "other"}}}),
        ),
        ("egress", model, "/spec/egress/0/ports/+", json!({"port": 80})),
        (
            "egress",
            "NetworkPolicy/plue-runner-dns",
            "/spec/egress/0/ports/+",
            json!({"port": 443}),
        ),
        (
            "egress",
            "NetworkPolicy/plue-runner-dns",
            "/spec/egress/0/to/+",
            json!({"ipBlock": {"cidr": "8.8.0.0/16"}}),
        ),
        ("ways", model, "/spec/egress/0/ports/0/port", json!(53)),
        (
            "ways",
            model,
            "/spec/egress/+",
            json!({"to": [], "ports": [{"port": 80}]}),
        ),
        (
            "secrets",
            RUNNER,
            container("/env/+"),
            json!({"name": "ANTHROPIC_API_KEY", "value": "x"}),
        ),
        (
            "secrets",
            RUNNER,
            container("/env/+"),
            json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": "b"}}}),
        ),
        ("secrets", settings, "/data/CALLBACK_TOKEN", json!("x")),
        ("secrets", settings, "/data/HTTPS_PROXY", json!("http://u:p@proxy:3128")),
        ("secrets", settings, "/data/HTTPS_PROXY_FILE", json!("/etc/proxy")),
        ("secrets", settings, "/data/LOG_LEVEL", json!("sk-ant-api03-x")),
        ("secrets", "ServiceAccount/plue-runner", "/kind", json!("Secret")),
        ("variables", settings, "/data/LOGLEVEL", json!("INFO")),
        ("variables", settings, "/data/REGISTER_URL", Value::Null),
        (
            "variables",
            RUNNER,
            container("/env/+"),
            json!({"name": "POD", "valueFrom": {}}),
        ),
        (
            "variables",
            "Job/plue-runner-1",
            container("/env/1/name"),
            json!("TASK"),
        ),
        (
            "references",
            "ConfigMap/plue-runner",
            "/metadata/name",
            json!("settings"),
        ),
        (
            "references",
            RUNNER,
            container("/envFrom/+"),
            json!({"secretRef": {"name": "plue-runner"}}),
        ),
        ("references", RUNNER, pod("/serviceAccountName"), Value::Null),
        (
            "references",
            "ServiceAccount/plue-runner",
            "/automountServiceAccountToken",
            Value::Null,
        ),
        ("references", "ConfigMap/plue-task", "/data/task.json", Value::Null),
        (
            "grace",
            "Job/plue-runner-1",
            pod("/terminationGracePeriodSeconds"),
            json!(25),
        ),
        ("grace", RUNNER, pod("/terminationGracePeriodSeconds"), json!(625)),
        ("grace", settings, "/data/SHUTDOWN_GRACE", json!("60")),
        ("grace", "Job/plue-runner-1", "/spec/backoffLimit", json!(1)),
        ("grace", "Job/plue-runner-1", pod("/restartPolicy"), json!("OnFailure")),
        ("grace", "Job/plue-runner-1", "/spec/activeDeadlineSeconds", Value::Null),
        (
            "standby",
            RUNNER,
            container("/lifecycle/preStop/exec/command"),
            json!(["sleep", "5"]),
        ),
        (
            "standby",
            RUNNER,
            container("/lifecycle/preStop/exec/command"),
            json!(["plue-runner", "drain", "--at-most", "4240"]),
        ),
        (
            "standby",
            RUNNER,
            container("/readinessProbe"),
            json!({"httpGet": {"port": 8080}}),
        ),
        ("standby", RUNNER, container("/livenessProbe"), Value::Null),
        (
            "standby",
            RUNNER,
            container("/livenessProbe/terminationGracePeriodSeconds"),
            Value::Null,
        ),
        ("pool", RUNNER, "/spec/replicas", json!(3)),
        (
            "pool",
            "HorizontalPodAutoscaler/plue-runner",
            "/spec/scaleTargetRef/name",
            json!("other"),
        ),
        (
            "pool",
            "HorizontalPodAutoscaler/plue-runner",
            "/spec/metrics/0",
            json!({"type": "Resource"}),
        ),
        (
            "pool",
            "HorizontalPodAutoscaler/plue-runner",
            "/spec/metrics/+",
            json!({}),
        ),
        (
            "pool",
            RUNNER,
            "/spec/strategy/rollingUpdate/maxUnavailable",
            Value::Null,
        ),
        (
            "pool",
            "PodDisruptionBudget/plue-runner",
            "/spec/selector/matchLabels/app",
            json!("x"),
        ),
        (
            "agent-sandbox",
            "SandboxTemplate/plue-runner",
            "/spec/networkPolicyManagement",
            Value::Null,
        ),
        (
            "agent-sandbox",
            "SandboxTemplate/plue-runner",
            "/spec/envVarsInjectionPolicy",
            json!("Overrides"),
        ),
        (
            "agent-sandbox",
            "SandboxTemplate/plue-runner",
            "/spec/service",
            json!(true),
        ),
        (
            "agent-sandbox",
            "SandboxClaim/plue-task-1",
            "/spec/warmPoolRef/name",
            json!("other"),
        ),
    ]
}
