//! Control events that Pub/Sub posts, over HTTP.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    response::{IntoResponse as _, Response},
    routing::post,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use infrachat_bus::Event;
use serde::Deserialize;

use crate::{Follower, counted::PUSHES_TAKEN};

/// Where pushes are taken.
pub const PUSH_PATH: &str = "/pubsub/push";
/// Pub/Sub's largest message is 10 MB, and comes in base64. What is too large to be taken would come
/// for ever.
const LARGEST_BODY: usize = 15_000_000;

/// Why a push is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushRefused {
    /// It is not from whom it should be.
    #[error("the push's token is not good: {0}")]
    BadToken(String),
    /// Nobody can tell at the moment.
    #[error("the push's token can't be checked now: {0}")]
    Unavailable(String),
}

/// Tells pushes that come from the deployment's Pub/Sub from forged ones.
#[async_trait]
pub trait PushTokens: std::fmt::Debug + Send + Sync + 'static {
    /// Whether the bearer token of a push is good.
    async fn check(&self, token: &str) -> Result<(), PushRefused>;
}

#[derive(Clone)]
struct Pushed {
    follower: Follower,
    tokens: Arc<dyn PushTokens>,
}

/// Takes pushes at [`PUSH_PATH`]. `204` acknowledges an event; with `503` it comes again.
pub(crate) fn routes(follower: Follower, tokens: Arc<dyn PushTokens>) -> Router {
    // Seen from the start on, at 0.
    PUSHES_TAKEN.accepted.increment(0);
    Router::new()
        .route(PUSH_PATH, post(take))
        .with_state(Pushed { follower, tokens })
}

/// A request as Pub/Sub makes it. Public documentation:
/// <https://cloud.google.com/pubsub/docs/push#receive_push>.
#[derive(Deserialize)]
struct PushRequest {
    message: PushMessage,
    subscription: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PushMessage {
    #[serde(default)]
    data: String,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(default)]
    ordering_key: String,
}

impl PushMessage {
    fn event(self) -> Result<Event, base64::DecodeError> {
        Ok(Event {
            ordering_key: self.ordering_key,
            payload: STANDARD.decode(self.data)?.into(),
            attributes: self.attributes,
        })
    }
}

async fn take(State(pushed): State<Pushed>, headers: HeaderMap, request: Request) -> Response {
    // Before the body is read: a stranger may not even send one.
    if let Err((status, why)) = authorized(&*pushed.tokens, &headers).await {
        let counter = match status {
            StatusCode::SERVICE_UNAVAILABLE => &PUSHES_TAKEN.failed,
            _ => &PUSHES_TAKEN.unauthenticated,
        };
        counter.increment(1);
        tracing::warn!(%status, why, "a push was refused");
        return (status, why).into_response();
    }
    let (event, from) = match read(request.into_body()).await {
        Ok(read) => read,
        Err(why) => {
            PUSHES_TAKEN.bad_request.increment(1);
            tracing::warn!(why, "a push is not in Pub/Sub's form");
            return (StatusCode::BAD_REQUEST, why).into_response();
        }
    };
    match pushed.follower.handle(&event, &from).await {
        true => {
            PUSHES_TAKEN.accepted.increment(1);
            StatusCode::NO_CONTENT.into_response()
        }
        false => {
            PUSHES_TAKEN.failed.increment(1);
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}

async fn authorized(
    tokens: &dyn PushTokens,
    headers: &HeaderMap,
) -> Result<(), (StatusCode, String)> {
    let token = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    let Some(token) = token else {
        let why = "a push carries an OIDC token: set up the subscription with authentication";
        return Err((StatusCode::UNAUTHORIZED, why.to_owned()));
    };
    tokens.check(token).await.map_err(|refused| {
        let status = match refused {
            PushRefused::BadToken(_) => StatusCode::FORBIDDEN,
            PushRefused::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, refused.to_string())
    })
}

async fn read(body: Body) -> Result<(Event, String), String> {
    let body = axum::body::to_bytes(body, LARGEST_BODY).await;
    let body = body.map_err(|err| err.to_string())?;
    let request: PushRequest = serde_json::from_slice(&body).map_err(|err| err.to_string())?;
    let event = request.message.event().map_err(|err| err.to_string())?;
    Ok((event, request.subscription))
}
