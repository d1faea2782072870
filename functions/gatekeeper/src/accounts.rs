//! Users: who may register, and whose password is right.
//!
//! A name is decided in its home region. The other regions keep copies to sign users in from.

use std::sync::Arc;

use infrachat_identity::{Passwords, SecretString, check_policy};
use infrachat_metadata::{MetadataError, UserRecord};
use infrachat_types::{UserName, unix_millis};

use crate::{
    announcer::Announcer,
    error::AuthError,
    regions::{Regions, Store},
};

/// Registers users and checks their passwords.
#[derive(Debug)]
pub(crate) struct Accounts {
    regions: Arc<Regions>,
    announcer: Announcer,
    passwords: Passwords,
}

impl Accounts {
    pub(crate) fn new(regions: Arc<Regions>, announcer: Announcer) -> Self {
        Self {
            regions,
            announcer,
            passwords: Passwords::default(),
        }
    }

    /// Once this resolves, the user exists in their home region; other regions follow.
    pub(crate) async fn register(
        &self,
        name: &UserName,
        password: SecretString,
    ) -> Result<(), AuthError> {
        check_policy(name, &password)?;
        let home = self.regions.home_of(name);
        // Spares a hash for nothing; `create_user` is what decides.
        if home.metadata.user(name).await?.is_some() {
            return Err(AuthError::UserExists(name.clone()));
        }
        let user = UserRecord {
            name: name.clone(),
            password_hash: self.passwords.hash(password).await?,
            home_region: home.region.clone(),
            created_at: unix_millis(),
            version: 1,
        };
        match home.metadata.create_user(user.clone()).await {
            Ok(()) => {}
            Err(MetadataError::Exists(_)) => return Err(AuthError::UserExists(name.clone())),
            Err(err) => return Err(err.into()),
        }
        tracing::info!(user = %name, home = %home.region, "registered");
        self.announcer.user_changed(&user);
        self.copy_here(home, user).await;
        Ok(())
    }

    /// Whether it is this user's password. An unknown user and a wrong password are the same
    /// refusal, and cost the same.
    pub(crate) async fn check_password(
        &self,
        name: &UserName,
        password: SecretString,
    ) -> Result<(), AuthError> {
        let user = self.find(name).await?;
        let hash = user.map(|user| user.password_hash);
        if self.passwords.verify(password, hash).await? {
            Ok(())
        } else {
            Err(AuthError::BadCredentials)
        }
    }

    /// What a password costs whose user can't exist.
    pub(crate) async fn refuse_password(&self, password: SecretString) -> AuthError {
        match self.passwords.verify(password, None).await {
            Ok(_) => AuthError::BadCredentials,
            Err(err) => err.into(),
        }
    }

    /// From this region's store, else from the home region.
    async fn find(&self, name: &UserName) -> Result<Option<UserRecord>, AuthError> {
        let local = self.regions.local();
        if let Some(user) = local.metadata.user(name).await? {
            return Ok(Some(user));
        }
        let home = self.regions.home_of(name);
        if home.region == local.region {
            return Ok(None);
        }
        let user = home.metadata.user(name).await?;
        if let Some(user) = &user {
            self.copy_here(home, user.clone()).await;
        }
        Ok(user)
    }

    /// A copy that fails is made at the next sign-in.
    async fn copy_here(&self, home: Store<'_>, user: UserRecord) {
        let local = self.regions.local();
        if home.region == local.region {
            return;
        }
        let name = user.name.clone();
        if let Err(err) = local.metadata.copy_user(user).await {
            tracing::warn!(user = %name, %err, "the user was not copied to this region");
        }
    }
}
