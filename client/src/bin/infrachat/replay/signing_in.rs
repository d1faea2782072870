//! Fresh users for a replay, spread over the regions.

use std::collections::HashSet;

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use infrachat_client::{ChannelName, Client, Options, Password, Region, SignIn, UserName};
use rand::RngExt as _;

use super::SIGN_IN_DEADLINE;
use crate::session;

/// Sign-ins at once.
const AT_ONCE: usize = 8;

/// What all sign-ins of a replay have in common.
#[derive(Debug, Clone)]
pub(crate) struct Audition {
    pub(crate) server: String,
    pub(crate) servers: Vec<String>,
    password: Password,
    fallback_regions: Vec<Region>,
}

impl Audition {
    pub(crate) fn new(server: &str, servers: &[String], fallback_regions: &[Region]) -> Self {
        Self {
            server: servers.first().map_or(server, String::as_str).to_owned(),
            servers: servers.to_vec(),
            password: Password::new(random_text(24)),
            fallback_regions: fallback_regions.to_vec(),
        }
    }

    /// Signs everybody in, alternating over the regions; `done` is called for each.
    pub(crate) async fn sign_in(
        &mut self,
        names: &[UserName],
        done: impl Fn(),
    ) -> Result<Vec<Client>> {
        let Some((first, others)) = names.split_first() else {
            return Ok(Vec::new());
        };
        let first = self.register(self.server.clone(), first.clone()).await?;
        done();
        if self.servers.is_empty() {
            self.servers = first
                .regions()
                .iter()
                .map(|region| region.gatekeeper.clone())
                .collect();
        }
        let this = &*self;
        let others: Vec<_> = stream::iter(others.iter().zip(1..))
            .map(|(name, place)| {
                let server = this.servers[place % this.servers.len()].clone();
                this.register(server, name.clone())
            })
            .buffered(AT_ONCE)
            .inspect_ok(|_| done())
            .try_collect()
            .await?;
        Ok(std::iter::once(first).chain(others).collect())
    }

    async fn register(&self, server: String, user: UserName) -> Result<Client> {
        let doing = format!("registering {user} at {server}");
        let mut options = Options::new(server, user, self.password.clone());
        session::client_name(&mut options);
        options.sign_in = SignIn::Register;
        options.sign_in_deadline = SIGN_IN_DEADLINE;
        options.fallback_regions.clone_from(&self.fallback_regions);
        Client::connect(options).await.context(doing)
    }
}

/// A valid, unused user name for each nick.
pub(crate) fn user_names(nicks: &[String], suffix: &str) -> Result<Vec<UserName>> {
    let mut used = HashSet::new();
    let mut names = Vec::new();
    for (nick, number) in nicks.iter().zip(1..) {
        let plain = plain(nick, 40);
        let name = if used.insert(plain.clone()) {
            plain
        } else {
            format!("{plain}.{number}")
        };
        names.push(UserName::new(&format!("{name}-{suffix}"))?);
    }
    Ok(names)
}

/// A valid channel name made from a file's.
pub(crate) fn channel_name(stem: &str, suffix: &str) -> Result<ChannelName> {
    Ok(ChannelName::new(&format!("#{}-{suffix}", plain(stem, 60)))?)
}

/// Only what names may have, and a letter or digit first.
fn plain(text: &str, longest: usize) -> String {
    let kept = text.chars().map(|c| match c.to_ascii_lowercase() {
        c if c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-') => c,
        _ => '_',
    });
    let name: String = kept
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(longest)
        .collect();
    if name.is_empty() {
        "x".to_owned()
    } else {
        name
    }
}

pub(crate) fn random_text(length: usize) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let mut rng = rand::rng();
    (0..length)
        .map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_nick_becomes_a_valid_name_of_its_own() {
        let nicks = [
            "Seveas",
            "seveas",
            "[^_^]",
            "`",
            "Prof_Frink|away",
            "caf\u{e9}",
            &"n".repeat(90),
        ];
        let names = user_names(&nicks.map(str::to_owned), "ab12").expect("valid");
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), nicks.len());
        assert_eq!(names[0].as_str(), "seveas-ab12");
    }
}
