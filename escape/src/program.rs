//! The attack program: this binary, as it runs inside of the workspace as `plue-escape attack ID TARGET`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::attack::Action;
use crate::attacks;
use crate::scene::BEGUN_FILE;
use crate::target::{BEGUN, Outcome, Target, line};

/// How long the harness may take to write the target after the runner was started.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs one attack and prints that it begins and how it ended, and nothing else.
#[allow(clippy::print_stdout)]
pub fn main(id: &str, target: &Path) {
    let outcome = match std::panic::catch_unwind(|| attack(id, target)) {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Broken("the attack program panicked".to_owned()),
    };
    println!("{}", line(&outcome));
}

#[allow(clippy::print_stdout)]
fn attack(id: &str, target: &Path) -> Outcome {
    let Some(attack) = attacks::all().into_iter().find(|attack| attack.id == id) else {
        return Outcome::Broken(format!("there is no attack {id}"));
    };
    let Action::Program(run) = attack.action else {
        return Outcome::Broken(format!("{id} is no program"));
    };
    let started = Instant::now();
    loop {
        match fs::read(target).map(|bytes| serde_json::from_slice::<Target>(&bytes)) {
            Ok(Ok(known)) => {
                println!("{BEGUN}");
                // What it prints is lost when it ends its keepers before they have told anybody that it runs.
                let _ = fs::write(target.with_file_name(BEGUN_FILE), "");
                return run(&known);
            }
            Ok(Err(error)) => return Outcome::Broken(format!("the target is not readable: {error}")),
            Err(error) if started.elapsed() > PATIENCE => {
                return Outcome::Broken(format!("there is no target: {error}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
