//! Whether the API server of Kubernetes would take an object: each is held against the schemas of several versions, by
//! the package kubernetes-validate, which brings them along. Kinds of custom resources have a schema in `schemas.yaml`.

use std::env;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::policy;
use super::render::{Rendered, documents};

use crate::layout::Layout;
use crate::process::{self, Run};
use crate::python;

/// The versions of Kubernetes that we speak of. Its makers support 1.35 to 1.37 (November 2026); managed clusters have
/// two older ones too.
pub const VERSIONS: [&str; 5] = ["1.33", "1.34", "1.35", "1.36", "1.37"];

/// What is installed from PyPI.
const PACKAGES: [&str; 2] = ["kubernetes-validate==1.37.0", "jsonschema==4.26.0"];

/// Does the work; says one problem a line.
const PROGRAM: &str = include_str!("validate.py");

/// The kinds that Kubernetes does not bring along, as far as we use them.
const OURS: &str = include_str!("schemas.yaml");

/// A folder with more schemas: CustomResourceDefinitions as their makers publish them.
const MORE: &str = "PLUE_CRDS";

/// Where the objects are that must be refused.
const CANARY: &str = "canary";

/// What is wrong in each way that a schema must notice: a misspelt field of a kind of Kubernetes and of a custom
/// resource, and a kind that no schema covers. A validator that takes everything would please us for ever.
const CANARIES: [fn() -> Value; 3] = [
    || json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [], "hostNetwrk": true}}),
    || {
        json!({"apiVersion": "extensions.agents.x-k8s.io/v1beta1", "kind": "SandboxClaim", "metadata": {"name": "x"},
            "spec": {"warmPoolRef": {"name": "x"}, "warmpol": 1}})
    },
    || json!({"apiVersion": "example.org/v1", "kind": "Unknown", "metadata": {"name": "x"}}),
];

/// All that does not fit. Everything must be covered by a schema.
pub fn check(layout: &Layout, rendered: &[Rendered]) -> Result<Vec<String>> {
    let mut objects = Vec::new();
    for one in rendered {
        for object in &one.objects {
            objects.push(json!({"where": one.name, "object": object}));
        }
        objects.extend(pods_of_custom_resources(one));
    }
    objects.extend(CANARIES.map(|canary| json!({"where": CANARY, "object": canary()})));
    let mut customs = documents(OURS).context("schemas.yaml is no YAML")?;
    if let Some(folder) = env::var_os(MORE) {
        let theirs = definitions(Path::new(&folder))?;
        process::note(&format!("{} schemas of {MORE} are used too", theirs.len()));
        customs.extend(theirs);
    }
    let work = json!({"versions": VERSIONS, "customs": customs, "objects": objects});
    let (canaries, problems): (Vec<String>, _) = problems(layout, &work)?
        .into_iter()
        .partition(|problem| problem.starts_with(CANARY));
    for canary in CANARIES {
        let kind = format!("{CANARY}: {} ", canary()["kind"].as_str().unwrap_or_default());
        ensure!(
            canaries.iter().any(|problem| problem.starts_with(&kind)),
            "the validator takes what it must refuse: {}",
            canary()
        );
    }
    Ok(problems)
}

/// Schemas of custom resources leave the pod in them open, so it is checked as a pod.
fn pods_of_custom_resources(one: &Rendered) -> Vec<Value> {
    let customs = one.objects.iter().filter(|object| is_custom(object));
    let pods = customs.flat_map(|object| policy::pods(std::slice::from_ref(object)));
    pods.map(|pod| {
        json!({"where": format!("{}, in {}", one.name, pod.owner), "object": {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "pod", "labels": pod.labels},
            "spec": pod.spec,
        }})
    })
    .collect()
}

/// Kubernetes' own groups have no dot, or end in `.k8s.io` and are no project's beside it.
fn is_custom(object: &Value) -> bool {
    let group = object["apiVersion"]
        .as_str()
        .and_then(|version| version.split_once('/'));
    group.is_some_and(|(group, _)| group.contains('.') && (!group.ends_with(".k8s.io") || group.ends_with(".x-k8s.io")))
}

/// Runs the program on what it is to check.
fn problems(layout: &Layout, work: &Value) -> Result<Vec<String>> {
    let python = python::environment(layout, &PACKAGES)?;
    let home = layout.target.join("xtask/schemas");
    fs::create_dir_all(&home).with_context(|| format!("could not make the folder {}", home.display()))?;
    let [program, input] = ["validate.py", "objects.json"].map(|name| home.join(name));
    for (file, text) in [(&program, PROGRAM), (&input, &work.to_string())] {
        fs::write(file, text).with_context(|| format!("could not write {}", file.display()))?;
    }
    let said = Run::new("validating the manifests", python)
        .args([&program, &input])
        .read()?;
    // The last line is its own: a program that ends early has checked nothing.
    let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
    let end = lines.pop();
    ensure!(
        end.as_deref() == Some("end"),
        "validating the manifests ended early:\n{said}"
    );
    Ok(lines)
}

/// The schemas in a folder of CustomResourceDefinitions.
fn definitions(folder: &Path) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("could not read {MORE}, {}", folder.display()))? {
        let path = entry
            .with_context(|| format!("could not read {MORE}, {}", folder.display()))?
            .path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
        let read = documents(&text).with_context(|| format!("{} is no YAML", path.display()))?;
        found.extend(read.iter().flat_map(schemas_of));
    }
    ensure!(
        !found.is_empty(),
        "there is no CustomResourceDefinition in {MORE}, {}",
        folder.display()
    );
    Ok(found)
}

/// The schema of each version of one CustomResourceDefinition, as `schemas.yaml` has them.
fn schemas_of(definition: &Value) -> Vec<Value> {
    if definition["kind"] != "CustomResourceDefinition" {
        return Vec::new();
    }
    let spec = &definition["spec"];
    let group = spec["group"].as_str().unwrap_or_default();
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let schema = |version: &Value| {
        json!({
            "apiVersion": format!("{group}/{}", version["name"].as_str().unwrap_or_default()),
            "kind": spec["names"]["kind"],
            "schema": version["schema"]["openAPIV3Schema"],
        })
    };
    versions.iter().map(schema).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_others_are_told_from_those_of_kubernetes() {
        for (version, custom) in [
            ("v1", false),
            ("apps/v1", false),
            ("networking.k8s.io/v1", false),
            ("extensions.agents.x-k8s.io/v1beta1", true),
            ("cilium.io/v2", true),
        ] {
            assert_eq!(is_custom(&json!({"apiVersion": version})), custom, "{version}");
        }
    }

    #[test]
    fn a_published_definition_gives_a_schema_for_each_of_its_versions() {
        let definition = json!({"kind": "CustomResourceDefinition", "spec": {
            "group": "example.org",
            "names": {"kind": "Thing"},
            "versions": [{"name": "v1", "schema": {"openAPIV3Schema": {"type": "object"}}}, {"name": "v2"}],
        }});
        let schemas = schemas_of(&definition);
        assert_eq!(
            schemas.first(),
            Some(&json!({"apiVersion": "example.org/v1", "kind": "Thing", "schema": {"type": "object"}}))
        );
        assert_eq!(schemas.len(), 2);
        assert!(schemas_of(&json!({"kind": "Namespace"})).is_empty());
    }
}
