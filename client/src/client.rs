//! The handle that an application holds.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use bytes::Bytes;
use infrachat_types::{ChannelName, ClientMessageId, Region, UserName};
use tokio::{
    sync::{Mutex, Semaphore, mpsc, oneshot},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    Ack, ClientError, Event, JoinOptions, Options, RegionAddress, Stats,
    driver::{Command, Driver, Start},
    outgoing::Draft,
    stats::Counters,
    tokens::{self, Keeper, Wallet},
};

/// A signed-in user. Clones are the same client; dropping the last one closes it at once.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: Arc<Options>,
    regions: Arc<[RegionAddress]>,
    /// The region signed in at, then those to fall back to.
    pub(crate) reachable: Arc<[RegionAddress]>,
    pub(crate) wallet: Wallet,
    pub(crate) closed: Arc<OnceLock<ClientError>>,
    counters: Arc<Counters>,
    commands: mpsc::UnboundedSender<Command>,
    events: Mutex<mpsc::Receiver<Event>>,
    /// Bounds the messages that wait, and with them the commands.
    waiting: Arc<Semaphore>,
    _keeper: AbortOnDropHandle<()>,
    _driver: AbortOnDropHandle<()>,
}

/// A message on its way; resolves when it was acknowledged or has failed. Dropping it does not call
/// the message back.
#[derive(Debug)]
pub struct Publishing {
    client_message_id: ClientMessageId,
    answer: Result<oneshot::Receiver<Result<Ack, ClientError>>, ClientError>,
    closed: Arc<OnceLock<ClientError>>,
}

impl Publishing {
    /// The message's id, which its readers see too.
    #[must_use]
    pub fn client_message_id(&self) -> ClientMessageId {
        self.client_message_id
    }
}

impl Future for Publishing {
    type Output = Result<Ack, ClientError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match &mut self.answer {
            Ok(answer) => std::task::ready!(Pin::new(answer).poll(cx)),
            Err(err) => return Poll::Ready(Err(err.clone())),
        };
        Poll::Ready(answer.unwrap_or_else(|_| Err(why_closed(&self.closed))))
    }
}

impl Client {
    /// Signs in. Streams are opened when channels are joined.
    ///
    /// # Errors
    /// When the server can't be reached or refuses; where it says to wait, that is done up to
    /// [`Options::sign_in_deadline`]. When there is no such region as those to fall back to.
    pub async fn connect(options: Options) -> Result<Self, ClientError> {
        let (tokens, regions) = tokens::sign_in(&options).await?;
        let reachable = reachable(&regions, &options.fallback_regions)?;
        let options = Arc::new(options);
        let (keeper, wallet) = Keeper::new(&options, &regions, tokens);
        let regions: Arc<[RegionAddress]> = regions.into();
        let (commands, wanted) = mpsc::unbounded_channel();
        let (happened, events) = mpsc::channel(options.event_buffer.max(1));
        let closed = Arc::new(OnceLock::new());
        let counters = Arc::new(Counters::default());
        let driver = Driver::new(Start {
            options: Arc::clone(&options),
            regions: Arc::clone(&reachable),
            wallet: wallet.clone(),
            counters: Arc::clone(&counters),
            closed: Arc::clone(&closed),
            commands: wanted,
            events: happened,
        });
        let inner = Inner {
            waiting: Arc::new(Semaphore::new(options.max_waiting)),
            options,
            regions,
            reachable,
            wallet,
            closed,
            counters,
            commands,
            events: Mutex::new(events),
            _keeper: AbortOnDropHandle::new(tokio::spawn(keeper.run())),
            _driver: AbortOnDropHandle::new(tokio::spawn(driver.run())),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Who is signed in.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.inner.options.user
    }

    /// The deployment's regions, the one signed in at first.
    #[must_use]
    pub fn regions(&self) -> &[RegionAddress] {
        &self.inner.regions
    }

    /// What the library did so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.counters.read()
    }

