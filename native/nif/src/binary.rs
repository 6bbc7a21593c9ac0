//! Binaries that may be too large for the memory.

use std::mem::MaybeUninit;

use rustler::sys::{ErlNifBinary, enif_alloc_binary};
use rustler::{Binary, Env, OwnedBinary};

/// Creates a zeroed binary of `bytes` bytes. Returns `None` if there is no memory for it; rustler's own constructor
/// would end the process.
pub fn try_binary(bytes: usize) -> Option<OwnedBinary> {
    let raw = allocate(bytes)?;

    // SAFETY: the memory is ours and `bytes` long.
    unsafe {
        std::ptr::write_bytes(raw.data, 0, bytes);
        Some(OwnedBinary::from_raw(raw))
    }
}

/// Creates a binary with a copy of `from`, or returns `None` if there is no memory for it.
pub fn try_copy(from: &[u8]) -> Option<OwnedBinary> {
    let raw = allocate(from.len())?;

    // SAFETY: the memory is ours, new, and as long as `from`.
    unsafe {
        std::ptr::copy_nonoverlapping(from.as_ptr(), raw.data, from.len());
        Some(OwnedBinary::from_raw(raw))
    }
}

/// Samples in a growing binary. It becomes a term without a copy.
pub struct GrowingBinary {
    binary: OwnedBinary,
    used: usize,
}

impl GrowingBinary {
    /// Creates an empty binary, or returns `None` if there is no memory for it.
    pub fn new() -> Option<Self> {
        let binary = try_binary(0)?;
        Some(Self { binary, used: 0 })
    }

    /// Appends 32-bit little-endian floats. Returns false and appends nothing if there is no memory.
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

        // If it could not shrink, its unused rest stays hidden.
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
