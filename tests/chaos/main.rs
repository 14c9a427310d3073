//! Trouble, seeded and repeatable, against the built runner: whatever fails around it, nothing critical is lost, the
//! order is kept, the text is what the model sent, and there is one ending of the right kind.
//!
//! `PLUE_CHAOS_SEED=N` tries one seed, `PLUE_CHAOS_SEEDS=N` so many.
// What it measures is for people.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod disk;
mod faults;
mod flood;
mod kills;
mod model;
mod outage;
mod proxy;
mod seed;
mod soak;
mod stuck;
