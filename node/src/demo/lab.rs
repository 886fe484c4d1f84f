//! The demo's world: networks, namespaces and processes that are all gone when it ends.
//!
//! Three nodes in two chassis, two fabrics, a front network with a client on it, and one management network per chassis on
//! which the shelf manager lives:
//!
//! ```text
//!   fabric A  10.9.1.0/24   n1 .1   n2 .2   n3 .3          bridge br-a, ports a-n1 ...
//!   fabric B  10.9.2.0/24   n1 .1   n2 .2   n3 .3          bridge br-b
//!   front     10.9.0.0/24   n1 .1   n2 .2   n3 .3          bridge br-f;  client .200, the service's address .100
//!   mxp1      10.9.11.0/24  n1 .1   n2 .2   manager .254   in the namespace of the chassis
//!   mxp2      10.9.12.0/24  n3 .3           manager .254
//! ```
//!
//! - [`world`]: what we may do here (namespaces as root, in a user namespace, or loopback only);
//! - [`room`]: one namespace with its processes; [`keeper`]: ends everything, also on a signal or a panic;
//! - [`script`]: the same world driven by JSON lines, for tests.

pub(crate) mod keeper;
pub(crate) mod room;
pub(crate) mod script;
pub(crate) mod world;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use sixnines_core::ids::LinkId;
use sixnines_drivers::netlink::route::{Cidr, Mac, Route};
use sixnines_drivers::netns::Netns;

use keeper::Keeper;
use room::Room;
pub(crate) use world::Mode;

/// The service's address, and the port of the call server.
pub(crate) const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 100);
/// The call server's port.
pub(crate) const SERVICE_PORT: u16 = 4100;
/// Where nodes speak to each other, on each link.
pub(crate) const LINK_PORT: u16 = 4200;
/// Where a shelf manager answers.
pub(crate) const MANAGER_PORT: u16 = 4300;
/// The device on every node that bears the service's address.
pub(crate) const FRONT_DEVICE: &str = "front0";

/// A node's place in the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seat {
    /// Such as `n1`.
    pub(crate) node: &'static str,
    /// Such as `mxp1`.
    pub(crate) chassis: &'static str,
    number: u8,
}

/// Who sits where.
pub(crate) const SEATS: [Seat; 3] = [
    Seat { node: "n1", chassis: "mxp1", number: 1 },
    Seat { node: "n2", chassis: "mxp1", number: 2 },
    Seat { node: "n3", chassis: "mxp2", number: 3 },
];

/// The shelves.
pub(crate) const CHASSIS: [&str; 2] = ["mxp1", "mxp2"];

/// One of the two fabrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Fabric {
    /// Link 0.
    A,
    /// Link 1.
    B,
}

impl Fabric {
    /// Both.
    pub(crate) const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The one that carries a link.
    pub(crate) fn of(link: LinkId) -> Self {
        if link == LinkId(0) { Self::A } else { Self::B }
    }

    fn letter(self) -> char {
        match self {
            Self::A => 'a',
            Self::B => 'b',
        }
    }
}

/// A running world.
pub(crate) struct Lab {
    mode: Mode,
    keeper: Keeper,
    /// The bridges; `None` on loopback.
    fabric: Option<Netns>,
    rooms: Vec<Room>,
    /// On loopback: the second byte of every address, and the socket that keeps other labs from it.
    loopback: Option<(u8, UdpSocket)>,
}

impl Lab {
    /// Builds the world in `directory` (made here; a temporary one if `None`), as far as the rights go.
    ///
    /// Call [`world::enter`] first, before any thread exists.
    ///
    /// # Errors
    /// If the directory cannot be made, or the kernel lacks bridges or veth although namespaces are allowed.
    pub(crate) fn build(mode: Mode, directory: Option<&Path>) -> anyhow::Result<Self> {
        let keeper = Keeper::new(directory)?;
        let mut lab = Self { mode, keeper, fabric: None, rooms: Vec::new(), loopback: None };
        if mode == Mode::Loopback {
            lab.loopback = Some(free_loopback_network()?);
            for name in Self::room_names() {
                lab.rooms.push(Room::new(name, None, &lab.keeper)?);
            }
        } else {
            lab.build_networks().context("building the demo's networks")?;
        }
        Ok(lab)
    }

