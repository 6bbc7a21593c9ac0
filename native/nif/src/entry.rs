//! The entry point of a NIF library.

use std::ffi::{CStr, c_int, c_void};
use std::sync::OnceLock;

use rustler::codegen_runtime::{ErlNifEntry, inventory};
use rustler::sys::{ErlNifEnv, ErlNifTerm};

/// Declares the library's entry for an Elixir module, with every `#[rustler::nif]` of the crate.
///
/// ```ignore
/// chatterbex_nif::nif_library!(c"Elixir.Chatterbex.Native.Audio");
/// ```
#[macro_export]
macro_rules! nif_library {
    ($module:expr) => {
        /// Called by the VM when it loads the library.
        #[unsafe(no_mangle)]
        pub extern "C" fn nif_init() -> *const ::rustler::codegen_runtime::ErlNifEntry {
            $crate::library_entry($module)
        }
    };
}

/// An entry lives as long as the process and never changes once made.
struct Entry(ErlNifEntry);

// SAFETY: the pointers inside are to leaked or static data that nobody writes to.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

static ENTRY: OnceLock<Entry> = OnceLock::new();

/// Makes the entry on the first call and returns the same one ever after.
pub fn library_entry(module: &'static CStr) -> *const ErlNifEntry {
    let entry = ENTRY.get_or_init(|| {
        // SAFETY: called by the VM while it loads the library, before any NIF runs.
        unsafe { rustler::codegen_runtime::internal_write_symbols() };

        let functions: Vec<_> = inventory::iter::<rustler::Nif>()
            .map(rustler::Nif::get_def)
            .collect();
        let functions: &'static [_] = Vec::leak(functions);

        let mut entry = ErlNifEntry::new(module, functions, load);
        entry.upgrade = Some(upgrade);
        Entry(entry)
    });

    &entry.0
}

unsafe extern "C" fn load(_: *mut ErlNifEnv, _: *mut *mut c_void, _: ErlNifTerm) -> c_int {
    pin();
    0
}

// The state of a library is in its statics, which the new module's code shares with the old's:
// nothing is to be handed over.
unsafe extern "C" fn upgrade(
    _: *mut ErlNifEnv,
    _: *mut *mut c_void,
    _: *mut *mut c_void,
    _: ErlNifTerm,
) -> c_int {
    0
}

/// Keeps this library mapped when the VM closes it: threads may still run its code.
fn pin() {
    // SAFETY: dladdr only reads the link map; the path it gives is that of this library, so that
    // dlopen finds it loaded already and merely marks it as one that is never unloaded.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        let here = pin as fn() as *const c_void;

        if libc::dladdr(here, &mut info) != 0 && !info.dli_fname.is_null() {
            libc::dlopen(
                info.dli_fname,
                libc::RTLD_NOW | libc::RTLD_NOLOAD | libc::RTLD_NODELETE,
            );
        }
    }
}
