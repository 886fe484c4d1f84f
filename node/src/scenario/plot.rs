//! Draws what was recorded: numbers over time, one panel for each unit, alarms and roles as bars; as SVG and as PNG.
//!
//! Both are drawn by the same code on plotters' two backends. The font is embedded: a PNG's letters are pixels, and an appliance has no
//! fonts.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use sixnines_core::alarms::Severity;
use sixnines_hwsim::scenario::{Bar, Report, Series};

/// Of both files, in pixels.
const WIDTH: u32 = 1200;
const PANEL_HEIGHT: u32 = 300;
const BAR_HEIGHT: u32 = 20;
const TITLE_HEIGHT: u32 = 40;
/// More bars than that nobody can read; the JSON has them all.
const BARS_MAX: usize = 40;
/// A longer legend would cover the lines; the chassis' own stand first.
const LEGEND_MAX: usize = 10;
/// The name under which plotters and a browser know the font.
const FONT: &str = "monospace";

/// Writes `NAME.svg` and `NAME.png` into a directory.
///
/// # Errors
/// If a file cannot be written.
pub(crate) fn draw(dir: &Path, report: &Report) -> anyhow::Result<[PathBuf; 2]> {
    register_font()?;
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

fn register_font() -> anyhow::Result<()> {
    static DONE: OnceLock<bool> = OnceLock::new();
    let is_good = *DONE.get_or_init(|| plotters::style::register_font(FONT, FontStyle::Normal, dejavu::sans_mono::regular()).is_ok());
    if is_good { Ok(()) } else { Err(anyhow!("the embedded font cannot be read")) }
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
    seconds: f64,
    /// By unit.
    panels: Vec<(String, Vec<&'a Series>)>,
    bars: Vec<(&'static str, Vec<&'a Bar>)>,
}

impl<'a> Picture<'a> {
    fn of(report: &'a Report) -> Self {
        let mut panels: Vec<(String, Vec<&Series>)> = Vec::new();
        for series in &report.recording.series {
            match panels.iter_mut().find(|(unit, _)| *unit == series.unit) {
                Some((_, list)) => list.push(series),
                None => panels.push((series.unit.clone(), vec![series])),
            }
        }
        let few = |bars: &'a [Bar]| bars.iter().take(BARS_MAX).collect::<Vec<_>>();
        let bars = [("alarms", few(&report.recording.alarms)), ("roles", few(&report.recording.roles))];
        Self {
            title: format!("{}: {}", report.name, if report.is_good() { "kept" } else { "NOT kept" }),
            seconds: report.lasted.as_secs_f64(),
            panels,
            bars: bars.into_iter().filter(|(_, list)| !list.is_empty()).collect(),
        }
    }

    fn height(&self) -> u32 {
        let panels = u32::try_from(self.panels.len()).unwrap_or(1) * PANEL_HEIGHT;
        let bars: u32 = self.bars.iter().map(|(_, list)| bars_height(list)).sum();
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
            let (panel, below) = rest.split_vertically(bars_height(list));
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
        let caption = match list.len().saturating_sub(LEGEND_MAX) {
            0 => unit.to_owned(),
            more => format!("{unit}  ({more} more lines without a name)"),
        };
        let margin = ((high - low) * 0.08).max(1.0);
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .margin_right(40)
            .x_label_area_size(30)
            .y_label_area_size(80)
            .caption(caption, (FONT, 14))
            .build_cartesian_2d(0.0..self.seconds, low - margin..high + margin)?;
        let label = |x: &f64| clock(*x, self.seconds);
        chart.configure_mesh().x_label_formatter(&label).label_style((FONT, 12)).light_line_style(WHITE).draw()?;
        for (index, series) in list.iter().enumerate() {
            let color = Palette99::pick(index).to_rgba();
            for (part, stretch) in series.points.split(|(_, value)| value.is_none()).filter(|s| !s.is_empty()).enumerate() {
                let points = stretch.iter().filter_map(|(x, value)| Some((*x, (*value)?)));
                let drawn = chart.draw_series(LineSeries::new(points, color))?;
                if part == 0 && index < LEGEND_MAX {
                    let name = format!("{} {}", series.object, series.attribute);
                    drawn.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
                }
            }
        }
        chart.configure_series_labels().label_font((FONT, 12)).background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.2)).draw()?;
        Ok(())
    }

    /// One line for each bar; what it is stands beside it.
    fn draw_bars<DB: DrawingBackend>(&self, area: &DrawingArea<DB, Shift>, what: &str, list: &[&Bar]) -> anyhow::Result<()>
    where
        DB::ErrorType: 'static,
    {
        let lines = i32::try_from(list.len()).unwrap_or(1);
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .margin_right(40)
            .x_label_area_size(30)
            .y_label_area_size(80)
            .caption(what, (FONT, 14))
            .build_cartesian_2d(0.0..self.seconds, 0..lines)?;
        let label = |x: &f64| clock(*x, self.seconds);
        chart.configure_mesh().x_label_formatter(&label).label_style((FONT, 12)).disable_y_axis().disable_y_mesh().light_line_style(WHITE).draw()?;
        for (line, bar) in (0..).zip(list.iter().rev()) {
            let (from, until) = (bar.from.as_secs_f64(), bar.until.as_secs_f64().max(bar.from.as_secs_f64() + self.seconds / 500.0));
            chart.draw_series([Rectangle::new([(from, line), (until, line + 1)], color(bar.severity).filled())])?;
            // Beside its beginning, unless there is no room to the right of it.
            let at = from.min(self.seconds * 0.55);
            chart.draw_series([Text::new(bar.label.clone(), (at, line + 1), (FONT, 13))])?;
        }
        Ok(())
    }
}

fn bars_height(list: &[&Bar]) -> u32 {
    70 + u32::try_from(list.len()).unwrap_or(0) * BAR_HEIGHT
}

/// As front panels show it; a role has the colour of nothing wrong.
fn color(severity: Severity) -> RGBAColor {
    match severity {
        Severity::Critical => RGBColor(230, 90, 90).to_rgba(),
        Severity::Major => RGBColor(245, 160, 90).to_rgba(),
        Severity::Minor => RGBColor(245, 215, 110).to_rgba(),
        Severity::Warning => RGBColor(150, 200, 240).to_rgba(),
        Severity::Indeterminate => RGBColor(200, 200, 200).to_rgba(),
        Severity::Cleared => RGBColor(160, 220, 160).to_rgba(),
    }
}

/// The time on an axis, in the unit that the whole asks for.
fn clock(seconds: f64, whole: f64) -> String {
    match whole {
        w if w > 2.0 * 86_400.0 => format!("{:.1} d", seconds / 86_400.0),
        w if w > 2.0 * 3600.0 => format!("{:.1} h", seconds / 3600.0),
        w if w > 600.0 => format!("{:.0} m", seconds / 60.0),
        _ => format!("{seconds:.0} s"),
    }
}