    fn room_names() -> impl Iterator<Item = &'static str> {
        SEATS.iter().map(|s| s.node).chain(CHASSIS).chain(["client"])
    }

    fn build_networks(&mut self) -> anyhow::Result<()> {
        let fabric = Netns::new().context("a network namespace")?;
        for bridge in ["br-a", "br-b", "br-f"] {
            fabric.add_bridge(bridge).with_context(|| format!("the bridge {bridge}"))?;
        }
        for name in Self::room_names() {
            let netns = Netns::new().with_context(|| format!("the namespace of {name}"))?;
            self.rooms.push(Room::new(name, Some(netns), &self.keeper)?);
        }
        for chassis in CHASSIS {
            let netns = self.room(chassis).netns()?;
            netns.add_bridge("mgmt")?;
            let manager = cidr(self.ip(management(chassis), MANAGER), 24);
            netns.configure(|r| r.add_address("mgmt", manager))?;
        }
        for seat in SEATS {
            let node = self.room(seat.node).netns()?;
            let n = seat.number;
            let plug = |bridge: &str, port: String, device: &str, network: u8| {
                node.plug_into(&fabric, bridge, &port, device, &[cidr(self.ip(network, n), 24)])
            };
            plug("br-a", format!("a-n{n}"), "fab0", 1)?;
            plug("br-b", format!("b-n{n}"), "fab1", 2)?;
            plug("br-f", format!("f-n{n}"), FRONT_DEVICE, 0)?;
            let own = cidr(self.ip(management(seat.chassis), n), 24);
            node.plug_into(self.room(seat.chassis).netns()?, "mgmt", &format!("m-n{n}"), "mgmt0", &[own])?;
        }
        self.room("client").netns()?.plug_into(&fabric, "br-f", "f-client", "eth0", &[cidr(self.ip(0, CLIENT), 24)])?;
        self.fabric = Some(fabric);
        Ok(())
    }

    /// What the world is made of.
    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// The directory of everything that is written.
    pub(crate) fn directory(&self) -> &Path {
        self.keeper.directory()
    }

    /// Ends the world when this process ends, whatever ends it.
    pub(crate) fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// The room of a node, a chassis, or the `client`.
    ///
    /// # Panics
    /// If there is no such room: names are this program's own.
    pub(crate) fn room(&self, name: &str) -> &Room {
        self.find_room(name).unwrap_or_else(|| panic!("the lab has no room called {name}"))
    }

    /// The same, where the name comes from outside.
    pub(crate) fn find_room(&self, name: &str) -> Option<&Room> {
        self.rooms.iter().find(|r| r.name() == name)
    }

    /// `10.9.0.0/16` in namespaces, a 127.x.0.0/16 of our own on loopback.
    pub(super) fn ip(&self, third: u8, fourth: u8) -> Ipv4Addr {
        match &self.loopback {
            Some((second, _held)) => Ipv4Addr::new(127, *second, third, fourth),
            None => Ipv4Addr::new(10, 9, third, fourth),
        }
    }

    /// A node's address on each link.
    pub(crate) fn links(&self, seat: Seat) -> Vec<SocketAddr> {
        [1, 2].map(|link| SocketAddr::from((self.ip(link, seat.number), LINK_PORT))).to_vec()
    }

    /// Where the shelf manager of a chassis answers.
    pub(crate) fn manager(&self, chassis: &str) -> SocketAddr {
        SocketAddr::from((self.ip(management(chassis), MANAGER), MANAGER_PORT))
    }

    /// Where the call server on a node listens. On loopback no address can move: each node has its own.
    pub(crate) fn listen(&self, seat: Seat) -> SocketAddr {
        let ip = if self.loopback.is_some() { self.ip(0, seat.number) } else { Ipv4Addr::UNSPECIFIED };
        SocketAddr::from((ip, SERVICE_PORT))
    }

    /// Where the client sends. On loopback it asks every node, and those without the role keep silent.
    pub(crate) fn service(&self) -> Vec<SocketAddr> {
        if self.loopback.is_some() {
            return SEATS.map(|seat| self.listen(seat)).to_vec();
        }
        vec![SocketAddr::from((SERVICE_ADDRESS, SERVICE_PORT))]
    }

    /// Pulls or plugs a node's cable to a fabric, at the fabric's end.
    ///
    /// # Errors
    /// On loopback, where there are no cables.
    pub(crate) fn set_cable(&self, node: &str, fabric: Fabric, plugged: bool) -> anyhow::Result<()> {
        let world = self.fabric.as_ref().context("on loopback there are no cables to pull")?;
        let port = format!("{}-{node}", fabric.letter());
        world.configure(|r| r.set_up(&port, plugged)).with_context(|| format!("switching the port {port}"))
    }

    /// Sends what one node has for another on a fabric astray; or ends that.
    ///
    /// # Errors
    /// On loopback, where nothing can go astray.
    pub(crate) fn set_way(&self, from: Seat, to: Seat, fabric: Fabric, is_cut: bool) -> anyhow::Result<()> {
        let (device, network) = match fabric {
            Fabric::A => ("fab0", 1),
            Fabric::B => ("fab1", 2),
        };
        let ip = self.ip(network, to.number).into();
        let astray = |route: &mut Route| if is_cut { route.set_neighbour(device, ip, NOBODY) } else { route.forget_neighbour(device, ip) };
        self.room(from.node).netns()?.configure(astray).with_context(|| format!("the way from {} to {}", from.node, to.node))
    }

    /// Sends what the other nodes have for a node astray on both fabrics, so that it is heard and hears nobody; or ends that.
    ///
    /// # Errors
    /// On loopback, where nothing can go astray.
    pub(crate) fn set_deaf(&self, node: Seat, is_deaf: bool) -> anyhow::Result<()> {
        let others = SEATS.into_iter().filter(|other| *other != node);
        others.flat_map(|other| Fabric::BOTH.map(|fabric| (other, fabric))).try_for_each(|(other, fabric)| self.set_way(other, node, fabric, is_deaf))
    }

    /// A file of the lab: `name` below its directory.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory().join(name)
    }
}

/// A hardware address that no device of the lab has.
const NOBODY: Mac = Mac([2, 0, 0, 0, 0, 0]);
/// Last byte of a shelf manager's address.
const MANAGER: u8 = 254;
/// Last byte of the client's address.
const CLIENT: u8 = 200;

/// Third byte of a chassis's management network.
fn management(chassis: &str) -> u8 {
    if chassis == CHASSIS[0] { 11 } else { 12 }
}

/// A 127.x.0.0/16 that no other lab uses, and what keeps it so.
fn free_loopback_network() -> anyhow::Result<(u8, UdpSocket)> {
    (9..=250)
        .find_map(|second| Some((second, UdpSocket::bind((Ipv4Addr::new(127, second, 0, CLIENT), LINK_PORT)).ok()?)))
        .context("every loopback network is in use: end another demo")
}

fn cidr(ip: Ipv4Addr, prefix: u8) -> Cidr {
    Cidr { address: ip.into(), prefix }
}
