//! Files that are wrong in one place, and in random places: an error that names it, never a panic.

mod tiny;

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use snapc_format::{Container, FormatError, LayoutId, Problem, TableFault};

use tiny::{PAGE, problem, put, rehash_contents, set_section};

/// Position of a field of the table of contents.
fn entry(index: usize, field: usize) -> usize {
    64 + 64 * index + field
}

/// The problem after `bytes` are put at `at` and the contents hashed again.
fn with(at: usize, bytes: &[u8]) -> Problem {
    let mut file = tiny::file();
    put(&mut file, at, bytes);
    rehash_contents(&mut file);
    problem(&file)
}

/// Uses everything of a container.
fn exercise(container: &Container) -> Result<(), FormatError> {
    container.verify()?;
    for stage in container.stages() {
        container.segments(stage);
        for tensor in container.tensors(stage) {
            for variant in tensor.variants() {
                tensor.packed(variant.layout);
            }
            tensor.canonical();
        }
    }
    container.program().map(|_| ())
}

/// The beginning of a file.
struct Truncated(Arc<Vec<u8>>, usize);

impl AsRef<[u8]> for Truncated {
    fn as_ref(&self) -> &[u8] {
        &self.0[..self.1]
    }
}

#[test]
fn every_truncation_is_noticed() {
    let file = Arc::new(tiny::file());
    for n in 0..file.len() {
        let truncated = Arc::new(Truncated(Arc::clone(&file), n));
        let error = Container::from_bytes("tiny.snap", truncated).unwrap_err();
        assert!(
            matches!(error.problem, Problem::Length { actual, .. } if actual == n as u64),
            "{n} bytes: {error}"
        );
    }
    let mut longer = tiny::file();
    longer.push(0);
    assert!(matches!(problem(&longer), Problem::Length { .. }));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let mut file = tiny::file();
    let content = [
        0..64 + 5 * 64,
        PAGE..PAGE + 8,
        2 * PAGE..2 * PAGE + 30,
        3 * PAGE..3 * PAGE + 100,
    ];
    let weights = [
        4 * PAGE..4 * PAGE + 80,
        5 * PAGE..5 * PAGE + 8,
        6 * PAGE - 1..6 * PAGE,
    ];
    for at in content.into_iter().chain(weights).flatten() {
        for bit in 0..8 {
            file[at] ^= 1 << bit;
            let found = tiny::open(&file).and_then(|c| c.verify());
            assert!(found.is_err(), "bit {bit} of byte {at}");
            file[at] ^= 1 << bit;
        }
    }
    exercise(&tiny::open(&file).unwrap()).unwrap();
}

#[test]
fn damage_is_said_to_be_where_it_is() {
    let flipped = |at: usize| {
        let mut file = tiny::file();
        file[at] ^= 1;
        tiny::open(&file)
            .and_then(|c| c.verify())
            .unwrap_err()
            .to_string()
    };
    for (at, expected) in [
        (3, "not a .snap file"),
        (100, "header and table of contents are damaged"),
        (600, "byte 600 is padding and not zero"),
        (PAGE, "section 'program' is damaged"),
        (3 * PAGE + 9, "section 'tensor table of unet' is damaged"),
        (5 * PAGE + 4, "section 'weights of unet, part 1' is damaged"),
        (5 * PAGE + 5, "byte 81925 is padding and not zero"),
    ] {
        let text = flipped(at);
        assert!(
            text.starts_with("tiny.snap: ") && text.contains(expected),
            "{text}"
        );
    }
}

#[test]
fn padding_between_tensors_is_checked_although_its_hash_is_right() {
    let mut file = tiny::file();
    let mut segment = file[4 * PAGE..4 * PAGE + 72].to_vec();
    segment[63] = 1;
    set_section(&mut file, 3, &segment);
    let container = tiny::open(&file).unwrap();
    let error = container.verify().unwrap_err().to_string();
    assert!(error.contains("byte 65599 is padding"), "{error}");
}

#[test]
fn a_transfer_as_text_is_noticed() {
    let mut text = tiny::file();
    text.remove(5); // CR-LF to LF
    assert!(matches!(problem(&text), Problem::Magic));
    let mut stripped = tiny::file();
    stripped[0] &= 0x7f;
    assert!(matches!(problem(&stripped), Problem::Magic));
}

#[test]
fn another_major_version_is_refused_and_a_newer_minor_is_read() {
    assert!(matches!(with(8, &[2, 0]), Problem::Version { .. }));
    assert!(matches!(with(8, &[0, 0]), Problem::Version { .. }));
    let mut file = tiny::file();
    put(&mut file, 10, &[9, 0]);
    rehash_contents(&mut file);
    let container = tiny::open(&file).unwrap();
    assert_eq!(container.version().to_string(), "1.9");
    exercise(&container).unwrap();
}

