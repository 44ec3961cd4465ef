//! Programs and the other sections as bytes: what is written is read, and what is wrong is refused.

mod support;

use proptest::prelude::*;
use snapc_format::Stage;
use snapc_pipeline::{BetaSchedule, PredictionType, SchedulerConfig, TimestepSpacing};
use snapc_program::{
    Codebook, Codes, DecodeError, Dim, Graph, GraphError, Instruction, Op, Operand, Program,
    Rounding, ScheduleData, Storage, TokenizerData, Type, Unary, Weight,
};
use support::{coded_weights, every_op, push};

fn program() -> Program {
    let mut program = Program::new();
    program.insert(Stage::VaeDecoder, every_op());
    program.insert(Stage::TextEncoder, Graph::new());
    program
}

#[test]
fn every_instruction_is_read_as_written() {
    let bytes = program().encode().unwrap();
    assert_eq!(Program::decode(&bytes).unwrap(), program());
}

/// A small graph byte by byte, as `docs/native-format.md` has it.
#[test]
fn the_bytes_are_those_of_the_document() {
    let mut graph = Graph::new();
    let x = graph
        .input("x", Type::f32([Dim::Batch, Dim::Fixed(259)]))
        .unwrap();
    let weight = Weight {
        name: "w".to_owned(),
        storage: Storage::F32,
        dims: vec![259],
    };
    let w = graph.weight(weight).unwrap();
    graph
        .push(Instruction {
            name: "n".to_owned(),
            op: Op::LayerNorm { epsilon: 1.0 },
            operands: vec![x, w, w],
            rounding: Rounding::Bf16,
        })
        .unwrap();
    graph.output("y", 1).unwrap();
    let mut program = Program::new();
    program.insert(Stage::Unet, graph);
    let expected = [
        &[1, 0, 1, 0][..],
        &[2, 0],
        &[1, 0, 0, 0, 1, 0, b'x', 0, 2, 0, 0, 0, 0, 3, 1, 0, 0],
        &[1, 0, 0, 0, 1, 0, b'w', 0, 1, 3, 1, 0, 0],
        &[1, 0, 0, 0, 1, 0, b'n', 20, 0, 0, 0x80, 0x3f, 2, 3],
        &[0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0x80],
        &[1, 0, 0, 0, 1, 0, b'y', 1, 0, 0, 0],
    ];
    assert_eq!(program.encode().unwrap(), expected.concat());
}

/// A weight of codes byte by byte, as `docs/native-format.md` has it.
#[test]
fn the_bytes_of_codes_are_those_of_the_document() {
    let mut graph = Graph::new();
    coded_weights(&mut graph);
    let mut program = Program::new();
    program.insert(Stage::Unet, graph);
    let bytes = program.encode().unwrap();
    let dims = [2, 8, 0, 0, 0, 8, 0, 0, 0];
    let int8 = [&b"\x06\0codes8"[..], &[4, 8, 0, 0, 0, 0, 0], &dims];
    let int4 = [
        &b"\x06\0codes4"[..],
        &[4, 4, 1, 0, 0, 0, 1, 2, 0, 0, 0],
        &dims,
    ];
    let palette = [&b"\x06\0codes6"[..], &[5, 6, 3, 0, 0, 0], &dims];
    let expected = [int8.concat(), int4.concat(), palette.concat()].concat();
    assert!(bytes.windows(expected.len()).any(|w| w == expected));
    assert_eq!(Program::decode(&bytes), Ok(program));
}

#[test]
fn codes_go_with_what_they_stand_for() {
    let scales = |bits, scale, zero_point| Codes {
        bits,
        book: Codebook::Scales { scale, zero_point },
    };
    let palette = |bits, table| Codes {
        bits,
        book: Codebook::Palette { table },
    };
    // Weights 0 to 3: scales of one and of two blocks, zero points, palettes of 6 bits for two groups.
    let problem = |codes, dims: &[u32]| {
        let mut graph = Graph::new();
        coded_weights(&mut graph);
        let (name, dims) = ("w".to_owned(), dims.to_vec());
        let storage = Storage::Codes(codes);
        let weight = Weight {
            name,
            storage,
            dims,
        };
        graph.weight(weight).err().map(|error| error.to_string())
    };
    for (codes, dims) in [
        (scales(8, 0, None), &[8, 5][..]),
        (scales(4, 1, None), &[8, 3, 3, 6]),
        (scales(4, 1, Some(2)), &[8, 6]),
        (palette(6, 3), &[6, 7]),
    ] {
        assert_eq!(problem(codes, dims), None, "{codes:?}");
    }
    for (codes, dims, word) in [
        (scales(6, 0, None), &[8, 8][..], "4 or 8 bits"),
        (scales(8, 9, None), &[8, 8], "not declared"),
        (scales(8, 3, None), &[8, 8], "scales are"),
        (scales(8, 0, None), &[9, 8], "scales are"),
        (scales(8, 1, None), &[8, 2, 2, 3], "do not divide"),
        (scales(8, 0, Some(2)), &[8, 8], "zero points"),
        (scales(8, 0, Some(7)), &[8, 8], "not declared"),
        (scales(8, 0, None), &[8], "no valid type"),
        (palette(5, 3), &[8, 8], "1, 2, 3, 4, 6 or 8 bits"),
        (palette(4, 3), &[8, 8], "palettes are"),
        (palette(6, 3), &[7, 8], "palettes are"),
        (palette(6, 0), &[8, 8], "palettes are"),
    ] {
        let problem = problem(codes, dims).unwrap_or_default();
        assert!(problem.contains(word), "{codes:?}: {problem}");
    }
}

