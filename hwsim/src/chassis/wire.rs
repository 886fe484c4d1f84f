//! What goes over the wire between a chassis and its clients: JSON, one message a line, over TCP.
//!
//! A client says [`ToChassis::Hello`] first and gets [`FromChassis::Welcome`] or a typed refusal. Then it may subscribe, order, inject
//! and ask, in any mixture; answers bear the question's `tag`.

use serde::{Deserialize, Serialize};
use sixnines_core::ids::ChassisName;
use sixnines_core::time::Instant;
use sixnines_core::value::{Outcome, Request, Update};

use super::fault::{ActiveFault, FaultId, Injection};
use super::fence::GroupReport;
use super::log::LogEntry;

/// Name of the protocol in [`Hello`].
pub const PROTOCOL: &str = "sixnines-chassis";
/// The one version that exists.
pub const VERSION: u32 = 1;
/// A longer line is refused and ends the connection.
pub const LINE_BYTES_MAX: usize = 256 * 1024;

/// From a client to the chassis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ToChassis {
    /// Always the first line.
    Hello(Hello),
    /// From now on: a full image, then what changes.
    Subscribe,
    /// An order of the owner.
    Set {
        /// Comes back with the outcome.
        tag: u64,
        /// The order with its epoch.
        request: Request,
    },
    /// Breaks something.
    Inject {
        /// Comes back with the answer.
        tag: u64,
        /// What.
        injection: Injection,
    },
    /// Ends one fault, or all.
    Clear {
        /// Comes back with the answer.
        tag: u64,
        /// Absent: all.
        #[serde(default)]
        id: Option<FaultId>,
    },
    /// Which faults are in force?
    Faults {
        /// Comes back with the answer.
        tag: u64,
    },
    /// What does the shelf manager's event log hold?
    Log {
        /// Comes back with the answer.
        tag: u64,
    },
    /// Who acted under which epoch, and what came over the wire?
    Report {
        /// Comes back with the answer.
        tag: u64,
    },
}

/// Who is calling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: String,
    /// Lowest and highest version that the client speaks.
    pub versions: [u32; 2],
    /// Name and version of the program.
    pub build: String,
    /// What it is there for, such as `driver` or `injector`. For logs.
    pub role: String,
}

/// From the chassis to a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum FromChassis {
    /// The answer to a good hello.
    Welcome {
        /// [`PROTOCOL`].
        protocol: String,
        /// The version chosen.
        version: u32,
        /// Which chassis this is.
        chassis: ChassisName,
        /// Name and version of the program.
        build: String,
    },
    /// Readings; `full` ones are all that there are, the others what changed.
    Readings {
        /// Whether this is the whole image.
        full: bool,
        /// The chassis' clock.
        at: Instant,
        /// The readings. Their quality is good where the sensor works: that it is a simulated one is for the driver to say.
        list: Vec<Update>,
    },
    /// What became of an order.
    Outcome {
        /// Of the question.
        tag: u64,
        /// Done, refused, fenced.
        outcome: Outcome,
    },
    /// A fault is in force.
    Injected {
        /// Of the question.
        tag: u64,
        /// To clear it by.
        id: FaultId,
    },
    /// Faults were ended.
    Cleared {
        /// Of the question.
        tag: u64,
        /// How many.
        count: usize,
    },
    /// The faults in force.
    Faults {
        /// Of the question.
        tag: u64,
        /// The oldest first.
        list: Vec<ActiveFault>,
    },
    /// The shelf manager's event log.
    Log {
        /// Of the question.
        tag: u64,
        /// The oldest first.
        list: Vec<LogEntry>,
    },
    /// What the chassis has seen of its clients.
    Report {
        /// Of the question.
        tag: u64,
        /// The report.
        report: Report,
    },
    /// A question was wrong. Without a tag, the line could not be read, and the connection ends.
    Error {
        /// Of the question, if it could be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tag: Option<u64>,
        /// Stable word for programs.
        code: String,
        /// For people.
        message: String,
    },
}

/// What a chassis has seen of its clients since it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which chassis.
    pub chassis: ChassisName,
    /// Its clock.
    pub at: Instant,
    /// Clients connected now.
    pub clients: usize,
    /// Connections that were ended for a line that could not be read.
    pub garbage: u64,
    /// Connections that were refused because there were too many.
    pub crowded: u64,
    /// Epochs, object group by object group.
    pub groups: Vec<GroupReport>,
}

/// One message as a line.
pub(crate) fn to_line<T: Serialize>(message: &T) -> String {
    let mut line = serde_json::to_string(message).expect("messages have string keys and no values that JSON lacks");
    line.push('\n');
    line
}

/// This program in a hello or welcome.
pub(crate) fn build() -> String {
    concat!("sixnines-hwsim ", env!("CARGO_PKG_VERSION")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exact text that version 1 writes: if this fails, the code is wrong, not the test.
    #[test]
    fn the_lines_of_version_1() {
        let hello =
            ToChassis::Hello(Hello { protocol: PROTOCOL.into(), versions: [1, 1], build: "x 1".into(), role: "driver".into() });
        assert_eq!(
            to_line(&hello),
            "{\"kind\":\"hello\",\"protocol\":\"sixnines-chassis\",\"versions\":[1,1],\"build\":\"x 1\",\"role\":\"driver\"}\n"
        );
        assert_eq!(to_line(&ToChassis::Subscribe), "{\"kind\":\"subscribe\"}\n");
        let set = r#"{"kind":"set","tag":7,"request":{"id":{"node":3,"incarnation":1,"sequence":990},"object":"/mxp1/fan1","control":"duty","value":{"Int":100},"epoch":4}}"#;
        let parsed: ToChassis = serde_json::from_str(set).expect("a line of version 1");
        assert_eq!(to_line(&parsed).trim_end(), set);
        let inject = r#"{"kind":"inject","tag":1,"injection":{"fault":"fan-failed","parameters":{"fan":"3"}}}"#;
        let parsed: ToChassis = serde_json::from_str(inject).expect("a line of version 1");
        assert!(matches!(parsed, ToChassis::Inject { tag: 1, injection } if injection.parameters["fan"] == "3"));
    }
}
