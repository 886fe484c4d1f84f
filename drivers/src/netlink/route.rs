//! Links and addresses over netlink, in the network namespace of the thread that opened the [`Route`].

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::str::FromStr;

use super::message::{Attrs, Message, i32_at, text, u32_at};
use super::{Netlink, NetlinkError, Protocol, Reply, tolerate};

/// An address with the length of its network's prefix, such as `10.9.0.1/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// Bits of the network, at most 32 or 128.
    pub prefix: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.address, self.prefix))
    }
}

/// A text that is not an address with a prefix. The operator's mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address with a prefix, such as 10.9.0.1/24 or fd00::1/64")]
pub struct BadCidr(String);

impl FromStr for Cidr {
    type Err = BadCidr;

    /// Without a prefix the address stands alone (`/32`, `/128`).
    fn from_str(all: &str) -> Result<Self, BadCidr> {
        let bad = || BadCidr(all.to_owned());
        let (address, prefix) = all.split_once('/').map_or((all, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let widest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(widest), str::parse).map_err(|_| bad())?;
        if prefix > widest { Err(bad()) } else { Ok(Self { address, prefix }) }
    }
}

/// A hardware address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

/// A network device as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number.
    pub index: i32,
    /// Its name, such as `eth0`.
    pub name: String,
    /// Its hardware address, where it has one of six bytes.
    pub mac: Option<Mac>,
    /// Whether frames on it begin with an Ethernet header (not so: tunnels, and the loopback device by our choice).
    pub is_ethernet: bool,
    /// An administrator switched it on.
    pub is_up: bool,
    /// Its carrier is there too: frames can pass.
    pub is_running: bool,
    /// What has passed since the device was made.
    pub counters: Counters,
    /// The number of the device that this one is plugged into.
    pub master: Option<i32>,
    /// Such as `veth`, `bridge`, `bond`; none for hardware.
    pub kind: Option<String>,
}

/// A device's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes.
    pub received: u64,
    /// Bytes.
    pub sent: u64,
    /// Frames, both ways.
    pub errors: u64,
}

impl Counters {
    /// Reads the front of `struct rtnl_link_stats64`.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let at = |index: usize| Some(u64::from_ne_bytes(bytes.get(index * 8..index * 8 + 8)?.try_into().ok()?));
        Some(Self { received: at(2)?, sent: at(3)?, errors: at(4)?.saturating_add(at(5)?) })
    }
}

impl Link {
    /// Reads an `RTM_NEWLINK` or `RTM_DELLINK` body.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let flags = u32_at(body, 8)?;
        let attrs = Attrs::after(body, IFINFO);
        let hardware = u16::from_ne_bytes([*body.get(2)?, *body.get(3)?]);
        Some(Self {
            index: i32_at(body, 4)?,
            name: attrs.of(IFLA_IFNAME).map(text)?,
            mac: attrs.of(IFLA_ADDRESS).and_then(|p| p.try_into().ok()).map(Mac),
            is_ethernet: hardware == ARPHRD_ETHER,
            is_up: flags & IFF_UP != 0,
            is_running: flags & IFF_LOWER_UP != 0,
            counters: attrs.of(IFLA_STATS64).and_then(Counters::parse).unwrap_or_default(),
            master: attrs.of(IFLA_MASTER).and_then(|p| i32_at(p, 0)),
            kind: attrs.inside(IFLA_LINKINFO).of(IFLA_INFO_KIND).map(text),
        })
    }
}

/// Sets up links and addresses.
#[derive(Debug)]
pub struct Route {
    netlink: Netlink,
}

