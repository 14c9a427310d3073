//! Standby mode: one process that stays, and takes one task after the other.

mod condition;
mod emptying;
pub mod leftovers;
mod mounts;
pub mod workspace;
