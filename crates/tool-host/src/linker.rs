//! The linker of a plugin, built from its grant: what is not granted is not there. A component that imports more is
//! refused before it is linked, by the name of each interface.

use std::fmt;

use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView as _};
use wasmtime_wasi::p2::bindings::{cli, clocks, random, sockets};
use wasmtime_wasi::random::{WasiRandom, WasiRandomView as _};
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView as _};

use super::bindings::{cancellation, process, progress, workspace};
use super::files;
use super::manifest::{Manifest, Workspace};
use super::state::CallState;

/// The versions of `plue:tool` that this runner speaks, newest first: the current and the previous one.
pub const SUPPORTED_VERSIONS: &[&str] = &["1.0"];

/// Interfaces that every tool may import: none of them leads anywhere.
const FLOOR: &[&str] = &[
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:clocks/wall-clock",
    "wasi:clocks/monotonic-clock",
    "wasi:random/random",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/terminal-stderr",
    // Linked for every tool, since runtimes import it to find that there is nothing; the grant is the preopen.
    "wasi:filesystem/types",
    "wasi:filesystem/preopens",
    "plue:tool/types",
    "plue:tool/progress",
    "plue:tool/cancellation",
];

/// An import that a plugin's grant does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotGranted {
    /// The interface, as the component names it.
    pub interface: String,
    remedy: Remedy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remedy {
    Process,
    ReadWrite,
    Inert,
    Never,
}

impl fmt::Display for NotGranted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = match self.remedy {
            Remedy::Process => "needs process = true in the manifest",
            Remedy::ReadWrite => "needs workspace = \"read-write\" in the manifest",
            Remedy::Inert => "no tool gets a network; a runtime that never uses it may load with it under `inert`",
            Remedy::Never => "no grant gives it",
        };
        write!(f, "{} ({remedy})", self.interface)
    }
}

/// What a component imports and exports, against what it may.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ImportCheck {
    Fits,
    NotGranted(Vec<NotGranted>),
    /// It was built for another version of the contract.
    Version(String),
    /// It has no `plue:tool/plugin` export.
    NoTool,
}

/// Compares a component with its manifest.
pub(crate) fn check(engine: &Engine, component: &Component, manifest: &Manifest) -> ImportCheck {
    let kind = component.component_type();
    let imports: Vec<String> = kind.imports(engine).map(|(name, _)| name.to_owned()).collect();
    let exports: Vec<String> = kind
        .exports(engine)
        .filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentInstance(_)))
        .map(|(name, _)| name.to_owned())
        .collect();
    for name in imports.iter().chain(&exports) {
        let (interface, version) = split(name);
        if interface.starts_with("plue:tool/") && !is_supported(version) {
            return ImportCheck::Version(version.to_owned());
        }
    }
    if !exports.iter().any(|name| split(name).0 == "plue:tool/plugin") {
        return ImportCheck::NoTool;
    }
    let refused: Vec<NotGranted> = imports.into_iter().filter_map(|name| refuse(name, manifest)).collect();
    if refused.is_empty() {
        ImportCheck::Fits
    } else {
        ImportCheck::NotGranted(refused)
    }
}

/// Interface and version of `plue:tool/plugin@1.0.0`.
fn split(name: &str) -> (&str, &str) {
    name.split_once('@').unwrap_or((name, ""))
}

fn is_supported(version: &str) -> bool {
    SUPPORTED_VERSIONS.iter().any(|supported| {
        version
            .strip_prefix(supported)
            .and_then(|rest| rest.strip_prefix('.'))
            .is_some_and(|patch| !patch.contains('-'))
    })
}

fn refuse(name: String, manifest: &Manifest) -> Option<NotGranted> {
    let (interface, version) = split(&name);
    let known_version = interface.starts_with("plue:") || version.starts_with("0.2.");
    let remedy = match interface {
        interface if known_version && FLOOR.contains(&interface) => return None,
        "plue:tool/process" if manifest.process => return None,
        "plue:tool/process" => Remedy::Process,
        "plue:tool/workspace" if manifest.workspace == Workspace::ReadWrite => return None,
        "plue:tool/workspace" => Remedy::ReadWrite,
        interface if known_version && interface.starts_with("wasi:sockets/") => {
            let listed = |entry: &String| entry == "wasi:sockets" || entry == interface;
            if manifest.inert.iter().any(listed) {
                return None;
            }
            Remedy::Inert
        }
        _ => Remedy::Never,
    };
    Some(NotGranted {
        interface: name,
        remedy,
    })
}

