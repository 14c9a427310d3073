//! The Rust form of `wit/tool.wit`, generated. All worlds in one: an import that a tool does not use is left out of its
//! component when it is linked, so a tool asks for no more than it needs.

#![allow(
    clippy::all,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unsafe_code,
    missing_docs
)]

wit_bindgen::generate!({
    path: "../../wit",
    inline: "
        package plue:sdk;

        world sdk {
            include plue:tool/writing-tool@1.0.0;
            include plue:tool/process-tool@1.0.0;
        }
    ",
    world: "plue:sdk/sdk",
    generate_all,
    additional_derives: [PartialEq],
    pub_export_macro: true,
    default_bindings_module: "plue_tool::bindings",
});
