//! Ack ids: opaque to clients, here the names of one delivery.

use std::{fmt, str::FromStr};

use super::queue::Lease;

/// One delivery of one message by one subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AckId {
    pub(crate) incarnation: u64,
    pub(crate) lease: Lease,
    /// Which of several copies of the delivery.
    pub(crate) copy: u8,
}

impl fmt::Display for AckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lease { seq, number } = self.lease;
        write!(
            f,
            "{:x}-{seq:x}-{number:x}-{:x}",
            self.incarnation, self.copy
        )
    }
}

impl FromStr for AckId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let parts: Vec<&str> = text.split('-').collect();
        let [incarnation, seq, number, copy] = parts[..] else {
            return Err(());
        };
        let number_of = |text| u64::from_str_radix(text, 16).map_err(|_| ());
        Ok(Self {
            incarnation: number_of(incarnation)?,
            lease: Lease {
                seq: number_of(seq)?,
                number: number_of(number)?,
            },
            copy: u8::from_str_radix(copy, 16).map_err(|_| ())?,
        })
    }
}
