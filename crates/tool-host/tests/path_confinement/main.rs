//! One set of rules for paths, whoever asks: the file tools against a model and a chroot, and the tools and the shell
//! against one another.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod file_tools;
mod policy;
mod random;
