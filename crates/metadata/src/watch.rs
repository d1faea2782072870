//! Following the routing records, instead of reading them again and again.

use std::sync::Arc;

use tokio::{sync::watch, time::Instant};

use crate::{LeaseView, Ownership};

/// The routing records as a follower knows them.
#[derive(Debug, Clone, Default)]
pub struct RoutingView {
    /// Their ages are as of when the store was last heard.
    leases: Arc<[LeaseView]>,
    ownerships: Arc<[Ownership]>,
    heard: Option<Instant>,
    current: bool,
}

impl RoutingView {
    /// What the store says, heard just now.
    pub(crate) fn new(
        leases: impl IntoIterator<Item = LeaseView>,
        ownerships: impl IntoIterator<Item = Ownership>,
        heard: Instant,
    ) -> Self {
        Self {
            leases: leases.into_iter().collect(),
            ownerships: ownerships.into_iter().collect(),
            heard: Some(heard),
            current: true,
        }
    }

    /// The same, known for no more than what it was.
    pub(crate) fn lost(&mut self) {
        self.current = false;
    }

    /// Whether the store is being heard. If not, this is the last that was known, and the store may
    /// be asked.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.current
    }

    /// When the store was last heard; none if it never was, and then nothing is known.
    #[must_use]
    pub fn heard(&self) -> Option<Instant> {
        self.heard
    }

    /// All leases, expired ones included, as old as they were when the store was last heard.
    #[must_use]
    pub fn leases_as_heard(&self) -> &[LeaseView] {
        &self.leases
    }

    /// All leases, expired ones included, as old as they are now.
    pub fn leases(&self) -> impl Iterator<Item = LeaseView> {
        let since = self.heard.map(|heard| heard.elapsed()).unwrap_or_default();
        self.leases.iter().map(move |view| LeaseView {
            lease: view.lease.clone(),
            age: view.age + since,
            asked: view.asked + since,
        })
    }

    /// The partitions that ever had an owner, by number.
    #[must_use]
    pub fn ownerships(&self) -> &[Ownership] {
        &self.ownerships
    }
}

/// Follows a store's routing records until it is dropped: see [`Routing::watch`].
///
/// [`Routing::watch`]: crate::Routing::watch
#[derive(Debug, Clone)]
pub struct RoutingWatch {
    views: watch::Receiver<RoutingView>,
    /// The views are of before this watch, until one is current.
    late: bool,
}

impl RoutingWatch {
    /// Whoever sends ends when nobody follows any more.
    pub(crate) fn new(views: watch::Receiver<RoutingView>) -> Self {
        let late = {
            let view = views.borrow();
            view.heard.is_some() && !view.current
        };
        Self { views, late }
    }

    /// What is known now.
    pub fn latest(&mut self) -> RoutingView {
        let mut view = self.views.borrow_and_update().clone();
        self.late &= !view.is_current();
        if self.late {
            return RoutingView::default();
        }
        if self.views.has_changed().is_err() {
            view.lost();
        }
        view
    }

    /// Whether something may have changed since the last [`RoutingWatch::latest`].
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.views.has_changed().unwrap_or_default()
    }

    /// Resolves once something may have changed since the last [`RoutingWatch::latest`]: a record,
    /// or whether the store is heard. A lease that runs out is no change. Can be dropped and called
    /// again.
    pub async fn changed(&mut self) {
        if self.views.changed().await.is_err() {
            // The store is gone, and there will never be anything new.
            std::future::pending().await
        }
    }
}
