//! Where everything of a file stands, computed before any weight is made.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{PlanError, TableFault};
use crate::hash;
use crate::header::{ENTRY_LEN, HEADER_LEN};
use crate::limits::{
    MAX_METADATA, MAX_NAME, MAX_RANK, MAX_SECTIONS, MAX_TENSORS, MAX_VARIANTS, SEGMENT_ALIGN,
    SEGMENT_LIMIT, TENSOR_ALIGN, align_up,
};
use crate::section::{Section, SectionKind, Stage};
use crate::table::{check_variants, within};
use crate::tensor::{DType, LayoutId, Tensor, Variant};
use crate::{metadata, table};

/// A tensor that is to be written: its sizes, not its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPlan {
    name: String,
    shape: Vec<u64>,
    dtype: DType,
    base: LayoutId,
    packed: Vec<(LayoutId, DType, u64)>,
}

impl TensorPlan {
    /// A tensor in the canonical layout.
    pub fn new(name: impl Into<String>, shape: &[u64], dtype: DType) -> Self {
        TensorPlan {
            name: name.into(),
            shape: shape.to_vec(),
            dtype,
            base: LayoutId::CANONICAL,
            packed: Vec::new(),
        }
    }

    /// A tensor `[columns, depth…]` in [`LayoutId::PANELS`] and not in the canonical layout.
    pub fn panels(name: impl Into<String>, shape: &[u64], dtype: DType) -> Self {
        TensorPlan {
            base: LayoutId::PANELS,
            ..TensorPlan::new(name, shape, dtype)
        }
    }

    /// Adds a variant of `length` bytes in another layout. Variants are given by ascending layout.
    #[must_use]
    pub fn with_packed(mut self, layout: LayoutId, dtype: DType, length: u64) -> Self {
        self.packed.push((layout, dtype, length));
        self
    }

    /// The tensor with its variants at offset 0; the lengths are checked.
    fn tensor(&self) -> Result<Tensor, TableFault> {
        let n_variants = 1 + self.packed.len() as u64;
        within(
            "the length of a name",
            self.name.len() as u64,
            MAX_NAME as u64,
        )?;
        within(
            "the rank of a tensor",
            self.shape.len() as u64,
            MAX_RANK as u64,
        )?;
        within("the number of variants", n_variants, MAX_VARIANTS as u64)?;
        if self.name.is_empty() {
            return Err(TableFault::EmptyName(0));
        }
        let length = self.dtype.base_len(self.base, &self.shape).unwrap_or(0);
        let base = (self.base, self.dtype, length);
        let variants = std::iter::once(base).chain(self.packed.iter().copied());
        let variants = variants.map(|(layout, dtype, length)| Variant {
            dtype,
            layout,
            part: 0,
            offset: 0,
            length,
        });
        let tensor = Tensor {
            name: self.name.clone(),
            shape: self.shape.clone(),
            variants: variants.collect(),
        };
        check_variants(&tensor)?;
        Ok(tensor)
    }
}

/// The contents of a file that is to be written.
#[derive(Clone, Debug)]
pub struct Plan {
    program: Option<Vec<u8>>,
    tokenizer: Option<Vec<u8>>,
    schedule: Option<Vec<u8>>,
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<Stage, Vec<TensorPlan>>,
    segment_limit: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self::new()
    }
}

impl Plan {
    /// An empty file.
    pub fn new() -> Self {
        Plan {
            program: None,
            tokenizer: None,
            schedule: None,
            metadata: BTreeMap::new(),
            tensors: BTreeMap::new(),
            segment_limit: SEGMENT_LIMIT,
        }
    }

    /// Sets the compiled program.
    pub fn set_program(&mut self, bytes: Vec<u8>) {
        self.program = Some(bytes);
    }

    /// Sets the tables of the tokenizer.
    pub fn set_tokenizer(&mut self, bytes: Vec<u8>) {
        self.tokenizer = Some(bytes);
    }

    /// Sets the constants of the scheduler.
    pub fn set_schedule(&mut self, bytes: Vec<u8>) {
        self.schedule = Some(bytes);
    }

    /// Sets an entry of the metadata; a later value of the same key replaces it.
    pub fn set_metadata(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.metadata.insert(key.into(), value.into());
    }

