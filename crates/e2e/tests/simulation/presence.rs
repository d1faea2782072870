//! A region's presence, which may answer late, with errors, or not at all.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use infrachat_presence::{Change, MemoryPresence, Presence, PresenceError, Present, Seat};
use infrachat_types::{ChannelName, UserName};

/// How it answers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Mood {
    #[default]
    Well,
    Late(Duration),
    Away,
    /// Whoever asks now is never answered.
    Silent,
}

/// Presence with a mood, the same for all shards of the region.
#[derive(Debug, Clone, Default)]
pub(crate) struct MoodyPresence {
    pub(crate) presence: Arc<MemoryPresence>,
    mood: Arc<Mutex<Mood>>,
}

impl MoodyPresence {
    pub(crate) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }

    async fn asked(&self) -> Result<(), PresenceError> {
        let mood = *self.mood.lock().unwrap_or_else(PoisonError::into_inner);
        match mood {
            Mood::Well => Ok(()),
            Mood::Late(time) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
            Mood::Away => Err(PresenceError("away".to_owned())),
            Mood::Silent => std::future::pending().await,
        }
    }
}

type Answer<T> = Result<T, PresenceError>;

#[async_trait]
impl Presence for MoodyPresence {
    async fn take(&self, channel: &ChannelName, seat: &Seat, ttl: Duration) -> Answer<Change> {
        self.asked().await?;
        self.presence.take(channel, seat, ttl).await
    }

    async fn give_up(&self, channel: &ChannelName, seat: &Seat) -> Answer<Change> {
        self.asked().await?;
        self.presence.give_up(channel, seat).await
    }

    async fn refresh(
        &self,
        seats: &[(ChannelName, Seat)],
        ttl: Duration,
    ) -> Answer<Vec<(ChannelName, UserName)>> {
        self.asked().await?;
        self.presence.refresh(seats, ttl).await
    }

    async fn list(
        &self,
        channel: &ChannelName,
        after: Option<&UserName>,
        limit: usize,
    ) -> Answer<Vec<Present>> {
        self.asked().await?;
        self.presence.list(channel, after, limit).await
    }

    async fn count(&self, channel: &ChannelName) -> Answer<usize> {
        self.asked().await?;
        self.presence.count(channel).await
    }

    async fn sweep(&self, limit: usize) -> Answer<Vec<(ChannelName, Seat, Change)>> {
        self.asked().await?;
        self.presence.sweep(limit).await
    }
}
