//! The history of one conversation: append-only, serialized once.

/// Placeholder until the model client lands.
#[derive(Debug)]
pub struct Conversation;
