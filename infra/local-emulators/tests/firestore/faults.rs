//! Faults on demand.

use infrachat_emulators::{faults::Service, firestore::History};
use tonic::Code;

use crate::support::{commit, int, number, set, soon, start_ours, write};

#[tokio::test]
async fn a_method_told_to_refuse_is_unavailable_and_changes_nothing() {
    let (emulator, faults) = start_ours(History::default()).await;
    let mut raw = emulator.raw().await;
    faults.change(|settings| {
        let calls = settings.calls_mut(Service::Firestore);
        calls.refuse.insert("Commit".to_owned(), 1.0);
    });
    let refused = raw
        .commit(commit(vec![set("a/1", [])]))
        .await
        .expect_err("told to refuse");
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(number(&mut raw, "a/1").await, None, "reads go on");
    faults.change(|settings| settings.calls_mut(Service::Firestore).refuse.clear());
    write(&mut raw, vec![set("a/1", [])]).await;
}

#[tokio::test]
async fn a_paused_emulator_answers_when_it_goes_on() {
    let (emulator, faults) = start_ours(History::default()).await;
    let mut raw = emulator.raw().await;
    let pause = |paused| {
        faults.change(|settings| settings.calls_mut(Service::Firestore).paused = paused);
    };
    pause(true);
    let mut other = raw.clone();
    let waiting = tokio::spawn(async move {
        write(&mut other, vec![set("a/1", [("n", int(1))])]).await;
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    pause(false);
    soon(waiting).await.expect("it is answered");
    assert_eq!(number(&mut raw, "a/1").await, Some(1));
}
