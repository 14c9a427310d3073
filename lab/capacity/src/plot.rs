//! The plot of docs/scale.md: what a runner more is worth, at three rates.

use std::path::Path;
use std::thread;

use anyhow::{Context, Result, anyhow};
use plotters::chart::SeriesLabelPosition;
use plotters::coord::Shift;
use plotters::prelude::{
    ChartBuilder, Color, DashedLineSeries, DrawingArea, IntoDrawingArea, IntoFont, IntoLogRange, LineSeries,
    PathElement, RGBColor, SVGBackend, ShapeStyle,
};

use super::least_pool;
use super::options::Options;
use super::pool::Pool;
use super::simulation::{self, Load};

const SIZE: (u32, u32) = (960, 760);
/// Opaque, so that the plot can be read on a page of any colour.
const PAPER: RGBColor = RGBColor(250, 250, 248);
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 222);
/// Told apart also by those who see few colours, and in grey.
const COLORS: [RGBColor; 3] = [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(20, 20, 20)];
/// The rates, as shares of the one that was asked for.
const RATES: [f64; 3] = [1.0 / 3.0, 1.0, 3.0];
/// The waits that are shown, in seconds. What is shorter is drawn at the lower edge.
const WAITS: (f64, f64) = (0.01, 1000.0);
/// Sizes of one curve.
const POINTS: u32 = 16;
/// A curve ends at so many runners more than are busy, in roots of those: five make no task wait for a runner.
const SPARE_ROOTS: f64 = 4.5;

type Paper<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Points = Vec<(f64, f64)>;

/// What is drawn of one rate.
struct Curves {
    name: String,
    color: RGBColor,
    /// The p99 of the wait by pool size, with runners that poll and with a server that keeps their questions.
    polled: Points,
    held: Points,
    /// The share of tasks that find no runner free, in percent.
    none_free: Points,
}

