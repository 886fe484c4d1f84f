//! `nines demo`: three nodes of real processes, their faults, and what a client outside saw of them.
//!
//! - [`lab`]: the world of namespaces, cables and processes; [`client`]: the hold on the load generator in it.

pub(crate) mod client;
pub(crate) mod lab;

use std::ffi::OsString;

use crate::loadgen;

/// The subcommands through which the demo executes this same program again. Hidden from the help.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Hidden {
    /// The load generator.
    #[command(name = client::CLIENT, hide = true)]
    Client(loadgen::Options),
    /// Become another program that ends with the demo.
    #[command(name = lab::room::EXEC, hide = true)]
    Exec {
        /// The process to end with.
        parent: u32,
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// The demo's networks, driven by JSON lines.
    #[command(name = "demo-lab", hide = true)]
    Lab {
        /// Without namespaces, whatever is allowed.
        #[arg(long)]
        loopback: bool,
    },
}

impl Hidden {
    /// Runs the subcommand. Call it before any thread exists.
    ///
    /// # Errors
    /// What went wrong, for the log of the demo.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Client(options) => loadgen::run(&options),
            Self::Exec { parent, command } => Err(lab::keeper::run_wrapped(parent, &command)),
            Self::Lab { loopback } => lab::script::run(loopback.then_some(lab::Mode::Loopback)),
        }
    }
}
