//! A node's own file: who it is, where its things lie. Everything that concerns the domain is in the control log, not here.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use sixnines_core::abroad::{NEIGHBOUR_MAX, Neighbour};
use sixnines_core::bundle::compile_bundle;
use sixnines_core::class::Pattern;
use sixnines_core::config::{Data, parse_duration};
use sixnines_core::diagnostic::Source;
use sixnines_core::domain::config::{Bundle, DomainConfig};
use sixnines_core::domain::limits::{Limit, Limits as DomainLimits};
use sixnines_core::ids::NodeId;
use sixnines_core::time::Duration;
use sixnines_discs::feed::Limits;
use sixnines_discs::pki::check_domain;
use sixnines_discs::serial::shell::{BAUDS, is_baud};

/// `nines.yaml`. Paths are relative to the file's directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeFile {
    /// Which node of the domain this is.
    pub(crate) node: NodeId,
    /// Drawn when the domain was made; the same on every node.
    pub(crate) domain_id: u64,
    /// The domain's nodes and services, as proposed at the first start. Later changes go through `nines apply`.
    #[serde(default = "domain_file")]
    pub(crate) domain: PathBuf,
    /// Classes, alarms, objects and policies, as proposed at the first start.
    #[serde(default = "policies_dir")]
    pub(crate) policies: PathBuf,
    /// Where its certificate, its key and the authority's certificate lie.
    #[serde(default = "here")]
    pub(crate) identity: PathBuf,
    /// Control log, journal and ledgers.
    #[serde(default = "state_dir")]
    pub(crate) state: PathBuf,
    /// Objects of other nodes that this one wants to hear of: names, with `*` for one part and `**` for any number of them. Policies here
    /// see, and `why` here explains, nothing else.
    #[serde(default = "everything")]
    pub(crate) subscribe: Vec<Pattern>,
    /// What is kept of this node's events for nodes that are behind.
    #[serde(default)]
    pub(crate) events: EventLimits,
    /// The sockets that the CLI and applications talk to.
    #[serde(default = "run_dir")]
    pub(crate) run: PathBuf,
    /// Where the domain's authority lies (`ca.pem` and `ca.key`, as `nines init` made them), on the node that is to let machines in and to renew
    /// certificates. On as few nodes as will do, and on one that runs nothing foreign.
    #[serde(default)]
    pub(crate) authority: Option<PathBuf>,
    /// How long the certificates last that this authority issues, such as 90d. Left out: they have no end.
    #[serde(default)]
    pub(crate) certificate_life: Option<String>,
    /// Serial lines to other nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) serial: Vec<SerialLine>,
    /// Other domains: whose events this node hears, and who hears those of this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) federation: Option<Federation>,
    /// It was taken into a domain that was there: it never founds one.
    #[serde(default)]
    pub(crate) joined: bool,
}

/// A serial line to another node: it says that the other one lives when no fabric does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SerialLine {
    /// The tty, or another character device; an absolute path.
    pub(crate) device: PathBuf,
    /// Bits a second, the same at both ends, such as 115200 (which it is if left out).
    #[serde(default = "baud")]
    pub(crate) baud: u32,
    /// Who is at the other end, such as n2. One line for each peer.
    #[serde(deserialize_with = "peer")]
    pub(crate) peer: NodeId,
}

impl SerialLine {
    /// What is wrong with it, after these lines of the same node.
    fn wrong(&self, me: NodeId, before: &[Self]) -> Option<String> {
        if !is_baud(self.baud) {
            return Some(format!("baud is {}; it is one of {}", self.baud, BAUDS.map(|b| b.to_string()).join(", ")));
        }
        if !self.device.is_absolute() {
            return Some(format!("device is {}; it is an absolute path, such as /dev/ttyS0", self.device.display()));
        }
        if self.peer == me {
            return Some(format!("peer is {me}, which is this node itself"));
        }
        let other = before.iter().find(|line| line.peer == self.peer || line.device == self.device)?;
        Some(format!("{} to {} is a second line with the same end as {} to {}", self.device.display(), self.peer, other.device.display(), other.peer))
    }
}

