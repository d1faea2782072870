//! What the program's end says to a script.

use std::{io, process::ExitCode};

use infrachat_client::{ClientError, ErrorKind};

/// A failure that has an exit code of its own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    NotSignedIn(String),
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Verdict(String),
}

/// Tells what went wrong, and how the program ends.
pub(crate) fn report(err: &anyhow::Error) -> ExitCode {
    let code = code(err);
    if code != 0 {
        anstream::eprintln!("infrachat: {err:#}");
    }
    ExitCode::from(code)
}

fn code(err: &anyhow::Error) -> u8 {
    if let Some(failure) = err.downcast_ref::<Failure>() {
        return match failure {
            Failure::Usage(_) => 2,
            Failure::NotSignedIn(_) => 3,
            Failure::Unavailable(_) => 5,
            Failure::Verdict(_) => 6,
        };
    }
    if let Some(err) = err.downcast_ref::<ClientError>() {
        return match err.kind() {
            ErrorKind::NotSignedIn => 3,
            ErrorKind::Refused => 4,
            ErrorKind::Unavailable => 5,
            _ => 1,
        };
    }
    match err.downcast_ref::<io::Error>() {
        // Whoever read this has read enough.
        Some(err) if err.kind() == io::ErrorKind::BrokenPipe => 0,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use infrachat_client::{ErrorCode, Refusal};

    use super::*;

    #[test]
    fn codes_are_as_documented() {
        let refused = |code| anyhow::Error::from(ClientError::Refused(Refusal::new(code, "")));
        assert_eq!(code(&refused(ErrorCode::BadCredentials)), 3);
        assert_eq!(
            code(&refused(ErrorCode::ChannelNotFound).context("joining")),
            4
        );
        assert_eq!(code(&refused(ErrorCode::Unavailable)), 5);
        assert_eq!(code(&Failure::Verdict(String::new()).into()), 6);
        assert_eq!(code(&io::Error::from(io::ErrorKind::BrokenPipe).into()), 0);
        assert_eq!(code(&anyhow::anyhow!("else")), 1);
    }
}
