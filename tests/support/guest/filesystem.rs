//! A tool that calls `wasi:filesystem` itself, without a library that would clean its paths first: a list of calls that
//! it makes one after the other. It answers with what it read last; a call that is refused ends it, as `denied`,
//! `not-found` or `failed` with the number of the error.

use std::fmt::Write as _;

use super::{Function, Guest, Import, RESULT, SCRATCH, answers, push};

/// Follow a link that the path ends in.
pub const FOLLOW: u32 = 1;
pub const NO_FOLLOW: u32 = 0;

/// Open flags.
pub const CREATE: u32 = 1;
pub const DIRECTORY: u32 = 2;
pub const EXCLUSIVE: u32 = 4;
pub const TRUNCATE: u32 = 8;

/// Descriptor flags.
pub const READ: u32 = 1;
pub const WRITE: u32 = 2;
pub const MUTATE: u32 = 32;

/// The handle of the workspace. What is opened first is 1, then 2.
pub const ROOT: usize = 0;

/// Where paths and texts are kept, and the handles.
const TEXTS: usize = 0x8000;
const HANDLES: usize = SCRATCH + 0x200;
/// Two digits: the number of an error.
const CODE: usize = SCRATCH + 0x300;

/// The calls, as they are put together.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    code: String,
    texts: Vec<u8>,
    opened: usize,
}

impl Calls {
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens a path relative to a handle.
    pub fn open(mut self, at: usize, path: &str, follow: u32, open: u32, flags: u32) -> Self {
        let path = self.text(path);
        let call = format!(
            "(call $open {} (i32.const {follow}) {path} (i32.const {open}) (i32.const {flags}) {R})",
            handle(at)
        );
        self.call(&call, 4);
        self.opened += 1;
        push(
            &mut self.code,
            &format!(
                "(i32.store (i32.const {}) (i32.load (i32.const {})))",
                HANDLES + 4 * self.opened,
                SCRATCH + 4
            ),
        );
        self
    }

    /// Opens a file for reading, and reads it.
    pub fn read_at(self, path: &str, follow: u32) -> Self {
        let calls = self.open(ROOT, path, follow, 0, READ);
        let opened = calls.opened;
        calls.read(opened, 4096)
    }

    /// Reads from the beginning; that is the answer.
    pub fn read(mut self, at: usize, length: u64) -> Self {
        let call = format!("(call $read {} (i64.const {length}) (i64.const 0) {R})", handle(at));
        self.call(&call, 4);
        self.answer()
    }

    pub fn write(mut self, at: usize, text: &str) -> Self {
        let text = self.text(text);
        let call = format!("(call $write {} {text} (i64.const 0) {R})", handle(at));
        self.call(&call, 8);
        self
    }

    /// Asks for a stream that writes from the beginning.
    pub fn write_stream(mut self, at: usize) -> Self {
        let call = format!("(call $write_stream {} (i64.const 0) {R})", handle(at));
        self.call(&call, 4);
        self
    }

    /// Asks for a stream that writes at the end.
    pub fn append_stream(mut self, at: usize) -> Self {
        let call = format!("(call $append_stream {} {R})", handle(at));
        self.call(&call, 4);
        self
    }

    pub fn set_size(mut self, at: usize, size: u64) -> Self {
        let call = format!("(call $set_size {} (i64.const {size}) {R})", handle(at));
        self.call(&call, 1);
        self
    }

    /// Sets both times of an open file to the beginning of 1970.
    pub fn set_times(mut self, at: usize) -> Self {
        let call = format!("(call $set_times {} {EPOCH} {EPOCH} {R})", handle(at));
        self.call(&call, 1);
        self
    }

    /// Sets both times of an open file to what need not be a time at all.
    pub fn set_times_to(mut self, at: usize, seconds: u64, nanoseconds: u32) -> Self {
        let time = format!("(i32.const 2) (i64.const {seconds}) (i32.const {nanoseconds})");
        let call = format!("(call $set_times {} {time} {time} {R})", handle(at));
        self.call(&call, 1);
        self
    }

