//! Programs that none of us wrote, as peers: another double of the Messages API, which breaks what it sends and judges
//! the client, and Anthropic's own client, which our double has to satisfy and our decoder has to agree with.
//!
//! `cargo xtask test --only peers` installs them and runs this.
// What a peer says is for people.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod llmock;
mod sdk;

/// The Python that has the peers.
fn python() -> String {
    std::env::var("PLUE_PEERS_PYTHON").expect("run this as `cargo xtask test --only peers`, which installs the peers")
}
