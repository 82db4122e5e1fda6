//! Line plots as inline SVG. Sized for two beside each other on a desk and one on a phone; colours are the page's.

use super::text::escape;

/// Colours of series, `s0` and so on in the style sheet.
pub(super) const COLOURS: usize = 8;

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 290.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 46.0;
/// Points beyond which a line is thinned.
const MOST: usize = 400;

/// One line.
pub(super) struct Series {
    /// escaped
    pub(super) name: String,
    pub(super) colour: usize,
    pub(super) dashed: bool,
    pub(super) points: Vec<(f64, f64)>,
}

/// A plot of several lines.
pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    pub(super) x_label: &'a str,
    pub(super) x_format: &'a dyn Fn(f64) -> String,
    pub(super) y_format: &'a dyn Fn(f64) -> String,
    /// for a logarithmic x its round numbers up to a value; points at 0 are left out
    pub(super) log_x: Option<fn(f64) -> Vec<f64>>,
    /// whether y begins at 0
    pub(super) from_zero: bool,
    pub(super) series: Vec<Series>,
}

struct Axis {
    low: f64,
    high: f64,
    log: bool,
    ticks: Vec<f64>,
}

impl Axis {
    /// Of round ticks, about `wanted` of them, around the values.
    fn linear(low: f64, high: f64, wanted: f64) -> Self {
        let span = if high > low { high - low } else { low.abs().max(1e-9) };
        let rough = span / wanted;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].iter().map(|m| m * power).find(|&s| s >= rough * 0.999).unwrap_or(rough);
        let first = (low / step + 1e-9).floor();
        let last = (high / step - 1e-9).ceil().max(first + 1.0);
        let ticks = (0..=(last - first) as usize).map(|i| (first + i as f64) * step).collect();
        Axis { low: first * step, high: last * step, log: false, ticks }
    }

    /// Rounds and the like: whole ticks within the values, no more.
    fn whole(low: f64, high: f64, wanted: f64) -> Self {
        let mut axis = Self::linear(low, high.max(low + 1.0), wanted);
        axis.ticks.retain(|t| t.fract().abs() < 1e-9 && *t >= low && *t <= high.max(low + 1.0));
        (axis.low, axis.high) = (low, high.max(low + 1.0));
        axis
    }

    /// Of ticks among round numbers, about five of them.
    fn logarithmic(low: f64, high: f64, round: fn(f64) -> Vec<f64>) -> Self {
        let high = high.max(low * 1.5);
        let ticks: Vec<f64> = round(high).into_iter().filter(|&t| t >= low).collect();
        let every = ticks.len().div_ceil(5).max(1);
        Axis { low, high, log: true, ticks: ticks.into_iter().step_by(every).collect() }
    }

    /// 0 at the low end, 1 at the high end.
    fn place(&self, x: f64) -> f64 {
        if self.log {
            (x / self.low).ln() / (self.high / self.low).ln()
        } else {
            (x - self.low) / (self.high - self.low)
        }
    }
}

/// The key to several lines.
pub(super) fn legend<'a>(entries: impl Iterator<Item = (&'a str, usize, bool)>) -> String {
    let entry = |(name, colour, dashed): (&str, usize, bool)| {
        let dash = if dashed { " dashed" } else { "" };
        format!("<li><i class=\"key s{colour}{dash}\"></i>{name}</li>")
    };
    format!("<ul class=\"legend\">{}</ul>", entries.map(entry).collect::<String>())
}

