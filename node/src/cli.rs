//! The command line: what people type, and how answers look. It is a client of the daemon's local socket like any other.

pub(crate) mod campaign;
pub(crate) mod client;
pub(crate) mod faults;
pub(crate) mod join;
pub(crate) mod journal;
pub(crate) mod policy;
pub(crate) mod render;
pub(crate) mod replay;
pub(crate) mod sim;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use sixnines_core::ids::{ChassisName, NodeId};

use crate::api::{Call, SeatWish};

/// Keeps a telecom appliance serving while its fans, boards, nodes and links fail, and tells you why.
#[derive(Debug, Parser)]
#[command(name = "nines", version, infer_subcommands = false, after_help = "Exit codes: 0 done, 1 the answer is no, 2 bad input, 3 no answer from the node, 4 refused, 5 outcome unknown.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows a two-chassis appliance of real processes losing fans, nodes and links, and going on.
    #[command(after_help = "Examples:\n  nines demo\n  nines demo --steps node-killed,links-cut --json demo.json\n  nines demo --keep")]
    Demo(crate::demo::Options),
    /// Makes a domain: its authority, certificates and one directory per node.
    #[command(after_help = "Examples:\n  nines init lab                        three nodes on this machine, to play with\n  nines init lab --domain domain.yaml   as the file describes\n  nines run --config lab/n1/nines.yaml")]
    Init(crate::init::Options),
    /// Makes this machine a node of a domain that is there, by a token. Exit 2 bad token, 3 nobody answers, 4 refused.
    #[command(after_help = "Examples:\n  nines node invite n4 --chassis mxp2 --links 10.9.1.4:7400,10.9.2.4:7400    prints a token\n  nines join nines1-abcd --dir /var/lib/sixnines/n4                         on the new machine\n  nines join nines1-abcd --dir n4 --at 192.0.2.7:7400                       if the addresses in the token are not to be reached\n  nines run --config /var/lib/sixnines/n4/nines.yaml")]
    Join(join::Options),
    /// Runs a node until SIGTERM or Ctrl-C. Exit 2 if an operator has something to mend: a file, an address, a build that is too old for its domain.
    #[command(after_help = "Examples:\n  nines run --config /etc/sixnines/nines.yaml\n  nines run --config lab/n1/nines.yaml --log-format json")]
    Run(crate::daemon::Options),
    /// Runs a simulated chassis as hardware is: a process of its own that outlives the nodes.
    #[command(after_help = "Examples:\n  nines chassis --name mxp1 --listen 127.0.0.1:7501\n  nines chassis my-shelf.yaml --name mxp1 --listen 127.0.0.1:7501")]
    Chassis(crate::chassis::Options),
    /// Whether it serves, whether it is redundant, and what to do.
    #[command(after_help = "Examples:\n  nines status\n  nines status --json\n  nines status --check    exit 1 unless it serves and is redundant")]
    Status {
        /// Exit 1 unless everything serves and is redundant.
        #[arg(long)]
        check: bool,
        #[command(flatten)]
        ask: Ask,
    },
    /// Lists objects.
    #[command(after_help = "Examples:\n  nines ls\n  nines ls '/mxp1/fan*'\n  nines ls /nodes/n1/**")]
    Ls {
        /// A name, with * for one part and ** for any number of them.
        #[arg(default_value = "/**")]
        pattern: String,
        #[command(flatten)]
        ask: Ask,
    },
    /// Shows one object with all its attributes.
    #[command(after_help = "Examples:\n  nines get /mxp1/fan4\n  nines get /mxp1/fan4 --json\n  nines get /services/calls")]
    Get {
        /// The object's name.
        name: String,
        #[command(flatten)]
        ask: Ask,
    },
    /// Holds a control at a value: a claim with an operator's priority and a lease.
    #[command(after_help = "Examples:\n  nines set /mxp1/fan4 duty=80\n  nines set /mxp1/fan4 duty=80 --lease 10m -m 'testing the noise'\n  nines set /mxp1/fan4 duty=      gives the hold up")]
    Set {
        /// The object's name.
        name: String,
        /// CONTROL=VALUE; nothing after the = gives the hold up.
        assignment: String,
        /// For how long, such as 30s, 5m or 1h.
        #[arg(long, default_value = "1h", value_parser = seconds)]
        lease: u64,
        /// Why, for the audit trail.
        #[arg(short, long, default_value = "")]
        message: String,
        #[command(flatten)]
        ask: Ask,
    },
    /// Follows events as they come.
    #[command(after_help = "Examples:\n  nines watch\n  nines watch '/mxp1/**'\n  nines watch /services/calls --json")]
    Watch {
        /// Which objects.
        #[arg(default_value = "/**")]
        pattern: String,
        #[command(flatten)]
        ask: Ask,
    },
    /// Shows the newest events.
    #[command(after_help = "Examples:\n  nines events\n  nines events --last 200 '/mxp1/**'\n  nines events --follow")]
    Events {
        /// Which objects.
        #[arg(default_value = "/**")]
        pattern: String,
        /// How many.
        #[arg(long, default_value_t = 30)]
        last: usize,
        /// Go on with those that come.
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        ask: Ask,
    },
    /// Prints the chain of causes that led to an event, or to the present state of an object or service.
    #[command(after_help = "Examples:\n  nines why calls\n  nines why /mxp1/fan4\n  nines why n3.1.990")]
    Why {
        /// An event's id, an object's name, or a service.
        what: String,
        #[command(flatten)]
        ask: Ask,
    },
    /// Shows alarms, or handles one.
    #[command(after_help = "Examples:\n  nines alarms\n  nines alarms ack /mxp1/fan1 fan-failed\n  nines alarms shelve /mxp1/fan1 fan-failed --for 4h")]
    Alarms {
        #[command(subcommand)]
        step: Option<AlarmStep>,
        #[command(flatten)]
        ask: Ask,
    },
    /// Services: where they run, and moving them.
    #[command(after_help = "Examples:\n  nines service list\n  nines service switchover calls\n  nines service switchover calls --to n3")]
    Service {
        #[command(subcommand)]
        step: ServiceStep,
    },
    /// Nodes: inviting, expelling and forgetting them, renewing a certificate, taking one in again after its disk was replaced.
    #[command(after_help = "Examples:\n  nines node invite n4 --chassis mxp2 --links 10.9.1.4:7400,10.9.2.4:7400\n  nines node expel n3       its certificates count no more, at once\n  nines node invite n3      another machine may be n3\n  nines node forget n3      nobody will be n3 again\n  nines node renew          a new certificate for the node that is asked\n  nines status              shows a node that came back with another disk\n  nines node replace n3")]
    Node {
        #[command(subcommand)]
        step: NodeStep,
    },
    /// Breaks something in a simulated chassis, for a while.
    #[command(after_help = "Examples:\n  nines inject mxp1 fan-failed fan1\n  nines inject mxp1 fan-failed fan2 --for 30s\n  nines inject mxp1 --clear\n  nines inject mxp1 --list")]
    Inject {
        /// Which chassis.
        chassis: String,
        /// The fault; `--list` tells which there are.
        fault: Option<String>,
        /// What it hits, such as fan1.
        target: Option<String>,
        /// It ends by itself after so long.
        #[arg(long = "for", default_value = "5m", value_parser = seconds)]
        lasting: u64,
        /// Ends all injected faults.
        #[arg(long, conflicts_with = "fault")]
        clear: bool,
        /// Shows the catalogue and what is injected.
        #[arg(long, conflicts_with_all = ["fault", "clear"])]
        list: bool,
        #[command(flatten)]
        ask: Ask,
    },
    /// Policies: what decides, and changing it.
    #[command(after_help = "Examples:\n  nines policy check policies\n  nines policy apply policies -m 'quieter at night'\n  nines policy list")]
    Policy {
        #[command(subcommand)]
        step: PolicyStep,
    },
    /// What a node takes upon itself at most: how much of it is used, and other bounds.
    #[command(after_help = "Examples:\n  nines limits list\n  nines limits set objects=20000 sdk_clients=32\n  nines limits set objects=      its default again\n  nines get /nodes/n1/limits     what one node uses")]
    Limits {
        #[command(subcommand)]
        step: LimitsStep,
    },
    /// The feature level: what the domain's log may bear, and raising it once every node runs a newer build.
    #[command(after_help = "Examples:\n  nines feature                 the level in force, and what each node reads\n  nines feature raise           the next one, after an upgrade of every node\n  nines feature raise 2 --json")]
    Feature {
        #[command(subcommand)]
        step: Option<FeatureStep>,
        #[command(flatten)]
        ask: Ask,
    },
    /// A node's journal, read where it lies: proving it, and looking at what happened. No daemon is needed.
    #[command(after_help = "Examples:\n  nines journal check /var/lib/sixnines/journal\n  nines journal show lab/n1/state/journal '/mxp1/**' --last 100\n  nines journal show lab/n1/state/journal/0000000001.journal --json")]
    Journal {
        #[command(subcommand)]
        step: JournalStep,
    },
    /// Simulates in virtual time: a chassis with its owner as a scenario says, and whole domains with the product's own machines.
    #[command(after_help = "Examples:\n  nines sim run first.yaml --story\n  nines sim run policies/tests/scenarios --plot plots --junit results.xml\n  nines sim check first.yaml my-shelf.yaml\n  nines sim campaign --seeds 1000\n  nines sim campaign --seeds 100000 --state night.state --html night.html --json night.json\n  nines sim replay --seed 123\n  nines sim replay --seed 123 --shrink --save 123.yaml\n  nines sim faults --domain domain.yaml")]
    Sim {
        #[command(subcommand)]
        step: SimStep,
    },
    /// Measures.
    #[command(after_help = "Examples:\n  nines bench failover --runs 10 --json failover.json\n  nines bench failover --json - --faults node-killed,process-killed\n  nines bench idle --json idle.json
  nines bench form --json form.json --nodes 18
  nines bench soak --json soak.json
  nines bench discs --json discs.json
  nines bench sim --json sim.json")]
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
    #[command(flatten)]
    Hidden(crate::demo::Hidden),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Repeats each fault of the demo and reports what the client outside saw.
    Failover(crate::demo::bench::Options),
    /// What a domain that has nothing to do costs each node, thread by thread, in processor time and memory.
    Idle(crate::demo::idle::Options),
    /// How soon a chassis full of nodes is one domain, and what each of them costs when it is quiet.
    Form(crate::demo::form::Options),
    /// Whether a domain under stress takes anybody for dead who is not. Exit 1 if it does.
    Soak(crate::demo::soak::Options),
    /// What the bus between nodes costs, in microseconds and events a second, beside bare QUIC.
    Discs(crate::bench::discs::Options),
    /// How much virtual time, and how many failovers in it, the simulator gets through in a second of one core.
    Sim(crate::sim::bench::Options),
    /// What a node sends in federations of more and more chassis, by virtual time.
    Federation(crate::sim::federation::Options),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SimStep {
    /// Plays scenarios: what breaks when, what an operator does, and what has to come of it. Exit 1 if an expectation is not kept.
    #[command(after_help = include_str!("cli/sim/words.txt"))]
    Run(sim::RunOptions),
    /// Checks scenarios and chassis files, and says of each mistake where it is and what would be right. Exit 2 if there is one.
    #[command(after_help = "Examples:\n  nines sim check first.yaml\n  nines sim check my-shelf.yaml --json\n  nines sim check scenarios --config /etc/sixnines/policies")]
    Check(sim::CheckOptions),
    /// Every fault that a scenario or `nines inject` can bring about, with its parameters.
    #[command(after_help = "Examples:\n  nines sim catalogue\n  nines sim catalogue fan\n  nines sim catalogue sensor")]
    Catalogue {
        /// Only those whose name has this word.
        #[arg(default_value = "")]
        word: String,
    },
    /// Plays many seeds, each with its own mix of faults, and reports what failovers cost. Exit 1 if a seed fails; Ctrl-C ends it with a report (exit 130).
    #[command(after_help = "Examples:\n  nines sim campaign --seeds 1000\n  nines sim campaign --seeds 100000 --state night.state --html night.html\n  nines sim campaign --seeds 1000 --only node-killed\n  nines sim campaign --seeds 1000 --mtbf node-killed=8000h,process-killed=100h")]
    Campaign(campaign::Options),
    /// Breaks every part of a domain in virtual time, each on its own, and tells what stops and why: finds single points of failure.
    #[command(after_help = "Examples:\n  nines sim faults\n  nines sim faults --domain domain.yaml --check\n  nines sim faults --double --json")]
    Faults(faults::Options),
    /// Plays one seed or one script of faults again and tells the story. Exit 1 if it fails.
    #[command(after_help = "Examples:\n  nines sim replay --seed 123\n  nines sim replay --seed 123 --shrink --save 123.yaml\n  nines sim replay --script 123.yaml --lines 200")]
    Replay(replay::Options),
}

