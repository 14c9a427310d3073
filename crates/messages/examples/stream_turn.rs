//! Streams one answer: `ANTHROPIC_API_KEY=… cargo run --release -p plue-messages --example stream_turn -- QUESTION`
//!
//! `ANTHROPIC_BASE_URL` asks a gateway, `MODEL` another model.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::Write;

use futures::StreamExt;
use plue_messages::{
    ClientConfig, Conversation, ConversationConfig, InitialMessage, MessagesClient, Model, Role, TurnEvent,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let question = std::env::args().nth(1).ok_or("ask something")?;
    let variable = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let base_url = variable("ANTHROPIC_BASE_URL", "https://api.anthropic.com").parse()?;
    let key = std::env::var("ANTHROPIC_API_KEY").map_err(|_| "set ANTHROPIC_API_KEY")?;
    let client = MessagesClient::new(ClientConfig::new(base_url, key))?;
    let mut conversation = Conversation::new(ConversationConfig {
        model: &variable("MODEL", "claude-sonnet-5-5"),
        system: None,
        tools: &[],
        thinking: None,
        show_thinking: false,
        effort: None,
        output_schema: None,
        messages: &[InitialMessage {
            role: Role::User,
            content: serde_json::value::to_raw_value(&question)?,
        }],
    });
    let mut turn = client.turn(conversation.request(1000));
    while let Some(event) = turn.next().await {
        match event? {
            TurnEvent::Text(piece) => {
                print!("{piece}");
                std::io::stdout().flush()?;
            }
            TurnEvent::Finished(turn) => {
                let tokens = turn
                    .usage
                    .output_tokens
                    .map_or_else(|| "?".into(), |tokens| tokens.to_string());
                println!("\n({}, {tokens} tokens)", turn.stop.as_str());
            }
            _ => {}
        }
    }
    Ok(())
}
