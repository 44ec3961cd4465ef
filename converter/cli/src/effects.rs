//! What passes changed: parameters, multiply-adds, bytes and predicted peak before and after.

use snapc_passes::PassReport;
use snapc_target::manifest::PassEffect;

use crate::table::{Table, bytes, count};

/// What passes changed; those that changed nothing are left out.
pub fn of(reports: &[PassReport]) -> Vec<PassEffect> {
    let effect = |report: &PassReport| {
        let (before, after) = report.cost;
        PassEffect {
            pass: report.pass.to_owned(),
            graph: report.graph.clone(),
            parameters: [before.parameters, after.parameters],
            macs: [before.macs, after.macs],
            weight_bytes: [before.weight_bytes, after.weight_bytes],
            peak_activation_bytes: [before.peak_activation_bytes, after.peak_activation_bytes],
        }
    };
    reports.iter().filter(|r| r.changed).map(effect).collect()
}

/// What each pass changed: figures before and after it, and one figure where it left them.
pub fn table(effects: &[PassEffect]) -> String {
    let mut table = Table::new(&["pass", "graph", "parameters", "MACs", "weights", "peak"]);
    let show = |[before, after]: [u64; 2], unit: fn(u64) -> String| match before == after {
        true => unit(after),
        false => format!("{} -> {}", unit(before), unit(after)),
    };
    for effect in effects {
        table.row([
            effect.pass.clone(),
            effect.graph.clone(),
            show(effect.parameters, count),
            show(effect.macs, count),
            show(effect.weight_bytes, bytes),
            show(effect.peak_activation_bytes, bytes),
        ]);
    }
    table.render()
}
