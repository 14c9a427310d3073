//! Compiled forms are trusted code: which are taken, which are made anew, and which are refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use plue_tool_host::compile_plugins;

use crate::fixture::{Fixture, call};
use support::guest::{Guest, answers};

/// The tool `tool`, compiled; its form.
fn compiled() -> (Fixture, PathBuf) {
    let fixture = Fixture::new();
    fixture.install(&Guest::good("tool"), "");
    let forms = compile_plugins(&fixture.plugins()).unwrap();
    assert_eq!(forms.len(), 1);
    (fixture, forms[0].clone())
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Whether this very form is what runs: the component beside it is made unreadable for the compiler, by its size.
async fn answer(fixture: &Fixture) -> String {
    call(&fixture.toolbox(), "tool", r#"{"a":1}"#).await.text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compiled_form_is_named_after_its_component_and_is_what_runs() {
    let (fixture, form) = compiled();
    let name = form.file_name().unwrap().to_str().unwrap();
    let digest = name
        .strip_prefix("tool-")
        .and_then(|name| name.strip_suffix(".cwasm"))
        .unwrap();
    assert!(
        digest.len() == 16 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{name}"
    );
    assert_eq!(answer(&fixture).await, r#"{"a":1}"#);

    // To know that the form is used and not the component: the form of another component, made to look like this one's.
    let other = Fixture::new();
    let same = answers("(i32.const 4096)", "(i32.const 4)");
    other.install(&Guest::on_call("tool", &same), "");
    let other_form = fs::read(&compile_plugins(&other.plugins()).unwrap()[0]).unwrap();
    let own_form = fs::read(&form).unwrap();
    let trailer = 48;
    let forged = [
        &other_form[..other_form.len() - trailer],
        &own_form[own_form.len() - trailer..],
    ]
    .concat();
    fs::write(&form, forged).unwrap();
    assert_eq!(answer(&fixture).await, "tool");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_does_not_fit_is_compiled_anew() {
    let (fixture, form) = compiled();
    let good = fs::read(&form).unwrap();
    let other = Fixture::new();
    other.install(&Guest::on_call("tool", "unreachable"), "");
    let of_another = fs::read(&compile_plugins(&other.plugins()).unwrap()[0]).unwrap();
    let trailer = &good[good.len() - 48..];
    let mut other_engine = good.clone();
    // The version of wasmtime stands in the section .wasmtime.engine.
    let at = good
        .windows(16)
        .position(|window| window == b".wasmtime.engine")
        .unwrap();
    other_engine[at] ^= 1;
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("garbage", vec![0x90; 4096]),
        ("garbage with our trailer", [&[0x90; 4096][..], trailer].concat()),
        ("truncated", good[..good.len() / 2].to_vec()),
        ("without its end", good[..good.len() - 1].to_vec()),
        ("an ELF program", fs::read("/proc/self/exe").unwrap()),
        ("of another component", of_another),
        ("of another engine", other_engine),
    ] {
        fs::write(&form, bytes).unwrap();
        assert_eq!(answer(&fixture).await, r#"{"a":1}"#, "{what}");
    }
    // What `plugin compile` finds there it replaces.
    compile_plugins(&fixture.plugins()).unwrap();
    assert_eq!(fs::read(&form).unwrap().len(), good.len());
}

#[test]
fn a_form_that_others_could_have_written_is_refused() {
    let (fixture, form) = compiled();
    let folder = fixture.plugin("tool");
    for (path, unsafe_mode, safe_mode) in [
        (form.clone(), 0o664, 0o644),
        (form, 0o646, 0o644),
        (folder, 0o777, 0o755),
        (fixture.plugins(), 0o775, 0o755),
    ] {
        mode(&path, unsafe_mode);
        let refusal = fixture.refusal();
        let says = format!(
            "compiled code is not taken from {}: group or others may write it",
            path.display()
        );
        assert!(
            refusal.contains(&says) && refusal.contains("`chmod go-w` it"),
            "{refusal}"
        );
        mode(&path, safe_mode);
        fixture.load().unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn a_form_that_belongs_to_another_user_is_refused() {
    let (fixture, form) = compiled();
    let nobody = 65534;
    let given = std::os::unix::fs::chown(&form, Some(nobody), None);
    if rustix::process::geteuid().is_root() {
        given.unwrap();
        let refusal = fixture.refusal();
        assert!(
            refusal.contains("it belongs to user 65534")
                && refusal.contains("`chown` it")
                && !refusal.contains("chmod"),
            "{refusal}"
        );
    } else {
        // Who is not root cannot give a file away; then there is nobody to be refused.
        assert!(given.is_err());
    }
}

#[test]
fn a_fifo_in_the_place_of_a_form_is_refused_and_never_waited_for() {
    let (fixture, form) = compiled();
    fs::remove_file(&form).unwrap();
    let read_write = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &form, rustix::fs::FileType::Fifo, read_write, 0).unwrap();
    let (send, refusal) = std::sync::mpsc::channel();
    std::thread::spawn(move || send.send(fixture.refusal()));
    let refusal = refusal.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
    assert!(refusal.contains("it is not a regular file; remove it"), "{refusal}");
}

#[test]
fn a_form_behind_a_symbolic_link_is_refused() {
    let (fixture, form) = compiled();
    let elsewhere = fixture.workspace().join("form");
    fs::rename(&form, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &form).unwrap();
    let refusal = fixture.refusal();
    assert!(refusal.contains("cannot read the compiled form"), "{refusal}");
}

#[test]
fn compiling_again_keeps_what_fits_removes_what_is_stale_and_closes_the_folder() {
    let (fixture, form) = compiled();
    let written = fs::metadata(&form).unwrap().modified().unwrap();
    mode(&fixture.plugin("tool"), 0o777);
    let stale = form.with_file_name("tool-0123456789abcdef.cwasm");
    fs::write(&stale, "").unwrap();
    compile_plugins(&fixture.plugins()).unwrap();
    fixture.load().unwrap_or_else(|error| panic!("{error}"));
    assert!(!stale.exists());
    let again = fs::metadata(&form).unwrap().modified().unwrap();
    // The folder was open, so that the form could not be trusted and was made again.
    assert!(again > written);
    compile_plugins(&fixture.plugins()).unwrap();
    assert_eq!(fs::metadata(&form).unwrap().modified().unwrap(), again);
}
