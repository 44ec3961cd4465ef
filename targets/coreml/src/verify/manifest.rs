//! Rules about `Manifest.json`.

use std::path::{Component, Path};

use serde_json::Value;
use snapc_target::Finding;

use super::{Report, rules};
use crate::package::{DATA, MANIFEST, MODEL, WEIGHTS};

/// Larger manifests are refused unread.
const MAX_BYTES: u64 = 1 << 20;

/// Checks the manifest of the package at `root`, called `name` in findings.
pub(super) fn check(root: &Path, name: &str) -> Vec<Finding> {
    let mut report = Report::new(format!("{name}/{MANIFEST}"));
    match read(root) {
        Ok(manifest) => check_manifest(root, &manifest, &mut report),
        Err(problem) => report.add(rules::MANIFEST, "", problem),
    }
    report.findings
}

fn read(root: &Path) -> Result<Value, String> {
    let bytes = super::read(&root.join(MANIFEST), MAX_BYTES)?;
    serde_json::from_slice(&bytes).map_err(|e| format!("is no JSON: {e}"))
}

fn check_manifest(root: &Path, manifest: &Value, report: &mut Report) {
    if manifest["fileFormatVersion"] != "1.0.0" {
        let found = &manifest["fileFormatVersion"];
        report.add(
            rules::MANIFEST,
            "",
            format!("fileFormatVersion is {found}, not \"1.0.0\""),
        );
    }
    let Some(items) = manifest["itemInfoEntries"].as_object() else {
        report.add(rules::MANIFEST, "", "itemInfoEntries is missing");
        return;
    };
    for (id, item) in items {
        check_item(root, id, item, report);
    }
    match manifest["rootModelIdentifier"].as_str() {
        None => report.add(rules::MANIFEST, "", "rootModelIdentifier is missing"),
        Some(id) => {
            let found = items.get(id).map(|item| &item["path"]);
            if found.is_none_or(|path| path != MODEL) {
                report.add(
                    rules::MANIFEST_ROOT,
                    "",
                    format!("'{id}' is not the item of '{MODEL}'"),
                );
            }
        }
    }
    if !items.values().any(|item| item["path"] == WEIGHTS) {
        report.add(
            rules::MANIFEST_WEIGHTS,
            "",
            format!("no item has the path '{WEIGHTS}'"),
        );
    }
}

fn check_item(root: &Path, id: &str, item: &Value, report: &mut Report) {
    let place = format!("item '{id}'");
    for key in ["author", "description", "name", "path"] {
        if !item[key].is_string() {
            report.add(rules::MANIFEST_ITEM, &place, format!("'{key}' is missing"));
        }
    }
    let Some(path) = item["path"].as_str() else {
        return;
    };
    let inside = Path::new(path)
        .components()
        .all(|c| matches!(c, Component::Normal(_)));
    if !inside {
        report.add(
            rules::MANIFEST_ITEM,
            &place,
            format!("the path '{path}' leaves the package"),
        );
    } else if !root.join(DATA).join(path).exists() {
        report.add(
            rules::MANIFEST_ITEM,
            &place,
            format!("'{DATA}/{path}' does not exist"),
        );
    }
}
