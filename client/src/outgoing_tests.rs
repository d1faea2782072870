use std::sync::Arc;

use tokio::sync::Semaphore;

use super::*;

struct Sender {
    outgoing: Outgoing,
    channel: ChannelName,
    waiting: Arc<Semaphore>,
    now: Instant,
    shard: Shard,
}

impl Sender {
    fn new() -> Self {
        Self {
            outgoing: Outgoing::default(),
            channel: ChannelName::new("#general").expect("valid"),
            waiting: Arc::new(Semaphore::new(100)),
            now: Instant::now(),
            shard: shard("us-west1", "shard-0"),
        }
    }

    fn say(&mut self, body: &'static str) -> oneshot::Receiver<Result<Ack, ClientError>> {
        let (reply, answer) = oneshot::channel();
        let permit = Arc::clone(&self.waiting).try_acquire_owned().expect("room");
        self.outgoing.push(Draft {
            id: ClientMessageId::random(),
            body: Bytes::from_static(body.as_bytes()),
            deadline: self.now + Duration::from_secs(30),
            reply,
            permit,
        });
        answer
    }

    /// Everything that is due, as (body, attempt).
    fn wire(&mut self) -> Vec<chat::Publish> {
        std::iter::from_fn(|| self.outgoing.next_to_send(&self.channel, self.now)).collect()
    }

    fn ack(&mut self, sent: &chat::Publish, millis: u64) {
        self.outgoing.acked(
            id(sent),
            MessageId::floor_of(millis),
            false,
            &self.shard,
            self.now,
        );
    }

    fn stable(&mut self, millis: u64) {
        self.outgoing.stable(MessageId::floor_of(millis), self.now);
    }

    fn joins(&mut self, region: &str, name: &str) {
        self.outgoing.connection_lost();
        self.shard = shard(region, name);
        self.outgoing.joined_on(&self.shard, self.now);
    }

    fn refuse(&mut self, sent: &chat::Publish, code: ErrorCode, wait: Duration) {
        self.outgoing
            .refused(id(sent), Refusal::new(code, "no"), wait, self.now);
    }
}

fn shard(region: &str, name: &str) -> Shard {
    Shard {
        name: name.into(),
        region: region.into(),
    }
}

fn id(sent: &chat::Publish) -> ClientMessageId {
    ClientMessageId::from_bytes(&sent.client_message_id).expect("16 bytes")
}

fn bodies(sent: &[chat::Publish]) -> Vec<(&str, u32)> {
    sent.iter()
        .map(|publish| {
            (
                std::str::from_utf8(&publish.body).expect("UTF-8"),
                publish.attempt,
            )
        })
        .collect()
}

#[tokio::test]
async fn each_message_names_the_one_before_it_and_the_newest_id() {
    let mut sender = Sender::new();
    let answer = sender.say("a");
    let _b = sender.say("b");
    let first = sender.wire();
    assert_eq!(first[0].after, None);
    let after = first[1].after.as_ref().expect("a comes before");
    assert_eq!(after.client_message_id, first[0].client_message_id);
    assert_eq!(after.message_id, "");
    sender.ack(&first[0], 5);
    sender.ack(&first[1], 6);
    sender.stable(6);
    assert!(answer.await.expect("answered").is_ok());
    let _c = sender.say("c");
    let after = sender.wire()[0].after.clone().expect("b comes before");
    assert_eq!(after.client_message_id, first[1].client_message_id);
    assert_eq!(after.message_id, MessageId::floor_of(6).to_string());
}

#[test]
fn what_is_refused_for_now_is_sent_again_with_all_that_followed_it_in_order() {
    let mut sender = Sender::new();
    let _answers = ["a", "b", "c"].map(|body| sender.say(body));
    let first = sender.wire();
    let wait = Duration::from_millis(100);
    sender.refuse(&first[0], ErrorCode::Unavailable, wait);
    sender.refuse(&first[1], ErrorCode::OutOfOrder, wait);
    assert!(
        sender.wire().is_empty(),
        "nothing passes the one that waits"
    );
    assert_eq!(
        sender.outgoing.next_time(sender.now),
        Some(sender.now + wait)
    );
    sender.now += wait;
    let next = sender.outgoing.next_time(sender.now);
    assert!(
        next > Some(sender.now),
        "what is due already waits for a session, not for time: {next:?}"
    );
    let again = sender.wire();
    assert_eq!(bodies(&again), [("a", 2), ("b", 2)]);
    assert_eq!(again[0].client_message_id, first[0].client_message_id);
    sender.refuse(&first[2], ErrorCode::OutOfOrder, wait);
    assert_eq!(bodies(&sender.wire()), [("c", 2)]);
}

#[tokio::test]
async fn what_can_never_succeed_fails_and_the_next_names_the_one_before_it() {
    let mut sender = Sender::new();
    let _a = sender.say("a");
    let bad = sender.say("too large");
    let first = sender.wire();
    sender.refuse(&first[1], ErrorCode::BodyTooLarge, Duration::ZERO);
    let err = bad.await.expect("answered").expect_err("refused");
    assert_eq!(err.code(), Some(ErrorCode::BodyTooLarge));
    let _c = sender.say("c");
    let after = sender.wire()[0].after.clone().expect("a comes before");
    assert_eq!(after.client_message_id, first[0].client_message_id);
}

