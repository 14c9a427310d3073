//! The crates: what each may import, and the face that each has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::{read, root};

/// What a crate may import of ours. A crate is below all that import it, so nothing here runs back up.
const LAYERS: &[(&str, &[&str])] = &[
    ("plue-contract", &[]),
    ("plue-redaction", &[]),
    ("plue-sandbox", &[]),
    ("plue-messages", &["plue-contract"]),
    ("plue-tool-host", &["plue-contract", "plue-sandbox"]),
    (
        "plue-runner",
        &[
            "plue-contract",
            "plue-redaction",
            "plue-sandbox",
            "plue-messages",
            "plue-tool-host",
        ],
    ),
    // The doubles: what they shared with the runner, they could not find wrong.
    ("plue-test-support", &[]),
    ("plue-escape", &["plue-sandbox", "plue-tool-host", "plue-test-support"]),
    ("plue-capacity", &[]),
    ("xtask", &[]),
    (
        "plue-runner-tests",
        &[
            "plue-contract",
            "plue-redaction",
            "plue-sandbox",
            "plue-messages",
            "plue-tool-host",
            "plue-runner",
            "plue-test-support",
        ],
    ),
];

/// Where `unsafe` may stand.
const UNSAFE: [&str; 2] = ["plue-sandbox", "plue-tool-host"];

/// One package of the workspace, as cargo describes it.
struct Package {
    folder: PathBuf,
    /// Dependencies of ours: the name, and whether only its tests and examples need it.
    ours: Vec<(String, bool)>,
    examples: usize,
}

fn packages() -> BTreeMap<String, Package> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let package = |package: &Value| {
        let ours = package["dependencies"].as_array().unwrap().iter();
        let ours = ours.filter(|dependency| dependency["path"].is_string());
        let targets = package["targets"].as_array().unwrap().iter();
        let folder = Path::new(package["manifest_path"].as_str().unwrap()).parent();
        let found = Package {
            folder: folder.unwrap().to_owned(),
            ours: ours
                .map(|other| (text(&other["name"]), other["kind"] == "dev"))
                .collect(),
            examples: targets.filter(|target| target["kind"][0] == "example").count(),
        };
        (text(&package["name"]), found)
    };
    metadata["packages"].as_array().unwrap().iter().map(package).collect()
}

#[test]
fn no_crate_imports_upward() {
    let packages = packages();
    let listed: Vec<&str> = LAYERS.iter().map(|(name, _)| *name).collect();
    for (name, package) in &packages {
        let row = LAYERS.iter().find(|(known, _)| known == name);
        let (_, allowed) = row.unwrap_or_else(|| panic!("{name} has no row in LAYERS: say what it may import"));
        for (imported, for_tests) in &package.ours {
            // The doubles import nothing of ours, so that tests of every layer may use them.
            let fits = allowed.contains(&&**imported) || (*for_tests && imported == "plue-test-support");
            assert!(fits, "{name} imports {imported}, and may import {allowed:?}");
        }
    }
    let gone: Vec<&&str> = listed.iter().filter(|name| !packages.contains_key(**name)).collect();
    assert!(gone.is_empty(), "LAYERS names crates that are not there: {gone:?}");
    // The table itself runs downward: what a row may import has a row before it, tests apart.
    for (index, (name, allowed)) in LAYERS.iter().enumerate() {
        let upward: Vec<&&str> = allowed
            .iter()
            .filter(|other| !listed[..index].contains(other))
            .collect();
        assert!(upward.is_empty(), "{name} stands above {upward:?}, or they have no row");
    }
}

#[test]
fn every_library_has_a_face() {
    let mut faces = 0;
    for (name, package) in packages() {
        if package.folder.parent() != Some(&root().join("crates")) {
            continue;
        }
        faces += 1;
        let file = |path: &str| std::fs::read_to_string(package.folder.join(path)).unwrap_or_default();
        let (readme, code) = (file("README.md"), file("src/lib.rs"));
        for part in [
            "**Use this when**",
            "**Do not use this when**",
            "**Invariants**",
            "**Tests**",
        ] {
            assert!(readme.contains(part), "the README of {name} lacks {part}");
        }
        assert!(
            code.contains("#![deny(missing_docs)]"),
            "{name} does not deny(missing_docs)"
        );
        let forbids = code.contains("#![forbid(unsafe_code)]");
        assert_eq!(forbids, !UNSAFE.contains(&&*name), "{name}: forbid(unsafe_code)");
        // What a contract is, its users show.
        assert!(package.examples > 0 || name == "plue-contract", "{name} has no example");
    }
    assert_eq!(faces, 5);
}

#[test]
fn the_image_is_built_from_every_crate() {
    let listed = read(".dockerignore");
    for (name, package) in packages() {
        let path = package.folder.strip_prefix(root()).unwrap();
        let top = path.components().next().unwrap().as_os_str().to_string_lossy();
        let line = format!("!{top}");
        assert!(
            listed.lines().any(|other| other == line),
            ".dockerignore keeps {name} out: it needs {line}"
        );
    }
}

/// Modules that use each other in a circle, however long, are one module.
#[test]
fn no_module_of_the_runner_uses_another_in_a_circle() {
    let sources = crate::files(&["runner/src"], &["rs"]);
    let module_of = |path: &str| {
        let rest = path.strip_prefix("runner/src/")?;
        Some(rest.split(['/', '.']).next()?.to_owned())
    };
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in &sources {
        let Some(module) = module_of(path).filter(|name| name != "lib" && name != "main") else {
            continue;
        };
        let is_test = path.contains("/tests/") || path.ends_with("tests.rs");
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let named = code.split("crate::").skip(1).map(|rest| {
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            rest[..end].to_owned()
        });
        let used = uses.entry(module.clone()).or_default();
        used.extend(named.filter(|name| !is_test && *name != module));
    }
    assert!(uses.len() > 10 && uses["cli"].contains("run"), "{uses:?}");
    for module in uses.keys() {
        let (mut reached, mut waiting) = (BTreeSet::new(), vec![module]);
        while let Some(next) = waiting.pop() {
            waiting.extend(
                uses.get(next)
                    .into_iter()
                    .flatten()
                    .filter(|name| reached.insert((*name).clone())),
            );
        }
        assert!(!reached.contains(module), "{module} comes back to itself: {reached:?}");
    }
}
