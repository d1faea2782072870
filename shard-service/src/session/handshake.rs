//! The first frame: who is it, and may they come in.

use std::time::Duration;

use bytes::Bytes;
use infrachat_identity::Claims;
use infrachat_proto::{
    Refusal,
    chat::v1::{self as chat, client_frame::Kind},
};
use infrachat_types::{CloseCode, ErrorCode, SessionId};
use prost::Message as _;

use crate::{inbound::Inbound, parts::Parts};

/// Heartbeat intervals a client may ask for.
const SHORTEST_HEARTBEAT: Duration = Duration::from_secs(1);
const LONGEST_HEARTBEAT: Duration = Duration::from_secs(60);

/// Why a session is closed, or was never opened.
pub(crate) type Closing = (CloseCode, String);

/// A client that may come in.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) claims: Claims,
    pub(crate) heartbeat: Heartbeat,
}

/// How a session notices that the other side is gone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heartbeat {
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
}

impl Heartbeat {
    fn agree(asked_ms: u32, ours: Duration) -> Self {
        let interval = match asked_ms {
            0 => ours,
            ms => Duration::from_millis(ms.into())
                .clamp(SHORTEST_HEARTBEAT.min(ours), LONGEST_HEARTBEAT),
        };
        Self {
            interval,
            timeout: interval * 5 / 2,
        }
    }
}

/// Waits for `Hello` and checks it. `None`: the client left.
pub(crate) async fn admit(
    parts: &Parts,
    inbound: &mut Inbound,
) -> Result<Option<Admitted>, Closing> {
    let first = tokio::time::timeout(parts.tuning.hello_timeout, inbound.message()).await;
    let first = first.map_err(|_| {
        (
            CloseCode::HelloTimeout,
            "the first frame did not come in time: send Hello at once".to_owned(),
        )
    })?;
    let Ok(Some(first)) = first else {
        return Ok(None);
    };
    let frame = decode(first)?;
    let Some(Kind::Hello(hello)) = frame.kind else {
        return Err((
            CloseCode::HelloExpected,
            "the first frame must be Hello".to_owned(),
        ));
    };
    let checked = parts.callers.check(&hello.access_token).await;
    let claims = checked.map_err(not_admitted)?;
    let heartbeat = Heartbeat::agree(hello.heartbeat_interval_ms, parts.tuning.heartbeat_interval);
    Ok(Some(Admitted { claims, heartbeat }))
}

/// Why a client whose token was refused does not come in.
pub(crate) fn not_admitted(refusal: Refusal) -> Closing {
    let code = match refusal.code {
        ErrorCode::TokenExpired => CloseCode::TokenExpired,
        ErrorCode::TokenRevoked => CloseCode::TokenRevoked,
        ErrorCode::Unavailable => CloseCode::KeysUnavailable,
        _ => CloseCode::Unauthenticated,
    };
    (code, refusal.message)
}

/// Reads a frame.
pub(crate) fn decode(frame: Bytes) -> Result<chat::ClientFrame, Closing> {
    chat::ClientFrame::decode(frame).map_err(|err| {
        (
            CloseCode::BadFrame,
            format!("a frame could not be decoded as ClientFrame: {err}"),
        )
    })
}

/// The answer to `Hello`.
pub(crate) fn welcome(parts: &Parts, session: &SessionId, admitted: &Admitted) -> chat::Welcome {
    let most = |limit: usize| u32::try_from(limit).unwrap_or(u32::MAX);
    let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    let tuning = &parts.tuning;
    chat::Welcome {
        session_id: session.to_string(),
        user: admitted.claims.user.to_string(),
        shard: parts.shard.to_string(),
        region: parts.region.to_string(),
        heartbeat_interval_ms: millis(admitted.heartbeat.interval),
        heartbeat_timeout_ms: millis(admitted.heartbeat.timeout),
        auth_expires_at_ms: admitted.claims.expires_at,
        limits: Some(chat::Limits {
            max_body_bytes: most(tuning.max_body_bytes),
            max_channels: most(tuning.max_channels),
            max_in_flight: most(tuning.max_in_flight),
            publish_per_second: tuning.publish_per_second,
            slow_reader_pending: u32::try_from(tuning.slow_reader_pending).unwrap_or(u32::MAX),
        }),
        server_time_ms: parts.clock.now(),
    }
}
