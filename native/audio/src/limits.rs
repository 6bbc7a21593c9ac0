//! Limits on the size of decoded audio, and checks that the caller still waits for it.

use crate::error::AudioError;

/// A file of any size may hold this many samples: six minutes in one channel at 48 kHz.
const ALWAYS: u64 = 1 << 24;
/// The most samples per byte, on average. Even hours of silence in Vorbis, the densest format, have fewer.
const MOST_PER_BYTE: u64 = 1024;

/// How much audio may be read from a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest duration, in seconds.
    pub max_seconds: u32,
    /// The most samples, in all channels together.
    pub max_samples: u64,
}

impl Limits {
    /// Checks a number of samples before they are decoded or kept.
    ///
    /// # Errors
    /// `LongerThan`, `MoreThan`, `TooDense`, in that order.
    pub fn check(
        &self,
        samples: u64,
        frames_per_second: u32,
        channels: u16,
        file_bytes: usize,
    ) -> Result<(), AudioError> {
        let a_second = u64::from(frames_per_second) * u64::from(channels);

        if samples > u64::from(self.max_seconds).saturating_mul(a_second) {
            Err(AudioError::LongerThan {
                seconds: self.max_seconds,
            })
        } else if samples > self.max_samples {
            Err(AudioError::MoreThan {
                samples: self.max_samples,
            })
        } else if samples > ALWAYS.max((file_bytes as u64).saturating_mul(MOST_PER_BYTE)) {
            Err(AudioError::TooDense { bytes: file_bytes })
        } else {
            Ok(())
        }
    }
}

/// The caller that waits for a result.
#[derive(Clone, Copy)]
pub struct Caller<'a>(&'a dyn Fn() -> bool);

impl<'a> Caller<'a> {
    /// A caller that waits as long as `waits` returns true.
    pub fn new(waits: &'a dyn Fn() -> bool) -> Self {
        Self(waits)
    }

    /// A caller that waits forever.
    pub fn patient() -> Caller<'static> {
        Caller(&|| true)
    }

    /// Checks that the caller still waits. Call it between parts of long work that take milliseconds each.
    ///
    /// # Errors
    /// `Abandoned` if the caller no longer waits.
    pub fn check(&self) -> Result<(), AudioError> {
        if (self.0)() {
            Ok(())
        } else {
            Err(AudioError::Abandoned)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        max_seconds: 10_000,
        max_samples: 100_000_000,
    };

    #[test]
    fn the_limit_that_was_reached_is_named() {
        let check = |samples, bytes| LIMITS.check(samples, 8_000, 2, bytes);

        assert_eq!(check(1 << 24, 1), Ok(()));
        assert_eq!(
            check((1 << 24) + 1, 1),
            Err(AudioError::TooDense { bytes: 1 })
        );
        assert_eq!(check(100_000_000, 100_000), Ok(()));
        assert_eq!(
            check(100_000_001, 100_000),
            Err(AudioError::MoreThan {
                samples: 100_000_000
            })
        );
        assert_eq!(
            check(160_000_001, 100_000),
            Err(AudioError::LongerThan { seconds: 10_000 })
        );
        assert!(LIMITS.check(u64::MAX, u32::MAX, u16::MAX, 1).is_err());
    }

    #[test]
    fn a_caller_may_leave() {
        assert_eq!(Caller::patient().check(), Ok(()));
        assert_eq!(Caller::new(&|| false).check(), Err(AudioError::Abandoned));
    }
}