    /// Sets both times of a path to the beginning of 1970.
    pub fn set_times_at(mut self, path: &str, follow: u32) -> Self {
        let path = self.text(path);
        let call = format!(
            "(call $set_times_at {} (i32.const {follow}) {path} {EPOCH} {EPOCH} {R})",
            handle(ROOT)
        );
        self.call(&call, 1);
        self
    }

    /// Sets both times of a path to what need not be a time at all.
    pub fn set_times_at_to(mut self, path: &str, seconds: u64, nanoseconds: u32) -> Self {
        let path = self.text(path);
        let time = format!("(i32.const 2) (i64.const {seconds}) (i32.const {nanoseconds})");
        let call = format!(
            "(call $set_times_at {} (i32.const {NO_FOLLOW}) {path} {time} {time} {R})",
            handle(ROOT)
        );
        self.call(&call, 1);
        self
    }

    pub fn symlink(mut self, target: &str, name: &str) -> Self {
        let (target, name) = (self.text(target), self.text(name));
        let call = format!("(call $symlink {} {target} {name} {R})", handle(ROOT));
        self.call(&call, 1);
        self
    }

    pub fn link(mut self, old: &str, follow: u32, new: &str) -> Self {
        let (old, new) = (self.text(old), self.text(new));
        let root = handle(ROOT);
        let call = format!("(call $link {root} (i32.const {follow}) {old} {root} {new} {R})");
        self.call(&call, 1);
        self
    }

    pub fn rename(mut self, old: &str, new: &str) -> Self {
        let (old, new) = (self.text(old), self.text(new));
        let root = handle(ROOT);
        let call = format!("(call $rename {root} {old} {root} {new} {R})");
        self.call(&call, 1);
        self
    }

    /// Reads a link; its target is the answer.
    pub fn read_link(self, path: &str) -> Self {
        self.at_path("read_link", path, 4).answer()
    }

    pub fn unlink(self, path: &str) -> Self {
        self.at_path("unlink", path, 1)
    }

    pub fn make_folder(self, path: &str) -> Self {
        self.at_path("make_folder", path, 1)
    }

    pub fn remove_folder(self, path: &str) -> Self {
        self.at_path("remove_folder", path, 1)
    }

    pub fn stat(mut self, path: &str, follow: u32) -> Self {
        let path = self.text(path);
        let call = format!("(call $stat {} (i32.const {follow}) {path} {R})", handle(ROOT));
        self.call(&call, 8);
        self
    }

    /// The same; the answer is the kind of what is there, as its digit in `descriptor-type`.
    pub fn kind(mut self, path: &str, follow: u32) -> Self {
        self = self.stat(path, follow);
        let (kind, digit) = (SCRATCH + 8, CODE);
        let store =
            format!("(i32.store8 (i32.const {digit}) (i32.add (i32.const 48) (i32.load8_u (i32.const {kind}))))");
        push(&mut self.code, &store);
        push(
            &mut self.code,
            &answers(&format!("(i32.const {digit})"), "(i32.const 1)"),
        );
        self
    }

    pub fn hash(mut self, path: &str, follow: u32) -> Self {
        let path = self.text(path);
        let call = format!("(call $hash {} (i32.const {follow}) {path} {R})", handle(ROOT));
        self.call(&call, 8);
        self
    }

