//! The file tools, the model and the chroot of `crates/tool-host/tests/path_confinement/file_tools`, on cases that a
//! coverage-guided fuzzer finds. What it sees is the host's side: the runner, wasmtime and cap-std. The components are
//! compiled without counters.
//!
//! ```text
//! cargo xtask fuzz --seconds 60
//! ```
//!
//! `PLUE_PLUGINS_DIR` names the components, when they are not where `cargo xtask build` puts them.

#![no_main]

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../crates/tool-host/tests/path_confinement/file_tools/mod.rs"]
mod file_tools;

thread_local! {
    static RUNS: RefCell<Option<file_tools::Runs>> = const { RefCell::new(None) };
}

fuzz_target!(|bytes: &[u8]| {
    RUNS.with_borrow_mut(|runs| {
        let runs = runs.get_or_insert_with(|| file_tools::Runs::new(&plugins(), || {}));
        if let Err(wrong) = runs.check(bytes) {
            panic!("{wrong}");
        }
    });
});

fn plugins() -> PathBuf {
    std::env::var_os("PLUE_PLUGINS_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/dist/plugins"),
        PathBuf::from,
    )
}
