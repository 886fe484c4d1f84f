//! Draws what was recorded: numbers over time, one panel for each unit, alarms and roles as bars; as SVG and as PNG.
//!
//! Both are drawn by the same code on plotters' two backends.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use plotters::coord::Shift;
use plotters::prelude::*;
use sixnines_core::alarms::Severity;
use sixnines_hwsim::scenario::{Bar, Report, Series};

use crate::font;

/// Of both files, in pixels.
const WIDTH: u32 = 1200;
const PANEL_HEIGHT: u32 = 300;
const BAR_HEIGHT: u32 = 20;
const TITLE_HEIGHT: u32 = 40;
/// More lines of bars than that nobody can read; the JSON has them all.
const LINES_MAX: usize = 60;
/// Left of every panel, so that their times stand under each other: room for the longest name of an alarm and its object.
const LEFT: u32 = 260;
/// More names than that do not fit beside a panel; the chassis' own stand first.
const NAMES_MAX: usize = 13;
/// What the bars of roles say over them: the light ones need a word.
const ROLES: &str = "roles  (dark: active, light: standby, grey: none)";
const FONT: &str = font::NAME;

/// Writes `NAME.svg` and `NAME.png` into a directory.
///
/// # Errors
/// If a file cannot be written.
pub(crate) fn draw(dir: &Path, report: &Report) -> anyhow::Result<[PathBuf; 2]> {
    font::register();
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let stem = Path::new(&report.file).file_stem().map_or_else(|| "scenario".into(), |s| s.to_string_lossy().into_owned());
    let (svg, png) = (dir.join(format!("{stem}.svg")), dir.join(format!("{stem}.png")));
    let picture = Picture::of(report);
    let size = (WIDTH, picture.height());
    picture.draw(&SVGBackend::new(&svg, size).into_drawing_area()).with_context(|| format!("cannot write {}", svg.display()))?;
    let mut pixels = vec![0; size.0 as usize * size.1 as usize * 3];
    picture.draw(&BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area()).context("cannot draw")?;
    write_png(&png, size, &pixels).with_context(|| format!("cannot write {}", png.display()))?;
    Ok([svg, png])
}

fn write_png(path: &Path, size: (u32, u32), pixels: &[u8]) -> anyhow::Result<()> {
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(path)?), size.0, size.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(())
}

/// What is drawn, sorted into panels.
struct Picture<'a> {
    title: String,
    time: Scale,
    /// By unit.
    panels: Vec<(String, Vec<&'a Series>)>,
    bars: Vec<(&'static str, Lines<'a>)>,
}

/// One line for each label, with all its bars.
type Lines<'a> = Vec<(&'a str, Vec<&'a Bar>)>;

impl<'a> Picture<'a> {
    fn of(report: &'a Report) -> Self {
        let mut panels: Vec<(String, Vec<&Series>)> = Vec::new();
        for series in &report.recording.series {
            match panels.iter_mut().find(|(unit, _)| *unit == series.unit) {
                Some((_, list)) => list.push(series),
                None => panels.push((series.unit.clone(), vec![series])),
            }
        }
        // Natural order: fan2 before fan10, and the chassis before what sits in it.
        panels.iter_mut().for_each(|(_, list)| list.sort_by_key(|s| (s.object.as_str().len(), s.object.clone(), s.attribute.clone())));
        let bars = [("alarms", lines(&report.recording.alarms, |bar| &bar.label)), (ROLES, lines(&report.recording.roles, |bar| role(bar).0))];
        Self {
            title: format!("{}: {}", report.name, if report.is_good() { "kept" } else { "NOT kept" }),
            time: Scale::of(report.lasted.as_secs_f64()),
            panels,
            bars: bars.into_iter().filter(|(_, list)| !list.is_empty()).collect(),
        }
    }

    fn height(&self) -> u32 {
        let panels = u32::try_from(self.panels.len()).unwrap_or(1) * PANEL_HEIGHT;
        let bars: u32 = self.bars.iter().map(|(_, list)| bars_height(list.len())).sum();
        TITLE_HEIGHT + panels + bars
    }

    fn draw<DB: DrawingBackend>(&self, area: &DrawingArea<DB, Shift>) -> anyhow::Result<()>
    where
        DB::ErrorType: 'static,
    {
        area.fill(&WHITE)?;
        let (title, mut rest) = area.split_vertically(TITLE_HEIGHT);
        title.draw(&Text::new(self.title.clone(), (20, 12), (FONT, 20)))?;
        for (unit, list) in &self.panels {
            let (panel, below) = rest.split_vertically(PANEL_HEIGHT);
            self.draw_numbers(&panel, unit, list)?;
            rest = below;
        }
        for (what, list) in &self.bars {
            let (panel, below) = rest.split_vertically(bars_height(list.len()));
            self.draw_bars(&panel, what, list)?;
            rest = below;
        }
        area.present()?;
        Ok(())
    }

