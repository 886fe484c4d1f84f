//! `nines chassis`: a simulated chassis as a process of its own, as hardware is.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use sixnines_hwsim::chassis::server::{boot_clock, serve};
use sixnines_hwsim::chassis::{Chassis, Plan};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What `nines chassis` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The chassis as YAML. Left out: an MXP-like shelf with 18 slots, five fans and three supplies.
    pub(crate) file: Option<PathBuf>,
    /// What it is called; the first part of its objects' names.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Where its shelf manager answers.
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// Takes orders of any epoch: to see that the demo notices.
    #[arg(long, hide = true)]
    pub(crate) without_epoch_check: bool,
}

/// Runs until SIGTERM or Ctrl-C.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let mut plan = match &options.file {
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            Plan::parse(&file.display().to_string(), &text)?
        }
        None => Plan::mxp(),
    };
    if let Some(name) = &options.name {
        plan = plan.named(name.as_str().into());
    }
    let mut chassis = Chassis::new(plan, boot_clock());
    if options.without_epoch_check {
        chassis = chassis.without_epoch_check();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(async move {
        let listener = TcpListener::bind(options.listen).await.with_context(|| format!("cannot listen on {}", options.listen))?;
        println!("chassis {} answers on {}", chassis.name(), options.listen);
        let (stop, stopped) = watch::channel(false);
        let ended = tokio::spawn(serve(chassis, listener, boot_clock, stopped));
        crate::daemon::signal().await;
        stop.send_replace(true);
        ended.await.context("the chassis panicked")?.context("the chassis ended")
    })
}
