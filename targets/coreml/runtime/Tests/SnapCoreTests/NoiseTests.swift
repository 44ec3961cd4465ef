import Foundation
import XCTest

@testable import SnapCore

/// Expected numbers are bits of `torch.randn` (torch 2.15, x86 with AVX2).
final class NoiseTests: XCTestCase {
    private func assertTorch(seed: UInt64, _ expected: [UInt32], line: UInt = #line) {
        let found = TorchNoise.normal(seed: seed, count: expected.count)
        assertClose(found, expected.map(Float.init(bitPattern:)), tolerance: 1e-6, "seed \(seed)", line: line)
    }

    func testInitialLatentsOfARecordedRunAreMadeAgain() throws {
        let reference = try Safetensors(contentsOf: Fixtures.file("tiny/reference.safetensors"))
        let latents = try reference.floats("init_latents")
        XCTAssertEqual(latents.shape, [1, 4, 16, 16])
        let noise = TorchNoise.normal(seed: try ReferenceRun(reference).seed, count: latents.values.count)
        assertClose(noise, latents.values, tolerance: 1e-6)
    }

    // numpy on torch.rand(16384) of seed 0: logarithm, sine and cosine in f64 rounded to f32, the rest in f32. Such bits
    // are correctly rounded, so any machine has them.
    func testBitsAreThoseOfCorrectlyRoundedFunctions() {
        let found = TorchNoise.normal(seed: 0, count: 16_384).map(\.bitPattern)
        let expected: [UInt32] = [
            0xbf90_1b85, 0xbf93_808a, 0xbe80_4bd6, 0xbede_255e, 0x3f59_4515, 0x3f31_2784, 0xbea1_cc6d, 0xc007_5fc1,
        ]
        XCTAssertEqual(Array(found.prefix(8)), expected)
        XCTAssertEqual(found.reduce(UInt64(0)) { $0 + UInt64($1) }, 35_105_613_352_112)
    }

    func testCountsThatAreNoMultipleOfABlockRedrawTheEnd() {
        assertTorch(
            seed: 3,
            [
                0xbd9c_f7af, 0x3f6e_5e2c, 0xbf03_b3c8, 0xbfd3_69c6, 0x3f85_e413, 0x3f05_ae0c, 0xbe2a_d005, 0x3d59_398d,
                0x3ecf_28ab, 0x4010_6b6f, 0x3fef_43ea, 0xbf98_fd70, 0x3f7f_77d8, 0x3eeb_19b3, 0x401b_edee, 0xbe16_54e2,
                0x3ef8_60dd,
            ])
        assertTorch(
            seed: 4_294_967_295,
            [
                0xc02a_83da, 0xbf8b_a77b, 0x3ee7_241e, 0x3e69_d763, 0x3ff3_05e9, 0x3fc8_37ff, 0xbfa0_b0f0, 0x3f4b_2c45,
                0xbfe0_30fa, 0xbf35_ad3e, 0x3f9b_f026, 0x3e63_9494, 0xc021_043f, 0x3ef7_ae5f, 0x3f57_7f53, 0x3e10_4a9c,
                0x3fe5_8e21, 0xbf60_67e3, 0xbfd2_b169, 0xbf09_cb50, 0x3e9c_c8c4, 0xbdd2_fa37, 0xbf9b_e92f, 0xbf74_369d,
                0x3f43_5fa7, 0x400a_71c7, 0xbd01_e5da, 0x3f74_0d40, 0x3f63_3bb5, 0xbff1_628a, 0xbf86_40e5, 0xbf36_06aa,
                0x3d25_5c1b, 0xbf08_4a3e, 0xbefc_f608, 0x3f77_2708, 0xbdf3_ff63,
            ])
    }

    func testOnlyTheLowBitsOfTheSeedCount() {
        assertTorch(
            seed: (1 << 32) + 3,
            [
                0xbd9c_f7af, 0x3eb8_4264, 0xbf48_3241, 0x3d92_7d22, 0x3f85_e413, 0x3f05_ae0c, 0xbe2a_d005, 0x3d59_398d,
                0x3ecf_28ab, 0x3f1c_7e22, 0x3f42_a8f2, 0xbd09_cd84, 0x3f7f_77d8, 0x3eeb_19b3, 0x401b_edee, 0xbe16_54e2,
                0x3ef8_60dd, 0x3e52_28f6, 0x3ead_4676, 0x3fad_270b,
            ])
    }

    func testFewerThanABlockComeFromTheOtherGenerator() {
        assertTorch(seed: 0, [0x3fc5_3f5c])
        assertTorch(seed: 7, [0xbe16_5174, 0x3f49_408e, 0x3f72_62e7, 0xbf8e_a2d3, 0x3fd8_6bd0])
        assertTorch(
            seed: 1,
            [
                0x3f29_4e60, 0x3e88_aa47, 0x3d7c_a14b, 0x3f1f_0ea7, 0xbee7_6038, 0xbe2a_1e0b, 0xbfc2_ea14, 0x3ec3_6c13,
                0xbf83_88ae, 0xbf10_243a, 0xbf64_6d27, 0xbd6e_97bd, 0xbe48_33aa, 0xbf77_33eb, 0x3ed8_46d2,
            ])
        XCTAssertEqual(TorchNoise.normal(seed: 1, count: 0), [])
    }

    // The C++ standard, [rand.predef]: the 10,000th output of a default-seeded mt19937 (seed 5489) is 4123659995.
    func testTheGeneratorIsThatOfTheStandard() {
        var generator = MersenneTwister(seed: 5489)
        for _ in 1..<10_000 {
            _ = generator.next()
        }
        XCTAssertEqual(generator.next(), 4_123_659_995)
    }

    func testElementaryFunctionsAgreeWithTheCLibrary() {
        // Every argument has 24 bits like a uniform number; 65,537 is odd, so the arguments spread over all of them.
        for step: UInt32 in 0..<20_000 {
            let bits: UInt32 = ((step &* 65_537) & 0x00ff_ffff) + 1
            let x = Double(bits) / 16_777_216
            XCTAssertEqual(naturalLogarithm(x), log(x), accuracy: 4e-15, "ln \(x)")
            let angle = 2 * Double.pi * x
            let (sine, cosine) = sineAndCosine(angle)
            XCTAssertEqual(sine, sin(angle), accuracy: 1e-15, "sin \(angle)")
            XCTAssertEqual(cosine, cos(angle), accuracy: 1e-15, "cos \(angle)")
        }
    }
}
