//! Choice of the instruction set: the one place where code for a detected processor feature is entered.

use crate::error::KernelError;
use crate::portable::Portable;
use crate::vector::Task;

/// An instruction set the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// The baseline of the target; always there, and the oracle of the others.
    Portable,
    /// x86-64 with AVX2.
    Avx2,
    /// x86-64 with AVX2 and AVX-VNNI.
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// x86-64 with the same and VNNI and IFMA.
    Avx512Vnni,
    /// AArch64, where NEON is part of the baseline.
    Neon,
}

impl Isa {
    /// All instruction sets, the preferred ones last.
    pub const ALL: [Isa; 6] = [Isa::Portable, Isa::Neon, Isa::Avx2, Isa::AvxVnni, Isa::Avx512, Isa::Avx512Vnni];

    /// The name in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avx-vnni",
            Isa::Avx512 => "avx512",
            Isa::Avx512Vnni => "avx512-vnni",
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
            Isa::AvxVnni => Isa::Avx2.is_available() && is_x86_feature_detected!("avxvnni"),
            Isa::Avx512Vnni => {
                Isa::Avx512.is_available()
                    && is_x86_feature_detected!("avx512vnni")
                    && is_x86_feature_detected!("avx512ifma")
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
            Isa::Avx2 | Isa::AvxVnni | Isa::Avx512 | Isa::Avx512Vnni => false,
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

    /// The same with up to this many threads an operation; 0 stands for the number of cores. Small operations stay on
    /// one. Threads belong to one pool of the process, which grows to the largest number that an operation uses.
    ///
    /// # Errors
    /// More than [`Kernels::MOST_THREADS`].
    pub fn with_threads(self, threads: usize) -> Result<Kernels, KernelError> {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get().min(Kernels::MOST_THREADS)),
            1..=Kernels::MOST_THREADS => threads,
            _ => return Err(KernelError::Threads { threads, most: Kernels::MOST_THREADS }),
        };
        Ok(Kernels { threads, ..self })
    }

    /// The largest number of threads.
    pub const MOST_THREADS: usize = 1024;

    /// Output channels of the widest panel of weights: 4 vectors, or 2 where registers are few.
    pub(crate) fn panel(self) -> usize {
        match self.isa {
            Isa::Avx512 | Isa::Avx512Vnni => 64,
            Isa::Portable | Isa::Neon | Isa::Avx2 | Isa::AvxVnni => 16,
        }
    }

    /// The largest number of threads of one operation.
    pub fn threads(self) -> usize {
        self.threads
    }

    /// Into how many parts to split an operation of this many mult-adds that consists of `units` indivisible units.
    /// A thread takes microseconds to wake, so each part should have half a million mult-adds at least.
    pub(crate) fn parts(self, mult_adds: u128, units: usize) -> usize {
        let worthwhile = usize::try_from(mult_adds >> 19).unwrap_or(usize::MAX);
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
            // SAFETY: `self.isa` is only set after `is_available` found AVX2 and AVX-VNNI.
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => unsafe { crate::avx2::vnni::enter(task) },
            // SAFETY: `self.isa` is only set after `is_available` found AVX-512 F, BW, DQ and VL.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { crate::avx512::enter(task) },
            // SAFETY: `self.isa` is only set after `is_available` found these, VNNI and IFMA.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => unsafe { crate::avx512::vnni::enter(task) },
            // Not of this architecture, so `is_available` refused it and no such value exists.
            #[cfg(not(target_arch = "aarch64"))]
            Isa::Neon => task.run::<Portable>(),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::AvxVnni | Isa::Avx512 | Isa::Avx512Vnni => task.run::<Portable>(),
        }
    }
}