/// Whatever decodes is well typed, so it can be written again.
fn error_or_valid(bytes: &[u8]) {
    if let Ok(program) = Program::decode(bytes) {
        let again = program
            .encode()
            .expect("what was read is within the limits");
        assert_eq!(again, bytes);
    }
}

#[test]
fn no_changed_bit_is_a_panic() {
    let bytes = program().encode().unwrap();
    let mut changed = bytes.clone();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            changed[at] ^= 1 << bit;
            error_or_valid(&changed);
            changed[at] = bytes[at];
        }
        for extreme in [0, 0x7f, 0x80, 0xff] {
            changed[at] = extreme;
            error_or_valid(&changed);
            changed[at] = bytes[at];
        }
    }
}

#[test]
fn what_is_cut_or_too_long_is_refused() {
    let mut bytes = program().encode().unwrap();
    for end in 0..bytes.len() {
        let error = Program::decode(&bytes[..end]).unwrap_err();
        assert!(matches!(error, DecodeError::Ended(_)), "{end}: {error}");
    }
    bytes.push(0);
    assert_eq!(Program::decode(&bytes), Err(DecodeError::TrailingBytes(1)));
}

#[test]
fn counts_do_not_ask_for_memory() {
    // A graph of 2^32 - 1 inputs in ten bytes.
    let bytes = [1, 0, 1, 0, 2, 0, 0xff, 0xff, 0xff, 0xff];
    let error = Program::decode(&bytes).unwrap_err();
    assert!(error.to_string().contains("number of inputs"), "{error}");
}

#[test]
fn a_weight_or_a_stage_is_there_once() {
    let mut graph = Graph::new();
    for _ in 0..2 {
        let weight = Weight {
            name: "w".to_owned(),
            storage: Storage::F32,
            dims: vec![2],
        };
        graph.weight(weight).unwrap();
    }
    let mut program = Program::new();
    program.insert(Stage::Unet, graph);
    let error = Program::decode(&program.encode().unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "graph unet: weight 'w' is there twice");

    let empty_graph = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let twice = [&[1, 0, 2, 0], &empty_graph[..], &empty_graph].concat();
    let stage = Stage::Unet;
    assert_eq!(Program::decode(&twice), Err(DecodeError::Stages { stage }));
}

#[test]
fn types_are_derived_again() {
    let mut graph = Graph::new();
    let x = graph.input("x", Type::f32([Dim::Fixed(6)])).unwrap();
    push(
        &mut graph,
        Op::View {
            dims: vec![Dim::Fixed(2), Dim::Fixed(3)],
        },
        &[x],
    );
    let mut program = Program::new();
    program.insert(Stage::Unet, graph);
    let mut bytes = program.encode().unwrap();
    let three = bytes.windows(4).rposition(|w| w == [3, 0, 0, 0]).unwrap();
    bytes[three] = 4;
    let error = Program::decode(&bytes).unwrap_err();
    let DecodeError::Graph {
        stage: Stage::Unet,
        source,
    } = error
    else {
        panic!("{error}")
    };
    let GraphError::Infer { name, .. } = *source else {
        panic!("{source}")
    };
    assert_eq!(name, "block.view");
}

#[test]
fn what_exceeds_the_format_is_not_written() {
    let mut graph = Graph::new();
    let x = graph.input("x", Type::f32([Dim::Fixed(1)])).unwrap();
    push(&mut graph, Op::Concat { axis: 0 }, &[x; 65]);
    let mut program = Program::new();
    program.insert(Stage::Unet, graph);
    let error = program.encode().unwrap_err();
    assert_eq!(
        (error.what, error.value, error.limit),
        ("number of operands", 65, 64)
    );

    let mut graph = Graph::new();
    graph.input("x".repeat(513), Type::f32([])).unwrap();
    program.insert(Stage::Unet, graph);
    let error = program.encode().unwrap_err();
    assert_eq!((error.what, error.value), ("length of the name", 513));
}

