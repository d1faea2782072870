//! The way to a Redis or Valkey: where it is, who calls ([`RedisTarget`]), and one connection that
//! comes back by itself ([`RedisLink`]).
//!
//! Whoever calls is known by the URL's user and password, or by access tokens ([`Tokens`]), with
//! which connections authenticate again before they expire. Nothing here shows a password or a token,
//! in an error or in a debug print.

mod counted;
#[cfg(feature = "google")]
mod google;
mod link;
mod probe;
mod target;
mod tokens;

pub use link::RedisLink;
pub use probe::NoAnswer;
pub use target::{BadTarget, RedisTarget};
pub use tokens::{TokenError, TokenSource, Tokens};
