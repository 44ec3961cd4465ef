//! Products of matrices, and what follows them.

use snapc_kernels::{
    Codebook, Codes, Conv2d, Epilogue, KernelError, Matmul, PanelMatrix, Quantized,
};
use snapc_program::{Activation, Operand, Storage};

use super::elementwise::activation;
use super::{Call, broadcast, for_each_offset};

/// Whether there is a bias, the activation, and whether there is a residual.
type Finish = (bool, Activation, bool);

fn epilogue<'a>(call: &Call<'a>, (bias, function, residual): Finish) -> Epilogue<'a> {
    Epilogue {
        bias: bias.then(|| call.words(2)),
        activation: activation(function),
        residual: residual.then(|| call.words(call.count() - 1)),
    }
}

/// The weight of a product, `[columns, depth…]`.
fn panels<'a>(call: &Call<'a>) -> Result<PanelMatrix<'a>, KernelError> {
    let Operand::Weight(number) = call.instruction.operands[1] else {
        unreachable!("inference asks for a weight");
    };
    let dims = call.dims_of(1);
    let (columns, depth) = (dims[0], dims[1..].iter().product());
    match call.graph.graph.weights()[number as usize].storage {
        Storage::Codes(codes) => {
            PanelMatrix::from_codes(packed(call, number, codes), columns, depth)
        }
        _ => PanelMatrix::from_panels(call.floats(number), columns, depth),
    }
}

/// Codes with what they stand for.
fn packed<'a>(call: &Call<'a>, number: u32, codes: snapc_program::Codes) -> Codes<'a> {
    let dims = |weight: u32| &call.graph.weight_dims[weight as usize];
    let book = match codes.book {
        snapc_program::Codebook::Scales { scale, zero_point } => {
            let blocks = dims(scale)[1];
            let channels = dims(number).last().expect("a product has a depth");
            Codebook::Scales {
                scale: call.floats(scale),
                zero_point: zero_point.map(|zero| call.floats(zero)),
                blocks,
                block_rows: channels / blocks,
            }
        }
        snapc_program::Codebook::Palette { table } => Codebook::Palette {
            table: call.graph.weights[table as usize].words(call.segments),
            groups: dims(table)[0],
        },
    };
    Codes {
        bits: codes.bits.into(),
        rows: call.graph.weights[number as usize].bytes(call.segments),
        book,
    }
}

/// How the first operand is read by a product of integers, when it is on a grid, the weight has codes of eight bits, and the
/// processor has the instructions. Else floats are multiplied, which differs by their rounding.
fn quantized<'a>(call: &Call<'a>, weight: &PanelMatrix<'a>) -> Option<Quantized<'a>> {
    let (Operand::Value(x), Operand::Weight(number)) =
        (call.instruction.operands[0], call.instruction.operands[1])
    else {
        return None;
    };
    let grid = call.graph.grids[x as usize]?;
    if !call.kernels.multiplies_integers() {
        return None;
    }
    let sums = &call.graph.column_sums[number as usize];
    let sums = sums.get_or_init(|| weight.column_sums());
    Some(Quantized {
        scale: grid.scale,
        zero_point: grid.zero_point,
        column_sums: sums.as_deref()?,
    })
}

pub(super) fn linear(call: &Call<'_>, finish: Finish, out: &mut [f32]) -> Result<(), KernelError> {
    let weight = panels(call)?;
    let rows = out.len() / weight.columns();
    let (x, epilogue) = (call.words(0), epilogue(call, finish));
    let Call { kernels, pool, .. } = call;
    match quantized(call, &weight) {
        Some(left) => kernels.gemm_quantized(pool, rows, x, left, &weight, epilogue, out),
        None => kernels.gemm(pool, rows, x, &weight, epilogue, out),
    }
}

pub(super) fn conv2d(
    call: &Call<'_>,
    (strides, pads): ([u32; 2], [u32; 4]),
    finish: Finish,
    out: &mut [f32],
) -> Result<(), KernelError> {
    let (image, weight) = (call.dims_of(0), call.dims_of(1));
    let shape = Conv2d {
        batch: image[0],
        height: image[1],
        width: image[2],
        channels: image[3],
        kernel: [weight[1], weight[2]],
        stride: strides.map(|n| n as usize),
        pads: pads.map(|n| n as usize),
    };
    let (weight, x, epilogue) = (panels(call)?, call.words(0), epilogue(call, finish));
    let Call { kernels, pool, .. } = call;
    match quantized(call, &weight) {
        Some(left) => kernels.conv2d_quantized(pool, shape, x, left, &weight, epilogue, out),
        None => kernels.conv2d(pool, shape, x, &weight, epilogue, out),
    }
}

pub(super) fn geglu(call: &Call<'_>, out: &mut [f32]) -> Result<(), KernelError> {
    let width = call.dims.last().expect("inference asks for a dimension");
    let rows = out.len() / width;
    call.kernels.geglu(call.pool, rows, call.words(0), out)
}

pub(super) fn matmul(
    call: &Call<'_>,
    transposed: bool,
    out: &mut [f32],
) -> Result<(), KernelError> {
    let (a, b) = (call.words(0), call.words(1));
    let (dims_a, dims_b) = (call.dims_of(0), call.dims_of(1));
    let (lead, matrix) = call.dims.split_at(call.dims.len() - 2);
    let (lead_a, lead_b) = (&dims_a[..dims_a.len() - 2], &dims_b[..dims_b.len() - 2]);
    let mut shape = Matmul {
        batch: lead.iter().product(),
        rows: matrix[0],
        depth: dims_a[dims_a.len() - 1],
        columns: matrix[1],
        transposed,
        shared: lead_b.iter().all(|&n| n == 1),
    };
    let all = |dims: &[usize]| dims.iter().product::<usize>() == shape.batch;
    if all(lead_a) && (shape.shared || all(lead_b)) {
        return call.kernels.matmul(call.pool, shape, a, b, out);
    }
    // A broadcast left operand, or one side per leading dimension: one product after the other.
    let (strides_a, strides_b) = (broadcast(lead_a, lead.len()), broadcast(lead_b, lead.len()));
    shape.batch = 1;
    let sizes = [
        shape.rows * shape.depth,
        shape.depth * shape.columns,
        shape.rows * shape.columns,
    ];
    let mut products = out.chunks_exact_mut(sizes[2]);
    let mut ran = Ok(());
    for_each_offset(lead, [&strides_a, &strides_b], |[at_a, at_b]| {
        let (Some(out), true) = (products.next(), ran.is_ok()) else {
            return;
        };
        let a = &a[at_a * sizes[0]..][..sizes[0]];
        let b = &b[at_b * sizes[1]..][..sizes[1]];
        ran = call.kernels.matmul(call.pool, shape, a, b, out);
    });
    ran
}
