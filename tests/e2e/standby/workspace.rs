//! Which folder a standby runner empties, and that it does.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use support::standby::Standby;

#[tokio::test]
async fn a_folder_that_nobody_has_marked_is_not_emptied_and_nothing_is_asked_for() {
    let scene = Standby::new().await;
    fs::remove_file(scene.workspace().join(".plue-workspace")).unwrap();
    fs::write(scene.workspace().join("precious"), "x").unwrap();
    let ended = scene.run().await;
    assert_eq!(ended.finished.code, 2, "{}", ended.finished.stdout);
    assert!(
        ended.finished.stdout.contains("WORKSPACE: "),
        "{}",
        ended.finished.stdout
    );
    assert!(
        ended.finished.stdout.contains(".plue-workspace"),
        "{}",
        ended.finished.stdout
    );
    assert_eq!(ended.scene.left(), ["precious"]);
    assert!(ended.scene.api.registrations().is_empty());
}

#[tokio::test]
async fn folders_of_the_system_and_homes_are_refused_also_behind_a_link() {
    let scene = Standby::new().await;
    let link = scene.outside().join("link");
    symlink("/usr", &link).unwrap();
    let home = scene.outside().join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join(".plue-workspace"), "").unwrap();
    let home = home.to_string_lossy().into_owned();
    let scene = scene.env("HOME", &home);
    let link = link.to_string_lossy().into_owned();
    for folder in ["/", "/usr", "/tmp", "/root", link.as_str(), home.as_str()] {
        let finished = {
            let again = Standby::new().await.env("HOME", &home).env("WORKSPACE", folder);
            again.run().await.finished
        };
        assert_eq!(finished.code, 2, "{folder}: {}", finished.stdout);
        assert!(finished.stdout.contains("WORKSPACE: "), "{folder}: {}", finished.stdout);
    }
    drop(scene);
}

#[tokio::test]
async fn what_lies_there_before_and_what_a_hostile_task_leaves_is_removed() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), "x").unwrap();
    let scene = Standby::new().await.tasks(2);
    fs::create_dir_all(scene.workspace().join("old/er")).unwrap();
    symlink(outside.path(), scene.workspace().join("way-out")).unwrap();
    let leave = [
        "ls -A | grep -v plue-workspace || true",
        "mkdir -p a/b; echo x > a/b/file; chmod 000 a/b/file a/b a",
        "d=.; for i in $(seq 1 400); do mkdir -p deep; cd deep; done; echo x > file; cd \"$OLDPWD\" 2>/dev/null || \
            true; cd /; cd \"$PWD\"",
        "cd \"$WORK\"; mkfifo fifo; touch -- \"$(printf 'new\\nline')\" \"$(printf '\\377odd')\" -rf '  '; ln -s / \
            root",
        "(trap '' TERM HUP; setsid sh -c 'while :; do date > \"$WORK/busy\" 2>/dev/null; done' >/dev/null 2>&1 &)",
    ]
    .join("\n");
    let work = scene.workspace().to_string_lossy().into_owned();
    let scene = scene
        .workflow(1, &json!([{ "run": leave, "env": { "WORK": work } }]))
        .workflow(2, &json!([{ "run": "ls -A" }]));
    let ended = scene.run().await;
    ended.done(1);
    assert_eq!(ended.lines(1, 0), [""; 0], "it was emptied before the first task");
    ended.done(2);
    assert_eq!(ended.lines(2, 0), [".plue-workspace"]);
    assert_eq!(ended.scene.left(), [".plue-workspace"]);
    assert!(outside.path().join("precious").exists());
}
