#![allow(clippy::unwrap_used)]
use super::*;
use plue_sandbox::strict::Network;

fn read(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let map: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    Config::read(&|name| map.get(name).cloned())
}

const TOOLS: [&str; 5] = ["read_file", "write_file", "list_files", "grep", "shell"];

const GOOD: [(&str, &str); 2] = [("TASK_ID", "7"), ("CALLBACK_URL", "http://127.0.0.1:1/x")];

/// The default of each variable counts, and none has another one somewhere else.
#[test]
fn a_variable_that_is_set_to_its_default_is_as_one_that_is_not_set() {
    let standby = [
        ("MODE", "standby"),
        ("REGISTER_URL", "http://127.0.0.1:1/x"),
        ("POD_NAME", "p"),
    ];
    let mut tried = 0;
    for mode in [&GOOD[..], &standby[..]] {
        let unset = format!("{:?}", read(mode).unwrap());
        for variable in table() {
            assert!(
                !variable.meaning.is_empty() && !variable.example.is_empty(),
                "{}",
                variable.name
            );
            if !variable.is_a_value || variable.name == "MODE" {
                continue;
            }
            let pairs: Vec<_> = mode
                .iter()
                .copied()
                .chain([(variable.name, &*variable.default)])
                .collect();
            assert_eq!(format!("{:?}", read(&pairs).unwrap()), unset, "{}", variable.name);
            tried += 1;
        }
    }
    assert!(tried > 30, "{tried}");
}

/// What is promised to whoever sets nothing.
#[test]
fn nothing_set_is_what_the_protocol_says() {
    let config = read(&GOOD).unwrap();
    assert_eq!(config.rules.workspace, PathBuf::from("/workspace"));
    assert!(matches!(
        config.mode,
        Mode::Active {
            task: TaskSource::Stdin,
            ..
        }
    ));
    assert_eq!((config.batches, config.spool), (false, SpoolConfig::default()));
    assert_eq!(config.rules.tools, TOOLS);
    assert_eq!(config.api.retry_base, Duration::from_millis(500));
    assert_eq!(config.api.timeout, Duration::from_secs(30));
    assert_eq!(config.model.base_url.as_str(), "https://api.anthropic.com/");
    assert_eq!(config.flush_timeout, Duration::from_secs(600));
    assert_eq!(config.shutdown_grace, Duration::from_secs(25));
    assert_eq!(config.sandbox, Level::Strict);
    assert_eq!(config.commands, CommandRules::default());
}

