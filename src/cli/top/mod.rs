//! `pgsluice top`: a running pgsluice, live in a terminal.
//!
//! | file | what |
//! |---|---|
//! | [`data`] | the API's answers as tables |
//! | [`state`] | what is looked at, and what keys do |
//! | [`draw`] | the screen, and the same as plain text |
//!
//! A thread asks, so that a slow line never holds up the keys. The terminal is restored at the end, after a panic (ratatui's
//! hook), and at SIGTERM and SIGHUP.

mod data;
mod draw;
mod state;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use tokio::signal::unix::{SignalKind, signal};

use self::data::Data;
use self::state::{State, Wish};
use super::remote::{Failure, Remote, RemoteArgs};

/// Arguments.
#[derive(Debug, Args)]
pub(super) struct TopArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// How often to look.
    #[arg(long, default_value = "2s", value_parser = crate::config::units::parse_duration)]
    interval: Duration,
    /// Print all tables once as plain text; so it is, too, when standard output is no terminal.
    #[arg(long)]
    once: bool,
}

/// What the loop waits for.
enum News {
    Look(Box<Result<Data, Failure>>),
    Key(KeyEvent),
    /// Another size of the window.
    Size,
    /// SIGTERM, SIGHUP, or no more keys.
    End,
}

/// Shows it until the user leaves.
pub(super) fn top(args: &TopArgs) -> Result<ExitCode, Failure> {
    let remote = args.remote.open()?;
    // What is wrong is told before the screen is taken.
    let first = Data::fetch(&remote, None)?;
    if args.once || !std::io::stdout().is_terminal() {
        return Ok(super::print(&draw::plain(remote.name(), &first)));
    }
    let remote = Arc::new(remote);
    let (send, news) = channel();
    let again = look(remote.clone(), first.clone(), args.interval.max(Duration::from_millis(100)), send.clone());
    let failed = |error: std::io::Error| Failure::Silent(format!("the terminal cannot be used: {error}"));
    let mut terminal = ratatui::try_init().map_err(failed)?;
    listen(send);
    let end = show(&mut terminal, remote.name(), first, &news, &again);
    ratatui::restore();
    end.map_err(failed).map(|()| ExitCode::SUCCESS)
}

/// Draws when there is news.
fn show(
    terminal: &mut DefaultTerminal,
    name: &str,
    mut data: Data,
    news: &Receiver<News>,
    pause: &Sender<bool>,
) -> std::io::Result<()> {
    let mut state = State::new();
    let mut trouble = None;
    loop {
        terminal.draw(|frame| draw::draw(frame, name, &data, &state, trouble.as_deref()))?;
        loop {
            match news.recv() {
                Ok(News::Look(look)) => match *look {
                    Ok(fresh) => (data, trouble) = (fresh, None),
                    Err(failure) => trouble = Some(failure.to_string()),
                },
                Ok(News::Key(key)) => {
                    let paused = state.paused;
                    match state.key(key, &data) {
                        Wish::Quit => return Ok(()),
                        Wish::Nothing => continue,
                        Wish::Draw => {}
                    }
                    if paused != state.paused {
                        let _ = pause.send(state.paused);
                    }
                }
                Ok(News::Size) => {}
                Ok(News::End) | Err(_) => return Ok(()),
            }
            break;
        }
    }
}

/// Asks again and again, in a thread of its own; told whether to pause.
fn look(remote: Arc<Remote>, first: Data, interval: Duration, send: Sender<News>) -> Sender<bool> {
    let (pause, told) = channel();
    std::thread::spawn(move || {
        let mut last = first;
        let mut paused = false;
        loop {
            match told.recv_timeout(interval) {
                Ok(wish) => {
                    paused = wish;
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if paused => continue,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let look = Data::fetch(&remote, Some(&last));
            if let Ok(data) = &look {
                last = data.clone();
            }
            if send.send(News::Look(Box::new(look))).is_err() {
                return;
            }
        }
    });
    pause
}

/// Keys and signals, each in a thread of its own.
fn listen(send: Sender<News>) {
    let signals = send.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            let (Ok(mut term), Ok(mut hup)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup())) else {
                return;
            };
            tokio::select! { _ = term.recv() => {}, _ = hup.recv() => {} }
        });
        let _ = signals.send(News::End);
    });
    std::thread::spawn(move || {
        loop {
            let news = match event::read() {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => News::Key(key),
                Ok(Event::Resize(..)) => News::Size,
                Ok(_) => continue,
                Err(_) => News::End,
            };
            if send.send(news).is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests;
