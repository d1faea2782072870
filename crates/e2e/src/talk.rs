//! Users who talk and listen, and note everything in a ledger.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use infrachat_client::{Client, ErrorCode, Event, HistoryBound, JoinOptions, MessageId};
use infrachat_types::ChannelName;
use tokio::task::JoinSet;

use crate::{Ledger, channel};

/// Most of a page of history.
const PAGE: u32 = 500;

/// All of a channel's history, forwards: ids and bodies.
async fn history(client: &Client, name: &str) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut bound = HistoryBound::After(MessageId::floor_of(0));
    loop {
        let page = client.history(&channel(name), bound, PAGE).await;
        let (page, more) = page.expect("a page");
        if let Some(last) = page.last() {
            bound = HistoryBound::After(last.message_id);
        }
        all.extend(page.into_iter().map(|message| {
            let body = String::from_utf8_lossy(&message.body).into_owned();
            (message.message_id.to_string(), body)
        }));
        if !more {
            return all;
        }
    }
}

/// Whether both regions' histories of a channel have the same messages under the same ids, and all that were
/// acknowledged. None may have one twice, or a sender's out of order.
pub async fn histories_agree(west: &Client, asia: &Client, name: &str, ledger: &Ledger) -> bool {
    let (in_west, in_asia) = (history(west, name).await, history(asia, name).await);
    let mut counts = BTreeMap::new();
    for (_, body) in &in_west {
        *counts.entry(body).or_insert(0) += 1;
    }
    assert!(
        counts.values().all(|count| *count == 1),
        "{name}: {counts:?}"
    );
    let mut newest = BTreeMap::new();
    for (_, body) in &in_west {
        let (sender, number) = body.split_once(' ').expect("a sender and a number");
        let number: usize = number.parse().expect("a number");
        let before = newest.insert(sender, number);
        assert!(
            before.is_none_or(|before| before < number),
            "{name}: {body} is out of order in the history: it comes after {before:?}"
        );
    }
    let mut acknowledged = ledger.bodies(name).into_iter();
    in_west == in_asia && acknowledged.all(|body| counts.contains_key(&body))
}

/// Joins; a channel that was just created may not be known in the other region yet.
pub async fn join(client: &Client, name: &ChannelName) {
    crate::eventually("a channel is known", async || {
        match client.join(name, JoinOptions::default()).await {
            Ok(()) => true,
            Err(err) if err.code() == Some(ErrorCode::ChannelNotFound) => false,
            Err(err) => panic!("{name} can't be joined: {err}"),
        }
    })
    .await;
}

/// Says something in one channel after the other, with pauses, until it is enough; then waits for every
/// answer.
pub async fn talk(
    client: Client,
    channels: Vec<String>,
    pause: Duration,
    ledger: Arc<Ledger>,
    enough: Arc<AtomicBool>,
) {
    let name = client.user().to_string();
    let mut answers = JoinSet::new();
    let mut every = tokio::time::interval(pause);
    for channel_name in channels.iter().cycle() {
        every.tick().await;
        if enough.load(Ordering::Acquire) {
            break;
        }
        let number = ledger.says(&name, channel_name);
        let answer = client.publish(&channel(channel_name), format!("{name} {number}"));
        let (ledger, name) = (Arc::clone(&ledger), name.clone());
        let channel_name = channel_name.clone();
        answers.spawn(async move {
            let answer = answer.await.map(drop).map_err(|err| err.to_string());
            ledger.answered(&name, &channel_name, number, answer);
        });
        while answers.try_join_next().is_some() {}
    }
    answers.join_all().await;
}

/// Notes everything that is shown to a user, until there is no more.
pub async fn listen(client: Client, ledger: Arc<Ledger>) {
    let reader = client.user().to_string();
    while let Some(event) = client.next_event().await {
        match event {
            Event::Message(message) => {
                let body = String::from_utf8_lossy(&message.body).into_owned();
                let number = body
                    .split(' ')
                    .nth(1)
                    .and_then(|number| number.parse().ok());
                let (sender, channel) = (message.sender.as_str(), message.channel.as_str());
                ledger.hears(&reader, sender, channel, number.expect("a number"));
            }
            Event::Gap { code, reason, .. } => {
                ledger.wrong(format!("{reader} was told of a gap: {code}: {reason}"));
            }
            Event::Left {
                channel, reason, ..
            } => {
                ledger.wrong(format!("{reader} had to leave {channel}: {reason}"));
            }
            Event::Error { code, message, .. } => {
                ledger.wrong(format!("{reader} saw an error: {code}: {message}"));
            }
            Event::Joined {
                channel,
                recovered: false,
                ..
            } => {
                ledger.wrong(format!("{reader} joined {channel} and missed something"));
            }
            Event::Closed { code, reason } if code != "closed" => {
                ledger.wrong(format!("{reader} was closed: {code}: {reason}"));
            }
            _ => {}
        }
    }
}
