//! Binaries that may be too large.

use std::mem::MaybeUninit;

use rustler::sys::{ErlNifBinary, enif_alloc_binary};
use rustler::{Binary, Env, OwnedBinary};

/// A zeroed binary of so many bytes, or `None` where there is no memory for it (rustler's own
/// constructor ends the process).
pub fn try_binary(bytes: usize) -> Option<OwnedBinary> {
    let raw = allocate(bytes)?;

    // SAFETY: the memory is ours and `bytes` long.
    unsafe {
        std::ptr::write_bytes(raw.data, 0, bytes);
        Some(OwnedBinary::from_raw(raw))
    }
}

/// A binary with a copy of `from`, or `None` where there is no memory for it.
pub fn try_copy(from: &[u8]) -> Option<OwnedBinary> {
    let raw = allocate(from.len())?;

    // SAFETY: the memory is ours, new, and as long as `from`.
    unsafe {
        std::ptr::copy_nonoverlapping(from.as_ptr(), raw.data, from.len());
        Some(OwnedBinary::from_raw(raw))
    }
}

/// Samples in a binary that grows. Nothing is copied when it becomes a term.
pub struct GrowingBinary {
    binary: OwnedBinary,
    used: usize,
}

impl GrowingBinary {
    /// An empty binary, or `None` where there is no memory for it.
    pub fn new() -> Option<Self> {
        let binary = try_binary(0)?;
        Some(Self { binary, used: 0 })
    }

    /// Appends 32-bit little-endian floats. False, and nothing appended, where there is no memory.
    #[must_use]
    pub fn extend(&mut self, samples: &[f32]) -> bool {
        let Some(used) = self.used.checked_add(4 * samples.len()) else {
            return false;
        };

        let room = self.binary.as_slice().len();
        if used > room {
            let roomy = used.max(room / 2 * 3);
            if !self.binary.realloc(roomy) && !self.binary.realloc(used) {
                return false;
            }
        }

        // SAFETY: the binary is at least `used` bytes long, and `[u8; 4]` needs no alignment.
        unsafe {
            let to = self.binary.as_mut_slice().as_mut_ptr().add(self.used);
            for (at, sample) in samples.iter().enumerate() {
                to.cast::<[u8; 4]>().add(at).write(sample.to_le_bytes());
            }
        }
        self.used = used;
        true
    }

    /// The binary as a term.
    pub fn release(mut self, env: Env<'_>) -> Binary<'_> {
        if self.binary.realloc(self.used) {
            return self.binary.release(env);
        }

        // It could not shrink: the rest of it stays unseen.
        let whole = self.binary.release(env);
        match whole.make_subbinary(0, self.used) {
            Ok(part) => part,
            Err(_) => whole,
        }
    }
}

fn allocate(bytes: usize) -> Option<ErlNifBinary> {
    let mut raw = MaybeUninit::uninit();

    // SAFETY: the struct is filled in exactly when the call returns non-zero.
    unsafe {
        match enif_alloc_binary(bytes, raw.as_mut_ptr()) {
            0 => None,
            _ => Some(raw.assume_init()),
        }
    }
}