    /// Sets the bytes after which a stage's weights go on in another segment; [`SEGMENT_LIMIT`] unless set.
    pub fn set_segment_limit(&mut self, bytes: u64) {
        self.segment_limit = bytes;
    }

    /// Adds a tensor. The variants of a stage stand in the file layout after layout, each in segments of its own, and those
    /// of a layout in the order of these calls, which is best the order of use.
    pub fn add_tensor(&mut self, stage: Stage, tensor: TensorPlan) {
        self.tensors.entry(stage).or_default().push(tensor);
    }

    /// Gives everything its place. The same plan always gives the same layout.
    ///
    /// # Errors
    /// When a tensor is there twice or breaks a rule of the format, when a count is over its limit, or when the sizes add
    /// up to more than 64 bits can say.
    pub fn layout(&self) -> Result<Layout, PlanError> {
        let mut small = self.small_sections()?;
        let mut segments = Vec::new();
        for (&stage, plans) in &self.tensors {
            let staged = StageLayout::new(stage, plans, self.segment_limit)?;
            small.push((
                SectionKind::TensorTable(stage),
                table::encode(&staged.sorted_tensors()),
            ));
            segments.push(staged);
        }
        let n_sections = small.len() + segments.iter().map(|s| s.parts.len()).sum::<usize>();
        limit("the number of sections", n_sections as u64, MAX_SECTIONS)?;

        let mut sections = Vec::with_capacity(n_sections);
        let mut prefix = vec![0; HEADER_LEN + n_sections * ENTRY_LEN];
        let mut end = align_up(prefix.len() as u64, SEGMENT_ALIGN).ok_or(PlanError::TooLong)?;
        for (kind, bytes) in &small {
            prefix.resize(end as usize, 0);
            prefix.extend_from_slice(bytes);
            let mut section = section(*kind, end, bytes.len() as u64);
            section.hash = hash::of_bytes(bytes);
            end = padded_end(&section)?;
            sections.push(section);
        }
        let mut placements = Vec::new();
        for staged in &segments {
            let first = sections.len();
            for (part, &length) in staged.parts.iter().enumerate() {
                let part = part as u16;
                let stage = staged.stage;
                let section = section(SectionKind::Weights { stage, part }, end, length);
                end = padded_end(&section)?;
                sections.push(section);
            }
            placements.extend(staged.placements(&sections[first..]));
        }
        Ok(Layout {
            prefix,
            sections,
            placements,
            len: end,
        })
    }

    fn small_sections(&self) -> Result<Vec<(SectionKind, Vec<u8>)>, PlanError> {
        limit(
            "the number of metadata entries",
            self.metadata.len() as u64,
            MAX_METADATA,
        )?;
        for (key, value) in &self.metadata {
            metadata::check_entry(key.len(), value.len()).map_err(|fault| match fault {
                TableFault::Limit { what, value, limit } => PlanError::Limit { what, value, limit },
                _ => PlanError::TooLong,
            })?;
        }
        let mut sections = Vec::new();
        let mut add = |kind, bytes: &Option<Vec<u8>>| {
            sections.extend(bytes.clone().map(|b| (kind, b)));
        };
        add(SectionKind::Program, &self.program);
        add(SectionKind::Schedule, &self.schedule);
        add(SectionKind::Tokenizer, &self.tokenizer);
        if !self.metadata.is_empty() {
            let bytes = metadata::encode(&self.metadata);
            add(SectionKind::Metadata, &Some(bytes));
        }
        Ok(sections)
    }
}

fn limit(what: &'static str, value: u64, limit: u64) -> Result<(), PlanError> {
    if value <= limit {
        return Ok(());
    }
    Err(PlanError::Limit { what, value, limit })
}

fn section(kind: SectionKind, offset: u64, length: u64) -> Section {
    Section {
        id: kind.id(),
        critical: kind.is_critical(),
        alignment: SEGMENT_ALIGN as u32,
        offset,
        length,
        hash: [0; 32],
    }
}

fn padded_end(section: &Section) -> Result<u64, PlanError> {
    let end = section.offset.checked_add(section.length);
    end.and_then(|e| align_up(e, SEGMENT_ALIGN))
        .ok_or(PlanError::TooLong)
}

