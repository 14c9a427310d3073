//! `kubectl`, which has kustomize in it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::apt;
use crate::layout::Layout;
use crate::process::{self, Run};

/// The release of Debian whose kubectl is taken when none that will do is installed.
const SUITE: &str = "trixie";

/// The oldest kustomize that `deploy/` was rendered with: major and minor version.
const OLDEST: (u32, u32) = (5, 5);

/// The installed kubectl when its kustomize is new enough, or else Debian's in the cache, which is fetched when it is
/// not there.
pub fn find(layout: &Layout) -> Result<PathBuf> {
    if let Some(installed) = process::find_program("kubectl").filter(is_new_enough) {
        return Ok(installed);
    }
    let unpacked = apt::unpacked(layout, "kubectl", SUITE).with_context(|| {
        format!(
            "deploy/ cannot be rendered here. Put a kubectl on PATH whose kustomize is {}.{} or newer \
             (https://kubernetes.io/docs/tasks/tools/)",
            OLDEST.0, OLDEST.1
        )
    })?;
    Ok(unpacked.join("usr/bin/kubectl"))
}

/// Whether a kubectl runs at all, and says that it has such a kustomize.
fn is_new_enough(program: &PathBuf) -> bool {
    let said = Run::new("asking for kubectl's version", program)
        .args(["version", "--client", "--output=json"])
        .read();
    said.ok()
        .as_deref()
        .and_then(kustomize)
        .is_some_and(|version| version >= OLDEST)
}

/// The version of kustomize in what `kubectl version` says.
fn kustomize(said: &str) -> Option<(u32, u32)> {
    let said: Value = serde_json::from_str(said).ok()?;
    let mut numbers = said["kustomizeVersion"].as_str()?.trim_start_matches('v').split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kubectl_and_one_that_says_nothing_will_not_do() {
        let of = |version: &str| kustomize(&format!(r#"{{"kustomizeVersion": "{version}"}}"#));
        assert!(of("v5.5.0") >= Some(OLDEST));
        assert!(of("v5.10.1") >= Some(OLDEST));
        assert!(of("v5.4.2") < Some(OLDEST));
        assert_eq!(kustomize(r#"{"clientVersion": {}}"#), None);
    }
}
