//! Reading a file whose every byte may be wrong.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::error::{FormatError, Problem, TableFault};
use crate::hash;
use crate::header::{self, Contents, Version};
use crate::limits::{MAX_SEGMENT_ALIGN, SEGMENT_ALIGN, align_up};
use crate::mmap::map_file;
use crate::section::{Section, SectionId, SectionKind, Stage};
use crate::tensor::{DType, LayoutId, PANEL_WIDTH, Tensor, Variant};
use crate::{metadata, table};

/// The bytes of a file, mapped or in memory.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// An open file.
///
/// Opening checks everything but the weights themselves: header, table of contents, places of the sections, padding
/// between them, and the hashes and contents of all small sections. [`Container::verify`] checks the weights, which takes
/// about a second for 2 GB and is worth doing once after a download.
#[derive(Clone)]
pub struct Container {
    name: String,
    bytes: SharedBytes,
    version: Version,
    sections: Vec<Section>,
    /// Positions in `sections` of those that this version knows.
    known: BTreeMap<SectionKind, usize>,
    metadata: BTreeMap<String, String>,
    stages: BTreeMap<Stage, Weights>,
}

/// The weights of a stage.
#[derive(Clone, Debug)]
struct Weights {
    /// By ascending name.
    tensors: Vec<Tensor>,
    /// First byte of each segment in the file.
    segments: Vec<u64>,
    /// Bytes of the file between tensors.
    padding: Vec<Range<u64>>,
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("sections", &self.sections)
            .finish_non_exhaustive()
    }
}

impl Container {
    /// Maps a file and opens it. The file must not be changed or truncated while the container or a clone of it lives;
    /// renaming another file over it is harmless.
    ///
    /// # Errors
    /// When the file cannot be mapped, is not a `.snap` file of this major version, is truncated or damaged outside its
    /// weights, or needs a newer reader.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let name = path.display().to_string();
        match map_file(path) {
            Ok(map) => Self::from_bytes(name, Arc::new(map)),
            Err(error) => Err(FormatError {
                file: name,
                problem: Problem::Io(error),
            }),
        }
    }

    /// Opens a file that is in memory; `name` stands for it in errors. Tensors are aligned to 64 bytes only where the
    /// bytes themselves are.
    ///
    /// # Errors
    /// As [`Container::open`].
    pub fn from_bytes(name: impl Into<String>, bytes: SharedBytes) -> Result<Self, FormatError> {
        let name = name.into();
        Self::parse(name.clone(), bytes).map_err(|problem| FormatError {
            file: name,
            problem,
        })
    }

    fn parse(name: String, bytes: SharedBytes) -> Result<Self, Problem> {
        let file: &[u8] = (*bytes).as_ref();
        let Contents {
            version,
            sections,
            end,
        } = header::parse(file)?;
        check_places(file, &sections, end)?;
        let known = known_sections(&sections)?;

        let mut opened = BTreeMap::new();
        for (&kind, &index) in known.iter().filter(|(k, _)| !k.is_weights()) {
            let section = &sections[index];
            let content = content(file, section);
            if hash::of_bytes(content) != section.hash {
                return Err(Problem::SectionHash {
                    section: section.id,
                });
            }
            opened.insert(kind, content);
        }
        let fault = |kind: SectionKind| {
            move |fault: TableFault| Problem::Table {
                section: kind.id(),
                fault,
            }
        };
        let metadata = match opened.get(&SectionKind::Metadata) {
            Some(content) => metadata::parse(content).map_err(fault(SectionKind::Metadata))?,
            None => BTreeMap::new(),
        };
        let mut stages = BTreeMap::new();
        for stage in Stage::ALL {
            let segments = stage_segments(&sections, &known, stage)?;
            let kind = SectionKind::TensorTable(stage);
            match opened.get(&kind) {
                Some(content) => {
                    let weights = Weights::parse(content, &segments).map_err(fault(kind))?;
                    stages.insert(stage, weights);
                }
                None if segments.is_empty() => {}
                None => return Err(Problem::Missing { section: kind.id() }),
            }
        }
        Ok(Container {
            name,
            bytes,
            version,
            sections,
            known,
            metadata,
            stages,
        })
    }

    /// Version of the file; its minor number may be newer than this crate's.
    pub fn version(&self) -> Version {
        self.version
    }

    /// All sections in the order of the file, also those that were skipped.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The compiled program.
    ///
    /// # Errors
    /// When the file has none.
    pub fn program(&self) -> Result<&[u8], FormatError> {
        self.section(SectionKind::Program)
    }

    /// The tables of the tokenizer.
    ///
    /// # Errors
    /// When the file has none.
    pub fn tokenizer(&self) -> Result<&[u8], FormatError> {
        self.section(SectionKind::Tokenizer)
    }

    /// The constants of the scheduler.
    ///
    /// # Errors
    /// When the file has none.
    pub fn schedule(&self) -> Result<&[u8], FormatError> {
        self.section(SectionKind::Schedule)
    }

    /// The metadata; empty when the file has none.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The stages that have a tensor table, in the order of a run.
    pub fn stages(&self) -> impl Iterator<Item = Stage> + '_ {
        self.stages.keys().copied()
    }

    /// The tensors of a stage by ascending name; none when the file has no table for it.
    pub fn tensors(&self, stage: Stage) -> impl Iterator<Item = TensorView<'_>> {
        let weights = self.stages.get(&stage);
        weights.into_iter().flat_map(|weights| {
            let views = weights.tensors.iter();
            views.map(|tensor| self.view(weights, tensor))
        })
    }

    /// A tensor by its name.
    ///
    /// # Errors
    /// When the stage has no such tensor.
    pub fn tensor(&self, stage: Stage, name: &str) -> Result<TensorView<'_>, FormatError> {
        let found = self.stages.get(&stage).and_then(|weights| {
            let position = weights
                .tensors
                .binary_search_by(|t| t.name.as_str().cmp(name));
            Some(self.view(weights, &weights.tensors[position.ok()?]))
        });
        found.ok_or_else(|| {
            self.error(Problem::NoTensor {
                stage,
                name: name.to_owned(),
            })
        })
    }

    /// The segments of a stage's weights, each with the padding behind it: whole pages, as a GPU buffer wants them that
    /// shares the memory. [`Variant::part`] and [`Variant::offset`] say where in them a tensor is.
    pub fn segments(&self, stage: Stage) -> Vec<&[u8]> {
        let of_stage = (0..).map_while(|part| {
            let kind = SectionKind::Weights { stage, part };
            let section = &self.sections[*self.known.get(&kind)?];
            let end = align_up(section.offset + section.length, SEGMENT_ALIGN)?;
            Some(&self.file()[section.offset as usize..end as usize])
        });
        of_stage.collect()
    }

    /// Reads the whole file and checks the hash of every section and the padding between tensors.
    ///
    /// # Errors
    /// When a section is damaged or padding is not zero.
    pub fn verify(&self) -> Result<(), FormatError> {
        let file = self.file();
        for section in &self.sections {
            if hash::of_bytes(content(file, section)) != section.hash {
                let section = section.id;
                return Err(self.error(Problem::SectionHash { section }));
            }
        }
        for weights in self.stages.values() {
            for range in &weights.padding {
                check_zero(file, range.clone()).map_err(|problem| self.error(problem))?;
            }
        }
        Ok(())
    }

    fn section(&self, kind: SectionKind) -> Result<&[u8], FormatError> {
        match self.known.get(&kind) {
            Some(&index) => Ok(content(self.file(), &self.sections[index])),
            None => Err(self.error(Problem::Missing { section: kind.id() })),
        }
    }

    fn view<'a>(&'a self, weights: &'a Weights, tensor: &'a Tensor) -> TensorView<'a> {
        TensorView {
            tensor,
            segments: &weights.segments,
            file: self.file(),
        }
    }

    fn file(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }

    fn error(&self, problem: Problem) -> FormatError {
        FormatError {
            file: self.name.clone(),
            problem,
        }
    }
}

