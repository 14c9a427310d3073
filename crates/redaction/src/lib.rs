#![doc = include_str!("../README.md")]
#![deny(missing_docs)]
#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use aho_corasick::Input;

mod forms;
mod patterns;
mod wrapped;

use patterns::Patterns;
use wrapped::{Unbroken, Wrapped};

/// What stands in the place of a secret.
pub const MASK: &str = "***";

/// A value that is shorter is no secret: it would be found in half of all words.
pub const MIN_SECRET: usize = 8;

/// How many secrets that a redactor has learned it keeps: the last ones. Each makes every search a little slower.
const MAX_LEARNED: usize = 64;

/// How names of variables with secrets end.
const SECRET_ENDINGS: [&str; 5] = ["_KEY", "_TOKEN", "_SECRET", "_PASSWORD", "_CREDENTIALS"];

/// Whether a variable of this name holds a secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    SECRET_ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// The secrets among the variables of a process.
pub fn secrets<'a>(variables: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    variables
        .filter(|(name, value)| is_secret(name) && value.trim().len() >= MIN_SECRET)
        .map(|(_, value)| value.to_owned())
        .collect()
}

/// Finds secrets, in all their forms. What it learns later, it knows in all that begins from then on.
#[derive(Default)]
pub struct Redactor {
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    /// Those from the beginning, and after them those that were learned.
    secrets: Vec<String>,
    /// How many are from the beginning.
    first: usize,
    /// `None`: there are no secrets.
    search: Option<Arc<Search>>,
}

struct Search {
    plain: Patterns,
    /// `None`: no form is long enough to be broken into lines.
    wrapped: Option<Wrapped>,
}

impl Redactor {
    /// For these secrets. An empty one is none.
    pub fn new<S: AsRef<str>>(secrets: impl IntoIterator<Item = S>) -> Self {
        let secrets = secrets.into_iter().map(|secret| secret.as_ref().trim().to_owned());
        let secrets: Vec<String> = secrets.collect();
        let known = Known {
            first: secrets.len(),
            search: Search::of(&secrets),
            secrets,
        };
        Self {
            known: RwLock::new(known),
        }
    }

    /// Masks these too from now on, and what it knows already. A stream that has begun goes on as it began. Of those
    /// that were learned the 64 are kept that came last, also those that came again.
    pub fn learn<S: AsRef<str>>(&self, secrets: impl IntoIterator<Item = S>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let (first, before) = (known.first, known.secrets.len());
        for secret in secrets {
            let secret = secret.as_ref().trim();
            match known.secrets.iter().position(|one| one == secret) {
                Some(place) if place >= first => known.secrets[place..].rotate_left(1),
                Some(_) => {}
                None if secret.is_empty() => {}
                None => known.secrets.push(secret.to_owned()),
            }
        }
        if known.secrets.len() == before {
            return;
        }
        let learned = known.secrets.len() - first;
        known.secrets.drain(first..first + learned.saturating_sub(MAX_LEARNED));
        known.search = Search::of(&known.secrets);
    }

    /// What it looks for, for a process that takes over work of this one.
    pub fn secrets(&self) -> Vec<String> {
        self.known().secrets.clone()
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The text without secrets, and how many were masked.
    pub fn redact(&self, text: String) -> (String, usize) {
        let Some(search) = self.known().search.clone() else {
            return (text, 0);
        };
        let mut out = String::new();
        let (mut done, mut masked) = (0, 0);
        let mut view = View::of(&search, text.as_bytes());
        while let Some(found) = view.find(done) {
            out.push_str(&text[done..found.start]);
            out.push_str(MASK);
            done = found.end;
            masked += 1;
        }
        if masked == 0 {
            return (text, 0);
        }
        out.push_str(&text[done..]);
        (out, masked)
    }

    /// A filter for bytes that come in pieces.
    pub fn stream(&self) -> Stream {
        Stream {
            search: self.known().search.clone(),
            pending: Vec::new(),
        }
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor")
    }
}

impl Search {
    fn of(secrets: &[String]) -> Option<Arc<Self>> {
        let (mut patterns, mut in_base64) = (Vec::new(), Vec::new());
        for secret in secrets {
            patterns.extend(forms::of(secret));
            in_base64.extend(forms::in_base64(secret));
        }
        let in_base64 = wrapped::forms(&in_base64);
        patterns.extend_from_slice(&in_base64);
        let plain = Patterns::new(patterns)?;
        let wrapped = Wrapped::new(in_base64);
        Some(Arc::new(Self { plain, wrapped }))
    }
}

/// A text, as the search sees it, and how far it has come.
struct View<'a> {
    search: &'a Search,
    text: &'a [u8],
    /// Set when something may be broken into lines.
    unbroken: Option<(&'a Wrapped, Unbroken<'a>)>,
    /// What was found ahead, plain and broken; `None`: not looked for yet, or passed.
    ahead: [Option<Option<Range<usize>>>; 2],
}

