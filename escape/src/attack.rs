//! What an attack is: one row of the table.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::ValueEnum;
use plue_sandbox::mutation::Protection;
use serde::Serialize;
use serde_json::Value;
use support::Reply;

use crate::scene::Scene;
use crate::target::{Outcome, Target};

/// What an attack goes for: a chapter of the threat model's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Class {
    Files,
    Processes,
    Network,
    Components,
    Input,
}

/// The way in which an attack reaches the runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Surface {
    ReadFile,
    WriteFile,
    ListFiles,
    Grep,
    /// The agent's tool.
    Shell,
    /// A workflow's `run` step.
    Step,
    /// A plugin of the attacker's own.
    Component,
    /// The task document and what stands around it.
    Task,
    /// What the Messages API answers.
    Model,
}

/// The tools that take a path.
pub const FILE_TOOLS: &[Surface] = &[Surface::ReadFile, Surface::WriteFile, Surface::ListFiles, Surface::Grep];
/// Both ways to run a command.
pub const COMMANDS: &[Surface] = &[Surface::Shell, Surface::Step];
/// Whatever a path can be handed to.
pub const PATHS: &[Surface] = &[
    Surface::ReadFile,
    Surface::WriteFile,
    Surface::ListFiles,
    Surface::Grep,
    Surface::Shell,
    Surface::Step,
];

