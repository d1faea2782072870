//! Who somebody is: passwords, access and refresh tokens, the keys behind them, revocation, and the
//! rate limits that guard them.
//!
//! Nothing here knows a transport of ours; services put these parts behind their own.

mod counted;
mod jwks_client;
mod keys;
pub mod limits;
mod passwords;
mod refresh;
pub mod revocation;
mod tokens;

pub use counted::Verifications;
pub use jwks_client::{BadIssuerUrl, RemoteKeys};
pub use keys::{BadKey, FixedKeys, Jwks, KeyRing, KeySource, SigningKey, VerifyingKey};
pub use limits::{
    FallbackLimiter, LimitsUnavailable, MemoryLimiter, Quota, RateLimiter, RedisLimiter,
    RetryAfter, TokioClock,
};
pub use passwords::{PasswordError, Passwords, check_policy};
pub use refresh::{BadRefreshToken, RefreshToken};
pub use revocation::{
    MemoryRevocations, RedisRevocations, Revocation, Revocations, RevocationsUnavailable,
};
pub use secrecy::{ExposeSecret, SecretString};
pub use tokens::{AccessToken, Claims, SigningFailed, TokenError, TokenIssuer, TokenVerifier};

/// How long one answer of Redis may take, connecting included.
const REDIS_PATIENCE: std::time::Duration = std::time::Duration::from_millis(500);
