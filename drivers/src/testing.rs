//! What tests need that want a network of their own: on a machine where we are root, and where we are not.

mod sniffer;

use std::env;
use std::process::Command;

pub use sniffer::Sniffer;

use crate::address::frames::ethernet;
use crate::address::packet::PacketSocket;
use crate::netlink::route::{Mac, Route};
use crate::netns::{Netns, become_root_of_a_user_namespace};

/// Set in the child that [`in_own_network`] starts.
const INSIDE: &str = "SIXNINES_TEST_INSIDE";

/// Waits until frames pass between `device` in `a` and `device` in `b`, both ways.
///
/// A device that has just been switched on drops what it is given until the kernel has got round to it, without a word.
///
/// # Panics
/// If there is no such device, or it is off.
pub fn wait_for_cable(a: &Netns, b: &Netns, device: &str) {
    for (from, to) in [(a, b), (b, a)] {
        let sniffer = to.run(|| Sniffer::open(device));
        from.run(|| {
            let index = Route::open().and_then(|mut r| r.link(device)).expect("the test made the device").index;
            let socket = PacketSocket::open(index).expect("a test that makes networks may open raw sockets");
            // An EtherType that IEEE 802 leaves to experiments.
            let frame = ethernet([0xff; 6], Mac([2, 0, 0, 0, 0, 1]), 0x88b5);
            while !sniffer.drain().contains(&frame) {
                socket.send(&frame).expect("the test switched the device on");
            }
        });
    }
}

/// Runs `test` where it may make network namespaces: here if we may, else in a child process (this test binary again, with the one
/// test `name`, such as `gate::tests::closes`) that is root of a user namespace. Skips, loudly, only if neither is possible.
///
/// # Panics
/// If the test fails there.
pub fn in_own_network(name: &str, test: impl FnOnce()) {
    if Netns::new().is_ok() {
        return test();
    }
    in_user_namespace(name, test);
}

/// As [`in_own_network`], always in a user namespace: how it is for who is not root.
///
/// # Panics
/// If the test fails there.
pub fn in_user_namespace(name: &str, test: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        return test();
    }
    let mut command = Command::new(env::current_exe().expect("a test binary knows its path"));
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    become_root_of_a_user_namespace(&mut command);
    match command.output() {
        Err(e) => eprintln!("SKIPPED {name}: no rights to make network namespaces, nor a user namespace: {e}"),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && text.contains("1 passed"),
                "in the user namespace {name} ended with {}:\n{text}{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}
