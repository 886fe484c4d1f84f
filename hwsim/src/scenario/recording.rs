//! What a run leaves behind to be drawn and read: numbers over time, alarms and roles as bars, and the story.

use std::collections::BTreeMap;

use sixnines_core::alarms::Severity;
use sixnines_core::class::number;
use sixnines_core::event::AlarmStep;
use sixnines_core::ids::{AttributeName, GroupName, NodeId, ObjectName};
use sixnines_core::time::{Duration, Instant};

use super::condition::{Condition, RoleWord, Term};
use super::report::Line;
use super::stage::{Occurrence, Stage, What};
use super::step::{Deed, Trigger};
use super::{LOOK, Scenario};

/// Everything that can be drawn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recording {
    /// Numbers over time.
    pub series: Vec<Series>,
    /// Alarms, by the time of their raise.
    pub alarms: Vec<Bar>,
    /// Roles, where there are any.
    pub roles: Vec<Bar>,
}

/// One number over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Of what.
    pub object: ObjectName,
    /// Which attribute.
    pub attribute: AttributeName,
    /// In which unit.
    pub unit: String,
    /// Seconds, and the value; `None` where nobody knew it.
    pub points: Vec<(f64, Option<f64>)>,
}

/// Something that lasts.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What.
    pub label: String,
    /// How bad; roles are `Cleared`.
    pub severity: Severity,
    /// From when.
    pub from: Duration,
    /// Until when.
    pub until: Duration,
}

/// Points of one series at most; a day is drawn from as many as a minute.
const POINTS_MAX: u64 = 1200;
/// Bars at most.
const BARS_MAX: usize = 2000;
/// Lines of the story at most.
const STORY_MAX: usize = 1000;

/// Takes down what happens.
#[derive(Debug)]
pub(super) struct Recorder {
    recording: Recording,
    severities: BTreeMap<String, Severity>,
    raised: BTreeMap<(ObjectName, String), Instant>,
    watched: Vec<(GroupName, NodeId)>,
    roles: BTreeMap<(GroupName, NodeId), (RoleWord, Instant)>,
    story: Vec<Line>,
    story_dropped: u64,
    events: u64,
    spacing: Duration,
    next: Instant,
}

impl Recorder {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let series = wanted(scenario).into_iter().map(|(object, attribute, unit)| Series { object, attribute, unit, points: Vec::new() });
        let catalogue = &scenario.setting.compiled.catalogue;
        let asked = conditions(scenario).flat_map(|c| &c.terms).filter_map(role);
        let mut watched: Vec<(GroupName, NodeId)> = candidates(scenario).chain(asked).collect();
        watched.sort();
        watched.dedup();
        Self {
            recording: Recording { series: series.collect(), ..Recording::default() },
            severities: catalogue.iter().map(|class| (class.name.clone(), class.severity)).collect(),
            raised: BTreeMap::new(),
            watched,
            roles: BTreeMap::new(),
            story: Vec::new(),
            story_dropped: 0,
            events: 0,
            spacing: spacing(scenario.lasts),
            next: Instant::ZERO,
        }
    }

    pub(super) fn tell(&mut self, news: &[Occurrence]) {
        self.events += news.len() as u64;
        for occurrence in news {
            let object = &occurrence.object;
            match &occurrence.what {
                What::Alarm(kind, step) => {
                    self.note(occurrence.at, format!("alarm {kind} on {object} {}", step.word()));
                    self.alarm(object, kind, *step, occurrence.at);
                }
                What::Asked(Some(value)) => self.note(occurrence.at, format!("{object} {} is asked to be {value}", occurrence.attribute)),
                What::Asked(None) => self.note(occurrence.at, format!("{object} is asked to {}", occurrence.attribute)),
                What::Change(_) | What::Other => {}
            }
        }
    }

    pub(super) fn note(&mut self, at: Instant, text: String) {
        if self.story.len() < STORY_MAX {
            self.story.push(Line { at: at.since(Instant::ZERO), text });
        } else {
            self.story_dropped += 1;
        }
    }

    pub(super) fn sample(&mut self, now: Instant, stage: &dyn Stage) {
        let mut taken = Vec::new();
        for key in &self.watched {
            let role = stage.role(&key.0, key.1).unwrap_or(RoleWord::None);
            let (before, since) = self.roles.get(key).copied().unwrap_or((role, now));
            if role != before {
                push(&mut self.recording.roles, role_bar(key, before, since, now));
                taken.push(format!("{} is {} for {}", key.1, if role == RoleWord::None { "nothing" } else { role.word() }, key.0));
            }
            self.roles.insert(key.clone(), (role, if role == before { since } else { now }));
        }
        taken.into_iter().for_each(|text| self.note(now, text));
        if now < self.next {
            return;
        }
        while self.next <= now {
            self.next = self.next + self.spacing;
        }
        let seconds = now.since(Instant::ZERO).as_secs_f64();
        for series in &mut self.recording.series {
            let value = stage.value(&series.object, &series.attribute).and_then(|value| number(&value));
            series.points.push((seconds, value));
        }
    }

    pub(super) fn finish(mut self, now: Instant) -> (Recording, Vec<Line>, u64, u64) {
        for ((object, kind), since) in std::mem::take(&mut self.raised) {
            self.bar(&object, &kind, since, now);
        }
        for (key, (role, since)) in &self.roles {
            push(&mut self.recording.roles, role_bar(key, *role, *since, now));
        }
        self.recording.alarms.sort_by(|a, b| (a.from, &a.label).cmp(&(b.from, &b.label)));
        self.recording.roles.sort_by(|a, b| (subject(&a.label), a.from).cmp(&(subject(&b.label), b.from)));
        self.recording.series.retain(|series| series.points.iter().any(|(_, value)| value.is_some()));
        (self.recording, self.story, self.story_dropped, self.events)
    }

    fn alarm(&mut self, object: &ObjectName, kind: &str, step: AlarmStep, at: Instant) {
        let key = (object.clone(), kind.to_owned());
        match step {
            AlarmStep::Raised => drop(self.raised.entry(key).or_insert(at)),
            AlarmStep::Cleared => {
                if let Some(since) = self.raised.remove(&key) {
                    self.bar(object, kind, since, at);
                }
            }
            _ => {}
        }
    }

    fn bar(&mut self, object: &ObjectName, kind: &str, since: Instant, until: Instant) {
        let severity = self.severities.get(kind).copied().unwrap_or(Severity::Indeterminate);
        let (from, until) = (since.since(Instant::ZERO), until.since(Instant::ZERO));
        push(&mut self.recording.alarms, Bar { label: format!("{kind} {object}"), severity, from, until });
    }
}

