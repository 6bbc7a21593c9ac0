//! Moves packed weights into huge pages, while the engine already computes with them.
//!
//! A step reads all weights, and is about a quarter faster if they are in huge pages. But for each of them, Linux may
//! first have to move other memory out of the way. For a large model that takes seconds, so loading does not wait for it.

#[cfg(all(target_os = "linux", not(miri)))]
pub use linux::HugePages;

#[cfg(all(target_os = "linux", not(miri)))]
mod linux {
    use std::ffi::c_void;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::JoinHandle;

    use crate::memory::{HUGE, Memory, moves_into_huge_pages};

    /// The thread that moves memory. Dropping it ends the thread.
    #[derive(Debug)]
    pub struct HugePages {
        stop: Arc<AtomicBool>,
        thread: Option<JoinHandle<()>>,
    }

    impl HugePages {
        /// Begins to move `memory`. If that fails, the memory stays where it is.
        ///
        /// # Safety
        /// The memory must live longer than the value that is returned.
        pub unsafe fn begin<'a>(memory: impl Iterator<Item = &'a Memory>) -> Self {
            let starts: Vec<usize> = memory
                .flat_map(|memory| {
                    let start = memory.start::<u8>() as usize;
                    (start..start + memory.bytes() / HUGE * HUGE).step_by(HUGE)
                })
                .collect();
            let stop = Arc::new(AtomicBool::new(false));
            let stopped = Arc::clone(&stop);
            let work = move || {
                for start in starts {
                    if stopped.load(Ordering::Relaxed) {
                        break;
                    }
                    // SAFETY: the memory is alive, as the caller promised. The advice does not change its contents.
                    unsafe { libc::madvise(start as *mut c_void, HUGE, libc::MADV_COLLAPSE) };
                }
            };
            let thread = std::thread::Builder::new().name("t3-pages".into());
            Self {
                stop,
                thread: moves_into_huge_pages()
                    .then(|| thread.spawn(work).ok())
                    .flatten(),
            }
        }

        /// Waits until it has finished.
        #[cfg(test)]
        pub fn wait(mut self) {
            if let Some(thread) = self.thread.take() {
                thread.join().unwrap();
            }
        }
    }

    impl Drop for HugePages {
        fn drop(&mut self) {
            self.stop.store(true, Ordering::Relaxed);
            if let Some(thread) = self.thread.take() {
                // A page takes some milliseconds.
                let _ended = thread.join();
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn filled(count: usize) -> Memory {
            let memory = Memory::for_weights::<u32>(count).unwrap();
            for place in 0..count {
                // SAFETY: within the memory.
                unsafe { memory.start::<u32>().add(place).write(place as u32) };
            }
            memory
        }

        /// Kilobytes of the mapping with this address that are in huge pages.
        fn huge(memory: &Memory) -> usize {
            let address = memory.start::<u8>() as usize;
            let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let mut within = false;
            for line in maps.lines() {
                let mut words = line.split_whitespace();
                let first = words.next().unwrap();
                if let Some((from, to)) = first.split_once('-') {
                    let number = |text| usize::from_str_radix(text, 16);
                    if let (Ok(from), Ok(to)) = (number(from), number(to)) {
                        within = (from..to).contains(&address);
                    }
                } else if within && first == "AnonHugePages:" {
                    return words.next().unwrap().parse().unwrap();
                }
            }
            0
        }

        #[test]
        fn memory_moves_into_huge_pages_and_keeps_its_contents() {
            if !moves_into_huge_pages() {
                return;
            }
            let count = (3 * HUGE + 100) / 4;
            let memory = filled(count);
            assert_eq!(huge(&memory), 0);
            // SAFETY: the memory lives longer.
            unsafe { HugePages::begin(std::iter::once(&memory)) }.wait();
            // SAFETY: within the memory, to which nobody writes any more.
            let contents = unsafe { std::slice::from_raw_parts(memory.start::<u32>(), count) };
            assert!(contents.iter().copied().eq(0..count as u32));
            // A system may have no memory left for them.
            assert!(huge(&memory) <= 3 * HUGE / 1024);
        }

        #[test]
        fn dropping_it_ends_the_thread() {
            let memory: Vec<_> = (0..4).map(|_| filled(2 * HUGE / 4)).collect();
            // SAFETY: the memory lives longer.
            let pages = unsafe { HugePages::begin(memory.iter()) };
            let stop = Arc::downgrade(&pages.stop);
            drop(pages);
            assert_eq!(stop.strong_count(), 0);
        }
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
mod elsewhere {
    use crate::memory::Memory;

    /// Does nothing on this system.
    #[derive(Debug)]
    pub struct HugePages;

    impl HugePages {
        /// Does nothing.
        ///
        /// # Safety
        /// Safe here.
        pub unsafe fn begin<'a>(_memory: impl Iterator<Item = &'a Memory>) -> Self {
            Self
        }
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
pub use elsewhere::HugePages;
