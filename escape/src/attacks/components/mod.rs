//! Hostile plugins: component text made from the contract, and one written with the SDK.

use anyhow::Result;
use serde_json::{Value, json};
use support::guest::Guest;

use crate::attack::{Action, Attack, Baseline, Expect, Plugin};
use crate::scene::Scene;

mod advisories;
mod compiled;
mod filesystem;
mod kinds;
mod limits;
mod loading;
mod process;
mod read_only;
mod schemas;
mod sdk;
mod strings;

pub const ATTACKS: &[&[Attack]] = &[
    limits::ATTACKS,
    loading::ATTACKS,
    schemas::ATTACKS,
    compiled::ATTACKS,
    filesystem::ATTACKS,
    kinds::ATTACKS,
    process::ATTACKS,
    read_only::ATTACKS,
    advisories::ATTACKS,
    strings::ATTACKS,
    sdk::ATTACKS,
];

/// The name of the hostile tool.
const NAME: &str = "hostile";

type Make = fn(&Scene) -> Result<Plugin>;

/// An attack whose baseline is the same component in a form that does no harm.
const fn component(id: &'static str, what: &'static str, hostile: Make, harmless: Make) -> Attack {
    Attack::component(id, what, hostile).baseline(Baseline::Harmless(Action::Component(harmless)))
}

/// A call that a limit ends.
const fn killed(id: &'static str, what: &'static str, code: &'static str, hostile: Make, harmless: Make) -> Attack {
    component(id, what, hostile, harmless).expect(Expect::Killed(code))
}

/// A plugin that does not load, for a reason that the message says.
const fn refused(id: &'static str, what: &'static str, says: &'static str, hostile: Make, harmless: Make) -> Attack {
    component(id, what, hostile, harmless).expect(Expect::Refused(says))
}

/// A tool that answers with its input.
fn good() -> Guest {
    Guest::good(NAME)
}

/// A tool that does this before it answers.
fn on_call(call: &str) -> Guest {
    Guest::on_call(NAME, call)
}

/// This tool under a manifest with these lines more, called once.
fn tool(guest: &Guest, manifest: &str) -> Result<Plugin> {
    Ok(bytes(guest.wasm(), manifest))
}

/// Any bytes as the component of the tool, called once.
fn bytes(component: Vec<u8>, manifest: &str) -> Plugin {
    let manifest = format!("name = \"{NAME}\"\ncomponent = \"tool.wasm\"\n{manifest}\n");
    plugin("hostile", component, &manifest).calling(json!({}))
}

/// A folder with a component and a manifest.
fn plugin(folder: &str, component: Vec<u8>, manifest: &str) -> Plugin {
    Plugin {
        files: vec![
            (format!("{folder}/tool.wasm"), component),
            (format!("{folder}/plugin.toml"), manifest.into()),
        ],
        tools: vec![NAME.to_owned()],
        ..Plugin::default()
    }
}

impl Plugin {
    /// With one more call of the hostile tool.
    fn calling(mut self, arguments: Value) -> Self {
        self.calls.push((NAME.to_owned(), arguments));
        self
    }

    /// With the files of another one beside its own.
    fn and(mut self, other: Plugin) -> Self {
        self.files.extend(other.files);
        self
    }
}
