//! The tensor table of a stage.

use crate::error::TableFault;
use crate::limits::{MAX_NAME, MAX_RANK, MAX_TENSORS, MAX_VARIANTS, SEGMENT_ALIGN, TENSOR_ALIGN};
use crate::tensor::{DType, LayoutId, Tensor, Variant};
use crate::wire::{Cursor, put_u16, put_u32, put_u64};

/// Bytes of the shortest tensor: name length, rank, variant count, a name of one byte, one variant.
const MIN_TENSOR_LEN: u64 = 4 + 1 + VARIANT_LEN;

/// Bytes of a variant.
const VARIANT_LEN: u64 = 24;

/// The bytes of a table. The tensors are within the limits and sorted by name.
pub(crate) fn encode(tensors: &[Tensor]) -> Vec<u8> {
    let mut out = Vec::new();
    put_u32(&mut out, tensors.len() as u32);
    for tensor in tensors {
        put_u16(&mut out, tensor.name.len() as u16);
        out.push(tensor.shape.len() as u8);
        out.push(tensor.variants.len() as u8);
        out.extend_from_slice(tensor.name.as_bytes());
        for &n in &tensor.shape {
            put_u64(&mut out, n);
        }
        for variant in &tensor.variants {
            put_u16(&mut out, variant.dtype.code());
            put_u16(&mut out, variant.layout.0);
            put_u16(&mut out, variant.part);
            put_u16(&mut out, 0);
            put_u64(&mut out, variant.offset);
            put_u64(&mut out, variant.length);
        }
    }
    out
}

/// Fails when `value` is over `limit`.
pub(crate) fn within(what: &'static str, value: u64, limit: u64) -> Result<(), TableFault> {
    if value <= limit {
        return Ok(());
    }
    Err(TableFault::Limit { what, value, limit })
}

/// Reads a table and checks all of it but the places in the segments.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<Tensor>, TableFault> {
    let mut cursor = Cursor::new(bytes);
    let count = u64::from(cursor.u32()?);
    // The second bound keeps a wrong count from asking for memory that the section cannot fill.
    let limit = MAX_TENSORS.min(cursor.remaining() as u64 / MIN_TENSOR_LEN);
    within("the number of tensors", count, limit)?;
    let mut tensors: Vec<Tensor> = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let tensor = parse_tensor(&mut cursor)?;
        if tensors.last().is_some_and(|t| t.name >= tensor.name) {
            return Err(TableFault::Order(tensor.name));
        }
        tensors.push(tensor);
    }
    match cursor.remaining() {
        0 => Ok(tensors),
        n => Err(TableFault::TrailingBytes(n)),
    }
}

fn parse_tensor(cursor: &mut Cursor<'_>) -> Result<Tensor, TableFault> {
    let at = cursor.position();
    let name_len = usize::from(cursor.u16()?);
    let rank = usize::from(cursor.u8()?);
    let n_variants = usize::from(cursor.u8()?);
    within("the length of a name", name_len as u64, MAX_NAME as u64)?;
    within("the rank of a tensor", rank as u64, MAX_RANK as u64)?;
    within(
        "the number of variants",
        n_variants as u64,
        MAX_VARIANTS as u64,
    )?;
    if name_len == 0 {
        return Err(TableFault::EmptyName(at));
    }
    let at = cursor.position();
    let name = std::str::from_utf8(cursor.bytes(name_len)?);
    let name = name.map_err(|_| TableFault::NotUtf8(at))?.to_owned();
    let shape = (0..rank)
        .map(|_| cursor.u64())
        .collect::<Result<Vec<_>, _>>()?;
    let mut variants: Vec<Variant> = Vec::with_capacity(n_variants);
    for _ in 0..n_variants {
        let code = cursor.u16()?;
        let layout = LayoutId(cursor.u16()?);
        let part = cursor.u16()?;
        let reserved = cursor.u16()?;
        within("the reserved field of a variant", reserved.into(), 0)?;
        let variant = Variant {
            dtype: DType::from_code(code).ok_or_else(|| TableFault::DType {
                tensor: name.clone(),
                code,
            })?,
            layout,
            part,
            offset: cursor.u64()?,
            length: cursor.u64()?,
        };
        variants.push(variant);
    }
    let tensor = Tensor {
        name,
        shape,
        variants,
    };
    check_variants(&tensor)?;
    Ok(tensor)
}

