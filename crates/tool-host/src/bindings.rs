//! What wasmtime generates from `wit/`: the traits that the host implements and the calls into a plugin.

// One world with everything that any grant can give; the linker takes from it what a plugin's grant names.
wasmtime::component::bindgen!({
    inline: "
        package plue:runner;

        world any-tool {
            include plue:tool/process-tool@1.0.0;
            import plue:tool/workspace@1.0.0;
        }
    ",
    path: "../../wit",
    imports: {
        "plue:tool/process.start": async | trappable,
        "plue:tool/process.[method]running-command.next": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    with: {
        "plue:tool/process.running-command": super::resources::RunningProcess,
    },
});

pub(crate) use exports::plue::tool::plugin::{Definition, Output, ToolError};
pub(crate) use plue::tool::{cancellation, process, progress, workspace};