pub fn draw(options: &Options, load: &Load, file: &Path) -> Result<()> {
    // A third of a minute each, at the default number of tasks.
    let curves = thread::scope(|scope| {
        let threads: Vec<_> = RATES
            .iter()
            .zip(COLORS)
            .map(|(share, color)| scope.spawn(move || curves(options.rate * share, &scaled(load, *share), color)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join())
            .collect::<Result<Vec<Curves>, _>>()
    })
    .map_err(|_| anyhow!("the simulation panicked"))?;
    let title = format!(
        "Tasks of {:.0} s on average: the pool's size and the wait",
        load.length.mean()
    );
    // The backend tells of a file that cannot be written only when it is dropped, and then by nothing at all.
    let mut svg = String::new();
    drawn(&mut svg, &title, &curves).map_err(|error| anyhow!("the plot cannot be drawn: {error}"))?;
    std::fs::write(file, svg).with_context(|| format!("could not write the plot {}", file.display()))
}

fn scaled(load: &Load, share: f64) -> Load {
    Load {
        arrivals_per_second: load.arrivals_per_second * share,
        ..*load
    }
}

fn curves(rate: f64, load: &Load, color: RGBColor) -> Curves {
    let least = least_pool(load);
    let most = (SPARE_ROOTS * load.busy().sqrt()).max(f64::from(POINTS)).ceil() as u32;
    let mut curves = Curves {
        name: format!("{rate:.1} tasks a minute ({:.0} busy)", load.busy()),
        color,
        polled: Vec::new(),
        held: Vec::new(),
        none_free: Vec::new(),
    };
    for point in 0..=POINTS {
        let size = least + most * point / POINTS;
        let at = f64::from(size);
        let wait = |polls| {
            let measured = simulation::run(&Load { polls, ..*load }, Pool::Fixed(size));
            (measured.wait(99.0).clamp(WAITS.0, WAITS.1), measured.none_free)
        };
        let (polled, _) = wait(true);
        let (held, none_free) = wait(false);
        curves.polled.push((at, polled));
        curves.held.push((at, held));
        curves.none_free.push((at, none_free * 100.0));
    }
    curves
}

fn drawn(svg: &mut String, title: &str, curves: &[Curves]) -> Result<(), Box<dyn std::error::Error>> {
    let paper = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    paper.fill(&PAPER)?;
    let paper = paper.titled(title, ("sans-serif", 22).into_font().color(&INK))?;
    let (upper, lower) = paper.split_vertically((SIZE.1 - 40) * 3 / 5);
    let last = curves
        .iter()
        .filter_map(|it| it.polled.last())
        .map(|it| it.0)
        .fold(0.0, f64::max);
    waits(&upper, last, curves)?;
    shares(&lower, last, curves)?;
    paper.present()?;
    Ok(())
}

/// The p99 of the wait.
fn waits(paper: &Paper, last: f64, curves: &[Curves]) -> Result<(), Box<dyn std::error::Error>> {
    let mut chart = ChartBuilder::on(paper)
        .margin(12)
        .x_label_area_size(24)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..last * 1.02, (WAITS.0..WAITS.1).log_scale())?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .max_light_lines(1)
        .light_line_style(PAPER)
        .axis_style(INK)
        .label_style(("sans-serif", 14, &INK))
        .y_desc("wait of 99 % of the tasks, s")
        .x_label_formatter(&|size| format!("{size:.0}"))
        .y_label_formatter(&|seconds| format!("{seconds}"))
        .draw()?;
    for curve in curves {
        let style = ShapeStyle::from(curve.color).stroke_width(2);
        chart
            .draw_series(LineSeries::new(curve.polled.clone(), style))?
            .label(curve.name.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], style));
        let dashed = DashedLineSeries::new(curve.held.clone(), 5, 5, style.stroke_width(1));
        chart.draw_series(dashed)?;
    }
    let grey = ShapeStyle::from(INK).stroke_width(1);
    for (name, dashed) in [
        ("solid: runners ask every 5 s", false),
        ("dashed: the server keeps the question", true),
    ] {
        chart
            .draw_series(LineSeries::new(Points::new(), grey))?
            .label(name)
            .legend(move |(x, y)| {
                let end = if dashed { x + 8 } else { x + 24 };
                PathElement::new([(x, y), (end, y)], grey)
            });
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperMiddle)
        .background_style(PAPER.mix(0.9))
        .border_style(GRID)
        .label_font(("sans-serif", 14, &INK))
        .legend_area_size(32)
        .draw()?;
    Ok(())
}

/// How many tasks find no runner free.
fn shares(paper: &Paper, last: f64, curves: &[Curves]) -> Result<(), Box<dyn std::error::Error>> {
    let mut chart = ChartBuilder::on(paper)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..last * 1.02, 0.0..100.0)?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .max_light_lines(1)
        .light_line_style(PAPER)
        .axis_style(INK)
        .label_style(("sans-serif", 14, &INK))
        .x_desc("runners in the pool")
        .y_desc("no runner free, % of the tasks")
        .x_label_formatter(&|size| format!("{size:.0}"))
        .y_label_formatter(&|share| format!("{share:.0}"))
        .draw()?;
    for curve in curves {
        let style = ShapeStyle::from(curve.color).stroke_width(2);
        chart.draw_series(LineSeries::new(curve.none_free.clone(), style))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_its_axes_and_the_name_of_each_curve() {
        let curve = |name: &str| Curves {
            name: name.to_owned(),
            color: INK,
            polled: vec![(10.0, 5.0), (20.0, 1.0)],
            held: vec![(10.0, 5.0), (20.0, 0.01)],
            none_free: vec![(10.0, 90.0), (20.0, 1.0)],
        };
        let mut svg = String::new();
        drawn(&mut svg, "A title", &[curve("first"), curve("second")]).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for part in ["A title", "first", "second", "runners in the pool", "wait of 99 %"] {
            assert!(svg.contains(part), "{part:?} is missing");
        }
    }
}
