//! The control surface: faults are read, set and lifted over HTTP with JSON, and time is moved.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use infrachat_runtime::{BindError, Listener, ServeError, ServeSettings};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    faults::{Faults, Service, Settings},
};

/// The control surface, bound.
#[derive(Debug)]
pub struct Control {
    listener: Listener,
    state: Controlled,
}

#[derive(Debug, Clone)]
struct Controlled {
    faults: Faults,
    clock: Clock,
}

/// Which service is meant; both when none is named.
#[derive(Debug, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Which {
    service: Option<Service>,
}

impl Which {
    fn services(self) -> impl Iterator<Item = Service> {
        [Service::Pubsub, Service::Firestore]
            .into_iter()
            .filter(move |service| self.service.is_none_or(|which| which == *service))
    }
}

/// A pair of regions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    from: String,
    to: String,
    /// The other way too.
    #[serde(default)]
    both: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    seconds: f64,
}

impl Control {
    /// Binds "host:port".
    ///
    /// # Errors
    /// When the port can't be had.
    pub async fn bind(address: &str, faults: Faults, clock: Clock) -> Result<Self, BindError> {
        Ok(Self {
            listener: Listener::bind(address).await?,
            state: Controlled { faults, clock },
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> std::net::SocketAddr {
        self.listener.address()
    }

    /// Serves until `stop`.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ServeError> {
        let router = router().with_state(self.state);
        self.listener
            .serve(router.into(), ServeSettings::default(), stop)
            .await
    }
}

fn router() -> Router<Controlled> {
    Router::new()
        .route("/faults", get(faults).put(set_faults).delete(clear_faults))
        .route("/pause", post(pause))
        .route("/resume", post(resume))
        .route("/cut", post(cut))
        .route("/heal", post(heal))
        .route("/break-streams", post(break_streams))
        .route("/advance", post(advance))
}

async fn faults(State(state): State<Controlled>) -> Json<Settings> {
    Json(state.faults.settings())
}

async fn set_faults(State(state): State<Controlled>, Json(new): Json<Settings>) -> Response {
    if let Err(problem) = new.check() {
        return (StatusCode::BAD_REQUEST, problem).into_response();
    }
    state.faults.change(|settings| *settings = new);
    faults(State(state)).await.into_response()
}

async fn clear_faults(State(state): State<Controlled>) -> Json<Settings> {
    state
        .faults
        .change(|settings| *settings = Settings::default());
    faults(State(state)).await
}

async fn pause(state: State<Controlled>, which: Option<Json<Which>>) -> Json<Settings> {
    set_paused(state, which, true).await
}

async fn resume(state: State<Controlled>, which: Option<Json<Which>>) -> Json<Settings> {
    set_paused(state, which, false).await
}

async fn set_paused(
    State(state): State<Controlled>,
    which: Option<Json<Which>>,
    paused: bool,
) -> Json<Settings> {
    let which = which.unwrap_or_default().0;
    state.faults.change(|settings| {
        which
            .services()
            .for_each(|service| settings.calls_mut(service).paused = paused);
    });
    faults(State(state)).await
}

async fn cut(State(state): State<Controlled>, Json(pair): Json<Pair>) -> Json<Settings> {
    state.faults.change(|settings| {
        settings.link_mut(&pair.from, &pair.to).cut = true;
        if pair.both {
            settings.link_mut(&pair.to, &pair.from).cut = true;
        }
    });
    faults(State(state)).await
}

/// Heals one pair, or all when none is named.
async fn heal(State(state): State<Controlled>, pair: Option<Json<Pair>>) -> Json<Settings> {
    state.faults.change(|settings| match pair {
        Some(Json(pair)) => {
            settings.link_mut(&pair.from, &pair.to).cut = false;
            if pair.both {
                settings.link_mut(&pair.to, &pair.from).cut = false;
            }
        }
        None => settings.links.iter_mut().for_each(|link| link.cut = false),
    });
    faults(State(state)).await
}

async fn break_streams(State(state): State<Controlled>, which: Option<Json<Which>>) -> StatusCode {
    let which = which.unwrap_or_default().0;
    which
        .services()
        .for_each(|service| state.faults.break_streams(service));
    StatusCode::NO_CONTENT
}

async fn advance(State(state): State<Controlled>, Json(advance): Json<Advance>) -> Response {
    match Duration::try_from_secs_f64(advance.seconds) {
        Ok(by) => {
            state.clock.advance(by);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(err) => (StatusCode::BAD_REQUEST, format!("seconds: {err}")).into_response(),
    }
}
