//! What `cargo xtask test` consists of: one table, and a function for each stage.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;

use anyhow::{Context, Result, ensure};
use clap::builder::PossibleValuesParser;

use crate::cargo_tools::{self, COMPONENT, DENY};
use crate::layout::Layout;
use crate::process::{self, Run};
use crate::toolchain::{self, Choice, Toolchain};
use crate::{columns, component, demo, dist, docs, escape, fuzz, gvisor, lab, manifests, plugins, pod, python, zoo};

/// One part of the test, with its own line in the summary.
pub struct Stage {
    /// The name on the command line.
    pub name: &'static str,
    /// What it makes sure of.
    pub promise: &'static str,
    /// Whether it works on what the stage `build` makes.
    pub needs_build: bool,
    /// What it runs beside.
    pub lane: Lane,
    /// Does it. An error is a failure.
    pub run: fn(&State) -> Result<Outcome>,
}

/// Stages of one lane run one after the other, and the lanes side by side: what waits for its deadlines in one of them
/// leaves the processors to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Before all others, and alone.
    First,
    /// What compiles, or only looks at files. Cargo lets one of them into a target folder at a time.
    Code,
    /// Tests that wait a lot.
    Tests,
    /// Attacks on this machine, and the zoo: the others of this lane are over first.
    Attacks,
    /// What is made and run in gVisor: there is one store of images. With the chaos suite, which waits as much.
    Pods,
}

/// How a stage ended that did not fail.
pub enum Outcome {
    Passed,
    /// It cannot be done on this machine, for this reason. Shown at the end, in plain words.
    Skipped(String),
}

/// What the stages share.
pub struct State<'a> {
    pub layout: &'a Layout,
    /// What made the components in `target/dist`, once they are built.
    pub built_with: OnceLock<Choice>,
    /// Whether gVisor is left out, as the command line asks.
    pub without_gvisor: bool,
    /// Whether every attack is tried in every place, as the command line asks.
    pub all: bool,
}

/// The name of the stage that others need.
pub const BUILD: &str = "build";

/// All stages, in the order in which they are told of, and in which those of a lane run: quick ones first, and last
/// those that may be left out, so that this is the last thing that is said.
pub const STAGES: [Stage; 21] = [
    Stage {
        name: "format",
        promise: "rustfmt has nothing to change, and no line is too wide",
        needs_build: false,
        lane: Lane::First,
        run: format,
    },
    Stage {
        name: BUILD,
        promise: "target/dist is built",
        needs_build: false,
        lane: Lane::First,
        run: build,
    },
    Stage {
        name: "lint",
        promise: "clippy has nothing to say",
        needs_build: false,
        lane: Lane::Code,
        run: lint,
    },
    Stage {
        name: "docs",
        promise: "documents and doc comments name what exists",
        needs_build: false,
        lane: Lane::Code,
        run: docs,
    },
    Stage {
        name: "manifests",
        promise: "what deploy/ renders to fits Kubernetes, and is confined",
        needs_build: false,
        lane: Lane::Code,
        run: manifests,
    },
    Stage {
        name: "tests",
        promise: "unit and integration tests",
        needs_build: true,
        lane: Lane::Tests,
        run: tests,
    },
    Stage {
        name: "chaos",
        promise: "whatever fails around the runner, nothing is lost",
        needs_build: true,
        lane: Lane::Pods,
        run: chaos,
    },
    Stage {
        name: "peers",
        promise: "programs that others wrote, as server and as client of the Messages API",
        needs_build: true,
        lane: Lane::Tests,
        run: peers,
    },
    Stage {
        name: "plugin-tests",
        promise: "tests of the tools' own code",
        needs_build: false,
        lane: Lane::Code,
        run: plugin_tests,
    },
    Stage {
        name: "fuzz",
        promise: "the fuzz targets compile (`cargo xtask fuzz` runs them)",
        needs_build: false,
        lane: Lane::Code,
        run: fuzz_targets,
    },
    Stage {
        name: "toolchains",
        promise: "the other way to build components works too",
        needs_build: true,
        lane: Lane::Code,
        run: toolchains,
    },
    Stage {
        name: "component",
        promise: "an author's tool, by cargo and by cargo component, loads",
        needs_build: true,
        lane: Lane::Code,
        run: cargo_component,
    },
    Stage {
        name: "licenses",
        promise: "licences, sources and bans of all dependencies",
        needs_build: false,
        lane: Lane::Code,
        run: licenses,
    },
    Stage {
        name: "demo",
        promise: "the main job, from red to green",
        needs_build: true,
        lane: Lane::Attacks,
        run: show,
    },
    Stage {
        name: "escape",
        promise: "no attack gets out of the sandbox",
        needs_build: true,
        lane: Lane::Attacks,
        run: escape_natively,
    },
    Stage {
        name: "mutation",
        promise: "attacks notice each protection that is switched off",
        needs_build: true,
        lane: Lane::Attacks,
        run: mutations,
    },
    Stage {
        name: "zoo",
        promise: "programs of all kinds run in the sandbox, in gVisor too",
        needs_build: true,
        lane: Lane::Attacks,
        run: in_zoo,
    },
    Stage {
        name: "advisories",
        promise: "no dependency with a known vulnerability",
        needs_build: false,
        lane: Lane::Code,
        run: advisories,
    },
    Stage {
        name: "gvisor",
        promise: "the main job in gVisor, as the pod has it",
        needs_build: true,
        lane: Lane::Pods,
        run: in_gvisor,
    },
    Stage {
        name: "pod",
        promise: "the image, in gVisor, as the manifests say",
        needs_build: true,
        lane: Lane::Pods,
        run: pods,
    },
    Stage {
        name: "escape-gvisor",
        promise: "no attack gets out of a pod's sandbox in gVisor",
        needs_build: true,
        lane: Lane::Pods,
        run: escape_in_gvisor,
    },
];

