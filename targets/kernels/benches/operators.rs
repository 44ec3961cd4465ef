//! Speed of the operators of the SD v1.5 UNet at 64 × 64, batch 1: `cargo bench --bench operators -- [threads] [name]`.
//!
//! Each figure is the best of several runs, so that other work on the machine disturbs it least.

use std::time::{Duration, Instant};

use snapc_kernels::{
    Attention, Conv2d, Epilogue, GroupNorm, Heads, KernelError, Kernels, PanelMatrix, Pool, Weights,
};

/// Time for one operator.
const BUDGET: Duration = Duration::from_secs(1);

/// Side of the image, input channels, output channels, stride of the 3 × 3 convolutions.
const CONVOLUTIONS: [[usize; 4]; 13] = [
    [64, 320, 320, 1],
    [64, 960, 320, 1],
    [64, 640, 640, 1],
    [32, 640, 640, 1],
    [32, 1920, 640, 1],
    [32, 1280, 1280, 1],
    [16, 1280, 1280, 1],
    [16, 2560, 1280, 1],
    [8, 1280, 1280, 1],
    [8, 2560, 1280, 1],
    [64, 320, 320, 2],
    [64, 320, 4, 1],
    [64, 4, 320, 1],
];

/// Rows, depth and columns of the linear layers.
const LINEARS: [[usize; 3]; 13] = [
    [4096, 320, 320],
    [4096, 320, 2560],
    [4096, 1280, 320],
    [1024, 640, 640],
    [1024, 640, 5120],
    [1024, 2560, 640],
    [256, 1280, 1280],
    [256, 1280, 10240],
    [256, 5120, 1280],
    [64, 1280, 1280],
    [77, 768, 320],
    [1, 1280, 1280],
    [2, 1280, 1280],
];

/// Queries, keys, heads and elements of a head of the attentions.
const ATTENTIONS: [[usize; 4]; 5] = [
    [4096, 4096, 8, 40],
    [1024, 1024, 8, 80],
    [256, 256, 8, 160],
    [4096, 77, 8, 40],
    [1024, 77, 8, 80],
];

/// Pixels and channels of the group normalizations.
const GROUP_NORMS: [[usize; 2]; 3] = [[4096, 320], [4096, 960], [256, 1280]];

struct Bench {
    kernels: Kernels,
    pool: Pool,
    filter: String,
}

impl Bench {
    /// Runs an operator of `macs` multiply-adds until the budget is spent and prints its best time.
    #[allow(clippy::print_stdout, reason = "the table is the output")]
    fn measure(
        &self,
        name: &str,
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
        let time = best.as_secs_f64() * 1e3;
        println!("{name:28} {time:9.2} ms {speed:8.1} GFLOP/s");
        Ok(())
    }

    fn wants(&self, name: &str) -> bool {
        name.contains(&self.filter)
    }

    fn conv2d(
        &self,
        [side, channels, out_channels, stride]: [usize; 4],
    ) -> Result<(), KernelError> {
        let name = format!("conv {side}x{side} {channels}->{out_channels}");
        if !self.wants(&name) {
            return Ok(());
        }
        let depth = 9 * channels;
        let input = numbers(side * side * channels);
        let weights = numbers(out_channels * depth);
        let weights = PanelMatrix::pack(Weights::F32(&weights), out_channels, depth)?;
        let shape = Conv2d {
            batch: 1,
            height: side,
            width: side,
            channels,
            kernel: [3, 3],
            stride: [stride; 2],
            pads: [1; 4],
        };
        let [rows, columns] = shape.output_size()?;
        let mut out = vec![0.0; rows * columns * out_channels];
        let bias = vec![0.5; out_channels];
        let epilogue = Epilogue {
            bias: Some(&bias),
            ..Epilogue::default()
        };
        self.measure(&name, rows * columns * out_channels * depth, || {
            let Self { kernels, pool, .. } = self;
            kernels.conv2d(pool, shape, &input, &weights, epilogue, &mut out)
        })
    }

    fn linear(&self, [rows, depth, columns]: [usize; 3]) -> Result<(), KernelError> {
        let name = format!("linear {rows}x{depth}->{columns}");
        if !self.wants(&name) {
            return Ok(());
        }
        let input = numbers(rows * depth);
        let weights = numbers(columns * depth);
        let weights = PanelMatrix::pack(Weights::F32(&weights), columns, depth)?;
        let mut out = vec![0.0; rows * columns];
        let bias = vec![0.5; columns];
        let epilogue = Epilogue {
            bias: Some(&bias),
            ..Epilogue::default()
        };
        self.measure(&name, rows * columns * depth, || {
            let Self { kernels, pool, .. } = self;
            kernels.gemm(pool, rows, &input, &weights, epilogue, &mut out)
        })
    }

    fn attention(&self, [queries, keys, heads, head_dim]: [usize; 4]) -> Result<(), KernelError> {
        let name = format!("attention {queries}x{keys} {heads}x{head_dim}");
        if !self.wants(&name) {
            return Ok(());
        }
        let stride = heads * head_dim;
        let [q, k, v] = [queries, keys, keys].map(|tokens| numbers(tokens * stride));
        let [q, k, v] = [&q, &k, &v].map(|data| Heads { data, stride });
        let shape = Attention {
            batch: 1,
            heads,
            head_dim,
            queries,
            keys,
            scale: 0.1,
        };
        let mut out = vec![0.0; queries * stride];
        self.measure(&name, 2 * queries * keys * stride, || {
            self.kernels
                .attention(&self.pool, shape, q, k, v, None, &mut out)
        })
    }

    fn group_norm(&self, [positions, channels]: [usize; 2]) -> Result<(), KernelError> {
        let name = format!("group_norm {positions}x{channels}");
        if !self.wants(&name) {
            return Ok(());
        }
        let input = numbers(positions * channels);
        let mut out = vec![0.0; positions * channels];
        let ones = vec![1.0; channels];
        let shape = GroupNorm {
            batch: 1,
            positions,
            channels,
            groups: 32,
            eps: 1e-5,
            activation: snapc_kernels::Activation::Silu,
        };
        self.measure(&name, 0, || {
            let Self { kernels, pool, .. } = self;
            kernels.group_norm(pool, shape, &ones, &ones, &input, &mut out)
        })?;
        let name = format!("geglu {positions}x{channels}");
        self.measure(&name, 0, || {
            self.kernels.geglu(
                &self.pool,
                positions,
                &input,
                &mut out[..positions * channels / 2],
            )
        })
    }
}

/// Numbers from -1 to 1 that repeat late.
fn numbers(len: usize) -> Vec<f32> {
    let step = |i: usize| (i * 7919 % 2003) as f32 / 1001.0 - 1.0;
    (0..len).map(step).collect()
}

fn main() -> Result<(), KernelError> {
    // cargo adds options of its own, which start with a dash.
    let mut words = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .peekable();
    let threads = words.peek().and_then(|word| word.parse().ok());
    if threads.is_some() {
        words.next();
    }
    let bench = Bench {
        kernels: Kernels::detect(),
        pool: Pool::new(threads.unwrap_or(2))?,
        filter: words.next().unwrap_or_default(),
    };
    CONVOLUTIONS
        .into_iter()
        .try_for_each(|shape| bench.conv2d(shape))?;
    LINEARS
        .into_iter()
        .try_for_each(|shape| bench.linear(shape))?;
    ATTENTIONS
        .into_iter()
        .try_for_each(|shape| bench.attention(shape))?;
    GROUP_NORMS
        .into_iter()
        .try_for_each(|shape| bench.group_norm(shape))
}
