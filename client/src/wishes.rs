//! What the application wants, and what follows from it.

use infrachat_proto::chat::v1::{self as chat, client_frame};
use infrachat_types::ChannelName;
use tokio::{sync::oneshot, time::Instant};

use crate::{
    ClientError, Event, JoinOptions,
    channel::{Channel, JoinReply, Leaving, Place},
    connection::frame,
    driver::{Command, Driver},
    outgoing::Draft,
};

impl Driver {
    pub(crate) fn obey(&mut self, command: Command) {
        self.dirty = true;
        match command {
            Command::Join {
                channel,
                options,
                reply,
            } => self.join(channel, options, reply),
            Command::Leave { channel, reply } => self.leave(&channel, reply),
            Command::Publish { channel, draft } => self.publish(&channel, draft),
            Command::Typing { channel } => {
                let typing = chat::SetTyping {
                    channel: channel.to_string(),
                };
                let joined = self.channels.get(&channel).and_then(Channel::joined_on);
                let open = joined.and_then(|id| self.connections.get(&id));
                // Of no worth later, so it is dropped when the shard has much to take.
                if let Some(connection) = open.filter(|open| open.frames.capacity() > 1_024) {
                    drop(
                        connection
                            .frames
                            .try_send(frame(client_frame::Kind::SetTyping(typing))),
                    );
                }
            }
            Command::Where { channel, reply } => {
                let joined = self.channels.get(&channel).and_then(Channel::joined_on);
                let open = joined.and_then(|id| self.connections.get(&id));
                let answer = open.and_then(|connection| {
                    let session = connection.session.as_ref()?;
                    Some((connection.endpoint.clone(), session.transport.clone()))
                });
                drop(reply.send(answer));
            }
            Command::Close { .. } => {}
        }
    }

    fn join(&mut self, name: ChannelName, options: JoinOptions, reply: JoinReply) {
        let now = Instant::now();
        let give_up_at = now + self.options.call_deadline;
        let channel = self
            .channels
            .entry(name.clone())
            .or_insert_with(|| Channel::new(name, options, now, give_up_at));
        if let Some(leaving) = &mut channel.leaving {
            leaving.joins.push((options, reply));
        } else if channel.was_joined() {
            drop(reply.send(Ok(())));
        } else {
            channel.joins.push(reply);
        }
    }

    fn leave(&mut self, name: &ChannelName, reply: oneshot::Sender<()>) {
        match self.channels.get_mut(name) {
            Some(channel) => {
                channel
                    .leaving
                    .get_or_insert_with(Leaving::default)
                    .replies
                    .push(reply);
            }
            None => drop(reply.send(())),
        }
    }

    fn publish(&mut self, name: &ChannelName, draft: Draft) {
        match self.channels.get_mut(name) {
            Some(channel) if channel.leaving.is_none() => {
                // Its copy that comes back after a reconnect is then known.
                channel.seen.insert(&self.user, draft.id);
                channel.outgoing.push(draft);
            }
            _ => drop(draft.reply.send(Err(ClientError::NotJoined(name.clone())))),
        }
    }

    /// A channel is no longer joined; who waits for that hears it.
    pub(crate) fn forget(&mut self, name: &ChannelName, why: &ClientError) {
        let Some(mut channel) = self.channels.remove(name) else {
            return;
        };
        channel.outgoing.fail_all(why);
        for reply in channel.joins.drain(..) {
            drop(reply.send(Err(why.clone())));
        }
        if let Some(leaving) = channel.leaving {
            for reply in leaving.replies {
                reply.send(()).ok();
            }
            for (options, reply) in leaving.joins {
                self.join(name.clone(), options, reply);
            }
        }
        self.close_unused();
        self.dirty = true;
    }

    /// Ends the streams on which there is no channel.
    pub(crate) fn close_unused(&mut self) {
        let channels = &self.channels;
        self.connections.retain(|id, connection| {
            let used = channels.values().any(|channel| channel.is_on(*id));
            if !used {
                connection.closing.cancel();
            }
            used
        });
    }

    /// Leaves the channels that are to be left, once what was said there is settled.
    pub(crate) fn leave_settled(&mut self) {
        let mut gone = Vec::new();
        for channel in self.channels.values_mut() {
            let Some(leaving) = channel.leaving.as_mut().filter(|leaving| !leaving.sent) else {
                continue;
            };
            match channel.place {
                Place::On {
                    connection,
                    joined: true,
                } if channel.outgoing.is_settled() => {
                    let leave = chat::Leave {
                        channel: channel.name.to_string(),
                    };
                    if let Some(open) = self.connections.get(&connection) {
                        leaving.sent = open
                            .frames
                            .try_send(frame(client_frame::Kind::Leave(leave)))
                            .is_ok();
                    }
                }
                // Until the join is answered, nobody knows what there is to leave.
                Place::On { .. } => {}
                _ if channel.outgoing.is_settled() => gone.push(channel.name.clone()),
                _ => {}
            }
        }
        for name in gone {
            self.left(&name);
        }
    }

    /// The application's wish to leave is fulfilled.
    pub(crate) fn left(&mut self, name: &ChannelName) {
        self.emit(Event::Left {
            channel: name.clone(),
            code: String::new(),
            reason: String::new(),
        });
        self.forget(name, &ClientError::NotJoined(name.clone()));
    }
}
