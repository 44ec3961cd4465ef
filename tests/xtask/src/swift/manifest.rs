//! The manifest of the Swift package in artifacts: it has to be the repository's without tests, plugins and what stands in for
//! Apple's frameworks, and to fit the folder that it lies in. Manifests are what `swift package dump-package` gives.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};

/// What is compared of a manifest.
const KEYS: &[&str] = &[
    "name",
    "toolsVersion",
    "platforms",
    "dependencies",
    "products",
    "targets",
];

/// Checks the manifest in the folder of an artifact's package.
///
/// # Errors
/// When it is not what the repository's manifest asks for, or its targets are not the folders of `Sources`.
pub fn check(shipped: &Value, folder: &Path, repository: &Value) -> Result<()> {
    let expected = for_apps(repository)?;
    for (key, expected) in &expected {
        let found = &shipped[key];
        ensure!(
            found == expected,
            "the {key} of the artifacts' Package.swift are {found}, the repository's ask for {expected}"
        );
    }
    let targets = names(&expected["targets"]);
    let sources = folder.join("Sources");
    let folders = folders(&sources).with_context(|| format!("{}", sources.display()))?;
    ensure!(
        targets == folders,
        "the targets are {targets:?}, and Sources holds {folders:?}"
    );
    Ok(())
}

/// What apps need of a manifest: targets with sources in the usual place, and products that are no plugins.
fn for_apps(manifest: &Value) -> Result<Map<String, Value>> {
    let parts = KEYS.iter().map(|&key| {
        let part = manifest.get(key);
        let part = part.with_context(|| format!("the repository's Package.swift has no {key}"))?;
        Ok((key.to_owned(), part.clone()))
    });
    let mut parts = parts.collect::<Result<Map<String, Value>>>()?;
    if let Some(products) = parts["products"].as_array_mut() {
        products.retain(|product| product["type"].get("plugin").is_none());
    }
    if let Some(targets) = parts["targets"].as_array_mut() {
        targets.retain(|target| {
            let is_built = target["type"] == "regular" || target["type"] == "executable";
            is_built && target.get("path").is_none()
        });
    }
    let kept = names(&parts["targets"]);
    for target in parts["targets"].as_array_mut().into_iter().flatten() {
        if let Some(dependencies) = target["dependencies"].as_array_mut() {
            // Those that are left are on what stands in for a framework.
            dependencies.retain(|dependency| {
                let name = dependency["byName"][0].as_str();
                name.is_none_or(|name| kept.contains(name))
            });
        }
    }
    Ok(parts)
}

fn names(targets: &Value) -> BTreeSet<String> {
    let targets = targets.as_array().into_iter().flatten();
    let names = targets.filter_map(|target| target["name"].as_str());
    names.map(str::to_owned).collect()
}

fn folders(folder: &Path) -> std::io::Result<BTreeSet<String>> {
    let entries = fs::read_dir(folder)?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A package `P` whose target depends on what stands in for a framework.
    fn repository() -> Value {
        json!({
            "name": "P", "toolsVersion": {"_version": "5.9.0"}, "platforms": [{"platformName": "ios", "version": "16.0"}],
            "dependencies": [],
            "products": [
                {"name": "P", "targets": ["A"], "type": {"library": ["automatic"]}},
                {"name": "Plugin", "targets": ["Plugin"], "type": {"plugin": null}},
            ],
            "targets": [
                {"name": "A", "type": "regular", "dependencies": [{"byName": ["Core", null]}]},
                {"name": "ATests", "type": "test", "dependencies": [{"byName": ["A", null]}]},
                {"name": "Core", "type": "regular", "path": "TestSupport/Core", "dependencies": []},
                {"name": "Plugin", "type": "plugin", "dependencies": []},
            ],
        })
    }

    fn shipped() -> Value {
        let mut shipped = repository();
        shipped["targets"] = json!([{"name": "A", "type": "regular", "dependencies": []}]);
        shipped["products"] = json!([repository()["products"][0]]);
        shipped
    }

    #[test]
    fn artifacts_have_what_apps_need_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("snapc-manifest-{}", std::process::id()));
        fs::create_dir_all(folder.join("Sources/A")).unwrap();
        let check = |shipped: &Value| {
            let checked = super::check(shipped, &folder, &repository());
            checked.map_err(|error| format!("{error:#}"))
        };
        assert_eq!(check(&shipped()), Ok(()));
        let wrong = |key: &str, value: Value| {
            let mut manifest = shipped();
            manifest[key] = value;
            let error = check(&manifest).unwrap_err();
            assert!(error.starts_with(&format!("the {key} of ")), "{error}");
        };
        wrong("platforms", json!([]));
        wrong("products", repository()["products"].clone());
        wrong("targets", repository()["targets"].clone());
        fs::create_dir_all(folder.join("Sources/B")).unwrap();
        let error = check(&shipped()).unwrap_err();
        assert!(error.ends_with(r#"Sources holds {"A", "B"}"#), "{error}");
        fs::remove_dir_all(&folder).unwrap();
    }
}
