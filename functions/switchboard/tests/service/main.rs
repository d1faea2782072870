//! Switchboard over real connections, on memory's store and bus.

mod auth;
mod list_channels;
mod replication;
mod resolve;
mod world;
