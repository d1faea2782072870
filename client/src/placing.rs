//! Getting every channel to the shard that serves it, and what waits to be sent onto the wire.

use std::{collections::HashSet, sync::Arc, time::Duration};

use infrachat_proto::{
    Refusal,
    chat::v1::{self as chat, client_frame},
    switchboard::v1::Route,
};
use infrachat_types::{ChannelName, ClientMessageId, ErrorCode};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    ClientError, Event,
    channel::{Channel, Place},
    connection::{FRAMES, Stream, frame},
    driver::{Connection, Done, Driver},
    routes,
    stats::count,
};

/// While Switchboard answers, a channel without a shard is about to be taken over: it is looked for again
/// within what so many failures make for, however many there were.
const FAILURES_OF_A_MOVE: u32 = 5;

impl Driver {
    /// Takes every channel that is due one step further: to Switchboard, or to its shard.
    pub(crate) fn place(&mut self, now: Instant) {
        let mut hinted = Vec::new();
        let mut ask = Vec::new();
        for channel in self.channels.values_mut() {
            match &mut channel.place {
                Place::Nowhere {
                    endpoint,
                    not_before,
                } if *not_before <= now => match endpoint.take() {
                    Some(endpoint) => hinted.push((channel.name.clone(), endpoint)),
                    None if ask.len() < routes::MOST_CHANNELS => {
                        ask.push(channel.name.clone());
                        channel.place = Place::Asking;
                    }
                    None => {}
                },
                _ => {}
            }
        }
        for (name, endpoint) in hinted {
            self.attach(&name, &endpoint);
        }
        if !ask.is_empty() {
            self.ask(ask);
        }
    }

    fn ask(&mut self, channels: Vec<ChannelName>) {
        let address = self.regions[self.region % self.regions.len()]
            .switchboard
            .clone();
        let (options, wallet) = (Arc::clone(&self.options), self.wallet.clone());
        self.jobs.spawn(async move {
            let routes = routes::resolve(&options, &address, &wallet, &channels).await;
            Done::Resolved { channels, routes }
        });
    }

    /// Switchboard has answered, or has not.
    pub(crate) fn resolved(
        &mut self,
        channels: Vec<ChannelName>,
        routes: Result<Vec<Route>, ClientError>,
    ) {
        self.dirty = true;
        match routes {
            Ok(routes) => {
                for (name, route) in channels.iter().zip(routes) {
                    self.routed(name, route);
                }
            }
            Err(err) => match err.retry_after() {
                Some(told) => {
                    let asked = |name: &ChannelName| {
                        let channel = self.channels.get(name);
                        channel.is_some_and(|channel| channel.place == Place::Asking)
                    };
                    let names: Vec<_> = channels.into_iter().filter(asked).collect();
                    self.nobody_answers(&names, told, &err.to_string());
                }
                None => {
                    for name in &channels {
                        self.refuse(name, &err);
                    }
                }
            },
        }
    }

    fn routed(&mut self, name: &ChannelName, route: Route) {
        if self
            .channels
            .get(name)
            .is_none_or(|channel| channel.place != Place::Asking)
        {
            return;
        }
        if !route.endpoint.is_empty() {
            return self.attach(name, &route.endpoint);
        }
        let code = ErrorCode::from_text(&route.code).unwrap_or(ErrorCode::NoOwner);
        if code == ErrorCode::NoOwner {
            let told = Duration::from_millis(route.retry_after_ms.into());
            self.not_placed(std::slice::from_ref(name), told, &route.reason);
        } else {
            self.refuse(
                name,
                &ClientError::Refused(Refusal::new(code, route.reason)),
            );
        }
    }

    /// Channels could not be placed, since they have no shard that can be reached at the moment. All of
    /// them are tried again together, so that they can share one question.
    pub(crate) fn not_placed(
        &mut self,
        names: &[ChannelName],
        told: Duration,
        why: &str,
    ) -> Duration {
        self.not_placed_for(names, told, FAILURES_OF_A_MOVE, why)
    }

    /// The same, since the region does not answer.
    fn nobody_answers(&mut self, names: &[ChannelName], told: Duration, why: &str) {
        self.not_placed_for(names, told, u32::MAX, why);
    }

