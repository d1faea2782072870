//! The Publisher service.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    broker::Broker,
    names::{self, Kind},
    paging,
};
use crate::proto::{
    DeleteTopicRequest, DetachSubscriptionRequest, DetachSubscriptionResponse, GetTopicRequest,
    ListTopicSnapshotsRequest, ListTopicSnapshotsResponse, ListTopicSubscriptionsRequest,
    ListTopicSubscriptionsResponse, ListTopicsRequest, ListTopicsResponse, PublishRequest,
    PublishResponse, PubsubMessage, Topic, UpdateTopicRequest, publisher_server::Publisher,
};

const MOST_MESSAGES: usize = 1_000;
const MOST_BYTES: usize = 10 * 1024 * 1024;
const MOST_ATTRIBUTES: usize = 100;
const LONGEST_ATTRIBUTE_KEY: usize = 256;
const LONGEST_ATTRIBUTE_VALUE: usize = 1_024;
const LONGEST_ORDERING_KEY: usize = 1_024;

#[derive(Debug, Clone)]
pub(crate) struct PublisherService(pub(crate) Arc<Broker>);

#[tonic::async_trait]
impl Publisher for PublisherService {
    async fn create_topic(&self, request: Request<Topic>) -> Result<Response<Topic>, Status> {
        self.0.create_topic(request.into_inner()).map(Response::new)
    }

    async fn update_topic(
        &self,
        request: Request<UpdateTopicRequest>,
    ) -> Result<Response<Topic>, Status> {
        let UpdateTopicRequest { topic, update_mask } = request.into_inner();
        let updated = self
            .0
            .update_topic(&topic.unwrap_or_default(), update_mask.as_ref())?;
        Ok(Response::new(updated))
    }

    async fn publish(
        &self,
        request: Request<PublishRequest>,
    ) -> Result<Response<PublishResponse>, Status> {
        let PublishRequest { topic, messages } = request.into_inner();
        let topic = self.0.topic(&topic)?;
        check_messages(&messages)?;
        let message_ids = self.0.publish(&topic, messages);
        Ok(Response::new(PublishResponse { message_ids }))
    }

    async fn get_topic(
        &self,
        request: Request<GetTopicRequest>,
    ) -> Result<Response<Topic>, Status> {
        let topic = self.0.topic(&request.into_inner().topic)?;
        Ok(Response::new(topic.settings()))
    }

    async fn list_topics(
        &self,
        request: Request<ListTopicsRequest>,
    ) -> Result<Response<ListTopicsResponse>, Status> {
        let request = request.into_inner();
        names::check_project(&request.project)?;
        let after = paging::after(&request.page_token)?;
        let mut topics = self.0.topics(&request.project, &after);
        let next_page_token = paging::cut(&mut topics, request.page_size, |topic| &topic.name)?;
        Ok(Response::new(ListTopicsResponse {
            topics,
            next_page_token,
        }))
    }

    async fn list_topic_subscriptions(
        &self,
        request: Request<ListTopicSubscriptionsRequest>,
    ) -> Result<Response<ListTopicSubscriptionsResponse>, Status> {
        let request = request.into_inner();
        let topic = self.0.topic(&request.topic)?;
        let after = paging::after(&request.page_token)?;
        let all = topic.subscriptions().into_iter();
        let mut subscriptions: Vec<String> = all
            .map(|subscription| subscription.name.clone())
            .filter(|name| *name > after)
            .collect();
        let next_page_token = paging::cut(&mut subscriptions, request.page_size, |name| name)?;
        Ok(Response::new(ListTopicSubscriptionsResponse {
            subscriptions,
            next_page_token,
        }))
    }

    async fn list_topic_snapshots(
        &self,
        request: Request<ListTopicSnapshotsRequest>,
    ) -> Result<Response<ListTopicSnapshotsResponse>, Status> {
        let request = request.into_inner();
        let topic = self.0.topic(&request.topic)?;
        let after = paging::after(&request.page_token)?;
        let mut snapshots = topic.snapshots();
        snapshots.retain(|name| *name > after);
        let next_page_token = paging::cut(&mut snapshots, request.page_size, |name| name)?;
        Ok(Response::new(ListTopicSnapshotsResponse {
            snapshots,
            next_page_token,
        }))
    }

