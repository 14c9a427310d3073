//! Who commands are and where, as programs ask for it: in the environment, and in files of /etc that are laid over the
//! image's. Without them `whoami` knows nobody, Java's `user.home` is `?`, and the host's own name does not resolve.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::mount::mount_bind;

use super::plan::{Network, Plan};
use super::rights::{Right, restrict};

/// HOME of every command.
pub(super) const HOME: &str = "/tmp/home";
/// What the machine of the commands is called.
pub(super) const HOST_NAME: &str = "sandbox";
/// The name of the user and of its group.
const NAME: &str = "runner";
/// What git takes for the name of who commits, when nobody says otherwise.
const FULL_NAME: &str = "Plue Runner";
/// A program that asks all the same asks the loopback, where it hears at once that there is none.
const NO_NAME_SERVER: &str = "# Commands have no network, and no name server.\n";
/// Every image with a shell has this one.
const SHELL: &str = "/bin/sh";

/// What commands find in their environment of it. `EMAIL` is what git takes when neither its configuration nor a
/// variable of its own says who commits.
pub(super) const ENVIRONMENT: [(&str, &str); 6] = [
    ("HOME", HOME),
    ("USER", NAME),
    ("LOGNAME", NAME),
    ("SHELL", SHELL),
    ("TMPDIR", "/tmp"),
    ("EMAIL", "runner@sandbox.invalid"),
];

/// Lays the files over those of the image. What the image has not, or has as a link, stays as it is: there is nothing
/// to mount on.
///
/// # Errors
/// When a file cannot be written or mounted.
pub(super) fn lay_over(folder: &Path, stage: &Path, plan: &Plan) -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let etc = stage.join("etc");
    let mut names = vec!["passwd", "group", "hosts"];
    // With the pod's network the pod's name servers are right.
    names.extend((plan.network == Network::None).then_some("resolv.conf"));
    for name in names {
        let target = etc.join(name);
        if !fs::symlink_metadata(&target).is_ok_and(|found| found.is_file()) {
            continue;
        }
        let image = fs::read_to_string(&target).unwrap_or_default();
        let content = match name {
            "passwd" => users(&image, uid, gid),
            "group" => groups(&image, gid),
            "hosts" => hosts(&image, plan.network),
            _ => NO_NAME_SERVER.to_owned(),
        };
        let source = folder.join(name);
        let lay = || {
            fs::write(&source, content)?;
            fs::set_permissions(&source, fs::Permissions::from_mode(0o444))?;
            mount_bind(&source, &target)?;
            restrict(&target, Right::Read, false)
        };
        lay().map_err(|error| io::Error::new(error.kind(), format!("an own /etc/{name}: {error}")))?;
    }
    Ok(())
}

/// The image's users, before them the one that commands run as. Who has its name or its number there is left out.
fn users(image: &str, uid: u32, gid: u32) -> String {
    let own = format!("{NAME}:x:{uid}:{gid}:{FULL_NAME}:{HOME}:{SHELL}\n");
    own + &others(image, uid)
}

/// The image's groups, before them that of the commands' user.
fn groups(image: &str, gid: u32) -> String {
    format!("{NAME}:x:{gid}:\n") + &others(image, gid)
}

/// The lines `name:password:number:…` of others than ours.
fn others(image: &str, number: u32) -> String {
    let is_ours = |line: &str| {
        let mut fields = line.split(':');
        fields.next() == Some(NAME) || fields.nth(1).is_some_and(|field| field.parse() == Ok(number))
    };
    let others = image.lines().filter(|line| !is_ours(line));
    others.map(|line| format!("{line}\n")).collect()
}

/// The names of this machine. With the pod's network, those that the pod knows besides.
fn hosts(image: &str, network: Network) -> String {
    let own = format!("127.0.0.1 localhost {HOST_NAME}\n::1 localhost ip6-localhost ip6-loopback {HOST_NAME}\n");
    match network {
        Network::None => own,
        Network::Pod => own + image,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_user_comes_first_and_nobody_else_has_its_name_or_number() {
        let image =
            "root:x:0:0:root:/root:/bin/bash\nnode:x:1000:1000::/home/node:/bin/bash\nrunner:x:7:7::/:/bin/sh\n";
        assert_eq!(
            users(image, 1000, 1001),
            "runner:x:1000:1001:Plue Runner:/tmp/home:/bin/sh\nroot:x:0:0:root:/root:/bin/bash\n"
        );
        assert_eq!(
            groups("root:x:0:\nstaff:x:50:a,b\nrunner:x:1000:\n", 50),
            "runner:x:50:\nroot:x:0:\n"
        );
        // Lines that are none stay as they are.
        assert_eq!(groups("+\n# a comment\n", 1), "runner:x:1:\n+\n# a comment\n");
    }

    #[test]
    fn the_hosts_own_name_resolves_and_the_pods_names_only_with_its_network() {
        let image = "10.0.0.1 api\n";
        for (network, pods) in [(Network::None, false), (Network::Pod, true)] {
            let hosts = hosts(image, network);
            assert!(hosts.starts_with("127.0.0.1 localhost sandbox\n::1 "), "{hosts}");
            assert_eq!(hosts.contains("api"), pods);
        }
    }
}
