//! `nines`: the one binary of sixnines.

#[expect(dead_code, reason = "the lab offers what the steps of the demo use; they follow")]
mod demo;
mod loadgen;
mod realtime;
mod sniffer;

use std::process::ExitCode;

use clap::Parser as _;

#[derive(clap::Parser)]
#[command(name = "nines", version, about = "Keeps a telecom appliance serving while its parts fail, and tells you why")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    #[command(flatten)]
    Hidden(demo::Hidden),
}

fn main() -> ExitCode {
    let Command::Hidden(command) = Cli::parse().command;
    match command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nines: {error:#}");
            ExitCode::from(3)
        }
    }
}
