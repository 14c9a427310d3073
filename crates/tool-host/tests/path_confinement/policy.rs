//! One policy, equal verdicts: the same path through every file tool, through the shell and through a workflow's step,
//! in tasks of the real runner with the real sandbox.
//!
//! A verdict is what was reached, and not what was said: reading, listing and searching reach a path when they show
//! what is there, writing does when it is found in the file afterwards. So a command that writes to `../secret.txt` in
//! its own `/tmp` has not reached the file of that name outside.
//!
//! Tools and commands agree about every path of the workspace and of the operator. Where they differ is stated by the
//! kind of the path ([`Kind`]): a command runs in the image, and sees it. It is the same whoever starts the command.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::claude::KEY;
use support::{ApiServer, Claude, RunnerProcess, Turn};
use tempfile::TempDir;

const MODEL: &str = "claude-sonnet-5-5";

/// What files hold, and a folder's only entry is called.
const INSIDE: &str = "what-is-inside";
const OUTSIDE: &str = "what-is-outside";
/// In the runner's environment. Not the key itself: where that is seen, no event says so.
const KEY_NAME: &str = "ANTHROPIC_API_KEY";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Read,
    List,
    Search,
    Write,
}
use Operation::{List, Read, Search, Write};

impl Operation {
    const ALL: [Self; 4] = [Read, List, Search, Write];
}

/// What a path is. The policy is one row of [`Kind::policy`] for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    InsideFile,
    InsideFolder,
    /// Nothing is there, and there may be.
    New,
    /// A file that is asked for as a folder.
    NotAFolder,
    /// Inside, through a link that is absolute. The tools follow none, wherever it leads: they do not learn where the
    /// workspace lies. For a command it is one more name of what it can reach.
    AbsoluteLink,
    Outside,
    /// The runner's own: its components, its environment.
    Protected,
    /// A pipe or a socket in the workspace: nothing to read, and nothing that may make anybody wait.
    Special,
    /// A device that every command has one of, with nothing in it.
    Device,
    /// A device that commands do not have.
    HiddenDevice,
    /// The image: commands run in it and read it; the tools know only the workspace.
    ImageFile,
    ImageFolder,
}

impl Kind {
    /// What the tools reach, and what commands do.
    fn policy(self) -> (&'static [Operation], &'static [Operation]) {
        const FILE: &[Operation] = &[Read, Search, Write];
        const FOLDER: &[Operation] = &[List, Search];
        match self {
            Self::InsideFile => (FILE, FILE),
            Self::InsideFolder => (FOLDER, FOLDER),
            Self::New => (&[Write], &[Write]),
            Self::AbsoluteLink => (&[], FILE),
            Self::Device => (&[], &[Read]),
            Self::ImageFile => (&[], &[Read, Search]),
            Self::ImageFolder => (&[], FOLDER),
            Self::NotAFolder | Self::Outside | Self::Protected | Self::Special | Self::HiddenDevice => (&[], &[]),
        }
    }
}

struct Row {
    kind: Kind,
    path: String,
    /// Shown by who reaches it.
    token: String,
    /// Where a write is found.
    file: PathBuf,
}

