//! Following leases and partitions by Firestore's `Listen`.
//!
//! Through the generated client: the listener of the fluent one connects anew by itself and doesn't
//! say so, and nobody could tell whether it still hears anything.
//!
//! Each stream has a connection of its own. A connection over which nothing comes any more may look
//! alive for minutes, and a new stream on it would hear as little.

use std::{convert::Infallible, time::Duration};

use firestore::{
    FirestoreDb,
    gcloud_sdk::{
        google::firestore::v1::{
            ListenRequest, ListenResponse, Target,
            listen_request::TargetChange,
            target::{QueryTarget, ResumeType, TargetType, query_target::QueryType},
        },
        tonic::{Code, Status, Streaming},
    },
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    FirestoreConfig,
    followed::{Followed, LEASES_TARGET, PARTITIONS_TARGET},
    open,
    query::Query,
    routing::{LEASES, PARTITIONS},
};
use crate::RoutingView;

/// The longest pause before the first attempt to connect anew; it doubles with each, up to
/// [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Why a stream ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It can go on where it stopped.
    Lost(String),
    /// What was known doesn't count: all is read again.
    Void(String),
}

fn failed(status: &Status) -> Ended {
    match status.code() {
        // The token to go on from is too old, or of a database that is no more.
        Code::InvalidArgument | Code::FailedPrecondition | Code::NotFound | Code::OutOfRange => {
            Ended::Void(status.to_string())
        }
        _ => Ended::Lost(status.to_string()),
    }
}

/// Shows what Firestore says, until nobody looks any more.
pub(super) async fn listen(config: FirestoreConfig, views: watch::Sender<RoutingView>) {
    let listener = Listener {
        config,
        views: &views,
        followed: Followed::default(),
    };
    tokio::select! {
        never = listener.run() => never,
        () = views.closed() => {}
    }
}

struct Listener<'a> {
    config: FirestoreConfig,
    views: &'a watch::Sender<RoutingView>,
    followed: Followed,
}

impl Listener<'_> {
    async fn run(mut self) {
        let mut pause = PAUSE;
        loop {
            let began = Instant::now();
            let Err(ended) = self.stream().await;
            if began.elapsed() > LONGEST_PAUSE {
                pause = PAUSE;
            }
            let why = match ended {
                Ended::Lost(why) => why,
                Ended::Void(why) => {
                    self.followed.forget_tokens();
                    why
                }
            };
            if self.views.borrow().is_current() {
                self.views.send_modify(RoutingView::lost);
                tracing::info!(why, "listening to the routing records anew");
            } else {
                tracing::warn!(
                    why,
                    "the routing records can't be listened to; trying again"
                );
            }
            sleep(pause.mul_f64(rand::random())).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Follows one stream for as long as it goes.
    async fn stream(&mut self) -> Result<Infallible, Ended> {
        let silence = self.config.silence;
        let silent = |_| Ended::Lost(format!("nothing was heard for {silence:?}"));
        let (_requests, mut responses) = timeout(silence, self.open()).await.map_err(silent)??;
        self.followed.begin();
        loop {
            let response = timeout(silence, responses.message())
                .await
                .map_err(silent)?;
            let Some(response) = response.map_err(|status| failed(&status))? else {
                return Err(Ended::Lost("the stream was closed".to_owned()));
            };
            if let Some(view) = self.followed.hear(response, Instant::now())? {
                self.views.send_replace(view);
            }
        }
    }

    /// Connects, and asks. The stream lasts no longer than the sender of its requests.
    async fn open(
        &self,
    ) -> Result<(mpsc::Sender<ListenRequest>, Streaming<ListenResponse>), Ended> {
        let db = Box::pin(open(&self.config)).await;
        let db = db.map_err(|err| Ended::Lost(err.to_string()))?;
        let targets = [(LEASES_TARGET, LEASES), (PARTITIONS_TARGET, PARTITIONS)];
        let (sender, requests) = mpsc::channel(targets.len());
        for (target, collection) in targets {
            let request = self.request(&db, target, collection);
            // There is room, and somebody who reads.
            let _ = sender.try_send(request);
        }
        let mut client = db.client().get();
        let responses = client.listen(ReceiverStream::new(requests)).await;
        let responses = responses.map_err(|status| failed(&status))?.into_inner();
        Ok((sender, responses))
    }

    fn request(&self, db: &FirestoreDb, target: i32, collection: &str) -> ListenRequest {
        let query = QueryTarget {
            parent: db.get_documents_path().clone(),
            query_type: Some(QueryType::StructuredQuery(Query::of(collection).into())),
        };
        let token = self.followed.token(target);
        let target = Target {
            target_id: target,
            target_type: Some(TargetType::Query(query)),
            resume_type: token.map(ResumeType::ResumeToken),
            ..Target::default()
        };
        ListenRequest {
            database: db.get_database_path().clone(),
            target_change: Some(TargetChange::AddTarget(target)),
            ..ListenRequest::default()
        }
    }
}
