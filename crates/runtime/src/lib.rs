//! What every service process needs, and no service's domain: logs, signals, one listening port.

mod connection;
mod exit;
mod listener;
mod pacing;
mod serving;
pub mod signals;
pub mod telemetry;

pub use exit::exit_code;
pub use listener::{BindError, Listener, ServeError, ServeSettings};
pub use serving::Line;
