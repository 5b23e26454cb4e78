//! Choice of the instruction set: the one place where code for a detected processor feature is entered.

use crate::portable::Portable;
use crate::vector::Task;

/// An instruction set the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// The baseline of the target; always there, and the oracle of the others.
    Portable,
    /// x86-64 with AVX2.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AArch64, where NEON is part of the baseline.
    Neon,
}

impl Isa {
    /// All instruction sets, the preferred ones last.
    pub const ALL: [Isa; 4] = [Isa::Portable, Isa::Neon, Isa::Avx2, Isa::Avx512];

    /// The name in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Neon => "neon",
        }
    }

    /// The instruction set of this name.
    pub fn from_name(name: &str) -> Option<Isa> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name)
    }

    /// Whether this processor has it.
    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            Isa::Avx2 => is_x86_feature_detected!("avx2"),
            Isa::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            Isa::Neon => false,
        }
    }

    /// Whether this processor has it.
    #[cfg(not(target_arch = "x86_64"))]
    fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            Isa::Neon => cfg!(target_arch = "aarch64"),
            Isa::Avx2 | Isa::Avx512 => false,
        }
    }
}

/// The kernels for one instruction set and number of threads. Every operation of this crate is a method of it.
///
/// A value of this type is evidence that the processor has the instruction set: there is no other way to make one
/// than [`Kernels::detect`] and [`Kernels::with_isa`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels {
    isa: Isa,
    threads: usize,
}

impl Kernels {
    /// The fastest instruction set of this processor, one thread.
    pub fn detect() -> Kernels {
        let isa = Isa::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Isa::Portable);
        Kernels { isa, threads: 1 }
    }

    /// This instruction set, one thread; `None` if the processor lacks it.
    pub fn with_isa(isa: Isa) -> Option<Kernels> {
        isa.is_available().then_some(Kernels { isa, threads: 1 })
    }

    /// The instruction sets of this processor, the preferred ones last.
    pub fn available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// The instruction set in use.
    pub fn isa(self) -> Isa {
        self.isa
    }

    /// The same with up to this many threads an operation (0 counts as 1). Small operations stay on one.
    pub fn with_threads(self, threads: usize) -> Kernels {
        Kernels { threads: threads.max(1), ..self }
    }

    /// The largest number of threads of one operation.
    pub fn threads(self) -> usize {
        self.threads
    }

    /// Into how many parts to split an operation of this many mult-adds that consists of `units` indivisible units.
    /// A thread takes tens of microseconds to start, so each part should have a million mult-adds at least.
    pub(crate) fn parts(self, mult_adds: u128, units: usize) -> usize {
        let worthwhile = usize::try_from(mult_adds >> 20).unwrap_or(usize::MAX);
        self.threads.min(worthwhile).min(units).max(1)
    }

    /// Runs a task compiled for the instruction set.
    pub(crate) fn run<T: Task>(self, task: T) -> T::Out {
        match self.isa {
            Isa::Portable => task.run::<Portable>(),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => task.run::<crate::neon::Neon>(),
            // SAFETY: `self.isa` is only set after `is_available` found AVX2.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { crate::avx2::enter(task) },
            // SAFETY: `self.isa` is only set after `is_available` found AVX-512 F, BW, DQ and VL.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { crate::avx512::enter(task) },
            // Not of this architecture, so `is_available` refused it and no such value exists.
            #[cfg(not(target_arch = "aarch64"))]
            Isa::Neon => task.run::<Portable>(),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => task.run::<Portable>(),
        }
    }
}
