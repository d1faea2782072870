//! One client's stream: its targets, and the commits as they come.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{
    broadcast::{self, error::RecvError, error::TryRecvError},
    mpsc,
};
use tokio_stream::StreamExt;
use tonic::{Status, Streaming};

use super::{
    responses::{self, Batch},
    target::{Change, Target},
};
use crate::{
    faults::{Faults, Service as Faulty},
    firestore::{
        database::{Commit, Database},
        error::Error,
        proto::v1::{
            self, ListenRequest, ListenResponse, listen_request::TargetChange,
            target_change::TargetChangeType,
        },
        time::Time,
    },
};

/// How often a quiet stream gets a newer resume token.
const QUIET: Duration = Duration::from_secs(30);

/// Where the ids begin of targets whose client leaves the choice to the server.
const FIRST_CHOSEN_ID: i32 = 1 << 30;

pub(super) struct Session {
    database: Arc<Database>,
    faults: Faults,
    answers: mpsc::Sender<Result<ListenResponse, Status>>,
    commits: broadcast::Receiver<Arc<Commit>>,
    /// Commits taken from `commits` that are later than what was asked for.
    ahead: VecDeque<Arc<Commit>>,
    targets: BTreeMap<i32, Target>,
    /// All targets are as of this time.
    time: Time,
}

/// Nobody reads the answers any more.
struct Left;

impl Session {
    pub(super) fn new(
        database: Arc<Database>,
        faults: Faults,
        answers: mpsc::Sender<Result<ListenResponse, Status>>,
    ) -> Self {
        let commits = database.subscribe();
        Self {
            database,
            faults,
            answers,
            commits,
            ahead: VecDeque::new(),
            targets: BTreeMap::new(),
            time: Time::MIN,
        }
    }

    /// Serves the client until it leaves or its requests end.
    pub(super) async fn run(
        mut self,
        first: ListenRequest,
        mut requests: Streaming<ListenRequest>,
    ) -> Result<(), Status> {
        if self.request(first).await?.is_err() {
            return Ok(());
        }
        let mut quiet = tokio::time::interval_at(tokio::time::Instant::now() + QUIET, QUIET);
        let faults = self.faults.clone();
        loop {
            let mut settings = faults.changes();
            // The sender is in `faults`: waiting can't fail.
            drop(
                settings
                    .wait_for(|settings| !settings.calls(Faulty::Firestore).paused)
                    .await,
            );
            let sent = match self.ahead.pop_front() {
                Some(commit) => self.follow(&commit).await,
                None => tokio::select! {
                    request = requests.next() => match request.transpose()? {
                        Some(request) => self.request(request).await?,
                        None => return Ok(()),
                    },
                    commit = self.commits.recv() => match commit {
                        Ok(commit) => self.follow(&commit).await,
                        Err(RecvError::Lagged(_)) => self.refresh().await,
                        Err(RecvError::Closed) => return Ok(()),
                    },
                    _ = quiet.tick() => self.report().await,
                },
            };
            if sent.is_err() {
                return Ok(());
            }
        }
    }

    async fn send(&self, response: ListenResponse) -> Result<(), Left> {
        self.answers.send(Ok(response)).await.map_err(|_| Left)
    }

    /// Adds or removes a target. An error ends the stream.
    async fn request(&mut self, request: ListenRequest) -> Result<Result<(), Left>, Error> {
        if request.database != self.database.name.to_string() {
            return Err(Error::invalid(
                "All requests of a stream must name the same database.",
            ));
        }
        match request.target_change {
            Some(TargetChange::AddTarget(target)) => self.add(target).await,
            Some(TargetChange::RemoveTarget(id)) => {
                if self.targets.remove(&id).is_none() {
                    return Err(Error::NotFound(format!("Target id not found: {id}")));
                }
                let removed = responses::target(TargetChangeType::Remove, id, None);
                Ok(self.send(removed).await)
            }
            None => Err(Error::invalid(
                "Request has neither a target to add nor to remove.",
            )),
        }
    }

    async fn add(&mut self, target: v1::Target) -> Result<Result<(), Left>, Error> {
        let id = match target.target_id {
            0 => (FIRST_CHOSEN_ID..)
                .find(|id| !self.targets.contains_key(id))
                .unwrap_or(FIRST_CHOSEN_ID),
            id => id,
        };
        if self.targets.contains_key(&id) {
            return Err(Error::invalid(format!("Target id already in use: {id}")));
        }
        Ok(match Target::parse(&self.database.name, target) {
            Ok(target) => self.start(id, target).await,
            Err(refusal) => self.send(responses::refused(id, refusal)).await,
        })
    }

