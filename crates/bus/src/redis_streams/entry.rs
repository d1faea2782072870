//! An event as an entry of a stream: field `k` the ordering key, `p` the payload, and `a:<name>` each
//! attribute.

use std::{collections::BTreeMap, fmt, str::FromStr};

use bytes::Bytes;
use redis::ScriptInvocation;

use crate::Event;

/// An entry's place in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct StreamId {
    millis: u64,
    number: u64,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.number)
    }
}

/// It is no id that Redis gave.
#[derive(Debug)]
pub(super) struct BadStreamId;

impl FromStr for StreamId {
    type Err = BadStreamId;

    fn from_str(text: &str) -> Result<Self, BadStreamId> {
        let (millis, number) = text.split_once('-').ok_or(BadStreamId)?;
        Ok(Self {
            millis: millis.parse().map_err(|_| BadStreamId)?,
            number: number.parse().map_err(|_| BadStreamId)?,
        })
    }
}

/// An id, and fields and values in turn; without these when the entry was deleted.
pub(super) type RawEntry = (String, Option<Vec<Vec<u8>>>);

/// Adds an event to a publishing script's arguments.
pub(super) fn add(call: &mut ScriptInvocation<'_>, event: &Event) {
    call.arg(4 + 2 * event.attributes.len());
    call.arg("k").arg(&event.ordering_key);
    call.arg("p").arg(&*event.payload);
    for (name, value) in &event.attributes {
        call.arg(format!("a:{name}")).arg(value);
    }
}

/// `None` when it was deleted, or was not written by this bus.
pub(super) fn parse(fields: Option<Vec<Vec<u8>>>) -> Option<Event> {
    let mut key = None;
    let mut payload = None;
    let mut attributes = BTreeMap::new();
    let mut fields = fields?.into_iter();
    while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
        match field.as_slice() {
            b"k" => key = Some(String::from_utf8(value).ok()?),
            b"p" => payload = Some(Bytes::from(value)),
            field => {
                let name = str::from_utf8(field).ok()?.strip_prefix("a:")?;
                attributes.insert(name.to_owned(), String::from_utf8(value).ok()?);
            }
        }
    }
    Some(Event {
        ordering_key: key?,
        payload: payload?,
        attributes,
    })
}
