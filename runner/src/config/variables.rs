//! The environment variables: each once, with its name, its kind, its default, what it means and an example. The reader
//! takes the default from here, errors the example, and `docs/reference/environment.md` is written from the table.

use plue_sandbox::strict::{DEFAULT_OPEN_FILES, DEFAULT_PROCESSES};

use crate::events::SpoolConfig;

/// One environment variable. What its default is of tells how it is read: [`Number`], [`Text`], [`Unset`] or
/// [`Derived`].
#[derive(Clone, Copy, Debug)]
pub struct Variable<D> {
    pub name: &'static str,
    /// What counts when it is not set.
    pub default: D,
    pub meaning: &'static str,
    pub example: &'static str,
}

/// A whole number.
pub type Number = u64;
/// A text, that the reader may want in one of several forms.
pub type Text = &'static str;
/// Without a default: nothing is there, or something is missing.
#[derive(Clone, Copy, Debug)]
pub struct Unset;
/// The default is found out where the runner is; these words say how.
#[derive(Clone, Copy, Debug)]
pub struct Derived(pub &'static str);

impl<D> Variable<D> {
    /// What is wrong with it, in the form that all such errors have: its name, the problem, an example.
    pub fn wrong(&self, problem: &str) -> String {
        let Self { name, example, .. } = self;
        format!("{name}: {problem} (example: {name}={example})")
    }
}

/// One row of the reference.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: &'static str,
    /// Empty when there is none.
    pub default: String,
    /// Whether it is as if the variable were set to that text. Otherwise it is in words, or there is none.
    pub is_a_value: bool,
    pub meaning: &'static str,
    pub example: &'static str,
}

/// A default, as the reference shows it, and whether the variable could be set to it.
trait Shown {
    fn shown(&self) -> (String, bool);
}

impl Shown for Number {
    fn shown(&self) -> (String, bool) {
        (self.to_string(), true)
    }
}

impl Shown for Text {
    fn shown(&self) -> (String, bool) {
        ((*self).to_owned(), true)
    }
}

impl Shown for Unset {
    fn shown(&self) -> (String, bool) {
        (String::new(), false)
    }
}

impl Shown for Derived {
    fn shown(&self) -> (String, bool) {
        (self.0.to_owned(), false)
    }
}

macro_rules! variables {
    ($($name:ident: $kind:ty = $default:expr, $meaning:literal, $example:literal;)*) => {
        $(
            #[doc = $meaning]
            pub const $name: Variable<$kind> = Variable {
                name: stringify!($name),
                default: $default,
                meaning: $meaning,
                example: $example,
            };
        )*

        /// All variables that the runner reads, in the order in which a reader wants them.
        pub fn table() -> Vec<Row> {
            vec![$({
                let (default, is_a_value) = $name.default.shown();
                Row { name: $name.name, default, is_a_value, meaning: $name.meaning, example: $name.example }
            },)*]
        }
    };
}

