//! Runs native steps over buffers that are kept between requests.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

use pponnx_kernels::{KernelError, Kernels};

use super::fuse::{Part, Program, Step, Work};
use super::graph::{Layout, Make, Operand, Pick, Post, Rewrite};
use crate::value::TensorValue;

/// Elements through which a chain of functions goes at once: they stay in the first cache.
const CHUNK: usize = 4096;

/// A sub-model as native steps.
pub struct Native {
    kernels: Kernels,
    program: Program,
    /// Scratch space, one for each request that ran at the same time.
    scratch: Mutex<Vec<Scratch>>,
}

/// Memory kept between requests.
#[derive(Default)]
struct Scratch {
    /// Buffers that no value uses.
    free: Vec<Vec<f32>>,
    /// For kernels.
    buffer: Vec<f32>,
}

/// Contents of a buffer.
enum Store<'a> {
    /// Not made yet, or not needed any more.
    Empty,
    /// The caller's.
    Borrowed(&'a [f32]),
    /// Ours.
    Owned(Vec<f32>),
}

impl Store<'_> {
    fn as_slice(&self) -> &[f32] {
        match self {
            Store::Empty => &[],
            Store::Borrowed(x) => x,
            Store::Owned(x) => x,
        }
    }
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum NativeError {
    /// The inputs are not those of the model.
    #[error("{0}")]
    Input(String),
    /// A kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl Native {
    /// Prepares a program.
    pub fn new(program: Program, kernels: Kernels) -> Native {
        Native { kernels, program, scratch: Mutex::new(Vec::new()) }
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.program.outputs.len()
    }

    /// Runs the steps. Inputs that are given away may be written over.
    pub fn run(&self, inputs: Vec<Cow<'_, TensorValue>>) -> Result<Vec<TensorValue>, NativeError> {
        let mut stores = self.accept(inputs)?;
        let mut scratch = self.lock().pop().unwrap_or_default();
        for step in &self.program.steps {
            let made = self.step(step, &mut stores, &mut scratch)?;
            stores[step.to] = Store::Owned(made);
            for buf in &step.dead {
                if let Store::Owned(unused) = std::mem::replace(&mut stores[*buf], Store::Empty) {
                    scratch.free.push(unused);
                }
            }
        }
        let outputs = self.hand_out(stores)?;
        scratch.free.truncate(self.kept());
        self.lock().push(scratch);
        Ok(outputs)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Scratch>> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Buffers worth keeping: as many as steps make that nobody gets.
    fn kept(&self) -> usize {
        self.program.steps.iter().filter(|s| !s.is_output).count()
    }

    /// Buffers with the inputs in their places.
    fn accept<'a>(&self, inputs: Vec<Cow<'a, TensorValue>>) -> Result<Vec<Store<'a>>, NativeError> {
        let wanted = &self.program.inputs;
        if inputs.len() != wanted.len() {
            return Err(NativeError::Input(format!("{} inputs where the model has {}", inputs.len(), wanted.len())));
        }
        let mut stores = Vec::with_capacity(self.program.lens.len());
        for (i, (input, shape)) in inputs.into_iter().zip(wanted).enumerate() {
            if &input.shape().0 != shape {
                let wanted = pponnx_plans::value::Shape(shape.clone());
                return Err(NativeError::Input(format!("input {i} is {}, not {wanted}", input.shape())));
            }
            let dtype = input.dtype();
            let store = match input {
                Cow::Borrowed(value) => value.as_f32().map(Store::Borrowed),
                Cow::Owned(value) => value.into_f32().map(Store::Owned),
            };
            let error = || NativeError::Input(format!("input {i} is of {} and not of f32", dtype.name()));
            stores.push(store.ok_or_else(error)?);
        }
        stores.resize_with(self.program.lens.len(), || Store::Empty);
        Ok(stores)
    }

    /// The outputs; the last that shares a buffer gets it.
    fn hand_out(&self, mut stores: Vec<Store<'_>>) -> Result<Vec<TensorValue>, NativeError> {
        let mut results = Vec::with_capacity(self.program.outputs.len());
        for (i, view) in self.program.outputs.iter().enumerate() {
            let again = self.program.outputs.iter().skip(i + 1).any(|later| later.buf == view.buf);
            let data = match &mut stores[view.buf] {
                Store::Owned(data) if !again => std::mem::take(data),
                store => store.as_slice().to_vec(),
            };
            let value = TensorValue::from_f32(view.shape.clone(), data);
            results.push(value.map_err(|e| NativeError::Input(e.to_string()))?);
        }
        Ok(results)
    }

    /// Makes the result of a step.
    fn step(&self, step: &Step, stores: &mut [Store<'_>], scratch: &mut Scratch) -> Result<Vec<f32>, NativeError> {
        let len = self.program.lens[step.to];
        match &step.work {
            Work::Rewrite { from, over, rewrite } => {
                let taken = match &mut stores[*from] {
                    Store::Owned(x) if *over => Some(std::mem::take(x)),
                    Store::Empty | Store::Borrowed(_) | Store::Owned(_) => None,
                };
                let copied = taken.is_none();
                let mut out = taken.unwrap_or_else(|| scratch.fresh(len, step.is_output));
                let x = stores[*from].as_slice();
                if let Some(rewrite) = rewrite {
                    if copied {
                        out.copy_from_slice(x);
                    }
                    match rewrite {
                        Rewrite::Lrn(spec) => self.kernels.lrn(spec, &mut out, &mut scratch.buffer)?,
                        Rewrite::Softmax(row) => self.kernels.softmax(&mut out, *row)?,
                    }
                    self.chain(&step.chain, &mut out, 0, stores)?;
                } else {
                    for (i, chunk) in out.chunks_mut(CHUNK).enumerate() {
                        if copied {
                            chunk.copy_from_slice(&x[i * CHUNK..][..chunk.len()]);
                        }
                        self.chain(&step.chain, chunk, i * CHUNK, stores)?;
                    }
                }
                Ok(out)
            }
            Work::Make { from, make } => {
                let mut out = scratch.fresh(len, step.is_output);
                let x = stores[*from].as_slice();
                match make {
                    Make::MaxPool(spec) => {
                        let (plane, results) = (spec.input.iter().product(), spec.output.iter().product());
                        self.planes(step, x, plane, &mut out, results, stores, |x, out| {
                            self.kernels.max_pool(spec, x, &mut scratch.buffer, out)
                        })?;
                    }
                    Make::AveragePool(spec, padded) => {
                        let (plane, results) = (spec.input.iter().product(), spec.output.iter().product());
                        self.planes(step, x, plane, &mut out, results, stores, |x, out| {
                            self.kernels.average_pool(spec, *padded, x, &mut scratch.buffer, out)
                        })?;
                    }
                    Make::Means(row) => {
                        self.planes(step, x, *row, &mut out, 1, stores, |x, out| self.kernels.means(x, *row, out))?;
                    }
                    Make::Pick(pick) => {
                        picked(pick, x, &mut out);
                        self.chain(&step.chain, &mut out, 0, stores)?;
                    }
                    Make::Permute(permute) => {
                        permuted(&permute.sizes, &permute.strides, x, &mut out);
                        self.chain(&step.chain, &mut out, 0, stores)?;
                    }
                }
                Ok(out)
            }
            Work::Concat(parts) => {
                let mut out = scratch.fresh(len, step.is_output);
                self.concat(parts, &mut out, stores)?;
                self.chain(&step.chain, &mut out, 0, stores)?;
                Ok(out)
            }
        }
    }

    /// Runs a kernel on a few planes at a time, and the functions that follow while its results are in the cache.
    #[allow(clippy::too_many_arguments)]
    fn planes(
        &self,
        step: &Step,
        x: &[f32],
        plane: usize,
        out: &mut [f32],
        results: usize,
        stores: &[Store<'_>],
        mut kernel: impl FnMut(&[f32], &mut [f32]) -> Result<(), KernelError>,
    ) -> Result<(), NativeError> {
        let many = (CHUNK / results).max(1);
        for (i, (x, out)) in x.chunks(many * plane).zip(out.chunks_mut(many * results)).enumerate() {
            kernel(x, out)?;
            self.chain(&step.chain, out, i * many * results, stores)?;
        }
        Ok(())
    }

    fn concat(&self, parts: &[Part], out: &mut [f32], stores: &[Store<'_>]) -> Result<(), NativeError> {
        let row: usize = parts.iter().map(|p| p.block).sum();
        let mut at = 0;
        for part in parts {
            let from = stores[part.from].as_slice().chunks_exact(part.block);
            for (i, (x, out)) in from.zip(out.chunks_exact_mut(row)).enumerate() {
                let out = &mut out[at..at + part.block];
                for (j, (x, out)) in x.chunks(CHUNK).zip(out.chunks_mut(CHUNK)).enumerate() {
                    out.copy_from_slice(x);
                    self.chain(&part.chain, out, i * part.block + j * CHUNK, stores)?;
                }
            }
            at += part.block;
        }
        Ok(())
    }

    /// Applies functions to elements of which the first is number `at` of its tensor.
    fn chain(&self, chain: &[Post], x: &mut [f32], at: usize, stores: &[Store<'_>]) -> Result<(), NativeError> {
        // Long results of one piece come in chunks, so that only the first function fetches them.
        let pieces = if chain.len() > 1 { CHUNK } else { x.len().max(1) };
        for (i, x) in x.chunks_mut(pieces).enumerate() {
            for post in chain {
                self.apply(post, x, at + i * pieces, stores)?;
            }
        }
        Ok(())
    }

    fn apply(&self, post: &Post, x: &mut [f32], at: usize, stores: &[Store<'_>]) -> Result<(), NativeError> {
        let (f, operand, Layout { inner, count }) = match post {
            Post::Unary(f) => {
                self.kernels.unary(*f, x);
                return Ok(());
            }
            Post::Binary(f, operand, layout) => (*f, operand, *layout),
        };
        let operand = match operand {
            Operand::One(y) => {
                self.kernels.binary_scalar(f, x, *y);
                return Ok(());
            }
            Operand::Fixed(data) => data,
            Operand::Buf(buf) => stores[*buf].as_slice(),
        };
        let mut done = 0;
        while done < x.len() {
            let place = at + done;
            if inner == 1 {
                let y = &operand[place % count..];
                let n = y.len().min(x.len() - done);
                self.kernels.binary(f, &mut x[done..done + n], &y[..n])?;
                done += n;
            } else {
                let n = (inner - place % inner).min(x.len() - done);
                self.kernels.binary_scalar(f, &mut x[done..done + n], operand[place / inner % count]);
                done += n;
            }
        }
        Ok(())
    }
}

impl Scratch {
    /// A buffer with any contents. One that is handed out is made to measure.
    fn fresh(&mut self, len: usize, is_output: bool) -> Vec<f32> {
        let fits = |v: &Vec<f32>| v.capacity() >= len && (!is_output || v.capacity() <= len + len / 4);
        let best = self.free.iter().enumerate().filter(|(_, v)| fits(v)).min_by_key(|(_, v)| v.capacity());
        match best.map(|(i, _)| i) {
            Some(i) => {
                let mut v = self.free.swap_remove(i);
                v.resize(len, 0.0);
                v
            }
            None => vec![0.0; len],
        }
    }
}

fn picked(pick: &Pick, x: &[f32], out: &mut [f32]) {
    let Pick { len, inner, indices } = pick;
    for (x, out) in x.chunks_exact(len * inner).zip(out.chunks_exact_mut(indices.len() * inner)) {
        for (i, out) in indices.iter().zip(out.chunks_exact_mut(*inner)) {
            out.copy_from_slice(&x[i * inner..][..*inner]);
        }
    }
}

/// Copies elements whose places in `x` go up by a step along each axis.
fn permuted(sizes: &[usize], strides: &[usize], x: &[f32], out: &mut [f32]) {
    match (sizes, strides) {
        ([_], [step]) => out.iter_mut().zip(x.iter().step_by(*step)).for_each(|(out, x)| *out = *x),
        ([size, sizes @ ..], [step, strides @ ..]) => {
            let part = out.len() / size;
            for (i, out) in out.chunks_exact_mut(part).enumerate() {
                permuted(sizes, strides, &x[i * step..], out);
            }
        }
        _ => {}
    }
}

/// What runs, for tests and reports: the kinds of steps in order, with the number of functions each takes along.
impl std::fmt::Debug for Native {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.program.steps.iter().map(|s| (&s.work, &s.chain))).finish()
    }
}
