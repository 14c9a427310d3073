//! Compiled forms: native code that runs with all the rights of the runner.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use plue_tool_host::compile_plugins;
use support::guest::{Guest, answers};

use super::{NAME, bytes, component, good, refused, tool};
use crate::attack::{Attack, Expect, Plugin};

/// The name and the content of the compiled form of a component, made as `plue-runner plugin compile` makes it.
pub fn form_of(wasm: &[u8]) -> Result<(String, Vec<u8>)> {
    let folder = tempfile::tempdir()?;
    let home = folder.path().join("hostile");
    fs::create_dir(&home)?;
    for path in [folder.path(), &home] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    fs::write(home.join("tool.wasm"), wasm)?;
    fs::write(
        home.join("plugin.toml"),
        format!("name = \"{NAME}\"\ncomponent = \"tool.wasm\"\n"),
    )?;
    let forms = compile_plugins(folder.path()).context("compile a tool")?;
    let form = forms.first().context("no compiled form was made")?;
    let name = form
        .file_name()
        .context("a form has a name")?
        .to_string_lossy()
        .into_owned();
    Ok((name, fs::read(form)?))
}

/// A good tool with this compiled form beside it, under the right name.
fn with_form(form: impl FnOnce(Vec<u8>) -> Result<Vec<u8>>) -> Result<Plugin> {
    let (name, right) = form_of(&good().wasm())?;
    let mut plugin = tool(&good(), "")?;
    plugin.files.push((format!("hostile/{name}"), form(right)?));
    Ok(plugin)
}

fn honest() -> Result<Plugin> {
    with_form(Ok)
}

/// The compiled form of a tool that answers `evil`.
fn evil() -> Result<Vec<u8>> {
    let items = "(data (i32.const 0x8000) \"evil\")".to_owned();
    let answer = answers("(i32.const 0x8000)", "(i32.const 4)");
    let guest = Guest {
        items,
        ..Guest::on_call(NAME, &answer)
    };
    Ok(form_of(&guest.wasm())?.1)
}

/// The right form is there, and a path of the plugin folder has this mode.
fn with_mode(path: impl FnOnce(&str) -> String, mode: u32) -> Result<Plugin> {
    let mut plugin = honest()?;
    let form = plugin.files.last().map(|(path, _)| path.clone()).unwrap_or_default();
    plugin.modes.push((path(&form), mode));
    Ok(plugin)
}

const NOT_TAKEN: &str = "compiled code is not taken from";

/// What a good tool answers to no arguments.
const HONEST: Expect = Expect::Answers("{}");

pub const ATTACKS: &[Attack] = &[
    component(
        "components/form-of-another",
        "the compiled form of another tool, under the name of this one's",
        |_| with_form(|_| evil()),
        |_| honest(),
    )
    .differing()
    .expect(HONEST),
    component(
        "components/form-that-is-forged",
        "native code with nothing around it, under the name of a compiled form",
        |_| with_form(|_| Ok(vec![0xcc; 8192])),
        |_| honest(),
    )
    .differing()
    .expect(HONEST),
    component(
        "components/form-that-is-a-program",
        "a native program under the name of a compiled form",
        |_| with_form(|_| Ok(fs::read("/proc/self/exe")?.into_iter().take(1 << 20).collect())),
        |_| honest(),
    )
    .expect(HONEST),
    component(
        "components/form-of-another-engine",
        "a compiled form that another engine has made",
        |_| {
            with_form(|mut form| {
                let mark = b".wasmtime.engine";
                let at = form.windows(mark.len()).position(|window| window == mark);
                form[at.context("a compiled form names its engine")?] ^= 1;
                Ok(form)
            })
        },
        |_| honest(),
    )
    .expect(HONEST),
    component(
        "components/form-that-is-truncated",
        "a compiled form that ends in its middle",
        |_| {
            with_form(|mut form| {
                form.truncate(form.len() / 2);
                Ok(form)
            })
        },
        |_| honest(),
    )
    .expect(HONEST),
    refused(
        "components/form-writable-by-the-group",
        "a compiled form that the group may write",
        NOT_TAKEN,
        |_| with_mode(str::to_owned, 0o664),
        |_| with_mode(str::to_owned, 0o644),
    )
    .differing(),
    refused(
        "components/form-writable-by-others",
        "a compiled form that everybody may write",
        NOT_TAKEN,
        |_| with_mode(str::to_owned, 0o646),
        |_| with_mode(str::to_owned, 0o644),
    )
    .differing(),
    refused(
        "components/folder-writable-by-others",
        "a plugin's folder in which everybody may put a compiled form",
        NOT_TAKEN,
        |_| with_mode(|_| "hostile".to_owned(), 0o777),
        |_| with_mode(|_| "hostile".to_owned(), 0o755),
    )
    .differing(),
    refused(
        "components/plugins-writable-by-others",
        "a folder of plugins in which everybody may swap one for another",
        NOT_TAKEN,
        |_| with_mode(|_| ".".to_owned(), 0o777),
        |_| with_mode(|_| ".".to_owned(), 0o755),
    )
    .differing(),
    refused(
        "components/form-named-wasm",
        "a compiled form under the name of a component",
        "is no WebAssembly component",
        |_| Ok(bytes(evil()?, "")),
        |_| honest(),
    ),
];
