//! The documents say what the code says: tables are written from the code, every promise of the specification names a
//! test, an attack or a protection that exists, and the protocol's schemas are those that the code keeps.
//!
//! `PLUE_UPDATE_DOCUMENTS=1 cargo test --release --workspace --test documents` writes the tables.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod examples;
mod layers;
mod monitoring;
mod operations;
mod protocol;
mod specification;
mod tables;
mod task_schema;

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A file of the checkout.
fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// All files with one of these extensions in these folders: name and text.
fn files<S: AsRef<str>>(folders: &[S], extensions: &[&str]) -> Vec<(String, String)> {
    let mut waiting: Vec<PathBuf> = folders.iter().map(|name| root().join(name.as_ref())).collect();
    let mut found = Vec::new();
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            if path.is_dir() && !path.ends_with("target") {
                waiting.push(path);
            } else if extension.is_some_and(|extension| extensions.contains(&extension)) {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    found
}

/// The folders with code: all but those with documents and manifests.
fn code_folders() -> Vec<String> {
    const OTHERS: [&str; 4] = ["deploy", "docs", "protocol", "target"];
    let entries = fs::read_dir(root()).unwrap().map(Result::unwrap);
    entries
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && !OTHERS.contains(&name.as_str()))
        .collect()
}