/// The names that `--only` takes.
pub fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(STAGES.iter().map(|stage| stage.name))
}

fn format(state: &State) -> Result<Outcome> {
    let check = ["fmt", "--all", "--check"];
    let main = state.layout.cargo("checking the format").args(check).live();
    let plugins = state
        .layout
        .plugins_cargo("checking the format of tool-plugins/", process::cargo(), HOST)
        .args(check)
        .live();
    main.and(plugins)
        .context("run `cargo fmt --all`, here and in tool-plugins/")?;
    columns::check(&state.layout.root)?;
    Ok(Outcome::Passed)
}

fn build(state: &State) -> Result<Outcome> {
    let toolchain = dist::build(state.layout)?;
    // It is built once.
    let _ = state.built_with.set(toolchain.choice());
    Ok(Outcome::Passed)
}

fn lint(state: &State) -> Result<Outcome> {
    let deny = ["--all-targets", "--", "-D", "warnings"];
    let main = state
        .layout
        .cargo("linting")
        .args(["clippy", "--release"])
        .args(deny)
        .live();
    let lab = lab::cargo(state.layout, "linting lab/", &["clippy"]).args(deny).live();
    let on_host = state
        .layout
        .plugins_cargo("linting tool-plugins/", process::cargo(), HOST)
        .args(["clippy", "--locked", "--workspace"])
        .args(deny)
        .live();
    // Most of a tool's code is compiled for its own target only. Debian's compiler has no clippy.
    let as_component = if toolchain::has_target(toolchain::TARGET) {
        state
            .layout
            .plugins_cargo("linting the components", process::cargo(), "plugins/rustup")
            .args([
                "clippy",
                "--locked",
                "--release",
                "--target",
                toolchain::TARGET,
                "--workspace",
                "--lib",
            ])
            .args(["--", "-D", "warnings"])
            .live()
    } else {
        process::note(
            "tool-plugins/ is linted for this machine only: there is no clippy for its target without rustup",
        );
        Ok(())
    };
    main.and(lab).and(on_host).and(as_component)?;
    Ok(Outcome::Passed)
}

fn docs(state: &State) -> Result<Outcome> {
    let documents = docs::check(&state.layout.root);
    let check = |run: Run| {
        run.args(["--no-deps", "--document-private-items"])
            // The readers are developers: they see private items too, so links to those lead somewhere.
            .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links")
            .live()
    };
    let main = state.layout.cargo("checking the doc comments");
    let comments = check(main.args(["doc", "--release"]));
    let lab = check(lab::cargo(state.layout, "checking the doc comments of lab/", &["doc"]));
    documents.and(comments).and(lab)?;
    Ok(Outcome::Passed)
}

fn manifests(state: &State) -> Result<Outcome> {
    manifests::check(state.layout)?;
    Ok(Outcome::Passed)
}

