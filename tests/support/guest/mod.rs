//! A tool as component text, made in the test: good, or hostile in one way. No guest toolchain is needed.

pub mod filesystem;

/// One tool. [`Guest::good`] is a tool that answers with its input; each test changes the one thing that it is about.
#[derive(Clone, Debug)]
pub struct Guest {
    /// What `describe()` says, and what the manifest says unless a test gives another one.
    pub name: String,
    pub schema: String,
    /// The version of `plue:tool` it was built for.
    pub version: &'static str,
    /// Imports beyond what every guest has, as component text.
    pub imports: Vec<Import>,
    /// Core text that stands beside the functions: memories, tables, globals, a start function.
    pub items: String,
    /// Core text that runs in `describe`, and in `call` before the answer; `call` has `$input` and `$length`, and both
    /// have the locals `$a` and `$b`.
    pub describe: String,
    pub call: String,
    /// Core text that runs in `realloc`.
    pub realloc: String,
    /// Component text at the end.
    pub more: String,
    /// A component with the name `$beside`, as text. It stands beside the guest in one that holds both, and the guest
    /// may import what it exports as the instance `beside`: no component may call into one that it holds itself.
    pub beside: String,
}

/// An interface of the host: its import as component text, and the functions of it that the guest calls.
#[derive(Clone, Copy, Debug)]
pub struct Import {
    pub text: &'static str,
    /// The core name, and how the component gets it: a function to lower, or a whole canonical definition.
    pub functions: &'static [(&'static str, Function)],
}

