//! Signing in, and keeping the access token fresh.

use std::{sync::Arc, time::Duration};

use infrachat_proto::gatekeeper::v1::{
    self as gatekeeper, gatekeeper_service_client::GatekeeperServiceClient,
};
use infrachat_types::{ErrorCode, Region, unix_millis};
use rand::{SeedableRng as _, rngs::StdRng};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{ClientError, Options, RegionAddress, SignIn, transport};

/// Taken when a token's life can't be read off the clock, which then is wrong.
const UNKNOWN_LIFE: Duration = Duration::from_secs(60);
/// Longest wait between attempts to refresh.
const REFRESH_PAUSE: Duration = Duration::from_secs(5);

/// What a sign-in gave.
#[derive(Clone)]
pub(crate) struct Tokens {
    pub(crate) access: Arc<str>,
    pub(crate) refresh: Arc<str>,
    /// Counts up with each refresh.
    pub(crate) generation: u64,
    renew_at: Instant,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// The newest tokens, or why there will be no more.
pub(crate) type Current = Result<Tokens, ClientError>;

/// Shares the newest tokens, and asks for newer ones.
#[derive(Debug, Clone)]
pub(crate) struct Wallet {
    current: watch::Receiver<Current>,
    renew_now: Arc<Notify>,
}

impl Wallet {
    pub(crate) fn current(&self) -> Current {
        self.current.borrow().clone()
    }

    /// Resolves when there are other tokens, or none any more.
    pub(crate) async fn changed(&mut self) {
        if self.current.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Asks for newer tokens.
    pub(crate) fn renew(&self) {
        self.renew_now.notify_one();
    }

    /// Tokens newer than those that were refused.
    pub(crate) async fn newer_than(&self, generation: u64) -> Current {
        let mut current = self.current.clone();
        let newer = |tokens: &Current| tokens.as_ref().map_or(true, |t| t.generation > generation);
        if !newer(&current.borrow()) {
            self.renew();
        }
        match current.wait_for(newer).await {
            Ok(tokens) => tokens.clone(),
            Err(_) => Err(ClientError::closed()),
        }
    }
}

/// Signs in as the options say, waiting where the server says so.
pub(crate) async fn sign_in(
    options: &Options,
) -> Result<(Tokens, Vec<RegionAddress>), ClientError> {
    let give_up = Instant::now() + options.sign_in_deadline;
    let mut rng = rng(options);
    for failures in 1.. {
        match try_sign_in(options, &options.server, options.sign_in).await {
            Ok(session) => {
                let regions = regions(&session, &options.server)?;
                return Ok((tokens(session, 1), regions));
            }
            Err(err @ ClientError::Refused(_)) => {
                let Some(told) = err.retry_after() else {
                    return Err(err);
                };
                let wait = told + options.backoff.wait(failures, &mut rng);
                if Instant::now() + wait > give_up {
                    return Err(err);
                }
                tokio::time::sleep(wait).await;
            }
            Err(err) => return Err(err),
        }
    }
    Err(ClientError::closed())
}

async fn try_sign_in(
    options: &Options,
    address: &str,
    how: SignIn,
) -> Result<gatekeeper::SessionResponse, ClientError> {
    let mut client = GatekeeperServiceClient::new(transport::connect(options, address).await?);
    let user = options.user.to_string();
    let password = options.password.expose().to_owned();
    let login = gatekeeper::LoginRequest {
        user: user.clone(),
        password: password.clone(),
    };
    let register = gatekeeper::RegisterRequest { user, password };
    if how == SignIn::Register {
        return transport::answer(address, client.register(register)).await;
    }
    match transport::answer(address, client.login(login)).await {
        Err(unknown)
            if how == SignIn::LoginOrRegister
                && unknown.code() == Some(ErrorCode::BadCredentials) =>
        {
            match transport::answer(address, client.register(register)).await {
                // There is such a user, so it was the password.
                Err(err) if err.code() == Some(ErrorCode::UserExists) => Err(unknown),
                answered => answered,
            }
        }
        answered => answered,
    }
}

/// Ends the sign-in.
pub(crate) async fn revoke(options: &Options, refresh_token: &str) -> Result<(), ClientError> {
    let address = &options.server;
    let mut client = GatekeeperServiceClient::new(transport::connect(options, address).await?);
    let request = gatekeeper::RevokeRequest {
        refresh_token: refresh_token.to_owned(),
        everywhere: false,
    };
    transport::answer(address, client.revoke(request))
        .await
        .map(drop)
}

/// Renews the tokens at four fifths of their life, or earlier when told to.
pub(crate) struct Keeper {
    options: Arc<Options>,
    addresses: Vec<String>,
    current: watch::Sender<Current>,
    renew_now: Arc<Notify>,
    rng: StdRng,
}

impl Keeper {
    pub(crate) fn new(
        options: &Arc<Options>,
        regions: &[RegionAddress],
        tokens: Tokens,
    ) -> (Self, Wallet) {
        let (sender, current) = watch::channel(Ok(tokens));
        let renew_now = Arc::new(Notify::new());
        let others = regions.iter().map(|region| region.gatekeeper.clone());
        let others = others.filter(|address| *address != options.server);
        let keeper = Self {
            options: Arc::clone(options),
            addresses: std::iter::once(options.server.clone())
                .chain(others)
                .collect(),
            current: sender,
            renew_now: Arc::clone(&renew_now),
            rng: rng(options),
        };
        (keeper, Wallet { current, renew_now })
    }

