//! Finds the moments that messages carry in what a server sends, however it is framed and cut.

use memchr::memmem;

/// Before the moment: it appears nowhere else in a message.
const MARK: &[u8] = b"@ns=";
/// Hexadecimal digits of a moment.
const DIGITS: usize = 16;
const STAMP: usize = MARK.len() + DIGITS;

/// A message of exactly `size` bytes that carries a moment.
pub(crate) fn stamped(moment: u64, size: usize) -> String {
    let mut text = format!("@ns={moment:016x}");
    text.extend(std::iter::repeat_n('x', size.saturating_sub(STAMP)));
    text
}

/// Reads one stream of bytes.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    /// The start of a stamp, whose rest comes with the next bytes.
    begun: Vec<u8>,
}

impl Scanner {
    /// Says each moment in the stream as its last byte arrives.
    pub(crate) fn feed(&mut self, bytes: &[u8], found: impl FnMut(u64)) {
        if self.begun.is_empty() {
            self.scan(bytes, found);
        } else {
            let mut joined = std::mem::take(&mut self.begun);
            joined.extend_from_slice(bytes);
            self.scan(&joined, found);
        }
    }

    fn scan(&mut self, bytes: &[u8], mut found: impl FnMut(u64)) {
        let mut end = 0;
        for at in memmem::find_iter(bytes, MARK) {
            if bytes.len() - at < STAMP {
                self.begun.extend_from_slice(&bytes[at..]);
                return;
            }
            end = at + STAMP;
            found(moment(&bytes[at..]));
        }
        let rest = &bytes[end..];
        self.begun
            .extend_from_slice(&rest[rest.len() - tail(rest)..]);
    }
}

/// How many of the last bytes may be the start of a mark.
fn tail(bytes: &[u8]) -> usize {
    (1..MARK.len())
        .rev()
        .find(|length| bytes.ends_with(&MARK[..*length]))
        .unwrap_or(0)
}

fn moment(stamp: &[u8]) -> u64 {
    let digits = &stamp[MARK.len()..STAMP];
    digits.iter().fold(0, |value, digit| {
        value << 4 | u64::from((*digit as char).to_digit(16).unwrap_or(0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_found_however_the_stream_is_cut() {
        let moments = [1, 0xdead_beef, u64::MAX];
        let mut stream = b"@@n@ns".to_vec();
        for moment in moments {
            stream.extend(stamped(moment, 50).into_bytes());
            stream.extend(b"@n");
        }
        for size in 1..stream.len() {
            let mut scanner = Scanner::default();
            let mut found = Vec::new();
            for piece in stream.chunks(size) {
                scanner.feed(piece, |moment| found.push(moment));
            }
            assert_eq!(found, moments, "cut into pieces of {size}");
        }
    }

    #[test]
    fn a_message_has_the_size_asked_for() {
        assert_eq!(stamped(7, 150).len(), 150);
    }
}
