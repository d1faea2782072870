//! Sign-ins: a family of tokens each, opened once, rotated at every refresh, ended at last.
//!
//! A family lives in the store of the region that opened it, which every refresh token names, so any
//! region's Gatekeeper can rotate it. Every change is a compare-and-set on the family's version: of
//! calls at the same time one is first, and the others see what it left.

use std::{sync::Arc, time::Duration};

use infrachat_identity::{
    AccessToken, RefreshToken, Revocation, Revocations, SecretString, TokenIssuer,
};
use infrachat_metadata::{Metadata, MetadataError, TokenFamily};
use infrachat_types::{TokenFamilyId, UnixMillis, UserName, unix_millis};

use crate::{announcer::Announcer, error::AuthError, regions::Regions};

/// How often a change is tried over when others come first.
const TRIES: usize = 8;

/// What a client gets.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) user: UserName,
    pub(crate) access: AccessToken,
    pub(crate) refresh: SecretString,
    pub(crate) refresh_expires_at: UnixMillis,
}

/// How long things last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetimes {
    pub(crate) refresh: Duration,
    pub(crate) grace: Duration,
}

/// What a refresh token is to its family.
enum Standing {
    /// The good one.
    Current,
    /// The one before, in time: the client never got the answer.
    LostReply,
    /// None of the family's that is still good: somebody has a copy.
    Reused,
}

/// Opens, rotates and ends sign-ins.
#[derive(Debug)]
pub(crate) struct SignIns {
    regions: Arc<Regions>,
    issuer: TokenIssuer,
    lifetimes: Lifetimes,
    revocations: Arc<dyn Revocations>,
    announcer: Announcer,
}

impl SignIns {
    pub(crate) fn new(
        regions: Arc<Regions>,
        issuer: TokenIssuer,
        lifetimes: Lifetimes,
        revocations: Arc<dyn Revocations>,
        announcer: Announcer,
    ) -> Self {
        Self {
            regions,
            issuer,
            lifetimes,
            revocations,
            announcer,
        }
    }

    /// A new sign-in of a user whose password was right, kept in this region's store.
    pub(crate) async fn open(&self, user: &UserName) -> Result<Session, AuthError> {
        let local = self.regions.local();
        let now = unix_millis();
        let token = RefreshToken::issue(local.region.clone(), TokenFamilyId::random());
        let family = TokenFamily {
            id: token.family().clone(),
            user: user.clone(),
            current_hash: token.hash(),
            previous_hash: None,
            rotated_at: now,
            expires_at: now.saturating_add(millis(self.lifetimes.refresh)),
            revoked: false,
            version: 1,
        };
        let session = self.session(&family, &token, now)?;
        local.metadata.create_family(family).await?;
        Ok(session)
    }

    /// New tokens for a refresh token, which is used up by it.
    ///
    /// A used one is taken once more within the grace, counted from its first use, and then replaces
    /// what that use had given: at any time one chain of tokens is alive. Later, or twice replaced,
    /// it ends the sign-in (RFC 9700, 4.14.2).
    pub(crate) async fn rotate(&self, token: &RefreshToken) -> Result<Session, AuthError> {
        let store = self.regions.get(token.region());
        let store = store.ok_or(AuthError::BadRefreshToken)?.metadata;
        for _ in 0..TRIES {
            // Read before the change is made, so that a revocation that comes after the change is
            // also later than the token.
            let now = unix_millis();
            let family = store.family(token.family()).await?;
            let family = family.ok_or(AuthError::BadRefreshToken)?;
            if family.revoked || family.expires_at <= now {
                return Err(AuthError::BadRefreshToken);
            }
            let next = RefreshToken::issue(token.region().clone(), family.id.clone());
            let (previous_hash, rotated_at) = match self.standing(&family, token, now) {
                Standing::Current => (Some(family.current_hash), now),
                Standing::LostReply => (family.previous_hash, family.rotated_at),
                Standing::Reused => {
                    self.end_reused(store, family).await?;
                    return Err(AuthError::BadRefreshToken);
                }
            };
            let rotated = TokenFamily {
                current_hash: next.hash(),
                previous_hash,
                rotated_at,
                expires_at: now.saturating_add(millis(self.lifetimes.refresh)),
                version: family.version + 1,
                ..family
            };
            let session = self.session(&rotated, &next, now)?;
            match store.update_family(rotated).await {
                Ok(()) => return Ok(session),
                Err(MetadataError::Conflict(_)) => {}
                Err(err) => return Err(err.into()),
            }
        }
        Err(contended())
    }

