use super::*;

const ALICE: usize = 0;
const BOB: usize = 1;

/// Alice and Bob are there, Carol is not.
fn ledger() -> Ledger {
    let ledger = Ledger::new(&["alice", "bob", "carol"].map(str::to_owned)).expect("valid");
    ledger.joined(ALICE);
    ledger.joined(BOB);
    ledger
}

fn say(ledger: &Ledger, sender: usize) -> ClientMessageId {
    let (number, id) = ledger.publish(sender, || {
        let id = ClientMessageId::random();
        (id, id)
    });
    ledger.acknowledged(number);
    id
}

#[test]
fn everything_once_and_in_order_passes() {
    let ledger = ledger();
    for _ in 0..3 {
        let id = say(&ledger, ALICE);
        ledger.delivered(BOB, id);
    }
    let tally = ledger.tally();
    assert!(tally.passed());
    assert_eq!((tally.sent, tally.expected, tally.delivered), (3, 3, 3));
    assert_eq!(ledger.progress().outstanding, 0);
}

#[test]
fn a_missing_delivery_fails_and_is_named() {
    let ledger = ledger();
    say(&ledger, ALICE);
    let tally = ledger.tally();
    assert!(!tally.passed());
    assert_eq!((tally.expected, tally.missing), (1, 1));
    assert!(
        tally.offenders[0].contains("never came to bob"),
        "{:?}",
        tally.offenders
    );
    assert_eq!(ledger.progress().outstanding, 1);
}

#[test]
fn a_repeated_delivery_fails() {
    let ledger = ledger();
    let id = say(&ledger, ALICE);
    ledger.delivered(BOB, id);
    ledger.delivered(BOB, id);
    let tally = ledger.tally();
    assert!(!tally.passed());
    assert_eq!((tally.duplicated, tally.delivered), (1, 1));
}

#[test]
fn a_reordered_delivery_fails() {
    let ledger = ledger();
    let [first, second] = [say(&ledger, ALICE), say(&ledger, ALICE)];
    ledger.delivered(BOB, second);
    ledger.delivered(BOB, first);
    let tally = ledger.tally();
    assert!(!tally.passed());
    assert_eq!((tally.out_of_order, tally.missing), (1, 0));
}

#[test]
fn different_senders_have_no_order_between_them() {
    let ledger = ledger();
    ledger.joined(2);
    let [first, second] = [say(&ledger, ALICE), say(&ledger, 2)];
    for (receiver, id) in [(BOB, second), (BOB, first), (ALICE, second), (2, first)] {
        ledger.delivered(receiver, id);
    }
    assert!(ledger.tally().passed());
}

#[test]
fn a_senders_own_message_must_not_come_back() {
    let ledger = ledger();
    let id = say(&ledger, ALICE);
    ledger.delivered(BOB, id);
    ledger.delivered(ALICE, id);
    let tally = ledger.tally();
    assert!(!tally.passed());
    assert_eq!(tally.echoed, 1);
}

#[test]
fn who_was_not_there_is_owed_nothing_and_may_get_it_once() {
    let ledger = ledger();
    let id = say(&ledger, ALICE);
    ledger.delivered(BOB, id);
    ledger.joined(2);
    assert!(ledger.tally().passed());
    ledger.delivered(2, id);
    assert!(ledger.tally().passed());
    assert_eq!(ledger.tally().optional, 1);
    ledger.delivered(2, id);
    assert!(!ledger.tally().passed());
}

#[tokio::test]
async fn who_leaves_is_still_owed_what_was_said_before_and_nothing_after() {
    let ledger = ledger();
    let before = say(&ledger, ALICE);
    ledger.leaving(BOB);
    say(&ledger, ALICE);
    assert_eq!(ledger.tally().missing, 1);
    ledger.delivered(BOB, before);
    ledger.settled(BOB).await;
    ledger.left(BOB);
    assert!(ledger.tally().passed());
}

#[test]
fn a_rejoin_while_leaving_is_not_being_there() {
    let ledger = ledger();
    ledger.leaving(BOB);
    ledger.joined(BOB);
    say(&ledger, ALICE);
    assert_eq!(ledger.tally().expected, 0);
}

#[test]
fn what_was_never_acknowledged_is_owed_to_nobody() {
    let ledger = ledger();
    let (number, ()) = ledger.publish(ALICE, || (ClientMessageId::random(), ()));
    assert_eq!(ledger.progress().outstanding, 2);
    ledger.failed(number);
    let tally = ledger.tally();
    assert!(tally.passed());
    assert_eq!((tally.failed, tally.expected), (1, 0));
    assert_eq!(ledger.progress().outstanding, 0);
}
