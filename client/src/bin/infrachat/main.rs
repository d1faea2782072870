//! InfraChat in a terminal: chat, send, tail, replay a logged day, and look into a deployment.

mod args;
mod canary;
mod chat;
mod exit;
mod explain;
mod output;
mod replay;
mod send;
mod session;
mod tail;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use args::{Args, Command};

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_new(&args.global.log).unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => exit::report(&err),
    }
}

async fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Chat(chat) => chat::run(&args.global, chat).await,
        Command::Send(send) => send::run(&args.global, send).await,
        Command::Tail(tail) => tail::run(&args.global, tail).await,
        Command::Replay(replay) => Box::pin(replay::run(&args.global, replay)).await,
        Command::Explain(explain) => explain::run(&args.global, explain).await,
        Command::Canary(canary) => Box::pin(canary::run(&args.global, canary)).await,
    }
}
