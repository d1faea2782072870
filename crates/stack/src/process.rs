//! One process, and what it says.

use std::{process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    net::TcpStream,
    process::{Child, Command},
    sync::mpsc,
    time::timeout,
};

use crate::Service;

/// Between looks at whether it serves.
const LOOK: Duration = Duration::from_millis(20);

/// How a process ended: an exit status, or that it could not be waited for.
pub type Status = std::io::Result<std::process::ExitStatus>;

/// A line that a process said, and the name of who said it.
pub(crate) type Line = (String, String);

/// Why a process does not serve.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It was not built.
    #[error("{program} can't be started ({source}): run `cargo build --workspace --bins` first")]
    Spawn {
        /// What was tried.
        program: String,
        /// Why not.
        source: std::io::Error,
    },
    /// It ended at once.
    #[error("{name} ended at its start ({status}): see what it said")]
    Ended {
        /// Which.
        name: String,
        /// How.
        status: String,
    },
    /// It never served.
    #[error("{name} does not serve after {waited:?}")]
    Silent {
        /// Which.
        name: String,
        /// How long it was waited for.
        waited: Duration,
    },
}

/// A running process, killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    /// What it was started from.
    pub service: Service,
    child: Child,
}

impl Process {
    /// Starts it, in a process group of its own: a Ctrl-C in the terminal is not for it. Its lines go
    /// to `lines`, for as long as somebody takes them.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn start(
        service: &Service,
        lines: &mpsc::UnboundedSender<Line>,
    ) -> Result<Self, StartError> {
        let spawned = Command::new(&service.program)
            .args(&service.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let mut child = spawned.map_err(|source| StartError::Spawn {
            program: service.program.display().to_string(),
            source,
        })?;
        if let Some(out) = child.stdout.take() {
            tokio::spawn(forward(out, service.name.clone(), lines.clone()));
        }
        if let Some(err) = child.stderr.take() {
            tokio::spawn(forward(err, service.name.clone(), lines.clone()));
        }
        Ok(Self {
            service: service.clone(),
            child,
        })
    }

    /// Waits until it accepts connections.
    ///
    /// # Errors
    /// When it ends before, or takes longer than `patience`.
    pub async fn serving(&mut self, patience: Duration) -> Result<(), StartError> {
        let address = self.service.address.clone();
        let looking = async {
            while TcpStream::connect(&address).await.is_err() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let name = self.service.name.clone();
        tokio::select! {
            status = self.child.wait() => Err(StartError::Ended { name, status: said(&status) }),
            looked = timeout(patience, looking) => {
                looked.map_err(|_| StartError::Silent { name, waited: patience })
            }
        }
    }

    /// Sends a signal; one to a process that has ended does nothing.
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // It may have ended meanwhile.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> Status {
        self.child.wait().await
    }

    /// Tells it to stop, and kills it if it does not within the grace. How it ended.
    pub async fn stop(&mut self, grace: Duration) -> Status {
        self.signal(Signal::TERM);
        match timeout(grace, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                self.signal(Signal::KILL);
                self.child.wait().await
            }
        }
    }
}

/// How a process ended, for people.
pub(crate) fn said(status: &Status) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(err) => err.to_string(),
    }
}

async fn forward(from: impl AsyncRead + Unpin, name: String, lines: mpsc::UnboundedSender<Line>) {
    let mut said = BufReader::new(from).lines();
    while let Ok(Some(line)) = said.next_line().await {
        if lines.send((name.clone(), line)).is_err() {
            return;
        }
    }
}
