//! Servers as processes of their own, and what the operating system says that they cost.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use procfs::process::Process;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{net::TcpStream, time::Instant};

const STARTING: Duration = Duration::from_secs(30);

/// A running server; killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    program: String,
    about: Process,
}

impl Server {
    /// Starts a program, and waits until it listens on a port of this machine.
    pub(crate) async fn start(command: &mut Command, port: u16) -> anyhow::Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| {
                format!("{program} can't be started: run `make bench`, which installs it")
            })?;
        let about = Process::new(i32::try_from(child.id())?)?;
        let mut server = Self {
            child,
            program,
            about,
        };
        let deadline = Instant::now() + STARTING;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("{} ended with {status}", server.program);
            }
            if Instant::now() > deadline {
                bail!("{} did not listen on port {port}", server.program);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(server)
    }

    /// Processor time used so far, by all threads, in and out of the kernel.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = self.about.stat()?;
        let ticks = stat.utime + stat.stime;
        Ok(Duration::from_secs_f64(
            ticks as f64 / procfs::ticks_per_second() as f64,
        ))
    }

    /// Memory in use, bytes.
    pub(crate) fn memory(&self) -> anyhow::Result<u64> {
        Ok(self.about.stat()?.rss * procfs::page_size())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Memory that the kernel holds for TCP on the whole machine, bytes.
pub(crate) fn kernel_tcp_memory() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/net/sockstat")?;
    let pages = text
        .lines()
        .find(|line| line.starts_with("TCP:"))
        .and_then(|line| line.rsplit(' ').next())
        .and_then(|pages| pages.parse::<u64>().ok())
        .context("/proc/net/sockstat has no TCP memory")?;
    Ok(pages * procfs::page_size())
}

/// A port that is free now.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// So many ports in a row that are free now, below those that connections are given.
pub(crate) fn free_ports(count: u16) -> anyhow::Result<u16> {
    let first = 10_000 + u16::try_from(std::process::id() % 1_000)? * 20;
    (first..32_000 - count)
        .step_by(count.into())
        .find(|first| {
            (*first..first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        })
        .with_context(|| format!("no {count} free ports in a row"))
}

/// Allows this process, and the servers that it starts, as many open files as the system does.
pub(crate) fn raise_file_limit() {
    const FILES: u64 = 100_000;
    let limit = |files| Rlimit {
        current: Some(files),
        maximum: Some(files),
    };
    let raised = setrlimit(Resource::Nofile, limit(FILES))
        .or_else(|_| setrlimit(Resource::Nofile, limit(file_limit())));
    if let Err(err) = raised {
        eprintln!("the limit of open files stays as it is: {err}");
    }
}

/// How many files a process may have open.
pub(crate) fn file_limit() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}
