//! The emulators' process, as a test's fixtures share it.

use std::{
    fs::File,
    io::ErrorKind,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use reqwest::Method;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// How long an emulator may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often other ports are tried, when somebody else took one that was free.
const ATTEMPTS: usize = 10;

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
    /// The test needs what only our own emulator has.
    #[error(
        "the emulator that INFRACHAT_TEST_PUBSUB or INFRACHAT_TEST_FIRESTORE names has no faults and can't be stopped: run this test without"
    )]
    NotOurs,
    /// It did not do what it was asked.
    #[error("the emulator refused: {0}")]
    Refused(String),
}

/// Which emulator of the process a test is about; the other listens somewhere, for nobody.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Pubsub,
    Firestore,
}

impl Kind {
    fn arguments(self, address: &str) -> [String; 4] {
        let (pubsub, firestore) = match self {
            Self::Pubsub => (address, ANYWHERE),
            Self::Firestore => (ANYWHERE, address),
        };
        ["--pubsub", pubsub, "--firestore", firestore].map(str::to_owned)
    }

    /// The address of another emulator that tests are to use.
    fn another(self) -> Option<String> {
        let variable = match self {
            Self::Pubsub => "INFRACHAT_TEST_PUBSUB",
            Self::Firestore => "INFRACHAT_TEST_FIRESTORE",
        };
        std::env::var_os(variable)?.into_string().ok()
    }

    /// What the process says once every port is its own.
    fn listening(self) -> &'static str {
        match self {
            Self::Pubsub => "PUBSUB_EMULATOR_HOST=",
            Self::Firestore => "FIRESTORE_EMULATOR_HOST=",
        }
    }
}

const ANYWHERE: &str = "127.0.0.1:0";

/// The address of an emulator, and its process if it was started for this.
pub(crate) async fn find_or_start(kind: Kind) -> Result<(String, Option<Process>), EmulatorError> {
    if let Some(address) = kind.another() {
        return Ok((address, None));
    }
    let process = Process::start(kind).await?;
    Ok((process.address.clone(), Some(process)))
}

/// The process, for what only it can do.
pub(crate) fn ours<P>(process: Option<P>) -> Result<P, EmulatorError> {
    process.ok_or(EmulatorError::NotOurs)
}

/// A name that no other test has, in this process or another.
pub(crate) fn new_project() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("test-{}-{number}", std::process::id())
}

/// A running process, killed when this is dropped.
///
/// The program is the one that `INFRACHAT_EMULATORS` names, else `infrachat-emulators` of the build
/// that the test itself is of.
#[derive(Debug)]
pub(crate) struct Process {
    kind: Kind,
    /// Where the emulator listens.
    pub(crate) address: String,
    control: String,
    http: reqwest::Client,
    child: Child,
    directory: TempDir,
}

impl Process {
    /// Starts one, and answers once it serves.
    pub(crate) async fn start(kind: Kind) -> Result<Self, EmulatorError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let directory = tempfile::tempdir()?;
            let [address, control] = [free_address()?, free_address()?];
            let mut process = Self {
                kind,
                child: spawn(kind, &address, &control, &directory)?,
                address,
                control,
                http: client()?,
                directory,
            };
            match process.wait().await {
                Ok(()) => return Ok(process),
                Err(_) if attempt < ATTEMPTS && process.child.try_wait()?.is_some() => {}
                Err(err) => return Err(err),
            }
        }
    }

    /// Kills it, as a crash would.
    pub(crate) fn stop(&mut self) -> Result<(), EmulatorError> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again at the same address, with nothing in it.
    pub(crate) async fn start_again(&mut self) -> Result<(), EmulatorError> {
        self.child = spawn(self.kind, &self.address, &self.control, &self.directory)?;
        self.wait().await
    }

    /// Puts faults in force, in the form that the control address takes; others end.
    pub(crate) async fn set_faults(&self, faults: &str) -> Result<(), EmulatorError> {
        self.control(Method::PUT, "/faults", faults).await
    }

    /// Lifts all faults.
    pub(crate) async fn clear_faults(&self) -> Result<(), EmulatorError> {
        self.control(Method::DELETE, "/faults", "").await
    }

    /// Calls the control address.
    pub(crate) async fn control(
        &self,
        method: Method,
        path: &str,
        body: &str,
    ) -> Result<(), EmulatorError> {
        self.ask(method, &self.control, path, body).await
    }

    /// Calls an address of the process; an answer without success is an error.
    pub(crate) async fn ask(
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
            while !self.log().contains(self.kind.listening()) {
                if self.child.try_wait()?.is_some() {
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

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended before; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(
    kind: Kind,
    address: &str,
    control: &str,
    directory: &TempDir,
) -> Result<Child, EmulatorError> {
    let program = program()?;
    let log = File::create(directory.path().join("log"))?;
    let spawned = Command::new(&program)
        .args(kind.arguments(address))
        .args(["--control", control])
        // Pushes then carry what Google's do, but for the key.
        .args(["--issuer", "https://accounts.google.com"])
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn();
    spawned.map_err(|err| match err.kind() {
        ErrorKind::NotFound => EmulatorError::Missing(program),
        _ => EmulatorError::Io(err),
    })
}

fn program() -> Result<PathBuf, EmulatorError> {
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
fn free_address() -> Result<String, EmulatorError> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?.to_string())
}

/// Its TLS is never used, but there is no client without.
fn client() -> Result<reqwest::Client, EmulatorError> {
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
