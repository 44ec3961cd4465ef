/// Gaussian noise that means the same as in PyTorch: `torch.randn` of a CPU generator with the same seed.
///
/// The generator is a 32-bit Mersenne Twister. Uniform numbers become normal ones by the Box-Muller transform, in blocks
/// of 16. PyTorch itself differs by up to 2e-6 between processors: x86 with AVX2 multiplies by 2 pi in f32 and has
/// polynomials for logarithm, sine and cosine; elsewhere 2 pi is f64 and the functions are the C library's. Here the angle
/// is that of AVX2, and the functions are computed in f64 from additions, multiplications and divisions alone and rounded
/// once: the same bits on every machine, within 1e-6 of PyTorch with AVX2.
public enum TorchNoise {
    /// PyTorch turns uniform numbers into normal ones in blocks of this many.
    private static let block = 16

    /// `count` normal numbers, as `torch.randn(count, generator=torch.Generator().manual_seed(seed))` gives them in f32.
    ///
    /// - Parameters:
    ///   - seed: Of the seed only the low 32 bits count.
    ///   - count: How many, not negative.
    public static func normal(seed: UInt64, count: Int) -> [Float] {
        precondition(count >= 0, "a number of values")
        var generator = MersenneTwister(seed: UInt32(truncatingIfNeeded: seed))
        if count < block {
            return few(&generator, count: count)
        }
        var values = (0..<count).map { _ in uniform(&generator) }
        for start in stride(from: 0, through: count - block, by: block) {
            transform(&values, from: start)
        }
        if count % block != 0 {
            // The last block overlaps the one before and is drawn anew.
            let tail = count - block
            for index in tail..<count {
                values[index] = uniform(&generator)
            }
            transform(&values, from: tail)
        }
        return values
    }

    /// A uniform number in [0, 1) of 24 bits.
    private static func uniform(_ generator: inout MersenneTwister) -> Float {
        Float(generator.next() & 0x00ff_ffff) / Float(1 << 24)
    }

    /// Turns 16 uniform numbers into normal ones, the j-th together with the one 8 behind it.
    private static func transform(_ values: inout [Float], from start: Int) {
        for first in start..<(start + block / 2) {
            let second = first + block / 2
            let radius = (-2 * Float(naturalLogarithm(Double(1 - values[first])))).squareRoot()
            // The multiplication in f32 is AVX2's.
            let (sine, cosine) = sineAndCosine(Double(Float(2 * Double.pi) * values[second]))
            values[first] = radius * Float(cosine)
            values[second] = radius * Float(sine)
        }
    }

    /// Fewer than 16 numbers are drawn in f64 and in pairs, the cosine first.
    private static func few(_ generator: inout MersenneTwister, count: Int) -> [Float] {
        func uniform() -> Double {
            let high = UInt64(generator.next()) << 32
            let bits = (high | UInt64(generator.next())) & ((1 << 53) - 1)
            return Double(bits) / Double(UInt64(1) << 53)
        }
        var values: [Float] = []
        while values.count < count {
            let (sine, cosine) = sineAndCosine(2 * Double.pi * uniform())
            let radius = (-2 * naturalLogarithm(1 - uniform())).squareRoot()
            values += [Float(radius * cosine), Float(radius * sine)]
        }
        return Array(values.prefix(count))
    }
}
