//! What we promise of everything in `deploy/`: one table, [`POLICIES`]. Each has a test that breaks a manifest in the
//! way that it forbids.

#[cfg(test)]
mod breaks;
mod network;
mod pod;
mod pool;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};

/// One promise.
pub struct Policy {
    /// Begins each complaint.
    pub name: &'static str,
    /// Gives what breaks it.
    check: fn(&Manifests) -> Vec<String>,
}

/// All of them.
pub const POLICIES: [Policy; 18] = [
    Policy {
        name: "namespace",
        check: pod::namespace,
    },
    Policy {
        name: "gvisor",
        check: pod::gvisor,
    },
    Policy {
        name: "restricted",
        check: pod::restricted,
    },
    Policy {
        name: "hardened",
        check: pod::hardened,
    },
    Policy {
        name: "volumes",
        check: pod::volumes,
    },
    Policy {
        name: "resources",
        check: pod::resources,
    },
    Policy {
        name: "runner",
        check: pod::runner,
    },
    Policy {
        name: "selected",
        check: network::selected,
    },
    Policy {
        name: "no ingress",
        check: network::no_ingress,
    },
    Policy {
        name: "egress",
        check: network::egress,
    },
    Policy {
        name: "ways",
        check: network::ways,
    },
    Policy {
        name: "secrets",
        check: settings::secrets,
    },
    Policy {
        name: "variables",
        check: settings::variables,
    },
    Policy {
        name: "references",
        check: settings::references,
    },
    Policy {
        name: "grace",
        check: pool::grace,
    },
    Policy {
        name: "standby",
        check: pool::standby,
    },
    Policy {
        name: "pool",
        check: pool::pool,
    },
    Policy {
        name: "agent-sandbox",
        check: pool::agent_sandbox,
    },
];

/// What is checked.
pub struct Manifests<'a> {
    /// All that is applied together.
    objects: &'a [Value],
    /// The pods in them.
    pods: Vec<Pod<'a>>,
    /// The variables that the runner knows.
    variables: &'a [String],
}

impl<'a> Manifests<'a> {
    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    fn runners(&self) -> impl Iterator<Item = &Pod<'a>> {
        self.pods.iter().filter(|pod| pod.is_runner())
    }

    /// The object of this kind and name.
    fn named(&self, kind: &str, name: &str) -> Option<&'a Value> {
        self.of_kind(kind).find(|object| object["metadata"]["name"] == name)
    }

    /// The variables that the runner in a pod gets as text, from its ConfigMaps and by itself.
    fn environment(&self, pod: &Pod) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for container in pod.containers() {
            for source in list(&container["envFrom"]) {
                let name = source["configMapRef"]["name"].as_str().unwrap_or_default();
                let data = self.named("ConfigMap", name).map(|map| &map["data"]);
                all.extend(data.and_then(Value::as_object).into_iter().flatten().map(text));
            }
            let own = list(&container["env"]).iter();
            all.extend(
                own.filter_map(|one| Some((one["name"].as_str()?.to_owned(), one["value"].as_str()?.to_owned()))),
            );
        }
        all
    }
}

fn text((name, value): (&String, &Value)) -> (String, String) {
    (name.clone(), value.as_str().unwrap_or_default().to_owned())
}

/// A pod, or what becomes one.
pub struct Pod<'a> {
    /// Whose: `Deployment/plue-runner`.
    pub owner: String,
    pub namespace: &'a str,
    pub labels: &'a Value,
    pub spec: &'a Value,
}

/// The label that makes a pod a runner's, for the network policies too.
const LABEL: (&str, &str) = ("app.kubernetes.io/name", "plue-runner");

impl<'a> Pod<'a> {
    /// Whether the runner runs in it. By the container too, so that one without the label is not overlooked.
    fn is_runner(&self) -> bool {
        self.labels[LABEL.0] == LABEL.1 || self.containers().any(|container| container["name"] == "runner")
    }

    /// All containers of every kind.
    fn containers(&self) -> impl Iterator<Item = &'a Value> {
        let spec = self.spec;
        ["containers", "initContainers", "ephemeralContainers"]
            .into_iter()
            .flat_map(move |kind| list(&spec[kind]))
    }
}

/// Every pod in some objects, whatever kind it is in: a `spec` with `containers`, and the `metadata` beside it.
pub fn pods(objects: &[Value]) -> Vec<Pod<'_>> {
    let mut found = Vec::new();
    for object in objects {
        let owner = named(object);
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        let mut waiting = vec![object];
        while let Some(value) = waiting.pop() {
            if value["spec"]["containers"].is_array() {
                found.push(Pod {
                    owner: owner.clone(),
                    namespace,
                    labels: &value["metadata"]["labels"],
                    spec: &value["spec"],
                });
            }
            match value {
                Value::Object(fields) => waiting.extend(fields.values()),
                Value::Array(items) => waiting.extend(items),
                _ => {}
            }
        }
    }
    found
}

/// All that breaks a promise.
pub fn check(objects: &[Value], variables: &[String]) -> Vec<String> {
    let manifests = Manifests {
        objects,
        pods: pods(objects),
        variables,
    };
    let complaints = |policy: &Policy| -> Vec<String> {
        let found = (policy.check)(&manifests);
        found
            .into_iter()
            .map(|complaint| format!("{}: {complaint}", policy.name))
            .collect()
    };
    POLICIES.iter().flat_map(complaints).collect()
}

/// The reference of the variables. It is written from the runner's own table, and a test says when it is not; xtask
/// reads it, since depending on the runner would have it compile wasmtime.
const REFERENCE: &str = "docs/reference/environment.md";

/// The variables that the runner knows.
pub fn variables(root: &Path) -> Result<Vec<String>> {
    let path = root.join(REFERENCE);
    let text = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
    let found = names_in_table(&text);
    ensure!(!found.is_empty(), "{} has no table of variables", path.display());
    Ok(found)
}

fn names_in_table(text: &str) -> Vec<String> {
    let table = text
        .split("<!-- table: variables -->")
        .nth(1)
        .and_then(|rest| rest.split("<!-- end -->").next());
    let rows = table.unwrap_or_default().lines();
    let name = |row: &str| row.strip_prefix("| `")?.split('`').next().map(str::to_owned);
    rows.filter_map(name).collect()
}

/// An object, for a complaint.
fn named(object: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!("{}/{}", word(&object["kind"]), word(&object["metadata"]["name"]))
}

/// A list; what is none is empty.
fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Whether a selector takes these labels. Ours have `matchLabels` only, so one with more takes nothing: a policy that
/// we cannot read does not count.
fn selects(selector: &Value, labels: &Value) -> bool {
    let Some(fields) = selector.as_object() else {
        return false;
    };
    let none = Map::new();
    let wanted = fields.get("matchLabels").and_then(Value::as_object).unwrap_or(&none);
    fields.keys().all(|key| key == "matchLabels") && wanted.iter().all(|(name, value)| labels[name] == *value)
}

/// A quantity of Kubernetes in bytes, or in whatever it counts.
fn quantity(value: &Value) -> Option<u64> {
    let text = value.as_str()?;
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}
