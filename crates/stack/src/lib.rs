//! Both regions as separate processes, on emulators and Redis: `make stack`, and tests that kill.
//!
//! [`Plan`] says which processes there are and what each is told; [`Stack`] runs them.

mod plan;
mod process;
mod stack;

pub use plan::{Bus, Plan, Ports, Service, Services};
pub use process::{Process, StartError, Status};
pub use stack::{Stack, StackError};
