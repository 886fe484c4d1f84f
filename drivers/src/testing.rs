//! What tests need that want a network of their own: on a machine where we are root, and where we are not.

mod sniffer;

use std::env;
use std::process::Command;

pub use sniffer::Sniffer;

use crate::netns::{Netns, become_root_of_a_user_namespace};

/// Set in the child that [`in_own_network`] starts.
const INSIDE: &str = "SIXNINES_TEST_INSIDE";

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