impl Weights {
    fn parse(content: &[u8], segments: &[(u64, u64)]) -> Result<Self, TableFault> {
        let tensors = table::parse(content)?;
        let lengths: Vec<u64> = segments.iter().map(|s| s.1).collect();
        let segments: Vec<u64> = segments.iter().map(|s| s.0).collect();
        let padding = table::check_places(&tensors, &lengths)?;
        let padding = padding.into_iter().map(|(part, offset, n)| {
            let start = segments[usize::from(part)] + offset;
            start..start + n
        });
        Ok(Weights {
            padding: padding.collect(),
            tensors,
            segments,
        })
    }
}

/// A tensor and its bytes in the file.
#[derive(Clone, Copy)]
pub struct TensorView<'a> {
    tensor: &'a Tensor,
    segments: &'a [u64],
    file: &'a [u8],
}

impl<'a> TensorView<'a> {
    /// Name within the stage.
    pub fn name(&self) -> &'a str {
        &self.tensor.name
    }

    /// Dimensions, outermost first; none for a scalar.
    pub fn shape(&self) -> &'a [u64] {
        &self.tensor.shape
    }

    /// The variants: the canonical one or that in panels, then the others by ascending layout.
    pub fn variants(&self) -> &'a [Variant] {
        &self.tensor.variants
    }

    /// A variant and its data; `None` when the tensor does not have it.
    pub fn packed(&self, layout: LayoutId) -> Option<(&'a Variant, &'a [u8])> {
        let variant = self.tensor.variants.iter().find(|v| v.layout == layout)?;
        Some((variant, self.data(variant)))
    }

    /// The elements row-major in the order of the shape: borrowed where the file has them so, taken out of their panels
    /// otherwise.
    pub fn canonical(&self) -> Cow<'a, [u8]> {
        let base = &self.tensor.variants[0];
        let data = self.data(base);
        if base.layout == LayoutId::CANONICAL {
            return Cow::Borrowed(data);
        }
        Cow::Owned(unpack_panels(data, base.dtype, &self.tensor.shape))
    }

    fn data(&self, variant: &Variant) -> &'a [u8] {
        // `table::check_places` has put the variant into its segment, and `check_places` that into the file.
        let start = self.segments[usize::from(variant.part)] + variant.offset;
        &self.file[start as usize..(start + variant.length) as usize]
    }
}