impl Class {
    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl Surface {
    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub fn is_command(self) -> bool {
        COMMANDS.contains(&self)
    }

    pub fn is_file_tool(self) -> bool {
        FILE_TOOLS.contains(&self)
    }
}

/// What must come of it.
#[derive(Clone, Copy, Debug)]
pub enum Expect {
    /// Refused, with one of these codes. A command has no such codes: through one, the same attack is to be contained.
    Denied(&'static [&'static str]),
    /// Ended by a limit: the call, the step or the task fails with this code.
    Killed(&'static str),
    /// It may end in any way, and has reached nothing.
    Contained,
    /// It succeeds, and its output holds nothing that does something to a terminal, and no line that is this one.
    Plain(&'static str),
    /// The same of many calls, which meet what changes under them: they do not all end alike. When these codes are
    /// given, some calls succeed and some end with one of them.
    Raced(&'static [&'static str]),
    /// Its call may be ended at any moment and in any way, once it has begun; where it is to meet a limit, by that
    /// limit. What counts is that the outside, the runner and the next call do not notice.
    Harmless,
    /// It has begun, and was ended by SIGKILL with all it started: it has harmed the process that keeps it.
    LosesItsKeeper,
    /// Nothing is run: exit code 2, and an `error` event that says this.
    Refused(&'static str),
    /// The last call of a hostile tool, or the task, succeeds and says this: it got what everybody gets, and no more.
    Answers(&'static str),
}

/// Whether a path is to lead to a file or to a folder: some tools take the one, some the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Folder,
}

/// What it does.
#[derive(Clone, Copy)]
pub enum Action {
    /// A path: handed to each file tool, and to `cat`, `ls`, `grep` and `tee` in a command.
    Path(fn(&Scene, Kind) -> String),
    /// The arguments of a tool, when a path alone does not say it.
    Call(fn(&Scene, Surface) -> Value),
    /// Two calls of a tool that must be answered alike: where the answers differ, they tell something. The first is
    /// judged.
    Alike(fn(&Scene, Surface) -> [Value; 2]),
    /// A function that this very program, copied into the workspace, runs as a command.
    Program(fn(&Target) -> Outcome),
    /// A script for /bin/sh. It ends with `held WHY` or `through EVIDENCE`, two functions that it is given.
    Script(fn(&Scene) -> String),
    /// A hostile plugin, loaded and called, or refused when it is loaded.
    Component(fn(&Scene) -> Result<Plugin>),
    /// A hostile task document, or what stands around it.
    Task(fn(&Scene) -> TaskInput),
    /// A hostile answer of the model.
    Model(fn(&Scene) -> ModelInput),
}

/// How an attack is known to be real: what the same action does where nothing holds it back.
#[derive(Clone, Copy)]
pub enum Baseline {
    /// It gets through.
    Same,
    /// It gets through, unless the machine itself refuses it with one of these errors, for this reason. Then it is
    /// counted apart, and not as held.
    Unless(&'static [i32], &'static str),
    /// It gets through for somebody who holds every capability in namespaces of his own, where it harms nobody.
    InNamespaces,
    /// The same, unless the machine refuses it.
    InNamespacesUnless(&'static [i32], &'static str),
    /// Something smaller that shows the same; the error says what did not work.
    Bounded(fn(&Scene) -> Result<()>),
    /// The same in a form that does no harm, through the same runner, succeeds: it is the harm that is refused, and not
    /// the form.
    Harmless(Action),
}

/// One attack.
#[derive(Clone, Copy)]
pub struct Attack {
    /// `class/what-it-is`.
    pub id: &'static str,
    pub class: Class,
    /// One plain sentence: what it tries.
    pub what: &'static str,
    pub surfaces: &'static [Surface],
    /// What lies in the workspace before.
    pub setup: fn(&Scene) -> Result<()>,
    pub action: Action,
    pub expect: Expect,
    pub baseline: Baseline,
    /// With these protections switched off together, and no others, it gets through. Empty when what holds it has no
    /// switch (the file tools' paths, the parsers).
    pub falls_without: &'static [Protection],
    /// Whether it can end otherwise on another kernel or as another user: what it does reaches the kernel. What is left
    /// is held by the runner's own code alone, which is the same everywhere.
    pub differs: bool,
    /// Whether it makes sense in a live pod.
    pub live: bool,
    /// Whether a component's path is to be resolved in it. Of the files' chapter that is known.
    pub resolves_paths: bool,
    /// Whether image and workspace have to be on one file system, where there are two to choose from.
    pub beside_image: bool,
    /// Variables for the runner, besides the usual ones.
    pub env: &'static [(&'static str, &'static str)],
    /// How long a command may take, in seconds.
    pub seconds: u64,
    /// How often a tool is called, all in one turn.
    pub repeat: usize,
    /// The command that runs after it, as a call or step of its own: prints `still-here` when all is well.
    pub then: &'static str,
}

/// What is said when a next call works.
pub const STILL_HERE: &str = "still-here";
/// The next call of most attacks.
const NEXT: &str = "echo still-here";

impl Attack {
    const fn new(id: &'static str, class: Class, what: &'static str, action: Action) -> Self {
        Self {
            id,
            class,
            what,
            surfaces: PATHS,
            setup: |_| Ok(()),
            action,
            expect: Expect::Contained,
            baseline: Baseline::Same,
            falls_without: &[],
            differs: true,
            live: true,
            resolves_paths: false,
            beside_image: false,
            env: &[],
            seconds: 30,
            repeat: 1,
            then: NEXT,
        }
    }

    pub const fn path(id: &'static str, what: &'static str, path: fn(&Scene, Kind) -> String) -> Self {
        let mut attack = Self::new(id, Class::Files, what, Action::Path(path));
        attack.expect = Expect::Denied(&["denied"]);
        attack
    }

    pub const fn call(id: &'static str, what: &'static str, call: fn(&Scene, Surface) -> Value) -> Self {
        let mut attack = Self::new(id, Class::Files, what, Action::Call(call));
        attack.surfaces = FILE_TOOLS;
        attack
    }

    pub const fn program(id: &'static str, class: Class, what: &'static str, run: fn(&Target) -> Outcome) -> Self {
        let mut attack = Self::new(id, class, what, Action::Program(run));
        attack.surfaces = COMMANDS;
        attack
    }

    pub const fn script(id: &'static str, class: Class, what: &'static str, script: fn(&Scene) -> String) -> Self {
        let mut attack = Self::new(id, class, what, Action::Script(script));
        attack.surfaces = COMMANDS;
        attack
    }

    pub const fn component(id: &'static str, what: &'static str, plugin: fn(&Scene) -> Result<Plugin>) -> Self {
        let mut attack = Self::new(id, Class::Components, what, Action::Component(plugin));
        attack.surfaces = &[Surface::Component];
        attack.differs = false;
        attack
    }

    pub const fn task(id: &'static str, what: &'static str, task: fn(&Scene) -> TaskInput) -> Self {
        let mut attack = Self::new(id, Class::Input, what, Action::Task(task));
        attack.surfaces = &[Surface::Task];
        attack.differs = false;
        attack
    }

    pub const fn model(id: &'static str, what: &'static str, model: fn(&Scene) -> ModelInput) -> Self {
        let mut attack = Self::new(id, Class::Input, what, Action::Model(model));
        attack.surfaces = &[Surface::Model];
        attack.differs = false;
        attack
    }

    /// How many calls of a file tool it makes.
    pub fn calls(&self) -> usize {
        match self.action {
            Action::Alike(_) => 2,
            _ => self.repeat,
        }
    }

    /// Whether it is about how a path is resolved, so that it depends on what the kernel offers for that.
    pub fn resolves_paths(&self) -> bool {
        self.class == Class::Files || self.resolves_paths
    }

    pub const fn resolving_paths(mut self) -> Self {
        self.resolves_paths = true;
        self.differing()
    }

    /// It moves something between image and workspace.
    pub const fn beside_image(mut self) -> Self {
        self.beside_image = true;
        self
    }

    /// It can end otherwise on another kernel, or as another user.
    pub const fn differing(mut self) -> Self {
        self.differs = true;
        self
    }

    /// One surface of each kind. Those of a kind reach the kernel by the same code: both ways to run a command, and the
    /// tools that only read.
    pub fn surfaces_of_each_kind(&self) -> Vec<Surface> {
        let kinds: [&[Surface]; 6] = [
            &[Surface::ReadFile, Surface::Grep, Surface::ListFiles],
            &[Surface::WriteFile],
            &[Surface::Step, Surface::Shell],
            &[Surface::Component],
            &[Surface::Task],
            &[Surface::Model],
        ];
        let first = |kind: &&[Surface]| kind.iter().copied().find(|surface| self.surfaces.contains(surface));
        kinds.iter().filter_map(first).collect()
    }

    /// Whether the command after it looks for what it left.
    pub fn looks_afterwards(&self) -> bool {
        self.then != NEXT
    }

    pub const fn alike(id: &'static str, what: &'static str, calls: fn(&Scene, Surface) -> [Value; 2]) -> Self {
        let mut attack = Self::new(id, Class::Files, what, Action::Alike(calls));
        attack.surfaces = FILE_TOOLS;
        attack
    }

    pub const fn of_class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    pub const fn on(mut self, surfaces: &'static [Surface]) -> Self {
        self.surfaces = surfaces;
        self
    }

    pub const fn setup(mut self, setup: fn(&Scene) -> Result<()>) -> Self {
        self.setup = setup;
        self
    }

    pub const fn expect(mut self, expect: Expect) -> Self {
        self.expect = expect;
        self
    }

    pub const fn baseline(mut self, baseline: Baseline) -> Self {
        self.baseline = baseline;
        self
    }

    pub const fn falls_without(mut self, protections: &'static [Protection]) -> Self {
        self.falls_without = protections;
        self
    }

    pub const fn env(mut self, env: &'static [(&'static str, &'static str)]) -> Self {
        self.env = env;
        self
    }

    pub const fn seconds(mut self, seconds: u64) -> Self {
        self.seconds = seconds;
        self
    }

    pub const fn repeat(mut self, times: usize) -> Self {
        self.repeat = times;
        self
    }

    pub const fn then(mut self, script: &'static str) -> Self {
        self.then = script;
        self
    }

    pub const fn not_live(mut self) -> Self {
        self.live = false;
        self
    }
}

/// A plugin folder of the attacker's own, and what is asked of it.
#[derive(Clone, Debug, Default)]
pub struct Plugin {
    /// Paths under the plugin folder, with their content: `plugin.toml`s and components. The runner's own tools are
    /// laid beside them.
    pub files: Vec<(String, Vec<u8>)>,
    /// Modes of paths under the plugin folder, set after all else is there.
    pub modes: Vec<(String, u32)>,
    /// The tools that the task names.
    pub tools: Vec<String>,
    /// The calls that the model makes, in order: the tool, and its arguments.
    pub calls: Vec<(String, Value)>,
    pub env: BTreeMap<String, String>,
}

/// How the runner gets its task.
#[derive(Clone, Debug, Default)]
pub struct TaskInput {
    /// The whole task as `TASK_CONFIG`, or none.
    pub config: Option<String>,
    /// What comes on standard input.
    pub stdin: Option<Vec<u8>>,
    /// Written beside the workspace, and named by `TASK_FILE`.
    pub file: Option<Vec<u8>>,
    /// What the model answers, when it is asked.
    pub replies: Vec<Reply>,
    pub env: BTreeMap<String, String>,
}

/// What the Messages API answers to an ordinary agent task.
#[derive(Clone, Debug, Default)]
pub struct ModelInput {
    pub replies: Vec<Reply>,
    /// Over the defaults of the task.
    pub fields: BTreeMap<String, Value>,
    pub env: BTreeMap<String, String>,
}
