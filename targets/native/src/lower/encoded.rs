//! Weights of products whose encoding goes to the device as it is: packed codes, and what they stand for.

use snapc_format::PANEL_WIDTH;
use snapc_ir::{Codebook, DType, Encoding, LazyTensor, Transform};

/// The codes of a matrix and what they stand for, as the file has them.
pub(super) struct Encoded {
    /// Bits of a code.
    pub(super) bits: u8,
    /// Packed rows of the panels.
    pub(super) rows: LazyTensor,
    /// What the codes stand for.
    pub(super) book: Book,
}

/// What codes stand for.
pub(super) enum Book {
    /// Matrices `[columns, blocks]`.
    Scales {
        /// Factors.
        scale: LazyTensor,
        /// Codes of zero, when some are not 0.
        zero_point: Option<LazyTensor>,
    },
    /// A matrix `[groups, 2^bits]`.
    Palette(LazyTensor),
}

/// Whether the values of a tensor are those of codes, also where the codes themselves are out of reach.
pub(super) fn was_encoded(tensor: &LazyTensor) -> bool {
    let decodes = |t: &Transform| matches!(t, Transform::Dequantize(..));
    tensor.transforms().iter().any(decodes)
}

/// The codes of a weight of which a product reads the dimensions in this order, the first one being the columns; `None`
/// when it has none.
///
/// # Errors
/// Why the device has no form for the encoding: its groups run along dimensions that kernels do not tell apart.
pub(super) fn encoded(
    tensor: &LazyTensor,
    order: &[usize],
) -> Option<Result<Encoded, &'static str>> {
    let encoding = tensor.encoding()?;
    let codes = tensor.codes()?;
    let book = match encoding.codebook() {
        Codebook::Affine { scale, zero_point } => {
            scales(tensor, encoding, order).map(|groups| Book::Scales {
                scale: narrowed(&matrix(tensor, order, &groups, scale), tensor.dtype()),
                zero_point: zero_point.iter().any(|&z| z != 0).then(|| {
                    let zero: Vec<f32> = zero_point.iter().map(|&z| z.into()).collect();
                    matrix(tensor, order, &groups, &zero).cast(DType::F16)
                }),
            })
        }
        Codebook::Palette { table } => palette(encoding, order, table).map(Book::Palette),
    };
    Some(book.map(|book| {
        Encoded {
            bits: encoding.bits() as u8,
            rows: codes
                .permute(order)
                .panels(PANEL_WIDTH as usize)
                .pack_rows(encoding.bits()),
            book,
        }
    }))
}

/// Numbers of the groups of an encoding by column group and block.
struct Groups {
    /// Columns that share a scale.
    columns: usize,
    /// Blocks of input channels.
    blocks: usize,
    /// Groups between neighbouring column groups, and between neighbouring blocks.
    strides: [usize; 2],
}

/// How scales lie over the columns and the input channels, which are the last dimension of the order.
fn scales(
    tensor: &LazyTensor,
    encoding: &Encoding,
    order: &[usize],
) -> Result<Groups, &'static str> {
    let groups = encoding.groups();
    let (&first, inner) = order.split_first().ok_or("it has no dimension")?;
    let (&last, kernel) = inner.split_last().ok_or("it has one dimension")?;
    if kernel.iter().any(|&d| groups[d] > 1) {
        return Err("its groups divide the pixels of the kernel");
    }
    let stride = |d: usize| groups[d + 1..].iter().product();
    Ok(Groups {
        columns: tensor.shape()[first] / groups[first],
        blocks: groups[last],
        strides: [stride(first), stride(last)],
    })
}

/// One value per group as a matrix `[columns, blocks]`.
fn matrix(tensor: &LazyTensor, order: &[usize], groups: &Groups, values: &[f32]) -> LazyTensor {
    let columns = tensor.shape()[order[0]];
    let value = |column: usize, block: usize| {
        values[column / groups.columns * groups.strides[0] + block * groups.strides[1]]
    };
    let all = (0..columns).flat_map(|c| (0..groups.blocks).map(move |b| value(c, b)));
    let all: Vec<f32> = all.collect();
    LazyTensor::from_f32(&[columns, groups.blocks], &all)
}

/// Numbers in the element type of the weight when that holds all of them as they are; else in f32.
fn narrowed(values: &LazyTensor, dtype: DType) -> LazyTensor {
    let narrow = values.clone().cast(dtype);
    if dtype.is_float() && narrow.to_f32() == values.to_f32() {
        narrow
    } else {
        values.clone()
    }
}

/// The tables of groups of columns.
fn palette(
    encoding: &Encoding,
    order: &[usize],
    table: &[f32],
) -> Result<LazyTensor, &'static str> {
    let groups = encoding.groups();
    if order.iter().skip(1).any(|&d| groups[d] > 1) {
        return Err("its palettes divide the inputs of a column");
    }
    let columns = order.first().map_or(1, |&d| groups[d]);
    Ok(LazyTensor::from_f32(
        &[columns, 1 << encoding.bits()],
        table,
    ))
}