impl Route {
    /// Opens it in this thread's network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { netlink: Netlink::open(Protocol::Route)? })
    }

    /// All devices.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let replies = self.netlink.dump(Message::new(RTM_GETLINK, 0).put(&ifinfo(0, 0, 0)), "list the network devices")?;
        Ok(replies.iter().filter(|r| r.kind == RTM_NEWLINK).filter_map(|r| Link::parse(&r.body)).collect())
    }

    /// The device of that name.
    ///
    /// # Errors
    /// With `ENODEV` if there is none.
    pub fn link(&mut self, name: &str) -> Result<Link, NetlinkError> {
        let found = self.links()?.into_iter().find(|l| l.name == name);
        found.ok_or_else(|| NetlinkError::new(format!("find the network device {name}"), std::io::Error::from_raw_os_error(libc::ENODEV)))
    }

    /// Creates a pair of devices joined by a virtual cable: `name` here, `peer` here or in the namespace behind `peer_in`.
    pub fn add_veth(&mut self, name: &str, peer: &str, peer_in: Option<BorrowedFd<'_>>) -> Result<(), NetlinkError> {
        let message = new_link(name).nest(IFLA_LINKINFO, |m| {
            m.attr_text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |m| {
                m.nest(VETH_INFO_PEER, |m| {
                    let m = m.put(&ifinfo(0, 0, 0)).attr_text(IFLA_IFNAME, peer);
                    match peer_in {
                        Some(fd) => m.attr(IFLA_NET_NS_FD, &fd.as_raw_fd().to_ne_bytes()),
                        None => m,
                    }
                })
            })
        });
        self.netlink.request(message, format!("create the veth pair {name} and {peer}"))
    }

    /// Creates a bridge that forwards at once (no spanning tree, no multicast snooping).
    pub fn add_bridge(&mut self, name: &str) -> Result<(), NetlinkError> {
        let message = new_link(name).nest(IFLA_LINKINFO, |m| {
            m.attr_text(IFLA_INFO_KIND, "bridge")
                .nest(IFLA_INFO_DATA, |m| m.attr_u32(IFLA_BR_STP_STATE, 0).attr(IFLA_BR_MCAST_SNOOPING, &[0]))
        });
        self.netlink.request(message, format!("create the bridge {name}"))
    }

    /// Plugs a device into a bridge, or out of it.
    pub fn set_master(&mut self, name: &str, bridge: Option<&str>) -> Result<(), NetlinkError> {
        let index = self.link(name)?.index;
        let master = bridge.map_or(Ok(0), |b| self.link(b).map(|l| l.index))?;
        let message = Message::new(RTM_NEWLINK, 0).put(&ifinfo(index, 0, 0)).attr(IFLA_MASTER, &master.to_ne_bytes());
        self.netlink.request(message, format!("plug {name} into {}", bridge.unwrap_or("nothing")))
    }

    /// Switches a device on or off.
    pub fn set_up(&mut self, name: &str, up: bool) -> Result<(), NetlinkError> {
        let index = self.link(name)?.index;
        let message = Message::new(RTM_NEWLINK, 0).put(&ifinfo(index, if up { IFF_UP } else { 0 }, IFF_UP));
        self.netlink.request(message, format!("switch {name} {}", if up { "on" } else { "off" }))
    }

    /// Removes a device, and with it the other end of a veth pair. It may be gone already.
    pub fn delete_link(&mut self, name: &str) -> Result<(), NetlinkError> {
        let message = Message::new(RTM_DELLINK, 0).put(&ifinfo(0, 0, 0)).attr_text(IFLA_IFNAME, name);
        tolerate(self.netlink.request(message, format!("remove the device {name}")), &[libc::ENODEV])
    }

    /// When the first of several addresses of one network goes, the kernel takes the others along unless this is set.
    pub fn keep_secondaries(&mut self, name: &str) -> Result<(), NetlinkError> {
        let index = self.link(name)?.index;
        let message = Message::new(RTM_NEWLINK, 0).put(&ifinfo(index, 0, 0)).nest(IFLA_AF_SPEC, |m| {
            m.nest(AF_INET.into(), |m| m.nest(IFLA_INET_CONF, |m| m.attr_u32(PROMOTE_SECONDARIES, 1)))
        });
        self.netlink.request(message, format!("set promote_secondaries on {name}"))
    }

    /// Adds an address (IPv6 without duplicate address detection). It may be there already.
    pub fn add_address(&mut self, name: &str, cidr: Cidr) -> Result<(), NetlinkError> {
        let index = self.link(name)?.index;
        tolerate(self.netlink.request(add_address(index, cidr), format!("add {cidr} to {name}")), &[libc::EEXIST])
    }

    /// Removes an address. It may be gone already.
    pub fn delete_address(&mut self, name: &str, cidr: Cidr) -> Result<(), NetlinkError> {
        let index = self.link(name)?.index;
        let result = self.netlink.request(delete_address(index, cidr), format!("remove {cidr} from {name}"));
        tolerate(result, &[libc::EADDRNOTAVAIL])
    }

    /// The addresses of a device.
    pub fn addresses(&mut self, name: &str) -> Result<Vec<Cidr>, NetlinkError> {
        let index = self.link(name)?.index;
        let replies = self.netlink.dump(Message::new(RTM_GETADDR, 0).put(&[0; IFADDR]), "list the addresses")?;
        let of_device = replies.iter().filter(|r| r.kind == RTM_NEWADDR && i32_at(&r.body, 4) == Some(index));
        Ok(of_device.filter_map(parse_address).collect())
    }

    /// Adds a route to the network `to` by way of `gateway`.
    pub fn add_route(&mut self, to: Cidr, gateway: IpAddr) -> Result<(), NetlinkError> {
        let message = Message::new(RTM_NEWROUTE, CREATE)
            .put(&[family(to.address), to.prefix, 0, 0, TABLE_MAIN, PROTO_STATIC, 0, TYPE_UNICAST, 0, 0, 0, 0])
            .attr(RTA_DST, &octets(to.address))
            .attr(RTA_GATEWAY, &octets(gateway));
        self.netlink.request(message, format!("add a route to {to} by {gateway}"))
    }

    /// Tells the kernel where a neighbour is, for good, so that it never asks, and forgets what it knew.
    pub fn set_neighbour(&mut self, name: &str, address: IpAddr, mac: Mac) -> Result<(), NetlinkError> {
        let fixed = neighbour(self.link(name)?.index, address);
        let message = Message::new(RTM_NEWNEIGH, CREATE | REPLACE).put(&fixed).attr(NDA_DST, &octets(address)).attr(NDA_LLADDR, &mac.0);
        self.netlink.request(message, format!("set the neighbour {address} on {name}"))
    }

    /// Has the kernel ask again where a neighbour is. It may not know anyway.
    pub fn forget_neighbour(&mut self, name: &str, address: IpAddr) -> Result<(), NetlinkError> {
        let fixed = neighbour(self.link(name)?.index, address);
        let message = Message::new(RTM_DELNEIGH, 0).put(&fixed).attr(NDA_DST, &octets(address));
        tolerate(self.netlink.request(message, format!("forget the neighbour {address} on {name}")), &[libc::ENOENT])
    }

    /// The socket, for what this type has no method for.
    pub fn netlink(&mut self) -> &mut Netlink {
        &mut self.netlink
    }
}

