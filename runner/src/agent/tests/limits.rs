//! What a task may use: turns, money, and the length of an answer.

use super::scripted_model::{ScriptedTurn, turn};
use super::scripted_toolbox::answers;
use super::{FIRST_ASKED, MODEL, case};
use crate::events::TaskErrorCode;
use crate::task::AgentTask;
use plue_messages::StopReason;

fn cut_off(turn: ScriptedTurn) -> ScriptedTurn {
    turn.stops(StopReason::MaxTokens)
}

#[tokio::test]
async fn a_task_has_max_turns_turns_and_no_more() {
    let call = |id| turn().call(id, "grep", "{}").stops(StopReason::ToolUse);
    let outcome = case("the last turn ends with a call", [call("t1"), call("t2")])
        .task(|task| task.max_turns = 2)
        .calls([answers("a"), answers("b")])
        .run()
        .await
        .called(&["grep {}", "grep {}"])
        .fails(TaskErrorCode::MaxTurns, "all of its 2 turns");
    assert_eq!(outcome.spent.turns, 2);
    let outcome = case("the last turn is the answer", [call("t1"), turn().text("Hello").done()])
        .task(|task| task.max_turns = 2)
        .calls([answers("a")])
        .run()
        .await
        .succeeds();
    assert_eq!(outcome.spent.turns, 2);
}

#[tokio::test]
async fn no_turn_begins_once_the_budget_is_used() {
    // 1 US dollar each.
    let call = |id: &str| {
        let turn = turn().call(id, "grep", "{}").uses(500_000, 0);
        turn.stops(StopReason::ToolUse)
    };
    let outcome = case("the budget is reached", [call("t1"), call("t2")])
        .task(|task| task.max_cost_usd = Some(2.0))
        .calls([answers("a"), answers("b")])
        .run()
        .await
        .fails(
            TaskErrorCode::Budget,
            "cost 2.0000 US dollars, and its max_cost_usd is 2",
        );
    assert_eq!((outcome.spent.turns, outcome.spent.cost_usd), (2, Some(2.0)));
    case(
        "the budget is reached by the answer",
        [turn().text("Hello").uses(500_000, 0).done()],
    )
    .task(|task| task.max_cost_usd = Some(0.5))
    .run()
    .await
    .succeeds();
    case("the budget is not reached", [call("t1"), turn().text("Hello").done()])
        .task(|task| task.max_cost_usd = Some(1.01))
        .calls([answers("a")])
        .run()
        .await
        .succeeds();
    case("there is no budget from the beginning", [])
        .task(|task| task.max_cost_usd = Some(0.0))
        .run()
        .await
        .asked(&[])
        .events(&[])
        .fails(TaskErrorCode::Budget, "");
}

#[tokio::test]
async fn what_a_task_has_used_is_known_however_it_ends() {
    let used = |turn: ScriptedTurn| turn.uses(100_000, 10_000);
    let refused = StopReason::Refusal {
        category: None,
        explanation: None,
    };
    let turns = [
        used(turn()).text("Hello").stops(StopReason::PauseTurn),
        used(turn()).served_by("a-name-of-the-gateway").stops(refused),
    ];
    let outcome = case("a refusal", turns).run().await.fails(TaskErrorCode::Refusal, "");
    let usage = outcome.spent.usage;
    assert_eq!((usage.input_tokens, usage.output_tokens), (Some(200_000), Some(20_000)));
    // At the price of the model that was asked for.
    assert!((outcome.spent.cost_usd.unwrap() - 0.6).abs() < 1e-9);

    let mut unknown = case("no price is known", [used(turn()).served_by("x").text("Hello").done()]);
    unknown.model_name = "a-model-of-the-gateway";
    let outcome = unknown.run().await.asked(&["32000: user \"Go\""]).succeeds();
    assert_eq!(outcome.spent.cost_usd, None);
}

#[tokio::test]
async fn a_text_that_was_cut_off_goes_on_three_times_in_a_row() {
    let text = || cut_off(turn().text("Hello"));
    let go_on = r#"64000: assistant ["Hello"], user GO_ON"#;
    case("it ends in time", [text(), text(), text(), turn().text("!").done()])
        .run()
        .await
        .events(&[
            r#"token m1#0 "Hello""#,
            r#"token m2#0 "Hello""#,
            r#"token m3#0 "Hello""#,
            r#"token m4#0 "!""#,
        ])
        .asked(&[FIRST_ASKED, go_on, go_on, go_on])
        .succeeds();
    case("it does not end", [text(), text(), text(), text()])
        .run()
        .await
        .asked(&[FIRST_ASKED, go_on, go_on, go_on])
        .fails(
            TaskErrorCode::MaxTokens,
            "cut off at max_tokens = 64000 4 times in a row",
        );
    // What is whole in between begins the count again.
    let call = turn().call("t1", "grep", "{}").stops(StopReason::ToolUse);
    let turns = [
        text(),
        text(),
        text(),
        call,
        text(),
        text(),
        text(),
        turn().text("!").done(),
    ];
    case("not in a row", turns).calls([answers("a")]).run().await.succeeds();
}

