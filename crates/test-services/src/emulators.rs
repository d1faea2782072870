//! An emulator process for one test.

use std::{
    fs::File,
    io::ErrorKind,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use reqwest::Method;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// How long an emulator may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often other ports are tried, when somebody else took one that was free.
const ATTEMPTS: usize = 10;
/// What it says once every port is its own.
const LISTENING: &str = "PUBSUB_EMULATOR_HOST=";

/// Why there is no emulator to test against. A test fails by it: it never passes untested.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// It was not built, or is elsewhere than `INFRACHAT_EMULATORS` says.
    #[error("{0} is missing: run `cargo build -p infrachat-emulators` first")]
    Missing(PathBuf),
    /// The machine refused a file, a port or a process.
    #[error("the emulator can't be started: {0}")]
    Io(#[from] std::io::Error),
    /// It ended, or it never listened.
    #[error("the emulator does not listen; it said:\n{0}")]
    Silent(String),
    /// It can't be asked.
    #[error("the emulator can't be asked: {0}")]
    Http(#[from] reqwest::Error),
    /// It did not do what it was asked.
    #[error("the emulator refused: {0}")]
    Refused(String),
}

/// A running Pub/Sub emulator with nothing in it, killed when this is dropped.
///
/// The program is the one that `INFRACHAT_EMULATORS` names, else `infrachat-emulators` of the build
/// that the test itself is of.
#[derive(Debug)]
pub struct PubsubEmulator {
    /// How to reach it, gRPC and REST: `127.0.0.1:<port>`.
    pub address: String,
    control: String,
    http: reqwest::Client,
    process: Child,
    directory: TempDir,
}

impl PubsubEmulator {
    /// Starts one, and answers once it serves.
    ///
    /// # Errors
    /// When it was not built or does not come up.
    pub async fn start() -> Result<Self, EmulatorError> {
        let program = program()?;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let directory = tempfile::tempdir()?;
            let [address, control] = [free_address()?, free_address()?];
            let log = File::create(directory.path().join("log"))?;
            let spawned = Command::new(&program)
                .args(["--pubsub", &address, "--control", &control])
                .env("FIRESTORE_EMULATOR_HOST", "127.0.0.1:0")
                .env("NO_COLOR", "1")
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn();
            let process = spawned.map_err(|err| match err.kind() {
                ErrorKind::NotFound => EmulatorError::Missing(program.clone()),
                _ => EmulatorError::Io(err),
            })?;
            let mut emulator = Self {
                address,
                control,
                http: client()?,
                process,
                directory,
            };
            match emulator.wait().await {
                Ok(()) => return Ok(emulator),
                Err(_) if attempt < ATTEMPTS && emulator.process.try_wait()?.is_some() => {}
                Err(err) => return Err(err),
            }
        }
    }

    /// Puts faults in force, in the form that the emulator's control address takes; others end.
    ///
    /// # Errors
    /// When the emulator does not know them.
    pub async fn set_faults(&self, faults: &str) -> Result<(), EmulatorError> {
        self.ask(Method::PUT, &self.control, "/faults", faults)
            .await
    }

    /// Lifts all faults.
    ///
    /// # Errors
    /// When the emulator does not answer.
    pub async fn clear_faults(&self) -> Result<(), EmulatorError> {
        self.ask(Method::DELETE, &self.control, "/faults", "").await
    }

    /// Ends all streams, as a failing network would.
    ///
    /// # Errors
    /// When the emulator does not answer.
    pub async fn break_streams(&self) -> Result<(), EmulatorError> {
        let path = "/break-streams";
        self.ask(Method::POST, &self.control, path, "{}").await
    }

    /// Creates a resource by Pub/Sub's REST interface.
    ///
    /// # Errors
    /// When the emulator does not take it.
    pub async fn create(&self, path: &str, body: &str) -> Result<(), EmulatorError> {
        self.ask(Method::PUT, &self.address, path, body).await
    }

    /// Deletes a resource by Pub/Sub's REST interface.
    ///
    /// # Errors
    /// When there is none.
    pub async fn delete(&self, path: &str) -> Result<(), EmulatorError> {
        self.ask(Method::DELETE, &self.address, path, "").await
    }

    async fn ask(
        &self,
        method: Method,
        address: &str,
        path: &str,
        body: &str,
    ) -> Result<(), EmulatorError> {
        let mut request = self.http.request(method, format!("http://{address}{path}"));
        if !body.is_empty() {
            request = request
                .header("content-type", "application/json")
                .body(body.to_owned());
        }
        let answer = request.send().await?;
        if answer.status().is_success() {
            Ok(())
        } else {
            Err(EmulatorError::Refused(answer.text().await?))
        }
    }

    /// What it says tells that it listens: another process on the port would not.
    async fn wait(&mut self) -> Result<(), EmulatorError> {
        let listening = timeout(PATIENCE, async {
            while !self.log().contains(LISTENING) {
                if self.process.try_wait()?.is_some() {
                    return Err(EmulatorError::Silent(self.log()));
                }
                sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        });
        listening
            .await
            .unwrap_or_else(|_| Err(EmulatorError::Silent(self.log())))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log"))
            .unwrap_or_else(|err| format!("its log can't be read: {err}"))
    }
}

impl Drop for PubsubEmulator {
    fn drop(&mut self) {
        // It may have ended before; there is nobody to tell.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn program() -> Result<PathBuf, EmulatorError> {
    if let Some(program) = std::env::var_os("INFRACHAT_EMULATORS") {
        return Ok(program.into());
    }
    let name = format!("infrachat-emulators{}", std::env::consts::EXE_SUFFIX);
    // Test programs are in `deps`, beside the others.
    let test = std::env::current_exe()?;
    let built = test.ancestors().nth(2).map(|folder| folder.join(&name));
    let program = built.unwrap_or_else(|| name.into());
    if program.is_file() {
        Ok(program)
    } else {
        Err(EmulatorError::Missing(program))
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_address() -> Result<String, EmulatorError> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?.to_string())
}

/// Its TLS is never used, but there is no client without.
pub(crate) fn client() -> Result<reqwest::Client, EmulatorError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .timeout(PATIENCE)
        .build()?)
}
