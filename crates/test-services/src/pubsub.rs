//! A Pub/Sub emulator for one test.

use reqwest::Method;

use crate::{
    EmulatorError,
    process::{Kind, Process},
};

/// A running Pub/Sub emulator with nothing in it, killed when this is dropped.
#[derive(Debug)]
pub struct PubsubEmulator {
    /// How to reach it, gRPC and REST: `127.0.0.1:<port>`.
    pub address: String,
    process: Process,
}

impl PubsubEmulator {
    /// Starts one, and answers once it serves.
    ///
    /// # Errors
    /// When it was not built or does not come up.
    pub async fn start() -> Result<Self, EmulatorError> {
        let process = Process::start(Kind::Pubsub).await?;
        let address = process.address.clone();
        Ok(Self { address, process })
    }

    /// Puts faults in force, in the form that the emulator's control address takes; others end.
    ///
    /// # Errors
    /// When the emulator does not know them.
    pub async fn set_faults(&self, faults: &str) -> Result<(), EmulatorError> {
        self.process.set_faults(faults).await
    }

    /// Lifts all faults.
    ///
    /// # Errors
    /// When the emulator does not answer.
    pub async fn clear_faults(&self) -> Result<(), EmulatorError> {
        self.process.clear_faults().await
    }

    /// Ends all streams, as a failing network would.
    ///
    /// # Errors
    /// When the emulator does not answer.
    pub async fn break_streams(&self) -> Result<(), EmulatorError> {
        self.process
            .control(Method::POST, "/break-streams", "{}")
            .await
    }

    /// Creates a resource by Pub/Sub's REST interface.
    ///
    /// # Errors
    /// When the emulator does not take it.
    pub async fn create(&self, path: &str, body: &str) -> Result<(), EmulatorError> {
        self.process
            .ask(Method::PUT, &self.address, path, body)
            .await
    }

    /// Deletes a resource by Pub/Sub's REST interface.
    ///
    /// # Errors
    /// When there is none.
    pub async fn delete(&self, path: &str) -> Result<(), EmulatorError> {
        self.process
            .ask(Method::DELETE, &self.address, path, "")
            .await
    }
}
