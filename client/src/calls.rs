//! Calls that are answered once: creating channels, reading history, listing.

use std::sync::Arc;

use infrachat_proto::{
    Refusal, channel_from_wire,
    chat::v1::{self as chat, chat_service_client::ChatServiceClient},
    message_from_wire,
    switchboard::v1 as switchboard,
};
use infrachat_types::{Channel, ChannelName, ErrorCode, Message, MessageId, UserName, Visibility};
use tokio::{sync::oneshot, time::Instant};
use tonic::transport::Channel as Transport;

use crate::{Client, ClientError, driver::Command, routes, tokens, transport};

/// A channel to be created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewChannel {
    /// Who may read and write it.
    pub visibility: Visibility,
    /// Of a private channel: who belongs to it besides its creator.
    pub members: Vec<UserName>,
    /// What it is about.
    pub topic: String,
}

/// Which part of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HistoryBound {
    /// The newest messages.
    #[default]
    Newest,
    /// The newest messages before this one.
    Before(MessageId),
    /// The oldest messages after this one.
    After(MessageId),
    /// The newest messages from before this moment, milliseconds since 1970.
    BeforeTime(i64),
    /// The oldest messages from this moment on, milliseconds since 1970.
    Since(i64),
}

impl Client {
    /// Creates a channel. A name that is taken is refused with `channel_exists`, which an earlier
    /// attempt whose answer was lost may be the cause of.
    ///
    /// # Errors
    /// When it is refused, or not done before the deadline.
    pub async fn create_channel(
        &self,
        name: &ChannelName,
        new: NewChannel,
    ) -> Result<Channel, ClientError> {
        let request = &chat::CreateChannelRequest {
            name: name.to_string(),
            visibility: match new.visibility {
                Visibility::Public => chat::Visibility::Public,
                Visibility::Private => chat::Visibility::Private,
            }
            .into(),
            members: new.members.iter().map(ToString::to_string).collect(),
            topic: new.topic,
            slow_reader: chat::SlowReaderPolicy::Unspecified.into(),
        };
        self.persist("creating the channel", || async {
            let (address, transport) = &self.shard_of(name).await?;
            let answer = routes::with_token(&self.inner.wallet, |token| async move {
                let mut client = ChatServiceClient::new(transport.clone());
                let request = transport::signed(request.clone(), &token);
                transport::answer(address, client.create_channel(request)).await
            })
            .await?;
            let channel = answer.channel.and_then(|wire| channel_from_wire(wire).ok());
            channel.ok_or_else(|| unexpected(address, "no valid channel"))
        })
        .await
    }

    /// Reads a channel's history: oldest first, and whether there is more in that direction.
    ///
    /// # Errors
    /// When it is refused, or not answered before the deadline.
    pub async fn history(
        &self,
        name: &ChannelName,
        bound: HistoryBound,
        limit: u32,
    ) -> Result<(Vec<Message>, bool), ClientError> {
        let request = &chat::GetHistoryRequest {
            channel: name.to_string(),
            bound: match bound {
                HistoryBound::Newest => None,
                HistoryBound::Before(id) => {
                    Some(chat::get_history_request::Bound::Before(id.to_string()))
                }
                HistoryBound::After(id) => {
                    Some(chat::get_history_request::Bound::After(id.to_string()))
                }
                HistoryBound::BeforeTime(at) => {
                    Some(chat::get_history_request::Bound::BeforeMs(at))
                }
                HistoryBound::Since(at) => Some(chat::get_history_request::Bound::SinceMs(at)),
            },
            limit,
        };
        self.persist("reading history", || async {
            let (address, transport) = &self.shard_of(name).await?;
            let answer = routes::with_token(&self.inner.wallet, |token| async move {
                let mut client = ChatServiceClient::new(transport.clone());
                let request = transport::signed(request.clone(), &token);
                transport::answer(address, client.get_history(request)).await
            })
            .await?;
            let messages = answer.messages.into_iter().map(message_from_wire);
            let messages: Result<Vec<_>, _> = messages.collect();
            Ok((
                messages.map_err(|err| unexpected(address, &err.to_string()))?,
                answer.more,
            ))
        })
        .await
    }