impl<'a> View<'a> {
    fn of(search: &'a Search, text: &'a [u8]) -> Self {
        let unbroken = search.wrapped.as_ref().map(|wrapped| (wrapped, Unbroken::of(text)));
        Self {
            search,
            text,
            unbroken,
            ahead: [None, None],
        }
    }

    /// The next secret from `from` on, which only grows. Of two that begin at the same place the longer one.
    fn find(&mut self, from: usize) -> Option<Range<usize>> {
        for ahead in &mut self.ahead {
            if ahead
                .as_ref()
                .is_some_and(|found| found.as_ref().is_some_and(|found| found.start < from))
            {
                *ahead = None;
            }
        }
        let [plain, wrapped] = &mut self.ahead;
        let plain = plain.get_or_insert_with(|| {
            let found = self.search.plain.automaton.find(Input::new(self.text).range(from..));
            found.map(|found| found.range())
        });
        let wrapped = wrapped.get_or_insert_with(|| {
            let (wrapped, text) = self.unbroken.as_ref().filter(|(_, text)| text.is_broken())?;
            wrapped.find(text, from)
        });
        let found = [plain.clone(), wrapped.clone()].into_iter().flatten();
        found.min_by_key(|found| (found.start, std::cmp::Reverse(found.end)))
    }

    /// Where the last bytes begin that may go on as a secret, or the end of the bytes.
    fn beginning(&self, from: usize) -> usize {
        let plain = self.search.plain.beginning(self.text, from, |_| true);
        let wrapped = self
            .unbroken
            .as_ref()
            .and_then(|(wrapped, text)| wrapped.beginning(text, from));
        [plain, wrapped].into_iter().flatten().min().unwrap_or(self.text.len())
    }
}

/// See [`Redactor::stream`]. However the bytes are cut, what comes out is what [`Redactor::redact`] makes of all of
/// them.
#[derive(Debug)]
pub struct Stream {
    search: Option<Arc<Search>>,
    /// What may be the beginning of a secret; shorter than the longest of them.
    pending: Vec<u8>,
}