fn push(bars: &mut Vec<Bar>, bar: Bar) {
    if bars.len() < BARS_MAX {
        bars.push(bar);
    }
}

/// Of a role's label: which service, and where.
fn subject(label: &str) -> &str {
    label.rsplit_once(": ").map_or(label, |(subject, _)| subject)
}

/// Every node that could be active for a service of the domain.
fn candidates(scenario: &Scenario) -> impl Iterator<Item = (GroupName, NodeId)> {
    let config = scenario.setting.domain.iter().map(|domain| &domain.config);
    config.flat_map(|config| config.services.iter().flat_map(|service| config.candidates(&service.name).into_iter().map(|node| (service.name.clone(), node))))
}

fn role_bar((service, node): &(GroupName, NodeId), role: RoleWord, since: Instant, until: Instant) -> Bar {
    let label = format!("{service} on {node}: {}", role.word());
    Bar { label, severity: Severity::Cleared, from: since.since(Instant::ZERO), until: until.since(Instant::ZERO) }
}

/// Far enough apart that a run of this length has at most [`POINTS_MAX`].
fn spacing(lasts: Duration) -> Duration {
    let looks = lasts.as_nanos().div_ceil(LOOK.as_nanos());
    let every = u32::try_from(looks.div_ceil(u128::from(POINTS_MAX))).unwrap_or(u32::MAX).max(1);
    LOOK * every
}

/// Temperatures and speeds of the chassis, and every number that the scenario itself looks at or reads.
fn wanted(scenario: &Scenario) -> Vec<(ObjectName, AttributeName, String)> {
    let setting = &scenario.setting;
    let mut list: Vec<_> = setting.measured().into_iter().filter(|(_, _, unit)| ["°C", "rpm"].contains(&unit.as_str())).collect();
    let looked_at = conditions(scenario).flat_map(|c| &c.terms).flat_map(|term| match term {
        Term::Value { objects, attribute, .. } => objects.iter().map(|o| (o.clone(), attribute.clone())).collect(),
        _ => Vec::new(),
    });
    let readings = scenario.steps.iter().flat_map(|step| &step.deeds).filter_map(|deed| match deed {
        Deed::Reading(update) => Some((update.object.clone(), update.attribute.clone())),
        _ => None,
    });
    for (object, attribute) in looked_at.chain(readings) {
        let Some(unit) = setting.attribute(object.as_str(), attribute.as_str()).and_then(|a| a.unit.clone()) else { continue };
        if !list.iter().any(|(o, a, _)| (o, a) == (&object, &attribute)) {
            list.push((object, attribute, unit));
        }
    }
    list
}

fn conditions(scenario: &Scenario) -> impl Iterator<Item = &Condition> {
    scenario.steps.iter().flat_map(|step| {
        let waited = match &step.trigger {
            Trigger::When { condition, .. } => Some(condition),
            _ => None,
        };
        waited.into_iter().chain(step.expectation.as_ref().map(|e| &e.condition))
    })
}

fn role(term: &Term) -> Option<(GroupName, NodeId)> {
    match term {
        Term::Role { service, node, .. } => Some((service.clone(), *node)),
        _ => None,
    }
}