/// Checks order and lengths of a tensor's variants: first the canonical one or that in panels, then any other.
pub(crate) fn check_variants(tensor: &Tensor) -> Result<(), TableFault> {
    let order = |layout| TableFault::Variants {
        tensor: tensor.name.clone(),
        layout,
    };
    let (base, others) = tensor
        .variants
        .split_first()
        .ok_or_else(|| order(LayoutId::CANONICAL))?;
    if base.layout > LayoutId::PANELS {
        return Err(order(base.layout));
    }
    // Both base layouts at once would hold the tensor twice.
    let mut last = LayoutId::PANELS;
    for variant in others {
        if variant.layout <= last {
            return Err(order(variant.layout));
        }
        last = variant.layout;
    }
    if base.dtype.byte_len(&tensor.shape).is_none() {
        return Err(TableFault::Shape {
            tensor: tensor.name.clone(),
            shape: tensor.shape.clone(),
        });
    }
    let expected = base.dtype.base_len(base.layout, &tensor.shape);
    for (index, variant) in tensor.variants.iter().enumerate() {
        let fits = match index {
            0 => Some(variant.length) == expected,
            _ => variant.length > 0,
        };
        if !fits {
            return Err(TableFault::TensorLength {
                tensor: tensor.name.clone(),
                layout: variant.layout,
                dtype: variant.dtype,
                shape: tensor.shape.clone(),
                length: variant.length,
            });
        }
    }
    Ok(())
}

/// Checks that the variants tile the segments, whose lengths are `segments`, with no more than padding between them.
///
/// Gives that padding: part, first byte, length.
pub(crate) fn check_places(
    tensors: &[Tensor],
    segments: &[u64],
) -> Result<Vec<(u16, u64, u64)>, TableFault> {
    let mut places: Vec<(&Tensor, &Variant)> = tensors
        .iter()
        .flat_map(|t| t.variants.iter().map(move |v| (t, v)))
        .collect();
    places.sort_by_key(|(_, v)| (v.part, v.offset));
    let mut ends = vec![0; segments.len()];
    let mut padding = Vec::new();
    for (tensor, variant) in places {
        let Variant {
            part,
            offset,
            length,
            ..
        } = *variant;
        let part_idx = usize::from(part);
        let segment_len = segments.get(part_idx).copied().unwrap_or(0);
        let free_from: u64 = ends.get(part_idx).copied().unwrap_or(0);
        let end = offset.checked_add(length).filter(|&e| e <= segment_len);
        let gap = offset.checked_sub(free_from).filter(|&g| g < SEGMENT_ALIGN);
        let (Some(end), Some(gap), true) = (end, gap, offset % TENSOR_ALIGN == 0) else {
            return Err(TableFault::Place {
                tensor: tensor.name.clone(),
                layout: variant.layout,
                part,
                offset,
                length,
            });
        };
        // A length is never 0, so that `end` is within a segment that exists.
        ends[part_idx] = end;
        if gap > 0 {
            padding.push((part, free_from, gap));
        }
    }
    for (part, (&length, &end)) in segments.iter().zip(&ends).enumerate() {
        if length != end {
            let part = part as u16;
            return Err(TableFault::Uncovered { part, length, end });
        }
    }
    Ok(padding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(name: &str, offset: u64, length: u64) -> Tensor {
        Tensor {
            name: name.to_owned(),
            shape: vec![length],
            variants: vec![Variant {
                dtype: DType::U8,
                layout: LayoutId::CANONICAL,
                part: 0,
                offset,
                length,
            }],
        }
    }

    #[test]
    fn holes_are_smaller_than_a_page() {
        let tensors = |second| [bytes("a", 0, 64), bytes("b", second, 1)];
        let page = 16 * 1024;
        assert_eq!(check_places(&tensors(64), &[65]), Ok(vec![]));
        let padding = check_places(&tensors(page), &[page + 1]);
        assert_eq!(padding, Ok(vec![(0, 64, page - 64)]));
        let fault = check_places(&tensors(page + 64), &[page + 65]).unwrap_err();
        assert!(
            matches!(fault, TableFault::Place { offset: 16448, .. }),
            "{fault}"
        );
    }
}
