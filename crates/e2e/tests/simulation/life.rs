//! How far the world lets a shard live.

use std::{sync::Arc, time::Duration};

use infrachat_types::ShardId;
use tokio::sync::watch;

use crate::trace::Trace;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Well,
    CutOff,
    Dead,
}

/// One life of a shard, as far as the world lets it have one.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    pub(crate) name: ShardId,
    trace: Arc<Trace>,
    state: Arc<watch::Sender<State>>,
    /// Its renewals don't get through, and all else does.
    pub(crate) late: Arc<watch::Sender<bool>>,
}

impl Life {
    pub(crate) fn new(name: ShardId, trace: Arc<Trace>) -> Self {
        Self {
            name,
            trace,
            state: Arc::new(watch::Sender::new(State::Well)),
            late: Arc::default(),
        }
    }

    /// Nothing of it gets anywhere any more.
    pub(crate) fn end(&self) {
        self.note(format_args!("ends"));
        self.state.send_replace(State::Dead);
    }

    /// Nothing gets to it or from it for a while.
    pub(crate) async fn cut_off(&self, time: Duration) {
        self.state.send_if_modified(|state| {
            let well = *state == State::Well;
            if well {
                *state = State::CutOff;
            }
            well
        });
        tokio::time::sleep(time).await;
        self.reconnect();
    }

    pub(crate) async fn renews_late(&self, time: Duration) {
        self.late.send_replace(true);
        tokio::time::sleep(time).await;
        self.late.send_replace(false);
    }

    /// Nothing is wrong with it any more, unless it is over.
    pub(crate) fn mend(&self) {
        self.late.send_replace(false);
        self.reconnect();
    }

    fn reconnect(&self) {
        self.state.send_if_modified(|state| {
            let cut_off = *state == State::CutOff;
            if cut_off {
                *state = State::Well;
            }
            cut_off
        });
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is(State::Dead)
    }

    pub(crate) fn is_well(&self) -> bool {
        self.is(State::Well)
    }

    fn is(&self, state: State) -> bool {
        *self.state.borrow() == state
    }

    pub(crate) fn note(&self, event: std::fmt::Arguments<'_>) {
        self.trace.note(format_args!("{} {event}", self.name));
    }

    /// Waits until something gets through; for ever when it is dead.
    pub(crate) async fn pass(&self) {
        let mut state = self.state.subscribe();
        if state.wait_for(|state| *state == State::Well).await.is_err() {
            std::future::pending().await
        }
    }

    pub(crate) async fn ended(&self) {
        let mut state = self.state.subscribe();
        drop(state.wait_for(|state| *state == State::Dead).await);
    }

    /// There and back.
    pub(crate) async fn through<T>(&self, call: impl Future<Output = T>) -> T {
        self.pass().await;
        self.note(format_args!("asks"));
        let answer = call.await;
        self.pass().await;
        self.note(format_args!("is answered"));
        answer
    }
}
