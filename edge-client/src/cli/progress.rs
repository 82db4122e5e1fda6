//! A run as people watch it: a bar on a terminal, lines elsewhere, nothing for programs.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use fedtt_edge::evaluate::Evaluation;
use fedtt_edge::train::{Observer, Plan, StepEvent};
use indicatif::{ProgressBar, ProgressStyle};

/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Weight of the newest step in the figures shown.
const NEWEST: f64 = 0.05;

/// How progress is shown.
pub(crate) enum Progress {
    /// Not at all.
    Silent,
    /// On standard error.
    Shown { bar: Option<ProgressBar>, figures: Figures },
}

/// Running means.
pub(crate) struct Figures {
    loss: Option<f64>,
    tokens: u64,
    seconds: f64,
    steps: u64,
    line: Instant,
}

impl Progress {
    pub(crate) fn new(silent: bool) -> Self {
        if silent {
            return Progress::Silent;
        }
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:24} {pos}/{len}  {msg}");
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Progress::Shown {
            bar,
            figures: Figures { loss: None, tokens: 0, seconds: 0.0, steps: 0, line: Instant::now() },
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Progress::Shown { bar: Some(bar), .. } = self {
            bar.finish_and_clear();
        }
    }

    /// One line for people.
    pub(crate) fn say(&self, line: &str) {
        match self {
            Progress::Silent => {}
            Progress::Shown { bar: Some(bar), .. } => bar.suspend(|| eprintln!("{line}")),
            Progress::Shown { bar: None, .. } => eprintln!("{line}"),
        }
    }
}

impl Figures {
    fn add(&mut self, event: &StepEvent) {
        let loss = f64::from(event.loss);
        self.tokens += event.tokens as u64;
        self.seconds += event.seconds;
        self.steps += 1;
        let share = NEWEST.max(1.0 / self.steps as f64);
        self.loss = Some(self.loss.map_or(loss, |mean| mean + share * (loss - mean)));
    }

    fn line(&self, event: &StepEvent) -> String {
        let left = self.seconds / self.steps as f64 * event.steps.saturating_sub(event.step) as f64;
        format!(
            "epoch {:.2}  loss {:.4}  {:.0} tokens/s  {} left",
            event.epoch,
            self.loss.unwrap_or_default(),
            self.tokens as f64 / self.seconds.max(1e-9),
            clock(left),
        )
    }
}

fn clock(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, m, s) => format!("{m}:{s:02}"),
        (h, m, s) => format!("{h}:{m:02}:{s:02}"),
    }
}

impl Observer for Progress {
    fn started(&mut self, plan: &Plan) {
        if let Progress::Shown { bar: Some(bar), .. } = self {
            bar.set_length(plan.steps);
            bar.set_position(plan.done);
        }
        let resumed = if plan.done > 0 { format!(", {} of them done before", plan.done) } else { String::new() };
        self.say(&format!(
            "{} examples, {} held out, {} values to train, {} steps{resumed}",
            plan.examples, plan.held_out, plan.trained_values, plan.steps
        ));
    }

    fn stepped(&mut self, event: &StepEvent) {
        let Progress::Shown { bar, figures } = self else { return };
        figures.add(event);
        match bar {
            Some(bar) => {
                bar.set_position(event.step);
                bar.set_message(figures.line(event));
            }
            None if figures.line.elapsed() >= LINE_EVERY => {
                figures.line = Instant::now();
                eprintln!("step {}/{}  {}", event.step, event.steps, figures.line(event));
            }
            None => {}
        }
    }

    fn evaluated(&mut self, epochs: f64, loss: Option<f64>, dev: Option<&Evaluation>, best: bool) {
        let training = loss.map_or_else(|| "start".to_string(), |loss| format!("loss {loss:.4}"));
        let held_out = dev.map_or_else(String::new, |dev| {
            let (name, value) = dev.headline();
            let mark = if best { "  (best)" } else { "" };
            format!("  held-out loss {:.4}, {name} {value:.4}{mark}", dev.loss)
        });
        self.say(&format!("epoch {epochs:<5.2} {training}{held_out}"));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn time_left_is_told_by_the_clock() {
        assert_eq!(super::clock(59.6), "1:00");
        assert_eq!(super::clock(3725.0), "1:02:05");
    }
}
