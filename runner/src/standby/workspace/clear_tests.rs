#![allow(clippy::unwrap_used, clippy::panic)]
//! What a task may leave behind, made as far as this user may make it.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{IFlags, fsetxattr, ioctl_getflags, ioctl_setflags, mkdirat, mknodat};

use super::super::Workspace;
use super::*;

/// A marked workspace, with a folder beside it that nothing may touch.
struct Scene {
    folder: tempfile::TempDir,
    workspace: Workspace,
}

impl Scene {
    fn new() -> Self {
        Self::in_folder(tempfile::tempdir().unwrap())
    }

    fn in_folder(folder: tempfile::TempDir) -> Self {
        let inner = folder.path().join("work");
        fs::create_dir_all(folder.path().join("outside/deep")).unwrap();
        fs::write(folder.path().join("outside/deep/file"), "precious").unwrap();
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join(MARKER), "").unwrap();
        let workspace = Workspace::claim(&inner, &[]).unwrap();
        Self { folder, workspace }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("work").join(name)
    }

    fn outside(&self) -> PathBuf {
        self.folder.path().join("outside")
    }

    /// Empties it, and looks that nothing but the marker is left and that what is outside is whole.
    #[track_caller]
    fn empties(&self) -> u64 {
        let before = fs::metadata(self.path("")).unwrap();
        let emptied = self.workspace.empty().unwrap();
        self.is_empty();
        assert_eq!(fs::metadata(self.path("")).unwrap().ino(), before.ino());
        emptied.entries
    }

    #[track_caller]
    fn is_empty(&self) {
        let left: Vec<_> = fs::read_dir(self.path(""))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, [MARKER]);
        assert_eq!(fs::metadata(self.path(MARKER)).unwrap().len(), 0);
        assert_eq!(fs::read(self.outside().join("deep/file")).unwrap(), b"precious");
    }

    fn left(&self) -> Vec<(String, String)> {
        match self.workspace.empty() {
            Err(EmptyError::Left { left, .. }) => left.names,
            other => panic!("something should be left: {other:?}"),
        }
    }
}

#[test]
fn an_empty_one_stays_as_it_is_and_a_full_one_is_counted() {
    let scene = Scene::new();
    assert_eq!(scene.empties(), 0);
    fs::create_dir_all(scene.path("a/b/c")).unwrap();
    for name in ["one", "a/two", "a/b/c/three"] {
        fs::write(scene.path(name), "x").unwrap();
    }
    assert_eq!(scene.empties(), 6);
}

#[test]
fn links_are_removed_and_what_they_lead_to_is_not_touched() {
    let scene = Scene::new();
    let outside = scene.outside();
    symlink(&outside, scene.path("folder")).unwrap();
    symlink("../outside", scene.path("relative")).unwrap();
    symlink("..", scene.path("up")).unwrap();
    symlink("loop", scene.path("loop")).unwrap();
    fs::create_dir(scene.path("inner")).unwrap();
    symlink(outside.join("deep"), scene.path("inner/deep")).unwrap();
    symlink("../../..", scene.path("inner/up")).unwrap();
    fs::hard_link(outside.join("deep/file"), scene.path("hard")).unwrap();
    let before = fs::metadata(&outside).unwrap();
    scene.empties();
    let after = fs::metadata(&outside).unwrap();
    assert_eq!((before.mode(), before.mtime_nsec()), (after.mode(), after.mtime_nsec()));
}

#[test]
fn names_of_any_bytes_and_the_longest_ones_are_removed() {
    let scene = Scene::new();
    let names: [&[u8]; 7] = [
        b"not \xff utf-8",
        b"new\nline",
        b"\x1b[31m",
        "\u{202e}txt".as_bytes(),
        &[b'n'; 255],
        b"-rf",
        b" ",
    ];
    for name in names {
        let path = scene.path("").join(OsStr::from_bytes(name));
        fs::create_dir(&path).unwrap();
        fs::create_dir(path.join(OsStr::from_bytes(name))).unwrap();
        fs::write(path.join(OsStr::from_bytes(name)).join("file"), "").unwrap();
    }
    assert_eq!(scene.empties(), 21);
}