#[test]
fn header_fields_are_bounded() {
    for (at, bytes) in [
        (12, 128u32), // a longer header, which minor version 0 does not have
        (12, 0),
        (24, 0), // offset of the table of contents
        (24, u32::MAX),
        (28, 63), // its length
        (28, 64 * 4097),
    ] {
        let mut file = tiny::file();
        put(&mut file, at, &bytes.to_le_bytes());
        let found = problem(&file);
        assert!(matches!(found, Problem::Header { .. }), "{at}: {found}");
    }
    let mut file = tiny::file();
    put(&mut file, 28, &(64u32 * 4096).to_le_bytes());
    assert!(
        matches!(problem(&file), Problem::Header { .. }),
        "beyond the file"
    );
}

#[test]
fn unknown_sections_are_skipped_when_optional_and_refused_when_critical() {
    let mut file = tiny::file();
    put(&mut file, entry(1, 0), &[99, 0, 0, 0]);
    rehash_contents(&mut file);
    let container = tiny::open(&file).unwrap();
    assert!(container.metadata().is_empty());
    exercise(&container).unwrap();

    put(&mut file, entry(1, 4), &[1, 0, 0, 0]);
    rehash_contents(&mut file);
    let found = problem(&file);
    assert!(
        matches!(found, Problem::UnknownSection { section } if section.kind == 99),
        "{found}"
    );
}

#[test]
fn entries_of_the_table_of_contents_are_checked() {
    assert!(matches!(
        with(entry(0, 4), &[3]),
        Problem::Flags { flags: 3, .. }
    ));
    for alignment in [0u32, 8192, 24 * 1024, 4 << 20] {
        let found = with(entry(0, 12), &alignment.to_le_bytes());
        assert!(matches!(found, Problem::Alignment { .. }), "{found}");
    }
    for offset in [0, 8192, 2 * PAGE as u64, u64::MAX, u64::MAX - 16383] {
        let found = with(entry(0, 16), &offset.to_le_bytes());
        assert!(
            matches!(
                found,
                Problem::Offset {
                    expected: 16384,
                    ..
                }
            ),
            "{found}"
        );
    }
    // A length over a page makes the next section overlap.
    let found = with(entry(0, 24), &(PAGE as u64 + 1).to_le_bytes());
    assert!(
        matches!(found, Problem::Padding { .. } | Problem::Offset { .. }),
        "{found}"
    );
    for length in [PAGE as u64 + 1, u64::MAX, u64::MAX - 81920, 1 << 63] {
        let found = with(entry(4, 24), &length.to_le_bytes());
        assert!(matches!(found, Problem::OutOfFile { .. }), "{found}");
    }
    let found = with(28, &(4u32 * 64).to_le_bytes());
    assert!(
        matches!(found, Problem::Padding { .. } | Problem::Header { .. }),
        "{found}"
    );
}

#[test]
fn sections_are_there_once_and_complete() {
    let id = |kind: u8, stage: u8, part: u8| [kind, 0, 0, 0, 1, 0, 0, 0, stage, 0, part, 0];
    let found = with(entry(1, 0), &id(1, 0, 0));
    assert!(
        matches!(found, Problem::Repeated { section } if section.kind == 1),
        "{found}"
    );
    // The table becomes another stage's: the weights are without one.
    let found = with(entry(2, 0), &id(2, 1, 0));
    let text = found.to_string();
    assert!(
        text.contains("section 'tensor table of text_encoder': tensor 'b'"),
        "{text}"
    );
    let found = with(entry(2, 0), &id(5, 0, 0)).to_string();
    assert!(
        found.contains("section 'tensor table of unet' is missing"),
        "{found}"
    );
    let found = with(entry(4, 0), &id(3, 2, 2)).to_string();
    assert!(
        found.contains("section 'weights of unet, part 1' is missing"),
        "{found}"
    );
}

/// The fault of the section at `index` after `change`.
fn fault(index: usize, change: impl FnOnce(&mut Vec<u8>)) -> TableFault {
    let mut file = tiny::file();
    let length = file[entry(index, 24)] as usize;
    let mut content = file[(1 + index) * PAGE..(1 + index) * PAGE + length].to_vec();
    change(&mut content);
    set_section(&mut file, index, &content);
    match problem(&file) {
        Problem::Table { fault, .. } => fault,
        other => panic!("{other}"),
    }
}

/// The fault of the tensor table with `bytes` put at `at`.
fn table(at: usize, bytes: &[u8]) -> TableFault {
    fault(2, |content| put(content, at, bytes))
}

