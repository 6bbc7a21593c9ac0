//! The processor's rounding mode, which other libraries of the process may have changed.

/// Rounding to nearest, with subnormal numbers, on this thread as long as the value lives.
///
/// Some libraries make threads treat subnormal numbers as zero (`-ffast-math` does when one is loaded),
/// and threads inherit it from the thread that starts them. The results would differ from those elsewhere.
#[derive(Debug)]
pub struct Ieee {
    before: Option<State>,
}

impl Ieee {
    /// Sets the state. Dropping the value restores the old state.
    pub fn set() -> Self {
        let before = read();
        let changed = standard(before) != before;
        if changed {
            write(standard(before));
        }
        Self {
            before: changed.then_some(before),
        }
    }
}

impl Drop for Ieee {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            write(before);
        }
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod state {
    use std::arch::asm;

    pub type State = u32;

    // rounding mode (13, 14), flush to zero (15), denormals are zero (6)
    pub fn standard(state: State) -> State {
        state & !0xe040
    }

    pub fn read() -> State {
        let mut state: u32 = 0;
        // SAFETY: stores the register into our own variable.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut state, options(nostack, preserves_flags)) };
        state
    }

    pub fn write(state: State) {
        // SAFETY: the state was read from the register, some of its bits cleared.
        unsafe {
            asm!("ldmxcsr [{}]", in(reg) &raw const state, options(nostack, preserves_flags))
        };
    }
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
mod state {
    use std::arch::asm;

    pub type State = u64;

    // rounding mode (22, 23), flush to zero (24, 19), default NaN (25), alternative handling (1, 0)
    pub fn standard(state: State) -> State {
        state & !0x03c8_0003
    }

    pub fn read() -> State {
        let state: u64;
        // SAFETY: reads the register.
        unsafe { asm!("mrs {}, fpcr", out(reg) state, options(nomem, nostack, preserves_flags)) };
        state
    }

    pub fn write(state: State) {
        // SAFETY: the state was read from the register, some of its bits cleared.
        unsafe { asm!("msr fpcr, {}", in(reg) state, options(nostack, preserves_flags)) };
    }
}

#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
mod state {
    pub type State = ();

    pub fn standard((): State) -> State {}
    pub fn read() -> State {}
    pub fn write((): State) {}
}

use state::{State, read, standard, write};

#[cfg(all(test, target_arch = "x86_64", not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn subnormal_numbers_count_and_the_old_state_comes_back() {
        let before = read();
        write(before | 0x8040);
        let tiny = std::hint::black_box(1e-20_f32);
        assert_eq!(std::hint::black_box(tiny * tiny), 0.0);
        {
            let _ieee = Ieee::set();
            assert!(std::hint::black_box(std::hint::black_box(tiny) * 1e-20) > 0.0);
        }
        assert_eq!(read() & 0x8040, 0x8040);
        write(before);
    }
}
