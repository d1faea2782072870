//! The gRPC edge: limits first, then what was asked for, and each refusal with its code.

use infrachat_identity::{ExposeSecret as _, RefreshToken, SecretString};
use infrachat_proto::{
    Refusal,
    gatekeeper::v1::{
        LoginRequest, RefreshRequest, RegionEndpoint, RegisterRequest, RevokeRequest,
        RevokeResponse, SessionResponse, gatekeeper_service_server::GatekeeperService,
    },
};
use infrachat_types::{Region, UserName};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::{
    RegionEndpoints,
    accounts::Accounts,
    counted::{COUNTED, Calls},
    error::AuthError,
    guard::{self, Guard},
    sign_ins::{Session, SignIns},
};

/// The service.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) guard: Guard,
    pub(crate) accounts: Accounts,
    pub(crate) sign_ins: SignIns,
    pub(crate) endpoints: Vec<RegionEndpoint>,
    pub(crate) trusted_proxies: usize,
}

/// For clients: this region first.
pub(crate) fn endpoints(local: &Region, regions: &[RegionEndpoints]) -> Vec<RegionEndpoint> {
    let mut regions: Vec<_> = regions.iter().collect();
    regions.sort_by_key(|endpoints| endpoints.region != *local);
    regions
        .into_iter()
        .map(|endpoints| RegionEndpoint {
            region: endpoints.region.to_string(),
            gatekeeper: endpoints.gatekeeper.clone(),
            switchboard: endpoints.switchboard.clone(),
        })
        .collect()
}

impl Service {
    fn caller<T>(&self, request: &Request<T>) -> String {
        guard::caller(
            request.remote_addr(),
            request.metadata(),
            self.trusted_proxies,
        )
    }

    async fn registered(
        &self,
        caller: &str,
        request: RegisterRequest,
    ) -> Result<Session, AuthError> {
        let password = SecretString::from(request.password);
        self.guard.registration(caller).await?;
        let user = UserName::new(&request.user)?;
        self.accounts.register(&user, password).await?;
        self.sign_ins.open(&user).await
    }

    async fn signed_in(&self, caller: &str, request: LoginRequest) -> Result<Session, AuthError> {
        let password = SecretString::from(request.password);
        self.guard.sign_in(caller).await?;
        let Ok(user) = UserName::new(&request.user) else {
            return Err(self.accounts.refuse_password(password).await);
        };
        self.guard.account(&user).await?;
        self.accounts.check_password(&user, password).await?;
        self.sign_ins.open(&user).await
    }

    async fn refreshed(&self, caller: &str, request: RefreshRequest) -> Result<Session, AuthError> {
        self.guard.refresh(caller).await?;
        let token = RefreshToken::parse(&request.refresh_token)?;
        self.sign_ins.rotate(&token).await
    }

    async fn revoked(&self, caller: &str, request: RevokeRequest) -> Result<(), AuthError> {
        self.guard.refresh(caller).await?;
        let token = RefreshToken::parse(&request.refresh_token)?;
        self.sign_ins.end(&token, request.everywhere).await
    }

    fn answer(
        &self,
        (calls, began): (&Calls, Instant),
        caller: &str,
        outcome: Result<Session, AuthError>,
    ) -> Result<Response<SessionResponse>, Status> {
        let session = outcome.map_err(|err| refuse((calls, began), caller, err))?;
        calls.count(None, began.elapsed());
        tracing::info!(call = calls.name, caller, user = %session.user, "signed in");
        Ok(Response::new(SessionResponse {
            access_token: session.access.token.expose_secret().to_owned(),
            access_expires_at_ms: session.access.expires_at,
            refresh_token: session.refresh.expose_secret().to_owned(),
            refresh_expires_at_ms: session.refresh_expires_at,
            user: session.user.to_string(),
            regions: self.endpoints.clone(),
        }))
    }
}

fn refuse((calls, began): (&Calls, Instant), caller: &str, err: AuthError) -> Status {
    let refusal = Refusal::from(err);
    calls.count(Some(refusal.code), began.elapsed());
    tracing::info!(call = calls.name, caller, code = %refusal.code, "refused");
    refusal.into()
}

#[tonic::async_trait]
impl GatekeeperService for Service {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<SessionResponse>, Status> {
        let call = (&COUNTED.register, Instant::now());
        let caller = self.caller(&request);
        let outcome = self.registered(&caller, request.into_inner()).await;
        self.answer(call, &caller, outcome)
    }

    async fn login(
        &self,
        request: Request<LoginRequest>,
    ) -> Result<Response<SessionResponse>, Status> {
        let call = (&COUNTED.login, Instant::now());
        let caller = self.caller(&request);
        let outcome = self.signed_in(&caller, request.into_inner()).await;
        self.answer(call, &caller, outcome)
    }

    async fn refresh(
        &self,
        request: Request<RefreshRequest>,
    ) -> Result<Response<SessionResponse>, Status> {
        let call = (&COUNTED.refresh, Instant::now());
        let caller = self.caller(&request);
        let outcome = self.refreshed(&caller, request.into_inner()).await;
        self.answer(call, &caller, outcome)
    }

    async fn revoke(
        &self,
        request: Request<RevokeRequest>,
    ) -> Result<Response<RevokeResponse>, Status> {
        let call = (&COUNTED.revoke, Instant::now());
        let caller = self.caller(&request);
        match self.revoked(&caller, request.into_inner()).await {
            Ok(()) => {
                call.0.count(None, call.1.elapsed());
                Ok(Response::new(RevokeResponse {}))
            }
            Err(err) => Err(refuse(call, &caller, err)),
        }
    }
}
