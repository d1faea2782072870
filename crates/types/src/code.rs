//! Every code that a refusal or a close can carry. `docs/protocol.md` lists them for people, and a
//! test holds the two together.

use std::fmt;

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal, $flag:literal;)+ } $flag_doc:literal $flag_name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The code on the wire; never changes.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The code of a text, if it is one of these.
            #[must_use]
            pub fn from_text(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }

            #[doc = $flag_doc]
            #[must_use]
            pub fn $flag_name(self) -> bool {
                match self { $(Self::$variant => $flag),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

codes! {
    /// Why a frame or a call was refused. The session or connection goes on.
    ErrorCode {
        /// No access token, or one that does not verify.
        Unauthenticated = "unauthenticated", false;
        /// The access token has expired: refresh it.
        TokenExpired = "token_expired", false;
        /// The sign-in was ended.
        TokenRevoked = "token_revoked", false;
        /// Name or password is wrong.
        BadCredentials = "bad_credentials", false;
        /// The password does not follow the rules.
        BadPassword = "bad_password", false;
        /// The user name does not follow the rules.
        BadUserName = "bad_user_name", false;
        /// The user name is taken.
        UserExists = "user_exists", false;
        /// The refresh token is unknown, expired or was used before.
        BadRefreshToken = "bad_refresh_token", false;
        /// The channel name does not follow the rules.
        BadChannelName = "bad_channel_name", false;
        /// There is no such channel: create it first.
        ChannelNotFound = "channel_not_found", false;
        /// There is such a channel already: join it.
        ChannelExists = "channel_exists", false;
        /// The channel is private, and the user not a member.
        NotMember = "not_member", false;
        /// The session has not joined the channel.
        NotJoined = "not_joined", false;
        /// The session has joined as many channels as it may.
        TooManyChannels = "too_many_channels", false;
        /// The body is longer than the limit.
        BodyTooLarge = "body_too_large", false;
        /// The body is not UTF-8.
        BodyNotUtf8 = "body_not_utf8", false;
        /// There is nothing in the body.
        BodyEmpty = "body_empty", false;
        /// `client_message_id` is not 16 bytes.
        BadClientMessageId = "bad_client_message_id", false;
        /// The same `client_message_id` was used for another body.
        ClientMessageIdReused = "client_message_id_reused", false;
        /// An earlier message of the sender was given up: send that one again first.
        OutOfOrder = "out_of_order", true;
        /// `after` names an id too far in the future.
        ClockTooFarAhead = "clock_too_far_ahead", false;
        /// Too many messages wait for their `Ack`.
        TooManyInFlight = "too_many_in_flight", true;
        /// Too many requests: wait as told.
        RateLimited = "rate_limited", true;
        /// The frame's kind is unknown or missing.
        UnknownFrame = "unknown_frame", false;
        /// `Hello` came a second time.
        AlreadyOpen = "already_open", false;
        /// The token is another user's.
        WrongSubject = "wrong_subject", false;
        /// A value in the request can't be used.
        BadRequest = "bad_request", false;
        /// No shard serves the partition at this moment: ask again.
        NoOwner = "no_owner", true;
        /// A part of the system is away; the outcome is unknown: retry with the same ids.
        Unavailable = "unavailable", true;
        /// The service is at its limit: wait as told.
        Overloaded = "overloaded", true;
        /// A defect. The log has more under the session's id.
        Internal = "internal", true;
    }
    "Whether the same request may succeed later." retryable
}

codes! {
    /// Why a session was closed.
    CloseCode {
        /// The first frame was not `Hello`.
        HelloExpected = "hello_expected", false;
        /// `Hello` did not come in time.
        HelloTimeout = "hello_timeout", true;
        /// The access token does not verify.
        Unauthenticated = "unauthenticated", false;
        /// The keys that verify tokens can't be had at the moment.
        KeysUnavailable = "keys_unavailable", true;
        /// The access token has expired: reconnect with a fresh one.
        TokenExpired = "token_expired", true;
        /// The sign-in was ended.
        TokenRevoked = "token_revoked", false;
        /// Nothing was heard from the client for too long.
        HeartbeatTimeout = "heartbeat_timeout", true;
        /// The client read too slowly, or not at all.
        SlowConsumer = "slow_consumer", true;
        /// A frame could not be decoded.
        BadFrame = "bad_frame", false;
        /// The shard shuts down.
        ShuttingDown = "shutting_down", true;
        /// The shard has as many sessions as it takes.
        TooManySessions = "too_many_sessions", true;
        /// The shard is short of memory.
        Overloaded = "overloaded", true;
    }
    "Whether to connect again." reconnect
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_distinct_and_read_back() {
        let texts: HashSet<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_text(code.as_str()), Some(*code));
        }
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_text(code.as_str()), Some(*code));
        }
    }

    #[test]
    fn the_protocol_document_lists_every_code() {
        let document = include_str!("../../../docs/protocol.md");
        let row =
            |code: &str, flag: bool| format!("| `{code}` | {} |", if flag { "yes" } else { "no" });
        let missing: Vec<_> = ErrorCode::ALL
            .iter()
            .map(|code| row(code.as_str(), code.retryable()))
            .chain(
                CloseCode::ALL
                    .iter()
                    .map(|code| row(code.as_str(), code.reconnect())),
            )
            .filter(|row| !document.contains(row.as_str()))
            .collect();
        assert!(
            missing.is_empty(),
            "docs/protocol.md has no rows that start with {missing:#?}"
        );
    }
}
