//! The plots of a campaign's page, as SVG.

use plotters::coord::ranged1d::IntoSegmentedCoord as _;
use plotters::prelude::*;
use sixnines_hwsim::domain::campaign::Tally;
use sixnines_hwsim::domain::campaign::availability::Availability;

use super::super::report::{YEAR_S, ms};

/// How the gaps of failovers are distributed, a curve per class.
pub(super) fn gaps(tally: &Tally) -> String {
    let curves: Vec<(&str, Vec<(f64, f64)>)> = tally
        .classes
        .iter()
        .filter(|(_, class)| class.moved.n() > 0)
        .map(|(name, class)| (name.as_str(), steps(&class.moved.curve())))
        .collect();
    let most = curves.iter().flat_map(|(_, points)| points.iter().map(|p| p.0)).fold(10.0_f64, f64::max);
    if curves.is_empty() { String::new() } else { svg((900, 420), |root| draw_gaps(root, &curves, most)) }
}

/// Up at each gap, level between them: nothing is known to lie in between.
fn steps(curve: &[(u64, f64)]) -> Vec<(f64, f64)> {
    let mut points = Vec::with_capacity(curve.len() * 2);
    let mut share = 0.0;
    for (us, next) in curve {
        let gap = ms(*us).max(GAP_MIN_MS);
        points.extend([(gap, share), (gap, *next)]);
        share = *next;
    }
    points
}

fn draw_gaps(root: &Area<'_>, curves: &[(&str, Vec<(f64, f64)>)], most: f64) -> Drawn {
    let mut chart = ChartBuilder::on(root)
        .caption("gap of failovers: share of them that is at most so long", ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d((GAP_MIN_MS..most * 1.1).log_scale(), 0.0..1.0)?;
    chart.configure_mesh().max_light_lines(0).x_desc("ms").y_label_formatter(&|share| format!("{:.0} %", share * 100.0)).x_label_formatter(&|ms| format!("{ms:.0}")).draw()?;
    for (index, (name, points)) in curves.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        let line = LineSeries::new(points.iter().copied(), color.stroke_width(2));
        chart.draw_series(line)?.label(*name).legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).background_style(WHITE).border_style(BLACK.mix(0.3)).draw()?;
    Ok(())
}

/// Which class spends the year's budget, the most expensive first.
pub(super) fn budget(availability: &Availability) -> String {
    let rows: Vec<(&str, f64)> = availability.costs.iter().map(|c| (c.class.as_str(), c.unavailability * YEAR_S)).filter(|(_, s)| *s > 0.0).collect();
    let height = 90 + 26 * u32::try_from(rows.len()).unwrap_or(0);
    if rows.is_empty() { String::new() } else { svg((900, height), |root| draw_budget(root, &rows)) }
}

fn draw_budget(root: &Area<'_>, rows: &[(&str, f64)]) -> Drawn {
    let names: Vec<&str> = rows.iter().rev().map(|(name, _)| *name).collect();
    let most = rows.iter().map(|(_, seconds)| *seconds).fold(f64::MIN_POSITIVE, f64::max);
    let mut chart = ChartBuilder::on(root)
        .caption("seconds a year", ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(120)
        .build_cartesian_2d(0.0..most * 1.05, names.as_slice().into_segmented())?;
    chart.configure_mesh().disable_y_mesh().max_light_lines(0).draw()?;
    chart.draw_series(rows.iter().map(|(name, seconds)| {
        let from = (0.0, SegmentValue::Exact(name));
        let index = names.iter().position(|n| n == name).and_then(|at| names.get(at + 1));
        let to = (*seconds, index.map_or(SegmentValue::Last, SegmentValue::Exact));
        let mut bar = Rectangle::new([from, to], Palette99::pick(0).filled());
        bar.set_margin(4, 4, 0, 0);
        bar
    }))?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// A plot that cannot be drawn is left out, and says so: the figures stand beside it anyway.
fn svg(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Drawn) -> String {
    crate::font::register();
    let mut text = String::new();
    let drawn = {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        root.fill(&WHITE).map_err(Into::into).and_then(|()| draw(&root)).and_then(|()| root.present().map_err(Into::into))
    };
    match drawn {
        Ok(()) => text,
        Err(error) => format!("<p>no plot: {}</p>", super::escape(&error.to_string())),
    }
}

/// The left end of the axis: a client that calls every few milliseconds sees no shorter gap.
const GAP_MIN_MS: f64 = 1.0;
