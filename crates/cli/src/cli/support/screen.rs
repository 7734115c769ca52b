//! [`Screen`]: a terminal that is redrawn until a key ends it.

use std::{io, thread};

use tokio::sync::mpsc;

use crate::cli::support::terminal;

/// The terminal of standard output, in its alternate screen, with keys read as they are pressed. Dropping it restores the
/// terminal.
pub(crate) struct Screen {
    /// How keys were read before; `None` where standard input is no terminal.
    #[cfg(unix)]
    before: Option<rustix::termios::Termios>,
    keys: mpsc::Receiver<u8>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn enter() -> io::Result<Self> {
        let (sender, keys) = mpsc::channel(8);
        let screen = Self {
            #[cfg(unix)]
            before: read_single_keys(),
            keys,
        };
        terminal::enter_screen()?;
        if screen.reads_keys() {
            // A blocking read cannot be cancelled; the thread ends with the process.
            thread::spawn(move || {
                let mut key = [0];
                while io::Read::read(&mut io::stdin(), &mut key).is_ok_and(|read| read > 0) {
                    if sender.blocking_send(key[0]).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(screen)
    }

    /// Draws these lines over the previous ones, as many as there is room for.
    ///
    /// # Errors
    /// When the terminal cannot be written.
    pub(crate) fn draw(&self, lines: &[String]) -> io::Result<()> {
        let (rows, _) = console::Term::stdout().size();
        terminal::draw_screen(lines.get(..lines.len().min(usize::from(rows))).unwrap_or(lines))
    }

    /// Waits for the key `q`; forever where no keys can be read.
    ///
    /// # Cancel safety
    /// A call that is dropped loses only keys without a meaning.
    pub(crate) async fn quit(&mut self) {
        loop {
            match self.keys.recv().await {
                Some(b'q' | b'Q') => return,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    #[cfg(unix)]
    fn reads_keys(&self) -> bool {
        self.before.is_some()
    }

    #[cfg(not(unix))]
    fn reads_keys(&self) -> bool {
        false
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(before) = &self.before {
            // The terminal is gone when this fails.
            let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, before);
        }
        let _ = terminal::leave_screen();
    }
}

/// Has the terminal deliver each key at once and unseen. Ctrl-C stays a signal. Returns the settings of before.
#[cfg(unix)]
fn read_single_keys() -> Option<rustix::termios::Termios> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let before = tcgetattr(io::stdin()).ok()?;
    let mut keys = before.clone();
    keys.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    tcsetattr(io::stdin(), OptionalActions::Now, &keys).ok()?;
    Some(before)
}
