//! Einstein sums of two operands as a product of matrices.

use snapc_ir::ValueId;
use snapc_ir::ops::MatMul;

use super::super::call::Call;
use super::super::error::Fault;

/// The labels of an equation by their part in the product.
struct Labels {
    /// In both operands and the result.
    batch: Vec<u8>,
    /// In the first operand and the result.
    rows: Vec<u8>,
    /// In the second operand and the result.
    columns: Vec<u8>,
    /// In both operands alone: summed over.
    inner: Vec<u8>,
}

/// `einsum` of two operands without repeated labels, such as `nchw,nwhu->nchu`.
pub(super) fn einsum(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let equation = call.word("equation")?;
    let values = call.values("values")?;
    let &[a, b] = values.as_slice() else {
        return Err(Fault::unsupported("only sums of two operands are read"));
    };
    let (left, right, result) = parse(&equation).ok_or_else(|| {
        Fault::unsupported(format!(
            "the equation '{equation}' has another form than 'ab,bc->ac'"
        ))
    })?;
    let (a_shape, b_shape) = (call.shape(a), call.shape(b));
    if a_shape.len() != left.len() || b_shape.len() != right.len() {
        return Err(Fault::malformed(format!(
            "'{equation}' does not fit the operands' ranks"
        )));
    }
    let labels = sort(&left, &right, &result).ok_or_else(|| {
        Fault::unsupported(format!("'{equation}' sums over a label of one operand"))
    })?;
    let size = |label: u8| {
        let of = |labels: &[u8], shape: &[usize]| {
            labels.iter().position(|l| *l == label).map(|i| shape[i])
        };
        of(&left, &a_shape)
            .or_else(|| of(&right, &b_shape))
            .unwrap_or(1)
    };
    let sizes = |labels: &[u8]| -> Vec<usize> { labels.iter().map(|&l| size(l)).collect() };
    let product = |labels: &[u8]| -> usize { sizes(labels).iter().product() };
    let Labels {
        batch,
        rows,
        columns,
        inner,
    } = &labels;

    let a = arranged(
        call,
        a,
        &left,
        &[batch, rows, inner].map(Vec::as_slice).concat(),
    )?;
    let a = call.reshape(
        a,
        &[sizes(batch), vec![product(rows), product(inner)]].concat(),
    )?;
    let b = arranged(
        call,
        b,
        &right,
        &[batch, inner, columns].map(Vec::as_slice).concat(),
    )?;
    let b = call.reshape(
        b,
        &[sizes(batch), vec![product(inner), product(columns)]].concat(),
    )?;
    let y = call.add(MatMul {}, &[a, b])?;
    let made = [batch, rows, columns].map(Vec::as_slice).concat();
    let y = call.reshape(y, &sizes(&made))?;
    arranged(call, y, &made, &result)
}

/// The labels of both operands and of the result.
fn parse(equation: &str) -> Option<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let equation: String = equation.split_whitespace().collect();
    let (operands, result) = equation.split_once("->")?;
    let (left, right) = operands.split_once(',')?;
    let labels = [left, right, result].map(|part| part.as_bytes().to_vec());
    let is_plain = |labels: &Vec<u8>| {
        let mut sorted = labels.clone();
        sorted.sort_unstable();
        let distinct = sorted.windows(2).all(|w| w[0] != w[1]);
        distinct && labels.iter().all(u8::is_ascii_alphabetic)
    };
    let fits = labels.iter().all(is_plain);
    let [left, right, result] = labels;
    fits.then_some((left, right, result))
}

/// The part of every label; `None` when one is of a single operand and summed over, or of the result alone.
fn sort(left: &[u8], right: &[u8], result: &[u8]) -> Option<Labels> {
    let mut labels = Labels {
        batch: Vec::new(),
        rows: Vec::new(),
        columns: Vec::new(),
        inner: Vec::new(),
    };
    for label in left {
        match (right.contains(label), result.contains(label)) {
            (true, true) => labels.batch.push(*label),
            (true, false) => labels.inner.push(*label),
            (false, true) => labels.rows.push(*label),
            (false, false) => return None,
        }
    }
    for label in right.iter().filter(|l| !left.contains(l)) {
        match result.contains(label) {
            true => labels.columns.push(*label),
            false => return None,
        }
    }
    let known = result.iter().all(|l| left.contains(l) || right.contains(l));
    known.then_some(labels)
}

/// A value with its dimensions in another order of labels.
fn arranged(call: &mut Call<'_>, x: ValueId, from: &[u8], to: &[u8]) -> Result<ValueId, Fault> {
    let perm = to
        .iter()
        .filter_map(|label| from.iter().position(|l| l == label));
    call.transpose(x, &perm.collect::<Vec<_>>())
}
