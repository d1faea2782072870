//! Where a channel is, in every region, and why.

use std::io::Write as _;

use anyhow::Result;
use futures::future::join_all;
use infrachat_client::{
    ChannelName, Client, ClientError, HistoryBound, Message, MessageId, Options, RegionAddress,
    Route,
};

use crate::{
    args::{Explain, Global},
    output::{Paint, harmless},
    session,
};

/// What a region says of the channel.
struct View {
    region: String,
    route: Result<Route, ClientError>,
    newest: Result<Option<Message>, ClientError>,
}

pub(crate) async fn run(global: &Global, args: Explain) -> Result<()> {
    let options = session::options(global, false)?;
    let client = session::connect(options.clone()).await?;
    let regions = client.regions().to_vec();
    let asking = regions
        .iter()
        .map(|region| view(region, &options, &args.channel));
    let views = join_all(asking).await;
    client.close().await;
    let newest = views.iter().filter_map(newest_id).max();
    let mut out = std::io::stdout();
    if args.json {
        for view in &views {
            writeln!(out, "{}", json(view, newest))?;
        }
        return Ok(());
    }
    for (order, view) in views.iter().enumerate() {
        if order == 0
            && let Ok(route) = &view.route
        {
            writeln!(out, "{}: {}", args.channel, about(route))?;
        }
        for line in lines(view, newest, Paint::for_stdout()) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

/// Asks a region, as whoever asks.
async fn view(region: &RegionAddress, options: &Options, channel: &ChannelName) -> View {
    let mut options = options.clone();
    options.server.clone_from(&region.gatekeeper);
    let (route, newest) = match Client::connect(options).await {
        Ok(client) => {
            let (route, history) = tokio::join!(
                client.route(channel),
                client.history(channel, HistoryBound::Newest, 1)
            );
            client.close().await;
            (route, history.map(|(mut messages, _)| messages.pop()))
        }
        Err(err) => (Err(err.clone()), Err(err)),
    };
    View {
        region: region.region.to_string(),
        route,
        newest,
    }
}

fn newest_id(view: &View) -> Option<MessageId> {
    let newest = view.newest.as_ref().ok()?.as_ref()?;
    Some(newest.message_id)
}

fn about(route: &Route) -> String {
    let exists = match route.exists {
        true => "",
        false => "; there is no such channel yet",
    };
    format!(
        "partition {}, decided in {}{exists}",
        route.partition, route.home_region
    )
}

/// How far a region's history is behind the newest message of all regions.
fn lag(view: &View, newest: Option<MessageId>) -> String {
    match (newest_id(view), newest) {
        (_, None) => "nothing was said yet".to_owned(),
        (None, Some(_)) => "has nothing of it yet".to_owned(),
        (Some(id), Some(newest)) if id == newest => "up to date".to_owned(),
        (Some(id), Some(newest)) => {
            let behind = newest.millis().saturating_sub(id.millis());
            format!("{behind} ms behind the newest message")
        }
    }
}

fn lines(view: &View, newest: Option<MessageId>, paint: Paint) -> Vec<String> {
    let mut lines = vec![paint.nick(&view.region)];
    let mut line = |name: &str, text: &str| {
        lines.push(format!(
            "  {} {}",
            paint.dim(&format!("{name:<8}")),
            harmless(text)
        ));
    };
    match &view.route {
        Ok(route) if route.endpoint.is_empty() => line("owner", "none at the moment"),
        Ok(route) => line(
            "owner",
            &format!(
                "{} at {}, epoch {}",
                route.shard, route.endpoint, route.epoch
            ),
        ),
        Err(err) => line("owner", &format!("can't be asked: {err}")),
    }
    if let Ok(route) = &view.route {
        line("why", &route.reason);
    }
    match &view.newest {
        Ok(_) => line("history", &lag(view, newest)),
        Err(err) => line("history", &format!("can't be read: {err}")),
    }
    lines
}

fn json(view: &View, newest: Option<MessageId>) -> String {
    let route = view.route.as_ref().ok();
    let error = view.route.as_ref().err().map(ToString::to_string);
    let text = |value: fn(&Route) -> String| route.map(value).filter(|text| !text.is_empty());
    let behind = match (newest_id(view), newest) {
        (Some(id), Some(newest)) => Some(newest.millis().saturating_sub(id.millis())),
        _ => None,
    };
    serde_json::json!({
        "region": view.region,
        "partition": route.map(|route| route.partition),
        "home_region": text(|route| route.home_region.clone()),
        "exists": route.map(|route| route.exists),
        "shard": text(|route| route.shard.clone()),
        "endpoint": text(|route| route.endpoint.clone()),
        "epoch": route.map(|route| route.epoch),
        "reason": text(|route| route.reason.clone()),
        "newest_message_id": newest_id(view).map(|id| id.to_string()),
        "behind_ms": behind,
        "error": error,
    })
    .to_string()
}
