//! Parameters that are known when the program is read: axes, sizes, truth values, words.

use snapc_ir::LazyTensor;

use super::builder::Entry;
use super::call::{Call, missing};
use super::error::Fault;

impl Call<'_> {
    /// The data of a parameter that is known when the program is read.
    fn data(&mut self, parameter: &str) -> Result<Option<LazyTensor>, Fault> {
        match self.entry(parameter)? {
            None => Ok(None),
            Some((_, Entry::Constant(constant))) => constant.tensor().map(Some),
            Some((_, Entry::Value(value))) => match self.builder.data(value) {
                Some(data) => Ok(Some(data.clone())),
                None => Err(Fault::unsupported(format!(
                    "'{parameter}' is computed; convert with fixed shapes"
                ))),
            },
            Some(_) => Err(Fault::malformed(format!("'{parameter}' is no number"))),
        }
    }

    /// An integer vector; a scalar counts as a vector of one.
    ///
    /// # Errors
    /// When it is computed, or not of integers.
    pub(super) fn optional_ints(&mut self, parameter: &str) -> Result<Option<Vec<i64>>, Fault> {
        let Some(data) = self.data(parameter)? else {
            return Ok(None);
        };
        if data.dtype().is_float() || data.shape().len() > 1 {
            return Err(Fault::malformed(format!(
                "'{parameter}' is no integer vector"
            )));
        }
        Ok(Some(data.to_i64()?))
    }

    /// As [`Call::optional_ints`], of a parameter that must be given.
    ///
    /// # Errors
    /// As there, and when it is missing.
    pub(super) fn ints(&mut self, parameter: &str) -> Result<Vec<i64>, Fault> {
        let ints = self.optional_ints(parameter)?;
        ints.ok_or_else(|| missing(parameter))
    }

    /// An integer.
    ///
    /// # Errors
    /// When it is computed, or not one integer.
    pub(super) fn optional_int(&mut self, parameter: &str) -> Result<Option<i64>, Fault> {
        match self.optional_ints(parameter)?.as_deref() {
            None => Ok(None),
            Some(&[value]) => Ok(Some(value)),
            Some(_) => Err(Fault::malformed(format!(
                "'{parameter}' is not one integer"
            ))),
        }
    }

    /// Truth values, all false when they are not given.
    ///
    /// # Errors
    /// When they are computed, or not `count`.
    pub(super) fn flags(&mut self, parameter: &str, count: usize) -> Result<Vec<bool>, Fault> {
        match self.optional_ints(parameter)? {
            None => Ok(vec![false; count]),
            Some(flags) if flags.len() == count => Ok(flags.iter().map(|&f| f != 0).collect()),
            Some(flags) => Err(Fault::malformed(format!(
                "'{parameter}' has {} elements, not {count}",
                flags.len()
            ))),
        }
    }

    /// A truth value, `default` when it is not given.
    ///
    /// # Errors
    /// When it is computed, or not one truth value.
    pub(super) fn flag_or(&mut self, parameter: &str, default: bool) -> Result<bool, Fault> {
        Ok(self.optional_int(parameter)?.map_or(default, |f| f != 0))
    }

    /// A number, `default` when it is not given.
    ///
    /// # Errors
    /// When it is computed, or not one number.
    pub(super) fn float_or(&mut self, parameter: &str, default: f32) -> Result<f32, Fault> {
        match self.data(parameter)? {
            None => Ok(default),
            Some(data) if data.elements() == 1 => Ok(data.to_f32()?[0]),
            Some(_) => Err(Fault::malformed(format!("'{parameter}' is not one number"))),
        }
    }

    /// A string.
    ///
    /// # Errors
    /// When it is missing or no string.
    pub(super) fn word(&mut self, parameter: &str) -> Result<String, Fault> {
        let word = self.optional_word(parameter)?;
        word.ok_or_else(|| missing(parameter))
    }

    /// A string that may be left out.
    ///
    /// # Errors
    /// When it is no string.
    pub(super) fn optional_word(&mut self, parameter: &str) -> Result<Option<String>, Fault> {
        match self.entry(parameter)? {
            None => Ok(None),
            Some((_, Entry::Word(word))) => Ok(Some(word)),
            Some(_) => Err(Fault::malformed(format!("'{parameter}' is no string"))),
        }
    }

    /// An axis of a value of `rank` dimensions; negative ones count from the end.
    ///
    /// # Errors
    /// When it is computed or outside.
    pub(super) fn axis_or(
        &mut self,
        parameter: &str,
        rank: usize,
        default: i64,
    ) -> Result<usize, Fault> {
        let axis = self.optional_int(parameter)?.unwrap_or(default);
        position(axis, rank)
    }

    /// Axes of a value of `rank` dimensions, ascending.
    ///
    /// # Errors
    /// When they are computed, outside or given twice.
    pub(super) fn optional_axes(
        &mut self,
        parameter: &str,
        rank: usize,
    ) -> Result<Option<Vec<usize>>, Fault> {
        let Some(axes) = self.optional_ints(parameter)? else {
            return Ok(None);
        };
        let axes = axes.into_iter().map(|a| position(a, rank));
        let mut axes = axes.collect::<Result<Vec<_>, _>>()?;
        axes.sort_unstable();
        if axes.windows(2).any(|w| w[0] == w[1]) {
            return Err(Fault::malformed(format!(
                "'{parameter}' names an axis twice"
            )));
        }
        Ok(Some(axes))
    }
}

/// The position that an axis means, counted from the end when it is negative.
pub(super) fn position(axis: i64, rank: usize) -> Result<usize, Fault> {
    let position = match axis {
        0.. => usize::try_from(axis).ok(),
        _ => usize::try_from(axis.unsigned_abs())
            .ok()
            .and_then(|back| rank.checked_sub(back)),
    };
    let position = position.filter(|p| *p < rank);
    position.ok_or_else(|| Fault::malformed(format!("axis {axis} is outside of {rank} dimensions")))
}
