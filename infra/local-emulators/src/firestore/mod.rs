//! Firestore in native mode (`google.firestore.v1`), kept in memory.
//!
//! Every database that a request names exists; each is independent of the others. Documents keep their
//! past versions for an hour, which reads at a past time, transactions and listeners that resume use.
//! Transactions are optimistic: the first to commit wins, and the others are told `ABORTED`.

mod aggregate;
#[cfg(test)]
mod arbitrary;
mod commit;
mod database;
mod document;
mod emulator;
mod error;
mod field_path;
mod index;
mod limits;
mod listen;
mod order;
mod partition;
mod path;
mod query;
mod service;
mod store;
mod time;
mod transaction;
mod transform;
mod value;

pub use emulator::{Config, Emulator, History};

/// Google's contracts, generated.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all
)]
mod proto {
    pub mod google {
        pub mod firestore {
            pub mod v1 {
                tonic::include_proto!("google.firestore.v1");
            }
        }
        pub mod rpc {
            tonic::include_proto!("google.rpc");
        }
        pub mod r#type {
            tonic::include_proto!("google.r#type");
        }
    }
    pub use google::{firestore::v1, rpc};
}