fn schedule() -> ScheduleData {
    ScheduleData {
        scheduler: SchedulerConfig {
            train_steps: 1000,
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: BetaSchedule::ScaledLinear,
            prediction_type: PredictionType::VPrediction,
            timestep_spacing: TimestepSpacing::Trailing,
            steps_offset: 1,
            set_alpha_to_one: true,
        },
        scaling_factor: 0.18215,
        steps: 8,
        guidance: 7.5,
    }
}

#[test]
fn a_schedule_is_read_as_written() {
    let bytes = schedule().encode();
    assert_eq!(ScheduleData::decode(&bytes), Ok(schedule()));
    for end in 0..bytes.len() {
        let error = ScheduleData::decode(&bytes[..end]).unwrap_err();
        assert!(matches!(error, DecodeError::Ended(_)), "{end}: {error}");
    }
}

#[test]
fn a_schedule_that_cannot_be_is_refused() {
    let edited = |edit: fn(&mut ScheduleData)| {
        let mut data = schedule();
        edit(&mut data);
        ScheduleData::decode(&data.encode())
            .unwrap_err()
            .to_string()
    };
    let cases = [
        (
            edited(|d| d.scheduler.train_steps = usize::MAX),
            "number of training steps",
        ),
        (edited(|d| d.scheduler.beta_start = f64::NAN), "first beta"),
        (edited(|d| d.scheduler.beta_end = 1.0), "last beta"),
        (edited(|d| d.scheduler.steps_offset = 1 << 20), "offset"),
        (edited(|d| d.scaling_factor = 0.0), "scaling factor"),
        (edited(|d| d.steps = 1001), "number of steps"),
        (edited(|d| d.steps = 0), "number of steps"),
        (edited(|d| d.guidance = f32::INFINITY), "guidance"),
    ];
    for (error, word) in cases {
        assert!(error.contains(word), "{error}");
    }
    let mut bytes = schedule().encode();
    bytes[22] = 9;
    let error = ScheduleData::decode(&bytes).unwrap_err().to_string();
    assert_eq!(error, "9 before byte 23 is no beta schedule");
}

#[test]
fn a_tokenizer_is_read_as_written() {
    let merges = b"#version: 0.2\nc a\nca t</w>\n".to_vec();
    let data = TokenizerData {
        pad: 515,
        length: 6,
        merges,
    };
    let bytes = data.encode();
    assert_eq!(TokenizerData::decode(&bytes), Ok(data.clone()));
    let tokenizer = data.tokenizer().unwrap();
    assert_eq!(tokenizer.encode("Cat"), [514, 513, 515, 515, 515, 515]);
    let long = TokenizerData {
        length: u32::MAX,
        ..data
    };
    assert!(TokenizerData::decode(&long.encode()).is_err());
}

proptest! {
    #[test]
    fn any_chain_is_read_as_written(
        dims in prop::collection::vec(1..9u32, 0..5),
        batch in prop::option::of(0..5usize),
        names in prop::collection::vec(".{0,20}", 0..20),
        roundings in prop::collection::vec(0..3usize, 20),
        functions in prop::collection::vec(0..9usize, 20),
    ) {
        let mut dims: Vec<Dim> = dims.into_iter().map(Dim::Fixed).collect();
        if let Some(slot) = batch.and_then(|at| dims.get_mut(at)) {
            *slot = Dim::Batch;
        }
        let all = [
            Unary::Silu, Unary::Gelu, Unary::QuickGelu, Unary::Sigmoid, Unary::Exp, Unary::Sqrt, Unary::Sin,
            Unary::Cos, Unary::Erf,
        ];
        let mut graph = Graph::new();
        let mut x = graph.input("x", Type::f32(dims)).unwrap();
        for (i, name) in names.into_iter().enumerate() {
            let rounding = [Rounding::None, Rounding::F16, Rounding::Bf16][roundings[i]];
            let op = Op::Unary(all[functions[i]]);
            x = graph.push(Instruction { name, op, operands: vec![x], rounding }).unwrap();
        }
        let Operand::Value(value) = x else { panic!("a value") };
        graph.output("y", value).unwrap();
        let mut program = Program::new();
        program.insert(Stage::Unet, graph);
        let bytes = program.encode().unwrap();
        prop_assert_eq!(Program::decode(&bytes).unwrap(), program);
    }

    #[test]
    fn any_bytes_are_a_program_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let [a, b, ..] = &mut bytes[..] {
            (*a, *b) = (1, 0);
        }
        error_or_valid(&bytes);
    }
}
