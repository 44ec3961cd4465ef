//! The file that was put together by hand, read and written.

mod tiny;

use std::fs::{self, OpenOptions};
use std::io::Cursor;
use std::os::unix::fs::FileExt;

use snapc_format::{
    Container, DType, Layout, LayoutId, Placement, Plan, SEGMENT_ALIGN, Stage, TensorPlan, Version,
};

/// The plan of the file that was put together by hand.
fn plan() -> Plan {
    let mut plan = Plan::new();
    plan.set_metadata("license", "MIT");
    plan.set_program(b"PROG".to_vec());
    let packed = TensorPlan::new("b", &[], DType::F16).with_packed(LayoutId(7), DType::Bf16, 5);
    plan.add_tensor(Stage::Unet, packed);
    plan.add_tensor(Stage::Unet, TensorPlan::new("a", &[2], DType::F32));
    plan
}

fn data(placement: &Placement) -> Vec<u8> {
    match (placement.name.as_str(), placement.layout.0) {
        ("a", 0) => [1.0f32, -2.0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        ("b", 0) => vec![0x11, 0x22],
        ("b", 7) => vec![1, 2, 3, 4, 5],
        other => panic!("{other:?} was not planned"),
    }
}

fn write(layout: &Layout) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    layout
        .write(&mut out, |placement, out| out.write_all(&data(placement)))
        .expect("memory takes every write");
    out.into_inner()
}

#[test]
fn the_handmade_file_is_read() {
    let container = tiny::open(&tiny::file()).unwrap();
    container.verify().unwrap();
    assert_eq!(container.version(), Version { major: 1, minor: 0 });
    assert_eq!(container.program().unwrap(), b"PROG");
    assert_eq!(container.metadata()["license"], "MIT");
    assert_eq!(container.stages().collect::<Vec<_>>(), [Stage::Unet]);

    let names: Vec<&str> = container.tensors(Stage::Unet).map(|t| t.name()).collect();
    assert_eq!(names, ["a", "b"]);
    let a = container.tensor(Stage::Unet, "a").unwrap();
    assert_eq!(a.shape(), [2]);
    assert_eq!(a.variants()[0].dtype, DType::F32);
    assert_eq!(*a.canonical(), [0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]);
    assert!(a.packed(LayoutId(7)).is_none());
    let b = container.tensor(Stage::Unet, "b").unwrap();
    assert_eq!((b.shape(), &*b.canonical()), (&[][..], &[0x11, 0x22][..]));
    let (variant, bytes) = b.packed(LayoutId(7)).unwrap();
    assert_eq!((variant.dtype, bytes), (DType::Bf16, &[1, 2, 3, 4, 5][..]));

    let segments = container.segments(Stage::Unet);
    assert_eq!(segments.len(), 2);
    assert!(segments.iter().all(|s| s.len() == SEGMENT_ALIGN as usize));
    assert_eq!(segments[1][..6], [1, 2, 3, 4, 5, 0]);
    assert!(container.segments(Stage::TextEncoder).is_empty());
}

#[test]
fn what_is_not_there_is_named() {
    let container = tiny::open(&tiny::file()).unwrap();
    let error = container.tokenizer().unwrap_err().to_string();
    assert_eq!(
        error,
        "tiny.snap: section 'tokenizer' is missing; convert the checkpoint again"
    );
    let error = container.tensor(Stage::Unet, "c").unwrap_err().to_string();
    assert!(
        error.contains("weights of unet have no tensor 'c'"),
        "{error}"
    );
    assert!(container.tensor(Stage::VaeDecoder, "a").is_err());
    assert_eq!(container.tensors(Stage::VaeDecoder).count(), 0);
}

#[test]
fn the_plan_gives_the_handmade_file() {
    let layout = plan().layout().unwrap();
    assert_eq!(layout.len(), tiny::LEN as u64);
    let offsets: Vec<u64> = layout.placements().iter().map(|p| p.offset).collect();
    assert_eq!(offsets, [65536, 65600, 81920]);
    assert!(write(&layout) == tiny::file());
}

