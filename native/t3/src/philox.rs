//! Philox 4x32-10: random numbers from a counter, without a state.
//!
//! Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

/// The four random words that belong to a counter and a key.
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut a, mut b, mut c, mut d] = counter;
    let [mut k, mut l] = key;
    for _ in 0..10 {
        let first = u64::from(a) * 0xd251_1f53;
        let second = u64::from(c) * 0xcd9e_8d57;
        (a, b, c, d) = (
            (second >> 32) as u32 ^ b ^ k,
            second as u32,
            (first >> 32) as u32 ^ d ^ l,
            first as u32,
        );
        k = k.wrapping_add(0x9e37_79b9);
        l = l.wrapping_add(0xbb67_ae85);
    }
    [a, b, c, d]
}

/// A number from 0 to 1, excluding 1, for a step of a seed's speech and an attempt at it.
///
/// It has 53 random bits: the first two words of Philox for the counter (step, attempt, 0, 0) and the
/// seed as the key.
pub fn uniform(seed: u64, step: u32, attempt: u32) -> f64 {
    let [low, high, ..] = philox([step, attempt, 0, 0], [seed as u32, (seed >> 32) as u32]);
    let bits = u64::from(high) << 32 | u64::from(low);
    (bits >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From kat_vectors of Random123.
    #[test]
    fn the_published_vectors_come_out() {
        let known = [
            (
                [0; 4],
                [0; 2],
                [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            ),
            (
                [u32::MAX; 4],
                [u32::MAX; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, words) in known {
            assert_eq!(philox(counter, key), words);
        }
    }

    #[test]
    fn uniform_numbers_are_even() {
        let mut counts = [0_u32; 10];
        for step in 0..100_000 {
            let u = uniform(7, step, 0);
            assert!((0.0..1.0).contains(&u));
            counts[(u * 10.0) as usize] += 1;
        }
        // five standard deviations
        assert!(
            counts.iter().all(|n| n.abs_diff(10_000) < 475),
            "{counts:?}"
        );
        assert_ne!(uniform(7, 0, 0), uniform(7, 0, 1));
        assert_ne!(uniform(7, 0, 0), uniform(7, 1, 0));
        assert_ne!(uniform(7, 0, 0), uniform(7 + (1 << 32), 0, 0));
    }
}
