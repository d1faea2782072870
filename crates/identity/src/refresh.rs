//! Refresh tokens: opaque to clients, and stored only as a hash.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use infrachat_types::{Region, TokenFamilyId};
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};

/// The text is not a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a refresh token")]
pub struct BadRefreshToken;

/// One refresh token: `region.family.secret`. The region's store holds the family, and of the secret,
/// 256 random bits, only the SHA-256.
#[derive(Clone)]
pub struct RefreshToken {
    region: Region,
    family: TokenFamilyId,
    secret: [u8; 32],
}

impl RefreshToken {
    /// A fresh one of a family.
    #[must_use]
    pub fn issue(region: Region, family: TokenFamilyId) -> Self {
        Self {
            region,
            family,
            secret: rand::random(),
        }
    }

    /// From the text that a client sent.
    ///
    /// # Errors
    /// When it is none; the error does not repeat it.
    pub fn parse(text: &str) -> Result<Self, BadRefreshToken> {
        // From the right, since a region's name may hold a dot.
        let mut parts = text.rsplitn(3, '.');
        let mut part = || parts.next().ok_or(BadRefreshToken);
        let (secret, family, region) = (part()?, part()?, part()?);
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if family.is_empty() || family.len() > 40 || !family.bytes().all(plain) {
            return Err(BadRefreshToken);
        }
        let secret = BASE64_URL_SAFE_NO_PAD
            .decode(secret)
            .map_err(|_| BadRefreshToken)?;
        Ok(Self {
            region: Region::new(region).map_err(|_| BadRefreshToken)?,
            family: TokenFamilyId::from_text(family),
            secret: secret.try_into().map_err(|_| BadRefreshToken)?,
        })
    }

    /// The region whose store holds the family.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// The family.
    #[must_use]
    pub fn family(&self) -> &TokenFamilyId {
        &self.family
    }

    /// What is stored of it.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.secret).into()
    }

    /// Whether this is the token behind a stored hash; in the same time whatever the answer.
    #[must_use]
    pub fn matches(&self, hash: &[u8; 32]) -> bool {
        verify_slices_are_equal(&self.hash(), hash).is_ok()
    }

    /// The text for the client.
    #[must_use]
    pub fn to_text(&self) -> SecretString {
        let secret = BASE64_URL_SAFE_NO_PAD.encode(self.secret);
        format!("{}.{}.{secret}", self.region, self.family).into()
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshToken")
            .field("region", &self.region)
            .field("family", &self.family)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn token(region: &str) -> RefreshToken {
        let region = Region::new(region).expect("a region");
        RefreshToken::issue(region, TokenFamilyId::random())
    }

    #[test]
    fn a_token_reads_back_and_matches_only_its_own_hash() {
        for region in ["us-west1", "a.dotted.region"] {
            let issued = token(region);
            let read = RefreshToken::parse(issued.to_text().expose_secret()).expect("a token");
            assert_eq!(read.region(), issued.region());
            assert_eq!(read.family(), issued.family());
            assert!(read.matches(&issued.hash()));
            assert!(!token(region).matches(&issued.hash()));
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let good = token("us-west1").to_text().expose_secret().to_owned();
        let (head, secret) = good.rsplit_once('.').expect("parts");
        for bad in [
            "",
            "..",
            "a.b",
            head,
            secret,
            &format!("{good}x"),
            &good[..good.len() - 2],
            &format!("us-west1..{secret}"),
            &format!("us-west1.a/b.{secret}"),
            &format!("US.abc.{secret}"),
        ] {
            assert!(RefreshToken::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let token = token("us-west1");
        let text = token.to_text();
        let (_, secret) = text.expose_secret().rsplit_once('.').expect("parts");
        assert!(!format!("{token:?} {text:?}").contains(secret));
    }
}