#[test]
fn positioned_writes_and_a_seal_give_the_handmade_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.snap");
    let layout = plan().layout().unwrap();
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    file.write_all_at(layout.prefix(), 0).unwrap();
    for placement in layout.placements().iter().rev() {
        file.write_all_at(&data(placement), placement.offset)
            .unwrap();
    }
    let error = layout.seal(&file).unwrap_err().to_string();
    assert_eq!(error, "the file is 81925 bytes long, its layout 98304");
    file.set_len(layout.len()).unwrap();
    let unsealed = Container::open(&path).unwrap_err().to_string();
    assert!(unsealed.contains("not a .snap file"), "{unsealed}");

    layout.seal(&file).unwrap();
    assert!(fs::read(&path).unwrap() == tiny::file());
    let container = Container::open(&path).unwrap();
    container.verify().unwrap();
    let tensor = container.tensor(Stage::Unet, "a").unwrap();
    assert_eq!(tensor.canonical().as_ptr() as usize % 64, 0);
}

/// Element `(c, d)` of the matrix is `100 c + d`.
#[test]
fn a_tensor_in_panels_is_given_back_row_by_row() {
    let mut plan = Plan::new();
    plan.add_tensor(Stage::Unet, TensorPlan::panels("w", &[33, 2, 3], DType::U8));
    plan.add_tensor(Stage::Unet, TensorPlan::panels("v", &[2, 5], DType::F16));
    let layout = plan.layout().unwrap();
    let mut out = Cursor::new(Vec::new());
    let element = |column: usize, depth: usize| match column {
        33.. => 0,
        _ => (7 * column + depth) as u8,
    };
    let write = layout.write(&mut out, |placement, out| {
        assert_eq!(placement.layout, LayoutId::PANELS);
        if placement.name == "v" {
            // Two columns of f16; the low byte says which element it is.
            let halves = (0..5 * 32).flat_map(|i| [if i % 32 < 2 { i as u8 } else { 0 }, 0]);
            return out.write_all(&halves.collect::<Vec<u8>>());
        }
        let panels = (0..2 * 6 * 32).map(|i| element(i / 192 * 32 + i % 32, i / 32 % 6));
        out.write_all(&panels.collect::<Vec<u8>>())
    });
    write.unwrap();
    let container = tiny::open(&out.into_inner()).unwrap();
    container.verify().unwrap();

    let w = container.tensor(Stage::Unet, "w").unwrap();
    let rows = (0..33 * 6).map(|i| element(i / 6, i % 6));
    assert_eq!(*w.canonical(), rows.collect::<Vec<u8>>());
    assert_eq!((w.shape(), w.variants()[0].length), (&[33, 2, 3][..], 384));
    assert!(w.packed(LayoutId::CANONICAL).is_none());
    let v = container.tensor(Stage::Unet, "v").unwrap().canonical();
    let low: Vec<u8> = v.chunks(2).map(|b| b[0]).collect();
    assert_eq!(low, [0, 32, 64, 96, 128, 1, 33, 65, 97, 129]);
}

#[test]
fn weights_over_the_limit_go_on_in_another_segment() {
    let mut plan = Plan::new();
    plan.set_segment_limit(200);
    for (name, n) in [("w0", 100), ("w1", 72), ("w2", 1), ("w3", 300), ("w4", 8)] {
        plan.add_tensor(Stage::VaeDecoder, TensorPlan::new(name, &[n], DType::U8));
    }
    let layout = plan.layout().unwrap();
    let mut out = Cursor::new(Vec::new());
    let fill = |p: &Placement, out: &mut dyn std::io::Write| {
        out.write_all(&vec![p.name.as_bytes()[1]; p.length as usize])
    };
    layout.write(&mut out, fill).unwrap();
    let container = tiny::open(&out.into_inner()).unwrap();
    container.verify().unwrap();
    let places: Vec<(u16, u64)> = container
        .tensors(Stage::VaeDecoder)
        .map(|t| (t.variants()[0].part, t.variants()[0].offset))
        .collect();
    // w1 ends at 128 + 72 = 200; w2 would end at 257.
    assert_eq!(places, [(0, 0), (0, 128), (1, 0), (2, 0), (3, 0)]);
    for tensor in container.tensors(Stage::VaeDecoder) {
        let digit = tensor.name().as_bytes()[1];
        assert!(tensor.canonical().iter().all(|&b| b == digit), "{tensor:?}");
    }
}

