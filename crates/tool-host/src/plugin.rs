//! Loading one plugin: from its folder to a component that is compiled, checked, linked and described.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::Component;

use super::bindings::AnyToolPre;
use super::compiled::{self, ComponentDigest};
use super::engine::ToolEngine;
use super::instance::LinkedTool;
use super::limits::Limits;
use super::linker::{self, ImportCheck};
use super::load_error::{PluginError, Problem};
use super::manifest::{self, Manifest};
use super::regular_file;
use super::schema::InputSchema;
use plue_contract::ToolDefinition;

/// A tool that can be called.
pub(crate) struct Plugin {
    pub(crate) linked: LinkedTool,
    pub(crate) definition: ToolDefinition,
    pub(crate) schema: InputSchema,
    /// Its manifest.
    pub(crate) file: PathBuf,
    /// The interfaces that the component imports.
    pub(crate) imports: Vec<String>,
}

/// A plugin's folder with its manifest read and its component found.
pub(crate) struct Folder {
    pub(crate) file: PathBuf,
    pub(crate) manifest: Manifest,
    pub(crate) component: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

/// The first bytes of a WebAssembly file, and then of a component: version 13, layer 1.
const WASM: &[u8] = b"\0asm";
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

impl Folder {
    /// Reads the manifest and the component that it names.
    pub(crate) fn read(file: PathBuf) -> Result<Self, PluginError> {
        let manifest = match manifest::read(&file) {
            Ok(manifest) => manifest,
            Err(error) => {
                return Err(PluginError {
                    file,
                    problem: error.into(),
                });
            }
        };
        let component = file.with_file_name(&manifest.component);
        match read_component(&component, manifest.sha256.as_deref()) {
            Ok(bytes) => Ok(Self {
                file,
                manifest,
                component,
                bytes,
            }),
            Err(problem) => Err(PluginError {
                file: component,
                problem,
            }),
        }
    }

    /// Compiles, links and asks the component what it is. Blocks; `describe()` runs on a runtime of its own, so that
    /// plugins can be loaded on any thread.
    pub(crate) fn load(self, engine: &ToolEngine) -> Result<Plugin, PluginError> {
        let Self {
            file,
            manifest,
            component,
            bytes,
        } = self;
        load(engine, &file, manifest, &component, bytes).map_err(|problem| PluginError {
            file: component,
            problem,
        })
    }

    /// Makes the ahead-of-time form, unless it is there already.
    pub(crate) fn compile(&self, engine: &Engine) -> Result<PathBuf, PluginError> {
        let digest = ComponentDigest::of(&self.bytes);
        if let Ok(Some(_)) = compiled::load(engine, &self.component, &digest) {
            return Ok(compiled::path(&self.component, &digest));
        }
        compiled::compile(engine, &self.component, &self.bytes).map_err(|problem| PluginError {
            file: self.component.clone(),
            problem,
        })
    }
}

fn read_component(file: &Path, sha256: Option<&str>) -> Result<Vec<u8>, Problem> {
    let most = Limits::default().component;
    let mut open = regular_file::open(file).map_err(Problem::Read)?;
    let size = open.metadata().map_err(Problem::Read)?.len();
    if size > most {
        return Err(Problem::TooLarge { size, most });
    }
    let mut bytes = Vec::with_capacity(size as usize);
    open.by_ref()
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(Problem::Read)?;
    match bytes.get(..COMPONENT.len()) {
        Some(COMPONENT) => {}
        Some(head) if head.starts_with(WASM) => return Err(Problem::CoreModule),
        _ => return Err(Problem::NotWasm),
    }
    if let Some(expected) = sha256 {
        let found = ComponentDigest::of(&bytes).hex();
        if found != expected {
            return Err(Problem::Digest {
                found,
                expected: expected.to_owned(),
            });
        }
    }
    Ok(bytes)
}

fn load(engine: &ToolEngine, file: &Path, manifest: Manifest, path: &Path, bytes: Vec<u8>) -> Result<Plugin, Problem> {
    let digest = ComponentDigest::of(&bytes);
    let component = match compiled::load(&engine.engine, path, &digest)? {
        Some(component) => component,
        None => {
            Component::from_binary(&engine.engine, &bytes).map_err(|error| Problem::Compile(format!("{error:#}")))?
        }
    };
    drop(bytes);
    match linker::check(&engine.engine, &component, &manifest) {
        ImportCheck::Fits => {}
        ImportCheck::NotGranted(refused) => return Err(Problem::NotGranted(refused)),
        ImportCheck::Version(found) => return Err(Problem::Version { found }),
        ImportCheck::NoTool => return Err(Problem::NoTool),
    }
    let imports = component
        .component_type()
        .imports(&engine.engine)
        .map(|(name, _)| name.to_owned())
        .collect();
    let link = |error: wasmtime::Error| Problem::Link(format!("{error:#}"));
    let linker = linker::build(&engine.engine, &manifest).map_err(link)?;
    let pre = linker
        .instantiate_pre(&component)
        .and_then(AnyToolPre::new)
        .map_err(link)?;
    let tool: Arc<str> = Arc::from(manifest.name.as_str());
    let limits = Arc::new(manifest.limits.clone());
    let linked = LinkedTool {
        tool,
        manifest,
        limits,
        pre,
        ticker: engine.ticker.clone(),
    };
    let (definition, schema) = describe(&linked)?;
    Ok(Plugin {
        linked,
        definition,
        schema,
        file: file.to_owned(),
        imports,
    })
}

fn describe(linked: &LinkedTool) -> Result<(ToolDefinition, InputSchema), Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| Problem::Link(format!("no runtime to call describe(): {error}")))?;
    let described = runtime
        .block_on(linked.describe())
        .map_err(|failure| Problem::Describe {
            code: failure.code,
            text: failure.text,
        })?;
    let name = &linked.manifest.name;
    if described.name != *name {
        return Err(Problem::Name {
            manifest: name.clone(),
            component: described.name,
        });
    }
    let schema = InputSchema::new(described.input_schema, &linked.limits).map_err(Problem::Schema)?;
    let definition = ToolDefinition {
        name: described.name,
        description: described.description,
        input_schema: schema.text.clone(),
    };
    Ok((definition, schema))
}