/// Domains that exchange events with this one and share no roles with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Federation {
    /// This node's own addresses for them, one for each way, such as `10.1.0.1:7700`. Other ones than the domain's own.
    pub(crate) listen: Vec<SocketAddr>,
    /// Who they are.
    pub(crate) neighbours: Vec<NeighbourEntry>,
}

/// One neighbour. The same on every node of this domain that hears it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NeighbourEntry {
    /// What the other domain calls itself.
    pub(crate) domain: String,
    /// 1 to 99, one for each: its n5 is n205 here, if this is 2.
    pub(crate) number: u16,
    /// The certificate of its authority: its `ca.pem`.
    pub(crate) authority: PathBuf,
    /// Its nodes.
    pub(crate) nodes: Vec<NeighbourNode>,
    /// Its objects that this node wants to hear of, as they are called there. Nothing, if left out.
    #[serde(default)]
    pub(crate) hear: Vec<Pattern>,
    /// The objects of this node that it may hear of. None, if left out.
    #[serde(default)]
    pub(crate) tell: Vec<Pattern>,
}

/// A node of a neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NeighbourNode {
    /// What it is called there, such as n5.
    #[serde(deserialize_with = "peer")]
    pub(crate) node: NodeId,
    /// Where it listens for this domain, in the order of the ways.
    pub(crate) at: Vec<SocketAddr>,
}

impl NeighbourEntry {
    /// The neighbour as the rest of the program knows it.
    pub(crate) fn neighbour(&self) -> Neighbour {
        Neighbour { domain: self.domain.clone(), number: self.number, hear: self.hear.clone() }
    }

    /// What is wrong with it, after these of the same node.
    fn wrong(&self, ways: usize, before: &[Self]) -> Option<String> {
        let Self { domain, number, nodes, hear, tell, .. } = self;
        if let Err(error) = check_domain(domain) {
            return Some(error.to_string());
        }
        if !(1..=NEIGHBOUR_MAX).contains(number) {
            return Some(format!("the number of {domain} is {number}; it is 1 to {NEIGHBOUR_MAX}"));
        }
        if let Some(other) = before.iter().find(|n| n.domain == *domain || n.number == *number) {
            return Some(format!("{domain} with number {number} and {} with number {} are the same name or number twice", other.domain, other.number));
        }
        if nodes.is_empty() {
            return Some(format!("{domain} has no nodes; name those that listen for this domain"));
        }
        if hear.is_empty() && tell.is_empty() {
            return Some(format!("nothing is heard of {domain} and nothing told: say hear, tell or both, such as [\"/**\"]"));
        }
        let (neighbour, mut known) = (self.neighbour(), BTreeSet::new());
        nodes.iter().find_map(|node| {
            let id = node.node;
            if neighbour.node(id).is_none() || !known.insert(id) {
                return Some(format!("{domain}: {id} is there twice, or is no node: n1 to n32 are"));
            }
            (node.at.len() != ways).then(|| format!("{domain}: {id} has {} addresses; listen has {ways}, and they go in pairs", node.at.len()))
        })
    }
}

impl Federation {
    /// What is wrong with it, and with which of the neighbours.
    fn wrong(&self) -> Option<(Option<usize>, String)> {
        if self.listen.is_empty() || self.listen.len() > 8 {
            return Some((None, "listen has 1 to 8 addresses, such as [10.1.0.1:7700]".to_owned()));
        }
        let all = self.neighbours.iter().enumerate();
        all.filter_map(|(number, n)| Some((Some(number), n.wrong(self.listen.len(), &self.neighbours[..number])?))).next()
    }
}

fn baud() -> u32 {
    115_200
}

/// `n2`, as people write it.
fn peer<'de, D: serde::Deserializer<'de>>(from: D) -> Result<NodeId, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

/// What a node keeps of its events for those who are behind: one that was away, or is slow. Who is further behind is told which events it
/// misses, and then how everything is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EventLimits {
    /// So many events, 16 to 1000000; sensors' readings do not count, only the newest of each is of use. Default: as the domain's limits say
    /// (`subscriber_lag_events`).
    pub(crate) lag_events: Option<usize>,
    /// And so many bytes of them, at least 64 KiB. Default 4 MiB.
    pub(crate) lag_bytes: usize,
    /// Who is out of reach for so long is no longer counted as behind, such as `90s` or `2h`. Default 1 hour.
    pub(crate) expires_after: String,
}

