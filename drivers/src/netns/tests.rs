use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::testing::{in_own_network, in_user_namespace};

/// Three nodes on one bridge talk to each other over IPv4 and IPv6; the port switched off cuts one of them.
fn three_nodes_on_a_bridge() {
    let fabric = Netns::new().unwrap();
    fabric.add_bridge("fabric-a").unwrap();
    let nodes: Vec<Netns> = (1..=3)
        .map(|n| {
            let node = Netns::new().unwrap();
            let addresses = [format!("10.7.0.{n}/24"), format!("fd07::{n}/64")].map(|a| a.parse().unwrap());
            node.plug_into(&fabric, "fabric-a", &format!("n{n}"), "eth0", &addresses).unwrap();
            node
        })
        .collect();
    for address in ["10.7.0.1:4000", "[fd07::1]:4000"] {
        let listener = nodes[0].run(|| TcpListener::bind(address)).unwrap();
        for node in &nodes[1..] {
            let mut client = node.run(|| TcpStream::connect(address)).unwrap();
            client.write_all(b"beat").unwrap();
            drop(client);
            let mut heard = String::new();
            listener.accept().unwrap().0.read_to_string(&mut heard).unwrap();
            assert_eq!(heard, "beat");
        }
    }
    let addresses = nodes[1].configure(|r| r.addresses("eth0")).unwrap();
    assert!(addresses.contains(&"10.7.0.2/24".parse().unwrap()), "{addresses:?}");
    nodes[1].configure(|r| r.delete_address("eth0", "10.7.0.2/24".parse().unwrap())).unwrap();
    assert!(!nodes[1].configure(|r| r.addresses("eth0")).unwrap().contains(&"10.7.0.2/24".parse().unwrap()));

    assert!(nodes[2].configure(|r| r.link("eth0")).unwrap().is_running);
    fabric.configure(|r| r.set_up("n3", false)).unwrap();
    let cut = nodes[2].configure(|r| r.link("eth0")).unwrap();
    assert!(cut.is_up && !cut.is_running, "{cut:?}");
}

#[test]
fn a_fabric_of_namespaces_as_we_are() {
    in_own_network("netns::tests::a_fabric_of_namespaces_as_we_are", three_nodes_on_a_bridge);
}

#[test]
fn a_fabric_of_namespaces_in_a_user_namespace() {
    in_user_namespace("netns::tests::a_fabric_of_namespaces_in_a_user_namespace", three_nodes_on_a_bridge);
}

#[test]
fn a_command_starts_inside() {
    in_own_network("netns::tests::a_command_starts_inside", || {
        let ns = Netns::new().unwrap();
        ns.add_bridge("only-here").unwrap();
        let mut command = Command::new("cat");
        command.arg("/proc/self/net/dev");
        ns.start_inside(&mut command);
        let devices = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert!(devices.contains("only-here"), "{devices}");
    });
}

#[test]
fn the_kernel_says_why_it_refuses() {
    in_own_network("netns::tests::the_kernel_says_why_it_refuses", || {
        let ns = Netns::new().unwrap();
        let error = ns.configure(|r| r.set_up("eth9", true)).unwrap_err();
        assert!(error.is(libc::ENODEV) && error.to_string().contains("eth9"), "{error}");
        let error = ns.configure(|r| r.add_route("10.0.0.0/8".parse().unwrap(), "10.1.1.1".parse().unwrap())).unwrap_err();
        assert!(error.hint.is_some(), "{error:?}");
    });
}