    /// The tool.
    pub fn guest(self, name: &str) -> Guest {
        let texts: String = self.texts.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "\\{byte:02x}");
            text
        });
        let items = format!("(data (i32.const {TEXTS}) \"{texts}\")\n{FAIL}");
        let code = format!(
            "(call $directories {R})
             (if (i32.eqz (i32.load (i32.const {}))) (then (return (call $fail (i32.const 31)))))
             (i32.store (i32.const {HANDLES}) (i32.load (i32.load (i32.const {SCRATCH}))))
             {}",
            SCRATCH + 4,
            self.code
        );
        Guest {
            items: items
                .replace("RESULT", &RESULT.to_string())
                .replace("CODE", &CODE.to_string()),
            ..Guest::on_call(name, &code)
        }
        .importing(FILESYSTEM)
    }

    fn at_path(mut self, function: &str, path: &str, error: usize) -> Self {
        let path = self.text(path);
        let call = format!("(call ${function} {} {path} {R})", handle(ROOT));
        self.call(&call, error);
        self
    }

    /// Makes a call whose result has its error at this place, and ends the tool when it is one.
    fn call(&mut self, call: &str, error: usize) {
        let check = format!(
            "(if (i32.load8_u {R}) (then (return (call $fail (i32.load8_u (i32.const {})))))) ",
            SCRATCH + error
        );
        push(&mut self.code, call);
        push(&mut self.code, &check);
    }

    /// Pointer and length of a text.
    fn text(&mut self, text: &str) -> String {
        let at = TEXTS + self.texts.len();
        self.texts.extend_from_slice(text.as_bytes());
        format!("(i32.const {at}) (i32.const {})", text.len())
    }

    /// The list or string of the last result is the answer.
    fn answer(mut self) -> Self {
        let load = |at: usize| format!("(i32.load (i32.const {at}))");
        push(&mut self.code, &answers(&load(SCRATCH + 4), &load(SCRATCH + 8)));
        self
    }
}

/// Where each result goes.
const R: &str = "(i32.const 1024)";
const _: () = assert!(SCRATCH == 1024);

/// A timestamp of zero.
const EPOCH: &str = "(i32.const 2) (i64.const 0) (i32.const 0)";

/// Ends the call with an error by the number of the file system's: access, not-permitted and read-only are `denied`.
const FAIL: &str = r#"
    (func $fail (param $code i32) (result i32)
      (i32.store8 (i32.const CODE) (i32.add (i32.const 48) (i32.div_u (local.get $code) (i32.const 10))))
      (i32.store8 offset=1 (i32.const CODE) (i32.add (i32.const 48) (i32.rem_u (local.get $code) (i32.const 10))))
      (i32.store8 (i32.const RESULT) (i32.const 1))
      (i32.store8 offset=8 (i32.const RESULT)
        (if (result i32) (i32.or (i32.eqz (local.get $code))
          (i32.or (i32.eq (local.get $code) (i32.const 31)) (i32.eq (local.get $code) (i32.const 33))))
          (then (i32.const 2))
          (else (if (result i32) (i32.eq (local.get $code) (i32.const 20)) (then (i32.const 1)) (else (i32.const 7))))))
      (i32.store offset=12 (i32.const RESULT) (i32.const CODE))
      (i32.store offset=16 (i32.const RESULT) (i32.const 2))
      (i32.const RESULT))
"#;

fn handle(at: usize) -> String {
    format!("(i32.load (i32.const {}))", HANDLES + 4 * at)
}