impl Default for EventLimits {
    fn default() -> Self {
        let limits = Limits::default();
        Self { lag_events: None, lag_bytes: limits.lag_bytes_max, expires_after: "1h".to_owned() }
    }
}

impl EventLimits {
    /// The bounds of feeds.
    ///
    /// # Panics
    /// If they were not checked.
    pub(crate) fn limits(&self, domain: &DomainLimits) -> Limits {
        let expires_after = self.expiry().expect("checked when the file was read");
        let lag_events_max = self.lag_events.unwrap_or_else(|| domain.count(Limit::SubscriberLagEvents));
        Limits { lag_events_max, lag_bytes_max: self.lag_bytes, expires_after, ..Limits::default() }
    }

    fn expiry(&self) -> Option<Duration> {
        parse_duration(&self.expires_after).filter(|d| !d.is_zero())
    }

    fn check(&self) -> Result<(), String> {
        let row = Limit::SubscriberLagEvents.row();
        if let Some(lag) = self.lag_events.filter(|lag| !(row.min..=row.max).contains(&(*lag as u64))) {
            return Err(format!("events.lag_events is {lag}; it is between {} and {}, as the domain's limits say if left out ({})", row.min, row.max, row.name));
        }
        if self.lag_bytes < 64 << 10 {
            return Err(format!("events.lag_bytes is {}; it is 65536 or more, 4194304 if left out", self.lag_bytes));
        }
        if self.expiry().is_none() {
            return Err(format!("events.expires_after is {:?}; it is a number with a unit, such as 90s or 2h, 1h if left out", self.expires_after));
        }
        Ok(())
    }
}

fn domain_file() -> PathBuf {
    "domain.yaml".into()
}
fn policies_dir() -> PathBuf {
    "policies".into()
}
fn here() -> PathBuf {
    ".".into()
}
fn state_dir() -> PathBuf {
    "state".into()
}
fn everything() -> Vec<Pattern> {
    vec![Pattern::new("/**")]
}
fn run_dir() -> PathBuf {
    "run".into()
}

/// File name of the CLI's socket in [`NodeFile::run`].
pub(crate) const API_SOCKET: &str = "nines.sock";
/// File name of the applications' socket in [`NodeFile::run`].
pub(crate) const APP_SOCKET: &str = "apps.sock";

impl NodeFile {
    /// Reads a node's file; its paths come back absolute.
    ///
    /// # Errors
    /// With the file's name, and line and column where it is not what it should be.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut file: Self = parse(&text, path)?;
        file.events.check().map_err(|why| anyhow::anyhow!("{}: {why}", path.display()))?;
        for (number, line) in file.serial.iter().enumerate() {
            if let Some(wrong) = line.wrong(file.node, &file.serial[..number]) {
                anyhow::bail!("{}{}: serial: {wrong}", path.display(), place_of(&text, &["serial"], Some(number)));
            }
        }
        if let Some((number, wrong)) = file.federation.as_ref().and_then(Federation::wrong) {
            let fields: &[&str] = if number.is_some() { &["federation", "neighbours"] } else { &["federation"] };
            anyhow::bail!("{}{}: federation: {wrong}", path.display(), place_of(&text, fields, number));
        }
        let home = path.canonicalize().ok().and_then(|p| p.parent().map(Path::to_owned)).unwrap_or_default();
        for each in [&mut file.domain, &mut file.policies, &mut file.identity, &mut file.state, &mut file.run] {
            *each = home.join(&*each);
        }
        file.authority = file.authority.map(|dir| home.join(dir));
        for neighbour in file.federation.iter_mut().flat_map(|f| &mut f.neighbours) {
            neighbour.authority = home.join(&neighbour.authority);
        }
        file.life()?;
        Ok(file)
    }

    /// How long certificates last that are issued here, in seconds.
    ///
    /// # Errors
    /// What is no duration.
    pub(crate) fn life(&self) -> anyhow::Result<Option<u64>> {
        self.certificate_life.as_deref().map(crate::cli::seconds).transpose().map_err(|e| anyhow::anyhow!("certificate_life: {e}"))
    }

    /// The domain as its file proposes it, checked.
    ///
    /// # Errors
    /// With the file's name and what is wrong in it.
    pub(crate) fn load_domain(&self) -> anyhow::Result<DomainConfig> {
        load_domain(&self.domain)
    }
}