    /// Who belongs to a private channel, or is present in a public one: every page of it.
    ///
    /// # Errors
    /// When it is refused, or not answered before the deadline.
    pub async fn members(&self, name: &ChannelName) -> Result<Vec<chat::Member>, ClientError> {
        let mut members = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = &chat::ListMembersRequest {
                channel: name.to_string(),
                page_size: 1_000,
                page_token,
            };
            let answer = self
                .persist("listing members", || async {
                    let (address, transport) = &self.shard_of(name).await?;
                    routes::with_token(&self.inner.wallet, |token| async move {
                        let mut client = ChatServiceClient::new(transport.clone());
                        let request = transport::signed(request.clone(), &token);
                        transport::answer(address, client.list_members(request)).await
                    })
                    .await
                })
                .await?;
            members.extend(answer.members);
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return Ok(members);
            }
        }
    }

    /// The channels that the user may join and whose names start so, by name.
    ///
    /// # Errors
    /// When it is refused, or not answered before the deadline.
    pub async fn list_channels(
        &self,
        prefix: &str,
    ) -> Result<Vec<switchboard::ChannelSummary>, ClientError> {
        let mut channels = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = switchboard::ListChannelsRequest {
                prefix: prefix.to_owned(),
                page_size: 1_000,
                page_token,
            };
            let address = &self.inner.reachable[0].switchboard;
            let answer = self
                .persist("listing channels", || async {
                    routes::list(&self.inner.options, address, &self.inner.wallet, &request).await
                })
                .await?;
            channels.extend(answer.channels);
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return Ok(channels);
            }
        }
    }

    /// What the Switchboard of the region signed in at says about a channel, owned or not.
    ///
    /// # Errors
    /// When it is refused, or not answered before the deadline.
    pub async fn route(&self, name: &ChannelName) -> Result<switchboard::Route, ClientError> {
        let address = &self.inner.reachable[0].switchboard;
        self.persist("asking for the route", || async {
            let channels = std::slice::from_ref(name);
            let routes =
                routes::resolve(&self.inner.options, address, &self.inner.wallet, channels).await?;
            let route = routes.into_iter().next();
            route.ok_or_else(|| unexpected(address, "no route"))
        })
        .await
    }

    /// Ends the sign-in at Gatekeeper, then closes the client.
    ///
    /// # Errors
    /// When Gatekeeper could not be told; the client is closed all the same.
    pub async fn sign_out(&self) -> Result<(), ClientError> {
        let tokens = self.inner.wallet.current();
        self.close().await;
        tokens::revoke(&self.inner.options, &tokens?.refresh).await
    }

    /// The shard of a channel: the one it is joined on, else the one Switchboard names.
    async fn shard_of(&self, name: &ChannelName) -> Result<(String, Transport), ClientError> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Where {
            channel: name.clone(),
            reply,
        })?;
        if let Ok(Some(joined)) = answer.await {
            return Ok(joined);
        }
        let mut failed = ClientError::closed();
        for region in self.inner.reachable.iter() {
            let ask = routes::resolve(
                &self.inner.options,
                &region.switchboard,
                &self.inner.wallet,
                std::slice::from_ref(name),
            );
            let route = match ask.await {
                Ok(routes) => routes.into_iter().next(),
                Err(err @ ClientError::Unreachable { .. }) => {
                    failed = err;
                    continue;
                }
                Err(err) => return Err(err),
            };
            let route = route.ok_or_else(|| unexpected(&region.switchboard, "no route"))?;
            if route.endpoint.is_empty() {
                let code = ErrorCode::from_text(&route.code).unwrap_or(ErrorCode::NoOwner);
                return Err(ClientError::Refused(Refusal::new(code, route.reason)));
            }
            let transport = transport::connect(&self.inner.options, &route.endpoint).await?;
            return Ok((route.endpoint, transport));
        }
        Err(failed)
    }

    /// Tries until the deadline as long as trying again may help.
    async fn persist<T, F>(
        &self,
        what: &'static str,
        call: impl Fn() -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let options = Arc::clone(&self.inner.options);
        let give_up = Instant::now() + options.call_deadline;
        let mut rng = tokens::rng(&options);
        let mut failures = 0;
        loop {
            if let Some(why) = self.inner.closed.get() {
                return Err(why.clone());
            }
            let err = match tokio::time::timeout_at(give_up, call()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(err)) => err,
                Err(_) => {
                    let after = options.call_deadline;
                    return Err(ClientError::TimedOut {
                        what,
                        after,
                        last: "no answer".to_owned(),
                    });
                }
            };
            let Some(told) = err.retry_after() else {
                return Err(err);
            };
            failures += 1;
            let wait = told + options.backoff.wait(failures, &mut rng);
            if Instant::now() + wait > give_up {
                return Err(err);
            }
            tokio::time::sleep(wait).await;
        }
    }
}

fn unexpected(address: &str, what: &str) -> ClientError {
    ClientError::Unexpected {
        address: address.to_owned(),
        what: what.to_owned(),
    }
}