#[derive(Debug, Subcommand)]
pub(crate) enum AlarmStep {
    /// Somebody has seen it.
    Ack {
        /// The object.
        object: String,
        /// The alarm's type.
        kind: String,
    },
    /// Puts it aside for a while.
    Shelve {
        /// The object.
        object: String,
        /// The alarm's type.
        kind: String,
        /// For how long.
        #[arg(long = "for", default_value = "8h", value_parser = seconds)]
        lasting: u64,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceStep {
    /// Where each service runs.
    List {
        #[command(flatten)]
        ask: Ask,
    },
    /// Hands the active role over, with everything in flight finished first.
    Switchover {
        /// The service.
        service: String,
        /// To which node; the best standby if left out.
        #[arg(long)]
        to: Option<NodeId>,
        #[command(flatten)]
        ask: Ask,
    },
    /// Starts a service from the best copy there is, after every complete copy was lost.
    Start {
        /// The service.
        service: String,
        #[command(flatten)]
        ask: Ask,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeStep {
    /// Prints a token that makes one machine this node, once.
    ///
    /// Ask the node that holds the domain's authority (`authority:` in its nines.yaml). The token bears the node's name, the hash of the authority's
    /// certificate, where to ask, and a secret: carry it as you would carry a key. A later invitation of the same node replaces it.
    Invite {
        /// The node: a new one, or one that was expelled.
        #[arg(value_name = "NODE")]
        which: NodeId,
        /// For how long the token counts, such as 30m or 1h.
        #[arg(long, default_value = "1h", value_parser = seconds)]
        valid: u64,
        /// The chassis that it sits in.
        #[arg(long)]
        chassis: Option<ChassisName>,
        /// Its address on each link, with commas between.
        #[arg(long, value_delimiter = ',')]
        links: Vec<SocketAddr>,
        /// It shall vote. Left out: it learns, and runs services, unless its name had a vote.
        #[arg(long)]
        voter: bool,
        /// It shall vote and run no services.
        #[arg(long)]
        witness: bool,
        #[command(flatten)]
        ask: Ask,
    },
    /// Ends a node's membership: no certificate that it ever had counts any more, its connections end at once.
    ///
    /// To the others it is dead from then on: what it was active for is taken over. Its seat and vote stay for whoever is invited under its name.
    /// Refused if the rest could decide nothing without it, or if it alone knows what a service knows.
    Expel {
        /// The node, such as n3.
        #[arg(value_name = "NODE")]
        which: NodeId,
        /// Although nothing may be decided any more, or state be lost.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        ask: Ask,
    },
    /// Takes a node that was expelled out of the configuration for good: its seat waits for nobody any more.
    ///
    /// Refused while it would be missed: what it was active for not taken over, its copy still counted on, its vote or its place needed by the rest.
    /// Its certificates stay without worth. Its name is free: a later invitation says its chassis and links anew.
    Forget {
        /// The node, such as n3.
        #[arg(value_name = "NODE")]
        which: NodeId,
        #[command(flatten)]
        ask: Ask,
    },
    /// Asks for another certificate for the node that is asked. Connections go on.
    ///
    /// A certificate that has an end is renewed by itself when two thirds of its life are over.
    Renew {
        #[command(flatten)]
        ask: Ask,
    },
    /// Gives up the disk that the node voted with, and takes the node in with the one it has now.
    ///
    /// The others keep a node out that comes back with an empty or exchanged state directory: what it had promised is forgotten there.
    /// Say this only if the old disk is really gone; the old disk does not come back into the domain.
    Replace {
        /// The node, such as n3.
        #[arg(value_name = "NODE")]
        which: NodeId,
        #[command(flatten)]
        ask: Ask,
    },
}

/// What to do with limits.
#[derive(Debug, Subcommand)]
pub(crate) enum LimitsStep {
    /// Each limit with the highest use of any node and the bound in force.
    List {
        #[command(flatten)]
        ask: Ask,
    },
    /// Makes other bounds law on every node; refused if one is out of its range, or the policies in force need more.
    Set {
        /// LIMIT=BOUND; nothing after the = takes it back to its default.
        #[arg(required = true, value_parser = bound)]
        bounds: Vec<(String, Option<u64>)>,
        /// Why, for the audit trail.
        #[arg(short, long, default_value = "")]
        message: String,
        #[command(flatten)]
        ask: Ask,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum FeatureStep {
    /// Lets new kinds of things be written. Refused if a member does not read them, or is not there to say so; there is no way back.
    Raise {
        /// The level; the next one if left out.
        #[arg(value_parser = clap::value_parser!(u8).range(1..))]
        level: Option<u8>,
        /// Why, for the audit trail.
        #[arg(short, long, default_value = "")]
        message: String,
        #[command(flatten)]
        ask: Ask,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyStep {
    /// Finds mistakes before anything is loaded.
    Check {
        /// The directory with classes, alarms, objects and policies.
        #[arg(default_value = "policies")]
        dir: PathBuf,
        /// One JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Checks, then makes it law on every node at one point of the log.
    Apply {
        /// The directory with classes, alarms, objects and policies.
        #[arg(default_value = "policies")]
        dir: PathBuf,
        /// Why, for the audit trail.
        #[arg(short, long, default_value = "")]
        message: String,
        #[command(flatten)]
        ask: Ask,
    },
    /// What is in force.
    List {
        #[command(flatten)]
        ask: Ask,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum JournalStep {
    /// Replays every segment and compares: the same inputs must come to the same decisions. Exit 1 if one does not.
    Check {
        /// The journal's directory, or one segment.
        place: PathBuf,
        /// One JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Prints the newest events.
    Show {
        /// The journal's directory, or one segment.
        place: PathBuf,
        /// Which objects.
        #[arg(default_value = "/**")]
        pattern: String,
        /// How many.
        #[arg(long, default_value_t = 30)]
        last: usize,
        /// One JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
}

/// How to ask, and how to show the answer.
#[derive(Clone, Debug, Args)]
pub(crate) struct Ask {
    /// The node's socket, or its nines.yaml.
    #[arg(long, env = "NINES_NODE", default_value = "/run/sixnines/nines.sock")]
    pub(crate) node: PathBuf,
    /// One JSON document (one a line where events are followed).
    #[arg(long)]
    pub(crate) json: bool,
    /// How long to wait for an answer.
    #[arg(long, default_value = "5s", value_parser = seconds)]
    pub(crate) timeout: u64,
}

impl Command {
    /// The request that the command stands for; `None` for those that are no clients.
    pub(crate) fn call(self) -> Option<(Call, Ask, bool)> {
        let plain = |call, ask| Some((call, ask, false));
        match self {
            Self::Status { check, ask } => Some((Call::Status, ask, check)),
            Self::Ls { pattern, ask } => plain(Call::List { pattern }, ask),
            Self::Get { name, ask } => plain(Call::Get { name }, ask),
            Self::Watch { pattern, ask } => plain(Call::Watch { pattern }, ask),
            Self::Events { pattern, last, ask, .. } => plain(Call::Events { last, pattern }, ask),
            Self::Why { what, ask } => plain(Call::Why { what }, ask),
            Self::Alarms { step: None, ask } => plain(Call::Alarms, ask),
            Self::Alarms { step: Some(AlarmStep::Ack { object, kind }), ask } => plain(Call::AlarmAck { object, kind }, ask),
            Self::Alarms { step: Some(AlarmStep::Shelve { object, kind, lasting }), ask } => {
                plain(Call::AlarmShelve { object, kind, for_s: lasting }, ask)
            }
            Self::Service { step } => match step {
                ServiceStep::List { ask } => plain(Call::Status, ask),
                ServiceStep::Switchover { service, to, ask } => plain(Call::Switchover { service, to }, ask),
                ServiceStep::Start { service, ask } => plain(Call::StartService { service }, ask),
            },
            Self::Node { step } => match step {
                NodeStep::Replace { which, ask } => plain(Call::NodeReplace { node: which }, ask),
                NodeStep::Invite { which, valid, chassis, links, voter, witness, ask } => {
                    plain(Call::NodeInvite { node: which, valid_s: valid, seat: SeatWish { chassis, links, voter, witness } }, ask)
                }
                NodeStep::Expel { which, force, ask } => plain(Call::NodeExpel { node: which, force }, ask),
                NodeStep::Forget { which, ask } => plain(Call::NodeForget { node: which }, ask),
                NodeStep::Renew { ask } => plain(Call::NodeRenew, ask),
            },
            Self::Inject { chassis, clear: true, ask, .. } => plain(Call::InjectClear { chassis }, ask),
            Self::Inject { chassis, fault: Some(fault), target, lasting, ask, .. } => plain(Call::Inject { chassis, fault, target, for_s: lasting }, ask),
            Self::Inject { chassis, ask, .. } => plain(Call::InjectList { chassis }, ask),
            Self::Set { name, assignment, lease, message, ask } => {
                let (attribute, value) = assignment.split_once('=').map(|(a, v)| (a.to_owned(), v.to_owned()))?;
                let call = if value.is_empty() {
                    Call::Unset { name, attribute }
                } else {
                    Call::Set { name, attribute, value, lease_s: lease, reason: message }
                };
                plain(call, ask)
            }
            Self::Limits { step: LimitsStep::List { ask } } => plain(Call::Limits, ask),
            Self::Limits { step: LimitsStep::Set { bounds, message, ask } } => plain(Call::LimitsSet { bounds, message }, ask),
            Self::Feature { step: None, ask } => plain(Call::Feature, ask),
            Self::Feature { step: Some(FeatureStep::Raise { level, message, ask }), .. } => plain(Call::FeatureRaise { level, message }, ask),
            Self::Policy { step: PolicyStep::List { ask } } => plain(Call::PolicyList, ask),
            Self::Demo(_) | Self::Init(_) | Self::Join(_) | Self::Run(_) | Self::Chassis(_) | Self::Policy { .. } | Self::Journal { .. } | Self::Sim { .. } | Self::Bench { .. } | Self::Hidden(_) => None,
        }
    }
}

/// A limit and its bound from `objects=20000`.
fn bound(text: &str) -> Result<(String, Option<u64>), String> {
    let help = || format!("{text:?} is no bound: a limit's name, =, and a whole number, such as objects=20000");
    let (name, number) = text.split_once('=').ok_or_else(help)?;
    let number = if number.is_empty() { None } else { Some(number.parse().map_err(|_| help())?) };
    Ok((name.to_owned(), number))
}

/// Seconds from `30s`, `5m`, `4h`.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    let help = || format!("{text:?} is no duration: a number with a unit, such as 30s, 5m or 4h");
    let unit = text.chars().last().ok_or_else(help)?;
    let per = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86400,
        _ => return Err(help()),
    };
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| help())?;
    number.checked_mul(per).ok_or_else(help)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_tree_is_sound_and_every_command_has_examples() {
        let mut command = Cli::command();
        command.build();
        Cli::command().debug_assert();
        for sub in command.get_subcommands().filter(|s| !s.is_hide_set() && s.get_name() != "help") {
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:") && help.contains("nines "), "{} shows no examples", sub.get_name());
        }
    }

    #[test]
    fn every_example_parses() {
        let mut command = Cli::command();
        command.build();
        let mut waiting: Vec<&clap::Command> = vec![&command];
        while let Some(sub) = waiting.pop() {
            waiting.extend(sub.get_subcommands());
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter_map(|l| l.trim().strip_prefix("nines ")) {
                let line = line.split("   ").next().unwrap_or(line);
                let words = std::iter::once("nines".to_owned()).chain(split(line));
                assert!(Cli::try_parse_from(words).is_ok(), "nines {line}");
            }
        }
    }

    fn split(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut is_quoted = false;
        for c in line.chars() {
            match c {
                '\'' => is_quoted = !is_quoted,
                ' ' if !is_quoted => words.push(String::new()),
                c => words.last_mut().expect("never empty").push(c),
            }
        }
        words.retain(|w| !w.is_empty());
        words
    }

    #[test]
    fn durations_bear_a_unit() {
        assert_eq!(seconds("5m"), Ok(300));
        assert!(seconds("5").is_err() && seconds("m").is_err() && seconds("").is_err() && seconds("5µ").is_err());
    }
}
