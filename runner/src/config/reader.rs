//! Reads variables, and collects what is wrong with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::secret_file;
use super::variables::*;
use super::{
    BUILT_IN_MODELS, ConfigError, Identity, MAX_POD_NAME, ModelConfig, PodName, StandbyConfig, TaskRules, TaskSource,
};
use crate::api_client::ApiConfig;
use crate::events::bounds::{LARGEST_BODY, MAX_BODY, MIN_BODY};
use crate::events::{SpoolConfig, TaskId};
use plue_contract::secret::Secret;
use plue_contract::size;
use plue_contract::transport::Transport;
use plue_messages::AuthStyle;
use plue_redaction::MIN_SECRET;
use plue_sandbox::Level;
use plue_sandbox::strict::{CommandRules, DEFAULT_GRACE, DEFAULT_PROCESSES, Network};

/// What no folder of the operator's choice may lie in.
const KERNELS_OWN: [&str; 3] = ["/proc", "/dev", "/sys"];

/// See the module.
pub(super) struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    pub(super) problems: Vec<String>,
    /// What must not be told of what was read so far.
    pub(super) secrets: Vec<Secret>,
    /// The folders of the files with secrets.
    pub(super) secret_folders: Vec<PathBuf>,
    /// Which proxies the operator means cannot be told: nothing is sent by another way.
    pub(super) way_unknown: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            lookup,
            problems: Vec::new(),
            secrets: Vec::new(),
            secret_folders: Vec::new(),
            way_unknown: false,
        }
    }

    /// A variable that is set to nothing counts as not set.
    pub(super) fn get<D>(&self, variable: Variable<D>) -> Option<String> {
        (self.lookup)(variable.name).filter(|value| !value.is_empty())
    }

    /// The variable, or its default.
    pub(super) fn text(&self, variable: Variable<Text>) -> String {
        self.get(variable).unwrap_or_else(|| variable.default.to_owned())
    }

    /// Notes a problem, with the variable's example.
    pub(super) fn wrong<D>(&mut self, variable: Variable<D>, problem: &str) {
        self.problems.push(variable.wrong(problem));
    }

    /// A secret, from its variable or from the file that another one names, and which of the two that is.
    pub(super) fn secret(
        &mut self,
        variable: Variable<Unset>,
        file: Variable<Unset>,
    ) -> Option<(String, Variable<Unset>)> {
        let (value, named) = match (self.get(variable), self.get(file)) {
            (Some(_), Some(_)) => {
                let problem = format!("it is set together with {}: keep one of the two", variable.name);
                self.wrong(file, &problem);
                return None;
            }
            (value, None) => (value?, variable),
            (None, Some(path)) => (self.secret_file(file, Path::new(&path))?, file),
        };
        self.learn([value.clone()]);
        Some((value, named))
    }

    fn secret_file(&mut self, variable: Variable<Unset>, path: &Path) -> Option<String> {
        let workspace = PathBuf::from(self.text(WORKSPACE));
        let workspace = std::path::absolute(&workspace).unwrap_or(workspace);
        let read = secret_file::read(path).and_then(|secret| {
            let folders = secret_file::folders(path, &workspace)?;
            Ok((secret, folders))
        });
        match read {
            Ok((secret, folders)) => {
                self.secret_folders.extend(folders);
                self.secret_folders.sort();
                self.secret_folders.dedup();
                Some(secret)
            }
            Err(problem) => {
                self.wrong(variable, &problem);
                None
            }
        }
    }

    /// Takes note of what must not be told.
    pub(super) fn learn(&mut self, secrets: impl IntoIterator<Item = String>) {
        let secrets = secrets.into_iter().filter(|secret| secret.trim().len() >= MIN_SECRET);
        self.secrets.extend(secrets.map(Secret::new));
    }

    fn required(&mut self, variable: Variable<Unset>) -> Option<String> {
        let value = self.get(variable);
        if value.is_none() {
            self.wrong(variable, "it is required and is not set");
        }
        value
    }

    /// Both variables are looked at, whatever the first one is: all problems are told at once.
    pub(super) fn identity(&mut self, api: &ApiConfig) -> Option<Identity> {
        let task_id = self.required(TASK_ID);
        let callback_url = self
            .required(CALLBACK_URL)
            .and_then(|text| self.url(CALLBACK_URL, &text));
        let task_id = task_id.and_then(|id| {
            let usable = id.chars().all(|c| !c.is_control()) && id.len() <= 256 && id.is_ascii();
            if !usable {
                self.wrong(
                    TASK_ID,
                    "it must be at most 256 printable ASCII characters, since a header carries it",
                );
            }
            usable.then_some(TaskId::Text(id))
        })?;
        Some(Identity {
            task_id,
            callback_url: callback_url?,
            api: api.clone(),
        })
    }

    pub(super) fn api(&mut self, transport: &Transport) -> ApiConfig {
        let token = self.secret(CALLBACK_TOKEN, CALLBACK_TOKEN_FILE);
        ApiConfig {
            token: token.and_then(|token| self.header_value(token)).map(Secret::new),
            renewal: None,
            transport: transport.clone(),
            request_id: self.header(REQUEST_ID),
            timeout: Duration::from_secs(self.at_least_one(CALLBACK_TIMEOUT)),
            retry_base: Duration::from_millis(self.number(CALLBACK_RETRY_BASE_MS)),
            silence: ApiConfig::SILENCE,
            max_body: self.max_body(),
        }
    }

    /// The largest body that the server takes.
    fn max_body(&mut self) -> usize {
        let text = self.text(CALLBACK_MAX_BODY);
        let bytes = size::parse(&text).and_then(|bytes| usize::try_from(bytes).ok());
        match bytes.filter(|bytes| (MIN_BODY..=LARGEST_BODY).contains(bytes)) {
            Some(bytes) => bytes,
            None => {
                let problem = format!("{text:?} is no size from 4Ki to 16Mi: bytes, or with Ki or Mi");
                self.wrong(CALLBACK_MAX_BODY, &problem);
                MAX_BODY
            }
        }
    }

    /// How a standby runner registers.
    pub(super) fn standby(&mut self, api: &ApiConfig) -> Option<StandbyConfig> {
        let register_url = self
            .required(REGISTER_URL)
            .and_then(|text| self.url(REGISTER_URL, &text));
        let both = |url: &Url| !url.username().is_empty() || url.password().is_some();
        if api.token.is_some() && register_url.as_ref().is_some_and(both) {
            self.wrong(
                REGISTER_URL,
                "it has a user name or a password, and CALLBACK_TOKEN is set too: only one of them can be sent",
            );
        }
        let callback_origins = self.list(CALLBACK_ORIGINS).unwrap_or_default();
        let callback_origins: Vec<Url> = callback_origins
            .iter()
            .filter_map(|origin| self.url(CALLBACK_ORIGINS, origin))
            .collect();
        let pod_name = self.pod_name();
        let pod_ip = self.text(POD_IP);
        let problems = self.problems.len();
        let heartbeat = Duration::from_secs(self.at_least_one(HEARTBEAT_SECONDS));
        let heartbeat_timeout = Duration::from_secs(self.at_least_one(HEARTBEAT_TIMEOUT));
        if heartbeat >= heartbeat_timeout && self.problems.len() == problems {
            let problem = format!(
                "with a heartbeat every {} s, the API server takes the runner for lost after {} s (HEARTBEAT_TIMEOUT)",
                heartbeat.as_secs(),
                heartbeat_timeout.as_secs()
            );
            self.wrong(HEARTBEAT_SECONDS, &problem);
        }
        let max_tasks = Some(self.number(STANDBY_MAX_TASKS)).filter(|tasks| *tasks > 0);
        Some(StandbyConfig {
            register_url: register_url?,
            callback_origins,
            pod_name: pod_name.name,
            pod_ip,
            node_name: self.get(NODE_NAME),
            labels: self.list(RUNNER_LABELS).unwrap_or_default(),
            heartbeat,
            heartbeat_timeout,
            max_tasks,
        })
    }

    /// The name that a standby runner registers under: no two may share one, since the API server takes a task for
    /// alive as long as anybody beats under the name that has it.
    pub(super) fn pod_name(&mut self) -> PodName {
        if let Some(name) = self.get(POD_NAME) {
            let length = name.chars().count();
            if length > MAX_POD_NAME {
                let problem = format!("it has {length} characters, and the API server takes {MAX_POD_NAME}");
                self.wrong(POD_NAME, &problem);
            }
            return PodName {
                name,
                source: POD_NAME.name,
            };
        }
        match host_name() {
            Some(name) => PodName {
                name,
                source: "the host name, since POD_NAME is not set",
            },
            None => PodName {
                name: format!("plue-runner-{:08x}", getrandom::u32().unwrap_or_default()),
                source: "made up, since POD_NAME is not set and the host has no name of its own",
            },
        }
    }

    /// Where the task document is.
    pub(super) fn task(&mut self) -> TaskSource {
        match (self.get(TASK_CONFIG), self.get(TASK_FILE)) {
            (Some(_), Some(_)) => {
                self.wrong(TASK_FILE, "it is set together with TASK_CONFIG: keep one of the two");
                TaskSource::Stdin
            }
            (Some(text), None) => TaskSource::Inline(text),
            (None, Some(path)) => TaskSource::File(path.into()),
            (None, None) => TaskSource::Stdin,
        }
    }

    /// Whether the server takes many events in one request.
    pub(super) fn batches(&mut self) -> bool {
        match self.text(CALLBACK_BATCH).as_str() {
            "0" | "off" | "false" => false,
            "ndjson" => true,
            other => {
                self.wrong(CALLBACK_BATCH, &format!("{other:?} is neither ndjson nor off"));
                false
            }
        }
    }

    /// Where events wait that do not fit in memory.
    pub(super) fn spool(&mut self) -> SpoolConfig {
        let folder = PathBuf::from(self.text(SPOOL_DIR));
        if !folder.is_absolute() {
            self.wrong(SPOOL_DIR, &format!("{} is no absolute path", folder.display()));
        }
        let text = self.text(SPOOL_SIZE);
        let limit = size::parse(&text);
        if limit.is_none() {
            self.wrong(SPOOL_SIZE, &format!("{text:?} is no size: bytes, or with Ki, Mi or Gi"));
        }
        SpoolConfig {
            folder,
            limit: limit.unwrap_or_default(),
        }
    }

    /// Where is kept what a task has done. No command may see it, so it is a folder that can be hidden.
    pub(super) fn state_dir(&mut self, workspace: &Path) -> Option<PathBuf> {
        let folder = PathBuf::from(self.get(STATE_DIR)?);
        if !folder.is_absolute() {
            self.wrong(STATE_DIR, &format!("{} is no absolute path", folder.display()));
            return None;
        }
        match secret_file::own_folder(&folder, workspace) {
            Ok(folder) => {
                self.secret_folders.push(folder.clone());
                Some(folder)
            }
            Err(problem) => {
                self.wrong(STATE_DIR, &problem);
                None
            }
        }
    }

    /// A URL that need not be there.
    pub(super) fn url_if_set(&mut self, variable: Variable<Unset>) -> Option<Url> {
        let text = self.get(variable)?;
        self.url(variable, &text)
    }

    /// What is wrong with all that was read.
    pub(super) fn failed(self, sandbox: Level, identity: Option<Identity>) -> ConfigError {
        ConfigError {
            problems: self.problems,
            sandbox,
            identity: identity.filter(|_| !self.way_unknown).map(Box::new),
            secrets: self.secrets,
        }
    }

    pub(super) fn model(&mut self, transport: &Transport) -> Option<ModelConfig> {
        let base_url = self.text(ANTHROPIC_BASE_URL);
        let base_url = self.url(ANTHROPIC_BASE_URL, &base_url).filter(|url| {
            let bare = url.username().is_empty() && url.password().is_none();
            if !bare {
                self.wrong(
                    ANTHROPIC_BASE_URL,
                    "it must have no user name and no password: the key is in ANTHROPIC_API_KEY",
                );
            }
            bare
        });
        let auth_style = match self.text(ANTHROPIC_AUTH_STYLE).as_str() {
            "x-api-key" => AuthStyle::XApiKey,
            "bearer" => AuthStyle::Bearer,
            other => {
                self.wrong(
                    ANTHROPIC_AUTH_STYLE,
                    &format!("{other:?} is neither \"x-api-key\" nor \"bearer\""),
                );
                AuthStyle::XApiKey
            }
        };
        let api_key = self.api_key();
        Some(ModelConfig {
            api_key: api_key.map(Secret::new),
            base_url: base_url?,
            auth_style,
            patience: Duration::from_secs(self.number(MODEL_PATIENCE)),
            stall_timeout: Duration::from_secs(self.at_least_one(MODEL_STALL_TIMEOUT)),
            transport: transport.clone(),
        })
    }

    /// The key; like any header it is not repeated in the message.
    fn api_key(&mut self) -> Option<String> {
        let (key, name) = self.secret(ANTHROPIC_API_KEY, ANTHROPIC_API_KEY_FILE)?;
        let key = self.header_value((key, name))?;
        let usable = !key.contains(' ');
        if !usable {
            self.wrong(name, "it has a space in it, and no key has one");
        }
        usable.then_some(key)
    }

    /// What a task may ask for.
    pub(super) fn rules(&mut self) -> TaskRules {
        let mut models: Vec<String> = BUILT_IN_MODELS.iter().map(|&name| name.to_owned()).collect();
        models.extend(self.list(ALLOWED_MODELS).unwrap_or_default());
        let mut aliases = BTreeMap::new();
        let mut replace_retired = true;
        for pair in self.list(MODEL_ALIASES).unwrap_or_default() {
            if pair == "none" {
                replace_retired = false;
                continue;
            }
            match pair.split_once('=').map(|(asked, sent)| (asked.trim(), sent.trim())) {
                Some((asked, sent)) if !asked.is_empty() && !sent.is_empty() => {
                    aliases.insert(asked.to_owned(), sent.to_owned());
                }
                _ => self.wrong(
                    MODEL_ALIASES,
                    &format!("{pair:?} is not of the form asked=sent, nor none"),
                ),
            }
        }
        // Unlike any other variable, this one set to nothing is not as if it were not set: an empty list of what is
        // allowed must not allow everything.
        let tools = match (self.lookup)(ALLOWED_TOOLS.name) {
            None => items(ALLOWED_TOOLS.default),
            Some(_) => self.list(ALLOWED_TOOLS).unwrap_or_default(),
        };
        TaskRules {
            models,
            aliases,
            replace_retired,
            tools,
            workspace: self.workspace(),
        }
    }

    /// Absolute, so that it names the same folder wherever it is used from. Links in it are left as they are.
    fn workspace(&mut self) -> PathBuf {
        let folder = self.text(WORKSPACE);
        match std::path::absolute(&folder) {
            Ok(folder) => folder,
            Err(error) => {
                self.wrong(WORKSPACE, &format!("{folder:?} cannot be made absolute: {error}"));
                folder.into()
            }
        }
    }

    pub(super) fn url<D: Copy>(&mut self, variable: Variable<D>, text: &str) -> Option<Url> {
        // The value is not repeated in the message: a URL may carry credentials.
        match Url::parse(text) {
            Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                self.wrong(
                    variable,
                    &format!("the scheme must be http or https, not {:?}", url.scheme()),
                );
                None
            }
            Ok(url) if url.host_str().is_none_or(str::is_empty) => {
                self.wrong(variable, "the URL has no host");
                None
            }
            Ok(url) => Some(url),
            Err(error) => {
                self.wrong(variable, &format!("it is no URL: {error}"));
                None
            }
        }
    }

    /// A value that goes into a header. It is not repeated in the message: it may be a secret.
    fn header(&mut self, variable: Variable<Unset>) -> Option<String> {
        let value = self.get(variable)?;
        self.header_value((value, variable))
    }

    fn header_value(&mut self, (value, variable): (String, Variable<Unset>)) -> Option<String> {
        let usable = value.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        if !usable {
            self.wrong(
                variable,
                "it has characters that no HTTP header may have (a newline at its end, perhaps)",
            );
        }
        usable.then_some(value)
    }

    pub(super) fn list<D>(&self, variable: Variable<D>) -> Option<Vec<String>> {
        self.get(variable).map(|value| items(&value))
    }

    pub(super) fn flag(&mut self, variable: Variable<Text>) -> bool {
        match self.text(variable).as_str() {
            "0" | "false" | "off" => false,
            "1" | "true" | "on" => true,
            other => {
                self.wrong(variable, &format!("{other:?} is neither 1 nor 0"));
                false
            }
        }
    }

    pub(super) fn number(&mut self, variable: Variable<Number>) -> u64 {
        /// A day in milliseconds; no wait of ours is longer.
        const MAX: u64 = 86_400_000;
        let Some(text) = self.get(variable) else {
            return variable.default;
        };
        match text.trim().parse() {
            Ok(number) if number <= MAX => number,
            _ => {
                self.wrong(variable, &format!("{text:?} is no whole number from 0 to {MAX}"));
                variable.default
            }
        }
    }

    fn at_least_one(&mut self, variable: Variable<Number>) -> u64 {
        self.at_least(variable, 1)
    }

    fn at_least(&mut self, variable: Variable<Number>, least: u64) -> u64 {
        let number = self.number(variable);
        if number < least {
            self.wrong(variable, &format!("it must be at least {least}"));
        }
        number.max(least)
    }

    /// How far commands are confined. Whoever misspells it is not taken for one who wants less.
    pub(super) fn sandbox(&mut self) -> Level {
        match self.text(SANDBOX).as_str() {
            "strict" => Level::Strict,
            "weak" => Level::Weak,
            other => {
                self.wrong(SANDBOX, &format!("{other:?} is neither strict nor weak"));
                Level::Strict
            }
        }
    }

    pub(super) fn commands(&mut self) -> CommandRules {
        let network = match self.text(COMMAND_NETWORK).as_str() {
            "none" => Network::None,
            "pod" => Network::Pod,
            other => {
                self.wrong(COMMAND_NETWORK, &format!("{other:?} is neither none nor pod"));
                Network::None
            }
        };
        let read_paths: Vec<PathBuf> = self
            .list(COMMAND_READ_PATHS)
            .unwrap_or_default()
            .into_iter()
            .map(PathBuf::from)
            .collect();
        if let Some(relative) = read_paths.iter().find(|path| !path.is_absolute()) {
            self.wrong(
                COMMAND_READ_PATHS,
                &format!("{} is no absolute path", relative.display()),
            );
        }
        let of_the_kernel = |path: &&PathBuf| KERNELS_OWN.iter().any(|place| path.starts_with(place));
        if let Some(path) = read_paths
            .iter()
            .find(|path| *path == Path::new("/"))
            .or(read_paths.iter().find(of_the_kernel))
        {
            let problem = format!("{} cannot be opened: commands have one of their own", path.display());
            self.wrong(COMMAND_READ_PATHS, &problem);
        }
        let memory = self.size(COMMAND_MEMORY);
        let tmp_size = self.size(COMMAND_TMP_SIZE);
        let processes = match self.get(COMMAND_PROCESSES) {
            None => DEFAULT_PROCESSES,
            Some(text) => {
                let count = text.trim().parse().ok();
                let count = count.filter(|count| (1..=MAX_PROCESSES).contains(count));
                count.unwrap_or_else(|| {
                    let problem = format!("{text:?} is no whole number from 1 to {MAX_PROCESSES}");
                    self.wrong(COMMAND_PROCESSES, &problem);
                    DEFAULT_PROCESSES
                })
            }
        };
        let open_files = self.at_least(COMMAND_OPEN_FILES, MIN_OPEN_FILES);
        CommandRules {
            network,
            read_paths,
            memory,
            processes,
            open_files,
            tmp_size,
            grace: self.command_grace(),
            env: self.committer(),
        }
    }

    /// Something that commands need some of.
    fn size(&mut self, variable: Variable<Derived>) -> Option<u64> {
        let text = self.get(variable)?;
        let bytes = size::parse(&text).filter(|bytes| *bytes >= MIN_MEMORY);
        if bytes.is_none() {
            let problem = format!("{text:?} is no size of 16Mi or more: bytes, or with Ki, Mi or Gi");
            self.wrong(variable, &problem);
        }
        bytes
    }

    /// Who commits, as git asks for it.
    fn committer(&self) -> BTreeMap<String, String> {
        let names = [
            GIT_AUTHOR_NAME,
            GIT_AUTHOR_EMAIL,
            GIT_COMMITTER_NAME,
            GIT_COMMITTER_EMAIL,
        ];
        let given = |variable: Variable<Unset>| Some((variable.name.to_owned(), self.get(variable)?));
        names.into_iter().filter_map(given).collect()
    }

    /// Within the time that the runner has for its own end: what is left of it is for the ending to arrive.
    fn command_grace(&mut self) -> Duration {
        // What is wrong with that one is said where it is read for itself.
        let shutdown = self.get(SHUTDOWN_GRACE).and_then(|text| text.trim().parse().ok());
        let most = Duration::from_secs(shutdown.unwrap_or(SHUTDOWN_GRACE.default)) * 2 / 5;
        let Some(text) = self.get(COMMAND_GRACE) else {
            return DEFAULT_GRACE.min(most);
        };
        let asked = text.trim().parse().ok().map(Duration::from_secs);
        asked.filter(|grace| *grace <= most).unwrap_or_else(|| {
            let problem = format!(
                "{text:?} is no whole number from 0 to {}, which is two fifths of SHUTDOWN_GRACE",
                most.as_secs()
            );
            self.wrong(COMMAND_GRACE, &problem);
            most
        })
    }
}

/// The items of a list, separated by commas.
pub(super) fn items(text: &str) -> Vec<String> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(str::to_owned).collect()
}

/// The name of this host; in a pod that is the pod's. `None`: a name that every host may have.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    let shared = ["", "(none)", "localhost", "localhost.localdomain", "unknown"];
    (!shared.contains(&name)).then(|| name.chars().take(MAX_POD_NAME).collect())
}

/// A shell with a pipe in it needs so many.
const MIN_OPEN_FILES: u64 = 16;
/// A shell needs some.
const MIN_MEMORY: u64 = 16 << 20;
const MAX_PROCESSES: u32 = 100_000;
