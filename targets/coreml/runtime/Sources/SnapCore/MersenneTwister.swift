/// The generator MT19937 of Matsumoto and Nishimura, seeded as PyTorch's CPU generator is.
struct MersenneTwister {
    /// Words of the state.
    private static let size = 624

    /// Distance of the word that is mixed in.
    private static let distance = 397

    /// Words, made anew when all are used.
    private var state: [UInt32]
    private var used = size

    init(seed: UInt32) {
        state = [seed]
        state.reserveCapacity(Self.size)
        for index in 1..<UInt32(Self.size) {
            let before = state[state.count - 1]
            state.append(1_812_433_253 &* (before ^ (before >> 30)) &+ index)
        }
    }

    /// The next 32 random bits.
    mutating func next() -> UInt32 {
        if used == Self.size {
            renew()
        }
        var word = state[used]
        used += 1
        word ^= word >> 11
        word ^= (word << 7) & 0x9d2c_5680
        word ^= (word << 15) & 0xefc6_0000
        return word ^ (word >> 18)
    }

    private mutating func renew() {
        for index in 0..<Self.size {
            let joined = (state[index] & 0x8000_0000) | (state[(index + 1) % Self.size] & 0x7fff_ffff)
            let twist: UInt32 = joined & 1 == 1 ? 0x9908_b0df : 0
            state[index] = state[(index + Self.distance) % Self.size] ^ (joined >> 1) ^ twist
        }
        used = 0
    }
}