/// Reads and checks a domain's file.
pub(crate) fn load_domain(path: &Path) -> anyhow::Result<DomainConfig> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let config: DomainConfig = parse(&text, path)?;
    config.check_names().and_then(|()| config.check()).map_err(|wrong| {
        let at = wrong.at.map(|(list, number)| place_of(&text, &[list], Some(number))).unwrap_or_default();
        anyhow::anyhow!("{}{at}: {wrong}", path.display())
    })?;
    Ok(config)
}

/// `:LINE:COLUMN` of what stands below these fields of the file, or of the item with this number there; nothing if it is not to be found.
fn place_of(text: &str, fields: &[&str], number: Option<usize>) -> String {
    let find = || {
        let mut node = sixnines_core::config::parse(Source { name: "", text }).ok()?;
        for field in fields {
            let Data::Map(entries) = node.data else { return None };
            node = entries.into_iter().find(|(key, _)| key.text == *field)?.1;
        }
        let Some(number) = number else { return Some(node.at) };
        let Data::List(items) = node.data else { return None };
        items.get(number).map(|item| item.at)
    };
    find().map(|spot| format!(":{}:{}", spot.line, spot.column)).unwrap_or_default()
}

/// Reads every policy, class, alarm and object file under `dir`.
///
/// # Errors
/// A file that cannot be read, with its name.
pub(crate) fn load_bundle(dir: &Path) -> anyhow::Result<Bundle> {
    let mut bundle = Bundle::default();
    collect(dir, dir, &mut bundle)?;
    Ok(bundle)
}

/// That a domain with these limits has room for a bundle. What does not compile at all is not judged here.
///
/// # Errors
/// What there is no room for.
pub(crate) fn check_room(bundle: &Bundle, limits: &DomainLimits) -> anyhow::Result<()> {
    let over = compile_bundle(bundle).map(|compiled| compiled.exceeds(limits)).unwrap_or_default();
    let texts: Vec<String> = over.iter().map(ToString::to_string).collect();
    anyhow::ensure!(texts.is_empty(), "{}", texts.join("\n"));
    Ok(())
}

fn collect(root: &Path, dir: &Path, bundle: &mut Bundle) -> anyhow::Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read the directory {}", dir.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read the directory {}", dir.display()))?.path();
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        let is_known = path.extension().is_some_and(|e| e == "rhai" || e == "yaml" || e == "yml");
        if path.is_dir() && name != "tests" {
            collect(root, &path, bundle)?;
        } else if path.is_file() && is_known {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            bundle.files.insert(name, text);
        }
    }
    Ok(())
}

