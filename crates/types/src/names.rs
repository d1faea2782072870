//! Names that people choose, checked where they are made.

use std::{fmt, str::FromStr, sync::Arc};

/// Why a name was refused, and what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {name:?} is not valid: use {rule}")]
pub struct BadName {
    kind: &'static str,
    name: String,
    rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:expr, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// When it does not follow the rule, which the error states.
            pub fn new(name: &str) -> Result<Self, BadName> {
                let check: fn(&str) -> bool = $check;
                if check(name) {
                    return Ok(Self(name.into()));
                }
                Err(BadName { kind: $kind, name: name.chars().take(100).collect(), rule: $rule })
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(name: &str) -> Result<Self, BadName> {
                Self::new(name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

fn plain(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-')
}

fn starts_plain(name: &str) -> bool {
    name.bytes()
        .next()
        .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

name! {
    /// A user's name, unique in a deployment.
    UserName, "user name",
    |name| name.len() <= 63 && starts_plain(name) && name.bytes().all(plain),
    "1 to 63 lower-case letters, digits, '.', '_' or '-', a letter or digit first"
}

name! {
    /// A channel's name with its `#`, unique in a deployment.
    ChannelName, "channel name",
    |name| name.len() <= 80 && name.strip_prefix('#').is_some_and(|rest| starts_plain(rest) && rest.bytes().all(plain)),
    "'#', then 1 to 79 lower-case letters, digits, '.', '_' or '-', a letter or digit first"
}

name! {
    /// A region of the deployment, by its cloud name.
    Region, "region",
    |name| name.len() <= 40 && starts_plain(name) && name.bytes().all(plain),
    "1 to 40 lower-case letters, digits or '-', such as us-west1"
}

name! {
    /// A shard: its slot's name, the same over restarts.
    ShardId, "shard",
    |name| name.len() <= 63 && starts_plain(name) && name.bytes().all(plain),
    "1 to 63 lower-case letters, digits or '-', such as us-west1-shard-0"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_names_start_with_a_hash_and_stay_plain() {
        for good in ["#general", "#a", "#0.x_y-z"] {
            assert!(ChannelName::new(good).is_ok(), "{good}");
        }
        let long = format!("#{}", "a".repeat(80));
        for bad in [
            "", "#", "general", "#General", "#a b", "#-a", "##a", "#é", "#a/b", &long,
        ] {
            assert!(ChannelName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn user_names_stay_plain() {
        assert!(UserName::new("alice.b-c_1").is_ok());
        for bad in ["", "Alice", "#a", ".a", "a b", "a\0", &"a".repeat(64)] {
            assert!(UserName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_error_says_what_would_do() {
        let err = ChannelName::new("General")
            .expect_err("no hash")
            .to_string();
        assert!(err.contains("General") && err.contains("'#'"), "{err}");
    }
}
