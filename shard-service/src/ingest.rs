//! Checks what a session wants to say, and gives it its id.

use std::{sync::Arc, time::Duration};

use infrachat_proto::{Refusal, chat::v1 as chat};
use infrachat_types::{
    ClientMessageId, ErrorCode, Message, MessageId, RegionTag, SessionId, UserName,
};
use tokio::time::Instant;

use crate::{
    channel::{Channel, Known},
    memory::MESSAGE,
    partition::Partition,
    parts::{Parts, in_time},
    publish::{Content, Outgoing},
    session::Mailbox,
    traces::PublishSpan,
};

const SHORTLY: Duration = Duration::from_millis(200);

/// Who says it.
#[derive(Debug)]
pub(crate) struct Sender<'a> {
    pub(crate) user: &'a UserName,
    pub(crate) session: &'a SessionId,
    pub(crate) mailbox: &'a Mailbox,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It is on its way; the mailbox will hear.
    OnItsWay,
    /// It had been accepted before.
    Duplicate(Message),
}

/// Checks a message and hands it to its lane.
pub(crate) async fn take(
    parts: &Parts,
    (partition, channel): (&Partition, &Arc<Channel>),
    sender: Sender<'_>,
    publish: chat::Publish,
) -> Result<Taken, Refusal> {
    let began = Instant::now();
    let client_message_id = check(parts, &publish)?;
    let (after, after_id) = match &publish.after {
        None => (None, None),
        Some(after) => {
            let id = (!after.message_id.is_empty())
                .then(|| after.message_id.parse())
                .transpose();
            (
                optional_id(&after.client_message_id)?,
                id.map_err(bad_request)?,
            )
        }
    };
    if parts.memory.is_full() {
        let text = "this shard is short of memory: the message was not taken, send it again with the same id";
        return Err(Refusal::new(ErrorCode::Overloaded, text).retry_after(Duration::from_secs(1)));
    }
    if !partition.history.has_room() {
        let text = "this region's history is behind: the message was not taken, send it again with the same id";
        return Err(Refusal::new(ErrorCode::Unavailable, text).retry_after(Duration::from_secs(1)));
    }
    let mut message = Message {
        channel: channel.name.clone(),
        message_id: MessageId::MIN,
        sender: sender.user.clone(),
        client_message_id,
        body: publish.body,
        published_at: parts.clock.now(),
        region: parts.region.clone(),
        session_id: sender.session.clone(),
    };
    if let Some(message_id) =
        earlier(parts, channel, &message, publish.attempt, sender.mailbox).await?
    {
        channel.came_again(&message);
        return Ok(Taken::Duplicate(Message {
            message_id,
            ..message
        }));
    }
    message.message_id = parts.clock.next(after_id).map_err(|err| {
        Refusal::new(
            ErrorCode::ClockTooFarAhead,
            format!("{err}: check the clocks"),
        )
    })?;
    let span = PublishSpan::begin(&publish.traceparent, &message, began);
    let content = Content::Message {
        _weight: parts.memory.weigh(message.body.len() + MESSAGE),
        message,
        after,
        attempt: publish.attempt.max(1),
        span,
        mailbox: sender.mailbox.clone(),
        began,
        deadline: began + parts.tuning.publish_deadline,
    };
    match partition.publish(Outgoing {
        channel: Arc::clone(channel),
        content,
    }) {
        Ok(()) => Ok(Taken::OnItsWay),
        Err(_) => {
            let text =
                "the bus is behind: the message was not taken, send it again with the same id";
            Err(Refusal::new(ErrorCode::Unavailable, text).retry_after(SHORTLY))
        }
    }
}

fn check(parts: &Parts, publish: &chat::Publish) -> Result<ClientMessageId, Refusal> {
    let id = ClientMessageId::from_bytes(&publish.client_message_id)
        .map_err(|err| Refusal::new(ErrorCode::BadClientMessageId, err.to_string()))?;
    let (length, most) = (publish.body.len(), parts.tuning.max_body_bytes);
    if length > most {
        let text =
            format!("the message has {length} bytes, and at most {most} are allowed: split it");
        return Err(Refusal::new(ErrorCode::BodyTooLarge, text));
    }
    if publish.body.is_empty() {
        return Err(Refusal::new(
            ErrorCode::BodyEmpty,
            "there is nothing in the message",
        ));
    }
    if let Err(err) = std::str::from_utf8(&publish.body) {
        return Err(Refusal::new(
            ErrorCode::BodyNotUtf8,
            format!("the message is not UTF-8: {err}"),
        ));
    }
    Ok(id)
}

/// The id under which the bus of this region accepted the same message earlier, if it did. One that
/// another region's bus has brought is put on this one too: what its sender says next here must not
/// overtake it where the other bus has not delivered it yet.
async fn earlier(
    parts: &Parts,
    channel: &Arc<Channel>,
    message: &Message,
    attempt: u32,
    mailbox: &Mailbox,
) -> Result<Option<MessageId>, Refusal> {
    let fresh = Message {
        message_id: MessageId::MAX,
        ..message.clone()
    };
    let here = RegionTag::from(&parts.region);
    match channel.known(&fresh, attempt > 1) {
        Known::No => Ok(None),
        Known::Yes {
            same_body: false, ..
        } => Err(reused()),
        Known::Yes { source, .. } if source != here => Ok(None),
        Known::Yes { message_id, .. } => {
            channel.tell_when_stable(message, mailbox);
            Ok(Some(message_id))
        }
        Known::AskHistory => match in_time(parts.store.find_message(&message.identity())).await {
            Ok(None) => Ok(None),
            Ok(Some(entry)) if entry.message.body != message.body => Err(reused()),
            Ok(Some(entry)) if entry.message.region != parts.region => {
                channel.remember(&entry);
                Ok(None)
            }
            Ok(Some(entry)) => {
                mailbox.stable(&channel.name, entry.message.message_id);
                Ok(Some(entry.message.message_id))
            }
            Err(err) => {
                let text =
                    format!("history can't tell whether this was said before ({err}): try again");
                Err(Refusal::new(ErrorCode::Unavailable, text).retry_after(Duration::from_secs(1)))
            }
        },
    }
}

fn optional_id(bytes: &[u8]) -> Result<Option<ClientMessageId>, Refusal> {
    if bytes.is_empty() {
        return Ok(None);
    }
    ClientMessageId::from_bytes(bytes)
        .map(Some)
        .map_err(bad_request)
}

fn bad_request(err: impl std::fmt::Display) -> Refusal {
    Refusal::new(
        ErrorCode::BadRequest,
        format!("`after` can't be used: {err}"),
    )
}

/// The identity of a message was used for another body.
pub(crate) fn reused() -> Refusal {
    let text = "this client_message_id was used for another message: use 16 fresh random bytes";
    Refusal::new(ErrorCode::ClientMessageIdReused, text)
}
