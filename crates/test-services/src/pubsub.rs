//! A Pub/Sub emulator for one test.

use reqwest::Method;

use crate::{
    EmulatorError,
    process::{self, Kind, Process},
};

/// A running Pub/Sub emulator with nothing in it, killed when this is dropped.
///
/// Where `INFRACHAT_TEST_PUBSUB` names another emulator, tests share that one, each in a project of its own; it has no
/// faults and is never stopped.
#[derive(Debug)]
pub struct PubsubEmulator {
    /// How to reach it, gRPC and REST: `127.0.0.1:<port>`.
    pub address: String,
    /// A project that no other test uses.
    pub project: String,
    /// None when it is somebody else's.
    process: Option<Process>,
}

impl PubsubEmulator {
    /// Starts one, and answers once it serves.
    ///
    /// # Errors
    /// When it was not built or does not come up.
    pub async fn start() -> Result<Self, EmulatorError> {
        let (address, process) = process::find_or_start(Kind::Pubsub).await?;
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

    /// Holds what topics of either region have for subscriptions of the other, until
    /// [`PubsubEmulator::heal`].
    ///
    /// # Errors
    /// When the emulator does not answer.
    pub async fn cut(&self, a: &str, b: &str) -> Result<(), EmulatorError> {
        let pair = format!(r#"{{"from": "{a}", "to": "{b}", "both": true}}"#);
        process::ours(self.process.as_ref())?
            .control(Method::POST, "/cut", &pair)
            .await
    }

    /// Mends all cuts.
    ///
    /// # Errors
    /// When the emulator does not answer.
    pub async fn heal(&self) -> Result<(), EmulatorError> {
        process::ours(self.process.as_ref())?
            .control(Method::POST, "/heal", "")
            .await
    }

    /// Creates a resource by Pub/Sub's REST interface.
    ///
    /// # Errors
    /// When the emulator does not take it.
    pub async fn create(&self, path: &str, body: &str) -> Result<(), EmulatorError> {
        process::ours(self.process.as_ref())?
            .ask(Method::PUT, &self.address, path, body)
            .await
    }

    /// Deletes a resource by Pub/Sub's REST interface.
    ///
    /// # Errors
    /// When there is none.
    pub async fn delete(&self, path: &str) -> Result<(), EmulatorError> {
        process::ours(self.process.as_ref())?
            .ask(Method::DELETE, &self.address, path, "")
            .await
    }
}
