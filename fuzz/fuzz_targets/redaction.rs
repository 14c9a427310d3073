//! The redaction on cases of `crates/redaction/tests/redaction/pieces.rs` that a coverage-guided fuzzer finds.
//!
//! ```text
//! cargo xtask fuzz redaction --seconds 60
//! ```

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/redaction/tests/redaction/pieces.rs"]
mod pieces;

fuzz_target!(|bytes: &[u8]| {
    if let Err(wrong) = pieces::check(bytes) {
        panic!("{wrong}");
    }
});
