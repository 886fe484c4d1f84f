//! The fallback form of the gate: nftables set elements that expire, for who may not load BPF programs.
//!
//! A `netdev` table with one egress chain per device; each rule drops what speaks for one address unless the slot's element is in the set
//! `open`. Elements bear a timeout, so the set empties itself. A thread of its own, real-time where that is allowed, keeps the elements
//! alive as the words say; what it does when is decided in [`plan`](self::plan).
//!
//! Timeouts count from the moment the kernel adds the element, so a pause between reckoning and adding makes the gate late. Two things
//! bound that by one lease: an element is prolonged by deleting and adding it in one transaction, which fails once it has expired; and it
//! is added anew only together with the deletion of a *ticket*, an element that was put there, to live for one lease, before the reckoning.

mod plan;
mod wire;

use std::sync::{Arc, OnceLock};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use sixnines_core::time::Instant;

use self::plan::{Slot, Step};
use self::wire::Table;
use super::word::Bell;
use super::{DeadlineWord, Gate, GateError, GateForm, GateSlot, Guard, Plan, Pulse, device_index};
use crate::clock::boot_now;
use crate::netlink::route::Route;
use crate::netlink::{Netlink, NetlinkError, Protocol, Refusal};
use crate::realtime::{self, Right};

/// How often the thread turns when nobody rings: shows that it lives.
const PULSE: Duration = Duration::from_millis(10);

/// A gate of nftables set elements.
#[derive(Debug)]
pub struct NftGate {
    words: Vec<DeadlineWord>,
    shared: Arc<Shared>,
    table: Table,
    netlink: Netlink,
    route: Route,
    guards: Vec<Guard>,
    lease: Duration,
    thread: Option<JoinHandle<()>>,
}

/// Between the gate's thread and the others.
#[derive(Debug, Default)]
struct Shared {
    /// Rung by the words.
    bell: Arc<Bell>,
    /// Rung after each pass.
    passed: Bell,
    passes: AtomicU64,
    maybe_open: Vec<AtomicBool>,
    stop: AtomicBool,
    /// Told by the thread when it has begun.
    real_time: OnceLock<Right>,
}

impl NftGate {
    /// Installs it closed, in the same transaction in which the owner's earlier one goes.
    pub fn install(plan: &Plan) -> Result<Self, GateError> {
        let mut route = Route::open()?;
        for device in plan.guards.iter().flat_map(|g| &g.devices) {
            device_index(&mut route, device)?;
        }
        let table = Table::of(plan.owner);
        let mut netlink = Netlink::open(Protocol::Netfilter)?;
        table.install(&mut netlink, &plan.guards)?;

        let shared = Arc::new(Shared { maybe_open: plan.guards.iter().map(|_| AtomicBool::new(false)).collect(), ..Default::default() });
        let words: Vec<_> = plan.guards.iter().map(|_| DeadlineWord::with_bell(&shared.bell)).collect();
        let keeper = Keeper {
            words: words.clone(),
            slots: plan.guards.iter().map(|_| Slot::new(plan.lease, realtime::tick())).collect(),
            table: table.clone(),
            netlink: Netlink::open(Protocol::Netfilter)?,
            lease: plan.lease,
            shared: Arc::clone(&shared),
        };
        let thread = std::thread::Builder::new().name("gate".into()).spawn(move || keeper.run()).map_err(GateError::Thread)?;
        Ok(Self { words, shared, table, netlink, route, guards: plan.guards.clone(), lease: plan.lease, thread: Some(thread) })
    }

    fn stop(&mut self) {
        self.words.iter().for_each(|w| w.store(Instant::ZERO));
        self.shared.stop.store(true, Ordering::Release);
        self.shared.bell.ring();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the gate's thread had panicked; the gate closed by itself");
        }
    }
}

impl Gate for NftGate {
    fn form(&self) -> GateForm {
        GateForm::Nft
    }

    fn words(&self) -> &[DeadlineWord] {
        &self.words
    }

    fn close(&mut self, slot: GateSlot) {
        let before = self.shared.passes.load(Ordering::Acquire);
        self.arm(slot, Instant::ZERO);
        // A thread that hangs keeps nothing open for longer than a ticket and an element live, one after the other.
        let surely_expired = boot_now() + self.lease * 2 + realtime::tick() * 2;
        loop {
            let heard = self.shared.passed.count();
            // The pass under way may have read the word before us; the one after it has not.
            let seen = self.shared.passes.load(Ordering::Acquire) >= before + 2;
            let now = boot_now();
            if now >= surely_expired || seen && !self.shared.maybe_open[usize::from(slot.0)].load(Ordering::Acquire) {
                return;
            }
            self.shared.bell.ring();
            self.shared.passed.wait(heard, surely_expired.since(now));
        }
    }

