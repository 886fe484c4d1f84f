//! What a campaign has seen so far, in a file: it can be ended at any time and goes on where it was.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use sixnines_core::domain::config::DomainConfig;
use sixnines_hwsim::domain::campaign::Tally;

use super::Options;
use super::pool::Played;

/// All that a campaign is, at a moment between two seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    schema: String,
    /// Another build may do other things with the same seed.
    version: String,
    domain: DomainConfig,
    faults: u64,
    /// The rule that is broken on purpose.
    broken: String,
    /// The first seed.
    pub(crate) from: u64,
    /// All before it are in the tally.
    pub(crate) next: u64,
    /// What they came to.
    pub(crate) tally: Tally,
    /// What it took.
    pub(crate) effort: Effort,
}

/// Time spent; it differs from run to run, unlike everything else here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Effort {
    /// While seeds were played.
    pub(crate) wall_s: f64,
    /// Of all threads that played.
    pub(crate) cpu_s: f64,
    /// Threads, last.
    pub(crate) jobs: usize,
}

impl State {
    /// From the file, if there is one: it must be of the same campaign, or of one with fewer seeds.
    pub(crate) fn load_or_new(options: &Options, config: &DomainConfig) -> anyhow::Result<Self> {
        let new = Self::new(options, config);
        let Some(file) = options.state.as_deref().filter(|f| f.exists()) else { return Ok(new) };
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let old: Self = serde_json::from_str(&text).with_context(|| format!("{} is no state of a campaign", file.display()))?;
        let differs = old.differs(&new);
        if !differs.is_empty() {
            bail!("{} is of another campaign ({} differ). Take another file, or the same options", file.display(), differs.join(", "));
        }
        if old.done() > options.seeds {
            bail!("{} holds {} seeds already; ask for at least as many", file.display(), old.done());
        }
        Ok(old)
    }

    fn new(options: &Options, config: &DomainConfig) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            domain: config.clone(),
            faults: options.subject.faults,
            broken: options.subject.mutation.word(),
            from: options.from,
            next: options.from,
            tally: Tally::default(),
            effort: Effort::default(),
        }
    }

    fn differs(&self, new: &Self) -> Vec<&'static str> {
        let pairs = [
            ("schemas", self.schema == new.schema),
            ("versions of nines", self.version == new.version),
            ("domains", self.domain == new.domain),
            ("--faults", self.faults == new.faults),
            ("--break", self.broken == new.broken),
            ("--from", self.from == new.from),
        ];
        pairs.into_iter().filter_map(|(name, is_same)| (!is_same).then_some(name)).collect()
    }

    /// Seeds in the tally.
    pub(crate) fn done(&self) -> u64 {
        self.next - self.from
    }

    pub(super) fn add(&mut self, played: &Played) {
        self.tally.add(&played.report);
        self.next = played.report.seed + 1;
        self.effort.cpu_s += played.cpu.as_secs_f64();
    }

    pub(super) fn worked(&mut self, wall: Duration, jobs: usize) {
        self.effort.wall_s += wall.as_secs_f64();
        self.effort.jobs = jobs;
    }

    /// Whole or not at all: what is there stays until the new file is complete.
    pub(super) fn save(&self, file: Option<&Path>) -> anyhow::Result<()> {
        let Some(file) = file else { return Ok(()) };
        let text = serde_json::to_string(self).context("the state has no JSON")?;
        let new = file.with_extension("new");
        std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, file)).with_context(|| format!("cannot write {}", file.display()))
    }
}

const SCHEMA: &str = "nines.sim-campaign-state/1";