/// The segments of a stage.
struct StageLayout {
    stage: Stage,
    /// In the order of the plan.
    tensors: Vec<Tensor>,
    /// Bytes of each segment.
    parts: Vec<u64>,
}

impl StageLayout {
    fn new(stage: Stage, plans: &[TensorPlan], segment_limit: u64) -> Result<Self, PlanError> {
        limit("the number of tensors", plans.len() as u64, MAX_TENSORS)?;
        let mut names = BTreeSet::new();
        let mut tensors = Vec::with_capacity(plans.len());
        for plan in plans {
            let name = || plan.name.clone();
            if !names.insert(plan.name.as_str()) {
                return Err(PlanError::RepeatedTensor {
                    stage,
                    name: name(),
                });
            }
            let tensor = plan.tensor().map_err(|fault| PlanError::Tensor {
                stage,
                name: name(),
                fault,
            })?;
            tensors.push(tensor);
        }
        let variants = tensors.iter().flat_map(|t| &t.variants);
        let layouts: BTreeSet<LayoutId> = variants.map(|v| v.layout).collect();
        let mut parts: Vec<u64> = Vec::new();
        for layout in layouts {
            // No two layouts share a segment, so that a reader can leave those alone that it does not use.
            let mut fresh = true;
            let variants = tensors.iter_mut().flat_map(|t| &mut t.variants);
            for variant in variants.filter(|v| v.layout == layout) {
                let used = parts.last().copied().filter(|_| !fresh).unwrap_or(0);
                let mut offset = align_up(used, TENSOR_ALIGN).ok_or(PlanError::TooLong)?;
                let end = offset
                    .checked_add(variant.length)
                    .ok_or(PlanError::TooLong)?;
                if fresh || end > segment_limit {
                    parts.push(0);
                    offset = 0;
                    fresh = false;
                }
                limit("the number of segments", parts.len() as u64, MAX_SECTIONS)?;
                let part = parts.len() - 1;
                variant.part = part as u16;
                variant.offset = offset;
                parts[part] = offset + variant.length;
            }
        }
        Ok(StageLayout {
            stage,
            tensors,
            parts,
        })
    }

    fn sorted_tensors(&self) -> Vec<Tensor> {
        let mut sorted = self.tensors.clone();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        sorted
    }

    /// The tensors' variants by ascending offset; `segments` are the sections of `parts`.
    fn placements(&self, segments: &[Section]) -> Vec<Placement> {
        let mut placements: Vec<Placement> = Vec::new();
        for tensor in &self.tensors {
            placements.extend(tensor.variants.iter().map(|variant| Placement {
                stage: self.stage,
                name: tensor.name.clone(),
                layout: variant.layout,
                offset: segments[usize::from(variant.part)].offset + variant.offset,
                length: variant.length,
            }));
        }
        placements.sort_by_key(|p| p.offset);
        placements
    }
}

/// The place of a tensor's variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The stage.
    pub stage: Stage,
    /// The tensor.
    pub name: String,
    /// The variant.
    pub layout: LayoutId,
    /// First byte in the file.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// The places of everything in a file.
///
/// The file is [`Layout::prefix`] at byte 0, the weights at their [`Layout::placements`], and zeros elsewhere up to
/// [`Layout::len`]; then [`Layout::seal`] makes it valid. [`Layout::write`] does all of that in one go for a caller that
/// has no writer of its own.
#[derive(Clone, Debug)]
pub struct Layout {
    pub(crate) prefix: Vec<u8>,
    /// In the order of the file; the hashes of the weights are still zero.
    pub(crate) sections: Vec<Section>,
    pub(crate) placements: Vec<Placement>,
    pub(crate) len: u64,
}

impl Layout {
    /// Everything in front of the weights. Header and table of contents are zeros until the file is sealed, so that a file
    /// that is not finished is not taken for one.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// The weights by ascending offset.
    pub fn placements(&self) -> &[Placement] {
        &self.placements
    }

    /// Bytes of the file, a multiple of [`SEGMENT_ALIGN`].
    #[expect(clippy::len_without_is_empty, reason = "a file is never empty")]
    pub fn len(&self) -> u64 {
        self.len
    }
}
