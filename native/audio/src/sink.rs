//! Where decoded samples go.

use crate::error::AudioError;
use crate::limits::{Caller, Limits};

/// How samples are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// Frames per second.
    pub sample_rate: u32,
    /// Samples per frame.
    pub channels: u16,
}

impl Form {
    /// Checks the values in a file's header.
    pub fn new(sample_rate: u32, channels: usize) -> Option<Self> {
        let channels = u16::try_from(channels).ok()?;
        (sample_rate > 0 && channels > 0).then_some(Self {
            sample_rate,
            channels,
        })
    }
}

/// Stores samples as they come.
pub trait Store {
    /// Appends samples.
    ///
    /// # Errors
    /// `OutOfMemory`.
    fn extend(&mut self, samples: &[f32]) -> Result<(), AudioError>;
}

impl Store for Vec<f32> {
    fn extend(&mut self, samples: &[f32]) -> Result<(), AudioError> {
        self.try_reserve(samples.len())
            .map_err(|_| AudioError::no_memory(self.len() + samples.len()))?;
        self.extend_from_slice(samples);
        Ok(())
    }
}

/// Collects the samples of one file within limits, and for as long as the caller waits for them.
pub struct Sink<'a> {
    store: &'a mut dyn Store,
    limits: Limits,
    caller: Caller<'a>,
    file_bytes: usize,
    form: Option<Form>,
    samples: u64,
}

impl<'a> Sink<'a> {
    /// Creates a sink for the samples of a file of `bytes` bytes.
    pub fn new(
        store: &'a mut dyn Store,
        limits: Limits,
        caller: Caller<'a>,
        file_bytes: usize,
    ) -> Self {
        Self {
            store,
            limits,
            caller,
            file_bytes,
            form: None,
            samples: 0,
        }
    }

    /// Sets the form of the samples. Returns false if they already have another one.
    #[must_use]
    pub fn takes(&mut self, form: Form) -> bool {
        *self.form.get_or_insert(form) == form
    }

    /// Frames so far.
    pub fn frames(&self) -> u64 {
        self.form
            .map_or(0, |form| self.samples / u64::from(form.channels))
    }

    /// Seconds so far.
    pub fn seconds(&self) -> f64 {
        self.seconds_of(self.frames())
    }

    /// The duration of `frames` frames, in seconds.
    pub fn seconds_of(&self, frames: u64) -> f64 {
        self.form
            .map_or(0.0, |form| frames as f64 / f64::from(form.sample_rate))
    }

    /// Checks the number of frames that a file promises before any is decoded.
    ///
    /// # Errors
    /// See [`Limits::check`].
    pub fn expect(&self, form: Form, frames: u64) -> Result<(), AudioError> {
        self.check(form, frames.saturating_mul(form.channels.into()))
    }

    /// Adds whole frames, or none. Decoders call it after each packet, so an abandoned call ends here.
    ///
    /// # Errors
    /// `Abandoned`, `OutOfMemory` and those of [`Limits::check`].
    pub fn push(&mut self, samples: &[f32]) -> Result<(), AudioError> {
        self.caller.check()?;
        let all = self.samples + samples.len() as u64;

        if let Some(form) = self.form {
            self.check(form, all)?;
            self.store.extend(samples)?;
            self.samples = all;
        }
        Ok(())
    }

    fn check(&self, form: Form, samples: u64) -> Result<(), AudioError> {
        self.limits
            .check(samples, form.sample_rate, form.channels, self.file_bytes)
    }

    /// Returns the form of the stored samples.
    ///
    /// # Errors
    /// `NoSamples`.
    pub fn finish(self) -> Result<Form, AudioError> {
        match self.form {
            Some(form) if self.samples > 0 => Ok(form),
            _ => Err(AudioError::NoSamples),
        }
    }
}
