//! Push: messages are posted to an endpoint, more at a time as it keeps up, fewer when it fails.

use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;
use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    oidc::Signer,
    queue::Room,
    settings,
    subscription::{Consumer, Subscription},
};
use crate::{
    clock::{Clock, Moment},
    proto::{
        PushConfig, ReceivedMessage,
        push_config::{AuthenticationMethod, Wrapper},
    },
};

/// Requests in flight at first, and at most.
const FIRST_WINDOW: usize = 3;
const LARGEST_WINDOW: usize = 1_000;
/// The pause after a failure, doubled with each further one.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Pushes one subscription's messages.
#[derive(Debug)]
pub(crate) struct Pusher {
    consumer: Consumer,
    clock: Clock,
    signer: Arc<Signer>,
    http: reqwest::Client,
    pace: Pace,
    /// When the pause after a failure ends.
    resume: Moment,
    open: JoinSet<(String, bool)>,
}

impl Pusher {
    pub(crate) fn new(
        subscription: &Arc<Subscription>,
        clock: Clock,
        signer: Arc<Signer>,
        http: reqwest::Client,
    ) -> Self {
        Self {
            consumer: subscription.join(),
            resume: clock.now(),
            clock,
            signer,
            http,
            pace: Pace::default(),
            open: JoinSet::new(),
        }
    }

    fn subscription(&self) -> &Subscription {
        &self.consumer.subscription
    }

    /// Posts what is due, if the subscription pushes; answers when to come again.
    pub(crate) fn push(&mut self) -> Option<Moment> {
        let settings = self.subscription().settings();
        let push = settings.push_config.as_ref()?;
        settings::endpoint(&settings)?;
        if self.resume > self.clock.now() {
            return Some(self.resume);
        }
        let room = Room {
            messages: self.pace.window.saturating_sub(self.open.len()),
            bytes: usize::MAX,
        };
        if room.messages == 0 {
            return None;
        }
        let seconds = u64::try_from(settings.ack_deadline_seconds).unwrap_or_default();
        for received in self.consumer.take(room, None) {
            let request = self.request(push, received, Duration::from_secs(seconds));
            let subscription = self.subscription().name.clone();
            self.open.spawn(post(request, subscription));
        }
        self.consumer.next_due()
    }

    /// Resolves when a request was answered, and settles its message; never while none is open.
    pub(crate) async fn answered(&mut self) {
        let Some(joined) = self.open.join_next().await else {
            return std::future::pending().await;
        };
        let Ok((ack_id, is_accepted)) = joined else {
            return;
        };
        let retries = self.subscription().settings().retry_policy.is_some();
        let settled = if is_accepted {
            self.pace.faster();
            self.subscription().ack(&[ack_id])
        } else {
            let pause = self.pace.slower();
            // With a retry policy each message has its own backoff.
            if !retries {
                self.resume = self.clock.now() + pause;
            }
            self.subscription().modify_deadline(&[(ack_id, 0)])
        };
        if let Err(status) = settled {
            tracing::error!(%status, "a pushed message could not be settled");
        }
    }

    fn request(
        &self,
        push: &PushConfig,
        received: ReceivedMessage,
        timeout: Duration,
    ) -> (RequestBuilder, String) {
        let ReceivedMessage {
            ack_id,
            message,
            delivery_attempt,
        } = received;
        let message = message.unwrap_or_default();
        let mut request = self
            .http
            .post(&push.push_endpoint)
            .timeout(timeout)
            .header("user-agent", "CloudPubSub-Google");
        if let Some(AuthenticationMethod::OidcToken(oidc)) = &push.authentication_method {
            let audience = match oidc.audience.as_str() {
                "" => push.push_endpoint.as_str(),
                audience => audience,
            };
            match self.signer.token(&oidc.service_account_email, audience) {
                Ok(token) => request = request.bearer_auth(token),
                Err(err) => tracing::error!(%err, "a push goes without its token"),
            }
        }
        let publish_time = message.publish_time.map(|at| at.to_string());
        let publish_time = publish_time.unwrap_or_default();
        let name = &self.subscription().name;
        let request = match &push.wrapper {
            Some(Wrapper::NoWrapper(bare)) => {
                if bare.write_metadata {
                    request = request
                        .header("x-goog-pubsub-subscription-name", name)
                        .header("x-goog-pubsub-message-id", &message.message_id)
                        .header("x-goog-pubsub-publish-time", publish_time);
                    if !message.ordering_key.is_empty() {
                        request =
                            request.header("x-goog-pubsub-ordering-key", &message.ordering_key);
                    }
                    for (key, value) in &message.attributes {
                        request = request.header(key, value);
                    }
                }
                request.body(message.data)
            }
            _ => {
                let mut inner = json!({
                    "data": STANDARD.encode(&message.data),
                    "messageId": message.message_id,
                    "message_id": message.message_id,
                    "publishTime": publish_time,
                    "publish_time": publish_time,
                });
                if !message.attributes.is_empty() {
                    inner["attributes"] = json!(message.attributes);
                }
                if !message.ordering_key.is_empty() {
                    inner["orderingKey"] = json!(message.ordering_key);
                }
                let mut wrapped = json!({ "message": inner, "subscription": name });
                if delivery_attempt > 0 {
                    wrapped["deliveryAttempt"] = Value::from(delivery_attempt);
                }
                request
                    .header("content-type", "application/json")
                    .body(wrapped.to_string())
            }
        };
        (request, ack_id)
    }
}

/// Posts, and says whether the endpoint took it.
async fn post((request, ack_id): (RequestBuilder, String), subscription: String) -> (String, bool) {
    let accepted = match request.send().await {
        Ok(response) => {
            let status = response.status();
            tracing::debug!(subscription, %status, "pushed");
            is_success(status)
        }
        Err(err) => {
            tracing::warn!(subscription, %err, "a push failed");
            false
        }
    };
    (ack_id, accepted)
}

/// The answers that acknowledge a message.
fn is_success(status: StatusCode) -> bool {
    matches!(status.as_u16(), 102 | 200 | 201 | 202 | 204)
}

/// How many requests at a time, and how long to pause.
#[derive(Debug)]
struct Pace {
    window: usize,
    failures: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            window: FIRST_WINDOW,
            failures: 0,
        }
    }
}

impl Pace {
    fn faster(&mut self) {
        self.failures = 0;
        self.window = (self.window + 1).min(LARGEST_WINDOW);
    }

    fn slower(&mut self) -> Duration {
        self.window = (self.window / 2).max(1);
        let pause = SHORTEST_PAUSE.saturating_mul(1 << self.failures.min(16));
        self.failures += 1;
        pause.min(LONGEST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_narrow_the_window_and_lengthen_the_pause() {
        let mut pace = Pace::default();
        for _ in 0..5 {
            pace.faster();
        }
        assert_eq!(pace.window, FIRST_WINDOW + 5);
        assert_eq!(pace.slower(), SHORTEST_PAUSE);
        assert_eq!(pace.slower(), SHORTEST_PAUSE * 2);
        assert_eq!(pace.window, 2);
        for _ in 0..30 {
            pace.slower();
        }
        assert_eq!((pace.window, pace.slower()), (1, LONGEST_PAUSE));
        pace.faster();
        assert_eq!(pace.slower(), SHORTEST_PAUSE);
    }
}
