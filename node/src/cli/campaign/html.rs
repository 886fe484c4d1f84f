//! A campaign's report as one HTML page that needs nothing else: no scripts, no fonts, no network; the plots are inline SVG.

mod plots;

use sixnines_hwsim::domain::campaign::availability::nines;
use sixnines_hwsim::domain::campaign::histogram::Histogram;
use sixnines_hwsim::domain::chaos::breach::Harm;

use super::report::{Summary, YEAR_S, ms};

/// The page.
pub(crate) fn page(summary: &Summary) -> String {
    let mut out = String::new();
    let title = format!("{}: {} seeds", summary.domain, summary.tally.seeds);
    add(&mut out, &format!("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title>\n<style>{STYLE}</style></head><body>", escape(&title)));
    headline(&mut out, summary);
    failures(&mut out, summary);
    gaps(&mut out, summary);
    coverage(&mut out, summary);
    budget(&mut out, summary);
    effort(&mut out, summary);
    add(&mut out, "</body></html>");
    out
}

fn headline(out: &mut String, summary: &Summary) {
    let tally = &summary.tally;
    let word = if summary.is_good() { "all good".to_owned() } else { format!("{} failed", tally.failed()) };
    let interrupted = if summary.is_interrupted { ", interrupted" } else { "" };
    add(out, &format!("<h1>{}: {} seeds from {}{interrupted}: {word}</h1>", escape(&summary.domain), tally.seeds, summary.from));
    let facts = [
        ("lost writes", tally.harmed(Harm::LostWrite)),
        ("two actives", tally.harmed(Harm::TwoActives)),
        ("faults", tally.faults),
        ("of them on a domain that was not whole", tally.overlapping),
        ("role changes", tally.role_changes),
        ("answers to clients", tally.answers),
        ("declared losses: every complete copy had died", tally.declared_losses),
        ("seconds of virtual time", tally.virtual_ms / 1000),
    ];
    let rows = facts.map(|(name, n)| format!("<tr><td>{name}</td><td class=n>{n}</td></tr>"));
    add(out, &format!("<table>{}</table>", rows.concat()));
}

fn failures(out: &mut String, summary: &Summary) {
    for failure in &summary.tally.failures {
        add(out, &format!("<h2>Seed {} failed</h2><p>{}</p><pre>{}</pre>", failure.seed, escape(&failure.failure), escape(&summary.replay(failure.seed))));
    }
    if let Some(shrunk) = &summary.shrunk {
        let yaml = serde_yaml::to_string(&shrunk.script).unwrap_or_default();
        add(out, &format!("<h2>The first of them, shrunk in {} runs</h2><pre>{}</pre><p>{}</p>", shrunk.runs, escape(&shrunk.script.to_string()), escape(&shrunk.failure)));
        add(out, &format!("<details><summary>as a script for nines sim replay --script</summary><pre>{}</pre></details>", escape(&yaml)));
    }
}

fn gaps(out: &mut String, summary: &Summary) {
    add(out, "<h2>The client's gap</h2><p>The longest time between two consecutive answers of a service in the window that begins with a fault. Only faults that hit a whole domain, and were followed by nothing else within the window, are counted; each once per service with clients.</p>");
    add(out, &plots::gaps(&summary.tally));
    let head = "<tr><th>class</th><th>n</th><th>p50 ms</th><th>p99</th><th>p99.9</th><th>max</th><th>seed of the max</th></tr>";
    add(out, &format!("<h3>Failovers</h3><table>{head}"));
    for (name, class) in summary.tally.classes.iter().filter(|(_, c)| c.moved.n() > 0) {
        let seed = class.slowest.first().map(|(_, seed)| seed.to_string()).unwrap_or_default();
        add(out, &row(name, &class.moved, &seed));
    }
    add(out, &format!("</table><h3>Stayed where it was</h3><table>{head}"));
    for (name, class) in summary.tally.classes.iter().filter(|(_, c)| c.stayed.n() > 0) {
        add(out, &row(name, &class.stayed, ""));
    }
    add(out, "</table>");
}

fn row(name: &str, histogram: &Histogram, seed: &str) -> String {
    let at = |per_mille| histogram.per_mille(per_mille).map_or_else(String::new, |us| format!("{:.1}", ms(us)));
    let cells = [histogram.n().to_string(), at(500), at(990), at(999), at(1000), seed.to_owned()].map(|c| format!("<td class=n>{c}</td>"));
    format!("<tr><td>{}</td>{}</tr>", escape(name), cells.concat())
}

fn coverage(out: &mut String, summary: &Summary) {
    let (due, taken, bound) = summary.coverage();
    add(out, &format!("<h2>Takeover coverage</h2><p>{taken} of {due} takeovers that were due came: at least <b>{bound:.5}</b> with 95 % confidence (Clopper-Pearson, one-sided). Due means that the fault takes away what the service runs on, and a majority is left.</p>"));
    let missed = summary.tally.missed.iter().map(|m| format!("<li>{} after {}: <code>{}</code></li>", escape(m.service.as_str()), escape(&m.class), escape(&summary.replay(m.seed))));
    add(out, &format!("<ul>{}</ul>", missed.collect::<String>()));
}

fn budget(out: &mut String, summary: &Summary) {
    let a = &summary.availability;
    add(out, &format!("<h2>Availability: {:.2} nines</h2><p>{:.1} s a year for the clients of one service at the rates below; {:.2} nines if the coverage were as low as its bound.</p>", nines(a.unavailability), a.unavailability * YEAR_S, nines(a.at_bound)));
    add(out, &plots::budget(a));
    add(out, "<table><tr><th>class</th><th>MTBF h</th><th>MTTR h</th><th>mean gap ms</th><th>s a year</th></tr>");
    for cost in &a.costs {
        let rates = cost.rate.map_or_else(|| ["", "", ""].map(str::to_owned), |r| [format!("{:.0}", r.mtbf_s / 3600.0), format!("{:.2}", r.mttr_s / 3600.0), format!("{:.1}", cost.gap_s * 1000.0)]);
        let cells = rates.into_iter().chain([format!("{:.3}", cost.unavailability * YEAR_S)]).map(|c| format!("<td class=n>{c}</td>"));
        add(out, &format!("<tr><td>{}</td>{}</tr>", escape(&cost.class), cells.collect::<String>()));
    }
    add(out, "</table><p>majority-lost: too many nodes away at once, for their whole repair; nodes fail independently.</p>");
}

fn effort(out: &mut String, summary: &Summary) {
    let (e, tally) = (&summary.effort, &summary.tally);
    add(out, &format!("<h2>Effort</h2><p>{:.1} s with {} threads, {:.1} s of cores, {} MB. Per second and core {:.1} seeds, {:.1} role changes.</p>", e.wall_s, e.jobs, e.cpu_s, summary.resident_mb, summary.per_core(tally.seeds), summary.per_core(tally.role_changes)));
    add(out, &format!("<p>nines {}, checksum of all traces <code>{:016x}</code></p>", env!("CARGO_PKG_VERSION"), tally.checksum));
}

fn add(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

/// Text as HTML shows it.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#1c2330}\
table{border-collapse:collapse;margin:.5em 0}td,th{border-bottom:1px solid #d5dae2;padding:.2em .8em;text-align:left}\
td.n{text-align:right;font-variant-numeric:tabular-nums}pre{background:#f3f5f8;padding:.8em;overflow:auto}svg{max-width:100%;height:auto}h1{font-size:1.4em}h2{font-size:1.15em;margin-top:2em}";
