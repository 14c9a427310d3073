//! What the file says, and how: a page with a checksum, and behind it the request with a task's ending.

use std::fs::File;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::Url;

use crate::events::bounds::LARGEST_BODY;
use crate::events::callback::SentRequest;
use crate::events::unfinished::Unfinished;
use plue_redaction::Redactor;

/// How long the page is at most; the ending stands behind it. A page of the kernel's is written at least, and nearly
/// always no more: a process that is killed leaves that whole.
pub(super) const PAGE: usize = 4 * BLOCK;
const BLOCK: usize = 4096;
/// How much of an ending is read: what a request may have.
const MAX_ENDING: u64 = LARGEST_BODY as u64;
/// How long a checksum is, in hex.
const CHECKSUM: usize = 64;
pub(super) const VERSION: u32 = 1;

/// What the page says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Page {
    pub(super) version: u32,
    /// As the operator named the runner.
    pub(super) pod_name: String,
    /// As it is registered.
    pub(super) name: String,
    /// When the last sign of life was sent that the server took, in milliseconds since 1970.
    pub(super) beat_ms: i64,
    pub(super) doing: Doing,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Doing {
    /// It has no task.
    Waiting,
    /// A request for a task is under way: the server may be giving it one.
    Asking,
    Task(TaskPage),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TaskPage {
    pub(super) id: i64,
    /// `None`: it may carry a secret, or is too long.
    pub(super) callback: Option<CallbackPage>,
    pub(super) started_ms: i64,
    /// Of the last event that was sent, whether or not it arrived.
    pub(super) last_seq: u64,
    /// How many events are not known to have arrived.
    pub(super) lost: u64,
    pub(super) open: Unfinished,
    pub(super) ending: Option<EndingPage>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CallbackPage {
    pub(super) url: String,
    /// It has the user name and the password of `REGISTER_URL`, which are not written down.
    pub(super) as_register_url: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EndingPage {
    pub(super) seq: u64,
    pub(super) key: String,
    pub(super) batch: bool,
    pub(super) length: u64,
    pub(super) checksum: String,
}

/// The page as it stands in the file. What does not fit is left out, the least important first.
pub(super) fn encode(page: &Page) -> Vec<u8> {
    let json = |page: &Page| serde_json::to_string(page).unwrap_or_default();
    let mut text = json(page);
    let fits = |text: &str| text.len() + CHECKSUM + 2 <= PAGE;
    if !fits(&text)
        && let Doing::Task(task) = &page.doing
    {
        let mut task = task.clone();
        task.open = Unfinished::default();
        let mut smaller = page.clone();
        smaller.doing = Doing::Task(task.clone());
        text = json(&smaller);
        if !fits(&text) {
            task.callback = None;
            smaller.doing = Doing::Task(task);
            text = json(&smaller);
        }
    }
    let mut bytes = format!("{} {text}\n", checksum(text.as_bytes())).into_bytes();
    // What a longer one has left behind it is not read.
    bytes.resize(bytes.len().next_multiple_of(BLOCK), b' ');
    bytes
}

/// `None`: a file that was made and never written.
pub(super) fn read_page(file: &File) -> Result<Option<Page>, String> {
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    if length == 0 {
        return Ok(None);
    }
    let mut bytes = vec![0; PAGE.min(usize::try_from(length).unwrap_or(PAGE))];
    file.read_exact_at(&mut bytes, 0).map_err(|error| error.to_string())?;
    let torn = || "it is torn: what it says is not what its checksum says".to_owned();
    let line = bytes.split(|byte| *byte == b'\n').next().ok_or_else(torn)?;
    let text = std::str::from_utf8(line).map_err(|_| torn())?;
    let (expected, json) = text.split_once(' ').ok_or_else(torn)?;
    if checksum(json.as_bytes()) != expected {
        return Err(torn());
    }
    let page: Page = serde_json::from_str(json).map_err(|error| format!("it is of another version: {error}"))?;
    if let Doing::Task(task) = &page.doing
        && task.last_seq > u64::MAX / 2
    {
        return Err(torn());
    }
    match page.version {
        VERSION => Ok(Some(page)),
        other => Err(format!("it is of version {other}, and this runner knows {VERSION}")),
    }
}

pub(super) fn read_ending(file: &File, ending: &EndingPage) -> Result<SentRequest, String> {
    let torn = || "it is torn: the ending in it is not whole".to_owned();
    let length = usize::try_from(ending.length.min(MAX_ENDING)).map_err(|_| torn())?;
    let mut body = vec![0; length];
    file.read_exact_at(&mut body, PAGE as u64).map_err(|_| torn())?;
    if checksum(&body) != ending.checksum {
        return Err(torn());
    }
    Ok(SentRequest {
        seq: ending.seq,
        key: ending.key.clone(),
        batch: ending.batch,
        body: Bytes::from(body),
    })
}

pub(super) fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is written down of a callback URL. Nothing when it has what may be a secret.
pub(super) fn callback(url: &Url, register_url: &Url, redactor: &Redactor) -> Option<CallbackPage> {
    let user = |url: &Url| (url.username().to_owned(), url.password().map(str::to_owned));
    let as_register_url = user(url) != (String::new(), None);
    let is_known = !as_register_url || (user(url) == user(register_url) && url.origin() == register_url.origin());
    let written = bare(url).to_string();
    let (written, masked) = redactor.redact(written);
    let is_plain = url.query().is_none() && masked == 0;
    (is_known && is_plain).then_some(CallbackPage {
        url: written,
        as_register_url,
    })
}

pub(super) fn restore(page: &CallbackPage, register_url: &Url) -> Option<Url> {
    let mut url = Url::parse(&page.url)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))?;
    if page.as_register_url {
        url.set_username(register_url.username()).ok()?;
        url.set_password(register_url.password()).ok()?;
    }
    Some(url)
}

/// A URL without what may be a secret in it.
pub(super) fn bare(url: &Url) -> Url {
    let mut bare = url.clone();
    let _ = bare.set_username("");
    let _ = bare.set_password(None);
    bare.set_query(None);
    bare.set_fragment(None);
    bare
}