variables! {
    MODE: Text = "active",
        "`active`: run one task now, and exit; `standby`: register at the API server, and run one task after the other",
        "standby";
    TASK_ID: Unset = Unset,
        "active: the task's id, sent back in every event; required",
        "42";
    CALLBACK_URL: Unset = Unset,
        "active: where events go, `http` or `https`; required",
        "http://api.internal/tasks/42/stream";
    CALLBACK_TOKEN: Unset = Unset,
        "sent to the API server as `Authorization: Bearer …`",
        "s3cr3t-token";
    CALLBACK_TOKEN_FILE: Unset = Unset,
        "a file with the token, in place of `CALLBACK_TOKEN`. Files with secrets are read again for each task, and \
            this one also when the server answers 401; commands do not see the folder that they are in",
        "/run/secrets/plue/CALLBACK_TOKEN";
    CALLBACK_RETRY_BASE_MS: Number = 500,
        "the first wait before an event is sent again, in milliseconds",
        "500";
    CALLBACK_TIMEOUT: Number = 30,
        "how long one request to the API server may take, in seconds",
        "30";
    CALLBACK_BATCH: Text = "off",
        "`ndjson`: all events that wait go in one request, one a line (`application/x-ndjson`), to a server that \
            takes that",
        "ndjson";
    CALLBACK_MAX_BODY: Text = "1Mi",
        "the largest body that the callback, and what stands before it, takes, as JSON: bytes, or with `Ki`, `Mi`; \
            from `4Ki` to `16Mi`. What is larger is sent in parts, or cut with a note. After a 413 the runner goes on \
            with half of what was refused",
        "64Ki";
    CALLBACK_EXTRA_EVENTS: Text = "0",
        "`1` sends `thinking`, `tool_output` and `usage` events too, and in active mode `alive` when nothing else was \
            sent for 15 s",
        "1";
    FLUSH_TIMEOUT: Number = 600,
        "how long undelivered events are waited for at the end, in seconds",
        "600";
    SHUTDOWN_GRACE: Number = 25,
        "how long the ending may take after SIGTERM, in seconds",
        "25";
    SPOOL_DIR: Text = SpoolConfig::DEFAULT_FOLDER,
        "the folder for events that wait and do not fit in memory (16 MiB), for what `plue-runner health` reads and, \
            in standby, for what a runner that is started again has to know: a volume that outlives the container",
        "/var/spool/plue";
    STATE_DIR: Unset = Unset,
        "a folder in which is kept what a task has done, for a runner that is started again with the same `TASK_ID` \
            after this one was killed: it goes on where that one was; standby: events that wait, which the next \
            process tells before it ends the task. On a volume that outlives the container; the runner's alone, hidden \
            from commands and not in `WORKSPACE`. Made when it is not there",
        "/var/lib/plue/state";
    SPOOL_SIZE: Text = "512Mi",
        "how much may wait there: bytes, or with `Ki`, `Mi`, `Gi`. Beyond it, and on a full disk, log lines are cut",
        "256Mi";
    REGISTER_URL: Unset = Unset,
        "standby: where the runner registers and asks for tasks; required",
        "http://api.internal/internal/runners/register";
    CALLBACK_ORIGINS: Unset = Unset,
        "standby: origins besides that of `REGISTER_URL` to which a task's events take `CALLBACK_TOKEN` along, \
            separated by commas",
        "https://events.internal,http://api-2.internal:8080";
    POD_NAME: Derived = Derived("the host name"),
        "standby: the name to register under, of at most 255 characters; each runner needs one of its own",
        "plue-runner-7d9f";
    POD_IP: Text = "unknown",
        "standby: the pod's address, sent with the registration",
        "10.0.0.7";
    NODE_NAME: Unset = Unset,
        "standby: the node's name, sent with the registration",
        "node-3";
    RUNNER_LABELS: Unset = Unset,
        "standby: labels of the runner, separated by commas, sent with the registration",
        "linux,large";
    HEARTBEAT_SECONDS: Number = 15,
        "standby: how often the server hears that the runner lives; a worker that is silent for four times that is \
            lost",
        "15";
    HEARTBEAT_TIMEOUT: Number = 60,
        "standby: after how many seconds without a heartbeat the API server gives a runner's task to another one",
        "60";
    STANDBY_MAX_TASKS: Number = 0,
        "standby: after how many tasks the runner exits with 0; `0`: never",
        "100";
    TASK_CONFIG: Unset = Unset,
        "active: the task as JSON; without it and `TASK_FILE`, the task is read from standard input",
        r#"{"type":"workflow","steps":[{"run":"make test"}]}"#;
    TASK_FILE: Unset = Unset,
        "active: a file with the task as JSON or YAML",
        "task.yaml";
    TASK_TIMEOUT: Number = 0,
        "how long a task may take that has no `timeout_seconds`, in seconds; `0`: as long as it likes",
        "3600";
    WORKSPACE: Text = "/workspace",
        "the folder that tools and commands see as the workspace",
        "/workspace";
    PLUGIN_DIR: Derived = Derived("`plugins/` beside the binary"),
        "where the tools' components are",
        "/opt/plue/plugins";
    ANTHROPIC_API_KEY: Unset = Unset,
        "the key for the Messages API; required for an agent task",
        "sk-ant-…";
    ANTHROPIC_API_KEY_FILE: Unset = Unset,
        "a file with the key, in place of `ANTHROPIC_API_KEY`",
        "/run/secrets/plue/ANTHROPIC_API_KEY";
    ANTHROPIC_BASE_URL: Text = "https://api.anthropic.com",
        "the Messages API, or a gateway that speaks it",
        "https://gateway.internal/anthropic";
    ANTHROPIC_AUTH_STYLE: Text = "x-api-key",
        "`x-api-key` or `bearer`: the one header that carries the key",
        "bearer";
    MODEL_PATIENCE: Number = 600,
        "how long one turn of the model may be waited for, in seconds, all attempts and the waits between them \
            together; `Retry-After` is obeyed as far as that",
        "1800";
    MODEL_STALL_TIMEOUT: Number = 300,
        "how long nothing of an answer may come, while pings or empty pieces do, before it is asked for again, in \
            seconds",
        "120";
    USE_PROXY: Text = "0",
        "`1`: the Messages API, the API server and the collector are reached by the proxies of the following \
            variables, which count for nothing without it",
        "1";
    HTTPS_PROXY: Unset = Unset,
        "the proxy for `https` URLs, `http://` or `https://`, which may have a user and a password; `https_proxy` \
            comes first",
        "http://proxy.internal:3128";
    HTTPS_PROXY_FILE: Unset = Unset,
        "a file with the same, in place of `HTTPS_PROXY`",
        "/run/secrets/plue/HTTPS_PROXY";
    HTTP_PROXY: Unset = Unset,
        "the proxy for `http` URLs, which sees every header and body; `http_proxy` comes first",
        "http://proxy.internal:3128";
    HTTP_PROXY_FILE: Unset = Unset,
        "a file with the same, in place of `HTTP_PROXY`",
        "/run/secrets/plue/HTTP_PROXY";
    NO_PROXY: Unset = Unset,
        "what is reached without a proxy, separated by commas: hosts with all below them, addresses, networks, or `*`; \
            nothing by itself, not even loopback. `no_proxy` comes first",
        ".svc.cluster.local,10.0.0.0/8,127.0.0.1";
    EXTRA_CA_CERTS: Unset = Unset,
        "a PEM file with certificates of authorities that are trusted besides the system's, for the Messages API, the \
            API server, the collector and a proxy",
        "/etc/plue/ca/ca.crt";
    ALLOWED_MODELS: Unset = Unset,
        "models that a task may ask for besides the built-in list, separated by commas",
        "claude-sonnet-5-5,claude-haiku-5-5";
    MODEL_ALIASES: Unset = Unset,
        "`asked=sent` pairs: what is sent in place of a model that a task asks for. Without one, a model that is \
            retired is replaced by today's of its family; `none` in the list: it is not",
        "claude-sonnet-4-20250514=claude-sonnet-5-5";
    ALLOWED_TOOLS: Text = "read_file,write_file,list_files,grep,shell",
        "the tools that a task may name, plugins included; set to nothing: none",
        "read_file,grep,my_tool";
    SANDBOX: Text = "strict",
        "how commands are confined: `strict`, or `weak` (clean environment, own session, bounded time, and nothing \
            else)",
        "weak";
    COMMAND_NETWORK: Text = "none",
        "`none`: commands have a loopback of their own; `pod`: they have the pod's network",
        "pod";
    COMMAND_READ_PATHS: Unset = Unset,
        "folders below the hidden ones that commands may read, separated by commas",
        "/home/me/.rustup,/home/me/.cargo";
    COMMAND_MEMORY: Derived = Derived("3/4 of the pod's limit"),
        "what all processes of one command may use together: bytes, or with `Ki`, `Mi`, `Gi`",
        "2Gi";
    COMMAND_PROCESSES: Number = DEFAULT_PROCESSES as u64,
        "how many processes one command may have at a time",
        "256";
    COMMAND_TMP_SIZE: Derived = Derived("4Gi on a disk; in memory, half of `COMMAND_MEMORY`"),
        "how much the commands of a task may keep in `/tmp`, where `HOME` is too, and `/var/tmp`: bytes, or with `Ki`, \
            `Mi`, `Gi`. They lie where the runner's temporary files do (`TMPDIR`), unless that is memory",
        "10Gi";
    COMMAND_OPEN_FILES: Number = DEFAULT_OPEN_FILES,
        "how many files each process of a command may have open at a time, if the runner may have so many",
        "8192";
    COMMAND_GRACE: Derived = Derived("10, or two fifths of a `SHUTDOWN_GRACE` below 25"),
        "how long a command that is to end has between SIGTERM and SIGKILL, in seconds: at most two fifths of \
            `SHUTDOWN_GRACE`",
        "5";
    GIT_AUTHOR_NAME: Unset = Unset,
        "who is the author of what commands commit; without it, `Plue Runner`, unless the repository says who",
        "Release Bot";
    GIT_AUTHOR_EMAIL: Unset = Unset,
        "the author's address",
        "bot@example.com";
    GIT_COMMITTER_NAME: Unset = Unset,
        "who commits, likewise",
        "Release Bot";
    GIT_COMMITTER_EMAIL: Unset = Unset,
        "the committer's address",
        "bot@example.com";
    LOG_LEVEL: Text = "INFO",
        "`DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`, in any letter case; `module=LEVEL` for one module of the \
         runner or for another crate, separated by commas",
        "INFO,events=DEBUG";
    REQUEST_ID: Unset = Unset,
        "in every log line, and on every request as `X-Request-ID`",
        "req-7f3a";
    TRACEPARENT: Unset = Unset,
        "the trace that the task belongs to (W3C trace context); carried on to the Messages API and the callback",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    OTEL_EXPORTER_OTLP_ENDPOINT: Unset = Unset,
        "where traces and metrics go, by OTLP over HTTP (`http/protobuf`); without it there are none",
        "http://collector.observability:4318";
    OTEL_EXPORTER_OTLP_HEADERS: Unset = Unset,
        "headers for that endpoint: `name=value` pairs, separated by commas, values URL-encoded",
        "authorization=Bearer%20s3cr3t";
    OTEL_EXPORTER_OTLP_HEADERS_FILE: Unset = Unset,
        "a file with the same, in place of `OTEL_EXPORTER_OTLP_HEADERS`",
        "/run/secrets/plue/OTEL_EXPORTER_OTLP_HEADERS";
    OTEL_SERVICE_NAME: Text = "plue-runner",
        "the service's name in traces and metrics",
        "plue-runner";
    OTEL_RESOURCE_ATTRIBUTES: Unset = Unset,
        "what else is said of the service: `name=value` pairs, separated by commas, values URL-encoded",
        "deployment.environment.name=staging";
}
