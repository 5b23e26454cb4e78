//! From operators to steps: functions of each element join the step that makes their input, so that they find it in
//! the cache, and buffers that nobody reads again are written over.

use super::graph::{Buf, Graph, Kind, Layout, Make, Op, Operand, Post, Rewrite, View, swapped};

/// What runs, in order.
#[derive(Debug)]
pub struct Program {
    /// Shapes of the inputs; they are the first buffers.
    pub inputs: Vec<Vec<usize>>,
    /// Elements of each buffer.
    pub lens: Vec<usize>,
    /// Steps.
    pub steps: Vec<Step>,
    /// What to hand out.
    pub outputs: Vec<View>,
}

/// A pass over the data.
#[derive(Debug)]
pub struct Step {
    /// What makes the result.
    pub work: Work,
    /// The buffer it makes.
    pub to: Buf,
    /// Functions applied to each of its elements, in this order.
    pub chain: Vec<Post>,
    /// Buffers that nobody reads afterwards.
    pub dead: Vec<Buf>,
    /// Whether the result is handed out.
    pub is_output: bool,
}

/// What makes the result of a step.
#[derive(Debug)]
pub enum Work {
    /// The same elements, and perhaps an operator in place. `over` says that `from` may be written over.
    Rewrite {
        /// The buffer read.
        from: Buf,
        /// Whether it is not needed any more, not even as an operand of this step.
        over: bool,
        /// The operator.
        rewrite: Option<Rewrite>,
    },
    /// An operator with a buffer of its own.
    Make {
        /// The buffer read.
        from: Buf,
        /// The operator.
        make: Make,
    },
    /// Blocks of each part in turn.
    Concat(Vec<Part>),
}

/// A part of what is joined.
#[derive(Debug)]
pub struct Part {
    /// The buffer.
    pub from: Buf,
    /// Elements of a block.
    pub block: usize,
    /// Functions applied on the way.
    pub chain: Vec<Post>,
}

impl Step {
    /// The buffers it reads, operands included.
    fn reads(&self) -> Vec<Buf> {
        let mut all: Vec<Buf> = self.chain.iter().filter_map(Post::operand).collect();
        match &self.work {
            Work::Rewrite { from, .. } | Work::Make { from, .. } => all.push(*from),
            Work::Concat(parts) => {
                for part in parts {
                    all.push(part.from);
                    all.extend(part.chain.iter().filter_map(Post::operand));
                }
            }
        }
        all
    }

    /// Its input and its functions, if it does nothing else.
    fn pure(&self) -> Option<(Buf, &[Post])> {
        match &self.work {
            Work::Rewrite { from, rewrite: None, .. } => Some((*from, &self.chain)),
            Work::Rewrite { rewrite: Some(_), .. } | Work::Make { .. } | Work::Concat(_) => None,
        }
    }
}

/// Joins operators to steps.
pub fn fuse(graph: Graph) -> Program {
    let mut readers = vec![0usize; graph.lens.len()];
    let operand = |op: &Op| match &op.kind {
        Kind::Map(post) => post.operand(),
        Kind::Rewrite(_) | Kind::Make(_) | Kind::Concat(_) => None,
    };
    let read = graph.ops.iter().flat_map(|op| op.from.iter().copied().chain(operand(op)));
    read.chain(graph.outputs.iter().map(|v| v.buf)).for_each(|buf| readers[buf] += 1);
    let maker = vec![None; graph.lens.len()];
    let mut steps = Steps { steps: Vec::new(), maker, readers, lens: graph.lens };
    for op in graph.ops {
        steps.add(op);
    }
    let mut program = Program {
        inputs: graph.inputs,
        lens: steps.lens,
        steps: steps.steps.into_iter().flatten().collect(),
        outputs: graph.outputs,
    };
    program.settle();
    program
}

/// Steps in the making.
struct Steps {
    /// `None` where a later step took one in.
    steps: Vec<Option<Step>>,
    /// The step that makes a buffer; `None` for inputs.
    maker: Vec<Option<usize>>,
    /// How often a buffer is read or handed out.
    readers: Vec<usize>,
    /// Elements of each buffer.
    lens: Vec<usize>,
}

/// A function of `x` and another buffer of `len` elements, as one of that buffer and `x`.
fn exchanged(x: Buf, post: &Post, len: usize) -> Option<(Buf, Post)> {
    match post {
        Post::Binary(f, Operand::Buf(y), layout) if *layout == (Layout { inner: 1, count: len }) => {
            Some((*y, Post::Binary(swapped(*f)?, Operand::Buf(x), *layout)))
        }
        Post::Binary(..) | Post::Unary(_) => None,
    }
}

