//! The contracts of `proto/` as Rust, and the only place where wire and domain types meet.

mod address;
pub mod codec;
mod convert;
mod refusal;

pub use address::uri_of;
pub use convert::{
    FRAME_HEADER, Frame, channel_from_wire, channel_to_wire, event_entry, event_frame,
    message_from_wire, message_to_wire,
};
pub use refusal::Refusal;

/// Generated code: documented in the `.proto` files.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
mod generated {
    pub mod chat {
        pub mod v1 {
            tonic::include_proto!("infrachat.chat.v1");
            pub mod server {
                tonic::include_proto!("infrachat.chat.v1.ChatService");
            }
        }
    }
    pub mod bus {
        pub mod v1 {
            tonic::include_proto!("infrachat.bus.v1");
        }
    }
    pub mod gatekeeper {
        pub mod v1 {
            tonic::include_proto!("infrachat.gatekeeper.v1");
        }
    }
    pub mod switchboard {
        pub mod v1 {
            tonic::include_proto!("infrachat.switchboard.v1");
        }
    }
}

pub use generated::{bus, chat, gatekeeper, switchboard};
