//! A campaign's report as text, 80 columns wide.

use sixnines_hwsim::domain::campaign::availability::nines;
use sixnines_hwsim::domain::campaign::histogram::Histogram;
use sixnines_hwsim::domain::chaos::breach::Harm;

use super::report::{Summary, YEAR_S, ms};

/// The whole report.
pub(super) fn report(summary: &Summary) -> String {
    let mut out = String::new();
    headline(&mut out, summary);
    gaps(&mut out, summary);
    coverage(&mut out, summary);
    budget(&mut out, summary);
    effort(&mut out, summary);
    failures(&mut out, summary);
    out
}

macro_rules! line {
    ($out:expr, $($text:tt)*) => {{
        $out.push_str(&format!($($text)*));
        $out.push('\n');
    }};
}

fn headline(out: &mut String, summary: &Summary) {
    let tally = &summary.tally;
    let outcome = if summary.is_good() { "all good".to_owned() } else { format!("{} FAILED", tally.failed()) };
    let interrupted = if summary.is_interrupted { format!(" of {}, interrupted", summary.wanted) } else { String::new() };
    line!(out, "{}: {} seeds from {}{interrupted}: {outcome}", summary.domain, tally.seeds, summary.from);
    line!(out, "  {} faults, {} of them on a domain that was not whole; {} h of virtual time", tally.faults, tally.overlapping, tally.virtual_ms / 3_600_000);
    line!(out, "  {} answers to clients, {} role changes", tally.answers, tally.role_changes);
    let (lost, two) = (tally.harmed(Harm::LostWrite), tally.harmed(Harm::TwoActives));
    line!(out, "  lost writes {lost}, two actives {two}; declared losses {} (every complete copy had died)", tally.declared_losses);
}

fn gaps(out: &mut String, summary: &Summary) {
    line!(out, "\nThe client's gap in ms, of faults that hit a whole domain (once per service)");
    line!(out, "FAILOVERS            N     P50     P99   P99.9     MAX  SEED OF THE MAX");
    for (name, class) in summary.tally.classes.iter().filter(|(_, c)| c.moved.n() > 0) {
        line!(out, "{name:<15} {}  {}", row(&class.moved), class.slowest.first().map_or(0, |(_, seed)| *seed));
    }
    line!(out, "STAYED               N     P50     P99   P99.9     MAX");
    for (name, class) in summary.tally.classes.iter().filter(|(_, c)| c.stayed.n() > 0) {
        line!(out, "{name:<15} {}", row(&class.stayed));
    }
}

fn row(histogram: &Histogram) -> String {
    let at = |per_mille| histogram.per_mille(per_mille).map_or_else(|| "-".to_owned(), |us| format!("{:.1}", ms(us)));
    format!("{:>6} {:>7} {:>7} {:>7} {:>7}", histogram.n(), at(500), at(990), at(999), at(1000))
}

fn coverage(out: &mut String, summary: &Summary) {
    let (due, taken, bound) = summary.coverage();
    line!(out, "\nTakeovers due {due}, taken {taken}: coverage at least {bound:.5} with 95 % confidence");
    line!(out, "  (Clopper-Pearson, one-sided; due: the fault takes away what the service runs on)");
    for missed in &summary.tally.missed {
        line!(out, "  missed: {} after {}, {}", missed.service, missed.class, summary.replay(missed.seed));
    }
}

fn budget(out: &mut String, summary: &Summary) {
    let a = &summary.availability;
    line!(out, "\nAvailability of a service: {:.2} nines, {:.1} s a year", nines(a.unavailability), a.unavailability * YEAR_S);
    line!(out, "  {:.2} nines if the coverage were as low as its bound", nines(a.at_bound));
    line!(out, "CLASS             MTBF     MTTR   GAP ms  S A YEAR  SHARE");
    for cost in &a.costs {
        let share = 100.0 * cost.unavailability / a.unavailability.max(f64::MIN_POSITIVE);
        let rates = cost.rate.map_or_else(|| format!("{:>8} {:>8} {:>8}", "", "", ""), |r| format!("{:>8} {:>8} {:>8.1}", time(r.mtbf_s), time(r.mttr_s), cost.gap_s * 1000.0));
        line!(out, "{:<14}{rates} {:>9.3} {share:>4.0} %", cost.class, cost.unavailability * YEAR_S);
    }
    line!(out, "  rates by --mtbf and --mttr; majority-lost: too many nodes away at once");
}

fn effort(out: &mut String, summary: &Summary) {
    let (e, tally) = (&summary.effort, &summary.tally);
    line!(out, "\n{:.1} s with {} threads, {:.1} s of cores, {} MB resident at the end", e.wall_s, e.jobs, e.cpu_s, summary.resident_mb);
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let virtual_s = tally.virtual_ms as f64 / 1000.0 / e.cpu_s.max(1e-9);
    let (seeds, changes) = (summary.per_core(tally.seeds), summary.per_core(tally.role_changes));
    line!(out, "per second and core: {seeds:.1} seeds, {changes:.1} role changes, {virtual_s:.0} s of virtual time");
    line!(out, "checksum of all traces {:016x}", tally.checksum);
}

fn failures(out: &mut String, summary: &Summary) {
    for failure in &summary.tally.failures {
        line!(out, "\nseed {} FAILED: {}\n  replay: {}", failure.seed, failure.failure, summary.replay(failure.seed));
    }
    if let Some(shrunk) = &summary.shrunk {
        let rest = if shrunk.is_done { "nothing smaller fails so" } else { "the bound on runs ended it" };
        line!(out, "\nThe first of them, shrunk in {} runs ({rest}):\n{}\n{}", shrunk.runs, shrunk.script, shrunk.failure);
        line!(out, "as a script for nines sim replay --script FILE{}:\n", summary.arguments);
        line!(out, "{}", serde_yaml::to_string(&shrunk.script).unwrap_or_default());
    }
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.0} h", s / 3600.0),
    }
}