fn parse<T: serde::de::DeserializeOwned>(text: &str, path: &Path) -> anyhow::Result<T> {
    serde_yaml::from_str(text).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_events_are_checked_and_named() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("nines.yaml");
        let load = |events: &str| {
            std::fs::write(&path, format!("node: 1\ndomain_id: 7\n{events}\n")).expect("written");
            NodeFile::load(&path).map(|file| file.events.limits(&DomainLimits::default())).map_err(|e| format!("{e:#}"))
        };
        assert_eq!(load(""), Ok(Limits::default()));
        let limits = load("events: { lag_events: 100, expires_after: 90s }").expect("good");
        assert_eq!((limits.lag_events_max, limits.expires_after), (100, Duration::from_secs(90)));
        for (bad, what) in [("lag_events: 3", "between 16 and"), ("lag_bytes: 100", "65536 or more"), ("expires_after: soon", "such as 90s"), ("lag: 3", "lag")] {
            let error = load(&format!("events: {{ {bad} }}")).expect_err(bad);
            assert!(error.contains("nines.yaml") && error.contains(what), "{error}");
        }
    }

    #[test]
    fn serial_lines_are_checked_and_what_is_wrong_is_named_with_its_place() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("nines.yaml");
        let load = |lines: &str| {
            std::fs::write(&path, format!("node: 1\ndomain_id: 7\nserial:\n  - {{ device: /dev/ttyS0, peer: n2 }}\n{lines}\n")).expect("written");
            NodeFile::load(&path).map(|file| file.serial).map_err(|e| format!("{e:#}"))
        };
        let lines = load("  - { device: /dev/ttyS1, baud: 9600, peer: n3 }").expect("good");
        assert_eq!(lines[0], SerialLine { device: "/dev/ttyS0".into(), baud: 115_200, peer: NodeId(2) });
        assert_eq!((lines[1].baud, lines[1].peer), (9600, NodeId(3)));
        for (bad, what) in [
            ("device: /dev/ttyS1, baud: 9601, peer: n3", "baud is 9601; it is one of 9600, 19200"),
            ("device: ttyS1, peer: n3", "an absolute path"),
            ("device: /dev/ttyS1, peer: n1", "this node itself"),
            ("device: /dev/ttyS1, peer: n2", "a second line"),
            ("device: /dev/ttyS0, peer: n3", "a second line"),
        ] {
            let error = load(&format!("  - {{ {bad} }}")).expect_err(bad);
            assert!(error.contains("nines.yaml:5:") && error.contains(what), "{error}");
        }
        let error = load("  - { device: /dev/ttyS1, peer: two }").expect_err("no node");
        assert!(error.contains("such as n3") && error.contains("line 5"), "{error}");
    }

    #[test]
    fn limits_of_the_domain_are_refused_with_their_line_and_a_nodes_own_lag_goes_before_them() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("domain.yaml");
        let load = |limits: &str| {
            let text = format!("domain: lab\nnodes:\n  - {{ id: 1, chassis: mxp1, links: [\"10.9.1.1:7400\"] }}\nchassis:\n  - {{ name: mxp1 }}\n{limits}\n");
            std::fs::write(&path, text).expect("written");
            load_domain(&path).map(|config| config.limits).map_err(|e| format!("{e:#}"))
        };
        assert_eq!(load(""), Ok(DomainLimits::default()));
        let limits = load("limits:\n  objects: 20000\n  subscriber_lag_events: 100").expect("good");
        assert_eq!((limits.of(Limit::Objects), limits.of(Limit::SdkClients)), (20_000, 256));
        assert_eq!(EventLimits::default().limits(&limits).lag_events_max, 100);
        assert_eq!(EventLimits { lag_events: Some(50), ..EventLimits::default() }.limits(&limits).lag_events_max, 50);
        for (bad, what) in [("objects: 3", "between 64 and 65536"), ("objcts: 300", "did you mean \"objects\"?"), ("objects: many", "line 7"), ("journal_bytes: 128MiB", "line 7")] {
            let error = load(&format!("limits:\n  {bad}")).expect_err(bad);
            assert!(error.contains("domain.yaml") && error.contains("line 7 column") && error.contains(what), "{error}");
        }
    }

    #[test]
    fn policies_that_the_domain_has_no_room_for_are_refused_at_its_making() {
        let home = tempfile::tempdir().expect("a directory");
        let small = crate::sim::three_nodes();
        let mut config = DomainConfig { limits: DomainLimits::default().with(Limit::Objects, 64), ..small.clone() };
        config.chassis.extend(["mxp3", "mxp4"].map(|name| sixnines_core::domain::config::ChassisConfig { name: name.into(), manager: None }));
        let error = format!("{:#}", crate::init::make(&home.path().join("small"), &config, None).expect_err("four shelves have more"));
        assert!(error.contains("limits.objects") && error.contains("over-limit"), "{error}");
        crate::init::make(&home.path().join("good"), &small, None).expect("as ever");
        let file = fs::read_to_string(home.path().join("good/n1/domain.yaml")).expect("readable");
        assert!(!file.contains("limits"), "where nothing is said nothing is written: {file}");
    }

    #[test]
    fn a_doubled_key_and_an_unknown_one_are_refused_with_their_line() {
        let path = Path::new("nines.yaml");
        let twice = parse::<NodeFile>("node: 1\ndomain_id: 7\nnode: 2\n", path).expect_err("doubled").to_string();
        assert!(twice.contains("nines.yaml") && twice.contains('3'), "{twice}");
        let unknown = parse::<NodeFile>("node: 1\ndomain_id: 7\nsate: x\n", path).expect_err("unknown").to_string();
        assert!(unknown.contains("sate"), "{unknown}");
    }
}
