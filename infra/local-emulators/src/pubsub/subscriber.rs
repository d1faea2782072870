//! The Subscriber service.

use std::{sync::Arc, time::Duration};

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    broker::Broker, keeper::Keeper, names, paging, queue::Room, settings, streaming,
    subscription::Subscription as Shared,
};
use crate::proto::{
    AcknowledgeRequest, CreateSnapshotRequest, DeleteSnapshotRequest, DeleteSubscriptionRequest,
    GetSnapshotRequest, GetSubscriptionRequest, ListSnapshotsRequest, ListSnapshotsResponse,
    ListSubscriptionsRequest, ListSubscriptionsResponse, ModifyAckDeadlineRequest,
    ModifyPushConfigRequest, PullRequest, PullResponse, SeekRequest, SeekResponse, Snapshot,
    StreamingPullRequest, StreamingPullResponse, Subscription, UpdateSnapshotRequest,
    UpdateSubscriptionRequest, subscriber_server::Subscriber,
};

/// How long a pull waits for a first message.
const PULL_WAIT: Duration = Duration::from_secs(30);
const LARGEST_PULL: usize = 1_000;
/// After how many bytes a response is full.
const FULL: usize = 2 * 1024 * 1024;

#[derive(Debug, Clone)]
pub(crate) struct SubscriberService {
    pub(crate) broker: Arc<Broker>,
    pub(crate) keeper: Keeper,
}

#[tonic::async_trait]
impl Subscriber for SubscriberService {
    type StreamingPullStream = ReceiverStream<Result<StreamingPullResponse, Status>>;

    async fn create_subscription(
        &self,
        request: Request<Subscription>,
    ) -> Result<Response<Subscription>, Status> {
        let created = self.broker.create_subscription(request.into_inner())?;
        self.keeper.keep(Arc::clone(&created));
        Ok(Response::new(self.broker.shown(&created.settings())))
    }

    async fn get_subscription(
        &self,
        request: Request<GetSubscriptionRequest>,
    ) -> Result<Response<Subscription>, Status> {
        let found = self
            .broker
            .subscription(&request.into_inner().subscription)?;
        Ok(Response::new(self.broker.shown(&found.settings())))
    }

    async fn update_subscription(
        &self,
        request: Request<UpdateSubscriptionRequest>,
    ) -> Result<Response<Subscription>, Status> {
        let UpdateSubscriptionRequest {
            subscription,
            update_mask,
        } = request.into_inner();
        let updated = self
            .broker
            .update_subscription(&subscription.unwrap_or_default(), update_mask.as_ref())?;
        Ok(Response::new(updated))
    }

    async fn list_subscriptions(
        &self,
        request: Request<ListSubscriptionsRequest>,
    ) -> Result<Response<ListSubscriptionsResponse>, Status> {
        let request = request.into_inner();
        names::check_project(&request.project)?;
        let after = paging::after(&request.page_token)?;
        let mut subscriptions = self.broker.subscriptions(&request.project, &after);
        let next_page_token =
            paging::cut(&mut subscriptions, request.page_size, |each| &each.name)?;
        Ok(Response::new(ListSubscriptionsResponse {
            subscriptions,
            next_page_token,
        }))
    }

    async fn delete_subscription(
        &self,
        request: Request<DeleteSubscriptionRequest>,
    ) -> Result<Response<()>, Status> {
        self.broker
            .delete_subscription(&request.into_inner().subscription)?;
        Ok(Response::new(()))
    }

    async fn modify_ack_deadline(
        &self,
        request: Request<ModifyAckDeadlineRequest>,
    ) -> Result<Response<()>, Status> {
        let request = request.into_inner();
        let subscription = self.broker.subscription(&request.subscription)?;
        let seconds = request.ack_deadline_seconds;
        let changes: Vec<_> = request
            .ack_ids
            .into_iter()
            .map(|id| (id, seconds))
            .collect();
        subscription.modify_deadline(&changes)?;
        Ok(Response::new(()))
    }

    async fn acknowledge(
        &self,
        request: Request<AcknowledgeRequest>,
    ) -> Result<Response<()>, Status> {
        let request = request.into_inner();
        let subscription = self.broker.subscription(&request.subscription)?;
        subscription.ack(&request.ack_ids)?;
        Ok(Response::new(()))
    }