#[test]
fn a_hundred_thousand_nested_folders_are_removed_with_few_descriptors() {
    // In memory where there is such a place: most of the time goes into making them.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let scene = Scene::in_folder(folder.unwrap());
    let mut folder: OwnedFd = File::open(scene.path("")).unwrap().into();
    for level in 0..100_000 {
        mkdirat(&folder, "d", Mode::RWXU).unwrap();
        if level % 1000 == 0 {
            let flags = OFlags::CREATE | OFlags::WRONLY;
            openat(&folder, "file", flags, Mode::RUSR).unwrap();
        }
        folder = openat(&folder, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    drop(folder);
    assert_eq!(scene.empties(), 100_100);
}

#[test]
fn folders_and_files_without_rights_are_removed() {
    let scene = Scene::new();
    fs::create_dir_all(scene.path("a/b/c")).unwrap();
    fs::write(scene.path("a/b/file"), "").unwrap();
    for (name, mode) in [("a/b/file", 0), ("a/b/c", 0), ("a/b", 0o111), ("a", 0), ("", 0o500)] {
        fs::set_permissions(scene.path(name), Permissions::from_mode(mode)).unwrap();
    }
    scene.empties();
}

#[test]
fn sockets_fifos_and_devices_are_removed_without_being_opened() {
    let scene = Scene::new();
    fs::create_dir(scene.path("inner")).unwrap();
    let _socket = UnixListener::bind(scene.path("inner/socket")).unwrap();
    let folder = File::open(scene.path("inner")).unwrap();
    mknodat(&folder, "fifo", FileType::Fifo, Mode::RWXU, 0).unwrap();
    // /dev/zero; only root may make one.
    let device = mknodat(
        &folder,
        "zero",
        FileType::CharacterDevice,
        Mode::RWXU,
        rustix::fs::makedev(1, 5),
    );
    scene.empties();
    assert!(device.is_ok() || device == Err(Errno::PERM), "{device:?}");
}

#[test]
fn immutable_and_append_only_files_and_folders_are_removed_where_we_may() {
    let scene = Scene::new();
    fs::create_dir_all(scene.path("fixed/inner/deep")).unwrap();
    fs::create_dir(scene.path("fixed/empty")).unwrap();
    for name in ["fixed/file", "fixed/inner/log", "fixed/inner/deep/x"] {
        fs::write(scene.path(name), "").unwrap();
    }
    let set = |name: &str, flag| {
        let file = File::open(scene.path(name)).unwrap();
        ioctl_getflags(&file).and_then(|flags| ioctl_setflags(&file, flags | flag))
    };
    let order = [
        ("fixed/file", IFlags::IMMUTABLE),
        ("fixed/inner/log", IFlags::APPEND),
        ("fixed/inner/deep", IFlags::APPEND),
        ("fixed/inner", IFlags::IMMUTABLE),
        ("fixed/empty", IFlags::IMMUTABLE),
        ("fixed", IFlags::APPEND),
        (MARKER, IFlags::IMMUTABLE),
        ("", IFlags::APPEND),
    ];
    for (name, flag) in order {
        // Only a privileged user may, and only where the file system has flags.
        let refusal = set(name, flag).err();
        let expected = [
            Errno::PERM,
            Errno::ACCESS,
            Errno::NOTTY,
            Errno::NOTSUP,
            Errno::NOSYS,
            Errno::INVAL,
        ];
        assert!(
            refusal.is_none_or(|error| expected.contains(&error)),
            "{name}: {refusal:?}"
        );
    }
    scene.empties();
    assert!(ioctl_getflags(File::open(scene.path("")).unwrap()).is_ok_and(|flags| !flags.contains(IFlags::APPEND)));
}

#[test]
fn the_folder_itself_is_brought_back_into_its_condition() {
    let scene = Scene::new();
    let folder = File::open(scene.path("")).unwrap();
    let before = Attributes::of(&folder).unwrap();
    let changed = || {
        let found = folder.metadata().unwrap();
        (found.mtime(), found.mtime_nsec())
    };
    let changed_before = changed();
    // What is made in the folder inherits it. Not every file system has flags.
    if let Ok(flags) = ioctl_getflags(&folder) {
        ioctl_setflags(&folder, flags | IFlags::NODUMP).unwrap();
    }
    let none = rustix::fs::XattrFlags::empty();
    let attached = fsetxattr(&folder, "user.word", b"for the next task", none);
    assert!(matches!(attached, Ok(()) | Err(Errno::NOTSUP)), "{attached:?}");
    fs::write(scene.path(MARKER), "a word for the next task").unwrap();
    fs::set_permissions(scene.path(""), Permissions::from_mode(0o2000)).unwrap();
    scene.empties();
    assert_eq!(Attributes::of(&folder).unwrap(), before);
    assert_eq!(changed(), changed_before, "a time is a word, too");
    fs::remove_file(scene.path(MARKER)).unwrap();
    fs::create_dir_all(scene.path(MARKER).join("inner")).unwrap();
    scene.empties();
    fs::remove_file(scene.path(MARKER)).unwrap();
    symlink(scene.outside().join("deep/file"), scene.path(MARKER)).unwrap();
    scene.empties();
}

#[test]
fn a_folder_that_is_moved_away_is_the_one_that_is_emptied() {
    let scene = Scene::new();
    fs::write(scene.path("file"), "").unwrap();
    let moved = scene.folder.path().join("moved");
    fs::rename(scene.path(""), &moved).unwrap();
    symlink(scene.outside(), scene.folder.path().join("work")).unwrap();
    scene.workspace.empty().unwrap();
    assert_eq!(fs::read_dir(moved).unwrap().count(), 1);
    assert!(scene.outside().join("deep/file").exists());
}

#[test]
fn a_folder_that_somebody_writes_into_is_emptied_when_they_stop_and_an_error_when_they_do_not() {
    let scene = Scene::new();
    let mut seen = None;
    let stop = AtomicBool::new(false);
    let root = scene.path("");
    thread::scope(|scope| {
        for writer in 0..2 {
            let (root, stop) = (&root, &stop);
            scope.spawn(move || {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let folder = root.join(format!("{writer}-{}", number % 50));
                    let _ = fs::create_dir(&folder);
                    let _ = fs::write(folder.join("new\nline"), "");
                    let _ = symlink("../../outside", folder.join("link"));
                    let _ = fs::rename(&folder, root.join(format!("{writer}-again")));
                }
            });
        }
        thread::sleep(Duration::from_millis(20));
        // On a busy machine the writers may pause just long enough.
        let until = Instant::now() + Duration::from_secs(60);
        while seen.is_none() && Instant::now() < until {
            seen = scene.workspace.empty().err().map(|error| error.to_string());
        }
        stop.store(true, Ordering::Relaxed);
    });
    let said = seen.unwrap();
    assert!(
        said.contains("could not be emptied: ") && !said.contains('\n'),
        "{said}"
    );
    scene.empties();
}

#[test]
fn folders_that_are_exchanged_for_links_lead_nowhere() {
    let scene = Scene::new();
    let stop = AtomicBool::new(false);
    let root = scene.path("");
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = fs::create_dir_all(root.join("a/deep"));
                let _ = fs::rename(root.join("a"), root.join("b"));
                let _ = symlink("../outside", root.join("a"));
                let _ = fs::remove_file(root.join("a"));
            }
        });
        for _ in 0..5 {
            let _ = scene.workspace.empty();
        }
        stop.store(true, Ordering::Relaxed);
    });
    scene.empties();
}

