//! The `Write` stream: commits one after the other on one stream.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{Answers, check_size};
use crate::{
    faults::{Faults, Service as Faulty},
    firestore::{
        database::{Database, Databases},
        error::Error,
        proto::v1::{WriteRequest, WriteResponse},
    },
};

/// Opens the stream. Its first request names the database and is answered with the stream's id; each
/// later one is one commit. A commit that is refused ends the stream.
pub(super) fn open(
    databases: Arc<Databases>,
    faults: Faults,
    requests: Streaming<WriteRequest>,
    stop: CancellationToken,
) -> Answers<WriteResponse> {
    let (answers, receiver) = mpsc::channel(16);
    let mut breaker = faults.breaker(Faulty::Firestore);
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = serve(&databases, &faults, requests, &answers) => ended,
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

async fn serve(
    databases: &Databases,
    faults: &Faults,
    mut requests: Streaming<WriteRequest>,
    answers: &mpsc::Sender<Result<WriteResponse, Status>>,
) -> Result<(), Status> {
    let Some(first) = requests.next().await.transpose()? else {
        return Ok(());
    };
    let database = databases.by_name(&first.database)?;
    if !first.writes.is_empty() {
        return Err(Error::invalid("The first request of a stream must have no writes.").into());
    }
    let stream_id = if first.stream_id.is_empty() {
        format!("{:016x}", rand::random::<u64>())
    } else {
        first.stream_id
    };
    let mut token = 0_u64;
    let opened = WriteResponse {
        stream_id: stream_id.clone(),
        stream_token: token.to_be_bytes().to_vec(),
        ..WriteResponse::default()
    };
    if answers.send(Ok(opened)).await.is_err() {
        return Ok(());
    }
    while let Some(request) = requests.next().await.transpose()? {
        faults.admit(Faulty::Firestore, "Write").await?;
        token += 1;
        let answer = write(&database, request, &stream_id, token)?;
        if answers.send(Ok(answer)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn write(
    database: &Database,
    request: WriteRequest,
    stream_id: &str,
    token: u64,
) -> Result<WriteResponse, Error> {
    check_size(&request)?;
    if !request.database.is_empty() && request.database != database.name.to_string() {
        return Err(Error::invalid(
            "All requests of a stream must name the same database.",
        ));
    }
    let committed = database.commit(request.writes, &[])?;
    Ok(WriteResponse {
        stream_id: stream_id.to_owned(),
        stream_token: token.to_be_bytes().to_vec(),
        write_results: committed.results,
        commit_time: Some(committed.time.into()),
    })
}