/// Builds the linker for a grant.
pub(crate) fn build(engine: &Engine, manifest: &Manifest) -> wasmtime::Result<Linker<CallState>> {
    let mut linker = Linker::new(engine);
    let l = &mut linker;
    add_floor(l)?;
    files::add_to_linker(l)?;
    progress::add_to_linker::<_, HasSelf<CallState>>(l, |state| state)?;
    cancellation::add_to_linker::<_, HasSelf<CallState>>(l, |state| state)?;
    if manifest.process {
        process::add_to_linker::<_, HasSelf<CallState>>(l, |state| state)?;
    }
    if manifest.workspace == Workspace::ReadWrite {
        workspace::add_to_linker::<_, HasSelf<CallState>>(l, |state| state)?;
    }
    if !manifest.inert.is_empty() {
        // Everything of wasi:sockets that would reach the network starts at a socket or a look-up, and the context
        // allows neither.
        add_sockets(l)?;
    }
    Ok(linker)
}

/// The traits of `wasi:io` want the resource table alone.
struct Table;

impl wasmtime::component::HasData for Table {
    type Data<'a> = &'a mut wasmtime::component::ResourceTable;
}

fn add_floor(l: &mut Linker<CallState>) -> wasmtime::Result<()> {
    use wasmtime_wasi::p2::bindings::io;
    io::error::add_to_linker::<_, Table>(l, |state| &mut state.table)?;
    io::poll::add_to_linker::<_, Table>(l, |state| &mut state.table)?;
    io::streams::add_to_linker::<_, Table>(l, |state| &mut state.table)?;
    clocks::wall_clock::add_to_linker::<_, WasiClocks>(l, CallState::clocks)?;
    clocks::monotonic_clock::add_to_linker::<_, WasiClocks>(l, CallState::clocks)?;
    random::random::add_to_linker::<_, WasiRandom>(l, CallState::random)?;
    random::insecure::add_to_linker::<_, WasiRandom>(l, CallState::random)?;
    random::insecure_seed::add_to_linker::<_, WasiRandom>(l, CallState::random)?;
    cli::environment::add_to_linker::<_, WasiCli>(l, CallState::cli)?;
    cli::exit::add_to_linker::<_, WasiCli>(l, CallState::cli)?;
    cli::stdin::add_to_linker::<_, WasiCli>(l, CallState::cli)?;
    cli::stdout::add_to_linker::<_, WasiCli>(l, CallState::cli)?;
    cli::stderr::add_to_linker::<_, WasiCli>(l, CallState::cli)?;
    cli::terminal_input::add_to_linker::<_, WasiCli>(l, CallState::cli)?;
    cli::terminal_output::add_to_linker::<_, WasiCli>(l, CallState::cli)?;
    cli::terminal_stdin::add_to_linker::<_, WasiCli>(l, CallState::cli)?;
    cli::terminal_stdout::add_to_linker::<_, WasiCli>(l, CallState::cli)?;
    cli::terminal_stderr::add_to_linker::<_, WasiCli>(l, CallState::cli)
}

fn add_sockets(l: &mut Linker<CallState>) -> wasmtime::Result<()> {
    let network = sockets::network::LinkOptions::default();
    sockets::network::add_to_linker::<_, WasiSockets>(l, &network, CallState::sockets)?;
    sockets::instance_network::add_to_linker::<_, WasiSockets>(l, CallState::sockets)?;
    sockets::ip_name_lookup::add_to_linker::<_, WasiSockets>(l, CallState::sockets)?;
    sockets::tcp::add_to_linker::<_, WasiSockets>(l, CallState::sockets)?;
    sockets::tcp_create_socket::add_to_linker::<_, WasiSockets>(l, CallState::sockets)?;
    sockets::udp::add_to_linker::<_, WasiSockets>(l, CallState::sockets)?;
    sockets::udp_create_socket::add_to_linker::<_, WasiSockets>(l, CallState::sockets)
}
