//! Binaries that may be too large.

use std::mem::MaybeUninit;

use rustler::OwnedBinary;
use rustler::sys::{ErlNifBinary, enif_alloc_binary};

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
