//! A `redis-server` process for one test.

use std::{
    io::ErrorKind,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use redis::{Cmd, FromRedisValue, RedisResult, aio::MultiplexedConnection};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::Certificate;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often another port is tried, when somebody else took the one that was free.
const ATTEMPTS: usize = 10;

/// The user of tests: it needs no password, so that the other users' may change.
const OPERATOR: &str = "operator";

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

/// What a server asks of those who call, and shows them.
#[derive(Debug, Clone, Default)]
pub struct RedisGuard {
    /// The password of the user `default`.
    pub password: Option<String>,
    /// What it shows: it is reached over TLS then, and not otherwise.
    pub certificate: Option<Certificate>,
}

/// A running server with nothing in it, killed when this is dropped.
///
/// It writes every change to its append-only file, so that [`RedisServer::start_again`] finds what
/// was there before [`RedisServer::stop`].
#[derive(Debug)]
pub struct RedisServer {
    /// How to reach it: `redis://127.0.0.1:<port>`, or `rediss://…`, without a password.
    pub url: String,
    port: u16,
    cluster: bool,
    guard: RedisGuard,
    process: Child,
    directory: TempDir,
}

impl RedisServer {
    /// Starts one, and answers once it serves.
    ///
    /// # Errors
    /// When it is not installed or does not come up.
    pub async fn start() -> Result<Self, StartError> {
        Self::start_as(false, RedisGuard::default()).await
    }

    /// Starts one that is the only node of a cluster: it refuses scripts whose keys are in more than
    /// one slot. It takes a few seconds.
    ///
    /// # Errors
    /// When it is not installed or does not come up.
    pub async fn start_cluster() -> Result<Self, StartError> {
        Self::start_as(true, RedisGuard::default()).await
    }

    /// Starts one that asks for a password, or is reached over TLS, or both.
    ///
    /// # Errors
    /// When it is not installed or does not come up.
    pub async fn start_guarded(guard: RedisGuard) -> Result<Self, StartError> {
        Self::start_as(false, guard).await
    }

    async fn start_as(cluster: bool, guard: RedisGuard) -> Result<Self, StartError> {
        let scheme = match guard.certificate {
            Some(_) => "rediss",
            None => "redis",
        };
        let mut attempt = 0;
        loop {
            attempt += 1;
            let directory = tempfile::tempdir()?;
            let port = free_port()?;
            let process = spawn(port, cluster, &guard, &directory)?;
            let mut server = Self {
                url: format!("{scheme}://127.0.0.1:{port}"),
                port,
                cluster,
                guard: guard.clone(),
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
        self.process = spawn(self.port, self.cluster, &self.guard, &self.directory)?;
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
        self.command(&redis::cmd("FLUSHALL")).await
    }

    async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StartError> {
        let answer = self.ask(command).await;
        answer.map_err(|err| StartError::Silent(err.to_string()))
    }

    /// Changes the password of the user `default`. Whoever is connected stays.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn set_password(&self, password: &str) -> Result<(), StartError> {
        let mut set = redis::cmd("ACL");
        set.arg(&["SETUSER", "default", "resetpass"]);
        self.command(set.arg(format!(">{password}"))).await
    }

    /// Closes all connections to it.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn hang_up(&self) -> Result<(), StartError> {
        let mut kill = redis::cmd("CLIENT");
        kill.arg(&["KILL", "USER", "default"]);
        let _killed: usize = self.command(&kill).await?;
        Ok(())
    }

    /// A connection of somebody who may do anything.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn operator(&self) -> Result<MultiplexedConnection, StartError> {
        let connected = self.connect().await;
        connected.map_err(|err| StartError::Silent(err.to_string()))
    }

    /// By its socket, where neither password nor TLS is in the way.
    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let socket = socket(&self.directory);
        let url = format!("unix://{}?user={OPERATOR}&pass=any", socket.display());
        let client = redis::Client::open(url)?;
        client.get_multiplexed_async_connection().await
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        command.query_async(&mut self.connect().await?).await
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

    async fn answers(&self) -> bool {
        if self.ask::<String>(&redis::cmd("PING")).await.is_err() {
            return false;
        }
        if !self.cluster {
            return true;
        }
        let mut slots = redis::cmd("CLUSTER");
        slots.arg(&["ADDSLOTSRANGE", "0", "16383"]);
        // The second time it answers that they are taken.
        let _: RedisResult<()> = self.ask(&slots).await;
        let state: RedisResult<String> = self.ask(redis::cmd("CLUSTER").arg("INFO")).await;
        state.is_ok_and(|state| state.contains("cluster_state:ok"))
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

fn socket(directory: &TempDir) -> PathBuf {
    directory.path().join("socket")
}

fn spawn(
    port: u16,
    cluster: bool,
    guard: &RedisGuard,
    directory: &TempDir,
) -> Result<Child, StartError> {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(directory.path().join("log"))?;
    let mut server = Command::new("redis-server");
    match &guard.certificate {
        None => server.args(["--port", &port.to_string()]),
        Some(Certificate { pem, key }) => {
            let [shown, secret] = ["certificate", "key"].map(|name| directory.path().join(name));
            std::fs::write(&shown, pem)?;
            std::fs::write(&secret, key)?;
            server
                .args(["--port", "0", "--tls-port", &port.to_string()])
                .args(["--tls-auth-clients", "no"])
                .arg("--tls-cert-file")
                .arg(shown)
                .arg("--tls-key-file")
                .arg(secret)
        }
    };
    if let Some(password) = &guard.password {
        server.args(["--requirepass", password]);
    }
    let spawned = server
        .arg("--dir")
        .arg(directory.path())
        .arg("--unixsocket")
        .arg(socket(directory))
        .args(["--user", OPERATOR, "on", "nopass", "~*", "&*", "+@all"])
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
