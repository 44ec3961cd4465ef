//! The `.snap` container: opens, checks and looks at whatever an input describes; what opens can be written again and
//! reads the same.

#![no_main]

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use snapc_format::{Container, DType, LayoutId, Plan, Stage, TensorPlan};
use snapc_fuzz::assemble;

fuzz_target!(|input: &[u8]| {
    let Ok(container) = open(assemble(input)) else {
        return;
    };
    let first = Contents::of(&container);
    // Only what the hashes and padding of the weights say may still be wrong.
    let _ = container.verify();
    let again = open(written(&container)).expect("a file that was just written opens");
    again
        .verify()
        .expect("a file that was just written is whole");
    assert_eq!(Contents::of(&again), first);
});

fn open(file: Vec<u8>) -> Result<Container, snapc_format::FormatError> {
    Container::from_bytes("input.snap", Arc::new(file))
}

/// Name, shape, and variants with their data.
type Tensor = (String, Vec<u64>, Vec<(LayoutId, DType, Vec<u8>)>);

/// What a file holds, wherever it stands in the file. A table without tensors is as good as none.
#[derive(Debug, PartialEq)]
struct Contents {
    program: Option<Vec<u8>>,
    tokenizer: Option<Vec<u8>>,
    schedule: Option<Vec<u8>>,
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<Stage, Vec<Tensor>>,
}

impl Contents {
    fn of(container: &Container) -> Self {
        let stages = container.stages();
        let tensors = stages.map(|stage| (stage, tensors(container, stage)));
        let tensors = tensors.filter(|(_, tensors)| !tensors.is_empty());
        Contents {
            program: container.program().ok().map(<[u8]>::to_vec),
            tokenizer: container.tokenizer().ok().map(<[u8]>::to_vec),
            schedule: container.schedule().ok().map(<[u8]>::to_vec),
            metadata: container.metadata().clone(),
            tensors: tensors.collect(),
        }
    }
}

fn tensors(container: &Container, stage: Stage) -> Vec<Tensor> {
    let segments = container.segments(stage);
    let views = container.tensors(stage);
    views
        .map(|view| {
            let variants = view.variants().iter().map(|variant| {
                let (_, data) = view.packed(variant.layout).expect("it is listed");
                assert_eq!(data.len() as u64, variant.length);
                let start = variant.offset as usize;
                let segment = segments[usize::from(variant.part)];
                assert_eq!(&segment[start..start + data.len()], data);
                (variant.layout, variant.dtype, data.to_vec())
            });
            let variants: Vec<_> = variants.collect();
            let canonical = view.canonical();
            let expected = variants[0].1.byte_len(view.shape());
            assert_eq!(expected, Some(canonical.len() as u64));
            let is_canonical = variants[0].0 == LayoutId::CANONICAL;
            assert!(!is_canonical || *canonical == variants[0].2);
            let found = container.tensor(stage, view.name());
            assert_eq!(found.expect("it is listed").shape(), view.shape());
            (view.name().to_owned(), view.shape().to_vec(), variants)
        })
        .collect()
}

/// The file of a plan with the contents of another file.
fn written(container: &Container) -> Vec<u8> {
    let Contents {
        program,
        tokenizer,
        schedule,
        metadata,
        tensors,
    } = Contents::of(container);
    let mut plan = Plan::new();
    program
        .into_iter()
        .for_each(|bytes| plan.set_program(bytes));
    tokenizer
        .into_iter()
        .for_each(|bytes| plan.set_tokenizer(bytes));
    schedule
        .into_iter()
        .for_each(|bytes| plan.set_schedule(bytes));
    for (key, value) in metadata {
        plan.set_metadata(key, value);
    }
    for (&stage, tensors) in &tensors {
        for (name, shape, variants) in tensors {
            let (base, dtype, _) = variants[0];
            let planned = match base {
                LayoutId::PANELS => TensorPlan::panels,
                _ => TensorPlan::new,
            };
            let mut tensor = planned(name.as_str(), shape, dtype);
            for (layout, dtype, data) in &variants[1..] {
                tensor = tensor.with_packed(*layout, *dtype, data.len() as u64);
            }
            plan.add_tensor(stage, tensor);
        }
    }
    let layout = plan.layout().expect("what was read can be laid out");
    let mut file = Cursor::new(Vec::new());
    let filled = layout.write(&mut file, |place, out| {
        let view = container.tensor(place.stage, &place.name);
        let view = view.map_err(std::io::Error::other)?;
        let (_, data) = view.packed(place.layout).expect("it was planned");
        out.write_all(data)
    });
    filled.expect("memory can be written");
    file.into_inner()
}
