//! What a checkpoint says about itself: a model card, or the header of a single file.

use std::collections::HashMap;

use snapc_ir::About;

/// Statements, with the sources of those that cannot be taken as notes for the user.
#[derive(Debug, Default)]
pub(crate) struct Statements {
    pub(crate) about: About,
    pub(crate) notes: Vec<String>,
}

impl Statements {
    fn take(&mut self, source: &str, text: Option<&str>) -> Option<String> {
        match About::statement(text?) {
            Ok(statement) => statement,
            Err(error) => {
                self.notes
                    .push(format!("{source} is left out of the artifact: {error}"));
                None
            }
        }
    }
}

/// The keys `modelspec.*` of a safetensors header (Stability AI's ModelSpec 1.0).
pub(crate) fn of_header(header: &HashMap<String, String>) -> Statements {
    let mut statements = Statements::default();
    let mut stated = |key: &str| {
        let key = format!("modelspec.{key}");
        let text = header.get(&key).map(String::as_str);
        statements.take(&format!("'{key}' of the checkpoint"), text)
    };
    let (title, description) = (stated("title"), stated("description"));
    let about = About {
        description: match (title, description) {
            (Some(title), Some(description)) => Some(format!("{title}: {description}")),
            (title, description) => title.or(description),
        },
        author: stated("author"),
        license: stated("license"),
        version: None,
    };
    statements.about = about;
    statements
}

/// The front matter of a model card (`README.md` of a pipeline on the hub), which names the licence.
pub(crate) fn of_model_card(card: &str) -> Statements {
    let mut statements = Statements::default();
    let license = front_matter(card, "license");
    // A licence of its own has its name beside it.
    let license = match license {
        Some("other") => front_matter(card, "license_name").or(license),
        license => license,
    };
    statements.about.license = statements.take("'license' of README.md", license);
    statements
}

/// The value of a key whose value stands behind it, in the YAML between the first two lines `---`.
fn front_matter<'a>(card: &'a str, key: &str) -> Option<&'a str> {
    let mut lines = card.lines().map(str::trim_end);
    if lines.next()? != "---" {
        return None;
    }
    let value = lines
        .take_while(|line| *line != "---")
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let quoted = |quote| Some(value.trim().strip_prefix(quote)?.split_once(quote)?.0);
    // Behind a value that is not quoted, a blank and `#` begin a comment.
    let plain = || value.split(" #").next().map(str::trim);
    quoted('"').or_else(|| quoted('\'')).or_else(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_states_title_author_and_licence() {
        let header = [
            ("modelspec.sai_model_spec", "1.0.0"),
            ("modelspec.title", "Fox"),
            ("modelspec.description", "draws\nfoxes"),
            ("modelspec.author", "A. Fox"),
            ("modelspec.license", " "),
        ];
        let header = header.map(|(k, v)| (k.to_owned(), v.to_owned()));
        let Statements { about, notes } = of_header(&header.into());
        assert_eq!(about.description.as_deref(), Some("Fox: draws foxes"));
        assert_eq!(about.author.as_deref(), Some("A. Fox"));
        assert_eq!((about.license, about.version), (None, None));
        assert!(notes.is_empty(), "{notes:?}");
    }

    #[test]
    fn statements_that_are_no_paragraph_are_left_out_and_told() {
        let header = [("modelspec.author".to_owned(), "a ".repeat(2000))];
        let Statements { about, notes } = of_header(&header.into());
        assert_eq!(about, About::default());
        let note = "'modelspec.author' of the checkpoint is left out of the artifact: it has 3999 characters, 2000 at most";
        assert_eq!(notes, [note]);
    }

    #[test]
    fn a_model_card_names_the_licence() {
        let license = |card: &str| of_model_card(card).about.license;
        let card = "---\r\nlicense: creativeml-openrail-m\r\ntags:\r\n- x\r\n---\r\n# Fox\r\n";
        assert_eq!(license(card).as_deref(), Some("creativeml-openrail-m"));
        let own = "---\nlicense: other\nlicense_name: \"fox licence\"\n---\n";
        assert_eq!(license(own).as_deref(), Some("fox licence"));
        assert_eq!(license("---\nlicense: 'mit'\n").as_deref(), Some("mit"));
        for commented in [
            "license: mit # as upstream",
            "license: \"mit\" # as upstream",
        ] {
            let card = format!("---\n{commented}\n---\n");
            assert_eq!(license(&card).as_deref(), Some("mit"), "{commented}");
        }
        for none in [
            "",
            "license: mit",
            "---\ntags: x\n---\nlicense: mit",
            "---\nlicense:\n---",
            "---\nlicense: # not known\n---",
        ] {
            assert_eq!(license(none), None, "{none:?}");
        }
    }
}
