//! What is typed, and lines printed meanwhile without garbling it.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    thread,
};

use anyhow::Result;
use rustyline::{
    Editor, ExternalPrinter,
    config::Config,
    error::{ReadlineError, Signal},
    history::MemHistory,
};
use tokio::sync::mpsc;

const PROMPT: &str = "> ";

/// Lines from the terminal's editor, or from standard input.
pub(crate) struct Input {
    lines: mpsc::Receiver<String>,
    /// Lets the editor show its prompt again.
    proceed: std::sync::mpsc::Sender<()>,
    /// A line was taken, and the editor waits.
    answered: bool,
    printer: Option<Box<dyn ExternalPrinter + Send>>,
}

impl Input {
    pub(crate) fn start() -> Result<Self> {
        let (sender, lines) = mpsc::channel(1);
        let (proceed, go_on) = std::sync::mpsc::channel();
        let mut printer: Option<Box<dyn ExternalPrinter + Send>> = None;
        if io::stdin().is_terminal() && io::stdout().is_terminal() {
            let config = Config::builder().auto_add_history(true).build();
            let history = MemHistory::with_config(&config);
            let mut editor = Editor::<(), MemHistory>::with_history(config, history)?;
            printer = Some(Box::new(editor.create_external_printer()?));
            thread::spawn(move || {
                // The prompt comes back only when the line is dealt with: so the terminal is never
                // left in the editor's mode when the program ends.
                while go_on.recv().is_ok() {
                    let line = loop {
                        match editor.readline(PROMPT) {
                            Err(ReadlineError::Signal(Signal::Resize)) => {}
                            line => break line,
                        }
                    };
                    let Ok(line) = line else { return };
                    if sender.blocking_send(line).is_err() {
                        return;
                    }
                }
            });
        } else {
            thread::spawn(move || {
                for line in io::stdin().lock().lines() {
                    let Ok(line) = line else { return };
                    if go_on.recv().is_err() || sender.blocking_send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self {
            lines,
            proceed,
            answered: true,
            printer,
        })
    }

    /// The next line; `None` at the end. May be given up without losing one.
    pub(crate) async fn line(&mut self) -> Option<String> {
        if self.answered {
            // The reader may have ended, which the next line tells.
            self.proceed.send(()).ok();
            self.answered = false;
        }
        let line = self.lines.recv().await;
        self.answered = true;
        line
    }

    pub(crate) fn print(&mut self, line: &str) -> Result<()> {
        match &mut self.printer {
            Some(printer) => printer.print(format!("{line}\n"))?,
            None => writeln!(io::stdout(), "{line}")?,
        }
        Ok(())
    }
}