    async fn delete_topic(
        &self,
        request: Request<DeleteTopicRequest>,
    ) -> Result<Response<()>, Status> {
        self.0.delete_topic(&request.into_inner().topic)?;
        Ok(Response::new(()))
    }

    async fn detach_subscription(
        &self,
        request: Request<DetachSubscriptionRequest>,
    ) -> Result<Response<DetachSubscriptionResponse>, Status> {
        let name = request.into_inner().subscription;
        names::check(Kind::Subscription, &name)?;
        self.0.detach_subscription(&name)?;
        Ok(Response::new(DetachSubscriptionResponse {}))
    }
}

fn check_messages(messages: &[PubsubMessage]) -> Result<(), Status> {
    let count = messages.len();
    if count == 0 {
        return Err(Status::invalid_argument(
            "The value for messages is too small. You passed 0 in the request, but the minimum \
             value is 1.",
        ));
    }
    if count > MOST_MESSAGES {
        return Err(Status::invalid_argument(format!(
            "The value for message_count is too large. You passed {count} in the request, but the \
             maximum value is {MOST_MESSAGES}."
        )));
    }
    let bytes: usize = messages.iter().map(prost::Message::encoded_len).sum();
    if bytes > MOST_BYTES {
        return Err(Status::invalid_argument(format!(
            "Request payload size exceeds the limit: {MOST_BYTES} bytes."
        )));
    }
    messages.iter().try_for_each(check_message)
}

fn check_message(message: &PubsubMessage) -> Result<(), Status> {
    let refused = |text: String| Err(Status::invalid_argument(text));
    if message.data.is_empty() && message.attributes.is_empty() {
        return refused(
            "One or more messages in the publish request is empty. Each message must contain \
             either non-empty data, or at least one attribute."
                .to_owned(),
        );
    }
    if message.attributes.len() > MOST_ATTRIBUTES {
        return refused(format!(
            "The value for attributes_count is too large. You passed {} in the request, but the \
             maximum value is {MOST_ATTRIBUTES}.",
            message.attributes.len()
        ));
    }
    for (key, value) in &message.attributes {
        if key.is_empty() || key.len() > LONGEST_ATTRIBUTE_KEY || key.starts_with("goog") {
            return refused(format!(
                "Invalid attribute key given (key={key}). A key must have 1 to \
                 {LONGEST_ATTRIBUTE_KEY} bytes and must not begin with 'goog'."
            ));
        }
        if value.len() > LONGEST_ATTRIBUTE_VALUE {
            return refused(format!(
                "The value of the attribute {key} is too long: {} bytes, but the maximum is \
                 {LONGEST_ATTRIBUTE_VALUE}.",
                value.len()
            ));
        }
    }
    if message.ordering_key.len() > LONGEST_ORDERING_KEY {
        return refused(format!(
            "The ordering key is too long: {} bytes, but the maximum is {LONGEST_ORDERING_KEY}.",
            message.ordering_key.len()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(bytes: usize) -> PubsubMessage {
        PubsubMessage {
            data: vec![b'x'; bytes].into(),
            ..PubsubMessage::default()
        }
    }

    #[test]
    fn limits_of_a_publish_are_googles() {
        assert!(check_messages(&vec![data(1); 1_000]).is_ok());
        assert!(check_messages(&vec![data(1); 1_001]).is_err());
        assert!(check_messages(&[]).is_err());
        assert!(check_messages(&[data(0)]).is_err());
        assert!(check_messages(&[data(MOST_BYTES - 16)]).is_ok());
        assert!(check_messages(&[data(MOST_BYTES)]).is_err());
    }

    #[test]
    fn limits_of_attributes_and_keys_are_googles() {
        let with = |key: &str, value: &str| {
            let mut message = data(1);
            message.attributes.insert(key.to_owned(), value.to_owned());
            check_message(&message)
        };
        assert!(with(&"k".repeat(256), &"v".repeat(1_024)).is_ok());
        assert!(with(&"k".repeat(257), "v").is_err());
        assert!(with("k", &"v".repeat(1_025)).is_err());
        assert!(with("googclient", "v").is_err());
        let mut message = data(1);
        message.ordering_key = "k".repeat(1_025);
        assert!(check_message(&message).is_err());
    }
}
