//! The sections of a `.snap` file: what decodes is well typed, has a plan of its memory, and encodes to the same bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
// For its bound on memory.
use snapc_fuzz as _;
use snapc_program::{Program, ScheduleData, TokenizerData, plan};

fuzz_target!(|input: &[u8]| {
    let Some((&kind, bytes)) = input.split_first() else {
        return;
    };
    match kind % 4 {
        0 => tokenizer(bytes),
        1 => schedule(bytes),
        _ => program(bytes),
    }
});

fn program(bytes: &[u8]) {
    let Ok(program) = Program::decode(bytes) else {
        return;
    };
    let encoded = program.encode().expect("what was read can be written");
    assert_eq!(encoded, bytes);
    for (_, graph) in program.graphs() {
        for batch in [1, 2] {
            let Ok(plan) = plan(graph, batch) else {
                continue;
            };
            for (value, ty) in (0..).zip(graph.values()) {
                let place = plan.place(value);
                assert!(place.end <= plan.words(), "value {value}: {place:?}");
                let elements: usize = ty.bind(batch).iter().product();
                assert!(place.len() >= elements, "value {value}: {place:?}");
            }
        }
    }
}

fn tokenizer(bytes: &[u8]) {
    let Ok(data) = TokenizerData::decode(bytes) else {
        return;
    };
    assert_eq!(data.encode(), bytes);
    if let Ok(tokenizer) = data.tokenizer() {
        assert_eq!(tokenizer.encode("a").len(), data.length as usize);
    }
}

fn schedule(bytes: &[u8]) {
    let Ok(data) = ScheduleData::decode(bytes) else {
        return;
    };
    assert_eq!(data.encode(), bytes);
    let steps = data.steps as usize;
    if let Ok(schedule) = snapc_pipeline::schedule(&data.scheduler, steps) {
        assert_eq!(schedule.len(), steps);
    }
}
