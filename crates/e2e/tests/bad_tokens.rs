//! Access tokens that are forged, expired or revoked open nothing, and end what they had opened.
#![allow(clippy::expect_used)]

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use infrachat_e2e::{ASIA, RawSession, Room, TestStack, WEST, bearer, closes, code};
use infrachat_identity::SigningKey;
use infrachat_proto::{
    chat::v1::{self as chat, client_frame::Kind as Frame, server_event::Kind},
    gatekeeper::v1::{LoginRequest, RefreshRequest, RevokeRequest, SessionResponse},
    switchboard::v1::{
        ListChannelsRequest, ResolveRequest, switchboard_service_client::SwitchboardServiceClient,
    },
};
use infrachat_types::unix_millis;
use serde_json::{Value, json};

/// A key whose tokens a stack accepts, in the hands of the test.
struct Mint {
    pair: Ed25519KeyPair,
    key: SigningKey,
}

impl Mint {
    fn new() -> Self {
        let pair = Ed25519KeyPair::generate().expect("a key");
        let der = pair.to_pkcs8v1().expect("a document");
        let body = BASE64_STANDARD.encode(der.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
        let key = SigningKey::from_pem(&pem).expect("a key");
        Self { pair, key }
    }

    fn header(&self) -> Value {
        json!({"typ": "JWT", "alg": "EdDSA", "kid": self.key.kid()})
    }

    /// What a good token says, good for some seconds from now.
    fn claims(user: &str, seconds: i64) -> Value {
        let now = unix_millis() / 1_000;
        json!({
            "iss": "https://gatekeeper.us-west1.infrachat", "aud": "infrachat", "sub": user,
            "iat": now, "exp": now + seconds, "jti": "1", "fam": "test", "reg": "us-west1",
        })
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = unsigned(header, claims);
        let signature = BASE64.encode(self.pair.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    fn token(&self, user: &str, seconds: i64) -> String {
        self.sign(&self.header(), &Self::claims(user, seconds))
    }

    /// Tokens that must not pass, and the code that says so.
    fn bad_tokens(&self) -> Vec<(&'static str, String, &'static str)> {
        let good = Self::claims("alice", 60);
        let with = |key: &str, value: Value| {
            let mut claims = good.clone();
            claims[key] = value;
            self.sign(&self.header(), &claims)
        };
        let other = Self::new();
        let none = json!({"typ": "JWT", "alg": "none", "kid": self.key.kid()});
        let symmetric = json!({"typ": "JWT", "alg": "HS256", "kid": self.key.kid()});
        let (head, rest) = (self.token("alice", 60), self.token("bob", 60));
        let spliced: Vec<_> = [head.split('.').next(), rest.split('.').nth(1)]
            .into_iter()
            .chain([head.split('.').nth(2)])
            .map(Option::unwrap_or_default)
            .collect();
        let unauthenticated = [
            ("none", String::new()),
            ("garbage", "garbage".to_owned()),
            ("very long", "a".repeat(5_000)),
            ("another audience", with("aud", json!("somebody else"))),
            ("another issuer", with("iss", json!("https://evil.example"))),
            ("no user name", with("sub", json!("Not A Name"))),
            (
                "another key of the same name",
                other.sign(&self.header(), &good),
            ),
            ("an unknown key", other.token("alice", 60)),
            ("another's claims", spliced.join(".")),
            ("alg none", format!("{}.", unsigned(&none, &good))),
            ("alg HS256", self.sign(&symmetric, &good)),
        ]
        .map(|(what, token)| (what, token, "unauthenticated"));
        let expired = ("expired", self.token("alice", -60), "token_expired");
        unauthenticated.into_iter().chain([expired]).collect()
    }
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// A room on a stack that accepts the mint's tokens.
async fn room_with(mint: &Mint) -> Room {
    let key = mint.key.clone();
    Room::open_with(|config| config.signing_key = Some(key)).await
}

#[tokio::test]
async fn a_token_that_does_not_verify_opens_nothing() {
    let mint = Mint::new();
    let mut room = room_with(&mint).await;
    let endpoint = room.endpoint().await;
    let mut service = room.stack.chat(&endpoint).await;
    let switchboard = format!("http://{}", room.stack.regions[WEST].switchboard);
    let connected = SwitchboardServiceClient::connect(switchboard).await;
    let mut switchboard = connected.expect("connects");
    drop(RawSession::hello(&endpoint, &mint.token("alice", 60)).await);
    for (what, token, expected) in mint.bad_tokens() {
        let mut session = RawSession::open(&endpoint).await;
        session.send_hello(&token).await;
        closes(session, expected).await;

        let request = chat::CreateChannelRequest {
            name: "#mine".to_owned(),
            ..Default::default()
        };
        let created = service.create_channel(bearer(&token, request)).await;
        assert_eq!(code(created), expected, "{what}");
        let request = chat::GetHistoryRequest {
            channel: "#general".to_owned(),
            ..Default::default()
        };
        let read = service.get_history(bearer(&token, request)).await;
        assert_eq!(code(read), expected, "{what}");
        let request = chat::ListMembersRequest {
            channel: "#general".to_owned(),
            ..Default::default()
        };
        let listed = service.list_members(bearer(&token, request)).await;
        assert_eq!(code(listed), expected, "{what}");
        let request = ResolveRequest {
            channels: vec!["#general".to_owned()],
        };
        let resolved = switchboard.resolve(bearer(&token, request)).await;
        assert_eq!(code(resolved), expected, "{what}");
        let request = ListChannelsRequest::default();
        let listed = switchboard.list_channels(bearer(&token, request)).await;
        assert_eq!(code(listed), expected, "{what}");

        let renewal = chat::Reauthenticate {
            access_token: token,
        };
        room.refuses(Frame::Reauthenticate(renewal), expected).await;
    }
    let without = service
        .get_history(chat::GetHistoryRequest::default())
        .await;
    assert_eq!(code(without), "unauthenticated");
    let without = switchboard.resolve(ResolveRequest::default()).await;
    assert_eq!(code(without), "unauthenticated");
}

#[tokio::test]
async fn a_session_ends_with_its_token_unless_it_was_renewed() {
    let mint = Mint::new();
    let mut room = room_with(&mint).await;
    let endpoint = room.endpoint().await;
    let short = mint.token("alice", 2);
    let mut renewed = RawSession::hello(&endpoint, &short).await;
    let access_token = mint.token("alice", 60);
    renewed
        .send(Frame::Reauthenticate(chat::Reauthenticate { access_token }))
        .await;
    let until = renewed
        .until(|kind| match kind {
            Kind::Reauthenticated(answer) => Some(answer.auth_expires_at_ms),
            _ => None,
        })
        .await;
    assert!(until > unix_millis() + 30_000);
    let not_renewed = RawSession::hello(&endpoint, &short).await;
    closes(not_renewed, "token_expired").await;
    renewed.ping(1).await;
    room.all_go_on().await;
}

#[tokio::test]
async fn another_users_token_does_not_renew_a_session() {
    let mut room = Room::open().await;
    let access_token = room.bystander.token.clone();
    let renewal = chat::Reauthenticate { access_token };
    room.refuses(Frame::Reauthenticate(renewal), "wrong_subject")
        .await;
}

async fn sign_in(stack: &TestStack, region: usize, user: &str) -> SessionResponse {
    let request = LoginRequest {
        user: user.to_owned(),
        password: "correct horse".to_owned(),
    };
    let mut gatekeeper = stack.gatekeeper(region).await;
    let answer = gatekeeper.login(request).await;
    answer.expect("signs in").into_inner()
}

async fn revoke(stack: &TestStack, region: usize, refresh_token: &str, everywhere: bool) {
    let request = RevokeRequest {
        refresh_token: refresh_token.to_owned(),
        everywhere,
    };
    let mut gatekeeper = stack.gatekeeper(region).await;
    gatekeeper.revoke(request).await.expect("revokes");
}

#[tokio::test]
async fn an_ended_sign_in_closes_its_sessions_in_both_regions_and_opens_no_others() {
    let mut room = Room::open().await;
    let ended = sign_in(&room.stack, WEST, "alice").await;
    let places = [WEST, ASIA];
    let mut sessions = Vec::new();
    for region in places {
        let token = &ended.access_token;
        let mut session = room.stack.session_for(region, token, "#general").await;
        session.join("#general").await;
        sessions.push(session);
    }
    revoke(&room.stack, WEST, &ended.refresh_token, false).await;
    for session in sessions {
        closes(session, "token_revoked").await;
    }
    for region in places {
        let route = room
            .stack
            .resolve(region, &room.bystander.token, "#general");
        let endpoint = route.await.endpoint;
        let mut again = RawSession::open(&endpoint).await;
        again.send_hello(&ended.access_token).await;
        closes(again, "token_revoked").await;
        let mut service = room.stack.chat(&endpoint).await;
        let request = chat::GetHistoryRequest {
            channel: "#general".to_owned(),
            ..Default::default()
        };
        let read = service.get_history(bearer(&ended.access_token, request));
        assert_eq!(code(read.await), "token_revoked");
    }
    let renewal = Frame::Reauthenticate(chat::Reauthenticate {
        access_token: ended.access_token,
    });
    room.refuses(renewal, "token_revoked").await;
    let request = RefreshRequest {
        refresh_token: ended.refresh_token,
    };
    let refreshed = room.stack.gatekeeper(WEST).await.refresh(request).await;
    assert_eq!(code(refreshed), "bad_refresh_token");
}

#[tokio::test]
async fn signing_out_everywhere_ends_every_session_of_the_user_and_of_nobody_else() {
    let mut room = Room::open().await;
    let here = sign_in(&room.stack, ASIA, "alice").await;
    let token = &here.access_token;
    let in_asia = room.stack.session_for(ASIA, token, "#general").await;
    revoke(&room.stack, ASIA, &here.refresh_token, true).await;
    closes(in_asia, "token_revoked").await;
    let everywhere = room.culprit.closed().await;
    assert_eq!(everywhere.code, "token_revoked");
    room.others_go_on().await;
}

#[tokio::test]
async fn a_shard_that_starts_later_knows_who_was_revoked() {
    let mut stack = TestStack::start().await;
    let ended = stack.register(WEST, "alice").await;
    revoke(&stack, WEST, &ended.refresh_token, false).await;
    stack.add_shard(WEST).await.expect("starts");
    stack.settled().await.expect("settles");
    let newest = stack.regions[WEST].shards.last().expect("a shard");
    let mut session = RawSession::open(&newest.address.to_string()).await;
    session.send_hello(&ended.access_token).await;
    closes(session, "token_revoked").await;
}
