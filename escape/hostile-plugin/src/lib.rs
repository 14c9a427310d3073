//! A tool that means harm, written as its author would write it: with the SDK and the standard library. Each call makes
//! one attempt. What it gets it answers with; what it does not get it fails with, as `denied`, `not_found` or `failed`.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpStream, UdpSocket};

use plue_tool::{Context, Level, Output, ToolError};
use wasip2::filesystem::types::ErrorCode;

/// What the call tries.
#[derive(Clone, Copy, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Attempt {
    /// Nothing: answers with the argument.
    Echo,
    /// Reads the file.
    Read,
    /// Lists the folder.
    List,
    /// Asks for size and times of the file.
    Look,
    /// Replaces the content of the file.
    Write,
    /// Gives the file the second name.
    Rename,
    /// Links the file to the second name, and reads it there.
    HardLink,
    /// Makes the second name a symbolic link to the file, and reads it there.
    SymbolicLink,
    /// Reads the environment, the arguments and the current folder.
    Environment,
    /// Reads standard input.
    StandardInput,
    /// Connects to the address.
    Connect,
    /// Sends to the address.
    Send,
    /// Looks the name up.
    LookUp,
    /// Takes so many bytes of memory.
    Allocate,
    /// Computes for ever.
    Compute,
    /// Calls itself for ever.
    Recurse,
    /// Sleeps for an hour.
    Sleep,
    /// Writes so many lines to the log.
    Log,
    /// Prints so many lines.
    Print,
    /// Shows so many pieces of live output.
    Show,
    /// Answers with so many bytes.
    Answer,
    /// Opens the file so many times and closes none.
    Open,
    /// Ends the process.
    Exit,
    /// Counts the calls in a global variable, and answers with the number.
    Count,
    /// Counts, and crashes.
    CountAndCrash,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Input {
    attempt: Attempt,
    /// A path, an address or a name.
    #[serde(default)]
    target: String,
    /// A second path.
    #[serde(default)]
    second: String,
    /// How many.
    #[serde(default)]
    amount: u64,
}

static CALLS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

fn run(input: Input, ctx: &Context) -> Result<Output, ToolError> {
    let Input {
        attempt,
        target,
        second,
        amount,
    } = &input;
    let done = || "done".to_owned();
    let got: io::Result<String> = match attempt {
        Attempt::Echo => Ok(target.clone()),
        Attempt::Read => fs::read(target).map(text),
        Attempt::List => list(target),
        Attempt::Look => fs::metadata(target).map(|found| format!("{} bytes", found.len())),
        Attempt::Write => fs::write(target, "written by a hostile tool\n").map(|()| done()),
        Attempt::Rename => fs::rename(target, second).map(|()| done()),
        Attempt::HardLink => fs::hard_link(target, second).and_then(|()| fs::read(second).map(text)),
        Attempt::SymbolicLink => symbolic_link(target, second),
        Attempt::Environment => Ok(environment()),
        Attempt::StandardInput => {
            let mut found = String::new();
            io::stdin().read_to_string(&mut found).map(|_| found)
        }
        Attempt::Connect => TcpStream::connect(target)
            .and_then(|mut stream| stream.write_all(b"x"))
            .map(|()| done()),
        Attempt::Send => UdpSocket::bind("0.0.0.0:0")
            .and_then(|socket| socket.send_to(b"x", target))
            .map(|_| done()),
        Attempt::LookUp => {
            std::net::ToSocketAddrs::to_socket_addrs(&(target.as_str(), 80)).map(|found| format!("{found:?}"))
        }
        Attempt::Allocate => Ok(allocate(*amount)),
        Attempt::Compute => compute(),
        Attempt::Recurse => Ok(recurse(1).to_string()),
        Attempt::Sleep => {
            std::thread::sleep(std::time::Duration::from_secs(3600));
            Ok(done())
        }
        Attempt::Log => {
            (0..*amount).for_each(|line| ctx.log(Level::Info, &format!("line {line} {}", "x".repeat(100))));
            Ok(done())
        }
        Attempt::Print => (0..*amount)
            .try_for_each(|line| writeln!(io::stdout(), "line {line}"))
            .map(|()| done()),
        Attempt::Show => {
            (0..*amount).for_each(|piece| ctx.progress(&format!("piece {piece} {}\n", "x".repeat(1000))));
            Ok(done())
        }
        Attempt::Answer => Ok("x".repeat(usize::try_from(*amount).unwrap_or(usize::MAX))),
        Attempt::Open => {
            let open: io::Result<Vec<fs::File>> = (0..*amount).map(|_| fs::File::open(target)).collect();
            open.map(|files| format!("{} open", files.len()))
        }
        Attempt::Exit => std::process::exit(0),
        Attempt::Count => Ok(count()),
        Attempt::CountAndCrash => {
            count();
            std::process::abort()
        }
    };
    got.map(Output::from).map_err(refused)
}

fn refused(error: io::Error) -> ToolError {
    let message = error.to_string();
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ToolError::Denied(message),
        io::ErrorKind::NotFound => ToolError::NotFound(message),
        _ => ToolError::Failed(message),
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

fn list(folder: &str) -> io::Result<String> {
    let names: io::Result<Vec<String>> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect();
    Ok(names?.join("\n"))
}

/// The standard library makes symbolic links for this target under an unstable name only, so the host is asked
/// directly.
fn symbolic_link(target: &str, name: &str) -> io::Result<String> {
    let folders = wasip2::filesystem::preopens::get_directories();
    let (folder, _) = folders.first().ok_or_else(|| io::Error::other("no folder is given"))?;
    folder.symlink_at(target, name).map_err(|error| match error {
        ErrorCode::Access | ErrorCode::NotPermitted => io::ErrorKind::PermissionDenied.into(),
        other => io::Error::other(other),
    })?;
    fs::read(name).map(text)
}

fn environment() -> String {
    let variables: Vec<String> = std::env::vars()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let arguments: Vec<String> = std::env::args().collect();
    format!("{}\n{}", variables.join("\n"), arguments.join("\n"))
}

fn allocate(amount: u64) -> String {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    for _ in 0..amount >> 20 {
        taken.push(std::hint::black_box(vec![1; 1 << 20]));
    }
    format!("{} MiB", taken.len())
}

fn compute() -> ! {
    let mut number = 0_u64;
    loop {
        number = std::hint::black_box(number.wrapping_mul(31).wrapping_add(7));
    }
}

fn recurse(depth: u64) -> u64 {
    if depth == 0 {
        return 0;
    }
    let here = std::hint::black_box([depth; 16]);
    recurse(std::hint::black_box(depth + 1)).wrapping_add(here[3])
}

fn count() -> String {
    let before = CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    (before + 1).to_string()
}

plue_tool::tool! {
    name: "hostile",
    description: "Tries to get out.",
    effects: [reads, writes, executes],
    idempotent: false,
    run: run,
}