    /// Until the sign-in can't be renewed any more.
    pub(crate) async fn run(mut self) {
        loop {
            let Ok(tokens) = self.current.borrow().clone() else {
                return;
            };
            tokio::select! {
                () = tokio::time::sleep_until(tokens.renew_at) => {}
                () = self.renew_now.notified() => {}
            }
            let renewed = self.renew(&tokens).await;
            if let Err(err) = &renewed {
                tracing::warn!(%err, "the sign-in can't be renewed");
            }
            drop(self.current.send_replace(renewed));
        }
    }

    async fn renew(&mut self, old: &Tokens) -> Current {
        let mut failures = 0;
        loop {
            for address in &self.addresses {
                match self.renew_at(address, &old.refresh).await {
                    Ok(session) => return Ok(tokens(session, old.generation + 1)),
                    Err(err) => {
                        let Some(told) = err.retry_after() else {
                            return Err(err);
                        };
                        failures += 1;
                        tracing::debug!(%err, failures, "the sign-in was not renewed yet");
                        let pause = self.options.backoff.wait(failures, &mut self.rng);
                        tokio::time::sleep(told + pause.min(REFRESH_PAUSE)).await;
                    }
                }
            }
        }
    }

    async fn renew_at(
        &self,
        address: &str,
        refresh: &str,
    ) -> Result<gatekeeper::SessionResponse, ClientError> {
        let transport = transport::connect(&self.options, address).await?;
        let mut client = GatekeeperServiceClient::new(transport);
        let request = gatekeeper::RefreshRequest {
            refresh_token: refresh.to_owned(),
        };
        // A sign-in is renewed where it began; while that region is away, another one opens a new one.
        let elsewhere = address != self.options.server;
        match transport::answer(address, client.refresh(request)).await {
            // The refresh token is of no use at the moment or any more, but the password may be.
            Err(err)
                if err.code() == Some(ErrorCode::BadRefreshToken)
                    || (elsewhere && err.code() == Some(ErrorCode::Unavailable)) =>
            {
                try_sign_in(&self.options, address, SignIn::Login).await
            }
            answered => answered,
        }
    }
}

fn tokens(session: gatekeeper::SessionResponse, generation: u64) -> Tokens {
    let life_ms = session.access_expires_at_ms.saturating_sub(unix_millis());
    let life = match u64::try_from(life_ms) {
        Ok(ms) if ms > 0 => Duration::from_millis(ms),
        _ => UNKNOWN_LIFE,
    };
    Tokens {
        access: session.access_token.into(),
        refresh: session.refresh_token.into(),
        generation,
        renew_at: Instant::now() + life.mul_f64(0.8),
    }
}

fn regions(
    session: &gatekeeper::SessionResponse,
    address: &str,
) -> Result<Vec<RegionAddress>, ClientError> {
    let unexpected = |what: String| ClientError::Unexpected {
        address: address.to_owned(),
        what,
    };
    let regions: Vec<_> = session
        .regions
        .iter()
        .map(|wire| {
            Ok(RegionAddress {
                region: Region::new(&wire.region).map_err(|err| unexpected(err.to_string()))?,
                gatekeeper: wire.gatekeeper.clone(),
                switchboard: wire.switchboard.clone(),
            })
        })
        .collect::<Result<_, ClientError>>()?;
    if regions.is_empty() {
        return Err(unexpected("it names no region to go to".to_owned()));
    }
    Ok(regions)
}

pub(crate) fn rng(options: &Options) -> StdRng {
    options
        .seed
        .map_or_else(|| StdRng::from_rng(&mut rand::rng()), StdRng::seed_from_u64)
}