impl Steps {
    fn add(&mut self, op: Op) {
        let Op { kind, from, to } = op;
        let Some(first) = from.first().copied() else { return };
        match kind {
            Kind::Map(post) => self.map(first, post, to),
            Kind::Rewrite(rewrite) => {
                self.push(Work::Rewrite { from: first, over: false, rewrite: Some(rewrite) }, vec![], to);
            }
            Kind::Make(make) => {
                // The largest of monotone results is the result of the largest: fewer elements to compute it for.
                let chain = match make {
                    Make::MaxPool(_) => self.take(first, |chain| chain.iter().all(Post::is_monotone)),
                    Make::AveragePool(..) | Make::Means(_) | Make::Pick(_) | Make::Permute(_) => None,
                };
                let (from, chain) = chain.unwrap_or((first, vec![]));
                self.push(Work::Make { from, make }, chain, to);
            }
            Kind::Concat(blocks) => {
                let parts = from.into_iter().zip(blocks).map(|(buf, block)| {
                    let (from, chain) = self.take(buf, |_| true).unwrap_or((buf, vec![]));
                    Part { from, block, chain }
                });
                let parts = parts.collect();
                self.push(Work::Concat(parts), vec![], to);
            }
        }
    }

    /// Joins a function to the step that makes its input, or begins a step.
    fn map(&mut self, x: Buf, post: Post, to: Buf) {
        if self.join(x, &post, to) {
            return;
        }
        if let Some((y, other)) = exchanged(x, &post, self.lens[x])
            && self.join(y, &other, to)
        {
            return;
        }
        self.push(Work::Rewrite { from: x, over: false, rewrite: None }, vec![post], to);
    }

    /// Appends a function to the step that makes its input; `false` if that is not possible.
    fn join(&mut self, x: Buf, post: &Post, to: Buf) -> bool {
        let Some(at) = self.maker[x] else { return false };
        let made = |buf: Buf| self.maker[buf].is_none_or(|maker| maker < at);
        if self.readers[x] != 1 || !post.operand().is_none_or(made) {
            return false;
        }
        let Some(Some(step)) = self.steps.get_mut(at) else { return false };
        step.chain.push(post.clone());
        step.to = to;
        self.maker[to] = Some(at);
        true
    }

    /// Takes back the step that makes a buffer for one reader only, if it does nothing but apply functions that suit.
    fn take(&mut self, buf: Buf, suits: impl Fn(&[Post]) -> bool) -> Option<(Buf, Vec<Post>)> {
        let at = self.maker[buf].filter(|_| self.readers[buf] == 1)?;
        let slot = self.steps.get_mut(at)?;
        slot.as_ref()?.pure().filter(|(_, chain)| suits(chain))?;
        let step = slot.take()?;
        step.pure().map(|(from, chain)| (from, chain.to_vec()))
    }

    fn push(&mut self, work: Work, chain: Vec<Post>, to: Buf) {
        self.maker[to] = Some(self.steps.len());
        self.steps.push(Some(Step { work, to, chain, dead: vec![], is_output: false }));
    }
}

impl Program {
    /// Finds out which buffers end with which step, and which are written over.
    fn settle(&mut self) {
        let mut last: Vec<Option<usize>> = vec![None; self.lens.len()];
        for (i, step) in self.steps.iter().enumerate() {
            last[step.to] = Some(i);
            step.reads().into_iter().for_each(|buf| last[buf] = Some(i));
        }
        let outputs: Vec<Buf> = self.outputs.iter().map(|v| v.buf).collect();
        for (i, step) in self.steps.iter_mut().enumerate() {
            let ends = |buf: Buf| last[buf] == Some(i) && !outputs.contains(&buf);
            let reads = step.reads();
            let once = |buf: Buf| ends(buf) && reads.iter().filter(|b| **b == buf).count() == 1;
            if let Work::Rewrite { from, over, rewrite } = &mut step.work {
                let other = step.chain.first().and_then(|post| exchanged(*from, post, self.lens[*from]));
                // Of two inputs, write over the one that is free.
                if let (false, None, Some((y, post))) = (once(*from), rewrite.as_ref(), other)
                    && once(y)
                {
                    *from = y;
                    step.chain[0] = post;
                }
                *over = once(*from);
            }
            step.dead = (0..self.lens.len()).filter(|buf| ends(*buf)).collect();
            step.is_output = outputs.contains(&step.to);
        }
    }
}
