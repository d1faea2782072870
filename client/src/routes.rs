//! Asking Switchboard where channels live, and which there are.

use std::sync::Arc;

use infrachat_proto::switchboard::v1::{
    self as switchboard, switchboard_service_client::SwitchboardServiceClient,
};
use infrachat_types::{ChannelName, ErrorCode};

use crate::{ClientError, Options, tokens::Wallet, transport};

/// Most channels a call may ask for.
pub(crate) const MOST_CHANNELS: usize = 1_000;

/// Runs a call with an access token, once more with a newer one when that has expired.
pub(crate) async fn with_token<T, F>(
    wallet: &Wallet,
    call: impl Fn(Arc<str>) -> F,
) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let tokens = wallet.current()?;
    match call(tokens.access).await {
        Err(err)
            if matches!(
                err.code(),
                Some(ErrorCode::TokenExpired | ErrorCode::Unauthenticated)
            ) =>
        {
            let tokens = wallet.newer_than(tokens.generation).await?;
            call(tokens.access).await
        }
        answered => answered,
    }
}

/// Where channels live, one answer each, in the order asked; at most [`MOST_CHANNELS`].
pub(crate) async fn resolve(
    options: &Options,
    address: &str,
    wallet: &Wallet,
    channels: &[ChannelName],
) -> Result<Vec<switchboard::Route>, ClientError> {
    let transport = &transport::connect(options, address).await?;
    let response = with_token(wallet, |token| async move {
        let channels = channels.iter().map(ToString::to_string).collect();
        let request = transport::signed(switchboard::ResolveRequest { channels }, &token);
        let mut client = SwitchboardServiceClient::new(transport.clone());
        transport::answer(address, client.resolve(request)).await
    })
    .await?;
    if response.routes.len() != channels.len() {
        return Err(ClientError::Unexpected {
            address: address.to_owned(),
            what: format!(
                "{} channels were asked for, {} came",
                channels.len(),
                response.routes.len()
            ),
        });
    }
    Ok(response.routes)
}

/// One page of the channels that the user may join.
pub(crate) async fn list(
    options: &Options,
    address: &str,
    wallet: &Wallet,
    request: &switchboard::ListChannelsRequest,
) -> Result<switchboard::ListChannelsResponse, ClientError> {
    let transport = &transport::connect(options, address).await?;
    with_token(wallet, |token| async move {
        let request = transport::signed(request.clone(), &token);
        let mut client = SwitchboardServiceClient::new(transport.clone());
        transport::answer(address, client.list_channels(request)).await
    })
    .await
}
