//! The running demo: the lab, the domain in it, the client outside; and waiting for states of them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use sixnines_core::domain::config::Profile;

use super::client::{Client, Seen};

use super::domain::{Domain, Service, Status};
use super::lab::{Lab, SEATS, Seat};
use super::progress::Progress;
use super::report::{Facts, Meant};
use super::shelf::Shelf;
use super::{Protection, setup};

/// The service that everything turns around.
pub(crate) const SERVICE: &str = "calls";
/// How long a state may take to come, before the demo says that it never came.
const SOON: Duration = Duration::from_secs(30);
/// Between two looks. The machine is small, and looking costs the domain time.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// For how long the client goes on watching after a state has come.
const SETTLE: Duration = Duration::from_millis(300);

/// The running demo.
pub(crate) struct Stage {
    /// The world.
    pub(crate) lab: Lab,
    /// The client outside.
    pub(crate) client: Client,
    /// The domain inside.
    pub(crate) domain: Box<dyn Domain>,
    /// The chassis, in the order of their names.
    pub(crate) shelves: Vec<Shelf>,
    /// The domain's time profile.
    pub(crate) profile: Profile,
    /// What was taken out, to see that the demo notices.
    pub(crate) without: Vec<Protection>,
    /// What the user sees.
    pub(crate) progress: Progress,
}

/// How things were when a step began.
pub(crate) struct Before {
    name: &'static str,
    /// The call service.
    pub(crate) calls: Service,
    /// Who is active.
    pub(crate) active: String,
    status: Status,
    suspensions: u64,
    chassis_ms: f64,
}

impl Before {
    /// The epoch of a group when the step began.
    pub(crate) fn epoch_of(&self, group: &str) -> u64 {
        self.status.service(group).map_or(0, |s| s.epoch)
    }
}

/// How things were when the fault had had its effect.
pub(crate) struct After {
    /// The client's window until here.
    pub(crate) seen: Seen,
    /// Who is active now.
    pub(crate) active: String,
    /// The chain of causes.
    pub(crate) why: Vec<String>,
}

/// What a step adds to what every step has.
#[derive(Default)]
pub(crate) struct Notes {
    /// Lines for people.
    pub(crate) told: Vec<String>,
    /// Promises of this step alone that were not kept.
    pub(crate) broken: Vec<String>,
}

impl Stage {
    /// Waits until nothing is missing, then opens the step's window.
    pub(crate) fn begin(&mut self, name: &'static str) -> anyhow::Result<Before> {
        let status = self.wait_redundant()?;
        let calls = status.service(SERVICE).with_context(|| format!("the domain does not know {SERVICE}"))?.clone();
        let active = calls.active.clone().context("a redundant service has an active")?;
        let suspensions = self.domain.suspensions()?;
        let chassis_ms = self.chassis_two_actives_ms()?;
        self.client.mark(name)?;
        Ok(Before { name, calls, active, status, suspensions, chassis_ms })
    }

    /// Watches a little longer, then asks who is active and why. An active whose lease is over for a moment, on a machine that stands still, is
    /// nobody until it runs again: the client's gap shows that, and the role has not moved.
    pub(crate) fn settle(&mut self, why: &str) -> anyhow::Result<After> {
        std::thread::sleep(SETTLE);
        let active = self.wait("somebody is active", |stage| Ok(stage.domain.status()?.service(SERVICE).and_then(|s| s.active.clone())))?;
        let seen = self.client.report()?;
        let why = self.domain.why(why)?;
        Ok(After { seen, active, why })
    }