/// All of the interface that can reach, read or change something.
pub const FILESYSTEM: Import = Import {
    text: r#"(import "wasi:io/streams@0.2.9" (instance $streams (export "output-stream" (type (sub resource)))))
    (alias export $streams "output-stream" (type $output-stream))
    (import "wasi:filesystem/types@0.2.9" (instance $files
      (alias outer 1 $output-stream (type $output-stream'))
      (export "output-stream" (type $output-stream (eq $output-stream')))
      (export "descriptor" (type $descriptor (sub resource)))
      (type $error' (enum "access" "would-block" "already" "bad-descriptor" "busy" "deadlock" "quota" "exist"
        "file-too-large" "illegal-byte-sequence" "in-progress" "interrupted" "invalid" "io" "is-directory" "loop"
        "too-many-links" "message-size" "name-too-long" "no-device" "no-entry" "no-lock" "insufficient-memory"
        "insufficient-space" "not-directory" "not-empty" "not-recoverable" "unsupported" "no-tty" "no-such-device"
        "overflow" "not-permitted" "pipe" "read-only" "invalid-seek" "text-file-busy" "cross-device"))
      (export "error-code" (type $error (eq $error')))
      (type $path-flags' (flags "symlink-follow"))
      (export "path-flags" (type $path-flags (eq $path-flags')))
      (type $open-flags' (flags "create" "directory" "exclusive" "truncate"))
      (export "open-flags" (type $open-flags (eq $open-flags')))
      (type $flags' (flags "read" "write" "file-integrity-sync" "data-integrity-sync" "requested-write-sync"
        "mutate-directory"))
      (export "descriptor-flags" (type $flags (eq $flags')))
      (type $kind' (enum "unknown" "block-device" "character-device" "directory" "fifo" "symbolic-link" "regular-file"
        "socket"))
      (export "descriptor-type" (type $kind (eq $kind')))
      (type $datetime' (record (field "seconds" u64) (field "nanoseconds" u32)))
      (export "datetime" (type $datetime (eq $datetime')))
      (type $new-timestamp' (variant (case "no-change") (case "now") (case "timestamp" $datetime)))
      (export "new-timestamp" (type $new-timestamp (eq $new-timestamp')))
      (type $stat' (record (field "type" $kind) (field "link-count" u64) (field "size" u64)
        (field "data-access-timestamp" (option $datetime)) (field "data-modification-timestamp" (option $datetime))
        (field "status-change-timestamp" (option $datetime))))
      (export "descriptor-stat" (type $stat (eq $stat')))
      (type $hash' (record (field "lower" u64) (field "upper" u64)))
      (export "metadata-hash-value" (type $hash (eq $hash')))
      (export "[method]descriptor.open-at" (func (param "self" (borrow $descriptor)) (param "path-flags" $path-flags)
        (param "path" string) (param "open-flags" $open-flags) (param "flags" $flags)
        (result (result (own $descriptor) (error $error)))))
      (export "[method]descriptor.read" (func (param "self" (borrow $descriptor)) (param "length" u64)
        (param "offset" u64) (result (result (tuple (list u8) bool) (error $error)))))
      (export "[method]descriptor.write" (func (param "self" (borrow $descriptor)) (param "buffer" (list u8))
        (param "offset" u64) (result (result u64 (error $error)))))
      (export "[method]descriptor.write-via-stream" (func (param "self" (borrow $descriptor)) (param "offset" u64)
        (result (result (own $output-stream) (error $error)))))
      (export "[method]descriptor.append-via-stream" (func (param "self" (borrow $descriptor))
        (result (result (own $output-stream) (error $error)))))
      (export "[method]descriptor.set-size" (func (param "self" (borrow $descriptor)) (param "size" u64)
        (result (result (error $error)))))
      (export "[method]descriptor.set-times" (func (param "self" (borrow $descriptor))
        (param "data-access-timestamp" $new-timestamp) (param "data-modification-timestamp" $new-timestamp)
        (result (result (error $error)))))
      (export "[method]descriptor.set-times-at" (func (param "self" (borrow $descriptor))
        (param "path-flags" $path-flags) (param "path" string) (param "data-access-timestamp" $new-timestamp)
        (param "data-modification-timestamp" $new-timestamp) (result (result (error $error)))))
      (export "[method]descriptor.symlink-at" (func (param "self" (borrow $descriptor)) (param "old-path" string)
        (param "new-path" string) (result (result (error $error)))))
      (export "[method]descriptor.link-at" (func (param "self" (borrow $descriptor)) (param "old-path-flags" $path-flags)
        (param "old-path" string) (param "new-descriptor" (borrow $descriptor)) (param "new-path" string)
        (result (result (error $error)))))
      (export "[method]descriptor.rename-at" (func (param "self" (borrow $descriptor)) (param "old-path" string)
        (param "new-descriptor" (borrow $descriptor)) (param "new-path" string) (result (result (error $error)))))
      (export "[method]descriptor.readlink-at" (func (param "self" (borrow $descriptor)) (param "path" string)
        (result (result string (error $error)))))
      (export "[method]descriptor.unlink-file-at" (func (param "self" (borrow $descriptor)) (param "path" string)
        (result (result (error $error)))))
      (export "[method]descriptor.create-directory-at" (func (param "self" (borrow $descriptor)) (param "path" string)
        (result (result (error $error)))))
      (export "[method]descriptor.remove-directory-at" (func (param "self" (borrow $descriptor)) (param "path" string)
        (result (result (error $error)))))
      (export "[method]descriptor.stat-at" (func (param "self" (borrow $descriptor)) (param "path-flags" $path-flags)
        (param "path" string) (result (result $stat (error $error)))))
      (export "[method]descriptor.metadata-hash-at" (func (param "self" (borrow $descriptor))
        (param "path-flags" $path-flags) (param "path" string) (result (result $hash (error $error)))))))
    (alias export $files "descriptor" (type $descriptor))
    (import "wasi:filesystem/preopens@0.2.9" (instance $preopens
      (alias outer 1 $descriptor (type $descriptor'))
      (export "descriptor" (type $descriptor (eq $descriptor')))
      (export "get-directories" (func (result (list (tuple (own $descriptor) string)))))))"#,
    functions: &[
        (
            "directories",
            Function::Lowered("preopens", "get-directories", "(param i32)"),
        ),
        (
            "open",
            Function::Lowered(
                "files",
                "[method]descriptor.open-at",
                "(param i32 i32 i32 i32 i32 i32 i32)",
            ),
        ),
        (
            "read",
            Function::Lowered("files", "[method]descriptor.read", "(param i32 i64 i64 i32)"),
        ),
        (
            "write",
            Function::Lowered("files", "[method]descriptor.write", "(param i32 i32 i32 i64 i32)"),
        ),
        (
            "write_stream",
            Function::Lowered("files", "[method]descriptor.write-via-stream", "(param i32 i64 i32)"),
        ),
        (
            "append_stream",
            Function::Lowered("files", "[method]descriptor.append-via-stream", "(param i32 i32)"),
        ),
        (
            "set_size",
            Function::Lowered("files", "[method]descriptor.set-size", "(param i32 i64 i32)"),
        ),
        (
            "set_times",
            Function::Lowered(
                "files",
                "[method]descriptor.set-times",
                "(param i32 i32 i64 i32 i32 i64 i32 i32)",
            ),
        ),
        (
            "set_times_at",
            Function::Lowered(
                "files",
                "[method]descriptor.set-times-at",
                "(param i32 i32 i32 i32 i32 i64 i32 i32 i64 i32 i32)",
            ),
        ),
        (
            "symlink",
            Function::Lowered(
                "files",
                "[method]descriptor.symlink-at",
                "(param i32 i32 i32 i32 i32 i32)",
            ),
        ),
        (
            "link",
            Function::Lowered(
                "files",
                "[method]descriptor.link-at",
                "(param i32 i32 i32 i32 i32 i32 i32 i32)",
            ),
        ),
        (
            "rename",
            Function::Lowered(
                "files",
                "[method]descriptor.rename-at",
                "(param i32 i32 i32 i32 i32 i32 i32)",
            ),
        ),
        (
            "read_link",
            Function::Lowered("files", "[method]descriptor.readlink-at", "(param i32 i32 i32 i32)"),
        ),
        (
            "unlink",
            Function::Lowered("files", "[method]descriptor.unlink-file-at", "(param i32 i32 i32 i32)"),
        ),
        (
            "make_folder",
            Function::Lowered(
                "files",
                "[method]descriptor.create-directory-at",
                "(param i32 i32 i32 i32)",
            ),
        ),
        (
            "remove_folder",
            Function::Lowered(
                "files",
                "[method]descriptor.remove-directory-at",
                "(param i32 i32 i32 i32)",
            ),
        ),
        (
            "stat",
            Function::Lowered("files", "[method]descriptor.stat-at", "(param i32 i32 i32 i32 i32)"),
        ),
        (
            "hash",
            Function::Lowered(
                "files",
                "[method]descriptor.metadata-hash-at",
                "(param i32 i32 i32 i32 i32)",
            ),
        ),
    ],
};
