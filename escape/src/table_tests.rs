//! What holds for the table of attacks as a whole.

use std::collections::BTreeSet;

use crate::attack::{Action, Class, Expect, Surface};
use crate::attacks;

#[test]
fn every_attack_has_a_name_of_its_own_that_begins_with_its_class() {
    let mut seen = BTreeSet::new();
    for attack in attacks::all() {
        assert!(seen.insert(attack.id), "{} is there twice", attack.id);
        assert_eq!(
            attack.id.split_once('/').unwrap().0,
            attack.class.name(),
            "{}",
            attack.id
        );
        let name = attack.id.split_once('/').unwrap().1;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        assert!(name.chars().all(plain), "{} goes into a command line", attack.id);
    }
}

#[test]
fn every_attack_has_surfaces_that_its_action_can_reach() {
    for attack in attacks::all() {
        assert!(!attack.surfaces.is_empty(), "{}", attack.id);
        let fits = |surface: Surface| match attack.action {
            Action::Path(_) => surface.is_file_tool() || surface.is_command(),
            Action::Call(_) | Action::Alike(_) => surface.is_file_tool() || surface == Surface::Shell,
            Action::Program(_) | Action::Script(_) => surface.is_command(),
            Action::Component(_) => surface == Surface::Component,
            Action::Task(_) => surface == Surface::Task,
            Action::Model(_) => surface == Surface::Model,
        };
        for surface in attack.surfaces {
            assert!(fits(*surface), "{} through {}", attack.id, surface.name());
        }
    }
}

#[test]
fn every_expected_refusal_says_what_words_it_is_known_by() {
    for attack in attacks::all() {
        match attack.expect {
            Expect::Refused(says) => assert!(says.len() >= 3, "{}: any refusal has {says:?}", attack.id),
            Expect::Denied(codes) => assert!(!codes.is_empty(), "{}: no code is right", attack.id),
            Expect::Killed(code) => assert!(!code.is_empty(), "{}", attack.id),
            Expect::Plain(_) | Expect::LosesItsKeeper => {}
            Expect::Contained | Expect::Raced(_) | Expect::Harmless | Expect::Answers(_) => {}
        }
    }
}

#[test]
fn what_reaches_the_kernel_is_tried_on_every_kernel_and_through_a_surface_of_each_kind() {
    for attack in attacks::all() {
        if matches!(attack.class, Class::Files | Class::Processes | Class::Network) || attack.resolves_paths {
            assert!(attack.differs, "{} meets another kernel in gVisor", attack.id);
        }
        let some = attack.surfaces_of_each_kind();
        let of = |kind: fn(Surface) -> bool| {
            (
                attack.surfaces.iter().any(|one| kind(*one)),
                some.iter().any(|one| kind(*one)),
            )
        };
        for (asked, kept) in [
            of(Surface::is_command),
            of(Surface::is_file_tool),
            of(|surface| surface == Surface::WriteFile),
            of(|surface| surface == Surface::Component),
        ] {
            assert_eq!(asked, kept, "{}", attack.id);
        }
        assert!(some.iter().all(|one| attack.surfaces.contains(one)), "{}", attack.id);
    }
}
