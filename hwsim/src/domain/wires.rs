//! The wires between the nodes: what they lose, double, delay and cut.

use sixnines_core::ids::{LinkId, NodeId};

use super::{Door, Happening, MS, SimInput, Truth, World};

#[derive(Clone, Debug)]
pub(super) struct Parcel {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) link: LinkId,
    pub(super) door: Door,
    pub(super) bytes: Vec<u8>,
    /// The lives of both ends when it was sent: the mesh does not carry over a restart.
    pub(super) lives: (u32, u32),
}

/// The wires' present manners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manners {
    /// Datagrams lost, in parts per thousand.
    pub loss: u64,
    /// Datagrams doubled, in parts per thousand.
    pub doubled: u64,
    /// The longest delay of a frame beyond the shortest.
    pub delay_max: Truth,
    /// Bytes that the mesh gets through between two nodes in a millisecond; 0: any number.
    pub bytes_per_ms: u64,
}

impl Default for Manners {
    fn default() -> Self {
        Self { loss: 0, doubled: 0, delay_max: MS / 10, bytes_per_ms: 0 }
    }
}

impl World {
    /// Nothing passes from `from` to `to` on `link`.
    pub fn cut(&mut self, from: NodeId, to: NodeId, link: LinkId) {
        self.note(format!("cut {from} > {to} on link {link}"));
        self.cuts.insert((from, to, link));
    }

    /// Both ways, every link, to everybody.
    pub fn isolate(&mut self, node: NodeId) {
        for other in self.nodes().into_iter().filter(|n| *n != node) {
            for link in (0..self.links).map(LinkId) {
                self.cut(node, other, link);
                self.cut(other, node, link);
            }
        }
    }

    /// Nothing reaches the node any more, on any link.
    pub fn deafen(&mut self, node: NodeId) {
        for other in self.nodes().into_iter().filter(|n| *n != node) {
            (0..self.links).map(LinkId).for_each(|link| self.cut(other, node, link));
        }
    }

    /// All wires whole again.
    pub fn heal(&mut self) {
        self.note("the wires are whole".into());
        self.cuts.clear();
        self.manners = Manners::default();
        for parcel in std::mem::take(&mut self.held) {
            self.carry(parcel);
        }
    }

    pub(super) fn send(&mut self, from: NodeId, to: NodeId, link: Option<LinkId>, door: Door, bytes: Vec<u8>) {
        let Some(lives) = self.hosts.get(&to).map(|h| (self.hosts[&from].starts, h.starts)) else { return };
        let parcel = |link, bytes| Parcel { from, to, link, door, bytes, lives };
        match (door, link) {
            (_, Some(link)) => self.carry(parcel(link, bytes)),
            (Door::Mesh, None) => self.carry(parcel(LinkId(0), bytes)), // which one, the mesh decides while it carries
            (Door::Liveness, None) => (0..self.links).for_each(|link| self.carry(parcel(LinkId(link), bytes.clone()))),
        }
    }

    pub(super) fn carry(&mut self, mut parcel: Parcel) {
        let is_cut = |link: LinkId| self.cuts.contains(&(parcel.from, parcel.to, link));
        match parcel.door {
            Door::Liveness => {
                if is_cut(parcel.link) || self.wire.below(1000) < self.manners.loss {
                    return;
                }
                if self.wire.below(1000) < self.manners.doubled {
                    let at = self.now + DELAY_MIN + self.wire.below(self.manners.delay_max * 2);
                    self.schedule(at, Happening::Deliver(parcel.clone()));
                }
                let at = self.now + DELAY_MIN + self.wire.below(self.manners.delay_max);
                self.schedule(at, Happening::Deliver(parcel));
            }
            Door::Mesh => {
                let Some(link) = (0..self.links).map(LinkId).find(|l| !is_cut(*l)) else {
                    return self.held.push(parcel); // it is sent again when a link is back
                };
                parcel.link = link;
                // A lost packet is repeated by the transport: it comes later, and all behind it.
                let repeats = if self.wire.below(1000) < self.manners.loss { MS } else { 0 };
                let at = self.now + DELAY_MIN + repeats + self.wire.below(self.manners.delay_max);
                let last = self.mesh_until.entry((parcel.from, parcel.to)).or_default();
                let lasts = (parcel.bytes.len() as u64 * MS).checked_div(self.manners.bytes_per_ms).unwrap_or(0);
                let at = at.max(*last + 1) + lasts;
                *last = at;
                self.schedule(at, Happening::Deliver(parcel));
            }
        }
    }

    pub(super) fn deliver(&mut self, parcel: Parcel) {
        let lives = (self.hosts[&parcel.from].starts, self.hosts[&parcel.to].starts);
        let host = self.hosts.get_mut(&parcel.to).expect("it exists");
        if host.node.is_none() || (parcel.door == Door::Mesh && lives != parcel.lives) {
            return;
        }
        // What comes at the instant of its waking does not overtake what waits.
        if host.paused_until > self.now || !host.backlog.is_empty() {
            return host.backlog.push(parcel);
        }
        let Parcel { from, to, link, door, bytes, .. } = parcel;
        self.step(to, SimInput::Frame { from, link, door, bytes: &bytes });
    }
}

/// The shortest way of a frame.
pub(super) const DELAY_MIN: Truth = MS / 50;