#[derive(Clone, Copy, Debug)]
pub enum Function {
    /// Of this instance by this name, with these core parameters and results.
    Lowered(&'static str, &'static str, &'static str),
    /// The same with strings in this encoding, in place of UTF-8.
    Encoded(&'static str, &'static str, &'static str, &'static str),
    /// Makes a handle of this type, which is the component's own.
    New(&'static str),
    /// Drops a handle of this type.
    Drop(&'static str),
}

/// Where the guest keeps things in its memory: the definition, the result, and what realloc gives out.
const DEFINITION: usize = 0x100;
pub const RESULT: usize = 0x200;
/// Free for a test's own use.
pub const SCRATCH: usize = 0x400;
const TEXT: usize = 0x1000;

/// The interface `types`.
const TYPES: &str = r#"(import "plue:tool/types@VERSION" (instance $types
    (type $effects' (flags "reads" "writes" "executes"))
    (export "effects" (type $effects (eq $effects')))
    (type $definition' (record (field "name" string) (field "description" string) (field "input-schema" string)
      (field "effects" $effects) (field "idempotent" bool)))
    (export "definition" (type $definition (eq $definition')))
    (type $unit' (enum "bytes" "characters" "lines" "entries" "matches"))
    (export "unit" (type $unit (eq $unit')))
    (type $truncation' (record (field "shown" u64) (field "total" (option u64)) (field "unit" $unit)))
    (export "truncation" (type $truncation (eq $truncation')))
    (type $output' (record (field "text" string) (field "truncated" (option $truncation))))
    (export "output" (type $output (eq $output')))
    (type $error' (variant (case "invalid-input" string) (case "not-found" string) (case "denied" string)
      (case "too-large" string) (case "timeout" string) (case "cancelled" string) (case "exhausted" string)
      (case "failed" string)))
    (export "tool-error" (type $error (eq $error')))))"#;

/// Takes any object.
pub const ANY_OBJECT: &str = r#"{"type":"object"}"#;

impl Guest {
    pub fn good(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            schema: ANY_OBJECT.to_owned(),
            version: "1.0.0",
            imports: Vec::new(),
            items: String::new(),
            describe: String::new(),
            call: String::new(),
            realloc: String::new(),
            more: String::new(),
            beside: String::new(),
        }
    }

    /// Does this before it answers a call.
    pub fn on_call(name: &str, call: &str) -> Self {
        Self {
            call: call.to_owned(),
            ..Self::good(name)
        }
    }

    pub fn importing(mut self, import: Import) -> Self {
        self.imports.push(import);
        self
    }

    /// With this import, when it has none yet.
    pub fn importing_once(self, import: Import) -> Self {
        if self.imports.is_empty() {
            self.importing(import)
        } else {
            self
        }
    }

    /// The component.
    pub fn wasm(&self) -> Vec<u8> {
        let text = match self.beside.is_empty() {
            true => self.text(),
            false => self.both(),
        };
        wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A component that holds the guest and the one beside it.
    fn both(&self) -> String {
        let Self { version, beside, .. } = self;
        let (types, guest) = (TYPES.replace("VERSION", version), self.text());
        let guest = guest.replacen("(component", "(component $guest", 1);
        format!(
            r#"(component
  {types}
  {beside}
  (instance $beside (instantiate $beside))
  {guest}
  (instance $guest (instantiate $guest (with "plue:tool/types@{version}" (instance $types))
    (with "beside" (instance $beside))))
  (export "plue:tool/plugin@{version}" (instance $guest "plue:tool/plugin@{version}")))"#
        )
    }

    fn text(&self) -> String {
        let schema_at = TEXT + self.name.len();
        let pages = 4 + self.schema.len() / 65536;
        let heap = (schema_at + self.schema.len()).next_multiple_of(65536);
        let (mut imports, mut core_imports, mut lowered, mut with) = Default::default();
        for import in &self.imports {
            push(&mut imports, import.text);
            for (name, function) in import.functions {
                let (definition, kind) = match function {
                    Function::Lowered(instance, function, kind) => (
                        format!(
                            "(canon lower (func ${instance} \"{function}\") (memory $memory) (realloc (core func \
                                $realloc)))"
                        ),
                        *kind,
                    ),
                    Function::Encoded(instance, function, kind, encoding) => (
                        format!(
                            "(canon lower (func ${instance} \"{function}\") (memory $memory) (realloc (core func \
                                $realloc)) \
                             string-encoding={encoding})"
                        ),
                        *kind,
                    ),
                    Function::New(kind) => (format!("(canon resource.new ${kind})"), "(param i32) (result i32)"),
                    Function::Drop(kind) => (format!("(canon resource.drop ${kind})"), "(param i32)"),
                };
                push(&mut lowered, &format!("(core func $host_{name} {definition})"));
                push(
                    &mut core_imports,
                    &format!("(import \"host\" \"{name}\" (func ${name} {kind}))"),
                );
                push(&mut with, &format!("(export \"{name}\" (func $host_{name}))"));
            }
        }
        let Self {
            name,
            schema,
            version,
            items,
            describe,
            call,
            realloc,
            more,
            ..
        } = self;
        let types = TYPES.replace("VERSION", version);
        let (schema_text, definition) = (escaped(schema.as_bytes()), self.definition(schema_at));
        format!(
            r#"(component
  {types}
  (alias export $types "definition" (type $definition))
  (alias export $types "output" (type $output))
  (alias export $types "tool-error" (type $error))
{imports}
  (core module $libc
    (memory (export "memory") {pages})
    (global $next (mut i32) (i32.const {heap}))
    (func (export "realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
      {realloc}
      (global.get $next)
      (global.set $next (i32.and (i32.add (i32.add (global.get $next) (local.get $size)) (i32.const 15)) (i32.const -16))))
    (data (i32.const {TEXT}) "{name}")
    (data (i32.const {schema_at}) "{schema_text}")
    (data (i32.const {DEFINITION}) "{definition}"))
  (core instance $libc (instantiate $libc))
  (alias core export $libc "memory" (core memory $memory))
  (alias core export $libc "realloc" (core func $realloc))
{lowered}
  (core module $main
    (import "libc" "memory" (memory 1))
{core_imports}
    {items}
    (func (export "describe") (result i32) (local $a i32) (local $b i32)
      {describe}
      (i32.const {DEFINITION}))
    (func (export "call") (param $input i32) (param $length i32) (result i32) (local $a i32) (local $b i32)
      (i32.store (i32.const {RESULT_TEXT}) (local.get $input))
      (i32.store (i32.const {RESULT_LENGTH}) (local.get $length))
      {call}
      (i32.const {RESULT})))
  (core instance $host {with})
  (core instance $main (instantiate $main (with "libc" (instance $libc)) (with "host" (instance $host))))
  (func $describe (result $definition)
    (canon lift (core func $main "describe") (memory $memory) (realloc (core func $realloc))))
  (func $call (param "input" string) (result (result $output (error $error)))
    (canon lift (core func $main "call") (memory $memory) (realloc (core func $realloc))))
  (instance $plugin (export "describe" (func $describe)) (export "call" (func $call)))
  (export "plue:tool/plugin@{version}" (instance $plugin))
  {more}
)"#,
            RESULT_TEXT = RESULT + 8,
            RESULT_LENGTH = RESULT + 12,
        )
    }

    /// The record `definition` in memory; the description is the name once more.
    fn definition(&self, schema_at: usize) -> String {
        let words = [
            TEXT,
            self.name.len(),
            TEXT,
            self.name.len(),
            schema_at,
            self.schema.len(),
        ];
        let bytes: Vec<u8> = words
            .iter()
            .flat_map(|word| (*word as u32).to_le_bytes())
            .chain([1, 1])
            .collect();
        escaped(&bytes)
    }
}

fn push(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:02x}")).collect()
}

/// Ends a call with an error of this case of `tool-error`, and the input as its text.
pub fn fails_with(case: u8) -> String {
    format!(
        "(i32.store8 (i32.const {RESULT}) (i32.const 1))
         (i32.store8 (i32.const {}) (i32.const {case}))
         (i32.store (i32.const {}) (local.get $input))
         (i32.store (i32.const {}) (local.get $length))",
        RESULT + 8,
        RESULT + 12,
        RESULT + 16,
    )
}

/// Answers a call with this part of the memory.
pub fn answers(pointer: &str, length: &str) -> String {
    format!(
        "(i32.store (i32.const {}) {pointer}) (i32.store (i32.const {}) {length})",
        RESULT + 8,
        RESULT + 12
    )
}

/// Grows the first memory by so many pages, in one step.
pub fn grow_memory(pages: usize) -> String {
    format!("(drop (memory.grow (i32.const {pages})))")
}

/// Does something for ever.
pub fn forever(body: &str) -> String {
    format!("(loop $again {body} (br $again))")
}

pub const PROGRESS: Import = Import {
    text: r#"(import "plue:tool/progress@1.0.0" (instance $progress (export "output" (func (param "text" string)))))"#,
    functions: &[("show", Function::Lowered("progress", "output", "(param i32 i32)"))],
};

pub const RANDOM: Import = Import {
    text: r#"(import "wasi:random/random@0.2.6" (instance $random
      (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))"#,
    functions: &[(
        "random",
        Function::Lowered("random", "get-random-bytes", "(param i64 i32)"),
    )],
};

/// `subscribe` makes a pollable that is ready after so many nanoseconds, `block` waits for one.
pub const CLOCK: Import = Import {
    text: r#"(import "wasi:io/poll@0.2.3" (instance $poll
      (export "pollable" (type $pollable (sub resource)))
      (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
    (alias export $poll "pollable" (type $pollable))
    (import "wasi:clocks/monotonic-clock@0.2.3" (instance $clock
      (alias outer 1 $pollable (type $pollable'))
      (export "pollable" (type $pollable (eq $pollable')))
      (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))"#,
    functions: &[
        (
            "subscribe",
            Function::Lowered("clock", "subscribe-duration", "(param i64) (result i32)"),
        ),
        (
            "block",
            Function::Lowered("poll", "[method]pollable.block", "(param i32)"),
        ),
    ],
};

/// `directories` lists the preopens, `open` opens relative to one, `read` lists one, `entry` gives the next of such a
/// list; each gives its result through a pointer.
pub const FILES: Import = Import {
    text: r#"(import "wasi:filesystem/types@0.2.9" (instance $files
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
      (export "[method]descriptor.open-at" (func (param "self" (borrow $descriptor)) (param "path-flags" $path-flags)
        (param "path" string) (param "open-flags" $open-flags) (param "flags" $flags)
        (result (result (own $descriptor) (error $error)))))
      (export "directory-entry-stream" (type $entries (sub resource)))
      (type $kind' (enum "unknown" "block-device" "character-device" "directory" "fifo" "symbolic-link" "regular-file"
        "socket"))
      (export "descriptor-type" (type $kind (eq $kind')))
      (type $entry' (record (field "type" $kind) (field "name" string)))
      (export "directory-entry" (type $entry (eq $entry')))
      (export "[method]descriptor.read-directory" (func (param "self" (borrow $descriptor))
        (result (result (own $entries) (error $error)))))
      (export "[method]directory-entry-stream.read-directory-entry" (func (param "self" (borrow $entries))
        (result (result (option $entry) (error $error)))))))
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
            Function::Lowered("files", "[method]descriptor.read-directory", "(param i32 i32)"),
        ),
        (
            "entry",
            Function::Lowered(
                "files",
                "[method]directory-entry-stream.read-directory-entry",
                "(param i32 i32)",
            ),
        ),
        ("close", Function::Drop("descriptor")),
    ],
};

/// `start` runs a command, `next` gives what happens; each gives its result through a pointer.
pub const PROCESS: Import = Import {
    text: r#"(import "plue:tool/process@1.0.0" (instance $process
      (type $command' (record (field "argv" (list string)) (field "working-directory" string)
        (field "timeout-ms" u64)))
      (export "command" (type $command (eq $command')))
      (type $stream' (enum "stdout" "stderr"))
      (export "stream" (type $stream (eq $stream')))
      (type $ending' (enum "exited" "timed-out" "cancelled" "memory" "processes"))
      (export "ending" (type $ending (eq $ending')))
      (type $status' (record (field "code" s32) (field "ending" $ending)))
      (export "exit-status" (type $status (eq $status')))
      (type $chunk' (record (field "stream" $stream) (field "bytes" (list u8))))
      (export "chunk" (type $chunk (eq $chunk')))
      (type $dropped' (record (field "stream" $stream) (field "bytes" u64)))
      (export "dropped" (type $dropped (eq $dropped')))
      (type $event' (variant (case "output" $chunk) (case "dropped" $dropped) (case "exited" $status)))
      (export "event" (type $event (eq $event')))
      (type $start-error' (variant (case "invalid" string) (case "not-found" string) (case "denied" string)
        (case "failed" string)))
      (export "start-error" (type $start-error (eq $start-error')))
      (export "running-command" (type $running (sub resource)))
      (export "[method]running-command.next" (func (param "self" (borrow $running)) (result $event)))
      (export "start" (func (param "command" $command)
        (result (result (own $running) (error $start-error)))))))"#,
    functions: &[
        (
            "start",
            Function::Lowered("process", "start", "(param i32 i32 i32 i32 i64 i32)"),
        ),
        (
            "next",
            Function::Lowered("process", "[method]running-command.next", "(param i32 i32)"),
        ),
    ],
};

/// `new` makes a handle of a resource that the component itself defines: it is in no table of the host's.
pub const OWN_RESOURCE: Import = Import {
    text: "(type $own (resource (rep i32)))",
    functions: &[("new", Function::New("own"))],
};

/// `socket` makes a TCP socket; its result comes through a pointer.
pub const SOCKETS: Import = Import {
    text: r#"(import "wasi:sockets/network@0.2.12" (instance $network
      (type $error' (enum "unknown" "access-denied" "not-supported" "invalid-argument" "out-of-memory" "timeout"
        "concurrency-conflict" "not-in-progress" "would-block" "invalid-state" "new-socket-limit"
        "address-not-bindable" "address-in-use" "remote-unreachable" "connection-refused" "connection-reset"
        "connection-aborted" "datagram-too-large" "name-unresolvable" "temporary-resolver-failure"
        "permanent-resolver-failure"))
      (export "error-code" (type $error (eq $error')))
      (type $family' (enum "ipv4" "ipv6"))
      (export "ip-address-family" (type $family (eq $family')))))
    (import "wasi:sockets/tcp@0.2.12" (instance $tcp (export "tcp-socket" (type (sub resource)))))
    (alias export $network "error-code" (type $socket-error))
    (alias export $network "ip-address-family" (type $family))
    (alias export $tcp "tcp-socket" (type $socket))
    (import "wasi:sockets/tcp-create-socket@0.2.12" (instance $create
      (alias outer 1 $socket-error (type $error'))
      (export "error-code" (type $error (eq $error')))
      (alias outer 1 $family (type $family'))
      (export "ip-address-family" (type $family (eq $family')))
      (alias outer 1 $socket (type $socket'))
      (export "tcp-socket" (type $socket (eq $socket')))
      (export "create-tcp-socket" (func (param "address-family" $family)
        (result (result (own $socket) (error $error)))))))"#,
    functions: &[(
        "socket",
        Function::Lowered("create", "create-tcp-socket", "(param i32 i32)"),
    )],
};

/// An interface that no grant gives, by name.
pub fn unknown_import(interface: &'static str) -> Import {
    let text = format!("(import \"{interface}\" (instance (export \"f\" (func))))");
    Import {
        text: text.leak(),
        functions: &[],
    }
}

/// `replace` gives a file new content; its result comes through a pointer.
pub const WORKSPACE: Import = Import {
    text: r#"(alias export $types "tool-error" (type $tool-error))
    (import "plue:tool/workspace@1.0.0" (instance $workspace
      (alias outer 1 $tool-error (type $tool-error'))
      (export "tool-error" (type $tool-error (eq $tool-error')))
      (export "replace-file" (func (param "path" string) (param "content" (list u8))
        (result (result (error $tool-error)))))))"#,
    functions: &[(
        "replace",
        Function::Lowered("workspace", "replace-file", "(param i32 i32 i32 i32 i32)"),
    )],
};
