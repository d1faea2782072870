//! A `redis-server` process for one test.

use std::{
    io::ErrorKind,
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often another port is tried, when somebody else took the one that was free.
const ATTEMPTS: usize = 10;

/// Why there is no server to test against. A test fails by it: it never passes untested.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It is not installed.
    #[error("redis-server is missing: apt-get install redis-server")]
    Missing,
    /// The machine refused a file, a port or a process.
    #[error("redis-server can't be started: {0}")]
    Io(#[from] std::io::Error),
    /// It ended, or it never answered.
    #[error("redis-server does not answer; it said:\n{0}")]
    Silent(String),
}

/// A running server with nothing in it, killed when this is dropped.
///
/// It writes every change to its append-only file, so that [`RedisServer::start_again`] finds what
/// was there before [`RedisServer::stop`].
#[derive(Debug)]
pub struct RedisServer {
    /// How to reach it: `redis://127.0.0.1:<port>`.
    pub url: String,
    port: u16,
    cluster: bool,
    process: Child,
    directory: TempDir,
}

impl RedisServer {
    /// Starts one, and answers once it serves.
    ///
    /// # Errors
    /// When it is not installed or does not come up.
    pub async fn start() -> Result<Self, StartError> {
        Self::start_as(false).await
    }

    /// Starts one that is the only node of a cluster: it refuses scripts whose keys are in more than
    /// one slot. It takes a few seconds.
    ///
    /// # Errors
    /// When it is not installed or does not come up.
    pub async fn start_cluster() -> Result<Self, StartError> {
        Self::start_as(true).await
    }

    async fn start_as(cluster: bool) -> Result<Self, StartError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let directory = tempfile::tempdir()?;
            let port = free_port()?;
            let process = spawn(port, cluster, &directory)?;
            let mut server = Self {
                url: format!("redis://127.0.0.1:{port}"),
                port,
                cluster,
                process,
                directory,
            };
            match server.wait().await {
                Ok(()) => return Ok(server),
                Err(_) if attempt < ATTEMPTS && server.process.try_wait()?.is_some() => {}
                Err(err) => return Err(err),
            }
        }
    }

    /// Kills it, as a crash would. Its clients lose their connections.
    ///
    /// # Errors
    /// When the process can't be killed.
    pub fn stop(&mut self) -> Result<(), StartError> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Starts it again on the same port, with what it held when it was stopped.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_again(&mut self) -> Result<(), StartError> {
        self.process = spawn(self.port, self.cluster, &self.directory)?;
        self.wait().await
    }

    /// Starts it again on the same port, with nothing in it.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_empty(&mut self) -> Result<(), StartError> {
        match std::fs::remove_dir_all(self.directory.path().join("appendonlydir")) {
            Err(err) if err.kind() != ErrorKind::NotFound => Err(err.into()),
            _ => self.start_again().await,
        }
    }

    /// Removes everything that is in it.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn empty(&self) -> Result<(), StartError> {
        let flush = async {
            let client = redis::Client::open(self.url.as_str())?;
            let mut connection = client.get_multiplexed_async_connection().await?;
            redis::cmd("FLUSHALL").query_async(&mut connection).await
        };
        let flushed: redis::RedisResult<()> = flush.await;
        flushed.map_err(|err| StartError::Silent(err.to_string()))
    }

    async fn wait(&mut self) -> Result<(), StartError> {
        let answered = timeout(PATIENCE, async {
            while !self.answers().await {
                if self.process.try_wait()?.is_some() {
                    return Err(StartError::Silent(self.log()));
                }
                sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        });
        answered
            .await
            .unwrap_or_else(|_| Err(StartError::Silent(self.log())))
    }

    /// Whether this process, and not another on the same port, answers.
    async fn answers(&self) -> bool {
        let ask = async {
            let client = redis::Client::open(self.url.as_str())?;
            let mut connection = client.get_multiplexed_async_connection().await?;
            let info: String = redis::cmd("INFO")
                .arg("server")
                .query_async(&mut connection)
                .await?;
            if !info.contains(&format!("process_id:{}\r", self.process.id())) {
                return Ok(false);
            }
            if !self.cluster {
                return Ok(true);
            }
            // The second time it answers that they are taken.
            let _: redis::RedisResult<()> = redis::cmd("CLUSTER")
                .arg(&["ADDSLOTSRANGE", "0", "16383"])
                .query_async(&mut connection)
                .await;
            let state: String = redis::cmd("CLUSTER")
                .arg("INFO")
                .query_async(&mut connection)
                .await?;
            Ok(state.contains("cluster_state:ok"))
        };
        let answer: redis::RedisResult<bool> = ask.await;
        answer.unwrap_or(false)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log"))
            .unwrap_or_else(|err| format!("its log can't be read: {err}"))
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may have ended before; there is nobody to tell.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16, StartError> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?.port())
}

fn spawn(port: u16, cluster: bool, directory: &TempDir) -> Result<Child, StartError> {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(directory.path().join("log"))?;
    let spawned = Command::new("redis-server")
        .arg("--port")
        .arg(port.to_string())
        .arg("--dir")
        .arg(directory.path())
        .args(["--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", "yes", "--appendfsync", "no"])
        .args(["--cluster-enabled", if cluster { "yes" } else { "no" }])
        .args(["--cluster-port", "0"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn();
    spawned.map_err(|err| match err.kind() {
        ErrorKind::NotFound => StartError::Missing,
        _ => StartError::Io(err),
    })
}
