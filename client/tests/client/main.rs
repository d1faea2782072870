//! The client library against servers that a test plays by hand.

mod publishing;
mod servers;
mod sign_in;
mod stream;
mod support;
