//! Each policy, and a manifest that it is needed for. The manifests are those of `deploy/`, read without kustomize, so
//! that these tests need no kubectl.

use serde_json::{Value, json};

use super::breaks::{Break, breaks};
use super::*;
use crate::manifests::render::documents;

/// A warm pool, a Job and a sandbox template with everything around them, in this order of kinds.
fn good() -> Vec<Value> {
    let files = [
        include_str!("../../../../deploy/base/namespace.yaml"),
        include_str!("../../../../deploy/base/service-account.yaml"),
        include_str!("../../../../deploy/base/network-policy.yaml"),
        include_str!("../../../../deploy/overlays/warm-pool/autoscaler.yaml"),
        include_str!("../../../../deploy/overlays/warm-pool/disruption-budget.yaml"),
        include_str!("../../../../deploy/overlays/warm-pool/deployment.yaml"),
        include_str!("../../../../deploy/overlays/job/job.yaml"),
        include_str!("../../../../deploy/overlays/agent-sandbox/sandbox-template.yaml"),
        include_str!("../../../../deploy/overlays/agent-sandbox/sandbox-warm-pool.yaml"),
        include_str!("../../../../deploy/overlays/agent-sandbox/sandbox-claim.yaml"),
    ];
    let mut objects: Vec<Value> = files.iter().flat_map(|text| documents(text).unwrap()).collect();
    let [pod] = &documents(include_str!("../../../../deploy/components/pod/pod.yaml")).unwrap()[..] else {
        unreachable!()
    };
    for kind in ["Deployment", "Job"] {
        let object = find(&mut objects, kind, None);
        merge(&mut object["spec"]["template"], &pod["spec"]["template"]);
    }
    let settings = include_str!("../../../../deploy/base/settings.env");
    let pairs = settings
        .lines()
        .filter_map(|line| line.split_once('=').filter(|_| !line.starts_with('#')));
    let data: Value = pairs.map(|(name, value)| (name.to_owned(), json!(value))).collect();
    objects.push(json!({"kind": "ConfigMap", "metadata": {"name": "plue-runner"}, "data": data}));
    objects.push(json!({"kind": "ConfigMap", "metadata": {"name": "plue-task"}, "data": {"task.json": "{}"}}));
    for object in &mut objects {
        if object["kind"] != "Namespace" {
            object["metadata"]["namespace"] = json!("plue");
        }
    }
    objects
}

/// Adds what is in another value, as kustomize does: elements of lists that have one name are one.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(from)) => {
            for value in from {
                match into
                    .iter_mut()
                    .find(|one| !value["name"].is_null() && one["name"] == value["name"])
                {
                    Some(same) => merge(same, value),
                    None => into.push(value.clone()),
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn find<'a>(objects: &'a mut [Value], kind: &str, name: Option<&str>) -> &'a mut Value {
    let fits =
        |object: &&mut Value| object["kind"] == kind && name.is_none_or(|name| object["metadata"]["name"] == name);
    objects.iter_mut().find(fits).unwrap()
}

fn known() -> Vec<String> {
    names_in_table(include_str!("../../../../docs/reference/environment.md"))
}

/// Breaks one object.
fn broken((_, object, path, value): &Break) -> Vec<Value> {
    let mut objects = good();
    let (kind, name) = object.split_once('/').unwrap();
    let (parent, last) = path.rsplit_once('/').unwrap();
    let last = last.replace("~1", "/");
    let parent = find(&mut objects, kind, Some(name)).pointer_mut(parent).unwrap();
    match parent {
        Value::Array(items) if last == "+" => items.push(value.clone()),
        Value::Array(items) => items[last.parse::<usize>().unwrap()] = value.clone(),
        Value::Object(fields) if value.is_null() => drop(fields.shift_remove(&last).unwrap()),
        Value::Object(fields) => drop(fields.insert(last, value.clone())),
        _ => unreachable!("{path}"),
    }
    objects
}

#[test]
fn what_is_in_deploy_breaks_no_policy() {
    let objects = good();
    assert_eq!(pods(&objects).len(), 3);
    assert_eq!(check(&objects, &known()), Vec::<String>::new());
}

#[test]
fn each_policy_notices_each_way_to_break_it() {
    let known = known();
    for one in breaks() {
        let (policy, object, path, value) = &one;
        let complaints = check(&broken(&one), &known);
        let noticed = complaints
            .iter()
            .any(|complaint| complaint.starts_with(&format!("{policy}: ")));
        assert!(
            noticed,
            "{policy} does not notice {value} at {path} of {object}: {complaints:?}"
        );
    }
}

#[test]
fn no_policy_is_without_a_way_to_break_it() {
    let breaks = breaks();
    for policy in POLICIES {
        assert!(breaks.iter().any(|(name, ..)| *name == policy.name), "{}", policy.name);
    }
}

/// The policies with Cilium's in place of those that it replaces, and one field of it changed.
fn with_cilium(path: &str, value: &Value) -> Vec<String> {
    let mut objects = good();
    objects.retain(|object| {
        !["plue-runner-model", "plue-runner-dns"]
            .iter()
            .any(|name| object["metadata"]["name"] == *name)
    });
    let text = include_str!("../../../../deploy/components/cilium/cilium-network-policy.yaml");
    objects.extend(documents(text).unwrap());
    if !path.is_empty() {
        *find(&mut objects, "CiliumNetworkPolicy", None)
            .pointer_mut(path)
            .unwrap() = value.clone();
    }
    check(&objects, &known())
}

#[test]
fn the_policy_of_cilium_is_read_too() {
    assert_eq!(with_cilium("", &Value::Null), Vec::<String>::new());
    let anything = json!([{"matchPattern": "*"}]);
    let other = json!("example.com");
    for (policy, path, value) in [
        ("egress", "/spec/egress/0/toPorts/0/rules/dns", anything.clone()),
        ("egress", "/spec/egress/0/toPorts/0/rules", json!({})),
        ("egress", "/spec/egress/0/toEndpoints", json!([{}])),
        ("egress", "/spec/egress/1/toFQDNs", anything),
        ("egress", "/spec/egress/1/toPorts", json!([])),
        ("egress", "/spec/egress/1", json!({"toEntities": ["world"]})),
        ("ways", "/spec/egress/1/toFQDNs/0/matchName", other.clone()),
        ("ways", "/spec/egress/0/toPorts/0/rules/dns/0/matchName", other.clone()),
        ("ways", "/spec/egress/0/toPorts/0/rules/dns/1/matchName", other),
        ("ways", "/spec/endpointSelector/matchLabels", json!({"app": "other"})),
    ] {
        let complaints = with_cilium(path, &value);
        let noticed = complaints
            .iter()
            .any(|complaint| complaint.starts_with(&format!("{policy}: ")));
        assert!(noticed, "{policy} does not notice {value} at {path}: {complaints:?}");
    }
}

#[test]
fn quantities_are_read_as_kubernetes_writes_them() {
    for (text, bytes) in [
        ("8Gi", Some(8 << 30)),
        ("512Mi", Some(512 << 20)),
        ("7", Some(7)),
        ("1G", None),
        ("x", None),
    ] {
        assert_eq!(quantity(&json!(text)), bytes, "{text}");
    }
}
