//! Rust values that live as long as Elixir refers to them.

use std::ffi::{CStr, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{NonNull, null, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex};

use rustler::sys::{
    ErlNifEnv, ErlNifResourceDtor, ErlNifResourceFlags, ErlNifResourceType, ErlNifResourceTypeInit,
    enif_alloc_resource, enif_get_resource, enif_make_resource, enif_open_resource_type_x,
    enif_release_resource,
};
use rustler::{Env, Term};

/// What a library opens when it is loaded.
pub trait Opens: Sync {
    /// Opens it, or takes it over from the module's old code. False where the VM refuses.
    ///
    /// # Safety
    /// To be called in a library's load or upgrade callback, with its environment.
    unsafe fn open(&self, env: *mut ErlNifEnv) -> bool;
}

/// A kind of handle: a term that stands for a value of type `T`, which is dropped when no process
/// has the term any more.
///
/// Rustler's own resources cannot be taken over by new code of their module, which leaves old
/// pointers behind: these can.
pub struct Handles<T> {
    name: &'static CStr,
    kind: AtomicPtr<ErlNifResourceType>,
    values: PhantomData<fn() -> T>,
}

impl<T: Send + 'static> Handles<T> {
    /// To be kept in a static, and named to [`nif_library!`](crate::nif_library).
    pub const fn new(name: &'static CStr) -> Self {
        Self {
            name,
            kind: AtomicPtr::new(null_mut()),
            values: PhantomData,
        }
    }

    /// A handle of a value, or `None` where there is no memory for it.
    pub fn make<'a>(&self, env: Env<'a>, value: T) -> Option<Term<'a>> {
        let kind = self.kind.load(Ordering::Acquire);
        if kind.is_null() {
            return None;
        }

        // SAFETY: the type was opened, and the object has room for a pointer. The term holds the
        // object once it is made, so that the reference of its allocation can be given back.
        unsafe {
            let object = NonNull::new(enif_alloc_resource(kind, size_of::<*const ()>()))?;
            let value: *const Mutex<T> = Arc::into_raw(Arc::new(Mutex::new(value)));
            object
                .cast::<*const Mutex<T>>()
                .as_ptr()
                .write_unaligned(value);
            let term = enif_make_resource(env.as_c_arg(), object.as_ptr());
            enif_release_resource(object.as_ptr());
            Some(Term::new(env, term))
        }
    }

    /// The value that a term stands for, if it is a handle of this kind.
    pub fn get(&self, term: Term) -> Option<Arc<Mutex<T>>> {
        let kind = self.kind.load(Ordering::Acquire);
        let mut object: *const c_void = null();

        // SAFETY: an object of this kind holds a pointer that `make` put there and that only the
        // destructor takes away. The term keeps it from running during this call.
        unsafe {
            let env = term.get_env().as_c_arg();
            if kind.is_null() || enif_get_resource(env, term.as_c_arg(), kind, &mut object) == 0 {
                return None;
            }
            let value = object.cast::<*const Mutex<T>>().read_unaligned();
            Arc::increment_strong_count(value);
            Some(Arc::from_raw(value))
        }
    }
}

impl<T: Send + 'static> Opens for Handles<T> {
    unsafe fn open(&self, env: *mut ErlNifEnv) -> bool {
        let init = ErlNifResourceTypeInit {
            dtor: drop_value::<T> as *const ErlNifResourceDtor,
            stop: null(),
            down: null(),
        };
        let open = |flags| {
            let mut tried = ErlNifResourceFlags::ERL_NIF_RT_CREATE;
            // SAFETY: as the caller promises; what is pointed to lives longer than the call.
            unsafe { enif_open_resource_type_x(env, self.name.as_ptr(), &init, flags, &mut tried) }
        };

        let mut kind = open(ErlNifResourceFlags::ERL_NIF_RT_TAKEOVER);
        if kind.is_null() {
            kind = open(ErlNifResourceFlags::ERL_NIF_RT_CREATE);
        }
        self.kind.store(kind.cast_mut(), Ordering::Release);
        !kind.is_null()
    }
}

unsafe extern "C" fn drop_value<T>(_: *mut ErlNifEnv, object: *mut c_void) {
    // SAFETY: called once for each object, by the VM, when no term refers to it any more.
    let value = unsafe { Arc::from_raw(object.cast::<*const Mutex<T>>().read_unaligned()) };
    // A panic must not reach the VM; there is nobody to tell.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
}
