//! Gatekeeper: registration, sign-in, and the rotation and revocation of tokens.
//!
//! Stateless: everything it decides is in the stores of the regions. `service` is the gRPC edge;
//! `accounts` knows users, `sign_ins` the token families behind them; `announcer` tells the other
//! services, and `copies` keeps what other regions tell.

mod accounts;
mod announcer;
mod config;
mod copies;
mod counted;
mod error;
mod guard;
mod regions;
mod server;
mod service;
mod sign_ins;

pub use config::{BadEndpoints, Config, RegionEndpoints};
pub use error::StartError;
pub use server::{Dependencies, Gatekeeper};