    /// Waits until nothing is missing, reads all calls back, and closes the step's window.
    pub(crate) fn end(&mut self, before: Before, meant: Meant, after: After, notes: Notes) -> anyhow::Result<Facts> {
        self.wait_redundant()?;
        self.progress.live(&format!("{}: reading every call back", before.name));
        let read_back = self.client.read_back()?;
        let healed = self.client.report()?;
        // A node that restarted counts from zero: what it had counted before its death died with it.
        let suspensions = self.domain.suspensions()?.saturating_sub(before.suspensions);
        let chassis_two_actives_ms = (self.chassis_two_actives_ms()? - before.chassis_ms).max(0.0);
        Ok(Facts {
            name: before.name,
            meant,
            active: (before.active, after.active),
            fault: after.seen,
            healed,
            read_back,
            chassis_two_actives_ms,
            suspensions,
            why: after.why,
            broken: notes.broken,
            told: notes.told,
        })
    }

    /// For how long, at most, a chassis has carried out an older epoch's actions after a newer one's.
    pub(crate) fn chassis_two_actives_ms(&mut self) -> anyhow::Result<f64> {
        self.shelves.iter_mut().try_fold(0.0, |longest: f64, shelf| Ok(longest.max(shelf.two_actives_ms()?)))
    }

    /// Waits until every node is up and every group has what it can have.
    pub(crate) fn wait_redundant(&mut self) -> anyhow::Result<Status> {
        self.progress.live("waiting until the domain is redundant");
        let mut lacks = String::new();
        self.wait("the domain is redundant", |stage| {
            let status = match stage.domain.status() {
                Ok(status) => status,
                Err(error) => {
                    lacks = format!("{error:#}");
                    return Ok(None);
                }
            };
            match status.lacks(SEATS.len(), candidates) {
                None => Ok(Some(status)),
                Some(missing) => {
                    lacks = missing;
                    Ok(None)
                }
            }
        })
        .with_context(|| lacks)
    }

    /// Waits until the client has had an answer under a higher epoch.
    pub(crate) fn wait_moved(&mut self, before: &Before) -> anyhow::Result<()> {
        let epoch = before.calls.epoch;
        self.wait("the client hears a new active", |stage| {
            let seen = stage.client.report()?;
            Ok(seen.client.voices.iter().any(|(heard, _)| *heard > epoch).then_some(()))
        })
    }

    /// Waits until `look` finds something; an error ends the waiting.
    pub(crate) fn wait<T>(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            anyhow::ensure!(Instant::now() < deadline, "waited {} s, and still not: {what}", SOON.as_secs());
            self.lab.keeper().reap();
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Which of the newest events of one node another does not know, in words; `None` if all know all.
    pub(crate) fn events_missing(&mut self) -> anyhow::Result<Option<String>> {
        for origin in SEATS {
            let made = self.domain.events(origin.node, origin.node)?;
            for other in SEATS.into_iter().filter(|s| *s != origin) {
                let known: BTreeSet<_> = self.domain.events(other.node, origin.node)?.into_iter().collect();
                if let Some(missing) = made.iter().find(|id| !known.contains(*id)) {
                    return Ok(Some(format!("{} does not know event {missing} of {}", other.node, origin.node)));
                }
            }
        }
        Ok(None)
    }

    /// The shelf of that name.
    pub(crate) fn shelf(&mut self, chassis: &str) -> anyhow::Result<&mut Shelf> {
        self.shelves.iter_mut().find(|s| s.chassis() == chassis).with_context(|| format!("there is no chassis {chassis}"))
    }

    /// Starts a node's daemon again.
    pub(crate) fn restart(&mut self, node: &str) -> anyhow::Result<()> {
        setup::start_node(&self.lab, seat(node)?, &self.without)
    }
}

/// Where a node sits.
pub(crate) fn seat(node: &str) -> anyhow::Result<Seat> {
    SEATS.into_iter().find(|s| s.node == node).with_context(|| format!("{node} is no node of the demo"))
}

/// How many nodes could be active for a group: all for a service, those in it for a chassis.
pub(crate) fn candidates(group: &str) -> usize {
    match group.strip_prefix("chassis:") {
        Some(chassis) => SEATS.iter().filter(|s| s.chassis == chassis).count(),
        None => SEATS.len(),
    }
}
