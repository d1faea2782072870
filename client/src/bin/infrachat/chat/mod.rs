//! Chatting, line by line.

mod input;
mod typed;
mod view;

use std::time::Duration;

use anyhow::Result;
use futures::{StreamExt as _, stream::FuturesUnordered};
use infrachat_client::{ChannelName, Client, ClientError, Event, HistoryBound, Publishing};

use crate::{
    args::{self, Global},
    output::{Paint, message_line},
    session,
};
use input::Input;
use typed::Typed;

/// Messages shown when a channel is entered.
const RECENT: u32 = 20;
/// How long leaving may take.
const GOODBYE: Duration = Duration::from_secs(3);

pub(crate) const HELP: &str = "\
In the chat:
  text            say it in the current channel
  /me TEXT        say what you do
  /join #channel  enter another channel, created when there is none
  /leave          leave the current channel
  /who            who is there
  /history [N]    the last messages
  /channels       all channels you may join
  /help           this
  /quit           leave (or Ctrl-D, Ctrl-C)
  //text          say something that starts with a slash";

pub(crate) async fn run(global: &Global, args: args::Chat) -> Result<()> {
    let client = session::connect(session::options(global, true)?).await?;
    let mut input = Input::start()?;
    let mut chat = Chat {
        client: client.clone(),
        current: None,
        joined: Vec::new(),
        sending: FuturesUnordered::new(),
        paint: Paint::for_stdout(),
    };
    let ended = chat.run(&mut input, args.channel).await;
    if tokio::time::timeout(GOODBYE, client.close()).await.is_err() {
        tracing::debug!("closing took too long");
    }
    ended
}

struct Chat {
    client: Client,
    current: Option<ChannelName>,
    joined: Vec<ChannelName>,
    sending: FuturesUnordered<Publishing>,
    paint: Paint,
}

impl Chat {
    async fn run(&mut self, input: &mut Input, start: ChannelName) -> Result<()> {
        let client = self.client.clone();
        let hello = format!(
            "signed in as {}; /help tells what can be typed",
            client.user()
        );
        input.print(&self.paint.dim(&hello))?;
        self.enter(input, start).await?;
        loop {
            tokio::select! {
                event = client.next_event() => match event {
                    Some(Event::Closed { code, reason }) => {
                        input.print(&self.paint.bad("the session is over; press Enter"))?;
                        input.line().await;
                        return Err(ClientError::Closed { code, reason }.into());
                    }
                    Some(event) => self.show(input, &event)?,
                    None => return Ok(()),
                },
                Some(sent) = self.sending.next() => if let Err(err) = sent {
                    input.print(&self.paint.bad(&format!("not sent: {err}")))?;
                },
                line = input.line() => {
                    let Some(line) = line else { break };
                    match typed::parse(&line) {
                        Ok(Typed::Quit) => break,
                        Ok(typed) => self.obey(input, typed).await?,
                        Err(what) => input.print(&self.paint.bad(&what))?,
                    }
                }
            }
        }
        self.finish_sending(input).await
    }

    /// Waits for what was said last, so that piped input is not cut off.
    async fn finish_sending(&mut self, input: &mut Input) -> Result<()> {
        let client = self.client.clone();
        let reading = async { while client.next_event().await.is_some() {} };
        let sending = async {
            while let Some(sent) = self.sending.next().await {
                if let Err(err) = sent {
                    input.print(&self.paint.bad(&format!("not sent: {err}")))?;
                }
            }
            Ok(())
        };
        tokio::select! {
            sent = sending => sent,
            () = reading => Ok(()),
        }
    }

    fn show(&mut self, input: &mut Input, event: &Event) -> Result<()> {
        if let Event::Left { channel, .. } = event {
            self.gone(channel);
        }
        let lines = view::lines(self.paint, self.current.as_ref(), self.client.user(), event);
        lines.iter().try_for_each(|line| input.print(line))
    }

    fn gone(&mut self, channel: &ChannelName) {
        self.joined.retain(|other| other != channel);
        if self.current.as_ref() == Some(channel) {
            self.current = self.joined.last().cloned();
        }
    }

    /// Runs a call while events go on being shown: the answer may be behind them.
    async fn meanwhile<T>(
        &mut self,
        input: &mut Input,
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<Result<T, ClientError>> {
        let client = self.client.clone();
        tokio::pin!(call);
        loop {
            tokio::select! {
                done = &mut call => return Ok(done),
                Some(event) = client.next_event() => self.show(input, &event)?,
            }
        }
    }

    async fn enter(&mut self, input: &mut Input, channel: ChannelName) -> Result<()> {
        let client = self.client.clone();
        let before = self.current.replace(channel.clone());
        let entering = session::enter(&client, &channel, RECENT, true);
        if let Err(err) = self.meanwhile(input, entering).await? {
            self.current = before;
            if self.current.is_none() {
                return Err(err.into());
            }
            return input.print(&self.paint.bad(&format!("{channel}: {err}")));
        }
        self.joined.retain(|other| *other != channel);
        self.joined.push(channel);
        Ok(())
    }

    async fn obey(&mut self, input: &mut Input, typed: Typed) -> Result<()> {
        let client = self.client.clone();
        let paint = self.paint;
        match typed {
            Typed::Nothing | Typed::Quit => return Ok(()),
            Typed::Help => {
                return HELP
                    .lines()
                    .try_for_each(|line| input.print(&paint.dim(line)));
            }
            Typed::Join(channel) => return self.enter(input, channel).await,
            Typed::Channels => {
                let listed = self.meanwhile(input, client.list_channels("")).await?;
                return match listed {
                    Ok(channels) => channels
                        .iter()
                        .try_for_each(|summary| input.print(&view::channel_line(paint, summary))),
                    Err(err) => input.print(&paint.bad(&err.to_string())),
                };
            }
            _ => {}
        }
        let Some(channel) = self.current.clone() else {
            return input.print(&paint.bad("you are in no channel: /join one first"));
        };
        let failed = match typed {
            Typed::Say(text) => {
                self.sending.push(client.publish(&channel, text));
                None
            }
            Typed::Leave => self.meanwhile(input, client.leave(&channel)).await?.err(),
            Typed::Who => match self.meanwhile(input, client.members(&channel)).await? {
                Ok(members) => {
                    input.print(&view::who_line(paint, &channel, &members))?;
                    None
                }
                Err(err) => Some(err),
            },
            Typed::History(limit) => {
                let reading = client.history(&channel, HistoryBound::Newest, limit);
                match self.meanwhile(input, reading).await? {
                    Ok((messages, _)) => {
                        for message in &messages {
                            input.print(&message_line(paint, message))?;
                        }
                        None
                    }
                    Err(err) => Some(err),
                }
            }
            _ => None,
        };
        failed.map_or(Ok(()), |err| input.print(&paint.bad(&err.to_string())))
    }
}
