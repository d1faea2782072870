//! A region's store, as a shard reaches it: through its life.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use infrachat_metadata::{
    ChannelRecord, Channels, Direction, History, HistoryEntry, HistoryPage, Lease, LeaseView,
    MemoryMetadata, MetadataError, Ownership, RevocationRecords, Routing, RoutingWatch,
    TokenFamily, UserRecord, Users,
};
use infrachat_types::{
    Channel, ChannelName, Epoch, Identity, Offset, OriginId, Revocation, ShardId, TokenFamilyId,
    UnixMillis, UserName,
};

use crate::life::Life;

/// A region's store, as a shard reaches it.
#[derive(Debug)]
pub(crate) struct FaultyStore {
    pub(crate) life: Life,
    pub(crate) store: Arc<MemoryMetadata>,
}

type Answer<T> = Result<T, MetadataError>;

#[async_trait]
impl Routing for FaultyStore {
    async fn begin_lease(&self, lease: Lease) -> Answer<()> {
        self.life.through(self.store.begin_lease(lease)).await
    }

    async fn renew_lease(&self, lease: Lease) -> Answer<()> {
        let mut late = self.life.late.subscribe();
        drop(late.wait_for(|late| !late).await);
        self.life.through(self.store.renew_lease(lease)).await
    }

    async fn suspect(
        &self,
        shard: &ShardId,
        incarnation: &OriginId,
        ttl: Duration,
    ) -> Answer<bool> {
        let suspecting = self.store.suspect(shard, incarnation, ttl);
        self.life.through(suspecting).await
    }

    async fn end_lease(&self, shard: &ShardId, incarnation: &OriginId) -> Answer<()> {
        let ending = self.store.end_lease(shard, incarnation);
        self.life.through(ending).await
    }

    async fn leases(&self) -> Answer<Vec<LeaseView>> {
        self.life.through(self.store.leases()).await
    }

    fn watch(&self) -> RoutingWatch {
        self.store.watch()
    }

    async fn ownerships(&self) -> Answer<Vec<Ownership>> {
        self.life.through(self.store.ownerships()).await
    }

    async fn take_partition(
        &self,
        partition: u32,
        shard: &ShardId,
        incarnation: &OriginId,
        ttl: Duration,
    ) -> Answer<Epoch> {
        let taking = self
            .store
            .take_partition(partition, shard, incarnation, ttl);
        self.life.through(taking).await
    }

    async fn release_partition(&self, partition: u32, epoch: Epoch) -> Answer<()> {
        let releasing = self.store.release_partition(partition, epoch);
        self.life.through(releasing).await
    }
}

#[async_trait]
impl History for FaultyStore {
    async fn append_history(
        &self,
        partition: u32,
        epoch: Epoch,
        entries: &[HistoryEntry],
    ) -> Answer<()> {
        let appending = self.store.append_history(partition, epoch, entries);
        self.life.through(appending).await
    }

    async fn history(
        &self,
        channel: &ChannelName,
        direction: Direction,
        limit: usize,
    ) -> Answer<HistoryPage> {
        let reading = self.store.history(channel, direction, limit);
        self.life.through(reading).await
    }

    async fn history_appended_after(
        &self,
        channel: &ChannelName,
        epoch: Epoch,
        offset: Offset,
        limit: usize,
    ) -> Answer<HistoryPage> {
        let reading = self
            .store
            .history_appended_after(channel, epoch, offset, limit);
        self.life.through(reading).await
    }

    async fn history_tail(&self, channel: &ChannelName, limit: usize) -> Answer<Vec<HistoryEntry>> {
        let reading = self.store.history_tail(channel, limit);
        self.life.through(reading).await
    }

    async fn find_message(&self, identity: &Identity) -> Answer<Option<HistoryEntry>> {
        self.life.through(self.store.find_message(identity)).await
    }
}

#[async_trait]
impl Channels for FaultyStore {
    async fn create_channel(&self, record: ChannelRecord) -> Answer<()> {
        self.life.through(self.store.create_channel(record)).await
    }

    async fn channel(&self, name: &ChannelName) -> Answer<Option<ChannelRecord>> {
        self.life.through(self.store.channel(name)).await
    }

    async fn copy_channel(&self, record: ChannelRecord) -> Answer<bool> {
        self.life.through(self.store.copy_channel(record)).await
    }

    async fn list_channels(
        &self,
        user: &UserName,
        prefix: &str,
        after: Option<&ChannelName>,
        limit: usize,
    ) -> Answer<Vec<Channel>> {
        let listing = self.store.list_channels(user, prefix, after, limit);
        self.life.through(listing).await
    }
}

#[async_trait]
impl RevocationRecords for FaultyStore {
    async fn add_revocation(&self, revocation: Revocation) -> Answer<()> {
        self.life
            .through(self.store.add_revocation(revocation))
            .await
    }

    async fn revocations(&self, now: UnixMillis) -> Answer<Vec<Revocation>> {
        self.life.through(self.store.revocations(now)).await
    }
}

#[async_trait]
impl Users for FaultyStore {
    async fn create_user(&self, user: UserRecord) -> Answer<()> {
        self.life.through(self.store.create_user(user)).await
    }

    async fn user(&self, name: &UserName) -> Answer<Option<UserRecord>> {
        self.life.through(self.store.user(name)).await
    }

    async fn copy_user(&self, user: UserRecord) -> Answer<bool> {
        self.life.through(self.store.copy_user(user)).await
    }

    async fn create_family(&self, family: TokenFamily) -> Answer<()> {
        self.life.through(self.store.create_family(family)).await
    }

    async fn family(&self, id: &TokenFamilyId) -> Answer<Option<TokenFamily>> {
        self.life.through(self.store.family(id)).await
    }

    async fn update_family(&self, family: TokenFamily) -> Answer<()> {
        self.life.through(self.store.update_family(family)).await
    }

    async fn families_of(&self, user: &UserName, now: UnixMillis) -> Answer<Vec<TokenFamily>> {
        self.life.through(self.store.families_of(user, now)).await
    }
}