    fn dropped(&mut self, slot: GateSlot) -> u64 {
        self.table.dropped(&mut self.netlink, slot).unwrap_or(0)
    }

    fn pulse(&self) -> Option<Pulse> {
        let shared = Arc::clone(&self.shared);
        Some(Box::new(move || shared.passes.load(Ordering::Relaxed)))
    }

    fn restore(&mut self) -> Result<usize, GateError> {
        let there: Vec<String> = self.route.links()?.into_iter().map(|l| l.name).collect();
        // By a device that is not there nothing leaves, and the kernel refuses a chain on it.
        let guards: Vec<Guard> = self.guards.iter().map(|g| g.on(&there)).collect();
        let missing = self.table.missing(&mut self.netlink, &guards)?;
        if missing > 0 {
            // Closed for a moment: the thread finds its elements gone, and adds those anew whose lease goes on.
            self.table.install(&mut self.netlink, &guards)?;
            self.shared.bell.ring();
        }
        Ok(missing)
    }

    fn rights(&self) -> Vec<Right> {
        let thread = self.shared.real_time.get().cloned().map(|r| Right { name: "gate real-time", ..r });
        thread.into_iter().chain([self.form().right()]).collect()
    }

    fn dismantle(mut self: Box<Self>) -> Result<(), GateError> {
        self.stop();
        Ok(self.table.remove(&mut self.netlink)?)
    }
}

impl Drop for NftGate {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the gate's thread owns.
struct Keeper {
    words: Vec<DeadlineWord>,
    slots: Vec<Slot>,
    table: Table,
    netlink: Netlink,
    lease: Duration,
    shared: Arc<Shared>,
}

impl Keeper {
    fn run(mut self) {
        self.shared.real_time.get_or_init(|| realtime::schedule_fifo(realtime::GATE_PRIORITY));
        loop {
            let heard = self.shared.bell.count();
            let stop = self.shared.stop.load(Ordering::Acquire);
            for index in 0..self.slots.len() {
                self.turn(index);
            }
            self.shared.passes.fetch_add(1, Ordering::AcqRel);
            self.shared.passed.ring();
            if stop {
                return;
            }
            self.shared.bell.wait(heard, PULSE);
        }
    }

    /// Brings one slot's element to where its word wants it.
    fn turn(&mut self, index: usize) {
        let number = u16::try_from(index).map(GateSlot).expect("slots are numbered by 16 bits");
        loop {
            let now = boot_now();
            let step = self.slots[index].step(now, self.words[index].load());
            let outcome = match step {
                Step::Rest => break,
                Step::Ticket => self.table.put_ticket(&mut self.netlink, number, self.lease),
                Step::Open(life) => {
                    self.shared.maybe_open[index].store(true, Ordering::Release);
                    self.table.open(&mut self.netlink, number, life)
                }
                Step::Prolong(life) => self.table.prolong(&mut self.netlink, number, life),
                Step::Close => self.table.close(&mut self.netlink, number),
            };
            if let Err(refusal) = &outcome
                && !refusal.is(libc::ENOENT)
                && !refusal.is(libc::EEXIST)
            {
                tracing::warn!(error = %refusal.source, ?step, "the gate's rules could not be changed");
            }
            let go_on = self.slots[index].done(step, now, &outcome);
            self.shared.maybe_open[index].store(self.slots[index].may_be_open(boot_now()), Ordering::Release);
            if !go_on {
                break;
            }
        }
    }
}

/// What an administrator may do.
#[cfg(test)]
pub(crate) fn remove_table(owner: sixnines_core::ids::NodeId) -> Result<(), NetlinkError> {
    Table::of(owner).remove(&mut Netlink::open(Protocol::Netfilter)?)
}

/// Installs a table that guards nothing on `device`, and removes it.
pub(crate) fn probe(device: &str) -> Result<(), GateError> {
    device_index(&mut Route::open()?, device)?;
    let mut netlink = Netlink::open(Protocol::Netfilter)?;
    let table = Table::for_probe();
    let nothing = Guard { name: "probe".into(), addresses: vec![[0, 0, 0, 0].into()], devices: vec![device.to_owned()] };
    table.install(&mut netlink, &[nothing])?;
    Ok(table.remove(&mut netlink)?)
}

impl Guard {
    /// The same on those of its devices that are `there`.
    fn on(&self, there: &[String]) -> Self {
        Self { devices: self.devices.iter().filter(|d| there.contains(d)).cloned().collect(), ..self.clone() }
    }
}

/// For [`wire`]: a transaction's refusal with its sentence.
fn named(result: Result<(), Refusal>, what: &str) -> Result<(), NetlinkError> {
    result.map_err(|refusal| refusal.named(what))
}
