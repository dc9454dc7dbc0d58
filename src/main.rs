//! The command: flags, exit codes, and what a person at a terminal gets to see.

mod log;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use clap::{Parser, Subcommand};
use postern::config::plan::Plan;
use postern::config::{self, Complaints};
use postern::demo;
use postern::shard::start::{self, Ended, StartError};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BAD: Style = AnsiColor::Red.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default().bold();

/// What the exit code says.
mod exit {
    /// A shard failed, or the drain's time was up with connections still open.
    pub const FAILED: u8 = 1;
    /// The configuration or the command line is wrong.
    pub const USAGE: u8 = 2;
    /// The gateway could not start: an address in use, io_uring forbidden.
    pub const CANNOT_START: u8 = 3;
}

/// Postern stands between your gateway and its backends: it proves itself to them, survives their failures and reaches those that are on no public
/// network.
#[derive(Parser)]
#[command(version, max_term_width = 100, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
First steps:
  postern demo                      a gateway and a backend at once, with requests to try
  postern check config.json         everything that is wrong with a file, and how to mend it
  postern run config.json           serve until SIGTERM, which finishes what is in flight

The smallest file that proxies:
  { \"listeners\": [ { \"address\": \"0.0.0.0:8080\" } ],
    \"upstreams\": { \"app\": { \"endpoints\": [ \"http://127.0.0.1:3000\" ] } },
    \"routes\": [ { \"upstream\": \"app\" } ] }

Exit codes: 0 all went well, 1 failed or drained incompletely, 2 wrong file or flags, 3 could not start.";

#[derive(Subcommand)]
enum Command {
    /// Serve what FILE says, until SIGTERM or SIGINT
    ///
    /// The first signal drains: no new connections, `Connection: close` on what is still answered, and an end when all is answered or after
    /// `drain_timeout`. A second signal ends at once.
    ///
    /// SIGHUP looks at once whether certificates were renewed, which otherwise happens every two seconds.
    Run { file: PathBuf },
    /// Say everything that is wrong with FILE, and change nothing
    Check {
        file: PathBuf,
        /// Print the complaints as JSON, for other programs
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of the configuration, for editors to complete and check by
    Schema,
    /// Start a gateway in front of a built-in backend, and print requests to try
    Demo {
        /// Where the gateway listens; the next free port is taken when this one is not [default: 8080]
        #[arg(long)]
        port: Option<u16>,
        /// Also write the configuration that the demo runs to this file
        #[arg(long, value_name = "FILE")]
        write_config: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    // The allocator asks for pages of 2 MiB where the host has them. They cost several MiB of memory and showed no gain in speed.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    match Arguments::parse().command {
        Command::Run { file } => match config::load(&file, &environment) {
            Ok(plan) => run(plan, || {}),
            Err(complaints) => complain(&file, &complaints, false),
        },
        Command::Check { file, json } => match config::load(&file, &environment) {
            Ok(plan) => approve(&file, &plan, json),
            Err(complaints) => complain(&file, &complaints, json),
        },
        Command::Schema => {
            say(&config::schema());
            ExitCode::SUCCESS
        }
        Command::Demo { port, write_config } => demonstrate(port, write_config.as_deref()),
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn run(plan: Plan, ready: impl FnOnce()) -> ExitCode {
    let ended = log::start(plan.log).map_err(StartError::Thread).and_then(|log| {
        let ended = start::run(plan, ready);
        // Everything logged comes before what is told below.
        drop(log);
        ended
    });
    match ended {
        Ok(Ended::Drained) => ExitCode::SUCCESS,
        Ok(Ended::DrainTimeout | Ended::Failed) => ExitCode::from(exit::FAILED),
        Err(error) => {
            tell(&format!("{BAD}cannot start:{BAD:#} {error}"));
            ExitCode::from(exit::CANNOT_START)
        }
    }
}

fn demonstrate(port: Option<u16>, write_config: Option<&Path>) -> ExitCode {
    let demo = match demo::prepare(port) {
        Ok(demo) => demo,
        Err(error) => {
            tell(&format!("{BAD}cannot start the demo:{BAD:#} {error}"));
            return ExitCode::from(exit::CANNOT_START);
        }
    };
    if let Some(path) = write_config
        && let Err(error) = std::fs::write(path, &demo.config)
    {
        tell(&format!("{BAD}cannot write {}:{BAD:#} {error}", path.display()));
        return ExitCode::from(exit::USAGE);
    }
    match config::parse(&demo.config, Path::new(""), &environment) {
        Ok(plan) => run(plan, || say(&demo.describe(write_config))),
        Err(complaints) => complain(Path::new("the demo's configuration"), &complaints, false),
    }
}

fn approve(file: &Path, plan: &Plan, json: bool) -> ExitCode {
    if json {
        say("[]");
    } else {
        let (listeners, upstreams, routes) = (plan.listeners.len(), plan.upstreams.len(), plan.routes.len());
        let counts = format!("{listeners} listeners, {upstreams} upstreams, {routes} routes");
        say(&format!("{GOOD}{} is fine:{GOOD:#} {counts}", file.display()));
    }
    ExitCode::SUCCESS
}

fn complain(file: &Path, complaints: &Complaints, json: bool) -> ExitCode {
    if json {
        say(&complaints.to_json());
    } else {
        tell(&format!("{BAD}{}:{BAD:#}\n{complaints}", file.display()));
    }
    ExitCode::from(exit::USAGE)
}

/// A pipe that is closed early is nobody's fault.
fn say(text: &str) {
    let _ = writeln!(anstream::stdout(), "{text}");
}

fn tell(text: &str) {
    let _ = writeln!(anstream::stderr(), "{text}");
}
