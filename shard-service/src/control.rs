//! Control events: revoked tokens end sessions, changed channels are read anew.

use std::{sync::Arc, time::Duration};

use infrachat_bus::{ConsumeLimits, Delivery, Subscription, Topic};
use infrachat_identity::Revocation;
use infrachat_proto::bus::v1::{ControlEvent, control_event::Kind};
use infrachat_types::{ChannelName, Region, TokenFamilyId, UserName};
use prost::Message as _;

use crate::parts::Parts;

const RETRY: Duration = Duration::from_millis(500);

/// Follows one region's control topic, until cancelled.
pub(crate) async fn follow(parts: Arc<Parts>, source: Region) {
    let topic = Topic {
        region: source.to_string(),
        name: infrachat_routing::CONTROL_TOPIC.to_owned(),
    };
    let subscription = Subscription {
        topic,
        group: parts.shard.to_string(),
    };
    loop {
        match parts
            .bus
            .consume(&subscription, ConsumeLimits::default())
            .await
        {
            Ok(mut consumer) => {
                while let Some(delivery) = consumer.next().await {
                    apply(&parts, delivery).await;
                }
            }
            Err(err) => {
                tracing::warn!(%subscription, %err, "control events can't be had; trying again")
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn apply(parts: &Parts, delivery: Delivery) {
    match ControlEvent::decode(delivery.event.payload.clone()) {
        Ok(ControlEvent {
            kind: Some(Kind::Revoked(revoked)),
            ..
        }) => {
            let family = (!revoked.family_id.is_empty())
                .then(|| TokenFamilyId::from_text(&revoked.family_id));
            if let Ok(user) = UserName::new(&revoked.user) {
                let revocation = Revocation {
                    user: user.clone(),
                    family: family.clone(),
                    issued_until: revoked.issued_until_ms,
                    forget_after: revoked.forget_after_ms,
                };
                parts.callers.revoke(revocation).await;
                let closed = parts
                    .sessions
                    .revoke(&user, family.as_ref(), revoked.issued_until_ms);
                tracing::info!(%user, closed, "tokens were revoked");
            }
        }
        Ok(ControlEvent {
            kind: Some(Kind::ChannelChanged(changed)),
            ..
        }) => {
            if let Ok(name) = ChannelName::new(&changed.channel) {
                parts.access.forget(&name);
            }
        }
        Ok(_) => {}
        // Switchboard keeps a copy for the dead-letter topic; here it can only be passed over.
        Err(err) => tracing::warn!(%err, "an unreadable control event"),
    }
    delivery.ack();
}