/// A workspace with everything in it, and what lies around it.
struct Place {
    folder: TempDir,
    workspace: PathBuf,
    _socket: UnixListener,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::with_prefix("plue-policy-").unwrap();
        let around = folder.path().canonicalize().unwrap();
        let workspace = around.join("workspace");
        let file = |path: &str, content: &str| {
            let path = around.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("{content}\n")).unwrap();
            open_to_all(&path);
            open_to_all(path.parent().unwrap());
        };
        for path in ["secret.txt", "outside/what-is-outside", "workspace-evil/secret.txt"] {
            file(path, OUTSIDE);
        }
        for path in [
            "file.txt",
            "folder/what-is-inside",
            ".hidden",
            "with space",
            "-rf",
            "hard",
            "searched/deep/what-is-inside",
        ] {
            file(&format!("workspace/{path}"), INSIDE);
        }
        fs::hard_link(workspace.join("hard"), workspace.join("hard link")).unwrap();
        for (link, target) in [
            ("link", "file.txt"),
            ("chain", "link"),
            ("to-folder", "folder"),
            ("folder/up", "../file.txt"),
            ("absolute", &format!("{}/file.txt", workspace.display())),
            ("up", ".."),
            ("secret", "../secret.txt"),
            ("secret-absolute", &format!("{}/secret.txt", around.display())),
            ("outside", "../outside"),
            ("dangling", "../made.txt"),
            ("environment", "/proc/self/environ"),
            ("zero", "/dev/zero"),
            ("image", "/usr/lib/os-release"),
        ] {
            symlink(target, workspace.join(link)).unwrap();
        }
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, workspace.join("fifo"), fifo, mode, 0).unwrap();
        // Permissions are not what keeps anybody out.
        open_to_all(&around);
        Self {
            folder,
            _socket: UnixListener::bind(workspace.join("socket")).unwrap(),
            workspace,
        }
    }

    fn rows(&self, plugins: &Path) -> Vec<Row> {
        let (workspace, around) = (self.workspace.display(), self.workspace.parent().unwrap().display());
        let plugins = plugins.display();
        let rows: [(Kind, &str, &str); 47] = [
            (Kind::InsideFile, "file.txt", INSIDE),
            (Kind::InsideFile, "./folder//what-is-inside", INSIDE),
            (Kind::InsideFile, "folder/../file.txt", INSIDE),
            (Kind::InsideFile, &format!("{workspace}/file.txt"), INSIDE),
            (Kind::InsideFile, ".hidden", INSIDE),
            (Kind::InsideFile, "with space", INSIDE),
            (Kind::InsideFile, "-rf", INSIDE),
            (Kind::InsideFile, "link", INSIDE),
            (Kind::InsideFile, "chain", INSIDE),
            (Kind::InsideFile, "to-folder/what-is-inside", INSIDE),
            (Kind::InsideFile, "folder/up", INSIDE),
            (Kind::InsideFile, "to-folder/../file.txt", INSIDE),
            (Kind::InsideFile, "hard link", INSIDE),
            (Kind::InsideFolder, "folder", INSIDE),
            (Kind::InsideFolder, "searched/deep/", INSIDE),
            (Kind::InsideFolder, &format!("{workspace}/folder"), INSIDE),
            (Kind::InsideFolder, "to-folder", INSIDE),
            (Kind::New, "new", INSIDE),
            (Kind::New, "folder/new", INSIDE),
            (Kind::NotAFolder, "file.txt/", INSIDE),
            (Kind::NotAFolder, "file.txt/below", INSIDE),
            (Kind::AbsoluteLink, "absolute", INSIDE),
            (Kind::Outside, "../secret.txt", OUTSIDE),
            (Kind::Outside, "folder/../../secret.txt", OUTSIDE),
            (Kind::Outside, &format!("{around}/secret.txt"), OUTSIDE),
            (Kind::Outside, &format!("{workspace}/../secret.txt"), OUTSIDE),
            (Kind::Outside, &format!("{workspace}-evil/secret.txt"), OUTSIDE),
            (Kind::Outside, "../outside", OUTSIDE),
            (Kind::Outside, "secret", OUTSIDE),
            (Kind::Outside, "secret-absolute", OUTSIDE),
            (Kind::Outside, "up/secret.txt", OUTSIDE),
            (Kind::Outside, "outside/what-is-outside", OUTSIDE),
            (Kind::Outside, "outside", OUTSIDE),
            (Kind::Outside, "dangling", OUTSIDE),
            (Kind::Outside, &format!("/proc/self/root{around}/secret.txt"), OUTSIDE),
            (Kind::Outside, "/proc/self/cwd/../secret.txt", OUTSIDE),
            (
                Kind::Protected,
                &format!("{plugins}/read-file/plugin.toml"),
                "read_file",
            ),
            (Kind::Protected, &format!("{plugins}/"), "read-file"),
            (Kind::Protected, "environment", KEY_NAME),
            (Kind::Protected, "/proc/1/environ", KEY_NAME),
            (Kind::Special, "fifo", ""),
            (Kind::Special, "socket", ""),
            (Kind::Device, "zero", ""),
            (Kind::HiddenDevice, "/dev/kmsg", ""),
            (Kind::ImageFile, "image", "NAME="),
            (Kind::ImageFile, "/usr/lib/os-release", "NAME="),
            (Kind::ImageFolder, "/etc", "passwd"),
        ];
        let row = |(kind, path, token): (Kind, &str, &str)| Row {
            kind,
            path: path.to_owned(),
            token: token.to_owned(),
            file: self.workspace.join(path),
        };
        rows.into_iter().map(row).collect()
    }
}