#[test]
fn tensor_tables_are_checked() {
    let max = u64::MAX.to_le_bytes();
    // Positions: count 0; 'a' at 4 with name 8, dimension 9, variant 17; 'b' at 41 with name 45, variants 46 and 70.
    assert!(matches!(table(0, &[1]), TableFault::TrailingBytes(53)));
    assert!(matches!(table(0, &[3]), TableFault::Ended(_)));
    assert!(matches!(table(0, &[0xff; 4]), TableFault::Limit { .. }));
    assert!(matches!(table(4, &[0]), TableFault::EmptyName(4)));
    assert!(matches!(
        table(4, &[1, 2]),
        TableFault::Limit { value: 513, .. }
    ));
    assert!(matches!(table(6, &[9]), TableFault::Limit { value: 9, .. }));
    assert!(matches!(
        table(7, &[17]),
        TableFault::Limit { value: 17, .. }
    ));
    assert!(matches!(table(8, &[0xff]), TableFault::NotUtf8(8)));
    assert!(matches!(table(8, b"b"), TableFault::Order(n) if n == "b"));
    assert!(matches!(table(8, b"c"), TableFault::Order(n) if n == "b"));
    assert!(matches!(table(9, &[0]), TableFault::Shape { .. }));
    assert!(matches!(table(9, &max), TableFault::Shape { .. }));
    assert!(matches!(
        table(9, &[3]),
        TableFault::TensorLength { length: 8, .. }
    ));
    assert!(matches!(
        table(17, &[10]),
        TableFault::DType { code: 10, .. }
    ));
    // 'a' in panels has no depth; 'b' begins with a layout of some kernels, and then with both base layouts.
    assert!(matches!(
        table(19, &[1]),
        TableFault::TensorLength {
            layout: LayoutId::PANELS,
            ..
        }
    ));
    assert!(matches!(table(19, &[2]), TableFault::Variants { .. }));
    assert!(matches!(table(72, &[1]), TableFault::Variants { .. }));
    assert!(matches!(table(23, &[1]), TableFault::Limit { .. }));
    assert!(matches!(table(72, &[0]), TableFault::Variants { .. }));
    assert!(matches!(
        table(86, &[0]),
        TableFault::TensorLength { length: 0, .. }
    ));
    // Every prefix of the table ends too early.
    for n in 1..94 {
        let found = fault(2, |content| content.truncate(n));
        let expected = matches!(found, TableFault::Ended(_) | TableFault::Limit { .. });
        assert!(expected, "{n} bytes: {found}");
    }
}

#[test]
fn places_of_tensors_are_checked() {
    let max = u64::MAX.to_le_bytes();
    assert!(matches!(table(21, &[2]), TableFault::Place { part: 2, .. }));
    assert!(matches!(table(21, &[0xff, 0xff]), TableFault::Place { .. }));
    assert!(matches!(
        table(25, &[0x20]),
        TableFault::Place { offset: 32, .. }
    ));
    assert!(
        matches!(table(25, &[0]), TableFault::Place { .. }),
        "overlap"
    );
    assert!(matches!(table(25, &max), TableFault::Place { .. }));
    assert!(matches!(
        table(25, &0u64.wrapping_sub(64).to_le_bytes()),
        TableFault::Place { .. }
    ));
    assert!(matches!(table(86, &max), TableFault::Place { .. }));
    assert!(matches!(table(86, &[6]), TableFault::Place { .. }));
    assert!(matches!(
        table(86, &[4]),
        TableFault::Uncovered {
            part: 1,
            length: 5,
            end: 4
        }
    ));
}

#[test]
fn metadata_is_checked() {
    let at = |at: usize, bytes: &[u8]| fault(1, |content| put(content, at, bytes));
    assert!(matches!(at(0, &[0]), TableFault::TrailingBytes(18)));
    assert!(matches!(at(0, &[2]), TableFault::Ended(_)));
    assert!(matches!(at(0, &[0xff; 4]), TableFault::Limit { .. }));
    assert!(matches!(at(4, &[0xff; 4]), TableFault::Limit { .. }));
    assert!(matches!(at(8, &[0xff; 4]), TableFault::Limit { .. }));
    assert!(matches!(at(8, &[4]), TableFault::Ended(_)));
    assert!(matches!(at(12, &[0xc0]), TableFault::NotUtf8(12)));
    let twice = fault(1, |content| {
        let entry = content[4..].to_vec();
        content.extend(entry);
        content[0] = 2;
    });
    assert!(matches!(twice, TableFault::Order(key) if key == "license"));
}

#[test]
fn random_damage_gives_an_error_or_a_container_that_can_be_used() {
    let config = Config {
        cases: 3000,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(config, rng);
    // Header, table of contents, and the first bytes of the sections that are parsed.
    let spots: Vec<usize> = (0..384)
        .chain(2 * PAGE..2 * PAGE + 22)
        .chain(3 * PAGE..3 * PAGE + 94)
        .collect();
    let change = (prop::sample::select(spots), any::<u8>());
    let changes = prop::collection::vec(change, 1..5);
    runner
        .run(&(changes, any::<bool>()), |(changes, shorten)| {
            let mut file = tiny::file();
            for (at, byte) in changes {
                file[at] = byte;
            }
            // With its hashes right again, so that the damage gets past them.
            for index in [1, 2] {
                let length = (file[entry(index, 24)] as usize).min(200);
                let content = file[(1 + index) * PAGE..(1 + index) * PAGE + length].to_vec();
                if file[28..32] == [0x40, 1, 0, 0] {
                    set_section(&mut file, index, &content);
                }
            }
            if shorten {
                file.truncate(5 * PAGE);
            }
            if let Ok(container) = tiny::open(&file) {
                let _ = exercise(&container);
            }
            Ok(())
        })
        .unwrap();
}
