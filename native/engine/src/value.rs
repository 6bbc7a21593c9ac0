//! Converts terms to Python objects and back. This is the only format between the two.
//!
//! | term | Python |
//! |---|---|
//! | `nil`, `true`, `false` | `None`, `True`, `False` |
//! | any other atom | `str` |
//! | integer of 64 bits, float | `int`, `float` |
//! | binary of UTF-8 | `str` |
//! | `{:bytes, binary}` | `bytes` |
//! | list | `list` |
//! | map with binary or atom keys | `dict` with `str` keys |
//!
//! | Python | term |
//! |---|---|
//! | `None`, `bool` | `nil`, `true`, `false` |
//! | `int` of 64 bits, `float` | integer, float (not finite: `nil`, as the VM has no such floats) |
//! | `str` | binary of UTF-8 |
//! | `bytes`, `bytearray` | binary |
//! | `list`, `tuple` | list |
//! | `dict` with `str` keys | map with binary keys |
//! | NumPy `float32` array, 1-D and contiguous | binary of 32-bit little-endian floats |
//! | NumPy scalar | as the corresponding Python number |

use std::ffi::c_void;

use chatterbex_nif::try_copy;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyNone, PyString, PyTuple,
};
use rustler::{Atom, Binary, Encoder, Env, MapIterator, Term, TermType};

/// The deepest nesting of values.
const DEPTH: usize = 32;

rustler::atoms! {
    nil,
    bytes,
}

/// Why a value cannot be converted, and its place in the whole.
#[derive(Debug, thiserror::Error)]
#[error("{what} at {}", if place.is_empty() { "the top" } else { place })]
pub struct ValueError {
    what: String,
    place: String,
}

impl ValueError {
    fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            place: String::new(),
        }
    }

    /// The same error, as seen from one level up.
    fn inside(mut self, place: impl std::fmt::Display) -> Self {
        self.place = format!("/{place}{}", self.place);
        self
    }
}

/// Converts a term to a Python object.
pub fn to_python<'py>(py: Python<'py>, term: Term) -> Result<Bound<'py, PyAny>, ValueError> {
    term_to_python(py, term, DEPTH)
}

/// Converts a Python object to a term of `env`.
pub fn to_term<'a>(env: Env<'a>, object: &Bound<'_, PyAny>) -> Result<Term<'a>, ValueError> {
    python_to_term(env, object, DEPTH)
}

fn deeper(depth: usize) -> Result<usize, ValueError> {
    depth
        .checked_sub(1)
        .ok_or_else(|| ValueError::new(format!("more than {DEPTH} levels of nesting")))
}

fn python_failed(error: PyErr) -> ValueError {
    ValueError::new(format!("Python says {error}"))
}

fn term_to_python<'py>(
    py: Python<'py>,
    term: Term,
    depth: usize,
) -> Result<Bound<'py, PyAny>, ValueError> {
    match term.get_type() {
        TermType::Atom => atom_to_python(py, term),
        TermType::Integer => match term.decode::<i64>() {
            Ok(integer) => Ok(PyInt::new(py, integer).into_any()),
            Err(_) => Err(ValueError::new("an integer of more than 64 bits")),
        },
        TermType::Float => match term.decode::<f64>() {
            Ok(float) => Ok(PyFloat::new(py, float).into_any()),
            Err(_) => Err(ValueError::new("a float that cannot be read")),
        },
        TermType::Binary => Ok(PyString::new(py, utf8(term)?).into_any()),
        TermType::List => {
            let depth = deeper(depth)?;
            let list = PyList::empty(py);
            // The iterator panics at the end of an improper list, so check its length first.
            let items = term
                .list_length()
                .and_then(|_| term.into_list_iterator())
                .map_err(|_| ValueError::new("an improper list"))?;
            for (index, item) in items.enumerate() {
                let item = term_to_python(py, item, depth).map_err(|error| error.inside(index))?;
                list.append(item).map_err(python_failed)?;
            }
            Ok(list.into_any())
        }
        TermType::Map => {
            let depth = deeper(depth)?;
            let dict = PyDict::new(py);
            let pairs = MapIterator::new(term).ok_or_else(|| ValueError::new("a map"))?;
            for (key, value) in pairs {
                let key = key_text(key)?;
                let value = term_to_python(py, value, depth).map_err(|error| error.inside(&key))?;
                dict.set_item(key, value).map_err(python_failed)?;
            }
            Ok(dict.into_any())
        }
        TermType::Tuple => match term.decode::<(Atom, Binary)>() {
            Ok((tag, binary)) if tag == bytes() => Ok(PyBytes::new(py, &binary).into_any()),
            _ => Err(ValueError::new("a tuple that is not {:bytes, binary}")),
        },
        other => Err(ValueError::new(format!("a term of type {other:?}"))),
    }
}

