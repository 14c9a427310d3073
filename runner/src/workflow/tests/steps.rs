//! Steps in their order, and what a command of one is started with.

use std::collections::BTreeMap;
use std::time::Duration;

use super::scripted_sandbox::command;
use super::{case, run};
use crate::events::TaskErrorCode;
use crate::task::{Step, StepKind};

fn variables(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    variables.iter().map(owned).collect()
}

fn env(of_all: &[(&str, &str)]) -> Step {
    Step {
        name: "env".into(),
        kind: StepKind::Env(variables(of_all)),
    }
}

#[tokio::test]
async fn steps_run_one_after_the_other_and_each_is_told() {
    case(
        "two steps",
        [command().out("a\n").exits(0), command().err("b\n").exits(0)],
    )
    .run()
    .await
    .events(&[
        "step_start A step_index=0",
        r#"log stdout "a" step_index=0"#,
        "step_end A step_index=0 success exit_code=0",
        "step_start B step_index=1",
        r#"log stderr "b" step_index=1"#,
        "step_end B step_index=1 success exit_code=0",
    ])
    .succeeds();
}

#[tokio::test]
async fn the_first_step_that_does_not_succeed_is_the_last() {
    let (outcome, left) = case(
        "three steps",
        [command().exits(0), command().exits(3), command().exits(0)],
    )
    .run_some()
    .await;
    outcome
        .events(&[
            "step_start A step_index=0",
            "step_end A step_index=0 success exit_code=0",
            "step_start B step_index=1",
            r#"step_end B step_index=1 failure "the command ended with exit code 3" exit_code=3"#,
        ])
        .fails(
            TaskErrorCode::StepFailed,
            "step 1 (B): the command ended with exit code 3",
        );
    assert_eq!(left, 1, "the third command");
}

#[tokio::test]
async fn a_workflow_without_a_command_starts_none() {
    let checkout = Step {
        name: "get it".into(),
        kind: StepKind::Checkout,
    };
    case("checkout and env", [])
        .steps([checkout, env(&[("A", "1")])])
        .run()
        .await
        .events(&[
            "step_start get it step_index=0",
            r#"log info "The workspace holds the repository already; nothing is checked out." step_index=0"#,
            "step_end get it step_index=0 success",
            "step_start env step_index=1",
            "step_end env step_index=1 success",
        ])
        .succeeds();
    case("no steps at all", []).run().await.events(&[]).succeeds();
}

#[tokio::test]
async fn a_command_gets_what_the_steps_before_it_and_its_own_step_say() {
    let own = Step {
        name: "own".into(),
        kind: StepKind::Run {
            script: "make $A".into(),
            env: variables(&[("A", "own"), ("D", "4")]),
            working_directory: "sub/folder".into(),
            timeout: Duration::from_secs(77),
        },
    };
    let steps = [
        run("first"),
        env(&[("A", "1"), ("B", "2")]),
        env(&[("B", "3")]),
        own,
        run("last"),
    ];
    let outcome = case("env", [command().exits(0), command().exits(0), command().exits(0)])
        .steps(steps)
        .run()
        .await
        .succeeds();
    let [first, own, last] = &outcome.started[..] else {
        panic!("{:?}", outcome.started);
    };
    assert_eq!(first.env, variables(&[]));
    assert_eq!(own.env, variables(&[("A", "own"), ("B", "3"), ("D", "4")]));
    assert_eq!(
        last.env,
        variables(&[("A", "1"), ("B", "3")]),
        "a step's own are its own"
    );
    assert_eq!(own.argv, ["/bin/sh", "-e", "-c", "make $A"]);
    assert_eq!(own.working_directory.to_str(), Some("sub/folder"));
    assert_eq!(
        (own.timeout, last.timeout),
        (Duration::from_secs(77), Duration::from_secs(9))
    );
}
