//! Why Gatekeeper did not do it, and how a client is told.

use infrachat_bus::BusError;
use infrachat_identity::{
    BadKey, BadRefreshToken, PasswordError, RetryAfter, RevocationsUnavailable, SigningFailed,
};
use infrachat_metadata::MetadataError;
use infrachat_proto::Refusal;
use infrachat_runtime::BindError;
use infrachat_types::{BadName, ErrorCode, Region, UserName};

/// Why Gatekeeper could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port can't be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The keys can't be published.
    #[error(transparent)]
    Keys(#[from] BadKey),
    /// The bus can't be used.
    #[error("the bus can't be used")]
    Bus(#[from] BusError),
    /// This region has no store.
    #[error("there is no metadata store of {0}, which is this region")]
    NoLocalStore(Region),
}

/// Why a call was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    #[error(transparent)]
    BadUserName(#[from] BadName),
    #[error("the user name {0} is taken: sign in, or choose another")]
    UserExists(UserName),
    #[error("user name or password is wrong")]
    BadCredentials,
    #[error("the refresh token is unknown, expired or was used before: sign in again")]
    BadRefreshToken,
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    RateLimited(#[from] RetryAfter),
    #[error("a part of the system is away, so the outcome is unknown: try again ({0})")]
    Unavailable(String),
    #[error("an internal error; the log has more")]
    Internal(String),
}

impl From<BadRefreshToken> for AuthError {
    fn from(BadRefreshToken: BadRefreshToken) -> Self {
        Self::BadRefreshToken
    }
}

impl From<MetadataError> for AuthError {
    fn from(err: MetadataError) -> Self {
        match err {
            MetadataError::Unavailable(_) | MetadataError::Conflict(_) => {
                Self::Unavailable(err.to_string())
            }
            MetadataError::Exists(_)
            | MetadataError::NotFound(_)
            | MetadataError::Fenced { .. }
            | MetadataError::Held { .. }
            | MetadataError::Replaced(_)
            | MetadataError::Suspected(_) => Self::Internal(err.to_string()),
        }
    }
}

impl From<RevocationsUnavailable> for AuthError {
    fn from(err: RevocationsUnavailable) -> Self {
        Self::Unavailable(err.to_string())
    }
}

impl From<SigningFailed> for AuthError {
    fn from(err: SigningFailed) -> Self {
        Self::Internal(err.to_string())
    }
}

impl From<AuthError> for Refusal {
    fn from(err: AuthError) -> Self {
        let code = match &err {
            AuthError::BadUserName(_) => ErrorCode::BadUserName,
            AuthError::UserExists(_) => ErrorCode::UserExists,
            AuthError::BadCredentials => ErrorCode::BadCredentials,
            AuthError::BadRefreshToken => ErrorCode::BadRefreshToken,
            AuthError::Password(
                PasswordError::TooShort | PasswordError::TooLong | PasswordError::IsUserName,
            ) => ErrorCode::BadPassword,
            AuthError::Password(PasswordError::Overloaded) => ErrorCode::Overloaded,
            AuthError::RateLimited(_) => ErrorCode::RateLimited,
            AuthError::Unavailable(_) => ErrorCode::Unavailable,
            AuthError::Password(PasswordError::Failed(why)) | AuthError::Internal(why) => {
                tracing::error!(why, "a call failed");
                return Self::new(ErrorCode::Internal, "an internal error; the log has more");
            }
        };
        let refusal = Self::new(code, err.to_string());
        match err {
            AuthError::RateLimited(RetryAfter(wait)) => refusal.retry_after(wait),
            _ => refusal,
        }
    }
}