fn atom_to_python<'py>(py: Python<'py>, term: Term) -> Result<Bound<'py, PyAny>, ValueError> {
    if let Ok(boolean) = term.decode::<bool>() {
        return Ok(PyBool::new(py, boolean).to_owned().into_any());
    }
    if Atom::from_term(term).is_ok_and(|atom| atom == nil()) {
        return Ok(PyNone::get(py).to_owned().into_any());
    }
    match term.atom_to_string() {
        Ok(name) => Ok(PyString::new(py, &name).into_any()),
        Err(_) => Err(ValueError::new("an atom that cannot be read")),
    }
}

fn utf8<'a>(term: Term<'a>) -> Result<&'a str, ValueError> {
    let binary = Binary::from_term(term).map_err(|_| ValueError::new("a bitstring"))?;
    std::str::from_utf8(binary.as_slice()).map_err(|_| {
        ValueError::new("a binary that is not UTF-8 (send other bytes as {:bytes, binary})")
    })
}

fn key_text(term: Term) -> Result<String, ValueError> {
    match term.get_type() {
        TermType::Binary => utf8(term).map(str::to_owned),
        TermType::Atom => term
            .atom_to_string()
            .map_err(|_| ValueError::new("an atom that cannot be read")),
        other => Err(ValueError::new(format!("a map key of type {other:?}"))),
    }
}

fn python_to_term<'a>(
    env: Env<'a>,
    object: &Bound<'_, PyAny>,
    depth: usize,
) -> Result<Term<'a>, ValueError> {
    if object.is_none() {
        return Ok(nil().encode(env));
    }
    // bool before int: it is a subclass.
    if let Ok(boolean) = object.cast::<PyBool>() {
        return Ok(boolean.is_true().encode(env));
    }
    if let Ok(text) = object.cast::<PyString>() {
        return Ok(text.to_string_lossy().encode(env));
    }
    if let Ok(integer) = object.cast::<PyInt>() {
        return match integer.extract::<i64>() {
            Ok(integer) => Ok(integer.encode(env)),
            Err(_) => Err(ValueError::new("an int of more than 64 bits")),
        };
    }
    if let Ok(float) = object.cast::<PyFloat>() {
        let float = float.extract::<f64>().map_err(python_failed)?;
        return Ok(float_term(env, float));
    }
    if let Ok(dict) = object.cast::<PyDict>() {
        return dict_to_term(env, dict, deeper(depth)?);
    }
    if let Ok(list) = object.cast::<PyList>() {
        return items_to_term(env, list.iter(), deeper(depth)?);
    }
    if let Ok(tuple) = object.cast::<PyTuple>() {
        return items_to_term(env, tuple.iter(), deeper(depth)?);
    }
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return copy(env, bytes.as_bytes());
    }
    if let Ok(bytes) = object.cast::<PyByteArray>() {
        // SAFETY: the GIL is held, and no Python code runs while the bytes are copied.
        return copy(env, unsafe { bytes.as_bytes() });
    }
    if let Some(array) = Array::of(object)? {
        return array.to_term(env, object, depth);
    }
    Err(ValueError::new(format!(
        "a value of type {}",
        type_name(object)
    )))
}

fn float_term(env: Env, float: f64) -> Term {
    if float.is_finite() {
        float.encode(env)
    } else {
        nil().encode(env)
    }
}

