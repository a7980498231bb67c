//! `sim --seed N --hours H`: simulations of a cluster, one for each seed. Prints a line for each and what is
//! wrong; exit code 1 when something is.

use std::{process::ExitCode, time::Duration};

use clap::Parser;

/// Runs a cluster through random work and faults in virtual time, and checks what is left
#[derive(Parser)]
#[command(name = "sim")]
struct Options {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, one after the other
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Hours of the cluster's time under work and faults
    #[arg(long, default_value_t = 1.0)]
    hours: f64,
    /// Nodes
    #[arg(long, default_value_t = 3)]
    nodes: u32,
    /// Also prints what was done, what was broken, and the objects that are wrong
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt().with_max_level(tracing::Level::ERROR).with_writer(std::io::stderr).init();
    let mut failed = false;
    for seed in options.seed..options.seed.saturating_add(options.seeds) {
        let duration = Duration::from_secs_f64((options.hours * 3600.0).clamp(1.0, 1e9));
        let plan = sim::Plan { seed, duration, nodes: options.nodes };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let ran = match runtime {
            Ok(runtime) => runtime.block_on(sim::run(plan)).map_err(|error| error.to_string()),
            Err(error) => Err(format!("start the runtime: {error}")),
        };
        match ran {
            Ok(report) => {
                if options.trace {
                    report
                        .faults
                        .iter()
                        .chain(&report.actions)
                        .chain(&report.evidence)
                        .for_each(|line| println!("  {line}"));
                }
                print!("{report}");
                failed |= !report.violations.is_empty();
            }
            Err(error) => {
                eprintln!("seed {seed}: {error}");
                failed = true;
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
