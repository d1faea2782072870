//! A Firestore emulator process for one test.

use std::{
    fs::File,
    io::ErrorKind,
    process::{Child, Command, Stdio},
    time::Duration,
};

use reqwest::Method;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::{
    EmulatorError,
    emulators::{client, free_address, program},
};

/// How long an emulator may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often another port is tried, when somebody else took the one that was free.
const ATTEMPTS: usize = 10;
/// What it says once every port is its own.
const LISTENING: &str = "FIRESTORE_EMULATOR_HOST=";

/// A running Firestore emulator with nothing in it, killed when this is dropped.
///
/// The program is the one that `INFRACHAT_EMULATORS` names, else `infrachat-emulators` of the build
/// that the test itself is of.
#[derive(Debug)]
pub struct FirestoreEmulator {
    /// How to reach it: `127.0.0.1:<port>`.
    pub address: String,
    control: String,
    http: reqwest::Client,
    process: Child,
    directory: TempDir,
}

impl FirestoreEmulator {
    /// Starts one, and answers once it serves.
    ///
    /// # Errors
    /// When it was not built or does not come up.
    pub async fn start() -> Result<Self, EmulatorError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let directory = tempfile::tempdir()?;
            let [address, control] = [free_address()?, free_address()?];
            let mut emulator = Self {
                process: spawn(&address, &control, &directory)?,
                address,
                control,
                http: client()?,
                directory,
            };
            match emulator.wait().await {
                Ok(()) => return Ok(emulator),
                Err(_) if attempt < ATTEMPTS && emulator.process.try_wait()?.is_some() => {}
                Err(err) => return Err(err),
            }
        }
    }

    /// Kills it, as a crash would. Its clients lose their connections, and its documents are gone.
    ///
    /// # Errors
    /// When the process can't be killed.
    pub fn stop(&mut self) -> Result<(), EmulatorError> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Starts it again at the same address, with nothing in it.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_again(&mut self) -> Result<(), EmulatorError> {
        self.process = spawn(&self.address, &self.control, &self.directory)?;
        self.wait().await
    }

    /// Puts faults in force, in the form that the emulator's control address takes; others end.
    ///
    /// # Errors
    /// When the emulator does not know them.
    pub async fn set_faults(&self, faults: &str) -> Result<(), EmulatorError> {
        self.ask(Method::PUT, faults).await
    }

    /// Lifts all faults.
    ///
    /// # Errors
    /// When the emulator does not answer.
    pub async fn clear_faults(&self) -> Result<(), EmulatorError> {
        self.ask(Method::DELETE, "").await
    }

    async fn ask(&self, method: Method, faults: &str) -> Result<(), EmulatorError> {
        let url = format!("http://{}/faults", self.control);
        let request = self.http.request(method, url);
        let request = request.header("content-type", "application/json");
        let answer = request.body(faults.to_owned()).send().await?;
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

impl Drop for FirestoreEmulator {
    fn drop(&mut self) {
        // It may have ended before; there is nobody to tell.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(address: &str, control: &str, directory: &TempDir) -> Result<Child, EmulatorError> {
    let program = program()?;
    let log = File::create(directory.path().join("log"))?;
    let spawned = Command::new(&program)
        .args(["--firestore", address, "--control", control])
        .args(["--pubsub", "127.0.0.1:0"])
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
