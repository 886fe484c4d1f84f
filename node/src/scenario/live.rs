//! A stage: a domain that really runs. Time is the wall's; one node is asked how things are, and the simulated chassis are broken by
//! their own injector.
//!
//! It leaves nothing behind: each fault ends with the scenario at the latest, and so do the operator's claims.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use anyhow::{Context as _, anyhow};
use sixnines_core::bundle::Compiled;
use sixnines_core::engine::CommandBody;
use sixnines_core::event::AlarmStep;
use sixnines_core::ids::{AttributeName, ChassisName, EventId, GroupName, NodeId, ObjectName};
use sixnines_core::time::Instant;
use sixnines_core::value::{Update, Value};
use sixnines_hwsim::chassis::Injection;
use sixnines_hwsim::chassis::client::{Client, ClientError};
use sixnines_hwsim::domain::chaos::catalogue;
use sixnines_hwsim::scenario::{Deed, Mend, Occurrence, RoleWord, Scenario, Setting, Stage, What, Wish};
use tokio::runtime::Runtime;

use crate::api::{AlarmRow, Call, EventRow, Reply, Status};
use crate::cli::{Ask, client};
use crate::config::NodeFile;

/// What of a running domain can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Its simulated chassis: any domain.
    Chassis,
    /// Also its nodes, links and applications, and its clients are known: the demo's domain, in a lab of its own.
    Lab,
}

/// Connects to a chassis; to be called where it can be reached.
pub(crate) type Dial<'a> = Box<dyn FnOnce() -> Result<Client, ClientError> + Send + 'a>;

/// A running domain, seen through one node.
pub(crate) struct LiveStage {
    ask: Ask,
    began: Clock,
    now: Instant,
    lasts: Duration,
    runtime: Runtime,
    setting: Setting,
    /// Of each chassis that is broken.
    injectors: BTreeMap<ChassisName, Client>,
    /// The newest events at the last look; what is not among them is news.
    seen: BTreeSet<EventId>,
    /// When the newest of all events seen so far was, by the wall clock of its origin.
    newest_ns: u64,
    news: Vec<Occurrence>,
    values: BTreeMap<(ObjectName, AttributeName), Value>,
    alarms: Vec<AlarmRow>,
    status: Option<Box<Status>>,
    /// What has to be given up at the end.
    claims: Vec<(ObjectName, AttributeName)>,
}

impl LiveStage {
    /// Connects to the node, and to the scenario's chassis where the domain has it.
    ///
    /// # Errors
    /// What cannot be reached.
    pub(crate) fn connect(ask: &Ask, scenario: &Scenario) -> anyhow::Result<Self> {
        Self::connect_from(ask, scenario, |_, dial| dial())
    }

