//! The `Listen` stream: documents and queries kept up to date.
//!
//! All targets of a stream are always as of one time. A commit is sent as its changes and then one
//! snapshot with a resume token, so a client that resumes gets exactly what it missed as long as
//! past versions are kept; else its targets are reset and sent whole.

mod responses;
mod session;
mod target;
mod token;

use std::{pin::Pin, sync::Arc};

use session::Session;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{
    database::Databases,
    proto::v1::{ListenRequest, ListenResponse},
};
use crate::faults::{Faults, Service};

/// Messages that may wait for a slow client before its commits do.
const PENDING: usize = 256;

/// Opens a stream. It lasts until the client closes it, asks for what makes no sense, or `stop`.
pub(super) fn open(
    databases: Arc<Databases>,
    faults: Faults,
    mut requests: Streaming<ListenRequest>,
    stop: CancellationToken,
) -> Pin<Box<dyn Stream<Item = Result<ListenResponse, Status>> + Send>> {
    let (answers, receiver) = mpsc::channel(PENDING);
    let mut breaker = faults.breaker(Service::Firestore);
    tokio::spawn(async move {
        let listening = async {
            let Some(first) = requests.next().await.transpose()? else {
                return Ok(());
            };
            let database = databases.by_name(&first.database)?;
            Session::new(database, faults, answers.clone())
                .run(first, requests)
                .await
        };
        let ended: Result<(), Status> = tokio::select! {
            ended = listening => ended,
            () = answers.closed() => Ok(()),
            broken = breaker.broken() => Err(broken),
            () = stop.cancelled() => Err(Status::unavailable("The emulator is stopping.")),
        };
        if let Err(status) = ended {
            // A client that has left needs no answer.
            let _ = answers.send(Err(status)).await;
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}
