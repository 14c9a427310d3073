//! What of the machine is its operator's own: homes wherever they are, files with credentials, and the sockets of
//! services, which a read-only mount keeps nobody from.

use std::path::{Path, PathBuf};

/// Folders that a variable of the runner names as somebody's own.
const FOLDERS: [&str; 12] = [
    "HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
    "XDG_RUNTIME_DIR",
    "GNUPGHOME",
    "DOCKER_CONFIG",
    "AZURE_CONFIG_DIR",
    "CLOUDSDK_CONFIG",
    "GH_CONFIG_DIR",
    "PASSWORD_STORE_DIR",
];
/// Files, likewise; some variables take several with colons between them.
const FILES: [&str; 11] = [
    "KUBECONFIG",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AZURE_FEDERATED_TOKEN_FILE",
    "NETRC",
    "NPM_CONFIG_USERCONFIG",
    "PIP_CONFIG_FILE",
    "PGPASSFILE",
    "SSH_AUTH_SOCK",
];
/// Folders with a toolchain in them, which an image may have anywhere, and credentials beside it.
const CREDENTIALS: [(&str, &[&str]); 3] = [
    ("CARGO_HOME", &["credentials", "credentials.toml"]),
    ("GRADLE_USER_HOME", &["gradle.properties"]),
    ("COMPOSER_HOME", &["auth.json"]),
];
/// So many sockets are covered at most: each takes a mount.
const MAX_SOCKETS: usize = 1024;

/// All of it but the sockets, by what the runner's environment and the list of users say.
pub(super) fn folders_and_files(look_up: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let home = home_of(&users, rustix::process::geteuid().as_raw()).filter(|home| can_be_private(home));
    home.into_iter().chain(named(look_up)).collect()
}

/// What the environment names.
fn named(look_up: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let of = |name: &str| look_up(name).filter(|value| !value.is_empty());
    let folders = FOLDERS.iter().filter_map(|name| of(name).map(PathBuf::from));
    let mut all: Vec<PathBuf> = folders.filter(|folder| can_be_private(folder)).collect();
    for value in FILES.iter().filter_map(|name| of(name)) {
        all.extend(value.split(':').map(PathBuf::from).filter(|file| file.is_absolute()));
    }
    for (name, files) in CREDENTIALS {
        if let Some(folder) = of(name).map(PathBuf::from).filter(|folder| folder.is_absolute()) {
            all.extend(files.iter().map(|file| folder.join(file)));
        }
    }
    all
}

/// The sockets with a path that somebody on this machine listens on, or has connected.
pub(super) fn sockets() -> Vec<PathBuf> {
    sockets_of(&std::fs::read_to_string("/proc/net/unix").unwrap_or_default())
}

/// The lines of /proc/net/unix: `number: references protocol flags type state inode path`, where the path may be
/// missing, have spaces, or be a name without a file, which begins with `@`.
fn sockets_of(list: &str) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = Vec::new();
    for line in list.lines() {
        let path = line.find(" /").map(|start| Path::new(&line[start + 1..]));
        if let Some(path) = path
            && all.len() < MAX_SOCKETS
            && !all.iter().any(|known| known == path)
        {
            all.push(path.to_owned());
        }
    }
    all
}

/// Folders that nobody's home is, though the list of users may say so, and that commands need.
const NO_HOMES: [&str; 11] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/dev", "/proc", "/tmp", "/var", "/opt",
];

/// A user's home by the lines of /etc/passwd: `name:password:uid:gid:comment:home:shell`.
fn home_of(users: &str, uid: u32) -> Option<PathBuf> {
    let line = users
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2).is_some_and(|field| field.parse() == Ok(uid)))?;
    Some(PathBuf::from(line.get(5)?))
}

/// Whether a folder can be somebody's, and not the system's.
fn can_be_private(folder: &Path) -> bool {
    folder.is_absolute()
        && folder.parent().is_some()
        && !NO_HOMES.iter().any(|systems| match *systems {
            // Whole programs live there, and in a folder of it somebody's home may be.
            "/var" | "/opt" => folder == Path::new(systems),
            systems => folder.starts_with(systems),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_home_is_found_wherever_it_is_and_a_folder_of_the_system_is_none() {
        let users = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/usr/sbin:/x\nsys:x:3:3::/dev:/x\nnone:x:4:4::/:/x\n\
                     app:x:1000:1000::/opt/app:/bin/sh\nopt:x:5:5::/opt:/x\nbroken\nother:x:1001:1001:,,,:/data/home\n";
        for (uid, home) in [
            (0, Some("/root")),
            (1, None),
            (3, None),
            (4, None),
            (5, None),
            (1000, Some("/opt/app")),
            (1001, Some("/data/home")),
            (7, None),
        ] {
            let found = home_of(users, uid).filter(|home| can_be_private(home));
            assert_eq!(found, home.map(PathBuf::from), "{uid}");
        }
    }

    #[test]
    fn what_the_environment_calls_private_is_covered_and_a_toolchain_is_not() {
        let environment = [
            ("HOME", "/data/me"),
            ("XDG_CONFIG_HOME", "/data/config"),
            ("XDG_CACHE_HOME", "/usr/share/cache"),
            ("KUBECONFIG", "/srv/one:/srv/two:relative"),
            ("CARGO_HOME", "/usr/local/cargo"),
            ("GNUPGHOME", ""),
        ];
        let look_up = |asked: &str| {
            let found = environment.iter().find(|(name, _)| *name == asked);
            found.map(|(_, value)| (*value).to_owned())
        };
        let found = named(&look_up);
        let expected = [
            "/data/me",
            "/data/config",
            "/srv/one",
            "/srv/two",
            "/usr/local/cargo/credentials",
            "/usr/local/cargo/credentials.toml",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
    }

    #[test]
    fn the_kernels_list_of_sockets_gives_those_that_have_a_path() {
        let list = "Num       RefCount Protocol Flags    Type St Inode Path\n\
                    0000000000000000: 00000002 00000000 00010000 0001 01 20000 /run/a socket\n\
                    0000000000000000: 00000002 00000000 00010000 0001 01 20001 @/tmp/.X11-unix/X0\n\
                    0000000000000000: 00000003 00000000 00000000 0001 03 20002\n\
                    0000000000000000: 00000003 00000000 00000000 0001 03 20002 /run/a socket\n";
        assert_eq!(sockets_of(list), [PathBuf::from("/run/a socket")]);
    }
}