    fn not_placed_for(
        &mut self,
        names: &[ChannelName],
        told: Duration,
        most_failures: u32,
        why: &str,
    ) -> Duration {
        let failures = |name| {
            self.channels
                .get(name)
                .map_or(0, |channel| channel.failures + 1)
        };
        let failures = names.iter().map(failures).max().unwrap_or(1);
        let counted = failures.min(most_failures);
        let wait = told + self.options.backoff.wait(counted, &mut self.rng);
        let now = Instant::now();
        for name in names {
            if let Some(channel) = self.channels.get_mut(name) {
                channel.place = Place::Nowhere {
                    endpoint: None,
                    not_before: now + wait,
                };
                channel.failures = failures;
                channel.last_trouble = why.to_owned();
            }
        }
        tracing::debug!(
            channels = names.len(),
            failures,
            ?wait,
            why,
            "channels have no shard now"
        );
        self.trouble(now);
        wait
    }

    /// Notes that the region was of no help; after a while, the next one is asked, at once and for all
    /// channels that have no shard.
    fn trouble(&mut self, now: Instant) {
        let since = *self.trouble_since.get_or_insert(now);
        if now - since < self.options.failover_after || self.regions.len() < 2 {
            return;
        }
        self.region = (self.region + 1) % self.regions.len();
        self.trouble_since = Some(now);
        tracing::info!(region = %self.regions[self.region].region, "trying another region");
        // It may not know the keys of a region that is away.
        self.wallet.renew();
        let wait = self.options.backoff.wait(1, &mut self.rng);
        for channel in self.channels.values_mut() {
            if let Place::Nowhere {
                endpoint: None,
                not_before,
            } = &mut channel.place
            {
                *not_before = (*not_before).min(now + wait);
                channel.failures = 0;
            }
        }
    }

    /// A channel can't be joined, and it is of no use to try again.
    pub(crate) fn refuse(&mut self, name: &ChannelName, err: &ClientError) {
        let Some(channel) = self.channels.get(name) else {
            return;
        };
        if channel.was_joined() {
            let (code, reason) = match err {
                ClientError::Refused(refusal) => {
                    (refusal.code.as_str().to_owned(), refusal.message.clone())
                }
                other => ("unavailable".to_owned(), other.to_string()),
            };
            self.emit(Event::Left {
                channel: name.clone(),
                code,
                reason,
            });
        }
        self.forget(name, err);
    }

    /// Joins a channel at a shard, over the connection there is or a new one.
    fn attach(&mut self, name: &ChannelName, endpoint: &str) {
        let open = self.connections.iter().find(|(_, open)| {
            open.endpoint == endpoint && open.go_away.is_none() && open.close.is_none()
        });
        let connection = match open {
            Some((id, _)) => *id,
            None => self.open(endpoint),
        };
        if let Some(channel) = self.channels.get_mut(name) {
            channel.place = Place::On {
                connection,
                joined: false,
            };
            if let Some(open) = self
                .connections
                .get(&connection)
                .filter(|open| open.session.is_some())
            {
                send_join(open, channel);
            }
        }
    }

    fn open(&mut self, endpoint: &str) -> u64 {
        self.last_connection += 1;
        let id = self.last_connection;
        let (frames, waiting) = mpsc::channel(FRAMES);
        let closing = CancellationToken::new();
        let stream = Stream {
            id,
            endpoint: endpoint.to_owned(),
            options: self.options.clone(),
            wallet: self.wallet.clone(),
            refused_generation: self.refused_generation,
            heard: self.heard_sender.clone(),
            closing: closing.clone(),
        };
        let weak = frames.downgrade();
        self.jobs.spawn(async move {
            stream.run(weak, waiting).await;
            Done::Stream
        });
        let connection = Connection {
            endpoint: endpoint.to_owned(),
            frames,
            closing,
            session: None,
            in_flight: HashSet::new(),
            go_away: None,
            close: None,
        };
        self.connections.insert(id, connection);
        id
    }

