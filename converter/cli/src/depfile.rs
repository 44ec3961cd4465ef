//! Dependency files in Makefile syntax, for build systems that call snapc.

use std::path::{Path, PathBuf};

/// The rule `target: inputs`, one input a line, and for each input a rule of nothing: without it make would stop at the
/// first input that is gone, where it should convert again. Ninja and llbuild read over those.
pub fn rule(target: &Path, inputs: &[PathBuf]) -> Vec<u8> {
    let mut text = escape(target);
    text.push(b':');
    for input in inputs {
        text.extend(b" \\\n  ");
        text.extend(escape(input));
    }
    text.push(b'\n');
    for input in inputs {
        text.extend(escape(input));
        text.extend(b":\n");
    }
    text
}

/// A path as a Makefile word, as compilers write it: a backslash before spaces, tabs, `#` and `:`, which doubles the
/// backslashes before it; `$` is doubled.
fn escape(path: &Path) -> Vec<u8> {
    let mut word = Vec::new();
    let mut backslashes = 0;
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b' ' | b'\t' | b'#' | b':' => {
                word.extend(std::iter::repeat_n(b'\\', backslashes + 1));
            }
            b'$' => word.push(b'$'),
            _ => {}
        }
        word.push(byte);
        backslashes = if byte == b'\\' { backslashes + 1 } else { 0 };
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule_text(target: &str, inputs: &[&str]) -> String {
        let inputs: Vec<PathBuf> = inputs.iter().map(PathBuf::from).collect();
        String::from_utf8(rule(Path::new(target), &inputs)).unwrap()
    }

    #[test]
    fn inputs_that_may_go_have_rules() {
        let text = rule_text("out/snap.json", &["a", "b"]);
        assert_eq!(text, "out/snap.json: \\\n  a \\\n  b\na:\nb:\n");
    }

    // By the rules of the GNU make manual, "Using Wildcard Characters in File Names" and "Rule Syntax".
    #[test]
    fn words_are_escaped() {
        let text = rule_text("out put", &["a b", "c$d#", "e:f", "g\\h", "i\\ j"]);
        let words = ["a\\ b", "c$$d\\#", "e\\:f", "g\\h", "i\\\\\\ j"];
        let expected: String = words.iter().map(|w| format!("{w}:\n")).collect();
        assert_eq!(
            text,
            format!("out\\ put: \\\n  {}\n{expected}", words.join(" \\\n  "))
        );
    }
}