    async fn pull(&self, request: Request<PullRequest>) -> Result<Response<PullResponse>, Status> {
        let request = request.into_inner();
        let subscription = self.broker.subscription(&request.subscription)?;
        let messages = usize::try_from(request.max_messages).unwrap_or_default();
        if messages == 0 {
            return Err(Status::invalid_argument("max_messages must be positive."));
        }
        let room = Room {
            messages: messages.min(LARGEST_PULL),
            bytes: FULL,
        };
        #[allow(deprecated)]
        let at_once = request.return_immediately;
        self.take(&subscription, room, at_once)
            .await
            .map(Response::new)
    }

    async fn streaming_pull(
        &self,
        request: Request<Streaming<StreamingPullRequest>>,
    ) -> Result<Response<Self::StreamingPullStream>, Status> {
        let responses = streaming::open(Arc::clone(&self.broker), request.into_inner());
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn modify_push_config(
        &self,
        request: Request<ModifyPushConfigRequest>,
    ) -> Result<Response<()>, Status> {
        let request = request.into_inner();
        let subscription = self.broker.subscription(&request.subscription)?;
        let push = request.push_config.unwrap_or_default();
        settings::push_config(&push)?;
        subscription.set_push(push);
        Ok(Response::new(()))
    }

    async fn get_snapshot(
        &self,
        request: Request<GetSnapshotRequest>,
    ) -> Result<Response<Snapshot>, Status> {
        let snapshot = self.broker.snapshot(&request.into_inner().snapshot)?;
        Ok(Response::new(snapshot))
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        let request = request.into_inner();
        names::check_project(&request.project)?;
        let after = paging::after(&request.page_token)?;
        let mut snapshots = self.broker.snapshots(&request.project, &after);
        let next_page_token = paging::cut(&mut snapshots, request.page_size, |each| &each.name)?;
        Ok(Response::new(ListSnapshotsResponse {
            snapshots,
            next_page_token,
        }))
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Result<Response<Snapshot>, Status> {
        let request = request.into_inner();
        let snapshot =
            self.broker
                .create_snapshot(&request.name, &request.subscription, request.labels)?;
        Ok(Response::new(snapshot))
    }

    async fn update_snapshot(
        &self,
        request: Request<UpdateSnapshotRequest>,
    ) -> Result<Response<Snapshot>, Status> {
        let UpdateSnapshotRequest {
            snapshot,
            update_mask,
        } = request.into_inner();
        let updated = self
            .broker
            .update_snapshot(&snapshot.unwrap_or_default(), update_mask.as_ref())?;
        Ok(Response::new(updated))
    }

    async fn delete_snapshot(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        self.broker
            .delete_snapshot(&request.into_inner().snapshot)?;
        Ok(Response::new(()))
    }

    async fn seek(&self, request: Request<SeekRequest>) -> Result<Response<SeekResponse>, Status> {
        let request = request.into_inner();
        self.broker.seek(&request.subscription, request.target)?;
        Ok(Response::new(SeekResponse {}))
    }
}

impl SubscriberService {
    /// Takes what is due, or waits for something to be.
    async fn take(
        &self,
        subscription: &Arc<Shared>,
        room: Room,
        at_once: bool,
    ) -> Result<PullResponse, Status> {
        let consumer = subscription.join();
        let give_up = tokio::time::sleep(PULL_WAIT);
        tokio::pin!(give_up);
        let mut changes = subscription.changes();
        let mut faults = self.broker.faults.changes();
        loop {
            check_pullable(&subscription.settings())?;
            let received_messages = consumer.take(room, None);
            if !received_messages.is_empty() || at_once {
                return Ok(PullResponse { received_messages });
            }
            tokio::select! {
                _ = changes.changed() => {}
                _ = faults.changed() => {}
                () = self.broker.clock.sleep_until(consumer.next_due()) => {}
                () = &mut give_up => return Ok(PullResponse::default()),
                () = subscription.closed().cancelled() => {
                    return Err(names::not_found(&subscription.name));
                }
                () = self.broker.stop.cancelled() => {
                    return Err(Status::unavailable("The service is stopping."));
                }
            }
        }
    }
}

/// Whether messages can be pulled from a subscription.
pub(crate) fn check_pullable(settings: &Subscription) -> Result<(), Status> {
    if settings.detached {
        return Err(Status::failed_precondition(format!(
            "The subscription {} is detached from its topic.",
            names::id(&settings.name)
        )));
    }
    if settings::endpoint(settings).is_some() {
        return Err(Status::failed_precondition(
            "This method is not supported for this subscription type.",
        ));
    }
    Ok(())
}