    /// A connection is open: every channel that waits for it is joined.
    pub(crate) fn join_all(&mut self, connection: u64) {
        let Some(open) = self.connections.get(&connection) else {
            return;
        };
        for channel in self
            .channels
            .values()
            .filter(|channel| channel.is_on(connection))
        {
            send_join(open, channel);
        }
    }

    /// Leaves the shards that asked for it and whose time has come.
    pub(crate) fn go_where_told(&mut self, now: Instant) {
        let due: Vec<_> = self
            .connections
            .iter()
            .filter_map(|(id, open)| {
                let (at, told) = open.go_away.as_ref()?;
                (*at <= now).then(|| (*id, told.clone()))
            })
            .collect();
        for (id, told) in due {
            let close = chat::Close {
                reason: told.reason.clone(),
                reconnect: true,
                resume_endpoint: told.resume_endpoint,
                ..Default::default()
            };
            self.lost(id, Some(close), told.reason);
            self.place(now);
        }
    }

    /// A connection is over: its channels look for another, what was on its way will be sent again.
    pub(crate) fn lost(&mut self, id: u64, close: Option<chat::Close>, reason: String) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        connection.closing.cancel();
        self.dirty = true;
        count(&self.counters.disconnects);
        let mut names = Vec::new();
        let mut leaving = Vec::new();
        for channel in self
            .channels
            .values_mut()
            .filter(|channel| channel.is_on(id))
        {
            channel.outgoing.connection_lost();
            if channel.leaving.as_ref().is_some_and(|leaving| leaving.sent) {
                leaving.push(channel.name.clone());
            } else {
                names.push(channel.name.clone());
            }
        }
        for name in leaving {
            self.left(&name);
        }
        let retry_in = match close.filter(|close| !close.resume_endpoint.is_empty()) {
            Some(close) => {
                let wait = Duration::from_millis(close.retry_after_ms.into());
                let not_before = Instant::now() + wait;
                for name in &names {
                    if let Some(channel) = self.channels.get_mut(name) {
                        let endpoint = Some(close.resume_endpoint.clone());
                        channel.place = Place::Nowhere {
                            endpoint,
                            not_before,
                        };
                    }
                }
                wait
            }
            None => {
                let told = connection.close.map_or(0, |close| close.retry_after_ms);
                self.not_placed(&names, Duration::from_millis(told.into()), &reason)
            }
        };
        self.emit(Event::Disconnected { reason, retry_in });
    }

    /// The shard has let go of one channel, while the connection goes on: what was on its way will
    /// be sent again where the channel is joined next.
    pub(crate) fn let_go(&mut self, id: u64, name: &ChannelName) {
        let (Some(connection), Some(channel)) =
            (self.connections.get_mut(&id), self.channels.get_mut(name))
        else {
            return;
        };
        channel.outgoing.connection_lost();
        connection
            .in_flight
            .retain(|message| !channel.outgoing.holds(*message));
    }

    /// Puts what waits on the wire, within what the sessions allow.
    pub(crate) fn send(&mut self, now: Instant) {
        for channel in self.channels.values_mut() {
            let Some(connection) = channel
                .joined_on()
                .and_then(|id| self.connections.get_mut(&id))
            else {
                continue;
            };
            let most = connection
                .session
                .as_ref()
                .map_or(0, |session| session.max_in_flight);
            while connection.in_flight.len() < most
                && let Some(publish) = channel.outgoing.next_to_send(&channel.name, now)
            {
                if publish.attempt > 1 {
                    count(&self.counters.resent);
                }
                let Ok(id) = ClientMessageId::from_bytes(&publish.client_message_id) else {
                    continue;
                };
                let sending = frame(client_frame::Kind::Publish(publish));
                if let Err(err) = connection.frames.try_send(sending) {
                    // The stream is over or stuck, which its task notices; then it is sent again.
                    tracing::debug!(%err, "a message could not be handed to the stream");
                    break;
                }
                connection.in_flight.insert(id);
            }
        }
    }
}

fn send_join(connection: &Connection, channel: &Channel) {
    let join = frame(client_frame::Kind::Join(channel.join_frame()));
    if let Err(err) = connection.frames.try_send(join) {
        // The stream is over or stuck, which its task notices; then the channel is placed anew.
        tracing::debug!(%err, "a join could not be handed to the stream");
    }
}
