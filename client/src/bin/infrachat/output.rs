//! How things look on the terminal.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use anstyle::{AnsiColor, Style};
use infrachat_client::Message;
use jiff::{Timestamp, tz::TimeZone};

const NICK_COLOURS: [AnsiColor; 10] = [
    AnsiColor::Red,
    AnsiColor::Green,
    AnsiColor::Yellow,
    AnsiColor::Blue,
    AnsiColor::Magenta,
    AnsiColor::Cyan,
    AnsiColor::BrightRed,
    AnsiColor::BrightGreen,
    AnsiColor::BrightMagenta,
    AnsiColor::BrightCyan,
];

/// Styles text, or leaves it plain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    coloured: bool,
}

impl Paint {
    /// As standard output and NO_COLOR ask for.
    pub(crate) fn for_stdout() -> Self {
        let choice = anstream::AutoStream::choice(&std::io::stdout());
        Self {
            coloured: choice != anstream::ColorChoice::Never,
        }
    }

    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { coloured: false }
    }

    fn styled(self, style: Style, text: &str) -> String {
        if self.coloured {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.styled(Style::new().dimmed(), text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.styled(Style::new().fg_color(Some(AnsiColor::Red.into())), text)
    }

    /// A name, always in the same colour.
    pub(crate) fn nick(self, name: &str) -> String {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let count = NICK_COLOURS.len() as u64;
        let colour = usize::try_from(hasher.finish() % count).unwrap_or_default();
        let style = Style::new()
            .bold()
            .fg_color(Some(NICK_COLOURS[colour].into()));
        self.styled(style, name)
    }
}

/// A message as one line: time, who, what.
pub(crate) fn message_line(paint: Paint, message: &Message) -> String {
    let time = paint.dim(&clock(message.published_at));
    let nick = paint.nick(message.sender.as_str());
    let body = String::from_utf8_lossy(&message.body);
    match body.strip_prefix("/me ") {
        Some(action) => format!("{time} * {nick} {}", harmless(action)),
        None => format!("{time} <{nick}> {}", harmless(&body)),
    }
}

/// Hours and minutes here.
fn clock(unix_millis: i64) -> String {
    Timestamp::from_millisecond(unix_millis).map_or_else(
        |_| "--:--".to_owned(),
        |time| {
            time.to_zoned(TimeZone::system())
                .strftime("%H:%M")
                .to_string()
        },
    )
}

/// Without characters that would command the terminal.
pub(crate) fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' | '\n' | '\r' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use infrachat_client::{ClientMessageId, MessageId};

    use super::*;

    fn said(body: &'static str) -> Message {
        Message {
            channel: "#general".parse().expect("valid"),
            message_id: MessageId::MIN,
            sender: "bob".parse().expect("valid"),
            client_message_id: ClientMessageId::random(),
            body: body.into(),
            published_at: 0,
            region: infrachat_types::Region::new("us-west1").expect("valid"),
            session_id: infrachat_types::SessionId::random(),
        }
    }

    #[test]
    fn messages_and_actions_read_as_usual() {
        let line = |body| message_line(Paint::plain(), &said(body));
        assert!(line("hello").ends_with(" <bob> hello"), "{}", line("hello"));
        assert!(
            line("/me waves").ends_with(" * bob waves"),
            "{}",
            line("/me waves")
        );
    }

    #[test]
    fn nobody_can_command_somebody_elses_terminal() {
        let line = message_line(Paint::plain(), &said("a\u{1b}[2Jb\r\nc\u{9b}d"));
        assert!(line.ends_with("a\u{fffd}[2Jb  c\u{fffd}d"), "{line:?}");
    }
}