#[test]
fn an_empty_plan_is_a_page() {
    let file = write(&Plan::new().layout().unwrap());
    assert_eq!(file.len() as u64, SEGMENT_ALIGN);
    let container = tiny::open(&file).unwrap();
    container.verify().unwrap();
    assert!(container.sections().is_empty());
}

#[test]
fn a_tensor_of_another_length_is_refused() {
    let layout = plan().layout().unwrap();
    let mut out = Cursor::new(Vec::new());
    let error = layout
        .write(&mut out, |_, out| out.write_all(&[0; 7]))
        .unwrap_err()
        .to_string();
    assert_eq!(error, "graph 'unet', weight 'b': 7 bytes written and not 2");
    let unfinished = tiny::open(&out.into_inner()).unwrap_err().to_string();
    assert!(unfinished.contains("not a .snap file"), "{unfinished}");
}

#[test]
fn plans_that_break_a_rule_are_refused() {
    let message = |tensors: &[TensorPlan]| {
        let mut plan = Plan::new();
        for tensor in tensors {
            plan.add_tensor(Stage::Unet, tensor.clone());
        }
        plan.layout().unwrap_err().to_string()
    };
    let tensor = |name: &str, shape: &[u64]| TensorPlan::new(name, shape, DType::F32);
    for (expected, tensors) in [
        (
            "weight 'w': planned twice",
            vec![tensor("w", &[1]), tensor("w", &[2])],
        ),
        ("has a dimension of 0", vec![tensor("w", &[2, 0])]),
        ("too many elements", vec![tensor("w", &[u64::MAX])]),
        ("rank of a tensor is 9", vec![tensor("w", &[1; 9])]),
        (
            "length of a name is 513",
            vec![tensor(&"w".repeat(513), &[1])],
        ),
        ("is empty", vec![tensor("", &[1])]),
        (
            "layout 0 is out of order",
            vec![tensor("w", &[1]).with_packed(LayoutId::CANONICAL, DType::F32, 4)],
        ),
        (
            "0 bytes do not fit",
            vec![tensor("w", &[1]).with_packed(LayoutId(2), DType::F32, 0)],
        ),
        (
            "layout 1 is out of order",
            vec![tensor("w", &[1, 1]).with_packed(LayoutId::PANELS, DType::F32, 128)],
        ),
        (
            "layout 1: 0 bytes do not fit shape [3] of f32",
            vec![TensorPlan::panels("w", &[3], DType::F32)],
        ),
        (
            "layout 1: 0 bytes do not fit shape [3, 2] of u4",
            vec![TensorPlan::panels("w", &[3, 2], DType::U4)],
        ),
        (
            "has a dimension of 0",
            vec![TensorPlan::panels("w", &[3, 0], DType::F32)],
        ),
        (
            "more than a file can hold",
            vec![
                tensor("v", &[1 << 58]),
                tensor("w", &[1]).with_packed(LayoutId(2), DType::F32, u64::MAX),
            ],
        ),
    ] {
        let text = message(&tensors);
        assert!(text.contains(expected), "{text}");
    }
    let mut plan = Plan::new();
    plan.set_metadata("k".repeat(257), "");
    let text = plan.layout().unwrap_err().to_string();
    assert_eq!(
        text,
        "the length of a metadata key is 257, a .snap file holds at most 256"
    );
}
