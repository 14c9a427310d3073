//! `cargo xtask pod`: the image, built from the Dockerfile, in real gVisor, as the rendered manifests say.
//!
//! What a cluster does with a pod is done here for each of [`PODS`]: `kubectl kustomize` renders its manifest, [`oci`]
//! makes of pod and image what containerd would, and `plue-pod` (tests/pod) is kubelet, API server and model. Its
//! network is a namespace of its own with nothing else in it, where the names of the manifest lead to it.

mod buildah;
mod mounts;
mod oci;
mod quantity;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, id};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use self::buildah::{Buildah, Target};
use self::oci::Cluster;
use crate::escape::TEST_PLUGINS;
use crate::gvisor::runsc;
use crate::layout::Layout;
use crate::process::{self, Run};
use crate::{apt, dist, manifests, sbom};

pub use self::oci::Image;

/// The pods take a minute, the attacks nine. Longer than `plue-pod` waits for any of them.
const LIMIT: Duration = Duration::from_secs(1800);

/// What the cluster's DNS would say. `plue-pod` is both, at these addresses (tests/pod/network.rs).
const HOSTS: &str = "127.0.0.1 localhost\n10.88.0.1 plue-api.plue.svc.cluster.local\n10.88.0.2 model.plue.test\n";

/// The Secret of deploy/README.md. `plue-pod` knows these values, and that nobody else may hear them.
const SECRETS: [(&str, &str, &str); 2] = [
    ("plue-runner", "ANTHROPIC_API_KEY", "sk-ant-test-0123456789abcdef-plue"),
    ("plue-runner", "CALLBACK_TOKEN", "callback-token-of-the-double"),
];

/// The pods: the folders of tests/pod/deploy, and what image they run.
const PODS: [(&str, Target); 8] = [
    ("agent", Target::Full),
    ("workflow", Target::Full),
    ("any-user", Target::Full),
    ("standby", Target::Full),
    ("sigterm", Target::Full),
    ("resume", Target::Full),
    (HARNESS, Target::Full),
    ("slim", Target::Slim),
];

/// The one with the attacks. It takes minutes, and is a stage of its own.
const HARNESS: &str = "harness";

/// The one of the zoo, which is a stage of its own too.
const ZOO: &str = "zoo";

/// The same pod with all attacks.
const HARNESS_ALL: &str = "harness-all";

pub fn run(layout: &Layout, from_source: bool, only: &[String]) -> Result<ExitCode> {
    if from_source {
        Buildah::open(layout)?.build_all()?;
        return Ok(ExitCode::SUCCESS);
    }
    dist::build(layout)?;
    test(layout, only, false)?;
    Ok(ExitCode::SUCCESS)
}

/// The pods, on what the stage `build` has made. The one with the attacks tries all of them, or those that can end
/// otherwise in gVisor than on this machine.
pub fn test(layout: &Layout, only: &[String], all: bool) -> Result<()> {
    let runsc = runsc::find(layout)?;
    apt::install(layout, &["iproute2"])?;
    let buildah = Buildah::open(layout)?;
    sbom::write(layout)?;
    let bundles = Bundles::new(layout)?;
    // The attacks alone need one image and one pod of them.
    let alone = only.iter().all(|part| part == HARNESS) && !only.is_empty();
    for target in [Target::Full, Target::Slim] {
        let pods = PODS
            .iter()
            .filter(|pod| pod.1 == target && (!alone || pod.0 == HARNESS));
        let pods: Vec<&str> = pods.map(|pod| pod.0).collect();
        if pods.is_empty() {
            continue;
        }
        let image = buildah.image(target)?;
        for name in pods {
            let kustomization = if name == HARNESS && all { HARNESS_ALL } else { name };
            lay_out(layout, &bundles.0.join(name), kustomization, &image)
                .with_context(|| format!("could not make the pod `{name}`"))?;
        }
    }
    process::announce("the pods in gVisor");
    let only = only.iter().map(|part| format!("--only={part}"));
    pods(layout, &runsc, &bundles)?.args(only).live()
}

fn lay_out(layout: &Layout, folder: &Path, kustomization: &str, image: &Image) -> Result<()> {
    let objects = manifests::render(layout, &layout.root.join("tests/pod/deploy").join(kustomization))?;
    let workload = |object: &&Value| object["spec"]["template"]["spec"]["containers"].is_array();
    let workload = objects.iter().find(workload).context("the manifest has no pod")?;
    let name = workload["metadata"]["name"].as_str().context("the pod has no name")?;
    let cluster = Cluster {
        objects: &objects,
        secrets: &SECRETS,
        hosts: HOSTS,
        // As the controllers name their pods.
        pod_name: &format!("{name}-x7k2p"),
    };
    let hostile = layout.target.join(TEST_PLUGINS);
    // Beside the folder of the harness, where that looks for it. The image has no hostile plugin, and no manifest asks
    // for one.
    let shipped = layout.dist();
    let others: &[(&Path, &str)] = match kustomization {
        HARNESS | HARNESS_ALL => &[(&hostile, "/opt/test-plugins")],
        ZOO => &[(&shipped, "/opt/plue")],
        _ => &[],
    };
    oci::lay_out(folder, &workload["spec"]["template"], image, &cluster, others)
}

/// The zoo: programs of many packages, in a pod of the warm pool with an image that derives from ours. What is shipped
/// is mounted where the image would have it.
pub fn zoo(layout: &Layout, image: &Image, rows: &[String]) -> Result<()> {
    let runsc = runsc::find(layout)?;
    apt::install(layout, &["iproute2"])?;
    let bundles = Bundles::new(layout)?;
    lay_out(layout, &bundles.0.join(ZOO), ZOO, image).context("could not make the pod of the zoo")?;
    process::announce("the zoo in gVisor");
    pods(layout, &runsc, &bundles)?
        .arg(format!("--only={ZOO}"))
        .args(rows.iter().map(|row| format!("--row={row}")))
        .live()
}

/// What is around the pods. A network with nothing in it, for them and for those that they talk to.
fn pods(layout: &Layout, runsc: &Path, bundles: &Bundles) -> Result<Run> {
    Ok(process::as_root("the pods in gVisor", "unshare")?
        .args(["--net", "--mount", "--", "setpriv", "--pdeathsig", "KILL", "--"])
        .arg(layout.target.join("release/plue-pod"))
        .arg("--runsc")
        .arg(runsc)
        .arg("--bundles")
        .arg(&bundles.0)
        .limit(LIMIT))
}

/// The attacks in the pod: for the stage that is theirs.
pub fn attacks(layout: &Layout, all: bool) -> Result<()> {
    test(layout, &[HARNESS.to_owned()], all)
}

/// The folder of the bundles, for as long as the value lives.
struct Bundles(PathBuf);

impl Bundles {
    fn new(layout: &Layout) -> Result<Self> {
        let folder = layout.target.join("pods").join(id().to_string());
        fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Bundles {
    fn drop(&mut self) {
        // Files of the pods' user; what is left is rubbish, and no reason to fail.
        if let Err(error) = process::remove_as_root(&self.0) {
            process::note(&format!("{error:#}"));
        }
    }
}
