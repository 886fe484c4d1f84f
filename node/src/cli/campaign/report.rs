//! A campaign's figures, ready to be shown, and their JSON.

use serde_json::{Value, json};
use sixnines_core::domain::config::DomainConfig;
use sixnines_hwsim::domain::campaign::availability::{Availability, Cost, Rate, availability, nines};
use sixnines_hwsim::domain::campaign::coverage::lower_bound;
use sixnines_hwsim::domain::campaign::histogram::Histogram;
use sixnines_hwsim::domain::campaign::{ClassTally, Tally};
use sixnines_hwsim::domain::chaos::breach::Harm;
use sixnines_hwsim::domain::chaos::shrink::Shrunk;

use super::Options;
use super::state::{Effort, State};

/// What all forms of the report show.
pub(crate) struct Summary {
    /// The domain's name.
    pub(crate) domain: String,
    /// The first seed.
    pub(crate) from: u64,
    /// Seeds asked for.
    pub(crate) wanted: u64,
    /// It ended early.
    pub(crate) is_interrupted: bool,
    /// What was seen.
    pub(crate) tally: Tally,
    /// What it took.
    pub(crate) effort: Effort,
    /// What it means at the rates asked for.
    pub(crate) availability: Availability,
    /// Options that a replay needs.
    pub(crate) arguments: String,
    /// The first failure, with the fewest faults that still fail.
    pub(crate) shrunk: Option<Shrunk>,
    /// Memory at the end.
    pub(crate) resident_mb: u64,
}

impl Summary {
    pub(super) fn new(state: &State, options: &Options, config: &DomainConfig, rates: Vec<Rate>, is_interrupted: bool) -> Self {
        let voters = u32::try_from(config.voters().count()).unwrap_or(u32::MAX);
        Self {
            domain: config.domain.clone(),
            from: state.from,
            wanted: options.seeds,
            is_interrupted,
            tally: state.tally.clone(),
            effort: state.effort.clone(),
            availability: availability(&state.tally, &rates, voters),
            arguments: options.subject.arguments(),
            shrunk: None,
            resident_mb: super::progress::resident_mb(),
        }
    }

    /// No seed failed.
    pub(crate) fn is_good(&self) -> bool {
        self.tally.failed() == 0
    }

    /// The command that plays a seed again.
    pub(crate) fn replay(&self, seed: u64) -> String {
        format!("nines sim replay --seed {seed}{}", self.arguments)
    }

    /// Takeovers that came, of those that were due, and the bound.
    pub(crate) fn coverage(&self) -> (u64, u64, f64) {
        let (due, taken) = self.tally.takeovers();
        (due, taken, lower_bound(due, taken))
    }

    /// Per second of one core.
    #[expect(clippy::cast_precision_loss, reason = "counts of a campaign are far below 2^52")]
    pub(crate) fn per_core(&self, count: u64) -> f64 {
        count as f64 / self.effort.cpu_s.max(1e-9)
    }

    /// The document of `--json`.
    pub(crate) fn json(&self) -> Value {
        let tally = &self.tally;
        let (due, taken, bound) = self.coverage();
        let failures: Vec<Value> = tally.failures.iter().map(|f| json!({"seed": f.seed, "failure": f.failure, "replay": self.replay(f.seed)})).collect();
        let mut document = json!({
            "schema": "nines.sim-campaign/1",
            "version": env!("CARGO_PKG_VERSION"),
            "domain": self.domain,
            "good": self.is_good(),
            "interrupted": self.is_interrupted,
            "seeds": {"from": self.from, "wanted": self.wanted, "done": tally.seeds},
            "faults": tally.faults,
            "overlapping": tally.overlapping,
            "answers": tally.answers,
            "role_changes": tally.role_changes,
            "failovers": tally.failovers,
            "node_failovers": tally.node_failovers,
            "virtual_s": tally.virtual_ms / 1000,
            "failed": tally.failed(),
            "failed_by": tally.harms,
            "lost_writes": tally.harmed(Harm::LostWrite),
            "two_actives": tally.harmed(Harm::TwoActives),
            "declared_losses": tally.declared_losses,
            "failures": failures,
            "classes": tally.classes.iter().map(|(name, class)| class_json(name, class)).collect::<Vec<_>>(),
            "coverage": {"due": due, "taken": taken, "lower_bound_95": bound, "method": "Clopper-Pearson, one-sided", "missed": tally.missed},
            "availability": self.availability_json(),
            "effort": self.effort_json(),
            "checksum": format!("{:016x}", tally.checksum),
        });
        if let Some(shrunk) = &self.shrunk {
            document["shrunk"] = json!({"script": shrunk.script, "failure": shrunk.failure, "runs": shrunk.runs, "complete": shrunk.is_done});
        }
        document
    }

    fn availability_json(&self) -> Value {
        let a = &self.availability;
        json!({
            "nines": nines(a.unavailability),
            "nines_at_bound": nines(a.at_bound),
            "downtime_s_per_year": a.unavailability * YEAR_S,
            "costs": a.costs.iter().map(|c| cost_json(c, a.unavailability)).collect::<Vec<_>>(),
        })
    }

    fn effort_json(&self) -> Value {
        let e = &self.effort;
        json!({
            "wall_s": e.wall_s,
            "cpu_s": e.cpu_s,
            "jobs": e.jobs,
            "resident_mb": self.resident_mb,
            "seeds_per_core_s": self.per_core(self.tally.seeds),
            "role_changes_per_core_s": self.per_core(self.tally.role_changes),
            "failovers_per_core_s": self.per_core(self.tally.failovers),
            "virtual_s_per_core_s": self.per_core(self.tally.virtual_ms) / 1000.0,
        })
    }
}

fn class_json(name: &str, class: &ClassTally) -> Value {
    let slowest: Vec<Value> = class.slowest.iter().map(|(gap, seed)| json!({"gap_ms": ms(*gap), "seed": seed})).collect();
    json!({
        "class": name,
        "moved": histogram_json(&class.moved),
        "stayed": histogram_json(&class.stayed),
        "due": class.due,
        "taken": class.taken,
        "unserved": class.unserved,
        "slowest": slowest,
    })
}

fn histogram_json(histogram: &Histogram) -> Value {
    let at = |per_mille| histogram.per_mille(per_mille).map(ms);
    match histogram.n() {
        0 => json!({"n": 0}),
        n => json!({"n": n, "p50_ms": at(500), "p99_ms": at(990), "p999_ms": at(999), "max_ms": ms(histogram.max())}),
    }
}

fn cost_json(cost: &Cost, sum: f64) -> Value {
    let mut row = json!({
        "class": cost.class,
        "unavailability": cost.unavailability,
        "unavailability_at_bound": cost.at_bound,
        "share": cost.unavailability / sum.max(f64::MIN_POSITIVE),
        "downtime_s_per_year": cost.unavailability * YEAR_S,
    });
    if let Some(rate) = &cost.rate {
        row["mtbf_s"] = json!(rate.mtbf_s);
        row["mttr_s"] = json!(rate.mttr_s);
        row["gap_ms"] = json!(cost.gap_s * 1000.0);
    }
    row
}

/// Milliseconds of microseconds.
#[expect(clippy::cast_precision_loss, reason = "gaps are far below 2^52 microseconds")]
pub(crate) fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// A year of 365.25 days.
pub(crate) const YEAR_S: f64 = 31_557_600.0;