#[test]
fn a_lost_connection_resends_what_was_not_acknowledged() {
    let mut sender = Sender::new();
    let _answers = ["a", "b", "c"].map(|body| sender.say(body));
    let first = sender.wire();
    sender.ack(&first[0], 5);
    sender.joins("us-west1", "shard-0");
    let again = sender.wire();
    assert_eq!(bodies(&again), [("b", 2), ("c", 2)]);
    assert_eq!(again[0].client_message_id, first[1].client_message_id);
}

#[test]
fn on_another_shard_what_history_may_not_have_goes_first() {
    let mut sender = Sender::new();
    let _answers = ["a", "b", "c"].map(|body| sender.say(body));
    let first = sender.wire();
    sender.ack(&first[0], 5);
    sender.ack(&first[1], 6);
    sender.stable(5);
    sender.joins("us-west1", "shard-1");
    let again = sender.wire();
    assert_eq!(bodies(&again), [("b", 2), ("c", 2)]);
    let after = again[0].after.as_ref().expect("a comes before");
    assert_eq!(
        after.message_id,
        MessageId::floor_of(5).to_string(),
        "not its own id"
    );
    assert!(!sender.outgoing.is_settled());
}

#[tokio::test]
async fn a_message_fails_at_its_deadline_and_frees_its_place() {
    let mut sender = Sender::new();
    let answer = sender.say("a");
    sender.wire();
    assert_eq!(sender.waiting.available_permits(), 99);
    sender.now += Duration::from_secs(30);
    assert_eq!(sender.outgoing.next_time(sender.now), Some(sender.now));
    sender.outgoing.expire(sender.now, Duration::from_secs(30));
    let err = answer.await.expect("answered").expect_err("timed out");
    assert!(matches!(err, ClientError::TimedOut { .. }), "{err}");
    assert_eq!(sender.waiting.available_permits(), 100);
    assert!(sender.outgoing.is_settled());
}

#[test]
fn acknowledged_messages_are_kept_within_bounds() {
    let mut sender = Sender::new();
    for millis in 0..u64::try_from(UNSTABLE).expect("small") + 50 {
        drop(sender.say("a"));
        let sent = sender.wire();
        sender.ack(&sent[0], millis);
    }
    assert_eq!(sender.outgoing.entries.len(), UNSTABLE);
}

#[test]
fn in_another_region_what_only_the_first_ones_history_has_goes_first_as_well() {
    let mut sender = Sender::new();
    let _answers = ["a", "b", "c", "d"].map(|body| sender.say(body));
    let first = sender.wire();
    for (sent, millis) in first.iter().zip([5, 6, 7]) {
        sender.ack(sent, millis);
    }
    sender.stable(6);
    sender.joins("us-west1", "shard-0");
    assert_eq!(bodies(&sender.wire()), [("d", 2)], "nothing has moved");
    sender.joins("us-west1", "shard-1");
    assert_eq!(bodies(&sender.wire()), [("c", 2), ("d", 3)]);
    sender.joins("asia-northeast1", "shard-0");
    let again = sender.wire();
    assert_eq!(bodies(&again), [("a", 2), ("b", 2), ("c", 3), ("d", 4)]);
    let after = |sent: &chat::Publish| sent.after.clone().map(|after| after.message_id);
    assert_eq!(after(&again[0]), None, "nothing came before");
    let of_a = Some(MessageId::floor_of(5).to_string());
    assert_eq!(after(&again[1]), of_a, "not its own id");
    // Nobody waits for them, however late they are acknowledged again.
    assert!(!sender.outgoing.is_settled());
    for (sent, millis) in again.iter().zip([5, 6, 7, 8]) {
        sender.ack(sent, millis);
    }
    assert!(sender.outgoing.is_settled());
}

#[test]
fn stable_messages_are_kept_for_another_region_within_bounds() {
    let mut sender = Sender::new();
    for millis in 1..=u64::try_from(STABLE).expect("small") + 10 {
        drop(sender.say("a"));
        let sent = sender.wire();
        sender.ack(&sent[0], millis);
        sender.stable(millis);
    }
    assert_eq!(sender.outgoing.entries.len(), STABLE);
    sender.now += STABLE_FOR;
    drop(sender.say("b"));
    sender.joins("asia-northeast1", "shard-0");
    assert_eq!(bodies(&sender.wire()), [("b", 1)], "too old");
}

#[test]
fn what_goes_again_is_not_too_late_for_it() {
    let mut sender = Sender::new();
    drop(sender.say("a"));
    let sent = sender.wire();
    sender.ack(&sent[0], 5);
    sender.now += Duration::from_secs(60);
    sender.joins("us-west1", "shard-1");
    sender.outgoing.expire(sender.now, Duration::from_secs(30));
    assert_eq!(bodies(&sender.wire()), [("a", 2)]);
}
