//! Errors, as a code and a message that cross the C interface.

/// The kind of an error; the numbers are part of the C interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    /// An argument is invalid.
    Invalid = 1,
    /// There is no memory left.
    Memory = 2,
    /// The numbers to draw from are not finite.
    NotFinite = 3,
    /// A fault of the engine itself.
    Internal = 4,
}

/// An error that says what was wrong and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Its kind.
    pub code: Code,
    /// For people.
    pub message: String,
}

/// A result with such an error.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An argument is invalid.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self {
            code: Code::Invalid,
            message: message.into(),
        }
    }

    /// No memory for `bytes`.
    pub fn memory(bytes: usize) -> Self {
        Self {
            code: Code::Memory,
            message: format!("there is no memory for {bytes} bytes"),
        }
    }

    /// The numbers to draw from are not finite.
    pub fn not_finite(message: impl Into<String>) -> Self {
        Self {
            code: Code::NotFinite,
            message: message.into(),
        }
    }

    /// A fault of the engine itself.
    pub fn internal(message: impl Into<String>) -> Self {
        Self {
            code: Code::Internal,
            message: message.into(),
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
