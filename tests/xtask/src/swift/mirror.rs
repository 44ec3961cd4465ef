//! The mirror of Debian that the system's own apt uses.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Names the mirror where apt does not, as on a system that is no Debian.
const VARIABLE: &str = "SNAPC_DEBIAN_MIRROR";

/// Names of Debian's releases that do not change with time.
const STANDING: [&str; 5] = ["stable", "testing", "unstable", "sid", "oldstable"];

/// The mirror, or why there is none.
pub fn debian() -> Result<String, String> {
    if let Ok(mirror) = std::env::var(VARIABLE) {
        return Ok(mirror);
    }
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let release = variables(&release);
    let unknown = |what: &str| format!("{what}; name a mirror of Debian in {VARIABLE}");
    if release.get("ID").map(String::as_str) != Some("debian") {
        return Err(unknown(
            "this system is no Debian, whose mirror could be used",
        ));
    }
    let codename = release.get("VERSION_CODENAME").map(String::as_str);
    let suites: Vec<&str> = STANDING.into_iter().chain(codename).collect();
    let found = source_files().into_iter().find_map(|file| {
        let text = fs::read_to_string(&file).ok()?;
        match file.extension().is_some_and(|e| e == "sources") {
            true => of_stanzas(&text, &suites),
            false => of_lines(&text, &suites),
        }
    });
    found.ok_or_else(|| unknown("apt's sources name no mirror of Debian"))
}

/// The files of apt's sources.
fn source_files() -> Vec<PathBuf> {
    let folder = Path::new("/etc/apt/sources.list.d");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let listed = entries.map(|entry| entry.path());
    let mut listed: Vec<PathBuf> = listed
        .filter(|path| {
            path.extension()
                .is_some_and(|e| e == "sources" || e == "list")
        })
        .collect();
    listed.sort();
    listed.insert(0, PathBuf::from("/etc/apt/sources.list"));
    listed
}

/// The variables of os-release(5).
fn variables(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()));
    pairs.collect()
}

fn is_mirror(uri: &str) -> bool {
    uri.starts_with("http://") || uri.starts_with("https://")
}

/// The mirror in sources of one line each: `deb [options] URI SUITE COMPONENT…`, sources.list(5).
fn of_lines(text: &str, suites: &[&str]) -> Option<String> {
    let mut sources = text.lines().filter_map(|line| {
        let line = line.split('#').next()?.trim();
        let rest = line.strip_prefix("deb ")?.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        let fits = suites.contains(&suite) && words.any(|w| w == "main") && is_mirror(uri);
        fits.then(|| uri.to_owned())
    });
    sources.next()
}

/// The mirror in sources of stanzas with fields, the form of deb822(5).
fn of_stanzas(text: &str, suites: &[&str]) -> Option<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let lines: Vec<&str> = lines.collect();
    let mut stanzas = lines.split(|line| line.trim().is_empty()).map(fields);
    stanzas.find_map(|stanza| {
        let words = |field: &str| {
            let value = stanza.get(field).map_or("", String::as_str);
            value.split_whitespace()
        };
        let fits = words("types").any(|w| w == "deb")
            && words("suites").any(|w| suites.contains(&w))
            && words("components").any(|w| w == "main")
            && !words("enabled").any(|w| w == "no");
        let uri = words("uris").find(|uri| is_mirror(uri))?;
        fits.then(|| uri.to_owned())
    })
}

/// The fields of a stanza, their names in small letters.
fn fields(lines: &[&str]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let mut name = String::new();
    for line in lines {
        let value = match line.split_once(':') {
            Some((field, value)) if !line.starts_with([' ', '\t']) => {
                name = field.to_lowercase();
                value
            }
            _ => line,
        };
        let known: &mut String = fields.entry(name.clone()).or_default();
        known.push(' ');
        known.push_str(value);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_give_the_mirror_of_the_release() {
        let text = "\
# a comment
Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main

Types: deb deb-src
# another
URIs: cdrom://disk
  https://mirror.example/debian
suites: bookworm
 bookworm-updates
Components: main contrib
";
        let expected = Some("https://mirror.example/debian".to_owned());
        assert_eq!(of_stanzas(text, &["stable", "bookworm"]), expected);
        assert_eq!(of_stanzas(text, &["stable"]), None);
        let disabled = text.replace("Components: main c", "Enabled: no\nComponents: main c");
        assert_eq!(of_stanzas(&disabled, &["bookworm"]), None);
        let sources = text.replace("deb deb-src", "deb-src");
        assert_eq!(of_stanzas(&sources, &["bookworm"]), None);
    }

    #[test]
    fn lines_give_the_mirror_of_the_release() {
        let text = "\
deb-src http://source.example/debian bookworm main
# deb http://commented.example/debian bookworm main
deb https://packages.example/apt cloud main
deb http://contrib.example/debian bookworm contrib
deb [arch=amd64 signed-by=key] http://mirror.example/debian bookworm main # trailing
";
        let expected = Some("http://mirror.example/debian".to_owned());
        assert_eq!(of_lines(text, &["bookworm"]), expected);
        assert_eq!(of_lines(text, &["trixie"]), None);
    }

    #[test]
    fn the_release_is_read_with_and_without_quotes() {
        let release = variables("ID=debian\nVERSION_CODENAME=\"bookworm\"\n");
        assert_eq!(release["ID"], "debian");
        assert_eq!(release["VERSION_CODENAME"], "bookworm");
    }
}
