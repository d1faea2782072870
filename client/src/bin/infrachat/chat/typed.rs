//! What a typed line asks for.

use infrachat_client::ChannelName;

const HISTORY: u32 = 20;
const MOST_HISTORY: u32 = 1_000;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    Nothing,
    Say(String),
    Join(ChannelName),
    Leave,
    Who,
    History(u32),
    Channels,
    Help,
    Quit,
}

/// Reads a line; the error says what would have been right.
pub(crate) fn parse(line: &str) -> Result<Typed, String> {
    let line = line.trim_end();
    let Some(command) = line.strip_prefix('/') else {
        return Ok(if line.is_empty() {
            Typed::Nothing
        } else {
            Typed::Say(line.to_owned())
        });
    };
    if command.starts_with('/') {
        return Ok(Typed::Say(command.to_owned()));
    }
    let (word, rest) = command.split_once(' ').unwrap_or((command, ""));
    let rest = rest.trim();
    match word {
        "join" => rest
            .parse()
            .map(Typed::Join)
            .map_err(|err| format!("{err}")),
        "leave" | "part" => Ok(Typed::Leave),
        "who" | "names" => Ok(Typed::Who),
        "history" if rest.is_empty() => Ok(Typed::History(HISTORY)),
        "history" => match rest.parse() {
            Ok(limit @ 1..=MOST_HISTORY) => Ok(Typed::History(limit)),
            _ => Err(format!("/history takes a number from 1 to {MOST_HISTORY}")),
        },
        "channels" | "list" => Ok(Typed::Channels),
        "me" if rest.is_empty() => Err("/me takes what you do, such as /me waves".to_owned()),
        "me" => Ok(Typed::Say(format!("/me {rest}"))),
        "help" => Ok(Typed::Help),
        "quit" | "exit" => Ok(Typed::Quit),
        other => Err(format!("there is no /{other}: /help tells what there is")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_said_and_commands_obeyed() {
        let say = |text: &str| Ok(Typed::Say(text.to_owned()));
        assert_eq!(parse("hello there "), say("hello there"));
        assert_eq!(parse("//shrug"), say("/shrug"));
        assert_eq!(parse("/me waves"), say("/me waves"));
        assert_eq!(parse("  "), Ok(Typed::Nothing));
        assert_eq!(
            parse("/join #ops"),
            Ok(Typed::Join("#ops".parse().expect("valid")))
        );
        assert_eq!(parse("/history"), Ok(Typed::History(HISTORY)));
        assert_eq!(parse("/history 5"), Ok(Typed::History(5)));
        assert_eq!(parse("/quit"), Ok(Typed::Quit));
    }

    #[test]
    fn wrong_commands_are_explained_not_said() {
        for wrong in [
            "/join",
            "/join ops",
            "/history many",
            "/history 0",
            "/me",
            "/dance",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
