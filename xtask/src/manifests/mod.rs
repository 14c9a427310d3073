//! `deploy/`: renders it as `kubectl apply -k` would, and holds what comes out against the schemas of Kubernetes
//! ([`schema`]) and against what we promise of every pod ([`policy`]).

mod kubectl;
mod policy;
mod render;
mod schema;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::layout::Layout;
use crate::process;

use policy::Pod;
use render::Rendered;
pub use render::render;

/// What an operator applies, below `deploy/`.
const FOLDERS: [&str; 7] = [
    "runtime-class",
    "overlays/job",
    "overlays/warm-pool",
    "overlays/agent-sandbox",
    "overlays/local",
    "example/job",
    "example/warm-pool",
];

/// What an operator adds to one of [`EXTENSIBLE`], in a kustomization of his own.
const COMPONENTS: [&str; 2] = ["components/cilium", "components/egress-proxy"];

/// The overlays that each of [`COMPONENTS`] fits.
const EXTENSIBLE: [&str; 3] = ["overlays/job", "overlays/warm-pool", "overlays/agent-sandbox"];

/// What others are made of, and nobody applies.
const PARTS: [&str; 3] = ["base", "components/pod", "components/stand-in"];

/// The stage: all that is wrong, at once.
pub fn check(layout: &Layout) -> Result<()> {
    let deploy = layout.root.join("deploy");
    all_folders_are_known(&deploy)?;
    let mut rendered = Vec::new();
    for folder in FOLDERS {
        rendered.push(Rendered {
            name: folder.to_owned(),
            objects: render(layout, &deploy.join(folder))?,
        });
    }
    for overlay in EXTENSIBLE {
        for component in COMPONENTS {
            rendered.push(Rendered {
                name: format!("{overlay} with {component}"),
                objects: render(layout, &extended(layout, &deploy, overlay, component)?)?,
            });
        }
    }
    let variables = policy::variables(&layout.root)?;
    let mut wrong: Vec<String> = rendered
        .iter()
        .flat_map(|one| {
            let problems = policy::check(&one.objects, &variables);
            problems
                .into_iter()
                .map(move |problem| format!("{}: {problem}", one.name))
        })
        .collect();
    wrong.extend(pods_that_differ(&rendered));
    wrong.extend(schema::check(layout, &rendered)?);
    if !wrong.is_empty() {
        bail!("{} problems in deploy/:\n{}", wrong.len(), wrong.join("\n"));
    }
    let objects: usize = rendered.iter().map(|one| one.objects.len()).sum();
    process::note(&format!(
        "{objects} objects of {} kustomizations hold {} policies and the schemas of Kubernetes {}",
        rendered.len(),
        policy::POLICIES.len(),
        schema::VERSIONS.join(", ")
    ));
    Ok(())
}

/// A folder that no list above names would be checked by nobody.
fn all_folders_are_known(deploy: &Path) -> Result<()> {
    let known = || FOLDERS.iter().chain(&COMPONENTS).chain(&PARTS);
    let mut unknown = Vec::new();
    let mut waiting = vec![deploy.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("could not read the folder {}", folder.display()))? {
            let path = entry
                .with_context(|| format!("could not read the folder {}", folder.display()))?
                .path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.ends_with("kustomization.yaml") && !known().any(|name| folder.ends_with(name)) {
                unknown.push(folder.display().to_string());
            }
        }
    }
    ensure!(
        unknown.is_empty(),
        "xtask/src/manifests/mod.rs does not know {}, so that nothing of it is tested",
        unknown.join(", ")
    );
    Ok(())
}