    fn draw_numbers<DB: DrawingBackend>(&self, area: &DrawingArea<DB, Shift>, unit: &str, list: &[&Series]) -> anyhow::Result<()>
    where
        DB::ErrorType: 'static,
    {
        let values = || list.iter().flat_map(|series| series.points.iter().filter_map(|(_, value)| *value));
        let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        let caption = match list.len().saturating_sub(NAMES_MAX) {
            0 => unit.to_owned(),
            more => format!("{unit}  ({more} more lines without a name)"),
        };
        let margin = ((high - low) * 0.08).max(1.0);
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .margin_right(40)
            .x_label_area_size(30)
            .y_label_area_size(LEFT)
            .caption(caption, (FONT, 14))
            .build_cartesian_2d(0.0..self.time.whole(), low - margin..high + margin)?;
        let label = |x: &f64| self.time.label(*x);
        chart.configure_mesh().x_label_formatter(&label).label_style((FONT, 12)).light_line_style(WHITE).draw()?;
        for (index, series) in list.iter().enumerate() {
            let color = Palette99::pick(index).to_rgba();
            for stretch in series.points.split(|(_, value)| value.is_none()).filter(|stretch| !stretch.is_empty()) {
                let points = stretch.iter().filter_map(|(x, value)| Some((self.time.at(*x), (*value)?)));
                chart.draw_series(LineSeries::new(points, color))?;
            }
        }
        // To the left, where it covers nothing.
        for (line, series) in (0..).zip(list.iter().take(NAMES_MAX)) {
            let y = 40 + line * 17;
            let color = Palette99::pick(usize::try_from(line).unwrap_or(0)).to_rgba();
            area.draw(&PathElement::new([(10, y + 6), (24, y + 6)], color.stroke_width(2)))?;
            area.draw(&Text::new(format!("{} {}", series.object, series.attribute), (30, y), (FONT, 12)))?;
        }
        Ok(())
    }

    /// What it is stands to the left of each line.
    fn draw_bars<DB: DrawingBackend>(&self, area: &DrawingArea<DB, Shift>, what: &str, list: &Lines<'_>) -> anyhow::Result<()>
    where
        DB::ErrorType: 'static,
    {
        let count = i32::try_from(list.len()).unwrap_or(1);
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .margin_right(40)
            .x_label_area_size(30)
            .y_label_area_size(LEFT)
            .caption(what, (FONT, 14))
            .build_cartesian_2d(0.0..self.time.whole(), 0..count)?;
        let label = |x: &f64| self.time.label(*x);
        chart.configure_mesh().x_label_formatter(&label).label_style((FONT, 12)).disable_y_axis().disable_y_mesh().light_line_style(WHITE).draw()?;
        let thin = self.time.whole() / 500.0; // what was over at once is still seen
        for (line, (name, bars)) in (0..).zip(list.iter().rev()) {
            let ends = |bar: &Bar| (self.time.at(bar.from.as_secs_f64()), self.time.at(bar.until.as_secs_f64()));
            chart.draw_series(bars.iter().map(|bar| {
                let (from, until) = ends(bar);
                Rectangle::new([(from, line), (until.max(from + thin), line + 1)], color(bar).filled())
            }))?;
            let (_, y) = chart.backend_coord(&(0.0, line + 1));
            area.draw(&Text::new((*name).to_owned(), (10, y - area.get_base_pixel().1 + 3), (FONT, 12)))?;
        }
        Ok(())
    }
}

/// The bars by their label, in the order of the first of each.
fn lines<'a>(bars: &'a [Bar], name: impl Fn(&'a Bar) -> &'a str) -> Lines<'a> {
    let mut list: Lines<'_> = Vec::new();
    for bar in bars {
        match list.iter().position(|(label, _)| *label == name(bar)) {
            Some(line) => list[line].1.push(bar),
            None if list.len() < LINES_MAX => list.push((name(bar), vec![bar])),
            None => {}
        }
    }
    list
}

/// Whose role a bar shows, and which; an alarm's bar shows none.
fn role(bar: &Bar) -> (&str, &str) {
    bar.label.rsplit_once(": ").unwrap_or((&bar.label, ""))
}

fn bars_height(lines: usize) -> u32 {
    70 + u32::try_from(lines).unwrap_or(0) * BAR_HEIGHT
}

/// As front panels show it; an active has the colour of nothing wrong.
fn color(bar: &Bar) -> RGBAColor {
    match bar.severity {
        Severity::Critical => RGBColor(230, 90, 90).to_rgba(),
        Severity::Major => RGBColor(245, 160, 90).to_rgba(),
        Severity::Minor => RGBColor(245, 215, 110).to_rgba(),
        Severity::Warning => RGBColor(150, 200, 240).to_rgba(),
        Severity::Indeterminate => RGBColor(200, 200, 200).to_rgba(),
        Severity::Cleared => match role(bar).1 {
            "active" => RGBColor(110, 195, 110).to_rgba(),
            "standby" => RGBColor(205, 230, 205).to_rgba(),
            _ => RGBColor(240, 240, 240).to_rgba(),
        },
    }
}

/// The axis of time, in the unit that the whole asks for, so that its marks are round.
#[derive(Clone, Copy)]
struct Scale {
    seconds: f64,
    each: f64,
    unit: &'static str,
}

impl Scale {
    fn of(seconds: f64) -> Self {
        let (each, unit) = match seconds {
            s if s > 2.0 * 86_400.0 => (86_400.0, "d"),
            s if s > 2.0 * 3600.0 => (3600.0, "h"),
            s if s > 300.0 => (60.0, "min"),
            _ => (1.0, "s"),
        };
        Self { seconds, each, unit }
    }

    fn at(self, seconds: f64) -> f64 {
        seconds / self.each
    }

    fn whole(self) -> f64 {
        self.at(self.seconds)
    }

    fn label(self, x: f64) -> String {
        format!("{} {}", (x * 100.0).round() / 100.0, self.unit)
    }
}