    /// The same for chassis that are reached only from where `place` calls what it is given.
    ///
    /// # Errors
    /// What cannot be reached.
    pub(crate) fn connect_from(ask: &Ask, scenario: &Scenario, place: impl Fn(&ChassisName, Dial<'_>) -> Result<Client, ClientError>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
        let mut injectors = BTreeMap::new();
        for (name, address) in managers(ask, scenario)? {
            let dial = Box::new(|| runtime.block_on(Client::connect(&address, "injector")));
            injectors.insert(name.clone(), place(&name, dial).with_context(|| format!("the chassis at {address} cannot be reached"))?);
        }
        let mut stage = Self {
            ask: ask.clone(),
            began: Clock::now(),
            now: Instant::ZERO,
            lasts: scenario.lasts,
            runtime,
            setting: scenario.setting.clone(),
            injectors,
            seen: BTreeSet::new(),
            newest_ns: 0,
            news: Vec::new(),
            values: BTreeMap::new(),
            alarms: Vec::new(),
            status: None,
            claims: Vec::new(),
        };
        stage.look().map_err(|why| anyhow!(why))?;
        stage.news.clear(); // what was before is not the scenario's
        stage.began = Clock::now();
        Ok(stage)
    }

    /// Whether it does that to chassis, although whole domains have a fault of that name.
    pub(crate) fn knows(fault: &str) -> bool {
        fault == FANS
    }

    /// Until then nothing is looked at.
    pub(crate) fn wait_until(&self, to: Instant) {
        let due = to.since(Instant::ZERO);
        std::thread::sleep(due.saturating_sub(self.began.elapsed()));
    }

    /// Nobody says how things are.
    pub(crate) fn forget(&mut self) {
        self.status = None;
        self.values.clear();
    }

    /// From now on that node is asked: its nines.yaml or its socket.
    pub(crate) fn turn_to(&mut self, node: PathBuf) {
        self.ask.node = node;
    }

    /// Why a scenario cannot be played on a running domain.
    pub(crate) fn objection(scenario: &Scenario, reach: Reach) -> Option<String> {
        if scenario.setting.ageing.is_some() {
            return Some(format!("{}: `ageing` is for virtual time", scenario.file));
        }
        if scenario.setting.domain.as_ref().is_some_and(|domain| domain.is_cold) {
            return Some(format!("{}: `cold` is for virtual time", scenario.file));
        }
        if let Some(line) = scenario.asks_clients().filter(|_| reach == Reach::Chassis) {
            return Some(format!("{}:{line}: who speaks for a service and what its clients see is known in virtual time", scenario.file));
        }
        scenario.steps.iter().flat_map(|step| step.deeds.iter().map(move |deed| (step, deed))).find_map(|(step, deed)| {
            let why = match deed {
                Deed::Inject(injection) | Deed::Mend(Mend::Like(injection)) if catalogue::is_known(&injection.fault) => match reach {
                    _ if injection.fault == FANS || reach == Reach::Lab && !VIRTUAL.contains(&injection.fault.as_str()) => return None,
                    Reach::Chassis => "nobody breaks nodes, links and applications of a domain that serves: --lab plays it on one of its own",
                    Reach::Lab => "what breaks disks and single datagrams is for virtual time",
                },
                Deed::Ask(Wish::Readmit(_)) => "`readmit` is for virtual time",
                Deed::Ask(Wish::Start(_)) if reach == Reach::Lab => "`start` gives up what clients were told, which a lab holds against it; it is for virtual time",
                Deed::Reading(_) => "a running node reads its own host",
                Deed::Takeover => "`takeover` is for virtual time: kill the owner's node",
                Deed::Apply { .. } => "`apply` is for virtual time: nines policy apply",
                Deed::Command(CommandBody::Operate { .. } | CommandBody::Force { .. } | CommandBody::Unforce { .. } | CommandBody::Unshelve { .. }) => {
                    "a node takes `set`, `ack` and `shelve`"
                }
                _ => return None,
            };
            Some(format!("{}:{}: {why}", scenario.file, step.at.line))
        })
    }

    /// Asks one question.
    fn call(&self, call: Call) -> Result<Reply, String> {
        let reply = client::ask(&self.ask, call).map_err(|failure| failure.message)?.next();
        match reply {
            Some(Ok(Reply::Failed(failure)) | Err(failure)) => Err(failure.message),
            Some(Ok(reply)) => Ok(reply),
            None => Err("the node went away".to_owned()),
        }
    }

    /// How things are.
    fn look(&mut self) -> Result<(), String> {
        if let Reply::Objects(rows) = self.call(Call::List { pattern: "/**".into() })? {
            self.values.clear();
            for row in rows {
                let object = ObjectName::new(&row.name);
                for (name, attribute) in row.attributes {
                    if let Some(value) = attribute.value.filter(|_| attribute.quality.is_usable()) {
                        self.values.insert((object.clone(), AttributeName::new(name)), value);
                    }
                }
            }
        }
        if let Reply::Alarms(rows) = self.call(Call::Alarms)? {
            // What a failed parent explains is no alarm of its own.
            self.alarms = rows.into_iter().filter(|row| !row.note.contains("explained")).collect();
        }
        if let Reply::Events(rows) = self.call(Call::Events { last: EVENTS_LAST, pattern: "/**".into() })? {
            let seen = std::mem::replace(&mut self.seen, rows.iter().map(|row| row.id).collect());
            // A node that was not asked before may have older ones that the last one had dropped.
            let oldest = self.newest_ns.saturating_sub(LATE_NS);
            self.news.extend(rows.iter().filter(|row| !seen.contains(&row.id) && row.at_ns >= oldest).map(|row| occurrence(row, self.now)));
            self.newest_ns = rows.iter().map(|row| row.at_ns).fold(self.newest_ns, u64::max);
        }
        if let Reply::Status(status) = self.call(Call::Status)? {
            self.status = Some(status);
        }
        Ok(())
    }

    /// What is left of the scenario: nothing that it breaks lasts longer.
    fn rest(&self) -> Duration {
        self.lasts.saturating_sub(self.began.elapsed()) + Duration::from_secs(1)
    }
}

/// Where each of the scenario's chassis answers, as the node's domain says; none if nothing is broken.
fn managers(ask: &Ask, scenario: &Scenario) -> anyhow::Result<Vec<(ChassisName, String)>> {
    let breaks = scenario.steps.iter().flat_map(|step| &step.deeds).any(|deed| matches!(deed, Deed::Inject(_) | Deed::Mend(_)));
    if !breaks {
        return Ok(Vec::new());
    }
    if ask.node.extension().is_none_or(|e| e != "yaml" && e != "yml") {
        anyhow::bail!("to break a chassis its address is needed: --node is a node's nines.yaml");
    }
    let domain = NodeFile::load(&ask.node)?.load_domain()?;
    let address = |name: &ChassisName| {
        let chassis = domain.chassis.iter().find(|chassis| chassis.name == *name);
        let known: Vec<&str> = domain.chassis.iter().map(|chassis| chassis.name.as_str()).collect();
        let chassis = chassis.with_context(|| format!("domain {} has no chassis {name}; it has {} (`name` or `domain` in the scenario)", domain.domain, known.join(", ")))?;
        let address = chassis.manager.with_context(|| format!("domain {} does not say where the manager of {name} answers", domain.domain))?;
        Ok((name.clone(), address.to_string()))
    };
    scenario.setting.shelves().map(|plan| address(&plan.chassis)).collect()
}

impl Drop for LiveStage {
    fn drop(&mut self) {
        drop(self.mend(&Mend::All));
        for (name, attribute) in std::mem::take(&mut self.claims) {
            // The claim's lease ends it too.
            drop(self.call(Call::Unset { name: name.to_string(), attribute: attribute.to_string() }));
        }
    }
}

impl Stage for LiveStage {
    fn step(&mut self, to: Instant) -> Result<Instant, String> {
        self.wait_until(to);
        self.now = to;
        self.look().map(|()| to)
    }

