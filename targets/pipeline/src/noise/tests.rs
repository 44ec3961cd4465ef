use super::*;

/// Numbers of torch 2.15 on an x86 processor with AVX2, as bits.
fn assert_torch(seed: u64, expected: &[u32]) {
    assert_near(&standard_normal(seed, expected.len()), expected);
}

fn assert_near(found: &[f32], expected: &[u32]) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, bits)) in found.iter().zip(expected).enumerate() {
        let expected = f32::from_bits(*bits);
        let error = (found - expected).abs();
        assert!(error <= 1e-6, "value {index}: {found}, expected {expected}");
    }
}

// torch's code without vector instructions, where the angle is computed in f64: the eighth differs by a bit.
#[test]
fn torch_without_vector_instructions_is_near() {
    let expected = [
        0xbf901b85, 0xbf93808a, 0xbe804bd6, 0xbede255e, 0x3f594515, 0x3f312784, 0xbea1cc6d,
        0xc0075fc2,
    ];
    // A block is 16 numbers; these are its first half.
    assert_near(&standard_normal(0, 16)[..8], &expected);
}

// numpy on torch.rand(16384) of seed 0: logarithm, sine and cosine in f64 rounded to f32, the rest in f32. Such bits are
// correctly rounded, so any machine has them.
#[test]
fn bits_are_those_of_correctly_rounded_functions() {
    let found: Vec<u32> = standard_normal(0, 16_384)
        .iter()
        .map(|v| v.to_bits())
        .collect();
    let expected = [
        0xbf901b85, 0xbf93808a, 0xbe804bd6, 0xbede255e, 0x3f594515, 0x3f312784, 0xbea1cc6d,
        0xc0075fc1,
    ];
    assert_eq!(found[..8], expected);
    let sum: u64 = found.iter().copied().map(u64::from).sum();
    assert_eq!(sum, 35_105_613_352_112);
}

#[test]
fn counts_that_are_no_multiple_of_a_block_redraw_the_end() {
    let seventeen = [
        0xbd9cf7af, 0x3f6e5e2c, 0xbf03b3c8, 0xbfd369c6, 0x3f85e413, 0x3f05ae0c, 0xbe2ad005,
        0x3d59398d, 0x3ecf28ab, 0x40106b6f, 0x3fef43ea, 0xbf98fd70, 0x3f7f77d8, 0x3eeb19b3,
        0x401bedee, 0xbe1654e2, 0x3ef860dd,
    ];
    assert_torch(3, &seventeen);
    let thirty_seven = [
        0xc02a83da, 0xbf8ba77b, 0x3ee7241e, 0x3e69d763, 0x3ff305e9, 0x3fc837ff, 0xbfa0b0f0,
        0x3f4b2c45, 0xbfe030fa, 0xbf35ad3e, 0x3f9bf026, 0x3e639494, 0xc021043f, 0x3ef7ae5f,
        0x3f577f53, 0x3e104a9c, 0x3fe58e21, 0xbf6067e3, 0xbfd2b169, 0xbf09cb50, 0x3e9cc8c4,
        0xbdd2fa37, 0xbf9be92f, 0xbf74369d, 0x3f435fa7, 0x400a71c7, 0xbd01e5da, 0x3f740d40,
        0x3f633bb5, 0xbff1628a, 0xbf8640e5, 0xbf3606aa, 0x3d255c1b, 0xbf084a3e, 0xbefcf608,
        0x3f772708, 0xbdf3ff63,
    ];
    assert_torch(4_294_967_295, &thirty_seven);
}

#[test]
fn only_the_low_bits_of_the_seed_count() {
    let twenty = [
        0xbd9cf7af, 0x3eb84264, 0xbf483241, 0x3d927d22, 0x3f85e413, 0x3f05ae0c, 0xbe2ad005,
        0x3d59398d, 0x3ecf28ab, 0x3f1c7e22, 0x3f42a8f2, 0xbd09cd84, 0x3f7f77d8, 0x3eeb19b3,
        0x401bedee, 0xbe1654e2, 0x3ef860dd, 0x3e5228f6, 0x3ead4676, 0x3fad270b,
    ];
    assert_torch((1 << 32) + 3, &twenty);
}

#[test]
fn fewer_than_a_block_come_from_the_other_generator() {
    assert_torch(0, &[0x3fc53f5c]);
    assert_torch(
        7,
        &[0xbe165174, 0x3f49408e, 0x3f7262e7, 0xbf8ea2d3, 0x3fd86bd0],
    );
    let fifteen = [
        0x3f294e60, 0x3e88aa47, 0x3d7ca14b, 0x3f1f0ea7, 0xbee76038, 0xbe2a1e0b, 0xbfc2ea14,
        0x3ec36c13, 0xbf8388ae, 0xbf10243a, 0xbf646d27, 0xbd6e97bd, 0xbe4833aa, 0xbf7733eb,
        0x3ed846d2,
    ];
    assert_torch(1, &fifteen);
    assert_eq!(standard_normal(1, 0), []);
}

#[test]
fn elementary_functions_agree_with_the_standard_library() {
    // Every argument has 24 bits like a uniform number; 65,537 is odd, so the arguments spread over all of them.
    for i in 0..100_000_u32 {
        let bits = (i.wrapping_mul(65_537) & 0x00ff_ffff) + 1;
        let x = f64::from(bits) / f64::from(1 << 24);
        assert!((ln(x) - x.ln()).abs() <= 4e-15, "ln {x}");
        let (sin, cos) = sin_cos(TAU * x);
        let (expected_sin, expected_cos) = (TAU * x).sin_cos();
        assert!((sin - expected_sin).abs() <= 1e-15, "sin {x}");
        assert!((cos - expected_cos).abs() <= 1e-15, "cos {x}");
    }
}
