//! Signing in from the command line.

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use infrachat_client::{
    ChannelName, Client, ClientError, ErrorCode, JoinOptions, NewChannel, Options, Password,
    SignIn, UserName, is_loopback,
};
use rand::RngExt as _;

use crate::{args::Global, exit::Failure};

/// Options for whoever the command line names.
pub(crate) fn options(global: &Global, register: bool) -> Result<Options> {
    let user = global.user.clone().ok_or_else(|| {
        Failure::Usage("who are you? Give --user NAME or INFRACHAT_USER".to_owned())
    })?;
    let (password, remembered) = password(global, &user)?;
    let mut options = Options::new(global.server.clone(), user, password);
    client_name(&mut options);
    options.fallback_regions = global.fallback_regions.clone();
    if register || remembered || global.register {
        options.sign_in = SignIn::LoginOrRegister;
    }
    Ok(options)
}

/// Signs in.
pub(crate) async fn connect(options: Options) -> Result<Client> {
    let local = is_loopback(&options.server);
    Client::connect(options).await.map_err(|err| match err.code() {
        Some(ErrorCode::BadCredentials) if local => Failure::NotSignedIn(format!(
            "{err}; if the user has a password of their own, give it by INFRACHAT_PASSWORD or --password-file"
        ))
        .into(),
        _ => err.into(),
    })
}

pub(crate) fn client_name(options: &mut Options) {
    options.client = concat!("infrachat/", env!("CARGO_PKG_VERSION")).to_owned();
}

/// Joins a channel, after creating it if that is wanted and there is none.
pub(crate) async fn enter(
    client: &Client,
    channel: &ChannelName,
    recent: u32,
    create: bool,
) -> Result<(), ClientError> {
    let options = JoinOptions {
        recent,
        ..JoinOptions::default()
    };
    match client.join(channel, options).await {
        Err(err) if create && err.code() == Some(ErrorCode::ChannelNotFound) => {
            match client.create_channel(channel, NewChannel::default()).await {
                // Somebody else was quicker.
                Err(err) if err.code() != Some(ErrorCode::ChannelExists) => return Err(err),
                _ => {}
            }
            client.join(channel, options).await
        }
        joined => joined,
    }
}

/// The password, and whether it is one that only this program knows.
fn password(global: &Global, user: &UserName) -> Result<(Password, bool)> {
    if let Some(given) = &global.password {
        return Ok((Password::new(given), false));
    }
    if let Some(file) = &global.password_file {
        let text =
            fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let line = text.lines().next().unwrap_or_default();
        return Ok((Password::new(line), false));
    }
    if is_loopback(&global.server) {
        let path = remembered_path(global, user)?;
        let password = remembered(&path).with_context(|| format!("keeping {}", path.display()))?;
        return Ok((Password::new(password), true));
    }
    if io::stdin().is_terminal() {
        let asked =
            rpassword::prompt_password(format!("Password of {user} at {}: ", global.server))?;
        return Ok((Password::new(asked), false));
    }
    Err(Failure::NotSignedIn(
        "no password: set INFRACHAT_PASSWORD, give --password-file, or use a terminal".to_owned(),
    )
    .into())
}

fn remembered_path(global: &Global, user: &UserName) -> Result<PathBuf> {
    let state = match &global.state_home {
        Some(state) => state.clone(),
        None => std::env::home_dir()
            .context("no home directory to keep a password in: give --password-file")?
            .join(".local/state"),
    };
    let server: String = global
        .server
        .chars()
        .map(|c| if c == '/' { '_' } else { c })
        .collect();
    Ok(state.join("infrachat").join(format!("{server}-{user}")))
}

/// Reads the password kept at a path, or makes and keeps one, readable by its owner alone.
fn remembered(path: &Path) -> io::Result<String> {
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
    }
    match fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(mut file) => {
            let secret: [u8; 24] = rand::rng().random();
            let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(file, "{secret}")?;
            Ok(secret)
        }
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
            Ok(fs::read_to_string(path)?.trim_end().to_owned())
        }
        Err(err) => Err(err),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_made_password_is_kept_for_its_owner_alone() {
        let directory = std::env::temp_dir().join(ClientMessageId::random().to_string());
        let path = directory.join("infrachat/localhost:8001-alice");
        let made = remembered(&path).expect("kept");
        assert_eq!(made.len(), 48);
        assert_eq!(remembered(&path).expect("read"), made);
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::remove_dir_all(directory).expect("removed");
    }

    use infrachat_client::ClientMessageId;
}