    /// Joins a channel, and keeps it joined through lost connections until it is left. Resolves
    /// once it is joined for the first time; at once when it was.
    ///
    /// # Errors
    /// When it is refused, or not joined within [`Options::call_deadline`].
    pub async fn join(
        &self,
        channel: &ChannelName,
        options: JoinOptions,
    ) -> Result<(), ClientError> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Join {
            channel: channel.clone(),
            options,
            reply,
        })?;
        answer
            .await
            .unwrap_or_else(|_| Err(why_closed(&self.inner.closed)))
    }

    /// Leaves a channel, after what was published there before is acknowledged or has failed.
    /// Resolves once the shard has let go of it.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn leave(&self, channel: &ChannelName) -> Result<(), ClientError> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Leave {
            channel: channel.clone(),
            reply,
        })?;
        answer.await.map_err(|_| why_closed(&self.inner.closed))
    }

    /// Says something in a joined channel. The message is on its way when this returns, and the
    /// order of calls is the order in the channel. It is sent again, with the same identity, until
    /// it is acknowledged, refused for good, or [`Options::publish_deadline`] is over; after that
    /// it may still arrive.
    pub fn publish(&self, channel: &ChannelName, body: impl Into<Bytes>) -> Publishing {
        let client_message_id = ClientMessageId::random();
        let answer = self.try_publish(channel, client_message_id, body.into());
        Publishing {
            client_message_id,
            answer,
            closed: Arc::clone(&self.inner.closed),
        }
    }

    fn try_publish(
        &self,
        channel: &ChannelName,
        id: ClientMessageId,
        body: Bytes,
    ) -> Result<oneshot::Receiver<Result<Ack, ClientError>>, ClientError> {
        let permit = Arc::clone(&self.inner.waiting)
            .try_acquire_owned()
            .map_err(|_| ClientError::TooManyWaiting {
                waiting: self.inner.options.max_waiting,
            })?;
        let (reply, answer) = oneshot::channel();
        let deadline = Instant::now() + self.inner.options.publish_deadline;
        let draft = Draft {
            id,
            body,
            deadline,
            reply,
            permit,
        };
        self.command(Command::Publish {
            channel: channel.clone(),
            draft,
        })?;
        Ok(answer)
    }

    /// Tells the others in a joined channel that the user is typing. Lost when it can't be sent.
    ///
    /// # Errors
    /// When the client is closed.
    pub fn typing(&self, channel: &ChannelName) -> Result<(), ClientError> {
        self.command(Command::Typing {
            channel: channel.clone(),
        })
    }

    /// The next event; `None` after [`Event::Closed`]. Waiting for it may be given up without
    /// losing one. An application that does not ask for events is not sent acknowledgements
    /// either, once [`Options::event_buffer`] is full: the streams are not read then.
    pub async fn next_event(&self) -> Option<Event> {
        self.inner.events.lock().await.recv().await
    }

    /// Ends the streams in good order. What still waits fails; the sign-in stays.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.command(Command::Close { reply }).is_ok() {
            // It may have been closed meanwhile.
            drop(answer.await);
        }
    }

    pub(crate) fn command(&self, command: Command) -> Result<(), ClientError> {
        self.inner
            .commands
            .send(command)
            .map_err(|_| why_closed(&self.inner.closed))
    }
}

fn why_closed(closed: &OnceLock<ClientError>) -> ClientError {
    closed.get().cloned().unwrap_or_else(ClientError::closed)
}

/// The own region, then those to fall back to, in their order.
fn reachable(
    regions: &[RegionAddress],
    fallback: &[Region],
) -> Result<Arc<[RegionAddress]>, ClientError> {
    let mut reachable: Vec<_> = regions.first().cloned().into_iter().collect();
    for wanted in fallback {
        let found = regions.iter().find(|known| known.region == *wanted);
        let found = found.ok_or_else(|| {
            let names: Vec<_> = regions.iter().map(|known| known.region.as_str()).collect();
            ClientError::NoSuchRegion {
                region: wanted.to_string(),
                regions: names.join(", "),
            }
        })?;
        if !reachable.contains(found) {
            reachable.push(found.clone());
        }
    }
    Ok(reachable.into())
}
