//! Levels in decibels of full scale.

/// Converts decibels to a factor.
pub fn factor(decibels: f64) -> f64 {
    10f64.powf(decibels / 20.0)
}

/// Converts a factor to decibels; 0 becomes negative infinity.
pub fn decibels(factor: f64) -> f64 {
    20.0 * factor.log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        assert_eq!(factor(0.0), 1.0);
        assert!((factor(-20.0) - 0.1).abs() < 1e-12);
        assert!((decibels(0.5) + 6.0206).abs() < 1e-4);
        assert_eq!(decibels(0.0), f64::NEG_INFINITY);
    }
}