fn tests(state: &State) -> Result<Outcome> {
    let main = state
        .layout
        .cargo("unit and integration tests")
        .args(["test", "--release", "--no-fail-fast"])
        // Most of them wait for something.
        .env("RUST_TEST_THREADS", at_a_time().to_string())
        .env("PLUE_RUNNER_BIN", state.layout.runner())
        .env("PLUE_PLUGINS_DIR", state.layout.plugins())
        .live();
    let lab = lab::cargo(state.layout, "tests of lab/", &["test"]).live();
    main.and(lab)?;
    Ok(Outcome::Passed)
}

/// How many tests run at a time. Other lanes have the processors while they wait.
fn at_a_time() -> usize {
    let processors = thread::available_parallelism().map_or(2, usize::from);
    (2 * processors).min(8)
}

/// Apart from the other tests: it takes minutes, of which it waits most.
fn chaos(state: &State) -> Result<Outcome> {
    state
        .layout
        .cargo("the chaos suite")
        .args(["test", "--release", "--no-fail-fast", "--test", "chaos"])
        // What it says of memory is for people.
        .args(["--", "--nocapture", "--test-threads", "2"])
        .env("PLUE_RUNNER_BIN", state.layout.runner())
        .env("PLUE_PLUGINS_DIR", state.layout.plugins())
        .live()?;
    Ok(Outcome::Passed)
}

/// Of PyPI: a double of the Messages API that breaks its streams and judges its client, and Anthropic's own client.
const PEERS: [&str; 2] = ["llmock==0.2.2", "anthropic==2.14.0"];

fn peers(state: &State) -> Result<Outcome> {
    let python = python::environment(state.layout, &PEERS)?;
    state
        .layout
        .cargo("programs that others wrote")
        .args(["test", "--release", "--no-fail-fast", "--test", "peers"])
        .env("PLUE_PEERS_PYTHON", python)
        .env("PLUE_RUNNER_BIN", state.layout.runner())
        .env("PLUE_PLUGINS_DIR", state.layout.plugins())
        .live()?;
    Ok(Outcome::Passed)
}

fn plugin_tests(state: &State) -> Result<Outcome> {
    state
        .layout
        .plugins_cargo("tests of tool-plugins/", process::cargo(), HOST)
        .args(["test", "--locked", "--workspace", "--no-fail-fast"])
        .live()?;
    Ok(Outcome::Passed)
}

fn fuzz_targets(state: &State) -> Result<Outcome> {
    fuzz::check(state.layout)?;
    Ok(Outcome::Passed)
}

/// Builds the components the way that `build` did not take, and has the runner load them.
fn toolchains(state: &State) -> Result<Outcome> {
    let choice = match state.built_with.get() {
        Some(Choice::Debian) => Choice::Rustup,
        _ => Choice::Debian,
    };
    let other = match Toolchain::prepare(state.layout, choice) {
        Ok(other) => other,
        // `build` has tried this already, and taken Debian's way since it failed.
        Err(error) if choice == Choice::Rustup => {
            return Ok(Outcome::Skipped(format!(
                "components were built with Debian's compiler only, since rustup cannot have the target here: {error:#}"
            )));
        }
        Err(_) if process::find_program("apt-get").is_none() => {
            return Ok(Outcome::Skipped(
                "components were built with rustup's target only, since this is no Debian: \
                 to try the other way, run `cargo xtask test --only toolchains` in a Debian container"
                    .to_owned(),
            ));
        }
        Err(error) => return Err(error),
    };
    let out = state.layout.target.join("xtask/plugins").join(other.name());
    // Not where the attacks find theirs: those may be running.
    let names = plugins::build(state.layout, &other, &out, &out.with_added_extension("tests"))?;
    loads(state.layout, &out, names.len())?;
    Ok(Outcome::Passed)
}

fn cargo_component(state: &State) -> Result<Outcome> {
    let program = cargo_tools::install(state.layout, &COMPONENT)?;
    let toolchain = Toolchain::prepare(state.layout, Choice::Auto)?;
    for out in component::build(state.layout, &toolchain, &program)? {
        loads(state.layout, &out, 1)?;
    }
    Ok(Outcome::Passed)
}

/// Has the runner load all plugins of a folder.
fn loads(layout: &Layout, plugins: &Path, expected: usize) -> Result<()> {
    let listed = Run::new("loading the components", layout.runner())
        .args(["plugin", "list", "--json", "--plugin-dir"])
        .arg(plugins)
        .read()?;
    let listed: serde_json::Value =
        serde_json::from_str(&listed).context("`plue-runner plugin list --json` gave no JSON")?;
    let count = listed.as_array().map_or(0, Vec::len);
    ensure!(
        count == expected,
        "the runner lists {count} of {expected} plugins in {}",
        plugins.display()
    );
    process::note(&format!("the runner loads all {count}"));
    Ok(())
}

