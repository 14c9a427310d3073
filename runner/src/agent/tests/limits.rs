//! What a task may use: turns, money, and the length of an answer.

use super::scripted_model::{ScriptedTurn, turn};
use super::scripted_toolbox::answers;
use super::{FIRST_ASKED, MODEL, case};
use crate::agent::CUT_OFF_CALL;
use crate::events::TaskErrorCode;
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
    let used = |turn: ScriptedTurn| turn.uses(1_000_000, 100_000);
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
    assert_eq!((usage.input_tokens, usage.output_tokens), (2_000_000, 200_000));
    assert_eq!(
        outcome.spent.cost_usd,
        Some(6.0),
        "the price of the model that was asked for"
    );

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
async fn a_call_that_was_cut_off_is_asked_for_again_with_twice_the_room_as_long_as_there_is_any() {
    let half_a_call = |id| cut_off(turn().text("Hello").call(id, "grep", "{\"a"));
    let whole = turn().call("t2", "grep", "{}").stops(StopReason::ToolUse);
    case("twice is enough", [half_a_call("t1"), whole, turn().text("Bye").done()])
        .calls([answers("found")])
        .run()
        .await
        .events(&[
            r#"token m1#0 "Hello""#,
            "tool_start m1 t1 grep",
            &format!("tool_end t1 error {CUT_OFF_CALL:?} cancelled"),
            "tool_start m2 t2 grep",
            "tool_start m2 t2 grep {}",
            r#"tool_end t2 success "found""#,
            r#"token m3#0 "Bye""#,
        ])
        .asked(&[
            FIRST_ASKED,
            // Nothing of the turn that was cut off.
            "128000: ",
            r#"128000: assistant [t2 grep {}], user [t2 "found"]"#,
        ])
        .called(&["grep {}"])
        .succeeds();
    case("it is not", [half_a_call("t1"), half_a_call("t2")])
        .run()
        .await
        .asked(&[FIRST_ASKED, "128000: "])
        .called(&[])
        .fails(
            TaskErrorCode::MaxTokens,
            "cut off at max_tokens = 128000 before it had an answer",
        );
    case("the task allows no more", [half_a_call("t1")])
        .task(|task| task.max_tokens = Some(1_000))
        .run()
        .await
        .asked(&["1000: user \"Go\""])
        .fails(TaskErrorCode::MaxTokens, "max_tokens = 1000");
    case(
        "thinking without an answer",
        [cut_off(turn().thinking("Hm")), turn().text("!").done()],
    )
    .run()
    .await
    .asked(&[FIRST_ASKED, "128000: "])
    .succeeds();
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
