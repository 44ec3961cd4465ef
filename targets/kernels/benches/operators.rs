//! Speed of a convolution and of a self-attention of the SD v1.5 UNet at 64 × 64, batch 1, per number of threads.
//!
//! Each figure is the best of several runs, so that other work on the machine disturbs it least.

use std::time::{Duration, Instant};

use snapc_kernels::{
    Attention, Conv2d, Epilogue, Heads, KernelError, Kernels, PanelMatrix, Pool, Weights,
};

/// Time for one operator and one number of threads.
const BUDGET: Duration = Duration::from_secs(1);

const SIDE: usize = 64;
const CHANNELS: usize = 320;
const HEADS: usize = 8;

/// Runs an operator of `macs` multiply-adds until the budget is spent and prints its best speed.
#[allow(clippy::print_stdout, reason = "the table is the output")]
fn measure(
    name: &str,
    threads: usize,
    macs: usize,
    mut run: impl FnMut() -> Result<(), KernelError>,
) -> Result<(), KernelError> {
    let (start, mut best) = (Instant::now(), Duration::MAX);
    while start.elapsed() < BUDGET {
        let begin = Instant::now();
        run()?;
        best = best.min(begin.elapsed());
    }
    let speed = 2e-9 * macs as f64 / best.as_secs_f64();
    println!("{name:12} {threads} threads {speed:9.1} GFLOP/s");
    Ok(())
}

fn main() -> Result<(), KernelError> {
    let kernels = Kernels::detect();
    let tokens = SIDE * SIDE;
    let x = vec![0.5; tokens * CHANNELS];
    let mut out = vec![0.0; tokens * CHANNELS];
    let depth = 9 * CHANNELS;
    let weights = vec![0.25; CHANNELS * depth];
    let weights = Weights::F32(&weights);
    let weights = PanelMatrix::pack(weights, CHANNELS, depth, kernels.panel_width())?;
    let conv = Conv2d {
        batch: 1,
        height: SIDE,
        width: SIDE,
        channels: CHANNELS,
        kernel: [3, 3],
        stride: [1, 1],
        pads: [1; 4],
    };
    let attention = Attention {
        batch: 1,
        heads: HEADS,
        head_dim: CHANNELS / HEADS,
        queries: tokens,
        keys: tokens,
        scale: 0.158,
    };
    let heads = Heads {
        data: &x,
        stride: CHANNELS,
    };
    for threads in [1, 2] {
        let pool = Pool::new(threads)?;
        let none = Epilogue::default();
        measure("conv2d", threads, tokens * CHANNELS * depth, || {
            kernels.conv2d(&pool, conv, &x, &weights, none, &mut out)
        })?;
        measure("attention", threads, 2 * tokens * tokens * CHANNELS, || {
            kernels.attention(&pool, attention, heads, heads, heads, None, &mut out)
        })?;
    }
    Ok(())
}