fn open_to_all(path: &Path) {
    let mode = if path.is_dir() { 0o777 } else { 0o666 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Who asks.
const WAYS: [&str; 3] = ["tool", "shell", "step"];
const TOOL: usize = 0;
const SHELL: usize = 1;
const STEP: usize = 2;

/// What is written, so that it is known whose it is; in a file of the image, a comment.
fn mark(row: usize, way: usize) -> String {
    format!("# written by the {} in row {row}", WAYS[way])
}

/// The calls of a row, in the order of [`Operation::ALL`], the tool's before the shell's.
fn calls(number: usize, row: &Row) -> Turn {
    let path = &row.path;
    let mut turn = Turn::new();
    for operation in Operation::ALL {
        let (tool, input) = match operation {
            Read => ("read_file", json!({"path": path})),
            List => ("list_files", json!({"path": path, "max_results": 10_000})),
            Search => (
                "grep",
                json!({"path": path, "pattern": row.token, "max_results": 10_000}),
            ),
            Write => {
                let content = format!("{}\n", mark(number, TOOL));
                ("write_file", json!({"path": path, "content": content, "append": true}))
            }
        };
        turn = turn.call(&id(number, operation, TOOL), tool, input);
        let command = command(number, row, operation, SHELL);
        turn = turn.call(&id(number, operation, SHELL), "shell", json!({"command": command}));
    }
    turn
}

/// The same as a command. Nothing here takes longer but to wait, for a pipe or a device without an end.
fn command(number: usize, row: &Row, operation: Operation, way: usize) -> String {
    let quoted = format!("'{}'", row.path.replace('\'', r"'\''"));
    match operation {
        Read => format!("timeout 2 head -c 4096 -- {quoted}"),
        List => format!("timeout 2 ls -A -- {quoted}/."),
        Search => format!("timeout 2 grep -r -a -D skip -e '{}' -- {quoted}", row.token),
        Write => format!(
            "echo '{}' | timeout 2 tee -a -- {quoted} > /dev/null",
            mark(number, way)
        ),
    }
}

fn id(row: usize, operation: Operation, way: usize) -> String {
    format!("toolu_{row}_{operation:?}_{}", WAYS[way])
}

#[tokio::test]
async fn the_tools_the_shell_and_a_step_agree_about_every_path() {
    let plugins = RunnerProcess::built().plugins().canonicalize().unwrap();
    // One workspace for the agent and one for the workflow: what the one has written is there for the other to read.
    let (agent, workflow) = (Place::new(), Place::new());
    let [rows, of_steps] = [&agent, &workflow].map(|place| place.rows(&plugins));
    assert!(rows.len() >= 25);
    // What is refused is there to be had, by anybody who is not confined.
    let there = |row: &&Row| row.kind == Kind::Outside && row.file.exists();
    assert!(rows.iter().filter(there).count() >= 12);
    let mut reached = by_an_agent(&agent, &rows).await;
    reached.extend(by_steps(&workflow, &of_steps).await);

    let mut table = format!("{:<14} {:<60}", "kind", "path");
    for way in ["tools", "shell", "step"] {
        let _ = write!(table, " {way:<26}");
    }
    table.push('\n');
    let mut wrong = 0;
    for (number, row) in rows.iter().enumerate() {
        let (tools, commands) = row.kind.policy();
        let mut cells = String::new();
        for (way, expected) in [tools, commands, commands].into_iter().enumerate() {
            let mine = |operation: &Operation| reached.contains(&id(number, *operation, way));
            let verdict: Vec<Operation> = Operation::ALL.into_iter().filter(mine).collect();
            let is_right = same(&verdict, expected);
            wrong += usize::from(!is_right);
            let cell = if is_right {
                words(&verdict)
            } else {
                format!("{} NOT {}", words(&verdict), words(expected))
            };
            let _ = write!(cells, " {cell:<26}");
        }
        let _ = writeln!(table, "{:<14} {:<60}{cells}", format!("{:?}", row.kind), row.path);
    }
    assert_eq!(wrong, 0, "verdicts that are not the policy's are marked NOT:\n{table}");
    agent.nothing_outside_has_changed();
    workflow.nothing_outside_has_changed();
}

/// What was reached, by [`id`].
type Reached = BTreeSet<String>;

/// Every path through the tools and the shell, one turn of the model for each.
async fn by_an_agent(place: &Place, rows: &[Row]) -> Reached {
    let mut turns: Vec<Turn> = rows
        .iter()
        .enumerate()
        .map(|(number, row)| calls(number, row))
        .collect();
    turns.push(Turn::says("Done."));
    let model = Claude::script(turns).await.unwrap();
    let task = json!({
        "type": "agent",
        "model": MODEL,
        "max_turns": 100,
        "tools": ["read_file", "write_file", "list_files", "grep", "shell"],
        "messages": [{ "role": "user", "content": "Go." }],
    });
    place.run(&task, Some(&model)).await;
    let requests = model.requests();
    let mut reached = Reached::new();
    for (number, row) in rows.iter().enumerate() {
        let results = requests[number + 1].results();
        for (way, operation) in [TOOL, SHELL]
            .into_iter()
            .flat_map(|way| Operation::ALL.map(|one| (way, one)))
        {
            let wanted = id(number, operation, way);
            let result = results.iter().find(|result| result.id == wanted).unwrap();
            let is_reached = match operation {
                Write => holds(&row.file, &mark(number, way)),
                _ if way == TOOL => !result.is_error && result.text.contains(&row.token),
                _ => {
                    let (output, rest) = result.text.split_once("\n\nSTDERR:\n").unwrap();
                    !result.is_error && shows(output, rest.ends_with("EXIT CODE: 0"), &row.token)
                }
            };
            if is_reached {
                reached.insert(wanted);
            }
        }
    }
    reached
}

/// Every path through steps of a workflow, a step for each operation.
async fn by_steps(place: &Place, rows: &[Row]) -> Reached {
    const WELL: &str = "it went well";
    let asked: Vec<(usize, Operation)> = (0..rows.len())
        .flat_map(|number| Operation::ALL.map(|one| (number, one)))
        .collect();
    let step = |(number, operation): &(usize, Operation)| {
        let command = command(*number, &rows[*number], *operation, STEP);
        // A step that fails would be the last one. What is shown may end without a new line.
        json!({ "run": format!("{{ {command}; }} && echo && echo '{WELL}' || true") })
    };
    let steps: Vec<Value> = asked.iter().map(step).collect();
    let api = place.run(&json!({ "type": "workflow", "steps": steps }), None).await;
    let mut outputs = vec![String::new(); asked.len()];
    for log in api.events_of("log").iter().filter(|log| log["level"] == "stdout") {
        let index = usize::try_from(log["step_index"].as_u64().unwrap()).unwrap();
        outputs[index] += log["message"].as_str().unwrap();
        outputs[index].push('\n');
    }
    let mut reached = Reached::new();
    for ((number, operation), output) in asked.into_iter().zip(outputs) {
        let row = &rows[number];
        let is_reached = match operation {
            Write => holds(&row.file, &mark(number, STEP)),
            _ => shows(&output, output.contains(WELL), &row.token),
        };
        if is_reached {
            reached.insert(id(number, operation, STEP));
        }
    }
    reached
}

impl Place {
    /// Runs a task that succeeds, in the real sandbox.
    async fn run(&self, task: &Value, model: Option<&Claude>) -> ApiServer {
        let api = ApiServer::with().start().await.unwrap();
        let mut runner = RunnerProcess::built()
            .env("MODE", "active")
            .env("TASK_ID", "task-7")
            .env("TASK_CONFIG", task.to_string())
            .env("CALLBACK_URL", api.url())
            .env("WORKSPACE", self.workspace.to_str().unwrap())
            .env("ANTHROPIC_API_KEY", KEY)
            .env("ALLOWED_MODELS", MODEL);
        if let Some(model) = model {
            runner = runner.env("ANTHROPIC_BASE_URL", model.url());
        }
        let finished = runner.run().await.unwrap();
        let report = format!("{}{}", finished.stdout, finished.stderr);
        assert_eq!(finished.code, 0, "{report}");
        let end = api.terminal().unwrap();
        assert_eq!(
            (&end["type"], &end["sandbox"]),
            (&json!("done"), &json!("strict")),
            "{report}"
        );
        api
    }
}

/// Whether a regular file, links followed, has this in it.
fn holds(file: &Path, mark: &str) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file())
        && fs::read(file).is_ok_and(|content| String::from_utf8_lossy(&content).contains(mark))
}

/// Whether a command's output shows what is there; where there is nothing to show, whether the command went well.
fn shows(output: &str, went_well: bool, token: &str) -> bool {
    if token.is_empty() {
        return went_well;
    }
    output.contains(token)
}

fn same(reached: &[Operation], expected: &[Operation]) -> bool {
    Operation::ALL
        .iter()
        .all(|one| reached.contains(one) == expected.contains(one))
}

fn words(operations: &[Operation]) -> String {
    let words: Vec<String> = operations.iter().map(|one| format!("{one:?}").to_lowercase()).collect();
    if words.is_empty() {
        "refused".to_owned()
    } else {
        words.join(" ")
    }
}

impl Place {
    fn nothing_outside_has_changed(&self) {
        let around = self.folder.path();
        for path in ["secret.txt", "outside/what-is-outside", "workspace-evil/secret.txt"] {
            assert_eq!(fs::read_to_string(around.join(path)).unwrap(), format!("{OUTSIDE}\n"));
        }
        let mut names: Vec<_> = fs::read_dir(around)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["outside", "secret.txt", "workspace", "workspace-evil"]);
    }
}
