//! The entry point of a NIF library.

use std::ffi::{CStr, c_int, c_void};
use std::sync::OnceLock;

use rustler::codegen_runtime::{ErlNifEntry, inventory};
use rustler::sys::{ErlNifEnv, ErlNifTerm};

use crate::handle::Opens;

/// Declares the library's entry for an Elixir module, with every `#[rustler::nif]` of the crate.
///
/// ```ignore
/// chatterbex_nif::nif_library!(c"Elixir.Chatterbex.Native.Audio");
/// ```
///
/// A second argument names the library's [`Handles`](crate::Handles).
#[macro_export]
macro_rules! nif_library {
    ($module:expr) => {
        $crate::nif_library!($module, []);
    };
    ($module:expr, $handles:expr) => {
        /// Called by the VM when it loads the library.
        #[unsafe(no_mangle)]
        pub extern "C" fn nif_init() -> *const ::rustler::codegen_runtime::ErlNifEntry {
            static HANDLES: &[&dyn $crate::Opens] = &$handles;
            $crate::library_entry($module, HANDLES)
        }
    };
}

/// An entry lives as long as the process, and never changes.
struct Entry(ErlNifEntry);

// SAFETY: the pointers inside are to leaked or static data that nobody writes to.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

static ENTRY: OnceLock<Entry> = OnceLock::new();
static HANDLES: OnceLock<&'static [&'static dyn Opens]> = OnceLock::new();

/// Creates the entry on the first call, and returns the same one on every later call.
pub fn library_entry(
    module: &'static CStr,
    handles: &'static [&'static dyn Opens],
) -> *const ErlNifEntry {
    HANDLES.get_or_init(|| handles);
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

unsafe extern "C" fn load(env: *mut ErlNifEnv, _: *mut *mut c_void, _: ErlNifTerm) -> c_int {
    pin();
    // SAFETY: this is the load callback, and the environment is its own.
    unsafe { open_handles(env) }
}

// The state of a library is in its statics, which the new module's code shares with the old module's. Only the
// types of its handles belong to the module.
unsafe extern "C" fn upgrade(
    env: *mut ErlNifEnv,
    _: *mut *mut c_void,
    _: *mut *mut c_void,
    _: ErlNifTerm,
) -> c_int {
    // SAFETY: this is the upgrade callback, and the environment is its own.
    unsafe { open_handles(env) }
}

/// Returns 0 if all handles could be opened, as the callbacks must.
unsafe fn open_handles(env: *mut ErlNifEnv) -> c_int {
    let handles = HANDLES.get().copied().unwrap_or_default();
    // SAFETY: as the caller promises.
    let opened = handles.iter().all(|handles| unsafe { handles.open(env) });
    c_int::from(!opened)
}

/// Keeps this library mapped when the VM closes it: threads may still run its code.
fn pin() {
    // SAFETY: dladdr only reads the link map. Its path is that of this library, so dlopen finds the library
    // loaded already, and only marks it as never to be unloaded.
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
