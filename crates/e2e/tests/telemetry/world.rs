//! A deployment of processes, and people who use it.

use infrachat_client::{Client, Event, JoinOptions, NewChannel, Options, Password, SignIn};
use infrachat_e2e::{Ground, channel, user};
use infrachat_stack::{Plan, Stack};
use tokio::sync::mpsc::{self, UnboundedReceiver};

/// What nobody may ever read in a log line or a metric.
pub(crate) const PASSWORD: &str = "correct horse";
/// The channel where people talk.
pub(crate) const ROOM: &str = "#general";

/// Two regions of processes.
pub(crate) struct World {
    pub(crate) plan: Plan,
    stack: Stack,
    /// What the processes say: who, and the line.
    pub(crate) said: UnboundedReceiver<(String, String)>,
    _ground: Ground,
}

impl World {
    /// With a log filter and further arguments for all processes.
    pub(crate) async fn start(log: &str, args: &[&str]) -> Self {
        let ground = Ground::start().await;
        let plan = Plan {
            log: log.to_owned(),
            metrics: true,
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            ..ground.plan()
        };
        let (lines, said) = mpsc::unbounded_channel();
        let stack = Stack::start(&plan, lines).await.expect("starts");
        Self {
            plan,
            stack,
            said,
            _ground: ground,
        }
    }

    /// Somebody in a region, who has joined the room; it is created for the first.
    pub(crate) async fn person(&self, region: usize, name: &str) -> Client {
        let mut options = Options::new(
            self.plan.gatekeeper(region),
            user(name),
            Password::new(PASSWORD),
        );
        options.sign_in = SignIn::LoginOrRegister;
        let client = Client::connect(options).await.expect("signs in");
        let room = channel(ROOM);
        // Another may have been quicker.
        drop(client.create_channel(&room, NewChannel::default()).await);
        client
            .join(&room, JoinOptions::default())
            .await
            .expect("joins");
        client
    }

    /// Stops the processes; answers what they still said.
    pub(crate) async fn stop(mut self) -> Vec<(String, String)> {
        for (name, status) in self.stack.stop().await {
            let status = status.expect("ends");
            assert!(status.success(), "{name}: {status}");
        }
        let mut said = Vec::new();
        while let Some(line) = self.said.recv().await {
            said.push(line);
        }
        said
    }
}

/// Somebody says something, and everybody else hears it.
pub(crate) async fn say(speaker: &Client, text: &str, listeners: &[&Client]) {
    let said = speaker.publish(&channel(ROOM), text.to_owned());
    said.await.expect("is acknowledged");
    for listener in listeners {
        hears(listener, text).await;
    }
}

async fn hears(listener: &Client, text: &str) {
    loop {
        match listener.next_event().await.expect("goes on") {
            Event::Message(message) if message.body == text.as_bytes() => return,
            _ => {}
        }
    }
}