/// The request that adds an address.
pub(crate) fn add_address(index: i32, cidr: Cidr) -> Message {
    address_message(RTM_NEWADDR, CREATE | EXCLUSIVE, index, cidr)
}

/// The request that removes an address.
pub(crate) fn delete_address(index: i32, cidr: Cidr) -> Message {
    address_message(RTM_DELADDR, 0, index, cidr)
}

fn address_message(kind: u16, flags: u16, index: i32, cidr: Cidr) -> Message {
    // An address on trial answers nobody for a second and more; the control log has already decided whose it is.
    let address_flags = if cidr.address.is_ipv6() { IFA_F_NODAD } else { 0 };
    let mut fixed = [family(cidr.address), cidr.prefix, address_flags, 0, 0, 0, 0, 0];
    fixed[4..].copy_from_slice(&index.to_ne_bytes());
    let bytes = octets(cidr.address);
    Message::new(kind, flags).put(&fixed).attr(IFA_LOCAL, &bytes).attr(IFA_ADDRESS, &bytes)
}

fn parse_address(reply: &Reply) -> Option<Cidr> {
    let attrs = Attrs::after(&reply.body, IFADDR);
    let bytes = attrs.of(IFA_LOCAL).or_else(|| attrs.of(IFA_ADDRESS))?;
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    Some(Cidr { address, prefix: *reply.body.get(1)? })
}

fn new_link(name: &str) -> Message {
    Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE).put(&ifinfo(0, 0, 0)).attr_text(IFLA_IFNAME, name)
}

/// The fixed part of a message about a neighbour.
fn neighbour(index: i32, address: IpAddr) -> [u8; 12] {
    let mut fixed = [family(address), 0, 0, 0, 0, 0, 0, 0, PERMANENT, 0, 0, 0];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed
}

/// `struct ifinfomsg`.
fn ifinfo(index: i32, flags: u32, change: u32) -> [u8; IFINFO] {
    let mut fixed = [0; IFINFO];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..16].copy_from_slice(&change.to_ne_bytes());
    fixed
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// Length of `struct ifinfomsg`.
const IFINFO: usize = 16;
/// Length of `struct ifaddrmsg`.
const IFADDR: usize = 8;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const ARPHRD_ETHER: u16 = 1;
const REPLACE: u16 = 0x100;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const PERMANENT: u8 = 0x80;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 0x10000;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INET_CONF: u16 = 1;
const PROMOTE_SECONDARIES: u16 = 20;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 2;
const RTA_DST: u16 = 1;
const RTA_GATEWAY: u16 = 5;
const TABLE_MAIN: u8 = 254;
const PROTO_STATIC: u8 = 4;
const TYPE_UNICAST: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_prefixes_print_as_they_parse() {
        for good in ["10.9.0.1/24", "fd00::1/64", "0.0.0.0/0"] {
            assert_eq!(good.parse::<Cidr>().map(|c| c.to_string()), Ok(good.to_owned()));
        }
        assert_eq!("10.9.0.1".parse::<Cidr>().map(|c| c.prefix), Ok(32));
        assert_eq!("fd00::1".parse::<Cidr>().map(|c| c.prefix), Ok(128));
        for bad in ["", "10.9.0/24", "10.9.0.1/33", "fd00::1/129", "10.9.0.1/", "10.9.0.1/x", "eth0"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }
}