    fn inject(&mut self, injection: &Injection) -> Result<(), String> {
        let rest = self.rest();
        for one in singly(injection) {
            let (chassis, one) = self.setting.shelf_of(&one).map_err(|wrong| wrong.to_string())?;
            let client = self.injectors.get_mut(&chassis).ok_or("no chassis is connected")?;
            let expires_after = Some(one.expires_after.map_or(rest, |after| after.min(rest)));
            self.runtime.block_on(client.inject(Injection { expires_after, ..one })).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn mend(&mut self, what: &Mend) -> Result<(), String> {
        if let Mend::Like(like) = what
            && like.fault == FANS
        {
            return singly(like).into_iter().try_for_each(|one| self.mend(&Mend::Like(one)));
        }
        let (only, what) = match what {
            Mend::Like(like) => match self.setting.shelf_of(like) {
                Ok((chassis, like)) => (Some(chassis), Mend::Like(like)),
                Err(_) => (None, what.clone()), // of every chassis
            },
            Mend::All => (None, Mend::All),
        };
        for (_, client) in self.injectors.iter_mut().filter(|(name, _)| only.as_ref().is_none_or(|only| only == *name)) {
            self.runtime.block_on(async {
                // Ours alone: somebody else may be testing too.
                let mine = client.faults().await?.into_iter().filter(|active| active.injection.by == BY && what.matches(&active.injection));
                for active in mine.collect::<Vec<_>>() {
                    client.clear(Some(active.id)).await?;
                }
                Ok::<(), ClientError>(())
            })
            .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn read(&mut self, _: &Update) -> Result<(), String> {
        Err("a running node reads its own host".to_owned())
    }

    fn command(&mut self, body: &CommandBody) -> Result<(), String> {
        let rest = self.rest().as_secs().max(1);
        let call = match body {
            CommandBody::Claim { object, control, value, lease, .. } => {
                self.claims.push((object.clone(), control.clone()));
                let lease_s = lease.map_or(rest, |lease| lease.as_secs().clamp(1, rest));
                Call::Set { name: object.to_string(), attribute: control.to_string(), value: value.to_string(), lease_s, reason: BY.into() }
            }
            CommandBody::Release { object, control } => {
                self.claims.retain(|(o, c)| (o, c) != (object, control));
                Call::Unset { name: object.to_string(), attribute: control.to_string() }
            }
            CommandBody::Acknowledge { alarm, .. } => Call::AlarmAck { object: alarm.object.to_string(), kind: alarm.kind.to_string() },
            CommandBody::Shelve { alarm, expires, .. } => {
                Call::AlarmShelve { object: alarm.object.to_string(), kind: alarm.kind.to_string(), for_s: expires.as_secs().clamp(1, rest) }
            }
            _ => return Err("a node takes `set`, `ack` and `shelve`".to_owned()),
        };
        self.call(call).map(drop)
    }

    fn ask(&mut self, wish: &Wish) -> Result<(), String> {
        let call = match wish {
            Wish::Switchover { service, to } => Call::Switchover { service: service.to_string(), to: *to },
            Wish::Start(service) => Call::StartService { service: service.to_string() },
            Wish::Readmit(_) => return Err("`readmit` is for virtual time".to_owned()),
        };
        self.call(call).map(drop)
    }

    fn apply(&mut self, _: &Arc<Compiled>) -> Result<(), String> {
        Err("nines policy apply does that".to_owned())
    }

    fn take_over(&mut self) -> Result<(), String> {
        Err("kill the owner's node".to_owned())
    }

    fn value(&self, object: &ObjectName, attribute: &AttributeName) -> Option<Value> {
        self.values.get(&(object.clone(), attribute.clone())).cloned()
    }

    fn has_alarm(&self, object: &ObjectName, kind: Option<&str>) -> bool {
        self.alarms.iter().any(|row| row.object == object.as_str() && kind.is_none_or(|kind| row.kind == kind))
    }

    fn alarms(&self) -> Vec<String> {
        self.alarms.iter().map(|row| format!("{} on {}", row.kind, row.object)).collect()
    }

    fn role(&self, service: &GroupName, node: NodeId) -> Option<RoleWord> {
        let status = self.status.as_ref()?;
        let row = status.services.iter().chain(&status.chassis).find(|row| row.name == *service)?;
        Some(match row.active == Some(node) {
            true => RoleWord::Active,
            false if row.standby.contains(&node) => RoleWord::Standby,
            false => RoleWord::None,
        })
    }

    fn take_occurrences(&mut self) -> Vec<Occurrence> {
        std::mem::take(&mut self.news)
    }
}

/// `fans-failed` as the chassis know it: each fan is a fault of its own.
fn singly(injection: &Injection) -> Vec<Injection> {
    if injection.fault != FANS {
        return vec![injection.clone()];
    }
    let mut rest = injection.parameters.clone();
    let fans = rest.remove("fans").and_then(|fans| fans.parse().ok()).unwrap_or(FANS_DEFAULT);
    let one = |fan: u32| Injection {
        fault: "fan-failed".to_owned(),
        parameters: rest.iter().map(|(name, value)| (name.clone(), value.clone())).chain([("fan".to_owned(), fan.to_string())]).collect(),
        ..injection.clone()
    };
    (1..=fans).map(one).collect()
}

/// From the words of the API.
fn occurrence(row: &EventRow, at: Instant) -> Occurrence {
    let value = |text: &str| (text != "unknown").then(|| Value::Text(text.into()));
    let mut words = row.text.split_whitespace();
    let what = match (words.next(), words.next(), words.next()) {
        (Some("alarm"), Some(kind), Some(step)) => AlarmStep::ALL.iter().find(|s| s.word() == step).map_or(What::Other, |s| What::Alarm(kind.into(), *s)),
        _ if row.text.starts_with(ASKS_DRIVER) => What::Asked(value(row.text.trim_start_matches(ASKS_DRIVER).trim())),
        _ if row.text == "asks for a role to move" => What::Asked(None),
        _ => row.text.split_once(" -> ").map_or(What::Other, |(_, new)| What::Change(value(new))),
    };
    Occurrence { at, object: ObjectName::new(&row.object), attribute: AttributeName::new(&row.attribute), what }
}

/// Looked at ten times a second: a domain that has more news than that is in worse trouble than a scenario can judge.
const EVENTS_LAST: usize = 500;
/// Who injects and claims.
const BY: &str = "scenario";
const FANS: &str = "fans-failed";
/// As many as the catalogue says.
const FANS_DEFAULT: u32 = 3;
/// Faults that only virtual time has: disks, and what happens to single datagrams.
const VIRTUAL: &[&str] = &["disk-fails", "disk-full", "disk-replaced", "disk-restored", "disk-rotten", "disk-slow", "wires-bad"];
/// An event of another node may be seen so much later than younger ones.
const LATE_NS: u64 = 2_000_000_000;
const ASKS_DRIVER: &str = "asks its driver for";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_back_from_the_words_that_people_see() {
        let row = |text: &str| EventRow {
            id: EventId::default(),
            at: String::new(),
            at_ns: 0,
            object: "/mxp1/fan1".into(),
            attribute: "state".into(),
            text: text.into(),
            why: String::new(),
            policy: None,
            cause: None,
        };
        let what = |text: &str| occurrence(&row(text), Instant::ZERO).what;
        assert_eq!(what("running -> failed"), What::Change(Some(Value::Text("failed".into()))));
        assert_eq!(what("running -> unknown"), What::Change(None));
        assert_eq!(what("alarm fan-failed acknowledged"), What::Alarm("fan-failed".into(), AlarmStep::Acknowledged));
        assert_eq!(what("asks its driver for 100"), What::Asked(Some(Value::Text("100".into()))));
        assert_eq!(what("asks for a role to move"), What::Asked(None));
        assert_eq!(what("done"), What::Other);
    }
}