fn dict_to_term<'a>(
    env: Env<'a>,
    dict: &Bound<'_, PyDict>,
    depth: usize,
) -> Result<Term<'a>, ValueError> {
    let mut keys = Vec::with_capacity(dict.len());
    let mut values = Vec::with_capacity(dict.len());

    for (key, value) in dict.iter() {
        let Ok(key) = key.cast::<PyString>() else {
            let what = format!("a dict key of type {}", type_name(&key));
            return Err(ValueError::new(what));
        };
        let key = key.to_string_lossy();
        let value = python_to_term(env, &value, depth).map_err(|error| error.inside(&key))?;
        keys.push(key.encode(env));
        values.push(value);
    }

    Term::map_from_term_arrays(env, &keys, &values)
        .map_err(|_| ValueError::new("a dict with a key twice"))
}

fn items_to_term<'a, 'py>(
    env: Env<'a>,
    items: impl Iterator<Item = Bound<'py, PyAny>>,
    depth: usize,
) -> Result<Term<'a>, ValueError> {
    let terms: Result<Vec<_>, _> = items
        .enumerate()
        .map(|(index, item)| python_to_term(env, &item, depth).map_err(|error| error.inside(index)))
        .collect();
    Ok(terms?.encode(env))
}

fn copy<'a>(env: Env<'a>, from: &[u8]) -> Result<Term<'a>, ValueError> {
    let binary = try_copy(from)
        .ok_or_else(|| ValueError::new(format!("{} bytes with no memory for them", from.len())))?;
    Ok(binary.release(env).encode(env))
}

fn type_name(object: &Bound<'_, PyAny>) -> String {
    match object.get_type().fully_qualified_name() {
        Ok(name) => name.to_string_lossy().into_owned(),
        Err(_) => "value of an unknown type".to_owned(),
    }
}

/// A NumPy array or scalar, by its array interface. (The stable ABI of Python 3.10 has no buffer
/// protocol.)
struct Array {
    kind: String,
    shape: Vec<usize>,
    contiguous: bool,
    address: usize,
}

impl Array {
    /// Reads the object's array interface, if it has one.
    fn of(object: &Bound<'_, PyAny>) -> Result<Option<Self>, ValueError> {
        let Ok(interface) = object.getattr("__array_interface__") else {
            return Ok(None);
        };

        let read = || -> PyResult<Self> {
            let strides = interface.get_item("strides")?;
            let (address, _read_only): (usize, bool) = interface.get_item("data")?.extract()?;
            Ok(Self {
                kind: interface.get_item("typestr")?.extract()?,
                shape: interface.get_item("shape")?.extract()?,
                contiguous: strides.is_none(),
                address,
            })
        };
        read().map(Some).map_err(python_failed)
    }

    /// The array's bytes, copied once, or a scalar as a number.
    fn to_term<'a>(
        &self,
        env: Env<'a>,
        object: &Bound<'_, PyAny>,
        depth: usize,
    ) -> Result<Term<'a>, ValueError> {
        match self.shape[..] {
            [] => {
                let number = object.call_method0("item").map_err(python_failed)?;
                python_to_term(env, &number, deeper(depth)?)
            }
            [0] if self.kind == "<f4" => copy(env, &[]),
            [length] if self.kind == "<f4" && self.contiguous && self.address != 0 => {
                let bytes = length
                    .checked_mul(4)
                    .ok_or_else(|| ValueError::new("an array of impossible size"))?;
                // SAFETY: NumPy guarantees `length` contiguous floats at that address; `object` is
                // borrowed, so they stay there, and the GIL is held while they are copied.
                let samples = unsafe {
                    std::slice::from_raw_parts(self.address as *const c_void as *const u8, bytes)
                };
                copy(env, samples)
            }
            _ => Err(ValueError::new(format!(
                "an array of type {} and shape {:?}{} (only contiguous 1-D float32 arrays may cross)",
                self.kind,
                self.shape,
                if self.contiguous { "" } else { ", with gaps" }
            ))),
        }
    }
}
