//! A Firestore emulator for one test.

use reqwest::Method;

use crate::{
    EmulatorError,
    process::{self, Kind, Process},
};

/// A running Firestore emulator with nothing in it, killed when this is dropped.
///
/// Where `INFRACHAT_TEST_FIRESTORE` names another emulator, tests share that one, each in a project of its own; it has no
/// faults and is never stopped.
#[derive(Debug)]
pub struct FirestoreEmulator {
    /// How to reach it: `127.0.0.1:<port>`.
    pub address: String,
    /// A project that no other test uses.
    pub project: String,
    /// None when it is somebody else's.
    process: Option<Process>,
}

impl FirestoreEmulator {
    /// Starts one, and answers once it serves.
    ///
    /// # Errors
    /// When it was not built or does not come up.
    pub async fn start() -> Result<Self, EmulatorError> {
        let (address, process) = process::find_or_start(Kind::Firestore).await?;
        Ok(Self {
            address,
            project: process::new_project(),
            process,
        })
    }

    /// Puts faults in force, in the form that the emulator's control address takes; others end.
    ///
    /// # Errors
    /// When the emulator does not know them.
    pub async fn set_faults(&self, faults: &str) -> Result<(), EmulatorError> {
        process::ours(self.process.as_ref())?
            .set_faults(faults)
            .await
    }

    /// Lifts all faults.
    ///
    /// # Errors
    /// When the emulator does not answer.
    pub async fn clear_faults(&self) -> Result<(), EmulatorError> {
        process::ours(self.process.as_ref())?.clear_faults().await
    }

    /// Ends all streams, as a failing network would.
    ///
    /// # Errors
    /// When the emulator does not answer.
    pub async fn break_streams(&self) -> Result<(), EmulatorError> {
        process::ours(self.process.as_ref())?
            .control(Method::POST, "/break-streams", "{}")
            .await
    }

    /// Kills it, as a crash would. Its clients lose their connections, and its documents are gone.
    ///
    /// # Errors
    /// When the process can't be killed.
    pub fn stop(&mut self) -> Result<(), EmulatorError> {
        process::ours(self.process.as_mut())?.stop()
    }

    /// Starts it again at the same address, with nothing in it.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_again(&mut self) -> Result<(), EmulatorError> {
        process::ours(self.process.as_mut())?.start_again().await
    }
}
