//! The table of environment variables: `docs/reference/environment.md` is written from it, and errors explain a variable by it.

/// One environment variable, as the reference shows it and as errors explain it.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    pub name: &'static str,
    /// Empty when there is none.
    pub default: &'static str,
    pub meaning: &'static str,
    pub example: &'static str,
}

/// All variables that the runner reads, in the order in which a reader wants them.
pub const VARIABLES: &[Variable] = &[
    variable(
        "MODE",
        "active",
        "`active`: run one task now, and exit; `standby`: register at the API server, and run one task after the other",
        "standby",
    ),
    variable(
        "TASK_ID",
        "",
        "active: the task's id, sent back in every event; required",
        "42",
    ),
    variable(
        "CALLBACK_URL",
        "",
        "active: where events go, `http` or `https`; required",
        "http://api.internal/tasks/42/stream",
    ),
    variable(
        "CALLBACK_TOKEN",
        "",
        "sent to the API server as `Authorization: Bearer …`",
        "s3cr3t-token",
    ),
    variable(
        "CALLBACK_RETRY_BASE_MS",
        "500",
        "the first wait before an event is sent again, in milliseconds",
        "500",
    ),
    variable(
        "CALLBACK_TIMEOUT",
        "30",
        "how long one request to the API server may take, in seconds",
        "30",
    ),
    variable(
        "CALLBACK_BATCH",
        "off",
        "`ndjson`: all events that wait go in one request, one a line (`application/x-ndjson`), to a server that takes that",
        "ndjson",
    ),
    variable(
        "CALLBACK_EXTRA_EVENTS",
        "0",
        "`1` sends `thinking`, `tool_output` and `usage` events too",
        "1",
    ),
    variable(
        "FLUSH_TIMEOUT",
        "600",
        "how long undelivered events are waited for at the end, in seconds",
        "600",
    ),
    variable(
        "SHUTDOWN_GRACE",
        "25",
        "how long the ending may take after SIGTERM, in seconds",
        "25",
    ),
    variable(
        "SPOOL_DIR",
        "/tmp",
        "the folder for events that wait and do not fit in memory (16 MiB), for what `plue-runner health` reads and, in \
         standby, for what a runner that is started again has to know: a volume that outlives the container",
        "/var/spool/plue",
    ),
    variable(
        "SPOOL_SIZE",
        "512Mi",
        "how much may wait there: bytes, or with `Ki`, `Mi`, `Gi`. Beyond it, and on a full disk, log lines are cut",
        "256Mi",
    ),
    variable(
        "REGISTER_URL",
        "",
        "standby: where the runner registers and asks for tasks; required",
        "http://api.internal/internal/runners/register",
    ),
    variable(
        "POD_NAME",
        "the host name",
        "standby: the name to register under, of at most 255 characters; each runner needs one of its own",
        "plue-runner-7d9f",
    ),
    variable("POD_IP", "unknown", "standby: the pod's address, likewise", "10.0.0.7"),
    variable("NODE_NAME", "", "standby: the node's name, likewise", "node-3"),
    variable(
        "RUNNER_LABELS",
        "",
        "standby: labels of the runner, separated by commas, likewise",
        "linux,large",
    ),
    variable(
        "HEARTBEAT_SECONDS",
        "15",
        "standby: how often the server hears that the runner lives; a worker that is silent for four times that is lost",
        "15",
    ),
    variable(
        "HEARTBEAT_TIMEOUT",
        "60",
        "standby: after how many seconds without a heartbeat the API server gives a runner's task to another one",
        "60",
    ),
    variable(
        "STANDBY_MAX_TASKS",
        "0",
        "standby: after how many tasks the runner exits with 0; `0`: never",
        "100",
    ),
    variable(
        "TASK_CONFIG",
        "",
        "active: the task as JSON; without it and `TASK_FILE`, the task is read from standard input",
        r#"{"type":"workflow","steps":[{"run":"make test"}]}"#,
    ),
    variable(
        "TASK_FILE",
        "",
        "active: a file with the task as JSON or YAML",
        "task.yaml",
    ),
    variable(
        "WORKSPACE",
        "/workspace",
        "the folder that tools and commands see as the workspace",
        "/workspace",
    ),
    variable(
        "PLUGIN_DIR",
        "`plugins/` beside the binary",
        "where the tools' components are",
        "/opt/plue/plugins",
    ),
    variable(
        "ANTHROPIC_API_KEY",
        "",
        "the key for the Messages API; required for an agent task",
        "sk-ant-…",
    ),
    variable(
        "ANTHROPIC_BASE_URL",
        "https://api.anthropic.com",
        "the Messages API, or a gateway that speaks it",
        "https://gateway.internal/anthropic",
    ),
    variable(
        "ANTHROPIC_AUTH_STYLE",
        "x-api-key",
        "`x-api-key` or `bearer`: the one header that carries the key",
        "bearer",
    ),
    variable(
        "ALLOWED_MODELS",
        "",
        "models that a task may ask for besides the built-in list, separated by commas",
        "claude-sonnet-5-5,claude-haiku-5-5",
    ),
    variable(
        "MODEL_ALIASES",
        "",
        "`asked=sent` pairs: what is sent in place of a model that a task asks for. Without one, a model that is retired is \
         replaced by today's of its family; `none` in the list: it is not",
        "claude-sonnet-4-20250514=claude-sonnet-5-5",
    ),
    variable(
        "ALLOWED_TOOLS",
        "read_file,write_file,list_files,grep,shell",
        "the tools that a task may name, plugins included; set to nothing: none",
        "read_file,grep,my_tool",
    ),
    variable(
        "SANDBOX",
        "strict",
        "how commands are confined: `strict`, or `weak` (clean environment, own session, bounded time, and nothing else)",
        "weak",
    ),
    variable(
        "COMMAND_NETWORK",
        "none",
        "`none`: commands have a loopback of their own; `pod`: they have the pod's network",
        "pod",
    ),
    variable(
        "COMMAND_READ_PATHS",
        "",
        "folders below the hidden ones that commands may read, separated by commas",
        "/home/me/.rustup,/home/me/.cargo",
    ),
    variable(
        "COMMAND_MEMORY",
        "3/4 of the pod's limit",
        "what all processes of one command may use together: bytes, or with `Ki`, `Mi`, `Gi`",
        "2Gi",
    ),
    variable(
        "COMMAND_PROCESSES",
        "512",
        "how many processes one command may have at a time",
        "256",
    ),
    variable(
        "LOG_LEVEL",
        "INFO",
        "`DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`, in any letter case; `module=LEVEL` for one module of the \
         runner or for another crate, separated by commas",
        "INFO,events=DEBUG",
    ),
    variable(
        "REQUEST_ID",
        "",
        "in every log line, and on every request as `X-Request-ID`",
        "req-7f3a",
    ),
    variable(
        "TRACEPARENT",
        "",
        "the trace that the task belongs to (W3C trace context); carried on to the Messages API and the callback",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ),
    variable(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "",
        "where traces and metrics go, by OTLP over HTTP (`http/protobuf`); without it there are none",
        "http://collector.observability:4318",
    ),
    variable(
        "OTEL_EXPORTER_OTLP_HEADERS",
        "",
        "headers for that endpoint: `name=value` pairs, separated by commas, values URL-encoded",
        "authorization=Bearer%20s3cr3t",
    ),
    variable(
        "OTEL_SERVICE_NAME",
        "plue-runner",
        "the service's name in traces and metrics",
        "plue-runner",
    ),
    variable(
        "OTEL_RESOURCE_ATTRIBUTES",
        "",
        "what else is said of the service: `name=value` pairs, separated by commas, values URL-encoded",
        "deployment.environment.name=staging",
    ),
];

const fn variable(name: &'static str, default: &'static str, meaning: &'static str, example: &'static str) -> Variable {
    Variable {
        name,
        default,
        meaning,
        example,
    }
}