    /// Sends a new target's documents and makes it as current as the others.
    async fn start(&mut self, id: i32, mut target: Target) -> Result<(), Left> {
        let resume = target.resume.take();
        let (time, resumed, mut changes) = self.database.observe(|store, now| {
            let kept = resume.filter(|time| *time >= store.horizon() && *time <= now);
            if let Some(time) = kept {
                target.recall(store, time);
            }
            (now, kept.is_some(), target.refresh(store, now))
        });
        if !resumed {
            for path in target.missing() {
                changes.insert(path, Change::Deleted);
            }
        }
        self.catch_up(time).await?;
        self.send(responses::target(TargetChangeType::Add, id, None))
            .await?;
        if resume.is_some() && !resumed {
            self.send(responses::target(TargetChangeType::Reset, id, None))
                .await?;
        }
        let mut batch = Batch::default();
        batch.add(id, &target, changes);
        self.send_changes(batch, time).await?;
        if resumed {
            self.send(responses::existence(id, target.count())).await?;
        }
        self.send(responses::target(TargetChangeType::Current, id, Some(time)))
            .await?;
        if target.once {
            self.send(responses::target(TargetChangeType::Remove, id, None))
                .await?;
        } else {
            self.targets.insert(id, target);
        }
        self.time = time;
        self.send(responses::snapshot(time)).await
    }

    /// Brings the targets up to `time`; later commits wait.
    async fn catch_up(&mut self, time: Time) -> Result<(), Left> {
        loop {
            let commit = match self.ahead.pop_front() {
                Some(commit) => commit,
                None => match self.commits.try_recv() {
                    Ok(commit) => commit,
                    Err(TryRecvError::Lagged(_)) => {
                        self.refresh_at(time).await?;
                        continue;
                    }
                    Err(TryRecvError::Empty | TryRecvError::Closed) => return Ok(()),
                },
            };
            if commit.time > time {
                self.ahead.push_front(commit);
                return Ok(());
            }
            self.follow(&commit).await?;
        }
    }

    /// Sends what a commit changes.
    async fn follow(&mut self, commit: &Commit) -> Result<(), Left> {
        if commit.time <= self.time {
            return Ok(());
        }
        self.time = commit.time;
        let mut batch = Batch::default();
        for (id, target) in &mut self.targets {
            let changes = if target.must_rerun(commit) {
                self.database
                    .observe(|store, _| target.refresh(store, commit.time))
            } else {
                target.follow(commit)
            };
            batch.add(*id, target, changes);
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.send_changes(batch, commit.time).await?;
        self.send(responses::snapshot(commit.time)).await
    }

    /// Reads all targets afresh: more commits were missed than are kept.
    async fn refresh(&mut self) -> Result<(), Left> {
        let now = self.database.observe(|_, now| now);
        self.refresh_at(now).await
    }

    async fn refresh_at(&mut self, time: Time) -> Result<(), Left> {
        self.time = time;
        let mut batch = Batch::default();
        for (id, target) in &mut self.targets {
            let changes = self
                .database
                .observe(|store, _| target.refresh(store, time));
            batch.add(*id, target, changes);
        }
        self.send_changes(batch, time).await?;
        self.send(responses::snapshot(time)).await
    }

    /// Tells a quiet client how far it has seen.
    async fn report(&mut self) -> Result<(), Left> {
        let now = self.database.observe(|_, now| now);
        self.catch_up(now).await?;
        self.time = self.time.max(now);
        self.send(responses::snapshot(self.time)).await
    }

    async fn send_changes(&self, batch: Batch, time: Time) -> Result<(), Left> {
        for response in batch.into_responses(&self.database.name, time) {
            self.send(response).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firestore::{
        History,
        database::Databases,
        proto::v1::{listen_response::ResponseType, target},
    };

    const DATABASE: &str = "projects/p/databases/d";

    #[tokio::test]
    async fn a_quiet_streams_token_never_passes_a_commit_that_waits() {
        let name = format!("{DATABASE}/documents/a/1");
        let database = Databases::new(History::default())
            .by_name(DATABASE)
            .expect("a valid name");
        let (answers, mut told) = mpsc::channel(64);
        let mut session = Session::new(database.clone(), Faults::default(), answers);
        let target = v1::Target {
            target_id: 1,
            target_type: Some(target::TargetType::Documents(target::DocumentsTarget {
                documents: vec![name.clone()],
            })),
            ..v1::Target::default()
        };
        assert!(session.add(target).await.is_ok_and(|sent| sent.is_ok()));
        while told.try_recv().is_ok() {}
        let write = v1::Write {
            operation: Some(v1::write::Operation::Update(v1::Document {
                name,
                ..v1::Document::default()
            })),
            ..v1::Write::default()
        };
        let committed = database.commit(vec![write], &[]).expect("accepted");
        assert!(session.report().await.is_ok());
        let mut changed = false;
        let mut tokens = Vec::new();
        while let Ok(Ok(response)) = told.try_recv() {
            match response.response_type {
                Some(ResponseType::DocumentChange(_)) => changed = true,
                Some(ResponseType::TargetChange(change)) => {
                    assert!(changed, "the change comes first");
                    tokens.push(super::super::token::decode(&change.resume_token).expect("valid"));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(tokens.len(), 2, "one for the commit, one for the report");
        assert_eq!(tokens[0], committed.time);
        assert!(tokens[1] >= tokens[0]);
    }
}
