//! Numbers and names as people read them.

/// Safe within HTML text and quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() && c != '\n' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// Three significant digits, without trailing zeros after the point.
pub(crate) fn number(x: f64) -> String {
    if !x.is_finite() {
        return "–".into();
    }
    let digits = if x == 0.0 { 0 } else { (2 - x.abs().log10().floor() as i32).clamp(0, 6) };
    let text = format!("{x:.*}", digits as usize);
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    text.replace('-', "−")
}

/// With a thin space between thousands.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes in decimal units.
pub(crate) fn bytes(n: f64) -> String {
    let units = ["B", "KB", "MB", "GB", "TB"];
    let power = if n < 1000.0 { 0 } else { ((n.log10() / 3.0) as usize).min(units.len() - 1) };
    format!("{} {}", number(n / 1000f64.powi(power as i32)), units[power])
}

/// A duration in its two largest units.
pub(crate) fn duration(seconds: f64) -> String {
    if seconds == 0.0 {
        return "0 s".into();
    }
    if seconds < 1.0 {
        return format!("{} ms", number((seconds * 1000.0).round()));
    }
    if seconds < 60.0 {
        return format!("{} s", number(seconds));
    }
    let whole = seconds.round() as u64;
    let (units, size) = match whole {
        0..3600 => (["min", "s"], 60),
        3600..86_400 => (["h", "min"], 3600),
        _ => (["d", "h"], 86_400),
    };
    let below = if size == 86_400 { 3600 } else { size / 60 };
    match whole % size / below {
        0 => format!("{} {}", whole / size, units[0]),
        rest => format!("{} {} {} {}", whole / size, units[0], rest, units[1]),
    }
}

/// Joules, in watt hours from one on.
pub(crate) fn energy(joules: f64) -> String {
    if joules < 3600.0 { format!("{} J", number(joules)) } else { format!("{} Wh", number(joules / 3600.0)) }
}

/// A share as a percentage.
pub(crate) fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1} %", share * 100.0).replace('-', "−") } else { "–".into() }
}

/// A metric's value: accuracies as percentages.
pub(crate) fn quality(metric: &str, value: f64) -> String {
    if is_share(metric) { percent(value) } else { number(value) }
}

/// A difference of two values of a metric, signed.
pub(crate) fn difference(metric: &str, difference: f64) -> String {
    let sign = if difference > 0.0 { "+" } else { "" };
    if is_share(metric) {
        format!("{sign}{:.1} points", difference * 100.0).replace('-', "−")
    } else {
        format!("{sign}{}", number(difference))
    }
}

fn is_share(metric: &str) -> bool {
    metric.contains("accuracy") || metric.contains("F1")
}

/// Unix milliseconds as a day and a time in UTC (days to civil date: Hinnant).
pub(crate) fn moment(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (days, of_day) = ((seconds / 86_400) as i64, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", of_day / 3600, of_day / 60 % 60)
}
