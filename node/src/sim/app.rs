//! A call server as simple as it can be: it keeps numbers in a checkpoint and answers only what is safe.

use std::collections::BTreeMap;

use sixnines_checkpoint::{Answer as Read, Bytes, Input, Level, Op, Outcome, RequestId, Ticket, Write};
use sixnines_core::ids::Epoch;
use sixnines_core::time::{Duration, Instant};
use sixnines_hwsim::domain::{Answer, Call};

/// One application process of one group on one node.
#[derive(Debug, Default)]
pub(super) struct App {
    epoch: Option<Epoch>,
    pending: BTreeMap<Ticket, Call>,
    /// It has died, and comes back then.
    pub(super) back_at: Option<Instant>,
}

impl App {
    pub(super) fn is_up(&self) -> bool {
        self.back_at.is_none()
    }

    /// It dies, with all that it had in hand.
    pub(super) fn die(&mut self, now: Instant) {
        *self = Self { back_at: Some(now + RESTART), ..Self::default() };
    }

    pub(super) fn become_active(&mut self, epoch: Epoch) {
        self.epoch = Some(epoch);
        self.pending.clear();
    }

    pub(super) fn stop_serving(&mut self) {
        self.epoch = None;
        self.pending.clear();
    }

    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// What the call asks of the checkpoint.
    pub(super) fn take(&mut self, ticket: Ticket, call: Call) -> Option<Input<'static>> {
        let epoch = self.epoch.filter(|_| self.is_up())?;
        if self.pending.values().any(|c| c.request == call.request) {
            return None; // a repeat of what is being worked on
        }
        let key = key(call.key);
        let input = match call.value {
            Some(value) => Input::Write(Write {
                ticket,
                epoch,
                request: Some(RequestId { client: call.request >> 32, serial: call.request & 0xffff_ffff }),
                ops: vec![Op::Put { key, bytes: Bytes::new(value.to_le_bytes()) }],
                level: Level::default(),
            }),
            None => Input::Read(sixnines_checkpoint::Read { ticket, epoch, key }),
        };
        self.pending.insert(ticket, call);
        Some(input)
    }

    /// The write is safe, or it is not known to be.
    pub(super) fn acknowledged(&mut self, ticket: Ticket, outcome: Outcome) -> Option<(Epoch, Answer)> {
        let call = self.pending.remove(&ticket)?;
        let epoch = self.epoch?;
        matches!(outcome, Outcome::Applied { .. }).then(|| (epoch, Answer { request: call.request, is_write: true, key: call.key, value: call.value }))
    }

    /// The section as every copy has it.
    pub(super) fn answered(&mut self, ticket: Ticket, read: &Read) -> Option<(Epoch, Answer)> {
        let call = self.pending.remove(&ticket)?;
        let epoch = self.epoch?;
        let Read::Section { section, fresh: true } = read else { return None };
        let value = section.as_ref().and_then(|s| s.bytes.as_slice().try_into().ok()).map(u64::from_le_bytes);
        Some((epoch, Answer { request: call.request, is_write: false, key: call.key, value }))
    }
}

fn key(number: u64) -> Bytes {
    Bytes::new(number.to_le_bytes())
}

/// From its death until it can serve again.
const RESTART: Duration = Duration::from_millis(40);
