use plue_messages::Usage;
use plue_messages::models::{self, State};
use serde_json::value::RawValue;

#[test]
fn the_table_is_consistent() {
    for model in models::live() {
        let names: Vec<&str> = std::iter::once(&*model.id).chain(model.alias.as_deref()).collect();
        for name in &names {
            let known = models::live()
                .iter()
                .filter(|other| other.id == *name || other.alias.as_deref() == Some(name))
                .count();
            assert_eq!(known, 1, "{name}");
            assert_eq!(models::retired(name), None, "{name}");
        }
        assert!(model.max_output < model.context_window, "{}", model.id);
        assert!(
            model.prices.cache_read < model.prices.input && model.prices.input < model.prices.output,
            "{}",
            model.id
        );
        assert!(
            (model.prices.cache_write / model.prices.input - 1.25).abs() < 1e-9,
            "{}",
            model.id
        );
        assert_eq!(
            model.replacement.is_none(),
            model.state == State::Latest,
            "{}",
            model.id
        );
        if let Some(replacement) = &model.replacement {
            assert_eq!(
                models::lookup(replacement).map(|new| new.state),
                Some(State::Latest),
                "{}",
                model.id
            );
        }
        assert!(
            model.state != State::Deprecated || model.retires.as_str() > models::as_of(),
            "{}",
            model.id
        );
    }
}

#[test]
fn each_retired_model_is_known_with_a_replacement_that_is_served() {
    for id in [
        "claude-sonnet-4-20250514",
        "claude-3-5-sonnet-20241022",
        "claude-3-5-haiku-20241022",
        "claude-3-opus-20240229",
    ] {
        assert!(models::retired(id).is_some(), "{id} of the task whitelist");
    }
    for model in models::gone() {
        assert_eq!(
            models::gone().iter().filter(|other| other.id == model.id).count(),
            1,
            "{}",
            model.id
        );
        assert!(model.retired_on.as_str() < models::as_of(), "{}", model.id);
        assert!(models::lookup(&model.id).is_none(), "{}", model.id);
        let family = ["opus", "sonnet", "haiku"]
            .into_iter()
            .find(|family| model.id.contains(family))
            .unwrap();
        assert!(model.replacement.contains(family), "{}", model.id);
        assert_eq!(
            models::lookup(&model.replacement).map(|new| new.state),
            Some(State::Latest),
            "{}",
            model.id
        );
    }
}

#[test]
fn a_turn_costs_what_the_price_list_says() {
    let usage = |input, output, read, write| Usage {
        input_tokens: Some(input),
        output_tokens: Some(output),
        cache_read_tokens: Some(read),
        cache_write_tokens: Some(write),
    };
    let million = 1_000_000;
    let cases = [
        ("claude-opus-5-5", usage(million, 0, 0, 0), Some(4.0)),
        ("claude-opus-5-5", usage(0, million, 0, 0), Some(20.0)),
        ("claude-opus-5-5", usage(0, 0, million, 0), Some(0.20)),
        ("claude-opus-5-5", usage(0, 0, 0, million), Some(5.0)),
        (
            "claude-sonnet-5-5",
            usage(1000, 2000, 3000, 4000),
            Some(0.002 + 0.020 + 0.0003 + 0.010),
        ),
        ("claude-haiku-4-5", usage(million, million, 0, 0), Some(6.0)),
        ("claude-haiku-4-5-20251001", usage(million, million, 0, 0), Some(6.0)),
        // The whole turn is dearer when its prompt, cached or not, is over 100,000 tokens.
        (
            "claude-haiku-5-5",
            usage(50_000, 1000, 30_000, 20_000),
            Some(0.005 + 0.0005 + 0.0003 + 0.0025),
        ),
        (
            "claude-haiku-5-5",
            usage(50_001, 0, 30_000, 20_000),
            Some(0.025_000_5 + 0.0015 + 0.0125),
        ),
        ("claude-haiku-5-5", usage(0, million, 0, 0), Some(0.50)),
        ("claude-opus-5-5", Usage::NOTHING, Some(0.0)),
        (
            "claude-opus-5-5",
            usage(u64::MAX, u64::MAX, u64::MAX, u64::MAX),
            Some(f64::INFINITY),
        ),
        ("a-gateways-own", usage(million, 0, 0, 0), None),
        ("claude-3-opus-20240229", usage(million, 0, 0, 0), None),
    ];
    for (model, usage, expected) in cases {
        match (models::cost(model, &usage), expected) {
            (Some(cost), Some(f64::INFINITY)) => assert!(cost.is_finite() && cost > 1e12, "{model}: {cost}"),
            (Some(cost), Some(expected)) => assert!((cost - expected).abs() < 1e-9, "{model} {usage:?}: {cost}"),
            (cost, expected) => assert_eq!(cost, expected, "{model}"),
        }
    }
}

#[test]
fn an_unknown_model_gets_careful_defaults() {
    assert_eq!(models::max_output("claude-opus-5-5"), 128_000);
    assert_eq!(models::max_output("claude-haiku-4-5"), 64_000);
    assert_eq!(models::max_output("a-gateways-own"), models::DEFAULT_MAX_OUTPUT);
    assert!(
        models::live()
            .iter()
            .all(|model| model.max_output >= models::DEFAULT_MAX_OUTPUT)
    );
    assert_eq!(models::check_effort("a-gateways-own", "extreme"), Ok(()));
}

