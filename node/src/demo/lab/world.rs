//! What this process may do, and getting there: its own namespaces as root, in a user namespace, or none.

use std::fmt;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use serde::{Deserialize, Serialize};
use sixnines_drivers::netns::{Netns, become_root_of_a_user_namespace};

/// What the demo's world is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Network namespaces, made as root.
    Netns,
    /// Network namespaces in a user namespace of our own.
    Userns,
    /// Addresses of the loopback network: neither is allowed here.
    Loopback,
}

impl Mode {
    /// What this mode cannot show; `None` if nothing is missing.
    pub(crate) fn left_out(self) -> Option<&'static str> {
        match self {
            Self::Netns | Self::Userns => None,
            Self::Loopback => Some(
                "no namespaces are allowed here, so all nodes share the loopback network: no address moves (the client asks every node \
                 and the active answers), no gate closes, no cable can be cut: links-cut and one-link-cut are left out",
            ),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Netns => "netns",
            Self::Userns => "userns",
            Self::Loopback => "loopback",
        })
    }
}

/// Set once we are in a user namespace of our own, or have seen that there is none to be had.
const TRIED: &str = "SIXNINES_DEMO_WORLD";

/// Finds out what is allowed. Without the right to namespaces it executes this program again, with the same arguments, as
/// root of a user namespace; that is the same process, so signals and exit code need no forwarding.
///
/// Call it before any thread exists, and again (it is the same call) in the new image.
pub(crate) fn enter() -> Mode {
    let tried = std::env::var_os(TRIED);
    if tried.as_deref().is_some_and(|t| t == "loopback") {
        return Mode::Loopback;
    }
    if Netns::new().is_ok() {
        return if tried.is_some() { Mode::Userns } else { Mode::Netns };
    }
    if tried.is_none() {
        let mut again = Command::new("/proc/self/exe");
        again.args(std::env::args_os().skip(1)).env(TRIED, "userns");
        become_root_of_a_user_namespace(&mut again);
        let error = again.exec(); // Returns only if it failed; until the maps are written nothing is lost but this user's name.
        tracing::debug!(%error, "no user namespace");
    }
    Mode::Loopback
}
