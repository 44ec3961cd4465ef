//! Image sizes on the command line.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Height and width in pixels, written `512` or `512x768`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let (height, width) = word.split_once('x').unwrap_or((word, word));
        let side = |s: &str| match s.parse::<usize>() {
            Ok(n) if n > 0 => Ok(n),
            _ => Err("expected a number of pixels such as 512, or HEIGHTxWIDTH such as 512x768"),
        };
        Ok(Size {
            height: side(height)?,
            width: side(width)?,
        })
    }
}

/// Several sizes, written `512,384x512`; each stands once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes(pub Vec<Size>);

impl FromStr for Sizes {
    type Err = String;

    fn from_str(list: &str) -> Result<Self, String> {
        let mut sizes: Vec<Size> = Vec::new();
        for word in list.split(',') {
            let size: Size = word.trim().parse()?;
            if sizes.contains(&size) {
                return Err(format!("{size} stands twice"));
            }
            sizes.push(size);
        }
        Ok(Sizes(sizes))
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, size) in self.0.iter().enumerate() {
            write!(f, "{}{size}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl Serialize for Sizes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sizes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number_or_word(deserializer, "a number of pixels or \"HEIGHTxWIDTH,…\"")
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.height, self.width)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number_or_word(deserializer, "a number of pixels or \"HEIGHTxWIDTH\"")
    }
}

/// What a settings file says as a number or as a word of the command line.
fn number_or_word<'de, D, T>(deserializer: D, expected: &'static str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = String>,
{
    struct Words<T>(&'static str, PhantomData<T>);

    impl<T: FromStr<Err = String>> Visitor<'_> for Words<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_i64<E: Error>(self, n: i64) -> Result<T, E> {
            n.to_string().parse().map_err(E::custom)
        }

        fn visit_str<E: Error>(self, word: &str) -> Result<T, E> {
            word.parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_any(Words(expected, PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_is_a_square() {
        let square = Size {
            height: 512,
            width: 512,
        };
        assert_eq!("512".parse(), Ok(square));
        let size: Size = "512x768".parse().unwrap();
        assert_eq!((size.height, size.width), (512, 768));
    }

    #[test]
    fn sizes_are_separated_by_commas() {
        let Sizes(sizes) = "512, 384x512".parse().unwrap();
        let sides: Vec<_> = sizes.iter().map(|s| (s.height, s.width)).collect();
        assert_eq!(sides, [(512, 512), (384, 512)]);
        assert_eq!(Sizes(sizes).to_string(), "512x512,384x512");
        for wrong in ["", "512,", "512,512x512", "512;384"] {
            assert!(wrong.parse::<Sizes>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn other_words_are_refused() {
        for word in ["", "x", "0", "512x", "512x0", "-8", "5e2", "1x2x3"] {
            assert!(word.parse::<Size>().is_err(), "{word}");
        }
    }

    #[test]
    fn settings_files_have_numbers_and_words() {
        #[derive(Deserialize)]
        struct Settings {
            size: Size,
            sizes: Sizes,
        }
        for (size, sizes) in [("512", "512"), ("\"512x512\"", "\"512\"")] {
            let text = format!("size = {size}\nsizes = {sizes}");
            let read: Settings = toml::from_str(&text).unwrap();
            assert_eq!(read.sizes, Sizes(vec![read.size]));
        }
        let refused = |text| toml::from_str::<Settings>(text).err().unwrap().to_string();
        assert!(refused("size = 0\nsizes = 1").contains("expected a number of pixels"));
        assert!(refused("size = 1\nsizes = [1]").contains("expected a number of pixels or"));
    }
}
