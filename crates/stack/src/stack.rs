//! All processes of a plan.

use std::time::Duration;

use futures::future::{join_all, select_all, try_join_all};
use infrachat_identity::{BadKey, ExposeSecret as _, SigningKey};
use tokio::sync::mpsc;

use crate::{
    Plan, Process, StartError,
    plan::{REGIONS, key_file},
    process::{Line, said},
};

/// How long a process may take to serve.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one may take to stop: longer than its own drain.
const GRACE: Duration = Duration::from_secs(30);
/// Before a process that ended is started again.
const PAUSE: Duration = Duration::from_secs(1);

/// Why a stack does not run.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// A process does not serve.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The signing keys can't be made.
    #[error("the signing keys can't be made: {0}")]
    Keys(#[from] BadKey),
    /// They can't be written.
    #[error("the signing keys can't be written: {0}")]
    Write(#[from] std::io::Error),
}

/// Running processes.
#[derive(Debug)]
pub struct Stack {
    /// In the order of [`Plan::services`].
    pub processes: Vec<Process>,
    lines: mpsc::UnboundedSender<Line>,
}

impl Stack {
    /// Starts all processes, and answers once each serves. What they say goes to `lines`.
    ///
    /// # Errors
    /// When one can't be started, or does not serve.
    pub async fn start(
        plan: &Plan,
        lines: mpsc::UnboundedSender<Line>,
    ) -> Result<Self, StackError> {
        for region in REGIONS {
            let file = key_file(&plan.keys, region);
            if !file.exists() {
                std::fs::write(file, SigningKey::generate()?.to_pem().expose_secret())?;
            }
        }
        let services = plan.services();
        let started = services
            .iter()
            .map(|service| Process::start(service, &lines));
        let mut processes = started.collect::<Result<Vec<_>, _>>()?;
        try_join_all(processes.iter_mut().map(|p| p.serving(PATIENCE))).await?;
        Ok(Self { processes, lines })
    }

    /// Starts every process that ends again after a moment, as Kubernetes would; never ends.
    ///
    /// # Errors
    /// When a program is gone.
    pub async fn keep_up(&mut self) -> Result<(), StackError> {
        loop {
            let ends = self.processes.iter_mut().map(|p| Box::pin(p.wait()));
            let (status, ended, rest) = select_all(ends).await;
            drop(rest);
            let service = self.processes[ended].service.clone();
            let line = format!("ended ({}); it is started again", said(&status));
            // Nobody may be listening.
            drop(self.lines.send((service.name.clone(), line)));
            tokio::time::sleep(PAUSE).await;
            self.processes[ended] = Process::start(&service, &self.lines)?;
        }
    }

    /// The process of this name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn process(&mut self, name: &str) -> &mut Process {
        let found = self.processes.iter_mut().find(|p| p.service.name == name);
        found.unwrap_or_else(|| panic!("there is no process {name}"))
    }

    /// Starts a process that has ended again, and answers once it serves.
    ///
    /// # Errors
    /// When it does not.
    pub async fn restart(&mut self, name: &str) -> Result<(), StartError> {
        let lines = self.lines.clone();
        let process = self.process(name);
        *process = Process::start(&process.service, &lines)?;
        process.serving(PATIENCE).await
    }

    /// Stops all processes, the shards before what they ask. How each ended.
    pub async fn stop(mut self) -> Vec<(String, crate::Status)> {
        let (shards, others): (Vec<_>, Vec<_>) = self
            .processes
            .iter_mut()
            .partition(|process| process.service.program.ends_with("chat-shard"));
        let mut ended = Vec::new();
        for group in [shards, others] {
            let stopping = group
                .into_iter()
                .map(|process| async { (process.service.name.clone(), process.stop(GRACE).await) });
            ended.extend(join_all(stopping).await);
        }
        ended
    }
}
