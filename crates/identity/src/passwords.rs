//! Password hashing: argon2id, a bounded number at a time.

use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _};
use infrachat_types::UserName;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{sync::Semaphore, time::Instant};

use crate::counted::HASHED;

/// Fewest bytes of a password.
const MIN_BYTES: usize = 8;
/// Most bytes of a password.
const MAX_BYTES: usize = 256;
/// Hashes that may wait for each one that runs: at about 50 ms each, well under two seconds.
const WAITING_PER_RUNNING: usize = 32;
/// What the password of an unknown user is checked against, at the cost of a real one. Its hash is
/// all zeros, which no password is known to have, and no outcome of it is believed.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Why a password was not taken, or not looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// It is too short.
    #[error("the password is too short: use at least {MIN_BYTES} characters")]
    TooShort,
    /// It is too long.
    #[error("the password is too long: use at most {MAX_BYTES} bytes")]
    TooLong,
    /// It is the user's name.
    #[error("the password is the user name: choose another")]
    IsUserName,
    /// As many passwords wait to be hashed as may.
    #[error("too many sign-ins at this moment: try again shortly")]
    Overloaded,
    /// Hashing failed, by a defect.
    #[error("the password could not be hashed: {0}")]
    Failed(String),
}

/// Whether a password may be chosen by a user.
///
/// # Errors
/// The rule that it breaks.
pub fn check_policy(user: &UserName, password: &SecretString) -> Result<(), PasswordError> {
    let password = password.expose_secret();
    if password.len() < MIN_BYTES {
        return Err(PasswordError::TooShort);
    }
    if password.len() > MAX_BYTES {
        return Err(PasswordError::TooLong);
    }
    if password.eq_ignore_ascii_case(user.as_str()) {
        return Err(PasswordError::IsUserName);
    }
    Ok(())
}

/// Hashes and verifies passwords with argon2id (19 MiB, two passes, one lane), off the async threads.
///
/// At most one hash a core runs at a time, and a bounded number waits; beyond that, the answer is
/// [`PasswordError::Overloaded`] at once.
#[derive(Debug)]
pub struct Passwords {
    running: Semaphore,
    places: Semaphore,
}

impl Default for Passwords {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with_limits(cores, cores * WAITING_PER_RUNNING)
    }
}

impl Passwords {
    /// With limits other than the default: how many run at a time, and how many wait.
    #[must_use]
    pub fn with_limits(running: usize, waiting: usize) -> Self {
        Self {
            running: Semaphore::new(running),
            places: Semaphore::new(running + waiting),
        }
    }

    /// A PHC string with a fresh salt.
    ///
    /// # Errors
    /// [`PasswordError::Overloaded`], or [`PasswordError::Failed`].
    pub async fn hash(&self, password: SecretString) -> Result<String, PasswordError> {
        self.run(move || {
            Argon2::default()
                .hash_password(password.expose_secret().as_bytes())
                .map(|hash| hash.to_string())
                .map_err(|err| PasswordError::Failed(err.to_string()))
        })
        .await
    }

    /// Whether the password is the one behind the hash. Without a hash, since the user is unknown,
    /// the answer is no and takes as long, so that names can't be probed by the clock.
    ///
    /// # Errors
    /// [`PasswordError::Overloaded`], or [`PasswordError::Failed`] when the hash can't be read.
    pub async fn verify(
        &self,
        password: SecretString,
        hash: Option<String>,
    ) -> Result<bool, PasswordError> {
        use argon2::password_hash::Error;
        self.run(move || {
            let known = hash.is_some();
            let hash = hash.as_deref().unwrap_or(NOBODY);
            match Argon2::default().verify_password(password.expose_secret().as_bytes(), hash) {
                Ok(()) => Ok(known),
                Err(Error::PasswordInvalid) => Ok(false),
                Err(err) => Err(PasswordError::Failed(err.to_string())),
            }
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let failed = |err: &dyn std::fmt::Display| PasswordError::Failed(err.to_string());
        let _place = self
            .places
            .try_acquire()
            .map_err(|_| PasswordError::Overloaded)?;
        let _turn = self.running.acquire().await.map_err(|err| failed(&err))?;
        let timed = || {
            let began = Instant::now();
            let outcome = work();
            HASHED.record(began.elapsed());
            outcome
        };
        tokio::task::spawn_blocking(timed)
            .await
            .map_err(|err| failed(&err))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretString {
        SecretString::from(text.to_owned())
    }

    #[test]
    fn the_policy_refuses_short_long_and_the_users_own_name() {
        let user = UserName::new("alice.smith").expect("a name");
        let check = |text: &str| check_policy(&user, &secret(text));
        assert_eq!(check("1234567"), Err(PasswordError::TooShort));
        assert_eq!(check(&"x".repeat(257)), Err(PasswordError::TooLong));
        assert_eq!(check("Alice.Smith"), Err(PasswordError::IsUserName));
        assert_eq!(check("12345678"), Ok(()));
        assert_eq!(check(&"x".repeat(256)), Ok(()));
    }

    #[tokio::test]
    async fn only_the_right_password_verifies() {
        let passwords = Passwords::default();
        let hash = passwords
            .hash(secret("correct horse"))
            .await
            .expect("a hash");
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        let verify = |text| passwords.verify(secret(text), Some(hash.clone()));
        assert_eq!(verify("correct horse").await, Ok(true));
        assert_eq!(verify("correct horsf").await, Ok(false));
    }

    #[tokio::test]
    async fn an_unknown_users_password_is_hashed_all_the_same_and_never_right() {
        let passwords = Passwords::default();
        assert_eq!(
            passwords.verify(secret("whatever"), None).await,
            Ok(false),
            "the stand-in must parse, with the real parameters, and never match"
        );
    }

    #[tokio::test]
    async fn more_than_may_wait_are_refused_at_once() {
        let passwords = Passwords::with_limits(1, 1);
        let hash = || passwords.hash(secret("correct horse"));
        let (first, second, third) = tokio::join!(hash(), hash(), hash());
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(third, Err(PasswordError::Overloaded));
        assert!(hash().await.is_ok(), "places come free again");
    }
}
