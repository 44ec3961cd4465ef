//! The text form of a graph, for dumps and for tests. It round-trips, but for the data of large weights:
//!
//! ```text
//! graph "unet" {
//!   %0 = input "sample" : f32[N,4,8,8]
//!   %1 = parameter "conv_in.weight" : f32[16,4,3,3]
//!   %2 = constant "half" : f32[] = [0.5]
//!   %3 = conv2d(%0, %1) {strides=[1,1], pads=[1,1,1,1], groups=1} : f32[N,16,8,8] "conv_in"
//!   output "out_sample" = %3
//! }
//! ```
//!
//! Values are numbered in order of definition. `;` starts a comment. Weights of up to [`INLINE_ELEMENTS`] elements show
//! their data; longer ones come back as absent.

mod lexer;
mod parse;
mod print;

pub use parse::{ParseError, parse};
pub use print::print;

/// Weights of at most this many elements are printed with their data.
pub const INLINE_ELEMENTS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Graph, Shape, TensorType};

    const EXAMPLE: &str = r#"graph "g" {
  %0 = input "x" : f32[N,4,8,8]
  %1 = parameter "w" : f32[16,4,3,3]
  %2 = constant "half" : f32[] = [0.5]
  %3 = conv2d(%0, %1) {strides=[1,1], pads=[1,1,1,1], groups=1} : f32[N,16,8,8] "conv"
  %4 = mul(%3, %2) : f32[N,16,8,8] "half"
  %5 = reshape(%4) {shape=[N,16,64]} : f32[N,16,64] "flat"
  %6 = cast(%5) {to=f16} : f16[N,16,64] "narrow"
  output "y" = %6
}
"#;

    #[test]
    fn text_round_trips() {
        let graph = parse(EXAMPLE).unwrap();
        assert_eq!(print(&graph), EXAMPLE);
    }

    #[test]
    fn integers_keep_all_their_digits() {
        let text = "graph \"g\" {\n  %0 = constant \"c\" : i64[2] = [9007199254740993,-1]\n  output \"c\" = %0\n}\n";
        assert_eq!(print(&parse(text).unwrap()), text);
        let fraction = parse(&text.replace("-1", "1.5")).unwrap_err();
        assert_eq!(
            fraction.to_string(),
            "line 2: expected a whole number, found 1.5"
        );
    }

    #[test]
    fn names_of_any_characters_round_trip() {
        // Quotes, controls, a combining accent, a direction mark, an unassigned code point, and the last of all.
        let name = "a\"b'c\\d\n\r\t\0\u{7f}\u{301}\u{200f}\u{378}\u{10ffff}é; {%1}";
        let mut graph = Graph::new(name);
        let ty = TensorType::new(DType::F32, Shape::batched(&[4]));
        let x = graph.input(name, ty);
        graph.output("y", x);
        let text = print(&graph);
        let back = parse(&text).unwrap();
        assert_eq!((back.name(), &*back.inputs()[0].name), (name, name));
        assert_eq!(print(&back), text);
    }

    #[test]
    fn escapes_that_rust_does_not_write_are_refused() {
        for escape in [
            "\\x41",
            "\\u41",
            "\\u{}",
            "\\u{+41}",
            "\\u{d800}",
            "\\u{110000}",
            "\\u{41",
        ] {
            let message = error("\"g\"", &format!("\"{escape}\""));
            assert!(message.starts_with("line 1: "), "{escape}: {message}");
        }
    }

    #[test]
    fn comments_and_blank_lines_are_skipped() {
        let text = EXAMPLE.replace("  %4", "\n  ; a comment\n  %4");
        assert_eq!(print(&parse(&text).unwrap()), EXAMPLE);
    }

    /// Replaces `from` by `to` in the example and gives the message.
    fn error(from: &str, to: &str) -> String {
        assert!(EXAMPLE.contains(from));
        parse(&EXAMPLE.replacen(from, to, 1))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let cases = [
            ("conv2d(", "conv9d(", "line 5: unknown operator 'conv9d'"),
            (", groups=1", "", "line 5: attribute 'groups' is missing"),
            (
                "groups=1",
                "groups=1.5",
                "line 5: attribute 'groups' must be an integer",
            ),
            ("mul(%3", "mul(%9", "line 6: %9 is not defined"),
            ("%4 =", "%7 =", "line 6: expected %4, found %7"),
            (
                "f16[N,16,64]",
                "f32[N,16,64]",
                "line 8: stated as f32[N,16,64] but is f16[N,16,64]",
            ),
            ("f32[N,4", "f8[N,4", "line 2: unknown element type 'f8'"),
            (
                "= [0.5]",
                "= [0.5, 1.0]",
                "line 4: f32[] has 1 elements, found 2",
            ),
            (
                "f32[16,4,3,3]",
                "f32[N,4,3,3]",
                "line 3: a weight has no batch dimension",
            ),
            (
                "f32[16,4,3,3]",
                "f32[99999999999999,99999999999]",
                "line 3: f32[99999999999999,99999999999] is too large",
            ),
            ("\n}", "\n", "line 10: expected '}', found the end"),
        ];
        for (from, to, expected) in cases {
            assert_eq!(error(from, to), expected);
        }
    }
}
