//! What a pipeline needs besides its networks: the sections with tokenizer and schedule.

use snapc_format::wire::{put_u16, put_u32, put_u64};
use snapc_pipeline::{
    BetaSchedule, PredictionType, SchedulerConfig, TimestepSpacing, Tokenizer, TokenizerError,
};

use crate::codes::Coded;
use crate::decode::{DecodeError, Reader};
use crate::encode::put_f32;
use crate::program::VERSION;

/// Names of the tensors of the text encoder's stage that keep a prompt whose encoding is known: token ids i32 `[tokens]`, and
/// f32 `[values]`, what the text encoder gives for them. They are no weights of a program.
pub const KNOWN_PROMPT: [&str; 2] = ["known_prompt:input_ids", "known_prompt:values"];

/// Tokens of a sequence; CLIP has 77.
const MAX_LENGTH: usize = 65_536;

/// Steps of a noise schedule, which a run makes a table of; Stable Diffusion has 1,000.
const MAX_TRAIN_STEPS: usize = 100_000;

/// The tokenizer section. The vocabulary follows from the merges (see [`Tokenizer::new`]), so only these are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerData {
    /// Id of the padding token.
    pub pad: u32,
    /// Tokens of a sequence.
    pub length: u32,
    /// The bytes of `merges.txt`.
    pub merges: Vec<u8>,
}

impl TokenizerData {
    /// The bytes of the section.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u16(&mut out, VERSION);
        put_u32(&mut out, self.pad);
        put_u32(&mut out, self.length);
        out.extend_from_slice(&self.merges);
        out
    }

    /// Reads the bytes of the section; [`TokenizerData::tokenizer`] checks the merges.
    ///
    /// # Errors
    /// When they are cut, of another version, or have a length that is over the limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes)?;
        let pad = reader.cursor.u32()?;
        let length = reader.count("length of a sequence", MAX_LENGTH)? as u32;
        let rest = reader.cursor.remaining();
        let merges = reader.cursor.bytes(rest)?.to_vec();
        Ok(TokenizerData {
            pad,
            length,
            merges,
        })
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// As [`Tokenizer::new`].
    pub fn tokenizer(&self) -> Result<Tokenizer, TokenizerError> {
        Tokenizer::new(&self.merges, self.pad, self.length as usize)
    }
}

/// The schedule section: the noise schedule and what the model was made for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScheduleData {
    /// The checkpoint's noise schedule.
    pub scheduler: SchedulerConfig,
    /// What the decoder's input is divided by (0.18215 for SD v1.x).
    pub scaling_factor: f32,
    /// Steps that a run takes unless told otherwise.
    pub steps: u32,
    /// Guidance scale of a run unless told otherwise.
    pub guidance: f32,
}

impl ScheduleData {
    /// The bytes of the section.
    pub fn encode(&self) -> Vec<u8> {
        let SchedulerConfig {
            train_steps,
            beta_start,
            beta_end,
            beta_schedule,
            prediction_type,
            timestep_spacing,
            steps_offset,
            set_alpha_to_one,
        } = self.scheduler;
        let mut out = Vec::new();
        put_u16(&mut out, VERSION);
        // Numbers beyond 32 bits are over the limits of the reader in any case.
        put_u32(&mut out, u32::try_from(train_steps).unwrap_or(u32::MAX));
        put_u64(&mut out, beta_start.to_bits());
        put_u64(&mut out, beta_end.to_bits());
        out.extend([
            beta_schedule.code(),
            prediction_type.code(),
            timestep_spacing.code(),
            u8::from(set_alpha_to_one),
        ]);
        put_u32(&mut out, u32::try_from(steps_offset).unwrap_or(u32::MAX));
        put_f32(&mut out, self.scaling_factor);
        put_u32(&mut out, self.steps);
        put_f32(&mut out, self.guidance);
        out
    }

    /// Reads the bytes of the section.
    ///
    /// # Errors
    /// When they are cut, of another version, or a number is one that no schedule has.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes)?;
        let train_steps = reader.count("number of training steps", MAX_TRAIN_STEPS)?;
        let (beta_start, beta_end) = (reader.f64()?, reader.f64()?);
        let beta_schedule = reader.coded()?;
        let prediction_type = reader.coded()?;
        let timestep_spacing = reader.coded()?;
        let set_alpha_to_one = reader.bool()?;
        let steps_offset = reader.count("offset of the steps", MAX_TRAIN_STEPS)?;
        let scaling_factor = reader.f32()?;
        let steps = reader.count("number of steps", train_steps)? as u32;
        let guidance = reader.f32()?;
        reader.end()?;
        let variance = |beta: f64| beta > 0.0 && beta < 1.0;
        let between = "between 0 and 1";
        check("first beta", beta_start, variance(beta_start), between)?;
        check("last beta", beta_end, variance(beta_end), between)?;
        let usable = scaling_factor > 0.0 && scaling_factor.is_finite();
        let factor = f64::from(scaling_factor);
        check("scaling factor", factor, usable, "positive")?;
        let finite = guidance.is_finite();
        check("guidance", f64::from(guidance), finite, "finite")?;
        check("number of steps", steps.into(), steps > 0, "at least 1")?;
        Ok(ScheduleData {
            scheduler: SchedulerConfig {
                train_steps,
                beta_start,
                beta_end,
                beta_schedule,
                prediction_type,
                timestep_spacing,
                steps_offset,
                set_alpha_to_one,
            },
            scaling_factor,
            steps,
            guidance,
        })
    }
}

fn check(
    what: &'static str,
    value: f64,
    fits: bool,
    expected: &'static str,
) -> Result<(), DecodeError> {
    if fits {
        return Ok(());
    }
    Err(DecodeError::Value {
        what,
        value,
        expected,
    })
}

impl Coded for BetaSchedule {
    const WHAT: &'static str = "beta schedule";
    const ALL: &'static [Self] = &[BetaSchedule::Linear, BetaSchedule::ScaledLinear];
}

impl Coded for PredictionType {
    const WHAT: &'static str = "prediction type";
    const ALL: &'static [Self] = &[PredictionType::Epsilon, PredictionType::VPrediction];
}

impl Coded for TimestepSpacing {
    const WHAT: &'static str = "timestep spacing";
    const ALL: &'static [Self] = &[TimestepSpacing::Leading, TimestepSpacing::Trailing];
}