#[test]
fn a_malformed_variable_is_named_with_an_example_and_the_callback_stays_known() {
    let cases = [
        ("MODE", "passive"),
        ("LOG_LEVEL", "loud"),
        ("LOG_LEVEL", "INFO,events=loud"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://:secret@collector:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Bearer secret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a b=secret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret%0a"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment"),
        ("SANDBOX", "none"),
        ("SANDBOX", "Weak"),
        ("COMMAND_NETWORK", "host"),
        ("COMMAND_READ_PATHS", "usr/share"),
        ("COMMAND_READ_PATHS", "/opt/tools,/"),
        ("COMMAND_READ_PATHS", "/dev/snd"),
        ("COMMAND_MEMORY", "1 horse"),
        ("COMMAND_MEMORY", "0"),
        ("COMMAND_MEMORY", "99999999999Gi"),
        ("COMMAND_PROCESSES", "0"),
        ("COMMAND_PROCESSES", "many"),
        ("COMMAND_OPEN_FILES", "3"),
        ("COMMAND_TMP_SIZE", "1Mi"),
        ("COMMAND_GRACE", "11"),
        ("COMMAND_GRACE", "soon"),
        ("ANTHROPIC_BASE_URL", "api.anthropic.com"),
        ("ANTHROPIC_BASE_URL", "ftp://host/"),
        ("ANTHROPIC_AUTH_STYLE", "basic"),
        ("ANTHROPIC_API_KEY", "key\n"),
        ("ANTHROPIC_API_KEY", "a b"),
        ("ANTHROPIC_BASE_URL", "https://user@host/"),
        ("ANTHROPIC_BASE_URL", "https://:secret@host/"),
        ("MODEL_ALIASES", "just-one-name"),
        ("MODEL_ALIASES", "=x"),
        ("CALLBACK_RETRY_BASE_MS", "-1"),
        ("CALLBACK_EXTRA_EVENTS", "maybe"),
        ("CALLBACK_BATCH", "csv"),
        ("CALLBACK_MAX_BODY", "1Ki"),
        ("CALLBACK_TIMEOUT", "0"),
        ("SPOOL_DIR", "relative"),
        ("SPOOL_SIZE", "much"),
        ("CALLBACK_TOKEN", "a\u{7f}"),
        ("FLUSH_TIMEOUT", "ten"),
        ("SHUTDOWN_GRACE", "1e9"),
        ("REQUEST_ID", "a\nb"),
    ];
    for (name, value) in cases {
        let error = read(&[GOOD[0], GOOD[1], (name, value)]).unwrap_err();
        assert_eq!(error.problems.len(), 1, "{name}={value}: {error}");
        assert!(error.problems[0].starts_with(&format!("{name}: ")), "{error}");
        assert!(error.problems[0].contains(&format!("(example: {name}=")), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(error.identity.is_some(), "{name}");
    }
}

#[test]
fn without_a_task_id_or_a_good_callback_url_nobody_can_be_told() {
    for (id, url) in [
        ("", GOOD[1].1),
        ("7", ""),
        ("7", "not a url"),
        ("7", "file:///x"),
        ("a\nb", GOOD[1].1),
        ("", ""),
    ] {
        let error = read(&[("TASK_ID", id), ("CALLBACK_URL", url)]).unwrap_err();
        assert!(error.identity.is_none(), "{id:?} {url:?}");
    }
    let both = read(&[]).unwrap_err();
    assert_eq!(both.problems.len(), 2, "{both}");
}

#[test]
fn standby_asks_for_a_registration_url_and_for_no_task() {
    let standby = |pairs: &[(&str, &str)]| {
        let pairs = [&[("MODE", "standby")], pairs].concat();
        read(&pairs)
    };
    let config = standby(&[("REGISTER_URL", "http://api/internal/runners/register")]).unwrap();
    let Mode::Standby(standby_config) = config.mode else {
        unreachable!()
    };
    // Never a name that others share: the server takes a task for alive as long as anybody beats under it.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let name = &standby_config.pod_name;
    assert!(*name == host.trim() || name.starts_with("plue-runner-"), "{name}");
    assert_ne!(name, "unknown");
    assert_eq!(standby_config.pod_ip, "unknown");
    assert_eq!(
        (standby_config.heartbeat, standby_config.heartbeat_timeout),
        (Duration::from_secs(15), Duration::from_secs(60))
    );
    assert_eq!(standby_config.max_tasks, None);
    let url = ("REGISTER_URL", "http://api/internal/runners/register");
    let config = standby(&[
        url,
        ("RUNNER_LABELS", "a, b"),
        ("STANDBY_MAX_TASKS", "3"),
        ("NODE_NAME", "n"),
    ])
    .unwrap();
    let Mode::Standby(standby_config) = config.mode else {
        unreachable!()
    };
    assert_eq!(
        (standby_config.labels, standby_config.max_tasks),
        (vec!["a".into(), "b".into()], Some(3))
    );
    for (pairs, name) in [
        (&[][..], "REGISTER_URL"),
        (&[("REGISTER_URL", "nowhere")], "REGISTER_URL"),
        (&[url, ("HEARTBEAT_SECONDS", "0")], "HEARTBEAT_SECONDS"),
        (&[url, ("HEARTBEAT_SECONDS", "60")], "HEARTBEAT_SECONDS"),
        (
            &[url, ("HEARTBEAT_SECONDS", "5"), ("HEARTBEAT_TIMEOUT", "5")],
            "HEARTBEAT_SECONDS",
        ),
        (&[url, ("HEARTBEAT_TIMEOUT", "0")], "HEARTBEAT_TIMEOUT"),
        (&[url, ("POD_NAME", &*"p".repeat(256))], "POD_NAME"),
        (&[url, ("STANDBY_MAX_TASKS", "-1")], "STANDBY_MAX_TASKS"),
    ] {
        let error = standby(pairs).unwrap_err();
        assert_eq!(error.problems.len(), 1, "{error}");
        assert!(error.problems[0].starts_with(&format!("{name}: ")), "{error}");
    }
}

#[test]
fn the_token_goes_to_the_origin_of_the_registration_and_to_those_that_the_operator_names() {
    let config = read(&[
        ("MODE", "standby"),
        ("REGISTER_URL", "http://api:8080/internal/runners/register"),
        ("CALLBACK_TOKEN", "tok-secret"),
        ("CALLBACK_ORIGINS", "https://events.internal, http://other:81/ignored"),
    ])
    .unwrap();
    let Mode::Standby(standby) = config.mode else {
        unreachable!()
    };
    for (callback, with_token) in [
        ("http://api:8080/tasks/7", true),
        ("https://events.internal/tasks/7", true),
        ("http://other:81/tasks/7", true),
        ("http://api/tasks/7", false),
        ("https://api:8080/tasks/7", false),
        ("http://events.internal/tasks/7", false),
        ("http://169.254.169.254/latest/meta-data", false),
        ("http://api:8080@evil/tasks/7", false),
    ] {
        let api = standby.api_of(&callback.parse().unwrap(), &config.api);
        assert_eq!(api.token.is_some(), with_token, "{callback}");
    }
    let wrong = read(&[
        ("MODE", "standby"),
        ("REGISTER_URL", "http://api/r"),
        ("CALLBACK_ORIGINS", "events.internal"),
    ]);
    let problems = wrong.unwrap_err().problems;
    assert!(
        problems.len() == 1 && problems[0].starts_with("CALLBACK_ORIGINS: "),
        "{problems:?}"
    );
}

#[test]
fn the_operator_extends_models_and_replaces_tools() {
    let config = read(&[
        GOOD[0],
        GOOD[1],
        ("ALLOWED_MODELS", "a, b,"),
        ("MODEL_ALIASES", "claude-3-opus-20240229=a"),
        ("ALLOWED_TOOLS", "grep"),
    ])
    .unwrap();
    assert_eq!(config.rules.models.len(), BUILT_IN_MODELS.len() + 2);
    assert_eq!(config.rules.aliases["claude-3-opus-20240229"], "a");
    assert_eq!(config.rules.tools, ["grep"]);
    for none in ["", ",", " , "] {
        let config = read(&[GOOD[0], GOOD[1], ("ALLOWED_TOOLS", none)]).unwrap();
        assert!(config.rules.tools.is_empty(), "{none:?}");
    }
}

#[test]
fn commands_are_confined_as_the_operator_says() {
    let config = read(&[
        GOOD[0],
        GOOD[1],
        ("SANDBOX", "weak"),
        ("COMMAND_NETWORK", "pod"),
        ("COMMAND_READ_PATHS", "/opt/tools, /home/me/.rustup"),
        ("COMMAND_MEMORY", "2Gi"),
        ("COMMAND_PROCESSES", "64"),
        ("COMMAND_OPEN_FILES", "4096"),
        ("COMMAND_TMP_SIZE", "1Gi"),
        ("COMMAND_GRACE", "3"),
        ("GIT_AUTHOR_NAME", "Bot"),
    ])
    .unwrap();
    let expected = CommandRules {
        network: Network::Pod,
        read_paths: vec!["/opt/tools".into(), "/home/me/.rustup".into()],
        memory: Some(2 << 30),
        processes: 64,
        open_files: 4096,
        tmp_size: Some(1 << 30),
        grace: Duration::from_secs(3),
        env: [("GIT_AUTHOR_NAME".to_owned(), "Bot".to_owned())].into(),
    };
    assert_eq!((config.sandbox, config.commands), (Level::Weak, expected));
    for (text, bytes) in [
        ("1073741824", 1 << 30),
        ("64Mi", 64 << 20),
        ("64MiB", 64 << 20),
        ("1 GiB", 1 << 30),
        ("65536Ki", 64 << 20),
    ] {
        let config = read(&[GOOD[0], GOOD[1], ("COMMAND_MEMORY", text)]).unwrap();
        assert_eq!(config.commands.memory, Some(bytes), "{text}");
    }
}

#[test]
fn a_relative_workspace_is_made_absolute() {
    let here = std::env::current_dir().unwrap();
    for (set, expected) in [("sub", here.join("sub")), (".", here.clone()), ("/a/b", "/a/b".into())] {
        let config = read(&[GOOD[0], GOOD[1], ("WORKSPACE", set)]).unwrap();
        assert_eq!(config.rules.workspace, expected, "{set}");
    }
}

#[test]
fn what_a_task_has_done_is_kept_in_a_folder_of_its_own_that_is_hidden_from_commands() {
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().canonicalize().unwrap();
    let at = |name: &str| real.join(name).to_string_lossy().into_owned();
    std::fs::create_dir(at("workspace")).unwrap();
    std::os::unix::fs::symlink("workspace", at("link")).unwrap();
    let with = |state: &str| {
        let workspace = at("workspace");
        read(&[GOOD[0], GOOD[1], ("WORKSPACE", &workspace), ("STATE_DIR", state)])
    };
    let config = with(&at("state/of/it")).unwrap();
    assert_eq!(config.state_dir, Some(real.join("state/of/it")));
    assert_eq!(config.secret_folders, [real.join("state/of/it")]);
    for (state, problem) in [
        ("state", "no absolute path"),
        (&at("workspace"), "in WORKSPACE"),
        (&at("workspace/state"), "in WORKSPACE"),
        (&at("link/state"), "in WORKSPACE"),
        (&at(""), "cannot be hidden"),
        ("/", "cannot be hidden"),
        (&at("not/../../there"), "leads nowhere"),
    ] {
        let error = with(state).unwrap_err().to_string();
        assert!(
            error.contains("STATE_DIR") && error.contains(problem),
            "{state}: {error}"
        );
    }
    assert_eq!(read(&GOOD).unwrap().state_dir, None);
}

#[test]
fn the_rules_for_tasks_are_read_without_a_task_and_ask_for_no_other_variable() {
    let read = |name: &str, value: &'static str| {
        let name = name.to_owned();
        TaskRules::read(&move |asked| (asked == name).then(|| value.to_owned()))
    };
    let rules = read("MODEL_ALIASES", "a=b").unwrap();
    assert_eq!((rules.sent("a"), rules.sent("c")), ("b", "c"));
    let retired = "claude-3-opus-20240229";
    for (aliases, sent) in [
        ("", "claude-opus-5-5"),
        ("a=b", "claude-opus-5-5"),
        ("none", retired),
        ("a=b, none", retired),
        ("claude-3-opus-20240229=mine", "mine"),
        ("none,claude-3-opus-20240229=mine", "mine"),
        // Who wants it as it is has it so.
        ("claude-3-opus-20240229=claude-3-opus-20240229", retired),
    ] {
        assert_eq!(
            read("MODEL_ALIASES", aliases).unwrap().sent(retired),
            sent,
            "{aliases:?}"
        );
    }
    assert_eq!(rules.tools, TOOLS);
    assert!(read("MODE", "passive").is_ok());
    let error = read("MODEL_ALIASES", "a").unwrap_err();
    assert!(error.to_string().starts_with("MODEL_ALIASES: "), "{error}");
}

#[test]
fn the_debug_form_of_a_configuration_shows_no_secret() {
    let config = read(&[
        GOOD[0],
        GOOD[1],
        ("ANTHROPIC_API_KEY", "sk-hunter2"),
        ("CALLBACK_TOKEN", "tok-hunter2"),
        ("USE_PROXY", "1"),
        ("HTTPS_PROXY", "http://hunter2-user:hunter2-password@proxy:1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20hunter2"),
    ]);
    let config = format!("{:?}", config.unwrap());
    assert!(config.contains("http://proxy:1 (HTTPS_PROXY)"), "{config}");
    assert!(!config.contains("hunter2"), "{config}");
}

#[test]
fn what_is_secret_in_a_configuration_is_known_also_when_it_is_wrong() {
    let secrets = |pairs: &[(&str, &str)]| -> Vec<String> {
        let secrets = match read(pairs) {
            Ok(config) => config.secrets,
            Err(error) => error.secrets,
        };
        secrets.iter().map(|secret| secret.expose().to_owned()).collect()
    };
    let pairs = [
        GOOD[0],
        GOOD[1],
        ("CALLBACK_TOKEN", "token-0123456789"),
        ("USE_PROXY", "1"),
        ("https_proxy", "http://someone:pass%2Fword@proxy:1"),
        ("ANTHROPIC_API_KEY", "key-0123456789"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=header-0123456789"),
    ];
    let known = secrets(&pairs);
    for secret in [
        "token-0123456789",
        "pass/word",
        "someone:pass%2Fword",
        "key-0123456789",
        "header-0123456789",
    ] {
        assert!(known.iter().any(|one| one == secret), "{secret} in {known:?}");
    }
    let wrong = [&pairs[..], &[("SANDBOX", "none")]].concat();
    assert_eq!(secrets(&wrong), known);
}

#[test]
fn proxies_count_only_when_they_are_asked_for_and_the_lower_case_comes_first() {
    let route = |pairs: &[(&str, &str)], url: &str| {
        let config = read(&[&GOOD[..], pairs].concat()).unwrap();
        let all = [&config.api.transport, &config.model.transport];
        let routes = all.map(|transport| format!("{:?}", transport.route(&url.parse().unwrap())));
        assert_eq!(routes[0], routes[1]);
        routes[0].clone()
    };
    let proxies = [
        ("HTTPS_PROXY", "upper:1"),
        ("https_proxy", "lower:1"),
        ("HTTP_PROXY", "http://plain:1"),
        ("NO_PROXY", "nowhere"),
        ("no_proxy", "inside"),
    ];
    assert_eq!(route(&proxies, "https://outside"), "Direct(NotAsked)");
    // What nobody asks for need not be right.
    assert_eq!(
        route(&[("HTTPS_PROXY", "socks5://x"), ("NO_PROXY", "a:1")], "https://x"),
        "Direct(NotAsked)"
    );
    let used = [&proxies[..], &[("USE_PROXY", "1")]].concat();
    for (url, expected) in [
        ("https://outside", "Proxy(http://lower:1 (https_proxy))"),
        ("http://outside", "Proxy(http://plain:1 (HTTP_PROXY))"),
        ("http://nowhere", "Proxy(http://plain:1 (HTTP_PROXY))"),
        ("https://inside", "Direct(Excepted(\"inside\"))"),
    ] {
        assert_eq!(route(&used, url), expected, "{url}");
    }
}

/// A proxy that is wrong is told to nobody by a way that may be another than the operator means.
#[test]
fn a_proxy_that_is_wrong_is_named_and_leaves_nobody_to_tell() {
    for (name, value) in [
        ("USE_PROXY", "yes"),
        ("HTTPS_PROXY", "socks5://user:hunter2@proxy"),
        ("https_proxy", "http://user:hunter2@:1"),
        ("HTTP_PROXY", "http://proxy:port"),
        ("NO_PROXY", "inside:8080"),
        ("HTTPS_PROXY_FILE", "/nowhere/at/all"),
    ] {
        let others = [("USE_PROXY", "1"), ("HTTP_PROXY", "p:1")];
        let others = others.into_iter().filter(|(other, _)| *other != name);
        let pairs: Vec<_> = GOOD.into_iter().chain(others).chain([(name, value)]).collect();
        let error = read(&pairs).unwrap_err();
        assert_eq!(error.problems.len(), 1, "{error}");
        assert!(error.problems[0].starts_with(&format!("{name}: ")), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(error.identity.is_none(), "{name}");
    }
}

#[test]
fn a_secret_is_a_variable_or_a_file_and_not_both() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_string_lossy().into_owned()
    };
    let (key, token) = (file("key", "key-of-a-file\n"), file("token", "token-of-a-file\r\n"));
    let headers = file("headers", "authorization=Bearer%20header-of-a-file\n");
    let proxy = file("proxy", "http://user:password-of-a-file@proxy:1\n");
    let files = [
        ("ANTHROPIC_API_KEY", key),
        ("CALLBACK_TOKEN", token),
        ("OTEL_EXPORTER_OTLP_HEADERS", headers),
        ("HTTPS_PROXY", proxy),
    ];
    let names = files.each_ref().map(|(name, _)| format!("{name}_FILE"));
    let named = names.iter().zip(&files).map(|(name, (_, path))| (&**name, &**path));
    let others = [
        ("USE_PROXY", "1"),
        ("HTTP_PROXY", "p:1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"),
    ];
    let all: Vec<(&str, &str)> = GOOD.into_iter().chain(others).chain(named).collect();
    let config = read(&all).unwrap();
    assert_eq!(config.model.api_key.unwrap().expose(), "key-of-a-file");
    assert_eq!(config.api.token.unwrap().expose(), "token-of-a-file");
    assert_eq!(
        config.telemetry.unwrap().headers[0].1.expose(),
        "Bearer header-of-a-file"
    );
    let route = format!("{:?}", config.model.transport.route(&"https://x".parse().unwrap()));
    assert_eq!(route, "Proxy(http://proxy:1 (HTTPS_PROXY_FILE))");
    assert_eq!(config.secret_folders, [folder.path().canonicalize().unwrap()]);
    let known: Vec<&str> = config.secrets.iter().map(Secret::expose).collect();
    for secret in [
        "key-of-a-file",
        "token-of-a-file",
        "header-of-a-file",
        "password-of-a-file",
    ] {
        assert!(known.contains(&secret), "{secret} in {known:?}");
    }
    for (name, value) in [
        ("ANTHROPIC_API_KEY", "x"),
        ("CALLBACK_TOKEN", "x"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b"),
        ("HTTPS_PROXY", "p:1"),
    ] {
        let both = [&all[..], &[(name, value)]].concat();
        let error = read(&both).unwrap_err();
        assert_eq!(error.problems.len(), 1, "{error}");
        let expected = format!("{name}_FILE: it is set together with {name}: ");
        assert!(error.problems[0].starts_with(&expected), "{error}");
    }
}

/// Documents name each file beside its variable.
#[test]
fn every_variable_with_a_secret_has_one_for_a_file() {
    let names: Vec<&str> = table().iter().map(|row| row.name).collect();
    let endings = ["_KEY", "_TOKEN", "_SECRET", "_PASSWORD", "_CREDENTIALS", "_HEADERS"];
    let of_secrets = names.iter().filter(|name| {
        endings.iter().any(|ending| name.ends_with(ending)) || name.ends_with("P_PROXY") || name.ends_with("S_PROXY")
    });
    let mut seen = 0;
    for name in of_secrets {
        assert!(names.contains(&&*format!("{name}_FILE")), "{name}");
        seen += 1;
    }
    assert_eq!(seen, 5);
}
