//! Speed of the f32 matrix product at two shapes of the SD v1.5 UNet, per instruction set and number of threads.
//!
//! Each figure is the best of several runs, so that other work on the machine disturbs it least.

use std::time::{Duration, Instant};

use snapc_kernels::{Epilogue, InstructionSet, Kernels, PanelMatrix, Pool, Weights};

/// Rows, columns and depth: a projection at 64 × 64, and a 3 × 3 convolution of 640 channels at 32 × 32.
const SHAPES: [[usize; 3]; 2] = [[4096, 320, 320], [1024, 640, 5760]];

/// Time for one shape and one number of threads.
const BUDGET: Duration = Duration::from_secs(1);

#[allow(clippy::print_stdout, reason = "the table is the output")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("set       threads     rows  columns    depth    GFLOP/s");
    for set in InstructionSet::ALL {
        let Ok(kernels) = Kernels::with(set) else {
            continue;
        };
        for [rows, columns, depth] in SHAPES {
            let a = vec![0.5; rows * depth];
            let weights = vec![0.25; columns * depth];
            let weights = PanelMatrix::pack(Weights::F32(&weights), columns, depth)?;
            let mut out = vec![0.0; rows * columns];
            for threads in [1, 2] {
                let pool = Pool::new(threads)?;
                let (start, mut best) = (Instant::now(), Duration::MAX);
                while start.elapsed() < BUDGET {
                    let run = Instant::now();
                    kernels.gemm(&pool, rows, &a, &weights, Epilogue::default(), &mut out)?;
                    best = best.min(run.elapsed());
                }
                let speed = 2e-9 * (rows * columns * depth) as f64 / best.as_secs_f64();
                let name = kernels.name();
                println!("{name:8}  {threads:7}  {rows:7}  {columns:7}  {depth:7}  {speed:9.1}");
            }
        }
    }
    Ok(())
}
