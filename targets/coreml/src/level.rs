//! The versions of the format that packages are written for.

use std::fmt;

use snapc_target::{EmitOptions, IOS_VERSIONS, TargetError, alternatives};

/// An iOS release and the format version and operation set it brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// iOS 16, macOS 13: f16 features.
    Ios16,
    /// iOS 17, macOS 14: parameters of another float type than the operand's.
    Ios17,
    /// iOS 18, macOS 15: `scaled_dot_product_attention`.
    Ios18,
    /// iOS 26, macOS 26: no operation that the levels before lack.
    Ios26,
}

impl Level {
    /// Every level, oldest first.
    pub const ALL: [Level; 4] = [Level::Ios16, Level::Ios17, Level::Ios18, Level::Ios26];

    /// The major version of iOS.
    pub fn ios(self) -> u32 {
        match self {
            Level::Ios16 => 16,
            Level::Ios17 => 17,
            Level::Ios18 => 18,
            Level::Ios26 => 26,
        }
    }

    /// `specificationVersion` of the model.
    pub fn specification(self) -> i32 {
        match self {
            Level::Ios16 => 7,
            Level::Ios17 => 8,
            Level::Ios18 => 9,
            Level::Ios26 => 10,
        }
    }

    /// Name of the operation set.
    pub fn opset(self) -> &'static str {
        match self {
            Level::Ios16 => "CoreML6",
            Level::Ios17 => "CoreML7",
            Level::Ios18 => "CoreML8",
            Level::Ios26 => "CoreML9",
        }
    }

    /// The level of a `specificationVersion`.
    pub fn of_specification(version: i32) -> Option<Level> {
        Level::ALL
            .into_iter()
            .find(|l| l.specification() == version)
    }

    /// The level when no version of iOS is asked for: the first on which the Neural Engine decompresses weights as it
    /// needs them.
    pub const DEFAULT: Level = Level::Ios17;

    /// The level of `--min-ios`.
    ///
    /// # Errors
    /// For a version without a level of its own.
    pub fn of(options: &EmitOptions) -> Result<Level, TargetError> {
        let Some(version) = options.min_ios else {
            return Ok(Level::DEFAULT);
        };
        let found = Level::ALL.into_iter().find(|l| l.ios() == version);
        found.ok_or_else(|| TargetError::Option {
            option: "--min-ios",
            reason: format!(
                "iOS {version} has no package format here; choose {}",
                alternatives(&IOS_VERSIONS)
            ),
        })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "iOS {} ({})", self.ios(), self.opset())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_pair_versions_as_the_format_does() {
        let pairs: Vec<_> = Level::ALL
            .map(|l| (l.ios(), l.specification(), l.opset()))
            .to_vec();
        assert_eq!(
            pairs,
            [
                (16, 7, "CoreML6"),
                (17, 8, "CoreML7"),
                (18, 9, "CoreML8"),
                (26, 10, "CoreML9")
            ]
        );
        assert_eq!(Level::ALL.map(Level::ios), IOS_VERSIONS);
        assert_eq!(Level::of_specification(9), Some(Level::Ios18));
        assert_eq!(Level::of_specification(6), None);
        let old = EmitOptions {
            min_ios: Some(15),
            ..EmitOptions::default()
        };
        let error = Level::of(&old).unwrap_err().to_string();
        assert!(error.contains("choose 16, 17, 18 or 26"), "{error}");
    }
}