#[test]
fn effort_is_checked_against_the_model() {
    let cases = [
        ("claude-opus-5-5", "xhigh", ""),
        ("claude-opus-4-6", "max", ""),
        ("claude-opus-4-6", "xhigh", "allowed: low, medium, high, max"),
        ("claude-opus-4-5", "max", "allowed: low, medium, high"),
        ("claude-haiku-4-5", "low", "leave it out: it takes none"),
        ("claude-opus-5-5", "High", "allowed: low"),
    ];
    for (model, effort, expected) in cases {
        let error = models::check_effort(model, effort)
            .err()
            .map_or(String::new(), |error| error.to_string());
        assert!(
            if expected.is_empty() {
                error.is_empty()
            } else {
                error.contains(expected)
            },
            "{model} {effort}: {error}"
        );
    }
}

#[test]
fn thinking_is_checked_against_the_model() {
    let enabled = r#"{"type":"enabled","budget_tokens":1024}"#;
    let (adaptive, disabled) = (r#"{"type":"adaptive"}"#, r#"{"type":"disabled"}"#);
    let between = r#"{"type":"between_tools"}"#;
    let cases = [
        ("claude-opus-5-5", adaptive, None, ""),
        (
            "claude-opus-5-5",
            r#"{"display":"summarized","type":"adaptive"}"#,
            None,
            "",
        ),
        ("claude-opus-5-5", disabled, None, "allowed: adaptive"),
        ("claude-opus-5-5", enabled, None, "allowed: adaptive"),
        ("claude-sonnet-5-5", between, None, ""),
        ("claude-sonnet-5-5", disabled, None, "allowed: adaptive, between_tools"),
        ("claude-haiku-5-5", disabled, None, ""),
        ("claude-haiku-5-5", disabled, Some("high"), ""),
        ("claude-haiku-5-5", disabled, Some("xhigh"), "at most \"high\""),
        ("claude-haiku-5-5", adaptive, Some("max"), ""),
        ("claude-opus-5", disabled, Some("max"), "at most \"high\""),
        ("claude-sonnet-5", disabled, Some("max"), ""),
        ("claude-opus-4-8", enabled, None, "allowed: adaptive, disabled"),
        ("claude-opus-4-6", enabled, None, ""),
        ("claude-haiku-4-5", adaptive, None, "allowed: enabled, disabled"),
        ("claude-haiku-4-5", enabled, None, ""),
        ("claude-haiku-4-5", r#"{"type":"enabled"}"#, None, "found nothing"),
        (
            "claude-haiku-4-5",
            r#"{"type":"enabled","budget_tokens":1023}"#,
            None,
            "found 1023",
        ),
        (
            "claude-haiku-4-5",
            r#"{"type":"enabled","budget_tokens":8000}"#,
            None,
            "less than max_tokens (8000)",
        ),
        (
            "claude-haiku-4-5",
            r#"{"type":"enabled","budget_tokens":"2000"}"#,
            None,
            "found \"2000\"",
        ),
        ("a-gateways-own", r#"{"type":"whatever"}"#, Some("max"), ""),
        ("a-gateways-own", r#"{"kind":"whatever"}"#, None, "string \"type\""),
        ("claude-opus-5-5", "true", None, "string \"type\""),
        ("claude-opus-5-5", r#"{"type":1}"#, None, "string \"type\""),
    ];
    for (model, thinking, effort, expected) in cases {
        let raw = RawValue::from_string(thinking.to_owned()).unwrap();
        let error = models::check_thinking(model, &raw, effort, 8000)
            .err()
            .map_or(String::new(), |error| error.to_string());
        let as_expected = if expected.is_empty() {
            error.is_empty()
        } else {
            error.contains(expected)
        };
        assert!(as_expected, "{model} {thinking} {effort:?}: {error}");
    }
}

#[test]
fn a_retired_model_has_todays_of_its_family_in_its_place_and_a_deprecated_one_from_its_day_on() {
    let sonnet = |day| Some(("claude-sonnet-5-5", day));
    for (asked, today, expected) in [
        ("claude-sonnet-4-20250514", "2026-11-28T10:00:00Z", sonnet("2026-06-15")),
        (
            "claude-3-haiku-20240307",
            "2026-11-28T10:00:00Z",
            Some(("claude-haiku-5-5", "2026-04-20")),
        ),
        ("claude-sonnet-4-5", "2026-11-29T23:59:59Z", None),
        ("claude-sonnet-4-5", "2026-11-30T00:00:00Z", sonnet("2026-11-30")),
        (
            "claude-sonnet-4-5-20250929",
            "2027-01-01T00:00:00Z",
            sonnet("2026-11-30"),
        ),
        // Not before anybody has said that it ends.
        ("claude-opus-4-6", "2030-01-01T00:00:00Z", None),
        ("claude-sonnet-5-5", "2030-01-01T00:00:00Z", None),
        ("a-gateways-own", "2030-01-01T00:00:00Z", None),
    ] {
        assert_eq!(models::replacement(asked, today), expected, "{asked} {today}");
    }
}
