//! The log's times, and openraft's settings with our reasons.

use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use sixnines_core::domain::config::Profile;

/// How fast the control log judges its leader and gives up on answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats of the leader, in whole milliseconds. Much slower than liveness, which tells of a dead leader
    /// ([`super::Handle::campaign`]): these are for what liveness does not see. Each costs a domain at rest a dozen datagrams and two
    /// dozen wake-ups, so there are hardly more of them than an election's time needs.
    pub heartbeat: Duration,
    /// Silence of the leader before an election, drawn anew each time: at least this, more than two heartbeats.
    pub election_min: Duration,
    /// At most this. A voter refuses other candidates for so long after it heard its leader.
    pub election_max: Duration,
    /// How long a proposal waits for a leader, and then for its outcome.
    pub propose: Duration,
    /// Applied entries between two snapshots.
    pub snapshot_every: u64,
    /// Entries kept behind a snapshot, so that a node that was away shortly needs none.
    pub keep_entries: u64,
}

impl Timing {
    /// The times of a profile.
    pub const fn of(profile: Profile) -> Self {
        match profile {
            Profile::Fabric => Self::of_millis(280, 600, 900, 500),
            Profile::Lan => Self::of_millis(300, 700, 1000, 1000),
            Profile::Wan => Self::of_millis(250, 1000, 1500, 8000),
        }
    }

    const fn of_millis(heartbeat: u64, election_min: u64, election_max: u64, propose: u64) -> Self {
        Self {
            heartbeat: Duration::from_millis(heartbeat),
            election_min: Duration::from_millis(election_min),
            election_max: Duration::from_millis(election_max),
            propose: Duration::from_millis(propose),
            snapshot_every: 1000,
            keep_entries: 100,
        }
    }

    /// How long to wait before asking again who leads.
    pub(crate) fn retry(&self) -> Duration {
        self.election_min / 24
    }

    /// How long a leader may be silent before its proposer tries another way.
    pub(crate) fn detour(&self) -> Duration {
        self.election_min / 60
    }

    /// How long a part of a snapshot may take, disk included.
    pub(crate) fn snapshot_part(&self) -> Duration {
        self.election_max * 5
    }

    /// openraft's settings.
    pub(crate) fn raft(&self) -> Config {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Config {
            cluster_name: "sixnines".into(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: millis(self.election_max),
            install_snapshot_timeout: millis(self.snapshot_part()) * 4 / 3,
            // Off by default: a leader that sends but hears nobody then blocks its followers for ever.
            quorum_loss_probe_interval: Some(2 * millis(self.election_max) + millis(self.heartbeat)),
            enable_pre_vote: Some(true),
            // On by default: a leader that came back would lead without being asked, on a state that may be old.
            enable_leader_restore: Some(false),
            // A voter whose log went back has lost its disk. It is replaced, never taken as it is.
            allow_log_reversion: Some(false),
            // 200 ms and doubling by default: longer than an election.
            backoff: "2ms 4ms 8ms ...20ms".into(),
            log_stage_capacity: Some(16), // statistics that nobody reads; 700 KB by default
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_every),
            max_in_snapshot_log_to_keep: self.keep_entries,
            replication_lag_threshold: self.snapshot_every + self.keep_entries,
            ..Config::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openraft_accepts_every_profile_and_none_of_the_dangerous_defaults_is_left() {
        for profile in Profile::ALL {
            let config = Timing::of(profile).raft().validate().expect("a valid configuration");
            assert!(config.quorum_loss_probe_interval.is_some(), "{profile:?}");
            assert_eq!(config.enable_pre_vote, Some(true), "{profile:?}");
            assert_eq!(config.enable_leader_restore, Some(false), "{profile:?}");
            assert_eq!(config.allow_log_reversion, Some(false), "{profile:?}");
        }
    }
}
