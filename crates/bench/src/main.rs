//! The load generator: measures any Kubernetes API server, by the plain API over TLS and HTTP/2, a control plane, the
//! Buildbarn operator, and the embedded store alone.
//!
//! Guarantees that what it reports was asked for and answered: it counts refusals, and a watcher
//! counts what it missed or saw twice. Deliberately unaware of which server it talks to.

mod cli;
mod client;
mod drive;
mod failure;
mod farm;
mod objects;
mod process;
mod report;
mod scheduling;
mod server;
mod store_load;
mod target;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    cli::{Cli, Command},
    failure::Failure,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(cli.threads.max(1)).enable_all().build();
    let result = runtime.map_err(Failure::Runtime).and_then(|runtime| {
        runtime.block_on(async {
            match &cli.command {
                Command::Server(options) => server::run(options).await,
                Command::Scheduler(options) => scheduling::run(options).await,
                Command::Farm(options) => farm::run(options).await,
                Command::Store(options) => store_load::run(options).await,
            }
        })
    });
    match result {
        Ok(report) => {
            print!("{}", report.show(cli.output));
            if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(failure) => {
            eprintln!("error: {}", failure::chain(&failure));
            ExitCode::FAILURE
        }
    }
}
