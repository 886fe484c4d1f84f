//! The frames by which neighbours learn where an address is. Bytes only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netlink::route::Mac;

const BROADCAST: [u8; 6] = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;

/// Everything to send once: for IPv4 both forms of gratuitous ARP, because some devices heed only one of them.
pub(crate) fn announcements(mac: Mac, address: IpAddr) -> Vec<Vec<u8>> {
    match address {
        IpAddr::V4(a) => vec![gratuitous_arp(mac, a, ARP_REPLY), gratuitous_arp(mac, a, ARP_REQUEST)],
        IpAddr::V6(a) => vec![neighbour_advertisement(mac, a)],
    }
}

/// RFC 5227, ARP announcement: sender and target are the same address.
pub(crate) fn gratuitous_arp(mac: Mac, address: Ipv4Addr, operation: u16) -> Vec<u8> {
    let target_mac = if operation == ARP_REPLY { BROADCAST } else { [0; 6] };
    let mut frame = ethernet(BROADCAST, mac, 0x0806);
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4]);
    frame.extend_from_slice(&operation.to_be_bytes());
    frame.extend_from_slice(&mac.0);
    frame.extend_from_slice(&address.octets());
    frame.extend_from_slice(&target_mac);
    frame.extend_from_slice(&address.octets());
    frame
}

/// RFC 4861 4.4, unsolicited, with the override flag: neighbours replace what they had.
pub(crate) fn neighbour_advertisement(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    let mut icmp = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    icmp.extend_from_slice(&address.octets());
    icmp.extend_from_slice(&[2, 1]);
    icmp.extend_from_slice(&mac.0);
    let sum = checksum(address, ALL_NODES, &icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());

    let len = u16::try_from(icmp.len()).expect("32 bytes");
    let mut frame = ethernet(ALL_NODES_MAC, mac, 0x86dd);
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(&[58, 255]);
    frame.extend_from_slice(&address.octets());
    frame.extend_from_slice(&ALL_NODES.octets());
    frame.extend_from_slice(&icmp);
    frame
}

pub(crate) fn ethernet(to: [u8; 6], from: Mac, kind: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(96);
    frame.extend_from_slice(&to);
    frame.extend_from_slice(&from.0);
    frame.extend_from_slice(&kind.to_be_bytes());
    frame
}

/// RFC 4443 2.3: over a header of both addresses, length and protocol, then the message with a zero checksum.
pub(crate) fn checksum(from: Ipv6Addr, to: Ipv6Addr, icmp: &[u8]) -> u16 {
    let len = u32::try_from(icmp.len()).expect("32 bytes");
    let mut bytes = Vec::with_capacity(40 + icmp.len());
    bytes.extend_from_slice(&from.octets());
    bytes.extend_from_slice(&to.octets());
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(&[0, 0, 0, 58]);
    bytes.extend_from_slice(icmp);
    let mut sum: u32 = bytes.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c.get(1).copied().unwrap_or(0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gratuitous_arp_has_the_bytes_of_the_standard() {
        let frames = announcements(Mac([2, 0, 0, 0, 0, 7]), "10.9.0.1".parse().unwrap());
        let mut reply = vec![255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 7, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2];
        reply.extend([2, 0, 0, 0, 0, 7, 10, 9, 0, 1, 255, 255, 255, 255, 255, 255, 10, 9, 0, 1]);
        assert_eq!(frames[0], reply);
        assert_eq!((frames[1][21], &frames[1][32..38]), (1, &[0; 6][..]));
    }

    #[test]
    fn neighbour_advertisement_carries_a_checksum_that_sums_to_ones() {
        let address: Ipv6Addr = "fd09::1".parse().unwrap();
        let frame = neighbour_advertisement(Mac([2, 0, 0, 0, 0, 7]), address);
        assert_eq!((frame.len(), frame[20], frame[21], frame[54], frame[58]), (86, 58, 255, 136, 0x20));
        assert_eq!(checksum(address, ALL_NODES, &frame[54..]), 0, "a sum over a right message is zero");
    }
}
