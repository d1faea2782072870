//! Lets crowds in: a Gatekeeper that signs each user in at the real one, once, and gives all their sessions the
//! same tokens, so that a crowd costs no password hashes.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use infrachat_proto::gatekeeper::v1::{
    LoginRequest, RefreshRequest, RegisterRequest, RevokeRequest, RevokeResponse, SessionResponse,
    gatekeeper_service_client::GatekeeperServiceClient,
    gatekeeper_service_server::{GatekeeperService, GatekeeperServiceServer},
};
use tokio::{net::TcpListener, sync::Mutex};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, async_trait, transport::server::TcpIncoming};

/// Tokens are handed out for so long after they were issued.
const FRESH: Duration = Duration::from_secs(120);

pub(crate) struct Usher {
    pub(crate) address: String,
    desk: Arc<Desk>,
    _serving: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Desk {
    gatekeeper: String,
    /// By user.
    sessions: Mutex<HashMap<String, (SessionResponse, Instant)>>,
    logins: AtomicUsize,
    refreshes: AtomicUsize,
}

impl Usher {
    /// In front of a Gatekeeper, whose `host:port` this is.
    pub(crate) async fn start(gatekeeper: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let desk = Arc::new(Desk {
            gatekeeper: format!("http://{gatekeeper}"),
            ..Desk::default()
        });
        let serving = tonic::transport::Server::builder()
            .add_service(GatekeeperServiceServer::from_arc(Arc::clone(&desk)))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        Self {
            address,
            desk,
            _serving: AbortOnDropHandle::new(tokio::spawn(async move {
                serving.await.expect("serves");
            })),
        }
    }

    /// How many sessions asked to be signed in so far.
    pub(crate) fn logins(&self) -> usize {
        self.desk.logins.load(Ordering::Relaxed)
    }

    /// How many asked for newer tokens.
    pub(crate) fn refreshes(&self) -> usize {
        self.desk.refreshes.load(Ordering::Relaxed)
    }
}

impl Desk {
    async fn session(&self, user: String, password: &str) -> Result<SessionResponse, Status> {
        let mut sessions = self.sessions.lock().await;
        match sessions.get(&user) {
            Some((session, at)) if at.elapsed() < FRESH => return Ok(session.clone()),
            _ => {}
        }
        let connected = GatekeeperServiceClient::connect(self.gatekeeper.clone()).await;
        let mut gatekeeper = connected.map_err(|err| Status::unavailable(err.to_string()))?;
        let password = password.to_owned();
        let register = RegisterRequest {
            user: user.clone(),
            password: password.clone(),
        };
        let session = match gatekeeper.register(register).await {
            Ok(session) => session,
            Err(_) => {
                let user = user.clone();
                gatekeeper.login(LoginRequest { user, password }).await?
            }
        };
        let session = session.into_inner();
        sessions.insert(user, (session.clone(), Instant::now()));
        Ok(session)
    }
}

#[async_trait]
impl GatekeeperService for Desk {
    async fn register(
        &self,
        _: Request<RegisterRequest>,
    ) -> Result<Response<SessionResponse>, Status> {
        Err(Status::unimplemented("sign in"))
    }

    async fn login(
        &self,
        request: Request<LoginRequest>,
    ) -> Result<Response<SessionResponse>, Status> {
        self.logins.fetch_add(1, Ordering::Relaxed);
        let LoginRequest { user, password } = request.into_inner();
        self.session(user, &password).await.map(Response::new)
    }

    /// The tokens of whoever has this one are still the user's, so newer ones are signed in for.
    async fn refresh(
        &self,
        request: Request<RefreshRequest>,
    ) -> Result<Response<SessionResponse>, Status> {
        self.refreshes.fetch_add(1, Ordering::Relaxed);
        let token = request.into_inner().refresh_token;
        let user = {
            let sessions = self.sessions.lock().await;
            let mut sessions = sessions.iter();
            let found = sessions.find(|(_, (session, _))| session.refresh_token == token);
            found.map(|(user, _)| user.clone())
        };
        let user = user.ok_or_else(|| Status::unauthenticated("an older token"))?;
        self.session(user, crate::world::PASSWORD)
            .await
            .map(Response::new)
    }

    async fn revoke(&self, _: Request<RevokeRequest>) -> Result<Response<RevokeResponse>, Status> {
        Ok(Response::new(RevokeResponse {}))
    }
}
