//! Zeroed memory for numbers, aligned to cache lines, in huge pages if the system has them.
//!
//! With huge pages, the processor needs fewer page entries to stream the memory.

use std::ptr::NonNull;

use crate::error::{Error, Result};

/// The size of a huge page. Memory from this size on asks for them.
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) const HUGE: usize = 2 << 20;
const ALIGNMENT: usize = 64;

/// Whether the system can move memory into huge pages later. Linux can from version 6.1 on.
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) fn moves_into_huge_pages() -> bool {
    // SAFETY: no memory is named. An unknown advice is an error even so.
    unsafe { libc::madvise(std::ptr::null_mut(), 0, libc::MADV_COLLAPSE) == 0 }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn moves_into_huge_pages() -> bool {
    false
}

/// A piece of zeroed memory. Pages that are never written take no room.
#[derive(Debug)]
pub struct Memory {
    start: NonNull<u8>,
    bytes: usize,
    #[cfg(all(target_os = "linux", not(miri)))]
    mapped: (NonNull<u8>, usize),
}

// SAFETY: it owns its memory, as a Vec does.
unsafe impl Send for Memory {}
// SAFETY: shared references return only pointers; the code that follows them is responsible.
unsafe impl Sync for Memory {}

impl Memory {
    /// Memory for `count` numbers of type `T`.
    pub fn of<T: Copy>(count: usize) -> Result<Self> {
        Self::zeroed(Self::size::<T>(count)?, true)
    }

    /// The same, but in small pages if [`HugePages`](crate::huge_pages::HugePages) can replace them later.
    pub fn for_weights<T: Copy>(count: usize) -> Result<Self> {
        Self::zeroed(Self::size::<T>(count)?, !moves_into_huge_pages())
    }

    fn size<T>(count: usize) -> Result<usize> {
        match count.checked_mul(size_of::<T>()) {
            Some(bytes) if bytes <= isize::MAX as usize / 2 => Ok(bytes.max(1)),
            _ => Err(Error::memory(usize::MAX)),
        }
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    fn zeroed(bytes: usize, at_once: bool) -> Result<Self> {
        let huge = bytes >= HUGE;
        let whole = if huge { bytes + HUGE } else { bytes };
        // SAFETY: a new anonymous mapping does not touch existing memory.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                whole,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        let base = match NonNull::new(base.cast::<u8>()) {
            Some(base) if base.as_ptr().cast() != libc::MAP_FAILED => base,
            _ => return Err(Error::memory(bytes)),
        };
        let skip = if huge {
            base.as_ptr().align_offset(HUGE)
        } else {
            0
        };
        // SAFETY: `skip` is less than HUGE, and the mapping is that much longer.
        let start = unsafe { base.add(skip) };
        if huge && at_once {
            // SAFETY: the range lies within the mapping. It is advice: whether it is followed does not matter.
            unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
        }
        Ok(Self {
            start,
            bytes,
            mapped: (base, whole),
        })
    }

    #[cfg(not(all(target_os = "linux", not(miri))))]
    fn zeroed(bytes: usize, _at_once: bool) -> Result<Self> {
        let layout = Self::layout(bytes)?;
        // SAFETY: the layout is not empty.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        match NonNull::new(start) {
            Some(start) => Ok(Self { start, bytes }),
            None => Err(Error::memory(bytes)),
        }
    }

    #[cfg(not(all(target_os = "linux", not(miri))))]
    fn layout(bytes: usize) -> Result<std::alloc::Layout> {
        std::alloc::Layout::from_size_align(bytes, ALIGNMENT).map_err(|_| Error::memory(bytes))
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its start, aligned to 64 bytes.
    pub fn start<T: Copy>(&self) -> *mut T {
        const { assert!(align_of::<T>() <= ALIGNMENT) };
        self.start.as_ptr().cast()
    }
}

impl Drop for Memory {
    #[cfg(all(target_os = "linux", not(miri)))]
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody has a reference into it any more.
        unsafe { libc::munmap(self.mapped.0.as_ptr().cast(), self.mapped.1) };
    }

    #[cfg(not(all(target_os = "linux", not(miri))))]
    fn drop(&mut self) {
        if let Ok(layout) = Self::layout(self.bytes) {
            // SAFETY: allocated with this layout.
            unsafe { std::alloc::dealloc(self.start.as_ptr(), layout) };
        }
    }
}

/// Memory that grows to the requested size and never shrinks. Its contents are not kept.
#[derive(Debug, Default)]
pub struct Scratch(Option<Memory>);

impl Scratch {
    /// Room for `count` float32 numbers with arbitrary values.
    pub fn room(&mut self, count: usize) -> Result<*mut f32> {
        match &self.0 {
            Some(memory) if memory.bytes() / size_of::<f32>() >= count => Ok(memory.start()),
            _ => {
                self.0 = None;
                Ok(self.0.insert(Memory::of::<f32>(count)?).start())
            }
        }
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, Memory::bytes)
    }
}

/// A pointer through which pieces of work on several threads write, each to its own places.
#[derive(Debug, Clone, Copy)]
pub struct Shared<T>(pub *mut T);

impl<T> Shared<T> {
    /// The pointer.
    #[inline(always)]
    pub fn get(&self) -> *mut T {
        self.0
    }
}

// SAFETY: a pointer is a number; the code that follows it is responsible.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zeroed_and_aligned() {
        for count in [1, 100, 3 << 20] {
            let memory = Memory::of::<f32>(count).unwrap();
            let start = memory.start::<f32>();
            assert_eq!(start as usize % 64, 0);
            // SAFETY: within the memory.
            unsafe {
                assert_eq!(*start, 0.0);
                assert_eq!(*start.add(count - 1), 0.0);
                *start.add(count - 1) = 1.0;
            }
        }
    }

    #[test]
    fn too_much_is_an_error() {
        assert!(Memory::of::<f32>(usize::MAX).is_err());
        assert!(Memory::of::<f32>(usize::MAX / 16).is_err());
    }
}
