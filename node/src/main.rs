//! `nines`: the one binary of sixnines.

mod api;
mod bench;
#[path = "../../checkpoint/examples/callserver.rs"]
#[expect(dead_code, reason = "its own main is for who copies it")]
mod callserver;
mod chassis;
mod cli;
mod config;
mod core_loop;
mod daemon;
mod demo;
mod font;
mod init;
mod loadgen;
mod neighbours;
mod realtime;
mod scenario;
mod shipped;
mod sim;
mod sniffer;
mod standing;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use api::{Call, Failure, Reply};
use cli::{Ask, Bench, Cli, Command, JournalStep, PolicyStep, SimStep, client, render};

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Demo(options) => ended(demo::run(&options)),
        Command::Bench { what: Bench::Failover(options) } => ended(demo::run_bench(&options)),
        Command::Bench { what: Bench::Idle(options) } => ended(demo::run_idle(&options)),
        Command::Bench { what: Bench::Form(options) } => ended(demo::run_form(&options)),
        Command::Bench { what: Bench::Soak(options) } => ended(demo::run_soak(&options)),
        Command::Bench { what: Bench::Discs(options) } => ended(bench::discs::run(&options)),
        Command::Bench { what: Bench::Sim(options) } => ended(sim::bench::run(&options)),
        Command::Bench { what: Bench::Federation(options) } => ended(sim::federation::run(&options)),
        Command::Sim { step: SimStep::Run(options) } => cli::sim::run(&options),
        Command::Sim { step: SimStep::Check(options) } => cli::sim::check(&options),
        Command::Sim { step: SimStep::Catalogue { word } } => cli::sim::catalogue(&word),
        Command::Sim { step: SimStep::Campaign(options) } => cli::campaign::run(&options),
        Command::Sim { step: SimStep::Faults(options) } => cli::faults::run(&options),
        Command::Sim { step: SimStep::Replay(options) } => cli::replay::run(&options),
        Command::Hidden(command) => ended(command.run().map(|()| ExitCode::SUCCESS)),
        Command::Init(options) => bad_input(init::run(&options)),
        Command::Join(options) => cli::join::run(&options),
        Command::Run(options) => bad_input(daemon::run(&options)),
        Command::Chassis(options) => bad_input(chassis::run(&options)),
        Command::Journal { step: JournalStep::Check { place, json } } => cli::journal::check(&place, json),
        Command::Journal { step: JournalStep::Show { place, pattern, last, json } } => cli::journal::show(&place, &pattern, last, json),
        Command::Policy { step: PolicyStep::Check { dir, json } } => cli::policy::check(&dir, json),
        Command::Policy { step: PolicyStep::Apply { dir, message, ask } } => match cli::policy::read(&dir) {
            Ok(files) => answers(Call::PolicyApply { files, message }, &ask, false),
            Err(failure) => render::refuse(&failure, ask.json),
        },
        command => {
            let follows = matches!(command, Command::Events { follow: true, .. });
            let Some((call, ask, check)) = command.call() else {
                let failure = Failure { code: "bad-input".into(), message: "an assignment is CONTROL=VALUE".into(), help: Some("nines set /mxp1/fan4 duty=80".into()), exit: 2 };
                return render::refuse(&failure, false);
            };
            let watched = follows.then(|| call.clone());
            let code = answers(call, &ask, check);
            match watched {
                Some(Call::Events { pattern, .. }) => answers(Call::Watch { pattern }, &ask, false),
                _ => code,
            }
        }
    }
}

/// Asks and shows; the exit code says what became of it.
fn answers(call: Call, ask: &Ask, check: bool) -> ExitCode {
    let replies = match client::ask(ask, call) {
        Ok(replies) => replies,
        Err(failure) => return render::refuse(&failure, ask.json),
    };
    let mut code = ExitCode::SUCCESS;
    let mut out = std::io::stdout().lock();
    for reply in replies {
        let shown = match reply {
            Ok(Reply::Failed(failure)) | Err(failure) => return render::refuse(&failure, ask.json),
            Ok(reply) => {
                if let Reply::Status(status) = &reply
                    && check
                    && !(status.is_serving && status.is_redundant)
                {
                    code = ExitCode::from(1);
                }
                if ask.json { serde_json::to_string(&reply).map(|t| t + "\n").unwrap_or_default() } else { render::text(&reply) }
            }
        };
        if out.write_all(shown.as_bytes()).and_then(|()| out.flush()).is_err() {
            return code; // whoever read has gone
        }
    }
    code
}

/// For what an operator mends: a file, an address, a directory.
fn bad_input(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn ended(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("nines: {error:#}");
        ExitCode::from(3)
    })
}
