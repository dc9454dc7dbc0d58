//! The operational log: lines are formatted where they arise and written to standard error by a thread of its own.
//!
//! Whoever reads standard error may stall. Then that thread waits, and what does not fit into its lane is dropped and counted; no shard waits.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use postern::config::plan::{LogFormat, LogLevel, LogPlan};
use postern::mesh::{Lane, lane};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Lines on their way: some hundreds of kilobytes.
const LINES: usize = 1024;
/// How long the end waits until the lines are written.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// The log's end: dropping it waits until everything is written, for a bounded time.
pub struct Log {
    lane: Lane,
    written: mpsc::Receiver<()>,
}

/// Starts the log, for panics too.
///
/// # Errors
/// No thread can be started.
pub fn start(plan: LogPlan) -> io::Result<Log> {
    let level = match plan.level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    let (lane, end) = lane(LINES);
    let dropped = Arc::new(AtomicU64::new(0));
    let (done, written) = mpsc::channel();
    let counted = dropped.clone();
    let write = move || {
        end.drain(|line| {
            let mut out = io::stderr();
            // There is nowhere to say that standard error cannot be written.
            let _ = out.write_all(line);
            let lines = counted.swap(0, Ordering::Relaxed);
            if lines > 0 {
                let _ = match plan.format {
                    LogFormat::Json => {
                        writeln!(out, "{{\"level\":\"WARN\",\"message\":\"lines dropped\",\"lines\":{lines}}}")
                    }
                    LogFormat::Text => writeln!(out, "WARN lines dropped lines={lines}"),
                };
            }
        });
        let _ = done.send(());
    };
    std::thread::Builder::new().name("log".into()).spawn(write)?;

    let sender = Sender { lane: lane.clone(), dropped };
    let builder =
        tracing_subscriber::fmt().with_writer(move || sender.clone()).with_max_level(level).with_target(false);
    // What the codec of HTTP/2 says is for its authors, and any peer can make it talk.
    let targets = Targets::new().with_default(level).with_target("h2", LevelFilter::OFF);
    match plan.format {
        LogFormat::Json => builder.json().flatten_event(true).finish().with(targets).init(),
        LogFormat::Text => {
            let colour = io::IsTerminal::is_terminal(&io::stderr()) && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(colour).finish().with(targets).init();
        }
    }
    panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(backtrace));
        tracing::error!(thread = thread.name().unwrap_or("unnamed"), backtrace, "{info}");
    }));
    Ok(Log { lane, written })
}

impl Drop for Log {
    fn drop(&mut self) {
        self.lane.close();
        let _ = self.written.recv_timeout(END_PATIENCE);
    }
}

/// Takes whole lines: the formatter writes each event at once.
#[derive(Clone)]
struct Sender {
    lane: Lane,
    dropped: Arc<AtomicU64>,
}

impl Write for Sender {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lane.exchange(line.to_vec()).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