fn licenses(state: &State) -> Result<Outcome> {
    let program = cargo_tools::install(state.layout, &DENY)?;
    let [main, plugins] = workspaces(state.layout).map(|manifest| {
        deny(state.layout, &program, &manifest, "checking licences, sources and bans")
            .args(["check", "--hide-inclusion-graph", "licenses", "sources", "bans"])
            .live()
    });
    main.and(plugins)?;
    Ok(Outcome::Passed)
}

/// Asks RustSec's database, which is a git repository: machines that reach only package registries cannot fetch it.
fn advisories(state: &State) -> Result<Outcome> {
    let program = cargo_tools::install(state.layout, &DENY)?;
    let [manifest, _] = workspaces(state.layout);
    let fetched = deny(state.layout, &program, &manifest, "fetching RustSec's database")
        .args(["fetch", "db"])
        .limit(cargo_tools::FETCH_LIMIT)
        .quiet(&state.layout.log("advisory-db"));
    if let Err(error) = &fetched
        && !cargo_tools::has_advisory_database()
    {
        process::note(&format!("{error:#}"));
        return Ok(Outcome::Skipped(
            "ADVISORIES WERE NOT CHECKED: RustSec's database cannot be fetched here. \
             Where GitHub can be reached, run: cargo xtask test --only advisories"
                .to_owned(),
        ));
    }
    if fetched.is_err() {
        process::note("RustSec's database cannot be fetched here; using the copy of an earlier time");
    }
    let [main, plugins] = workspaces(state.layout).map(|manifest| {
        deny(state.layout, &program, &manifest, "checking advisories")
            .args(["--offline", "check", "advisories"])
            .live()
    });
    main.and(plugins)?;
    Ok(Outcome::Passed)
}

fn show(state: &State) -> Result<Outcome> {
    demo::command(state.layout).live()?;
    Ok(Outcome::Passed)
}

/// The demo with its doubles and the runner, all inside of the container.
fn in_gvisor(state: &State) -> Result<Outcome> {
    if state.without_gvisor {
        return Ok(Outcome::Skipped(
            "NO AGENT WAS RUN IN GVISOR: --without-gvisor left it out".to_owned(),
        ));
    }
    gvisor::demo(state.layout)?;
    Ok(Outcome::Passed)
}

fn escape_natively(state: &State) -> Result<Outcome> {
    escape::natively(state.layout, state.all)?;
    Ok(Outcome::Passed)
}

fn pods(state: &State) -> Result<Outcome> {
    if state.without_gvisor {
        return Ok(Outcome::Skipped(
            "NO POD WAS STARTED: --without-gvisor left them out".to_owned(),
        ));
    }
    pod::test(state.layout, &[], state.all)?;
    Ok(Outcome::Passed)
}

fn escape_in_gvisor(state: &State) -> Result<Outcome> {
    if state.without_gvisor {
        return Ok(Outcome::Skipped(
            "NO ATTACK WAS TRIED IN GVISOR: --without-gvisor left it out".to_owned(),
        ));
    }
    pod::attacks(state.layout, state.all)?;
    Ok(Outcome::Passed)
}

/// What could not be tried is said; all else has passed.
fn in_zoo(state: &State) -> Result<Outcome> {
    let skipped = zoo::run(state.layout, &[], zoo::Places::new(state.without_gvisor))?;
    Ok(match skipped.is_empty() {
        true => Outcome::Passed,
        false => Outcome::Skipped(skipped.join("\n")),
    })
}

fn mutations(state: &State) -> Result<Outcome> {
    escape::mutations(state.layout)?;
    Ok(Outcome::Passed)
}

/// The manifests of both workspaces.
fn workspaces(layout: &Layout) -> [PathBuf; 2] {
    [layout.root.join("Cargo.toml"), layout.tool_plugins().join("Cargo.toml")]
}

/// cargo-deny with our configuration.
fn deny(layout: &Layout, program: &Path, manifest: &Path, purpose: &str) -> Run {
    Run::new(purpose, program)
        .dir(&layout.root)
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--config")
        .arg(layout.root.join("deny.toml"))
}

/// The target folder of the tools' code when it is compiled for this machine.
const HOST: &str = "plugins/host";
