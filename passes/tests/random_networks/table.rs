//! What every pass promises on a random network. A pass without a row here fails the tests.

/// How far the outputs may be from those of the imported network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// The largest error is at most this share of the largest magnitude.
    Relative(f64),
    /// PSNR in decibels is at least this.
    Psnr(f64),
    /// Another network on purpose: its outputs have the same sizes and are finite. It may be refused with a reason.
    OtherNetwork,
}

/// Of passes that compute the same numbers; only the sign of a zero may change.
pub const EXACT: Bound = Bound::Relative(0.0);

/// Of passes that compute the same function with other roundings.
pub const ROUNDED: Bound = Bound::Relative(1e-5);

/// The passes that find nothing to do in a graph as the importer makes it, which has its composites already.
pub const IDLE: &[&str] = &[
    "eliminate-dead-code",
    "fold-constants",
    "fuse-activations",
    "fuse-attention",
    "fuse-gathers",
    "fuse-linears",
    "fuse-norms",
    "remove-no-ops",
];

/// The timesteps that `specialize-schedule` is given below; networks are run at one of them.
pub const TIMESTEPS: [u16; 3] = [981, 500, 1];

/// A pass with options.
pub struct Row {
    /// The name of the pass, which stands last in `pipeline`.
    pub pass: &'static str,
    /// The passes it needs before it, and the pass with its options.
    pub pipeline: &'static str,
    /// What it promises.
    pub bound: Bound,
}

/// Every pass, with as many sets of options as make a difference.
pub const ROWS: &[Row] = &[
    Row {
        pass: "cast-precision",
        pipeline: "eliminate-dead-code,cast-precision{to=f16}",
        bound: Bound::Psnr(55.0),
    },
    Row {
        pass: "cast-precision",
        pipeline: "eliminate-dead-code,cast-precision{to=bf16}",
        bound: Bound::Psnr(42.0),
    },
    Row {
        pass: "eliminate-common-subexpressions",
        pipeline: "eliminate-common-subexpressions",
        bound: EXACT,
    },
    Row {
        pass: "eliminate-dead-code",
        pipeline: "eliminate-dead-code",
        bound: EXACT,
    },
    Row {
        pass: "fold-constants",
        pipeline: "fold-constants",
        bound: EXACT,
    },
    Row {
        pass: "fold-norm-affine",
        pipeline: "fold-norm-affine",
        bound: ROUNDED,
    },
    Row {
        pass: "fold-scaling",
        pipeline: "fold-scaling",
        bound: ROUNDED,
    },
    Row {
        pass: "fold-scaling",
        pipeline: "fold-scaling{attention=true}",
        bound: ROUNDED,
    },
    Row {
        pass: "fuse-activations",
        pipeline: "fuse-activations",
        bound: ROUNDED,
    },
    Row {
        pass: "fuse-attention",
        pipeline: "fuse-attention",
        bound: ROUNDED,
    },
    Row {
        pass: "fuse-gathers",
        pipeline: "fuse-gathers",
        bound: ROUNDED,
    },
    Row {
        pass: "fuse-linears",
        pipeline: "fuse-linears",
        bound: ROUNDED,
    },
    Row {
        pass: "fuse-norms",
        pipeline: "fuse-norms",
        bound: ROUNDED,
    },
    Row {
        pass: "hoist-text-projections",
        pipeline: "hoist-text-projections",
        bound: EXACT,
    },
    Row {
        pass: "merge-projections",
        pipeline: "merge-projections",
        bound: ROUNDED,
    },
    Row {
        pass: "prune-channels",
        pipeline: "prune-channels{ratio=0.5,correction=false}",
        bound: Bound::OtherNetwork,
    },
    Row {
        pass: "prune-channels",
        pipeline: "prune-channels{ratio=0.5}",
        bound: Bound::OtherNetwork,
    },
    Row {
        pass: "quantize-activations",
        pipeline: "quantize-activations{min_elements=1}",
        bound: Bound::Psnr(20.0),
    },
    Row {
        pass: "quantize-weights",
        pipeline: "quantize-weights{form=int8,all=true}",
        bound: Bound::Psnr(30.0),
    },
    Row {
        pass: "quantize-weights",
        pipeline: "quantize-weights{form=palette6,all=true}",
        bound: Bound::Psnr(30.0),
    },
    Row {
        pass: "quantize-weights",
        pipeline: "quantize-weights{form=int4,all=true}",
        bound: Bound::Psnr(15.0),
    },
    Row {
        pass: "quantize-weights",
        pipeline: "quantize-weights{form=mixed,all=true,min_psnr=25}",
        bound: Bound::Psnr(25.0),
    },
    Row {
        pass: "remove-identity-blocks",
        pipeline: "remove-identity-blocks",
        bound: EXACT,
    },
    Row {
        pass: "remove-no-ops",
        pipeline: "remove-no-ops",
        bound: EXACT,
    },
    Row {
        pass: "specialize-schedule",
        pipeline: "specialize-schedule{timesteps=981/500/1}",
        bound: EXACT,
    },
    Row {
        pass: "specialize-schedule",
        pipeline: "specialize-schedule{timesteps=981/500/1,other_steps=keep}",
        bound: EXACT,
    },
    Row {
        pass: "split-concat-convolution",
        pipeline: "split-concat-convolution",
        bound: ROUNDED,
    },
    Row {
        pass: "split-upsample-convolution",
        pipeline: "split-upsample-convolution{balance=0,min_gain=0}",
        bound: ROUNDED,
    },
    Row {
        pass: "split-upsample-convolution",
        pipeline: "split-upsample-convolution",
        bound: ROUNDED,
    },
];

/// What a pipeline promises, by the rows of its passes: the loosest bound of those that run with the same options, or
/// else of those with any.
pub fn bound_of(pipeline: &snapc_passes::Pipeline) -> Bound {
    let mut bound = EXACT;
    for step in pipeline.steps() {
        let of_pass: Vec<&Row> = ROWS.iter().filter(|row| row.pass == step.pass).collect();
        assert!(!of_pass.is_empty(), "pass '{}' has no row", step.pass);
        let same = of_pass
            .iter()
            .filter(|row| row.pipeline.ends_with(&step.to_string()));
        let same: Vec<&&Row> = same.collect();
        let rows = if same.is_empty() {
            of_pass.iter().collect()
        } else {
            same
        };
        for row in rows {
            bound = looser(bound, row.bound);
        }
    }
    bound
}

fn looser(a: Bound, b: Bound) -> Bound {
    match (a, b) {
        (Bound::Relative(a), Bound::Relative(b)) => Bound::Relative(a.max(b)),
        (Bound::Psnr(a), Bound::Psnr(b)) => Bound::Psnr(a.min(b)),
        (Bound::OtherNetwork, _) | (_, Bound::OtherNetwork) => Bound::OtherNetwork,
        (Bound::Psnr(db), Bound::Relative(_)) | (Bound::Relative(_), Bound::Psnr(db)) => {
            Bound::Psnr(db)
        }
    }
}