/// Makes the kustomization that an operator would write to add a component to an overlay.
fn extended(layout: &Layout, deploy: &Path, overlay: &str, component: &str) -> Result<PathBuf> {
    let home = layout
        .target
        .join("xtask/kustomizations")
        .join(format!("{overlay}+{component}").replace('/', "-"));
    fs::create_dir_all(&home).with_context(|| format!("could not make the folder {}", home.display()))?;
    // kustomize takes only relative paths, and sees through links.
    let home = home.canonicalize().context("could not find the folder just made")?;
    let deploy = deploy.canonicalize().context("there is no folder deploy")?;
    let up = "../".repeat(home.components().count() - 1);
    let there = |folder: &str| {
        let place = deploy.join(folder);
        format!("{up}{}", place.display().to_string().trim_start_matches('/'))
    };
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [there(overlay)],
        "components": [there(component)],
    });
    let file = home.join("kustomization.yaml");
    fs::write(&file, kustomization.to_string()).with_context(|| format!("could not write {}", file.display()))?;
    Ok(home)
}

/// The pod of the sandbox template is the warm pool's, written out. Only what makes it a sandbox may differ.
fn pods_that_differ(rendered: &[Rendered]) -> Vec<String> {
    let pod = |name: &str| {
        let objects = rendered.iter().find(|one| one.name == name).map(|one| &one.objects);
        let pods = objects.map(|objects| policy::pods(objects)).unwrap_or_default();
        pods.first().map(|pod| comparable(pod))
    };
    match (pod("overlays/warm-pool"), pod("overlays/agent-sandbox")) {
        (Some(pool), Some(sandbox)) if pool == sandbox => Vec::new(),
        (Some(pool), Some(sandbox)) => vec![format!(
            "the pods of overlays/warm-pool and overlays/agent-sandbox differ in {}",
            differences(&pool, &sandbox).join(", ")
        )],
        _ => vec!["overlays/warm-pool or overlays/agent-sandbox has no pod".to_owned()],
    }
}

/// A pod without what is its own in a pool or in a sandbox.
fn comparable(pod: &Pod) -> Value {
    let mut spec = pod.spec.clone();
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("restartPolicy");
        spec.remove("topologySpreadConstraints");
    }
    let env = spec.pointer_mut("/containers/0/env").and_then(Value::as_array_mut);
    if let Some(env) = env {
        env.retain(|one| {
            !["STANDBY_MAX_TASKS", "RUNNER_LABELS"]
                .iter()
                .any(|own| one["name"] == *own)
        });
        env.sort_by_key(|one| one["name"].to_string());
    }
    spec
}

/// The fields in which two values differ, as paths, down to the smallest.
fn differences(one: &Value, other: &Value) -> Vec<String> {
    let below = |key: &str, one: &Value, other: &Value| -> Vec<String> {
        let inner = differences(one, other);
        inner.into_iter().map(|path| format!("/{key}{path}")).collect()
    };
    match (one, other) {
        _ if one == other => Vec::new(),
        (Value::Object(left), Value::Object(right)) => {
            let mut keys: Vec<&String> = left.keys().chain(right.keys()).collect();
            keys.sort();
            keys.dedup();
            keys.into_iter()
                .flat_map(|key| below(key, &one[key], &other[key]))
                .collect()
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => (0..left.len())
            .flat_map(|index| below(&index.to_string(), &left[index], &right[index]))
            .collect(),
        _ => vec![String::new()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_drifts_from_the_warm_pools_is_named_by_its_field() {
        let template = |memory: &str, extra: Value| {
            json!({"kind": "SandboxTemplate", "metadata": {"name": "x"}, "spec": {"podTemplate": {"spec": {
                "restartPolicy": extra,
                "containers": [{"name": "runner", "resources": {"memory": memory}}],
            }}}})
        };
        let rendered = |memory| {
            [
                Rendered {
                    name: "overlays/warm-pool".to_owned(),
                    objects: vec![template("1Gi", json!("Always"))],
                },
                Rendered {
                    name: "overlays/agent-sandbox".to_owned(),
                    objects: vec![template(memory, json!("Never"))],
                },
            ]
        };
        assert_eq!(pods_that_differ(&rendered("1Gi")), Vec::<String>::new());
        let [problem] = &pods_that_differ(&rendered("2Gi"))[..] else {
            unreachable!()
        };
        assert!(
            problem.ends_with("differ in /containers/0/resources/memory"),
            "{problem}"
        );
    }
}
