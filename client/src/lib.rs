//! A client of InfraChat: signs in, finds the shard of every channel, keeps one stream to each
//! shard, and through lost connections, moved channels and shards that go away gives the
//! application one stream of events in which no message comes twice.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use infrachat_client::{Client, Event, JoinOptions, Options, Password, SignIn};
//!
//! let mut options = Options::new("localhost:8001", "alice".parse()?, Password::new("opensesame"));
//! options.sign_in = SignIn::LoginOrRegister;
//! let client = Client::connect(options).await?;
//! let general = "#general".parse()?;
//! client.join(&general, JoinOptions::default()).await?;
//! client.publish(&general, "hello").await?;
//! while let Some(event) = client.next_event().await {
//!     if let Event::Message(message) = event {
//!         println!("{}: {}", message.sender, String::from_utf8_lossy(&message.body));
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod backoff;
mod calls;
mod channel;
mod client;
mod connection;
mod driver;
mod error;
mod event;
mod hearing;
mod options;
mod outgoing;
mod placing;
mod refusals;
mod routes;
mod seen;
mod stats;
mod tokens;
mod transport;
mod wishes;

pub use backoff::Backoff;
pub use calls::{HistoryBound, NewChannel};
pub use client::{Client, Publishing};
pub use error::{ClientError, ErrorKind};
pub use event::{Ack, Event, RegionAddress};
pub use infrachat_proto::{
    Refusal,
    chat::v1::Member,
    switchboard::v1::{ChannelSummary, Route},
};
pub use infrachat_types::{
    Channel, ChannelName, ClientMessageId, ErrorCode, Message, MessageId, Region, SlowReaderPolicy,
    UserName, Visibility,
};
pub use options::{JoinOptions, Options, Password, SignIn};
pub use stats::Stats;
pub use transport::{Network, is_loopback};
