//! A report for people.

use std::fmt;

use super::Report;

impl fmt::Display for Report {
    /// The engine, a line per site with its errors, and the verdict.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |error: Option<f64>| error.map_or("-".to_string(), |e| format!("{e:.1e}"));
        let width = self.sites.iter().map(|check| check.site.len()).max().unwrap_or(0).max("site".len());
        writeln!(f, "{}\n", self.engine)?;
        writeln!(f, "{:width$}  finite differences  reference  with probes", "site")?;
        for check in &self.sites {
            let verdict = if check.worst(&self.tolerance) <= 1.0 { "ok" } else { "FAIL" };
            let differences = shown(check.finite_difference);
            let (zero, probes) = (shown(check.gradient_zero), shown(check.gradient_nonzero));
            writeln!(f, "{:width$}  {differences:>18}  {zero:>9}  {probes:>11}  {verdict}", check.site)?;
        }
        if let (Some(zero), Some(nonzero)) = (self.output_zero, self.output_nonzero) {
            writeln!(f, "\noutput differs from the reference by {zero:.1e}, with probes {nonzero:.1e}")?;
        }
        write!(f, "\n{}", if self.passed { "all within tolerance" } else { "beyond tolerance" })
    }
}
