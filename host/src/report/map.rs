//! Who took part when: a row for each device, a column for each round.

use super::RunReport;
use super::text::{duration, escape};

const CELL: usize = 12;
/// What still reads: more devices or rounds are left to the table.
const DEVICES: usize = 64;
const ROUNDS: usize = 200;

/// The map; empty where it would not read.
pub(super) fn figure(report: &RunReport, devices: &[&str]) -> String {
    let rounds = &report.rounds;
    if !(1..=DEVICES).contains(&devices.len()) || !(2..=ROUNDS).contains(&rounds.len()) {
        return String::new();
    }
    let mut cells = String::new();
    for (row, device) in devices.iter().enumerate() {
        for (column, round) in rounds.iter().enumerate() {
            let number = round.round + 1;
            let (class, note) = match (round.contributions.get(*device), round.refusals.get(*device)) {
                (Some(own), _) => ("in", format!("contributed, trained {}", duration(own.seconds))),
                (None, Some(reason)) => ("declined", escape(reason)),
                (None, None) => ("out", "not in the result".into()),
            };
            cells += &format!(
                "<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"10\" height=\"10\" rx=\"2\"><title>{}, round {number}: \
                 {note}</title></rect>",
                column * CELL,
                row * CELL,
                escape(device)
            );
        }
    }
    let (width, height) = (rounds.len() * CELL, devices.len() * CELL);
    format!(
        "<figure class=\"map\"><figcaption>Who took part when</figcaption><ul class=\"legend\">\
         <li><i class=\"box in\"></i>in the result</li><li><i class=\"box declined\"></i>not, with a reason</li>\
         <li><i class=\"box out\"></i>not in the result</li></ul><div class=\"scroll\">\
         <svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"devices by rounds\">{cells}</svg></div><p class=\"axis\">devices down, by name; rounds across</p></figure>"
    )
}
