//! The sessions of a replay: each plays one person of the log.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use infrachat_client::{ChannelName, Client, Event, JoinOptions};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

use super::{ledger::Ledger, plan::Act};

/// How long somebody who leaves waits for what they are owed.
const LAST_MESSAGES: Duration = Duration::from_secs(30);
const GOODBYE: Duration = Duration::from_secs(5);

/// What a player is told to do; what is said holds its place among those in flight.
pub(crate) type Cue = (Act, Option<OwnedSemaphorePermit>);

/// One person's session in one channel.
#[derive(Debug)]
pub(crate) struct Player {
    pub(crate) client: Client,
    pub(crate) person: usize,
    pub(crate) channel: ChannelName,
    pub(crate) ledger: Arc<Ledger>,
}

impl Player {
    /// Enters everything the session hears into the ledger, until it is closed.
    pub(crate) fn listen(&self) -> AbortOnDropHandle<()> {
        let (client, person, ledger) = (self.client.clone(), self.person, Arc::clone(&self.ledger));
        AbortOnDropHandle::new(tokio::spawn(async move {
            while let Some(event) = client.next_event().await {
                match event {
                    Event::Message(message) => ledger.delivered(person, message.client_message_id),
                    Event::Joined { .. } => ledger.joined(person),
                    Event::Left { .. } => ledger.left(person),
                    Event::Connected { region, .. } => ledger.connected(person, &region),
                    Event::Gap { missed, reason, .. } => {
                        tracing::warn!(person, missed, reason, "gap");
                    }
                    Event::Disconnected { reason, .. } => {
                        tracing::info!(person, reason, "disconnected");
                    }
                    _ => {}
                }
            }
        }))
    }

    pub(crate) async fn join(&self) -> Result<()> {
        let joined = self
            .client
            .join(&self.channel, JoinOptions::default())
            .await;
        joined.with_context(|| format!("{} joining {}", self.client.user(), self.channel))?;
        self.ledger.is_here(self.person).await;
        Ok(())
    }

    /// Plays one cue after another until there are no more, then waits for all acknowledgements.
    pub(crate) async fn play(
        self: Arc<Self>,
        mut cues: mpsc::UnboundedReceiver<Cue>,
    ) -> Result<()> {
        let mut sending = JoinSet::new();
        while let Some((act, permit)) = cues.recv().await {
            match act {
                Act::Join => self.join().await?,
                Act::Leave => self.leave().await?,
                Act::Say(text) => self.say(text, permit, &mut sending),
            }
            while sending.try_join_next().is_some() {}
        }
        while sending.join_next().await.is_some() {}
        Ok(())
    }

    fn say(&self, text: String, permit: Option<OwnedSemaphorePermit>, sending: &mut JoinSet<()>) {
        let ledger = Arc::clone(&self.ledger);
        let (number, publishing) = ledger.publish(self.person, || {
            let publishing = self.client.publish(&self.channel, text);
            (publishing.client_message_id(), publishing)
        });
        let user = self.client.user().clone();
        sending.spawn(async move {
            match publishing.await {
                Ok(_) => ledger.acknowledged(number),
                Err(err) => {
                    tracing::warn!(%user, number, %err, "never acknowledged");
                    ledger.failed(number);
                }
            }
            drop(permit);
        });
    }

    /// Leaves when everything owed has come. What does not come in time is missing.
    async fn leave(&self) -> Result<()> {
        self.ledger.leaving(self.person);
        let settled = self.ledger.settled(self.person);
        if tokio::time::timeout(LAST_MESSAGES, settled).await.is_err() {
            tracing::warn!(user = %self.client.user(), "leaves without all that is owed");
        }
        let left = self.client.leave(&self.channel).await;
        left.with_context(|| format!("{} leaving {}", self.client.user(), self.channel))
    }

    pub(crate) async fn close(&self) {
        if tokio::time::timeout(GOODBYE, self.client.close())
            .await
            .is_err()
        {
            tracing::debug!(user = %self.client.user(), "closing took too long");
        }
    }
}
