//! The limits of a task and of what it leads to, as `docs/reference/limits.md` has them. Each stands where it is kept;
//! this is the list. Those of a tool call are `plue_tool_host::limits`.

use crate::config::MAX_POD_NAME;
use crate::config::variables::{CALLBACK_MAX_BODY, SPOOL_SIZE};
use crate::events::bounds::{MAX_BODY, MAX_NAME};
use crate::events::queue::{MAX_BACK, MAX_FRONT};
use crate::standby::registration::MAX_REPLY;
use crate::task::MAX_DOCUMENT_BYTES;
use crate::task::agent::{DEFAULT_MAX_TURNS, MAX_TIMEOUT_SECONDS, MAX_TOKENS, MAX_TURNS};
use crate::workflow::lines::MAX_LINE_BYTES;

/// What is limited, and how far.
pub fn table() -> Vec<(&'static str, String)> {
    let kib = |bytes: usize| format!("{} KiB", bytes >> 10);
    let mib = |bytes: usize| format!("{} MiB", bytes >> 20);
    vec![
        ("a task document", mib(MAX_DOCUMENT_BYTES)),
        (
            "`max_turns`",
            format!("1 to {MAX_TURNS}, {DEFAULT_MAX_TURNS} when it is not said"),
        ),
        (
            "`max_tokens`",
            format!("1 to {} million, and what the model can give", MAX_TOKENS / 1_000_000),
        ),
        (
            "`timeout_seconds`, of a task or a step",
            format!("1 s to {} days", MAX_TIMEOUT_SECONDS / 86_400),
        ),
        (
            "a line of output that is sent as one event",
            format!("{}; a longer one comes in parts", kib(MAX_LINE_BYTES)),
        ),
        (
            "an event, as JSON",
            format!(
                "{}, or `{}`; a name in it {}; what is larger comes in parts, or is cut and says so \
                 ([protocol, §3.4](../../protocol/README.md#34-promises))",
                mib(MAX_BODY),
                CALLBACK_MAX_BODY.name,
                kib(MAX_NAME)
            ),
        ),
        ("events that wait in memory", mib(MAX_FRONT + MAX_BACK)),
        ("events that wait on disk", format!("`{}`", SPOOL_SIZE.name)),
        ("a reply to a registration", mib(MAX_REPLY)),
        ("`POD_NAME`", format!("{MAX_POD_NAME} characters")),
    ]
}