impl fmt::Debug for TensorView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tensor.fmt(f)
    }
}

/// The rows `[columns][depth]` of panels `[⌈columns / 32⌉][depth][32]`, whose length fits type and shape.
fn unpack_panels(panels: &[u8], dtype: DType, shape: &[u64]) -> Vec<u8> {
    let size = (dtype.bits() / 8) as usize;
    let columns = shape[0] as usize;
    let line = PANEL_WIDTH as usize * size;
    let depth = panels.len() / (columns.next_multiple_of(PANEL_WIDTH as usize) * size);
    let mut rows = Vec::with_capacity(columns * depth * size);
    for column in 0..columns {
        let panel = &panels[column / PANEL_WIDTH as usize * depth * line..][..depth * line];
        let at = column % PANEL_WIDTH as usize * size;
        let elements = panel.chunks_exact(line).map(|l| &l[at..at + size]);
        rows.extend(elements.flatten());
    }
    rows
}

/// Bytes of a section whose place has been checked.
fn content<'a>(file: &'a [u8], section: &Section) -> &'a [u8] {
    &file[section.offset as usize..(section.offset + section.length) as usize]
}

fn check_zero(file: &[u8], range: Range<u64>) -> Result<(), Problem> {
    let bytes = &file[range.start as usize..range.end as usize];
    match bytes.iter().position(|&b| b != 0) {
        None => Ok(()),
        Some(position) => Err(Problem::Padding {
            at: range.start + position as u64,
        }),
    }
}

/// Checks that the sections follow one another to the end of the file, with zeros between them.
fn check_places(file: &[u8], sections: &[Section], contents_end: u64) -> Result<(), Problem> {
    let file_len = file.len() as u64;
    let mut end = contents_end;
    for section in sections {
        let Section {
            id,
            alignment,
            offset,
            length,
            ..
        } = *section;
        let align = u64::from(alignment);
        if !align.is_power_of_two() || !(SEGMENT_ALIGN..=MAX_SEGMENT_ALIGN).contains(&align) {
            return Err(Problem::Alignment {
                section: id,
                alignment,
            });
        }
        let out_of_file = || Problem::OutOfFile {
            section: id,
            offset,
            length,
        };
        let expected = align_up(end, align).ok_or_else(out_of_file)?;
        if offset != expected {
            return Err(Problem::Offset {
                section: id,
                offset,
                expected,
            });
        }
        let section_end = offset.checked_add(length).filter(|&e| e <= file_len);
        let section_end = section_end.ok_or_else(out_of_file)?;
        check_zero(file, end..offset)?;
        end = section_end;
    }
    if align_up(end, SEGMENT_ALIGN) != Some(file_len) {
        return Err(Problem::Header {
            field: "the length of the file",
            value: file_len,
        });
    }
    check_zero(file, end..file_len)
}

/// Positions of the sections that this version knows; fails on those that it must know and does not.
fn known_sections(sections: &[Section]) -> Result<BTreeMap<SectionKind, usize>, Problem> {
    let mut ids = BTreeSet::new();
    let mut known = BTreeMap::new();
    for (index, section) in sections.iter().enumerate() {
        let id = section.id;
        if !ids.insert(id) {
            return Err(Problem::Repeated { section: id });
        }
        match id.known() {
            Some(kind) => {
                known.insert(kind, index);
            }
            None if section.critical => return Err(Problem::UnknownSection { section: id }),
            None => {}
        }
    }
    Ok(known)
}

/// First byte and length of each segment of a stage, whose parts count from 0 without a gap.
fn stage_segments(
    sections: &[Section],
    known: &BTreeMap<SectionKind, usize>,
    stage: Stage,
) -> Result<Vec<(u64, u64)>, Problem> {
    let first = SectionKind::Weights { stage, part: 0 };
    let last = SectionKind::Weights {
        stage,
        part: u16::MAX,
    };
    let mut segments = Vec::new();
    for (&kind, &index) in known.range(first..=last) {
        let part = segments.len() as u16;
        if kind != (SectionKind::Weights { stage, part }) {
            let section: SectionId = SectionKind::Weights { stage, part }.id();
            return Err(Problem::Missing { section });
        }
        let section = &sections[index];
        segments.push((section.offset, section.length));
    }
    Ok(segments)
}