#[test]
fn a_mount_inside_is_named_and_left_alone_and_all_else_is_removed() {
    let scene = Scene::new();
    fs::create_dir_all(scene.path("a/b/mnt")).unwrap();
    fs::create_dir_all(scene.path("a/other/deep")).unwrap();
    for name in ["a/file", "a/b/file", "a/other/deep/file", "file"] {
        fs::write(scene.path(name), "").unwrap();
    }
    let mounted = std::process::Command::new("mount")
        .args([
            "--bind".as_ref(),
            scene.outside().as_os_str(),
            scene.path("a/b/mnt").as_os_str(),
        ])
        .output()
        .unwrap();
    if !mounted.status.success() {
        // Mounts are for root. That none is crossed is shown by one that is there already: /proc is not the root's.
        let root = Mount::of(File::open("/").unwrap()).unwrap();
        assert_ne!(Mount::of(File::open("/proc").unwrap()).unwrap(), root);
        return;
    }
    let left = scene.left();
    let unmounted = std::process::Command::new("umount").arg(scene.path("a/b/mnt")).status();
    assert!(unmounted.unwrap().success());
    assert!(
        left.contains(&("a/b/mnt".into(), "is a mount point".into())),
        "{left:?}"
    );
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(scene.path("a/b/mnt").exists() && !scene.path("a/b/file").exists());
    assert!(!scene.path("a/other").exists() && !scene.path("file").exists());
    assert_eq!(fs::read(scene.outside().join("deep/file")).unwrap(), b"precious");
    scene.empties();
}

#[test]
fn mounts_are_not_crossed_where_proc_does_not_tell_of_them() {
    let scene = Scene::new();
    let top = File::open("/").unwrap();
    let before = fs::metadata("/proc").unwrap().mode();
    let mut pass = Pass::new(top.as_fd(), Vec::new(), false, Instant::now() + LIMIT);
    pass.remove_folder(top.as_fd(), c"proc", &mut PathBuf::new(), 0);
    assert_eq!(pass.left.names, [("proc".to_owned(), "is a mount point".to_owned())]);
    assert_eq!((pass.removed, fs::metadata("/proc").unwrap().mode()), (0, before));
    scene.empties();
}

#[test]
fn a_folder_with_very_many_entries_is_read_once() {
    let scene = Scene::new();
    let folder = File::open(scene.path("")).unwrap();
    for number in 0..100_000 {
        mknodat(&folder, format!("{number}"), FileType::RegularFile, Mode::RUSR, 0).unwrap();
    }
    let mut pass = Pass::new(folder.as_fd(), Vec::new(), true, Instant::now() + LIMIT);
    let begun = Instant::now();
    pass.run();
    assert_eq!((pass.removed, pass.left), (100_000, Left::default()));
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    scene.is_empty();
}