#[tokio::test]
async fn of_a_turn_that_was_cut_off_complete_calls_are_made_and_the_cut_one_is_told_to_the_model() {
    let half = |id: &str, limit: &str| {
        let cut = "The call was not made: your arguments were cut after 5 tokens, since an answer has no more room. \
                   Write the file in parts, with append for each after the first.";
        let asked = format!(
            r#"{limit}: assistant ["Hello"; {id}a grep {{}}; {id} write_file {{"INVALID_JSON":"{{\"a"}}], user [{id}a "found"; {id} error {cut:?}]"#
        );
        let turn = turn()
            .text("Hello")
            .call(&format!("{id}a"), "grep", "{}")
            .call(id, "write_file", "{\"a");
        (cut_off(turn), cut, asked)
    };
    let (first, cut, asked) = half("t1", "128000");
    case("it makes a smaller one", [first, turn().text("Bye").done()])
        .calls([answers("found")])
        .run()
        .await
        .events(&[
            r#"token m1#0 "Hello""#,
            "tool_start m1 t1a grep",
            "tool_start m1 t1 write_file",
            "tool_start m1 t1a grep {}",
            r#"tool_end t1a success "found""#,
            r#"tool_start m1 t1 write_file {"INVALID_JSON":"{\"a"}"#,
            &format!("tool_end t1 error {cut:?} invalid_input"),
            r#"token m2#0 "Bye""#,
        ])
        .asked(&[FIRST_ASKED, &asked])
        .called(&["grep {}"])
        .succeeds();
    // Also when there is no more room to be had.
    let (first, _, asked) = half("t1", "1000");
    case("the task allows no more", [first, turn().text("Bye").done()])
        .task(|task| task.max_tokens = Some(1_000))
        .calls([answers("found")])
        .run()
        .await
        .asked(&["1000: user \"Go\"", &asked])
        .succeeds();
    let turns = (0..4).map(|n| half(&format!("t{n}"), "").0);
    case("it never learns", turns)
        .calls((0..3).map(|_| answers("found")))
        .run()
        .await
        .fails(TaskErrorCode::MaxTokens, "4 times in a row");
    case(
        "thinking without an answer",
        [cut_off(turn().thinking("Hm")), turn().text("!").done()],
    )
    .run()
    .await
    .events(&[
        concat!(
            r#"log info "the model had no answer after 5 tokens, which is all that max_tokens = 64000 allows; "#,
            r#"it is asked again with 128000""#
        ),
        r#"token m1#0 "!""#,
    ])
    .asked(&[FIRST_ASKED, "128000: "])
    .succeeds();
    case(
        "nor with more room",
        [cut_off(turn().thinking("Hm")), cut_off(turn().thinking("Hm"))],
    )
    .run()
    .await
    .fails(
        TaskErrorCode::MaxTokens,
        "cut off at max_tokens = 128000 before it had an answer",
    );
}

#[tokio::test]
async fn before_its_money_or_its_tokens_end_the_model_has_one_turn_to_wrap_up() {
    // 1 US dollar and 500,000 tokens each.
    let call = |id: &str| {
        turn()
            .call(id, "grep", "{}")
            .uses(500_000, 0)
            .stops(StopReason::ToolUse)
    };
    type Limit = (fn(&mut AgentTask), &'static str, &'static str);
    let limits: [Limit; 2] = [
        (
            |task| task.max_cost_usd = Some(2.5),
            "0.5000 US dollars",
            "max_cost_usd",
        ),
        (
            |task| task.max_tokens_total = Some(1_250_000),
            "250000 tokens",
            "max_tokens_total",
        ),
    ];
    for (limit, left, name) in limits {
        let told = |asked: &[String]| {
            asked
                .last()
                .unwrap()
                .contains(&format!("You have {left} left: finish."))
        };
        let outcome = case(name, [call("t1"), call("t2"), turn().text("That is all.").done()])
            .task(limit)
            .calls([answers("a"), answers("b")])
            .run()
            .await
            .succeeds();
        assert!(told(&outcome.asked), "{:?}", outcome.asked);
        assert!(!told(&outcome.asked[..2]), "{:?}", outcome.asked);
        // What it saves in that turn is saved, and then it is over.
        let outcome = case(
            name,
            [
                call("t1"),
                call("t2"),
                turn().call("t3", "grep", "{}").stops(StopReason::ToolUse),
            ],
        )
        .task(limit)
        .calls([answers("a"), answers("b"), answers("c")])
        .run()
        .await
        .fails(TaskErrorCode::Budget, name);
        assert!(told(&outcome.asked), "{:?}", outcome.asked);
        assert_eq!(outcome.spent.turns, 3);
    }
}

#[tokio::test]
async fn before_its_time_ends_the_model_is_told_to_finish() {
    let call = |id: &str| turn().call(id, "grep", "{}").stops(StopReason::ToolUse);
    let mut late = case("late", [call("t1"), call("t2"), turn().text("Bye").done()]);
    let whole = std::time::Duration::from_secs(1000);
    late.deadline = Some((tokio::time::Instant::now() + whole / 20, whole));
    let outcome = late.calls([answers("a"), answers("b")]).run().await.succeeds();
    let told: Vec<bool> = outcome
        .asked
        .iter()
        .map(|asked| asked.contains(" s left: finish."))
        .collect();
    assert_eq!(told, [false, true, false], "{:?}", outcome.asked);
}

#[tokio::test]
async fn tokens_that_nobody_counted_are_unknown_and_not_none() {
    let mut uncounted = turn().text("Hello").done();
    uncounted = uncounted.uncounted();
    let outcome = case("no usage", [uncounted]).run().await.succeeds();
    assert_eq!(outcome.spent.usage.input_tokens, None);
    assert_eq!(outcome.spent.cost_usd, None);
}

#[tokio::test]
async fn a_model_is_never_asked_for_more_than_it_can_give() {
    case("too much is asked for", [turn().text("Hello").done()])
        .task(|task| task.max_tokens = Some(900_000))
        .run()
        .await
        .asked(&["128000: user \"Go\""])
        .succeeds();
    assert_eq!(plue_messages::models::max_output(MODEL), 128_000);
}
