//! A channel in which one session misbehaves, and others must not notice.

use infrachat_local::LocalConfig;
use infrachat_proto::chat::v1::{self as chat, client_frame::Kind as Frame, server_event::Kind};
use infrachat_types::{CloseCode, ErrorCode};

use crate::{RawSession, TestStack, WEST};

/// `#general`, with a session that misbehaves and two that don't.
#[derive(Debug)]
pub struct Room {
    /// Where it is.
    pub stack: TestStack,
    /// alice's session, which the test drives.
    pub culprit: RawSession,
    /// bob's session, which must hear every message and nothing else.
    pub bystander: RawSession,
    /// Another session of bob's, on the same shard.
    pub speaker: RawSession,
    said: usize,
}

impl Room {
    /// On a stack as tests need it.
    pub async fn open() -> Self {
        Self::open_with(|_| {}).await
    }

    /// The same, with a changed configuration.
    pub async fn open_with(change: impl FnOnce(&mut LocalConfig)) -> Self {
        let stack = TestStack::start_with(change).await;
        let culprit = stack.joined(WEST, "alice", "#general").await;
        let bystander = stack.joined(WEST, "bob", "#general").await;
        let token = bystander.token.clone();
        let mut speaker = stack.session_for(WEST, &token, "#general").await;
        speaker.join("#general").await;
        Self {
            stack,
            culprit,
            bystander,
            speaker,
            said: 0,
        }
    }

    /// The shard that serves the channel.
    pub async fn endpoint(&self) -> String {
        let route = self.stack.resolve(WEST, &self.bystander.token, "#general");
        route.await.endpoint
    }

    /// The culprit sends a frame, which is refused; everyone goes on, the culprit too.
    pub async fn refuses(&mut self, frame: Frame, code: &str) {
        self.culprit.send(frame).await;
        self.refused(code).await;
        self.all_go_on().await;
    }

    /// The culprit hears that something was refused.
    pub async fn refused(&mut self, code: &str) -> chat::Error {
        let error = self.culprit.error().await;
        assert_eq!(error.code, code, "{}", error.message);
        let known = ErrorCode::from_text(code).expect("a documented code");
        assert_eq!(error.retryable, known.retryable());
        assert!(!error.message.is_empty());
        error
    }

    /// The culprit's session is alive, and what it says arrives; so does what others say.
    pub async fn all_go_on(&mut self) {
        let text = self.next_text();
        self.culprit.say("#general", &text).await;
        self.heard(&text).await;
        self.others_go_on().await;
    }

    /// What others say arrives.
    pub async fn others_go_on(&mut self) {
        let text = self.next_text();
        self.speaker.say("#general", &text).await;
        self.heard(&text).await;
    }

    /// The bystander hears this next, and no refusal, gap, redirect or close before it.
    pub async fn heard(&mut self, text: &str) {
        loop {
            match self.bystander.next().await {
                Kind::Message(message) => return assert_eq!(message.body, text.as_bytes()),
                Kind::Presence(_) => {}
                other => panic!("the bystander noticed {other:?}"),
            }
        }
    }

    fn next_text(&mut self) -> String {
        self.said += 1;
        format!("still here {}", self.said)
    }
}

/// Expects a session to be closed with a code, which says whether to reconnect as documented.
pub async fn closes(mut session: RawSession, code: &str) {
    let close = session.closed().await;
    assert_eq!(close.code, code, "{}", close.reason);
    let known = CloseCode::from_text(code).expect("a documented code");
    assert_eq!(close.reconnect, known.reconnect());
    assert!(!close.reason.is_empty());
}
