//! Printing messages as they come.

use std::io::Write as _;

use anyhow::Result;
use infrachat_client::{Client, ClientError, Event, Message};

use crate::{
    args::{Global, Tail},
    output::{Paint, harmless, message_line},
    session,
};

pub(crate) async fn run(global: &Global, args: Tail) -> Result<()> {
    let client = session::connect(session::options(global, false)?).await?;
    let printed = tokio::select! {
        printed = print(&client, &args) => printed,
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Into::into),
    };
    client.close().await;
    printed
}

async fn print(client: &Client, args: &Tail) -> Result<()> {
    let entering = session::enter(client, &args.channel, args.recent, false);
    tokio::pin!(entering);
    let mut entered = false;
    let mut printed = 0;
    let paint = Paint::for_stdout();
    while args.count.is_none_or(|count| printed < count) {
        let event = tokio::select! {
            done = &mut entering, if !entered => {
                done?;
                entered = true;
                continue;
            }
            event = client.next_event() => event,
        };
        match event {
            Some(Event::Message(message)) => {
                let line = if args.json {
                    json_line(&message)
                } else {
                    message_line(paint, &message)
                };
                writeln!(std::io::stdout(), "{line}")?;
                printed += 1;
            }
            Some(Event::Closed { code, reason }) => {
                return Err(ClientError::Closed { code, reason }.into());
            }
            Some(Event::Left { reason, .. }) => anyhow::bail!("no longer in the channel: {reason}"),
            Some(Event::Gap { missed, reason, .. }) => {
                notice(&format!(
                    "{missed} messages are missing here: {}",
                    harmless(&reason)
                ));
            }
            Some(Event::Disconnected { reason, .. }) => {
                notice(&format!(
                    "connection lost ({}), connecting again",
                    harmless(&reason)
                ));
            }
            Some(_) => {}
            None => return Ok(()),
        }
    }
    Ok(())
}

fn notice(text: &str) {
    anstream::eprintln!("infrachat: {text}");
}

fn json_line(message: &Message) -> String {
    serde_json::json!({
        "channel": message.channel.as_str(),
        "message_id": message.message_id.to_string(),
        "client_message_id": message.client_message_id.to_string(),
        "sender": message.sender.as_str(),
        "body": String::from_utf8_lossy(&message.body),
        "published_at_ms": message.published_at,
        "region": message.region.as_str(),
    })
    .to_string()
}
