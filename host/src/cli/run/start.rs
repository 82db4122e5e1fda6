//! `fedtt run plan` and `fedtt run start`

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use fedtt::control::Request;
use fedtt::examples::Reading;
use fedtt_edge::flags::ReadArgs;
use serde_json::json;

use super::super::host::HostArgs;
use super::watch;
use crate::output::Outcome;

const EXAMPLES: &str = "\
Examples:
  fedtt run plan > reports.toml
  fedtt run start reports.toml
  fedtt run start reports.toml --token nightly-7 --wait
  fedtt run start reports.toml --test held-out.tsv
  fedtt run start trec.toml --test TREC.test.all --encoding latin-1

Repeated with the same --token, it starts nothing twice, unless the run was removed. Exit codes: 0 started (with --wait:
finished), 1 failed, 2 wrong usage, 3 (with --wait) stopped, or paused because it cannot go on by itself.";

/// Print a plan with comments, ready to be started
#[derive(Args)]
#[command(after_help = "Example: fedtt run plan > reports.toml")]
pub(crate) struct PlanArgs {}

/// Start a run
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StartArgs {
    /// The plan; see `fedtt run plan`
    #[arg(value_name = "PLAN.toml")]
    plan: PathBuf,
    /// Names this start, so that repeating it starts nothing twice
    #[arg(long, value_name = "WORD")]
    token: Option<String>,
    /// File of examples the host measures the adapter on after each round; may be given several times
    #[arg(long, value_name = "FILE")]
    test: Vec<PathBuf>,
    /// Wait for the run's end
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    host: HostArgs,
}

pub(super) fn plan(_: &PlanArgs) -> anyhow::Result<Outcome> {
    let text = include_str!("plan.toml");
    Ok(Outcome { text: text.to_string(), data: json!({ "plan": text }), ok: true })
}

pub(super) fn run(args: &StartArgs, as_json: bool) -> anyhow::Result<Outcome> {
    let plan = std::fs::read_to_string(&args.plan).with_context(|| format!("cannot read {}", args.plan.display()))?;
    let absolute = |path: &PathBuf| std::path::absolute(path).with_context(|| path.display().to_string());
    let request = Request::Start {
        plan,
        path: absolute(&args.plan)?,
        token: args.token.clone(),
        test: args.test.iter().map(absolute).collect::<Result<_, _>>()?,
        reading: Reading::from(&args.read),
    };
    let data = args.host.ask(request)?;
    let run = data["run"].as_str().context("the host names no run")?.to_string();
    if args.wait {
        if !as_json {
            eprintln!("{run} is {}", data["summary"]["status"].as_str().unwrap_or("started"));
        }
        return watch::wait(&run, &args.host);
    }
    let how = if data["started"] == true { "started" } else { "was started with this token before" };
    let rounds = &data["summary"]["rounds"];
    let text = format!("{run} {how}: {rounds} rounds. Follow it with `fedtt run watch {run}`.\n");
    Ok(Outcome { text, data, ok: true })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use fedtt_wire::Plan;

    #[test]
    fn the_plan_printed_holds_the_defaults_and_can_be_started() {
        let plan: Plan = toml::from_str(include_str!("plan.toml")).unwrap();
        plan.validate().unwrap();
        let mut default = Plan { name: "reports".into(), ..Plan::default() };
        default.model.labels = plan.model.labels.clone();
        assert_eq!(plan, default);
    }

    #[test]
    fn every_setting_shown_as_a_comment_exists() {
        let text = include_str!("plan.toml");
        let shown: String = text
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                // Of two that exclude each other one is enough.
                Some(setting) if setting.starts_with("fraction") => "",
                Some(setting) if setting.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => setting,
                _ => line,
            })
            .map(|line| format!("{line}\n"))
            .collect();
        toml::from_str::<Plan>(&shown).unwrap();
    }
}