impl Plot<'_> {
    /// A figure; empty without any point.
    pub(super) fn figure(mut self) -> String {
        for series in &mut self.series {
            series.points.retain(|&(x, y)| x.is_finite() && y.is_finite() && (self.log_x.is_none() || x > 0.0));
            thin(&mut series.points);
        }
        self.series.retain(|s| !s.points.is_empty());
        if self.series.is_empty() {
            return String::new();
        }
        let legend = if self.series.len() > 1 {
            legend(self.series.iter().map(|s| (s.name.as_str(), s.colour, s.dashed)))
        } else {
            String::new()
        };
        format!("<figure><figcaption>{}</figcaption>{legend}{}</figure>", escape(self.title), self.svg())
    }

    fn svg(&self) -> String {
        let all = || self.series.iter().flat_map(|s| &s.points);
        let least = |values: &dyn Fn(&(f64, f64)) -> f64| all().map(values).fold(f64::INFINITY, f64::min);
        let most = |values: &dyn Fn(&(f64, f64)) -> f64| all().map(values).fold(f64::NEG_INFINITY, f64::max);
        let (x_low, x_high) = (least(&|p| p.0), most(&|p| p.0));
        let x = match self.log_x {
            Some(round) => Axis::logarithmic(x_low, x_high, round),
            None => Axis::whole(x_low, x_high, 6.0),
        };
        let y_low = if self.from_zero { 0.0 } else { least(&|p| p.1) };
        let y = Axis::linear(y_low, most(&|p| p.1), 4.0);
        let at = |(px, py): (f64, f64)| {
            let right = LEFT + x.place(px) * (WIDTH - LEFT - RIGHT);
            let down = HEIGHT - BOTTOM - y.place(py) * (HEIGHT - TOP - BOTTOM);
            (right, down)
        };

        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} over {}\">",
            escape(self.title),
            escape(self.x_label)
        );
        for &tick in &y.ticks {
            let (_, down) = at((x.low, tick));
            svg += &format!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{down:.1}\" y2=\"{down:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                down + 4.5,
                (self.y_format)(tick).replace(".0 %", " %")
            );
        }
        let base = HEIGHT - BOTTOM;
        for &tick in &x.ticks {
            let (right, _) = at((tick, y.low));
            svg += &format!(
                "<line class=\"tick\" x1=\"{right:.1}\" x2=\"{right:.1}\" y1=\"{base}\" y2=\"{:.1}\"/>\
                 <text x=\"{right:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                base + 5.0,
                base + 20.0,
                (self.x_format)(tick)
            );
        }
        svg += &format!(
            "<line class=\"base\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{base}\" y2=\"{base}\"/>\
             <text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            WIDTH - RIGHT,
            HEIGHT - 6.0,
            escape(self.x_label)
        );
        for series in &self.series {
            svg += &self.line(series, &at);
        }
        svg + "</svg>"
    }

    fn line(&self, series: &Series, at: &dyn Fn((f64, f64)) -> (f64, f64)) -> String {
        let colour = series.colour;
        let dash = if series.dashed { " dashed" } else { "" };
        let path: Vec<String> =
            series.points.iter().map(|&p| at(p)).map(|(right, down)| format!("{right:.1},{down:.1}")).collect();
        let mut line = format!("<polyline class=\"line s{colour}{dash}\" points=\"{}\"/>", path.join(" "));
        let dots = if series.points.len() <= 40 { 2.6 } else { 0.0 };
        for &point in &series.points {
            let (right, down) = at(point);
            let (x, y) = ((self.x_format)(point.0), (self.y_format)(point.1));
            line += &format!(
                "<g class=\"dot s{colour}\"><circle cx=\"{right:.1}\" cy=\"{down:.1}\" r=\"{dots}\"/>\
                 <circle class=\"touch\" cx=\"{right:.1}\" cy=\"{down:.1}\" r=\"9\"/>\
                 <title>{}: {y} at {x}</title></g>",
                series.name
            );
        }
        line
    }
}

fn thin(points: &mut Vec<(f64, f64)>) {
    let every = points.len().div_ceil(MOST);
    if every > 1 {
        let last = points.len() - 1;
        let mut position = 0;
        points.retain(|_| {
            position += 1;
            (position - 1) % every == 0 || position - 1 == last
        });
    }
}
