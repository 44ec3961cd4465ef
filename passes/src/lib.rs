//! The passes: graph to graph, each in a file of its own.
//!
//! A [`Pass`] takes a graph and gives a changed one, or says that there was nothing to do. A [`Pipeline`] is a list of
//! passes with options, read from text (`fold-constants,cast-precision{to=f16}`); [`Pipeline::run`] runs it over a
//! program, verifies every graph that a pass makes and reports what each pass did. Which pass may follow which is data:
//! a pass names the [`Property`]s it requires, establishes and invalidates.
//!
//! Passes know no target. Adding one is a new file and a line in the list below; `docs/adding-a-pass.md` walks through it.

#![forbid(unsafe_code)]

mod calibration;
mod info;
mod input_cone;
mod manager;
mod name_patterns;
mod output_values;
mod pass;
mod pipeline;
#[cfg(test)]
mod random_graph;
#[cfg(test)]
mod random_layers;
mod recognize;
#[cfg(test)]
mod rounding;
#[cfg(test)]
mod semantics;
mod text;
mod uses;

pub use calibration::Calibration;
pub use info::{Documentation, PassInfo};
pub use manager::{PassReport, PrintHook, RunOptions};
pub use name_patterns::NamePatterns;
pub use pass::{Change, Pass, PassContext, PassError, Property, WeightFault, WeightProblem};
pub use pipeline::{NAMED_PIPELINES, NamedPipeline, Pipeline, PipelineError, Step, level};
pub use quantize_weights::{WeightFidelity, WeightForm, weight_fidelity};
pub use recognize::recognize;

macro_rules! passes {
    ($($module:ident $name:ident),* $(,)?) => {
        $(mod $module; pub use $module::$name;)*

        const ALL: &[PassInfo] = &[
            $(PassInfo::of::<$name>(include_str!(concat!(stringify!($module), ".rs")))),*
        ];
    };
}

pub use remove_identity_blocks::{
    BlockKind, BlockName, NAMED_PLANS, NamedPlan, Plan, PlanError, Stage,
};
pub use specialize_schedule::OtherSteps;

passes! {
    cast_precision CastPrecision,
    eliminate_common_subexpressions EliminateCommonSubexpressions,
    eliminate_dead_code EliminateDeadCode,
    fold_constants FoldConstants,
    fold_norm_affine FoldNormAffine,
    fold_scaling FoldScaling,
    fuse_activations FuseActivations,
    fuse_attention FuseAttention,
    fuse_gathers FuseGathers,
    fuse_linears FuseLinears,
    fuse_norms FuseNorms,
    hoist_text_projections HoistTextProjections,
    merge_projections MergeProjections,
    prune_channels PruneChannels,
    quantize_activations QuantizeActivations,
    quantize_weights QuantizeWeights,
    remove_identity_blocks RemoveIdentityBlocks,
    remove_no_ops RemoveNoOps,
    specialize_schedule SpecializeSchedule,
    split_concat_convolution SplitConcatConvolution,
    split_upsample_convolution SplitUpsampleConvolution,
}

/// Every pass, by name.
pub fn all() -> &'static [PassInfo] {
    ALL
}

/// What is known about the pass of that name.
pub fn info(name: &str) -> Option<&'static PassInfo> {
    ALL.iter().find(|info| info.name == name)
}

/// The pass of that name with these options; options that are not given have their default.
///
/// # Errors
/// When there is no such pass, or it does not take an option.
pub fn by_name(
    name: &str,
    options: serde_json::Map<String, serde_json::Value>,
) -> Result<Box<dyn Pass>, PipelineError> {
    match info(name) {
        Some(info) => info.make(options),
        None => Err(PipelineError::unknown_pass(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_are_sorted_and_documented_under_the_fixed_headings() {
        assert!(ALL.is_sorted_by_key(|info| info.name));
        for info in ALL {
            let documentation = info.documentation();
            assert!(!documentation.summary.is_empty(), "{}", info.name);
            let headings: Vec<&str> = documentation.sections.iter().map(|(h, _)| *h).collect();
            let expected = [
                "What it does",
                "When it applies",
                "Options",
                "Effect on accuracy",
                "Example",
            ];
            assert_eq!(headings, expected, "{}", info.name);
            assert!(
                documentation
                    .sections
                    .iter()
                    .all(|(_, text)| !text.trim().is_empty())
            );
        }
    }

    #[test]
    fn every_pass_can_be_made_without_options() {
        for info in ALL {
            assert_eq!(
                by_name(info.name, serde_json::Map::new()).unwrap().name(),
                info.name
            );
        }
    }
}
