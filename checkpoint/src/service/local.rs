//! An application in the node's own process, such as the owner of a chassis: the same copy, no socket.

use std::fmt;

use sixnines_core::ids::Epoch;
use tokio::sync::mpsc;

use super::Order;
use crate::bytes::Bytes;
use crate::copy::{Follow, Role};
use crate::outcome::{Answer, Level, Outcome};
use crate::state::{Op, RequestId};

/// What an in-process application is told, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum LocalEvent {
    /// Its role. Before it becomes active it has been told everything that the copy has.
    Role(Role),
    /// It is to hand over: write the last, then call [`LocalApp::drained`].
    Quiescing {
        /// The epoch that ends.
        epoch: Epoch,
    },
    /// A change of the copy that it did not write itself.
    Follow(Follow),
    /// What became of a write.
    Outcome {
        /// As given by [`LocalApp::write`].
        ticket: u64,
        /// What is known.
        outcome: Outcome,
    },
    /// A read's answer.
    Answer {
        /// As given by [`LocalApp::read`].
        ticket: u64,
        /// What is known.
        answer: Answer,
    },
}

/// The application's end. Its calls never wait. Dropped, it is gone, like a process whose socket ends.
#[derive(Debug)]
pub struct LocalApp {
    queue: Option<mpsc::UnboundedSender<Order>>,
    tickets: u64,
}

pub(super) struct Hook(pub(super) Box<dyn FnMut(LocalEvent) + Send>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

pub(super) enum LocalInput {
    Write { ticket: u64, epoch: Epoch, request: Option<RequestId>, level: Level, ops: Vec<Op> },
    Read { ticket: u64, epoch: Epoch, key: Bytes },
    Drained { epoch: Epoch },
    Gone,
}

impl LocalApp {
    pub(super) fn new(queue: Option<mpsc::UnboundedSender<Order>>) -> Self {
        Self { queue, tickets: 0 }
    }

    /// Writes a batch; its outcome comes as an event with the ticket returned. No ops at all make a barrier.
    pub fn write(&mut self, epoch: Epoch, request: Option<RequestId>, level: Level, ops: Vec<Op>) -> u64 {
        self.tickets += 1;
        self.send(LocalInput::Write { ticket: self.tickets, epoch, request, level, ops });
        self.tickets
    }

    /// Asks for a section as of now; the answer comes as an event with the ticket returned.
    pub fn read(&mut self, epoch: Epoch, key: impl Into<Bytes>) -> u64 {
        self.tickets += 1;
        self.send(LocalInput::Read { ticket: self.tickets, epoch, key: key.into() });
        self.tickets
    }

    /// It has written its last under this epoch.
    pub fn drained(&mut self, epoch: Epoch) {
        self.send(LocalInput::Drained { epoch });
    }

    fn send(&mut self, input: LocalInput) {
        if let Some(queue) = &self.queue {
            super::send(queue, Order::LocalInput(input));
        }
    }
}

impl Drop for LocalApp {
    fn drop(&mut self) {
        self.send(LocalInput::Gone);
    }
}
