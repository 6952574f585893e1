//! What runs on the hosts of a lab: pods and clients.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use openelb_lab::{client, detection, failures, interop, pod, routers::Make};

#[derive(Parser)]
#[command(name = "openelb-lab", about = "Pods and clients of the lab")]
enum Arguments {
    #[command(flatten)]
    Role(Role),
}

#[derive(Subcommand)]
enum Role {
    /// Serve HTTP.
    Pod {
        /// Who it says it is.
        name: String,
        /// ADDRESS:PORT to listen on.
        address: String,
    },
    /// Run every cell of the interoperability matrix, print it, and fail if a cell does.
    Interop {
        /// Only these makes, for example `BIRD`.
        makes: Vec<String>,
        /// Write the page of the manual to this file.
        #[arg(long)]
        write: Option<PathBuf>,
    },
    /// Run every failure under traffic, and print what it costs.
    Failures {
        /// Only with this make of router, and only this failure: `killed`, `hangs`, `cut`, `router`, `rolling`.
        only: Vec<String>,
        /// Write the page of the manual to this file.
        #[arg(long)]
        write: Option<PathBuf>,
    },
    /// See how soon BFD finds a silent node, and that it finds none that is not.
    Bfd {
        /// How long all processors are busy.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
    },
    /// Send HTTP requests.
    Client {
        /// ADDRESS:PORT of the service.
        target: SocketAddr,
        /// Requests in all.
        #[arg(long, default_value_t = 1)]
        count: usize,
        /// Milliseconds between two; 0: as fast as they are answered, eight at a time.
        #[arg(long, default_value_t = 0)]
        interval_ms: u64,
        /// Milliseconds to wait for a connection, and for an answer.
        #[arg(long, default_value_t = 1000)]
        timeout_ms: u64,
        /// Stop when this file is there.
        #[arg(long)]
        stop: Option<PathBuf>,
        /// Write what was seen to this file, as JSON; without it to standard output.
        #[arg(long)]
        figures: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let Arguments::Role(role) = Arguments::parse();
    let result = match role {
        Role::Pod { name, address } => pod::serve(&name, &address),
        Role::Interop { makes, write } => run_interop(&makes, write.as_deref()),
        Role::Failures { only, write } => failures::table(&only).and_then(|page| {
            println!("{page}");
            write.map_or(Ok(()), |file| Ok(std::fs::write(file, page)?))
        }),
        Role::Bfd { minutes } => detection::soak(minutes),
        Role::Client { target, count, interval_ms, timeout_ms, stop, figures } => {
            let plan = client::Plan {
                count,
                interval: Duration::from_millis(interval_ms),
                timeout: Duration::from_millis(timeout_ms),
            };
            let seen = client::run(target, plan, stop.as_deref());
            serde_json::to_string_pretty(&seen).map_err(Into::into).and_then(|text| match figures {
                Some(file) => {
                    let new = file.with_extension("new");
                    std::fs::write(&new, text)?;
                    Ok(std::fs::rename(new, file)?)
                }
                None => {
                    println!("{text}");
                    Ok(())
                }
            })
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_interop(makes: &[String], write: Option<&std::path::Path>) -> anyhow::Result<()> {
    let wanted =
        |make: &Make| makes.is_empty() || makes.iter().any(|name| name.eq_ignore_ascii_case(make.name()));
    let mut matrix = interop::Matrix::default();
    for make in Make::ALL.into_iter().filter(wanted) {
        let version = make.version()?;
        eprintln!("{version} ...");
        matrix.columns.push(interop::Column { version, outcomes: interop::run(make)? });
    }
    let page = matrix.page();
    println!("{page}");
    if let Some(file) = write {
        std::fs::write(file, page)?;
    }
    let failures = matrix.failures();
    anyhow::ensure!(failures.is_empty(), "{} cells fail", failures.len());
    Ok(())
}
