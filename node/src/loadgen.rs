//! The load generator: a client of the call server that stands outside and believes nobody.
//!
//! It sends one request every millisecond to the service's address, on an absolute schedule, repeats what is not answered
//! with the same request id, and at the end reads back everything that was acknowledged. It is a process of its own, in the
//! client's namespace, at real-time priority if it may, and is told what to do by JSON lines on its standard input:
//! [`Command`] in, [`Reply`] out, one for one and in order. The end of its input ends it.
//!
//! - [`machine`]: what to send and what an answer proves (pure); [`record`]: gaps, epochs, own lateness (pure);
//! - [`wire`]: the datagrams; [`shell`]: socket, clock and schedule.

pub(crate) mod machine;
pub(crate) mod record;
pub(crate) mod shell;
pub(crate) mod wire;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::sniffer;
use machine::ReadBack;
use record::Report;

/// How the client is started: `nines demo-client`, hidden.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Where the service answers. With several, each request goes to all of them: who has no role keeps silent.
    #[arg(long = "to", required = true)]
    pub(crate) to: Vec<SocketAddr>,
    /// How many calls are kept up.
    #[arg(long, default_value_t = 2000)]
    pub(crate) calls: u32,
    /// Watch every frame on this device that speaks for the first address.
    #[arg(long)]
    pub(crate) sniff: Option<String>,
}

/// One line of input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub(crate) enum Command {
    /// Begin a window; [`Reply::Marked`].
    Mark {
        /// What the window is called.
        name: String,
    },
    /// Tell about the window; [`Reply::Report`].
    Report,
    /// Read every call back beside the load; [`Reply::ReadBack`] when done.
    ReadBack,
    /// Stop new changes, wait for what is open (10 s at most), read every call back, answer [`Reply::ReadBack`], and end.
    Finish,
}

/// One line of output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// The first line: the client sends.
    Ready {
        /// Whether the kernel gave real-time priority.
        realtime: bool,
        /// Whether frames are watched; if not, why.
        sniffer: Result<(), String>,
    },
    /// A window began.
    Marked {
        /// Nanoseconds of the boot-time clock.
        at_ns: u64,
    },
    /// What was seen since the mark.
    Report {
        /// By the prober.
        client: Box<Report>,
        /// By the sniffer.
        frames: Option<sniffer::Report>,
        /// Calls that were set up so far.
        calls_up: u64,
    },
    /// What a reading back found.
    ReadBack(ReadBack),
}

/// Runs until the end of standard input or [`Command::Finish`].
///
/// # Errors
/// If no socket can be had, or standard output is gone.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    shell::run(options)
}
