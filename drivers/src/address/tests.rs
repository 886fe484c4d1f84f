use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;

use super::*;
use crate::netns::Netns;
use crate::testing::{Sniffer, in_own_network, wait_for_cable};

/// Two nodes, `eth0` of one plugged into `eth0` of the other.
fn cable() -> (Netns, Netns) {
    let (a, b) = (Netns::new().unwrap(), Netns::new().unwrap());
    a.configure(|r| r.add_veth("eth0", "eth0", Some(b.as_fd()))).unwrap();
    for (ns, address) in [(&a, "10.8.0.1/24"), (&b, "10.8.0.2/24")] {
        ns.configure(|r| {
            r.set_up("eth0", true)?;
            r.add_address("eth0", address.parse().unwrap())
        })
        .unwrap();
    }
    wait_for_cable(&a, &b, "eth0");
    (a, b)
}

fn ledger() -> (tempfile::TempDir, Arc<Ledger>) {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::start_clean(&dir.path().join("addresses")).unwrap();
    (dir, Arc::new(ledger))
}

#[test]
fn a_taken_address_is_announced_and_answers() {
    in_own_network("address::tests::a_taken_address_is_announced_and_answers", || {
        let (a, b) = cable();
        let (_dir, ledger) = ledger();
        for (cidr, kinds) in [("10.9.0.1/24", vec![(21, 2_u8), (21, 1)]), ("fd09::1/64", vec![(54, 136)])] {
            let cidr: Cidr = cidr.parse().unwrap();
            let near: Cidr = if cidr.address.is_ipv4() { "10.9.0.2/24" } else { "fd09::2/64" }.parse().unwrap();
            b.configure(|r| r.add_address("eth0", near)).unwrap();
            let sniffer = b.run(|| Sniffer::open("eth0"));
            let mut address = a.run(|| Address::prepare("eth0", cidr, &ledger)).unwrap();
            address.take().unwrap();
            address.take().unwrap();
            address.announce().unwrap();
            for (offset, kind) in kinds {
                sniffer.wait_for("announcement", |f| f[offset] == kind && speaks_for(f, cidr.address));
            }
            let listener = a.run(|| TcpListener::bind((cidr.address, 4000))).unwrap();
            b.run(|| TcpStream::connect((cidr.address, 4000))).unwrap();
            drop(listener);
            assert!(address.is_taken());
            address.give_up().unwrap();
            address.give_up().unwrap();
            assert!(!address.is_taken());
            assert!(!a.configure(|r| r.addresses("eth0")).unwrap().contains(&cidr));
        }
    });
}

fn speaks_for(frame: &[u8], address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => frame.get(28..32) == Some(&a.octets()),
        IpAddr::V6(a) => frame.get(22..38) == Some(&a.octets()),
    }
}

#[test]
fn the_next_life_removes_what_this_one_left() {
    in_own_network("address::tests::the_next_life_removes_what_this_one_left", || {
        let (a, _b) = cable();
        let (dir, ledger) = ledger();
        let all = ["10.9.0.1/24", "10.9.0.2/24", "fd09::1/64"].map(|c| c.parse().unwrap());
        for cidr in all {
            a.run(|| Address::prepare("eth0", cidr, &ledger)).unwrap().take().unwrap();
        }
        let has = |cidr: &Cidr| a.configure(|r| r.addresses("eth0")).unwrap().contains(cidr);
        assert!(all.iter().all(has));
        let (_, left) = a.run(|| Ledger::start_clean(&dir.path().join("addresses"))).unwrap();
        assert_eq!(left.len(), 3);
        assert!(!all.iter().any(has));
        assert!(has(&"10.8.0.1/24".parse().unwrap()), "what we did not take stays");
    });
}

#[test]
fn giving_up_the_first_address_of_a_network_keeps_the_second() {
    in_own_network("address::tests::giving_up_the_first_address_of_a_network_keeps_the_second", || {
        let (a, _b) = cable();
        let (_dir, ledger) = ledger();
        let [mut first, mut second] =
            ["10.9.0.1/24", "10.9.0.2/24"].map(|c| a.run(|| Address::prepare("eth0", c.parse().unwrap(), &ledger)).unwrap());
        first.take().unwrap();
        second.take().unwrap();
        first.give_up().unwrap();
        assert!(a.configure(|r| r.addresses("eth0")).unwrap().contains(&second.cidr()));
    });
}

#[test]
fn loopback_is_refused() {
    in_own_network("address::tests::loopback_is_refused", || {
        let (a, _b) = cable();
        let (_dir, ledger) = ledger();
        let error = a.run(|| Address::prepare("lo", "10.9.0.1/24".parse().unwrap(), &ledger)).unwrap_err();
        assert_eq!(error.to_string(), "10.9.0.1/24 cannot go on lo: it is not an Ethernet device");
    });
}

#[test]
fn a_pulled_cable_is_seen() {
    in_own_network("address::tests::a_pulled_cable_is_seen", || {
        let (a, b) = cable();
        a.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut watch = LinkWatch::open().unwrap();
                let mut until = async |wanted: &dyn Fn(&LinkChange) -> bool| {
                    let seen = async { while !wanted(&watch.next().await.unwrap()) {} };
                    tokio::time::timeout(Duration::from_secs(10), seen).await.unwrap();
                };
                until(&|c| matches!(c, LinkChange::Is(l) if l.name == "eth0" && l.is_running)).await;
                b.configure(|r| r.set_up("eth0", false)).unwrap();
                until(&|c| matches!(c, LinkChange::Is(l) if l.name == "eth0" && !l.is_running)).await;
                b.configure(|r| r.set_up("eth0", true)).unwrap();
                until(&|c| matches!(c, LinkChange::Is(l) if l.name == "eth0" && l.is_running)).await;
                b.configure(|r| r.delete_link("eth0")).unwrap();
                until(&|c| matches!(c, LinkChange::Gone(l) if l.name == "eth0")).await;
            });
        });
    });
}
