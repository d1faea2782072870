//! Saying something from a script.

use std::io::Write as _;

use anyhow::Result;
use futures::{StreamExt as _, stream::FuturesOrdered};
use infrachat_client::{Ack, Client};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};

use crate::{
    args::{Global, Send},
    session,
};

/// Messages on their way at once.
const AHEAD: usize = 256;

pub(crate) async fn run(global: &Global, args: Send) -> Result<()> {
    let client = session::connect(session::options(global, false)?).await?;
    let reading = client.clone();
    // What others say is of no interest, but has to be read for the answers behind it.
    let reading = tokio::spawn(async move { while reading.next_event().await.is_some() {} });
    let said = say(&client, &args).await;
    client.close().await;
    reading.abort();
    said
}

async fn say(client: &Client, args: &Send) -> Result<()> {
    session::enter(client, &args.channel, 0, args.create).await?;
    let mut source = Source::new(args);
    let mut sending = FuturesOrdered::new();
    let mut more = true;
    loop {
        tokio::select! {
            line = source.next(), if more && sending.len() < AHEAD => match line? {
                Some(line) if line.is_empty() => {}
                Some(line) => sending.push_back(client.publish(&args.channel, line)),
                None => more = false,
            },
            Some(ack) = sending.next() => print(args, &ack?)?,
            else => return Ok(()),
        }
    }
}

fn print(args: &Send, ack: &Ack) -> Result<()> {
    if args.json {
        let line = serde_json::json!({
            "channel": args.channel.as_str(),
            "message_id": ack.message_id.to_string(),
            "client_message_id": ack.client_message_id.to_string(),
        });
        writeln!(std::io::stdout(), "{line}")?;
    }
    Ok(())
}

/// Where the lines come from.
enum Source {
    Arguments(Option<String>),
    Stdin(Lines<BufReader<Stdin>>),
}

impl Source {
    fn new(args: &Send) -> Self {
        match args.text.as_slice() {
            [] => Self::stdin(),
            [dash] if dash == "-" => Self::stdin(),
            words => Self::Arguments(Some(words.join(" "))),
        }
    }

    fn stdin() -> Self {
        Self::Stdin(BufReader::new(tokio::io::stdin()).lines())
    }

    async fn next(&mut self) -> std::io::Result<Option<String>> {
        match self {
            Self::Arguments(text) => Ok(text.take()),
            Self::Stdin(lines) => lines.next_line().await,
        }
    }
}
