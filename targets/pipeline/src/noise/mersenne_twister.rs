//! The generator MT19937 of Matsumoto and Nishimura, seeded as PyTorch's CPU generator is.

/// Words of the state.
const N: usize = 624;

/// Distance of the word that is mixed in.
const M: usize = 397;

/// The state of 624 words, made anew when all are used.
#[derive(Clone, Debug)]
pub(super) struct MersenneTwister {
    state: [u32; N],
    used: usize,
}

impl MersenneTwister {
    /// The generator of a seed.
    pub(super) fn new(seed: u32) -> Self {
        let mut state = [seed; N];
        for i in 1..N {
            let before = state[i - 1];
            state[i] = 1_812_433_253_u32
                .wrapping_mul(before ^ (before >> 30))
                .wrapping_add(i as u32);
        }
        Self { state, used: N }
    }

    /// The next 32 random bits.
    pub(super) fn next(&mut self) -> u32 {
        if self.used == N {
            self.renew();
        }
        let mut word = self.state[self.used];
        self.used += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    fn renew(&mut self) {
        for i in 0..N {
            let joined = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let twist = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + M) % N] ^ (joined >> 1) ^ twist;
        }
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The C++ standard, [rand.predef]: the 10,000th output of a default-seeded mt19937 (seed 5489) is 4123659995.
    #[test]
    fn the_ten_thousandth_output_is_that_of_the_standard() {
        let mut generator = MersenneTwister::new(5489);
        for _ in 1..10_000 {
            generator.next();
        }
        assert_eq!(generator.next(), 4_123_659_995);
    }
}
