//! The shelf manager's event log: what a technician finds when he comes too late to see it.
//!
//! It keeps what its hardware would notice: hot swap, power, links, orders, boards that switched themselves off. While the shelf
//! manager is silent, it notices nothing. It is no part of the product's journal.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use sixnines_core::ids::ObjectName;
use sixnines_core::time::Instant;
use sixnines_core::value::{Quality, Request, Value};

use super::Chassis;
use super::points::Part;

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Counts from 1; a hole at the beginning says how much was overwritten.
    pub number: u64,
    /// On the chassis' clock.
    pub at: Instant,
    /// Where.
    pub object: ObjectName,
    /// What.
    pub what: String,
}

/// A ring of the newest entries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    entries: VecDeque<LogEntry>,
    last: u64,
}

impl Log {
    pub(crate) fn entries(&self) -> impl Iterator<Item = &LogEntry> {
        self.entries.iter()
    }

    fn add(&mut self, at: Instant, object: ObjectName, what: String) {
        if self.entries.len() == ENTRIES_MAX {
            self.entries.pop_front();
        }
        self.last += 1;
        self.entries.push_back(LogEntry { number: self.last, at, object, what });
    }
}

impl Chassis {
    /// Words, switches and orders are worth a line; numbers are not.
    pub(super) fn log_change(&mut self, point: usize) {
        let reading = &self.sensors[point].reading;
        let point = &self.points.list[point];
        if point.quantity.is_measured() || reading.quality != Quality::Good {
            return;
        }
        if let Some(value) = &reading.value {
            let what = format!("{} {value}", point.attribute);
            self.log.add(self.ticked, self.points.objects[point.object].name.clone(), what);
        }
    }

    /// What boards did by themselves since the last look.
    pub(super) fn log_troubles(&mut self) {
        let silent = self.silent();
        for (slot, trouble) in std::mem::take(&mut self.physics.troubles) {
            let object = self.points.objects.iter().find(|o| o.part == Part::Slot(slot));
            if let Some(object) = object.filter(|_| !silent) {
                self.log.add(self.ticked, object.name.clone(), trouble.as_str().to_owned());
            }
        }
    }

    /// An order that was carried out.
    pub(super) fn log_order(&mut self, at: Instant, request: &Request) {
        let value = request.value.as_ref().map_or(String::new(), |value: &Value| format!(" {value}"));
        let what = format!("ordered {}{value}, by {} in epoch {}", request.control, request.id, request.epoch);
        self.log.add(at, request.object.clone(), what);
    }
}

/// The oldest entry goes when there are more.
const ENTRIES_MAX: usize = 512;
