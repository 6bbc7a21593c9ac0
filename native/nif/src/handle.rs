//! Rust values that live as long as Elixir holds a reference to them.

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

/// Something that a library opens when it is loaded.
pub trait Opens: Sync {
    /// Opens it, or takes it over from the module's old code. Returns false if the VM refuses.
    ///
    /// # Safety
    /// Call it in a library's load or upgrade callback, with the callback's environment.
    unsafe fn open(&self, env: *mut ErlNifEnv) -> bool;
}

/// A type of handle: a term that refers to a value of type `T`. The value is dropped when no process has the
/// term any more.
///
/// Unlike rustler's own resources, new code of the module can take these over, so no old pointers remain.
pub struct Handles<T> {
    name: &'static CStr,
    kind: AtomicPtr<ErlNifResourceType>,
    values: PhantomData<fn() -> T>,
}

impl<T: Send + 'static> Handles<T> {
    /// Keep it in a static, and pass it to [`nif_library!`](crate::nif_library).
    pub const fn new(name: &'static CStr) -> Self {
        Self {
            name,
            kind: AtomicPtr::new(null_mut()),
            values: PhantomData,
        }
    }

    /// Creates a handle to a value, or returns `None` if there is no memory for it.
    pub fn make<'a>(&self, env: Env<'a>, value: T) -> Option<Term<'a>> {
        let kind = self.kind.load(Ordering::Acquire);
        if kind.is_null() {
            return None;
        }

        // SAFETY: the type was opened, and the object has room for a pointer. Once the term exists, it holds
        // the object, so the allocation's own reference can be released.
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

    /// The value that a term refers to, if the term is a handle of this type.
    pub fn get(&self, term: Term) -> Option<Arc<Mutex<T>>> {
        let kind = self.kind.load(Ordering::Acquire);
        let mut object: *const c_void = null();

        // SAFETY: an object of this type holds a pointer from `make`, which only the destructor removes. The
        // term keeps the destructor from running during this call.
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
    // A panic must not reach the VM, and nobody can receive the error.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
}