impl std::fmt::Debug for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// The bytes without secrets, up to where they are kept back: `keep` says from where on, once so much of them is done.
fn mask(search: &Search, bytes: &[u8], keep: impl Fn(&View<'_>, usize) -> usize) -> (Vec<u8>, usize) {
    let mut view = View::of(search, bytes);
    let mut out = Vec::with_capacity(bytes.len());
    let mut done = 0;
    let mut kept_from = keep(&view, done);
    while let Some(found) = view.find(done) {
        // It may be the beginning of a longer one.
        if found.start >= kept_from {
            break;
        }
        out.extend_from_slice(&bytes[done..found.start]);
        out.extend_from_slice(MASK.as_bytes());
        done = found.end;
        if done > kept_from {
            kept_from = keep(&view, done);
        }
    }
    out.extend_from_slice(&bytes[done..kept_from]);
    (out, kept_from)
}

impl Stream {
    /// Takes a piece, and gives what is known to be no part of a secret that is to come.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        let Some(search) = &self.search else {
            return piece.to_vec();
        };
        self.pending.extend_from_slice(piece);
        let (out, kept_from) = mask(search, &self.pending, |view, from| view.beginning(from));
        self.pending.drain(..kept_from);
        out
    }

    /// Gives what was kept back: nothing comes any more.
    pub fn finish(&mut self) -> Vec<u8> {
        let bytes = std::mem::take(&mut self.pending);
        match &self.search {
            Some(search) => mask(search, &bytes, |_, _| bytes.len()).0,
            None => bytes,
        }
    }

    /// As [`Stream::push`], for text.
    pub fn push_text(&mut self, piece: &str) -> String {
        // Forms begin and end where characters do, so that whole characters come out.
        String::from_utf8_lossy(&self.push(piece.as_bytes())).into_owned()
    }

    /// As [`Stream::finish`], for text.
    pub fn finish_text(&mut self) -> String {
        String::from_utf8_lossy(&self.finish()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk-ant-0123456789";

    fn redacted(text: &str) -> String {
        Redactor::new([KEY]).redact(text.to_owned()).0
    }

    #[test]
    fn variables_with_secrets_are_known_by_their_names_and_short_values_are_none() {
        let variables = [
            ("ANTHROPIC_API_KEY", KEY),
            ("callback_token", "abcdefgh"),
            ("DB_PASSWORD", "short"),
            ("HOME", "/home/somebody"),
            ("KEY", "not by its name"),
            ("AWS_CREDENTIALS", " padded-value\n"),
        ];
        assert_eq!(secrets(variables.into_iter()), [KEY, "abcdefgh", " padded-value\n"]);
    }

    #[test]
    fn a_secret_is_masked_in_every_form_that_programs_write_it_in() {
        for (text, expected) in [
            ("the key is sk-ant-0123456789.", "the key is ***."),
            ("sk-ant-0123456789sk-ant-0123456789", "******"),
            ("nothing here", "nothing here"),
        ] {
            assert_eq!(redacted(text), expected);
        }
        assert_eq!(Redactor::new([KEY]).redact(format!("{KEY} {KEY}")).1, 2);
    }

    #[test]
    fn base64_that_is_broken_into_lines_hides_nothing_also_when_it_comes_in_pieces() {
        use base64::Engine;
        let secret = "sk-ant-api03-".to_owned() + &"0aB_cD-9".repeat(12);
        let redactor = Redactor::new([&secret]);
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("key={secret}\n"));
        for (width, broken) in [(76, "\n"), (64, "\r\n"), (20, "\n"), (76, "\n  \t"), (2, "\n")] {
            let lines: Vec<&str> = encoded
                .as_bytes()
                .chunks(width)
                .map(|line| std::str::from_utf8(line).unwrap_or_default())
                .collect();
            let text = format!("before\n{}\nafter\n", lines.join(broken));
            let (whole, masked) = redactor.redact(text.clone());
            assert_eq!(masked, 1, "{width}: {whole}");
            assert!(whole.len() < 40, "{width}: {whole}");
            for size in [1, 7, 33] {
                let mut stream = redactor.stream();
                let mut out: Vec<u8> = text
                    .as_bytes()
                    .chunks(size)
                    .flat_map(|piece| stream.push(piece))
                    .collect();
                out.extend(stream.finish());
                assert_eq!(String::from_utf8_lossy(&out), whole, "{width} {size}");
            }
        }
        // A line that ends as it begins is passed on.
        let mut stream = redactor.stream();
        assert_eq!(stream.push(b"abs\n"), b"abs\n");
    }

    #[test]
    fn of_two_secrets_the_longer_one_is_masked_also_when_it_comes_in_pieces() {
        let redactor = Redactor::new(["abcdefgh", "abcdefghijkl"]);
        let mut stream = redactor.stream();
        let mut out = stream.push(b"x abcdefgh");
        out.extend(stream.push(b"ij"));
        out.extend(stream.push(b"kl y abcdefghij"));
        out.extend(stream.finish());
        assert_eq!(out, b"x *** y ***ij");
    }

    #[test]
    fn what_cannot_be_a_secret_is_not_kept_back() {
        let redactor = Redactor::new([KEY]);
        let mut stream = redactor.stream();
        assert_eq!(stream.push(b"Hello, "), b"Hello, ");
        assert_eq!(stream.push(b"a task s"), b"a task ");
        assert_eq!(stream.push(b"k-ide"), b"sk-ide");
        assert_eq!(stream.finish(), b"");
    }

    #[test]
    fn what_is_learned_later_is_masked_besides_what_was_known_and_a_stream_ends_as_it_began() {
        let redactor = Redactor::new(["first-secret"]);
        let mut begun = redactor.stream();
        redactor.learn(["second-secret\n", "", "first-secret"]);
        assert_eq!(redactor.secrets(), ["first-secret", "second-secret"]);
        let text = "first-secret second-secret";
        assert_eq!(redactor.redact(text.into()), ("*** ***".into(), 2));
        let mut next = redactor.stream();
        assert_eq!([next.push(text.as_bytes()), next.finish()].concat(), b"*** ***");
        assert_eq!(
            [begun.push(text.as_bytes()), begun.finish()].concat(),
            b"*** second-secret"
        );
        // Of many the last ones are kept, and those from the beginning.
        for number in 0..100 {
            redactor.learn([format!("secret-number-{number:03}")]);
            // One that is in use all the time.
            redactor.learn(["second-secret"]);
        }
        let text = "first-secret second-secret secret-number-000 secret-number-099";
        let (text, _) = redactor.redact(text.into());
        assert_eq!(text, "*** *** secret-number-000 ***");
    }

    #[test]
    fn without_secrets_everything_passes() {
        let redactor = Redactor::new([""; 1]);
        assert_eq!(redactor.redact("***".into()), ("***".into(), 0));
        assert_eq!(redactor.stream().push(b"any"), b"any");
    }
}
