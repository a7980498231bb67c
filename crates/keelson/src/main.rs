//! `keelson`: the command line and the wiring of all parts. The only place that makes a real clock, real
//! chance and sockets.

mod accounts;
mod again;
mod backup;
mod buildbarn;
mod cli;
mod clock;
mod completions;
mod controllers;
mod counters;
mod data_dir;
mod down;
mod error;
mod explain;
mod image;
mod install;
mod join;
mod line;
mod logging;
mod obsyk_platform;
mod operator;
mod operators;
mod part_server;
mod parts;
mod place;
mod pool;
mod security;
mod serve;
mod signals;
mod status;
mod term;
mod up;
mod version;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    cli::{Cli, Command},
    error::Failure,
};

/// With the C library's allocator a fifth of the time of a create and a third of that of an update went into
/// it (`docs/benchmarks.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::start(cli.log_format, cli.log_level);
    let runtime = match threads(&cli.command).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure::of("start the program's threads", error)),
    };
    let result = runtime.block_on(run(cli.command));
    // What still runs on blocking threads (a last sync) may finish; it is bounded.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

/// The threads of a command. Operators alone have one: they wait nearly all of their time, and the allocator keeps, for
/// each thread, what another one has given back.
fn threads(command: &Command) -> tokio::runtime::Builder {
    match command {
        Command::Operator(_) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    }
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Up(options) => up::up(*options).await,
        Command::Down(options) => down::down(options).await,
        Command::Apiserver(options) => up::apiserver(*options).await,
        Command::Scheduler(options) => parts::scheduler(options).await,
        Command::ControllerManager(options) => parts::controller_manager(options).await,
        Command::Node(options) => parts::node(options).await,
        Command::Backup(options) => backup::backup(options).await,
        Command::Restore(options) => backup::restore(options).await,
        Command::Migrate(options) => backup::migrate(options).await,
        Command::Status(options) => status::status(options).await,
        Command::Explain(command) => explain::explain(command).await,
        Command::Controllers(options) => controllers::controllers(options).await,
        Command::Buildbarn(command) => buildbarn::buildbarn(command).await,
        Command::Image(command) => image::image(command).await,
        Command::Operator(options) => operator::operator(options).await,
        Command::Install(options) => install::install(&options),
        Command::ObsykPlatform(options) => obsyk_platform::obsyk_platform(*options).await,
        Command::Version(options) => version::version(options.output),
        Command::Completions { shell } => completions::completions(shell),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    term::error(&failure.to_string());
    ExitCode::from(failure.exit_code())
}