    /// Ends the sign-in of a refresh token, or all of its user's. May be repeated with the same
    /// token until it succeeds: each step is done whatever became of the others, and is the same
    /// when it is done again.
    pub(crate) async fn end(
        &self,
        token: &RefreshToken,
        everywhere: bool,
    ) -> Result<(), AuthError> {
        let now = unix_millis();
        let store = self.regions.get(token.region());
        let store = store.ok_or(AuthError::BadRefreshToken)?.metadata;
        let family = store.family(token.family()).await?;
        let family = family.ok_or(AuthError::BadRefreshToken)?;
        let previous = family.previous_hash.as_ref();
        let known =
            token.matches(&family.current_hash) | previous.is_some_and(|h| token.matches(h));
        if !known || family.expires_at <= now {
            return Err(AuthError::BadRefreshToken);
        }
        let (user, id) = (family.user.clone(), family.id.clone());
        let mut outcome = end_family(store, family).await;
        let revocation = if everywhere {
            outcome = outcome.and(self.end_all_families(&user).await);
            self.revocation_of_user(user.clone())
        } else {
            self.revocation_of_family(user.clone(), id)
        };
        let revoked = self.revoke(revocation).await;
        tracing::info!(%user, everywhere, "signed out");
        outcome.and(revoked)
    }

    fn session(
        &self,
        family: &TokenFamily,
        refresh: &RefreshToken,
        now: UnixMillis,
    ) -> Result<Session, AuthError> {
        Ok(Session {
            user: family.user.clone(),
            access: self.issuer.issue(&family.user, &family.id, now)?,
            refresh: refresh.to_text(),
            refresh_expires_at: family.expires_at,
        })
    }

    fn standing(&self, family: &TokenFamily, token: &RefreshToken, now: UnixMillis) -> Standing {
        let previous = family.previous_hash.as_ref();
        let in_grace = now.saturating_sub(family.rotated_at) < millis(self.lifetimes.grace);
        if token.matches(&family.current_hash) {
            Standing::Current
        } else if in_grace && previous.is_some_and(|hash| token.matches(hash)) {
            Standing::LostReply
        } else {
            Standing::Reused
        }
    }

    /// The sign-in is over even when its access tokens can't be revoked: those end by themselves.
    async fn end_reused(&self, store: &dyn Metadata, family: TokenFamily) -> Result<(), AuthError> {
        let (user, id) = (family.user.clone(), family.id.clone());
        tracing::warn!(%user, family = %id, "a refresh token was used again: the sign-in is ended");
        end_family(store, family).await?;
        let revocation = self.revocation_of_family(user.clone(), id);
        if let Err(err) = self.revoke(revocation).await {
            tracing::warn!(%user, %err, "the access tokens of an ended sign-in are good until they expire");
        }
        Ok(())
    }

    async fn end_all_families(&self, user: &UserName) -> Result<(), AuthError> {
        let mut outcome = Ok(());
        for store in self.regions.all() {
            let ended = end_families(store.metadata, user).await;
            outcome = outcome.and(ended);
        }
        outcome
    }

    /// Here at once, and everywhere once the bus has it.
    async fn revoke(&self, revocation: Revocation) -> Result<(), AuthError> {
        let (here, announced) = tokio::join!(
            self.revocations.revoke(revocation.clone()),
            self.announcer.revoked(&revocation),
        );
        here?;
        announced.map_err(|err| AuthError::Unavailable(err.to_string()))
    }

    /// No token of an ended sign-in is ever good, whatever clock it was issued by.
    fn revocation_of_family(&self, user: UserName, family: TokenFamilyId) -> Revocation {
        let forget_after = self.issuer.forget_after(unix_millis());
        Revocation {
            user,
            family: Some(family),
            issued_until: forget_after,
            forget_after,
        }
    }

    /// A user may sign in again right after.
    fn revocation_of_user(&self, user: UserName) -> Revocation {
        let now = unix_millis();
        Revocation {
            user,
            family: None,
            issued_until: now,
            forget_after: self.issuer.forget_after(now),
        }
    }
}

async fn end_families(store: &dyn Metadata, user: &UserName) -> Result<(), AuthError> {
    for family in store.families_of(user, unix_millis()).await? {
        end_family(store, family).await?;
    }
    Ok(())
}

async fn end_family(store: &dyn Metadata, mut family: TokenFamily) -> Result<(), AuthError> {
    for _ in 0..TRIES {
        if family.revoked {
            return Ok(());
        }
        let id = family.id.clone();
        family.revoked = true;
        family.version += 1;
        match store.update_family(family).await {
            Ok(()) => return Ok(()),
            Err(MetadataError::Conflict(_)) => {}
            Err(err) => return Err(err.into()),
        }
        let Some(current) = store.family(&id).await? else {
            return Ok(());
        };
        family = current;
    }
    Err(contended())
}

fn contended() -> AuthError {
    AuthError::Unavailable("the sign-in is being changed by others".to_owned())
}

fn millis(duration: Duration) -> UnixMillis {
    UnixMillis::try_from(duration.as_millis()).unwrap_or(UnixMillis::MAX)
}
