//! From a folder with a kustomization to the objects that `kubectl apply -k` would send.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize as _;
use serde_json::Value;

use super::kubectl;
use crate::layout::Layout;
use crate::process::Run;

/// What one kustomization came to.
pub struct Rendered {
    /// The folder below `deploy/`, and the component that was added to it.
    pub name: String,
    pub objects: Vec<Value>,
}

/// The objects that the kustomization in a folder comes to, in kustomize's order.
pub fn render(layout: &Layout, folder: &Path) -> Result<Vec<Value>> {
    let text = Run::new(format!("rendering {}", folder.display()), kubectl::find(layout)?)
        .arg("kustomize")
        .arg(folder)
        .read()?;
    documents(&text).with_context(|| format!("what {} renders to is no YAML of objects", folder.display()))
}

/// All documents of a YAML stream. An empty one is none.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = Value::deserialize(document)?;
        if !value.is_null() {
            found.push(value);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stream_of_documents_gives_the_objects_in_it() {
        let objects = documents("kind: A\n---\n---\nkind: B\nn: 1\n").unwrap();
        assert_eq!(objects, [json!({"kind": "A"}), json!({"kind": "B", "n": 1})]);
    }
}
