//! The main job, as the demo and the pods run it: a small repository with one bug, and a model that finds it.

pub mod repository;
mod script;

pub use script::Script;
