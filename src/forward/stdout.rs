//! Standard output: one event a line.
//!
//! For whoever runs the receiver as a child, or pipes it on. Logs go to standard error, so nothing
//! else stands there. An event counts once the line is with the kernel: what becomes of it then
//! nobody tells, and a power cut may lose it. Where nothing else is kept (`store.kind = "none"`) this
//! sink is refused.
//!
//! A reader that is slow holds up this sink alone: a thread of its own writes. A reader that has gone
//! will not come back while this process lives, for a pipe has no other end to be opened again; so
//! the sink stops, its changes stay in the outbox, and the next start goes on with them.
//!
//! A line is never two halves: the rest of one that was cut short is written before anything else.

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;

use super::event::Event;
use super::fault::Fault;
use super::lines::{Lines, Torn};

/// The sink.
#[derive(Debug)]
pub struct Stdout {
    lines: Lines,
}

impl Stdout {
    /// Prepares it.
    ///
    /// # Errors
    /// If there is no standard output, or no thread to write there.
    pub fn open() -> Result<Self, String> {
        // Past the buffer and the lock of the standard library, which also takes "not open" for
        // success; and by number, not as `/dev/stdout`: under systemd it is a socket.
        let out = io::stdout().as_fd().try_clone_to_owned();
        let out = out.map_err(|error| format!("there is no standard output: {error}"))?;
        Self::to(fs::File::from(out))
    }

    /// The same in another place.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn to(out: impl Write + Send + 'static) -> Result<Self, String> {
        let mut place = Place { out, rest: Vec::new() };
        Ok(Self { lines: Lines::start("stdout-sink", move |lines| place.write(lines))? })
    }

    /// Sends one event.
    ///
    /// # Errors
    /// Whatever kept it from being written.
    pub async fn send(&self, event: &Event) -> Result<(), Fault> {
        let mut line = event.structured();
        line.push(b'\n');
        self.lines.append(line).await
    }
}

struct Place<W> {
    out: W,
    /// What is still to be written, of the line under way or of one that was cut short.
    rest: Vec<u8>,
}

impl<W: Write> Place<W> {
    fn write(&mut self, lines: &[Vec<u8>]) -> Result<(), Torn> {
        self.finish().map_err(|error| (0, fault(&error)))?;
        for (written, line) in lines.iter().enumerate() {
            self.rest.extend_from_slice(line);
            if let Err(error) = self.finish() {
                // Nothing of it was written: there is nothing to finish.
                if self.rest.len() == line.len() {
                    self.rest.clear();
                }
                return Err((written, fault(&error)));
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        while !self.rest.is_empty() {
            match self.out.write(&self.rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => drop(self.rest.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.flush()
    }
}

fn fault(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::BrokenPipe => {
            Fault::Gone { why: "nobody reads standard output any more".to_owned() }
        }
        kind => Fault::passing(format!("failed to write to standard output: {kind}")),
    }
}
