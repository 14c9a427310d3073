//! The table: what is run, of which packages, and what it must print.

use super::Row;

/// A row whose script is the file of its name.
macro_rules! row {
    ($name:literal, $what:literal, $packages:expr, $prints:expr) => {
        row!($name, $what, $packages, $prints, "")
    };
    ($name:literal, $what:literal, $packages:expr, $prints:expr, $note:literal) => {
        Row {
            name: $name,
            what: $what,
            packages: &$packages,
            script: include_str!(concat!("scripts/", $name, ".sh")),
            prints: &$prints,
            note: $note,
            not_natively: None,
            not_in_gvisor: None,
        }
    };
}

/// All rows.
pub const ROWS: &[Row] = &[
    row!(
        "git",
        "git: branches, a merge, a worktree, a clone, `gc`",
        ["git"],
        ["commits: 3, by Plue Runner"]
    ),
    row!("make", "make with a job server", ["make"], ["sum: 36"]),
    row!(
        "gcc",
        "gcc: C++ with threads, optimized at link time",
        ["g++"],
        ["squares: 204"]
    ),
    row!(
        "asan",
        "gcc with AddressSanitizer, LeakSanitizer and UBSan",
        ["gcc", "libc6-dev"],
        ["last: 7", "AddressSanitizer: heap-buffer-overflow"]
    ),
    row!(
        "tsan",
        "gcc with ThreadSanitizer",
        ["gcc", "libc6-dev"],
        ["ThreadSanitizer: data race"]
    ),
    row!(
        "cmake",
        "CMake with Ninja and CTest",
        ["cmake", "ninja-build", "gcc", "libc6-dev"],
        ["100% tests passed"]
    ),
    row!(
        "python-venv",
        "Python: a venv, and pip installing a package into it",
        ["python3-venv", "python3-setuptools", "python3-wheel"],
        ["installed: 1.2.3"]
    ),
    row!(
        "pytest-xdist",
        "pytest on several processes",
        ["python3-pytest-xdist"],
        ["12 passed"]
    ),
    row!(
        "python-multiprocessing",
        "Python's multiprocessing: pools, locks, shared memory",
        ["python3"],
        ["pool: 285", "executor: 285", "shared: 21"]
    ),
    row!(
        "npm",
        "npm: `test` with Node's own runner, `pack`",
        ["nodejs", "npm"],
        ["# pass 2", "zoo-1.0.0.tgz"]
    ),
    row!(
        "node-workers",
        "Node: worker threads, shared memory, a forked process",
        ["nodejs"],
        [
            "workers: 60, shared: 6, forked: true",
            "interfaces: lo, processors: true"
        ]
    ),
    row!(
        "vite",
        "Vite: a build, and its development server",
        ["nodejs", "npm", "curl"],
        ["dist/index.html", "const answer = 6 * 7"]
    ),
    row!(
        "cargo",
        "cargo: unit and documentation tests, offline",
        ["cargo", "gcc", "libc6-dev"],
        ["test doubles ... ok", "test result: ok. 1 passed"]
    ),
    row!(
        "go",
        "Go: tests of a module, with channels",
        ["golang-go"],
        ["ok  \texample.test/zoo"]
    ),
    row!(
        "java",
        "Java: compiler, jar, parallel streams, a child process",
        ["default-jdk-headless"],
        ["sum: 5050", "child of java"]
    ),
    row!(
        "maven",
        "Maven, offline: compiles, tests, packages",
        [
            "default-jdk-headless",
            "maven",
            "maven-debian-helper",
            "libsurefire-java",
            "junit4"
        ],
        ["Tests run: 1, Failures: 0", "target/zoo-1.0.jar"]
    ),
    row!(
        "postgresql",
        "PostgreSQL: a cluster of its own, by socket and by TCP",
        ["postgresql"],
        ["legs: 2000", "server stopped"]
    ),
    row!(
        "redis",
        "Redis: by socket and by TCP, a snapshot by a forked process",
        ["redis-server"],
        ["animals: 3", "RDB looks OK"]
    ),
    row!(
        "chromium",
        "Chromium, headless: runs a page's script, takes a picture",
        ["chromium", "file"],
        ["answer 42", "PNG image data"],
        "with `--no-sandbox`: its own sandbox needs namespaces, and the runner's is around it; in gVisor in a pod of \
         6 GiB, since it counts pages that processes share for each of them"
    ),
    row!(
        "fakeroot",
        "fakeroot, and a Debian package built with it",
        ["fakeroot", "dpkg"],
        ["owner: root", "root/root"]
    ),
    row!(
        "script",
        "script: a terminal for a command",
        ["bsdutils"],
        ["/dev/pts/", "a terminal"]
    ),
    row!("expect", "expect: answers for a person", ["expect"], ["hello zoo"]),
    row!(
        "tmux",
        "tmux: a session in the background",
        ["tmux"],
        ["sessions: 1, at /dev/pts/"]
    ),
    row!(
        "ssh-keygen",
        "ssh-keygen: a key, a signature; ssh-agent",
        ["openssh-client"],
        ["Good \"file\" signature for zoo", "(ED25519)"]
    ),
    row!(
        "gpg",
        "GnuPG: a key, a signed file, a signed commit",
        ["gnupg", "git"],
        ["Good signature from \"Zoo", "signature: G"]
    ),
    row!(
        "rsync",
        "rsync: a copy with modes, links and times",
        ["rsync"],
        ["left: 0, mode 600"]
    ),
    row!(
        "tar",
        "tar, cp -a, install, zip",
        ["tar", "zip", "unzip"],
        ["all three are alike"]
    ),
    row!(
        "valgrind",
        "valgrind finds a leak",
        ["valgrind", "gcc", "libc6-dev"],
        ["definitely lost: 42 bytes"]
    ),
    row!(
        "gdb",
        "gdb: a stack where a program ended",
        ["gdb", "gcc", "libc6-dev"],
        ["SIGABRT", "deep (level=3)"]
    ),
    row!("strace", "strace of a shell and its children", ["strace"], ["calls: 2"]),
    row!(
        "xargs",
        "xargs and find: thousands of names, arguments of 120 kB each",
        ["findutils"],
        ["names: 3000", "bytes: 960008"]
    ),
    row!(
        "inotify",
        "inotifywait and Node watch a folder",
        ["inotify-tools", "nodejs"],
        ["node saw file", "CLOSE_WRITE,CLOSE file"]
    ),
    row!(
        "nice",
        "nice, taskset, ionice, setsid, timeout, stdbuf, flock",
        ["util-linux", "coreutils"],
        ["nicer by 3", "affinity mask: 1"],
        "gVisor has no priorities of input and output: `ionice -t` goes on without"
    ),
    row!(
        "sqlite",
        "SQLite: three writers and a write-ahead log",
        ["sqlite3"],
        ["wal", "legs: 500"]
    ),
    row!(
        "procps",
        "ps, free, top, lscpu, nproc, pkill",
        ["procps", "python3"],
        ["init: 1", "Mem:", "Tasks:", "CPU(s):", "processors: ", "one was ended"]
    ),
    row!(
        "ip",
        "ip and ss; a web server on the loopback",
        ["iproute2", "python3", "curl"],
        ["127.0.0.1/8", "127.0.0.1:8123"]
    ),
];
