//! A simulated disk for tests: everything is volatile until synced, a crash may fall before, inside or after any
//! operation, and writes that were not synced survive whole, torn or not at all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::disk::{Disk, DiskFile};

/// SplitMix64: deterministic schedules.
#[derive(Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..n` (n small).
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// How a torn write looks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tear {
    /// Each byte is the old or the new one.
    Mix,
    /// Bytes may also be garbage.
    Garbage,
}

#[derive(Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    cached: Vec<u8>,
    dirty: Vec<(usize, Vec<u8>)>,
    holder: Option<u64>,
}

#[derive(Clone)]
enum DirOp {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

pub(crate) struct World {
    dice: Dice,
    tear: Tear,
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending: Vec<DirOp>,
    life: u64,
    handles: u64,
    /// Operations until the crash.
    fuse: Option<u64>,
    crashed: bool,
    /// One sync in so many fails, losing what it should have written.
    failing_syncs: Option<u64>,
    /// A disk that says it synced and did not.
    lies: bool,
    /// Writes that survived a crash torn.
    pub(crate) torn: u64,
}

enum Moment {
    Normal,
    Before,
    Inside,
    After,
}

/// The disk; clones share it.
#[derive(Clone)]
pub(crate) struct SimDisk(Arc<Mutex<World>>);

struct SimFile {
    disk: SimDisk,
    inode: usize,
    life: u64,
    handle: u64,
}

fn crash() -> io::Error {
    io::Error::other("the machine is off")
}

fn apply(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn apply_name(names: &mut BTreeMap<PathBuf, usize>, op: DirOp) {
    match op {
        DirOp::Create(path, inode) => {
            names.insert(path, inode);
        }
        DirOp::Rename(from, to) => {
            if let Some(inode) = names.remove(&from) {
                names.insert(to, inode);
            }
        }
        DirOp::Remove(path) => {
            names.remove(&path);
        }
    }
}

impl World {
    fn step(&mut self) -> io::Result<Moment> {
        if self.crashed {
            return Err(crash());
        }
        match &mut self.fuse {
            None => Ok(Moment::Normal),
            Some(0) => {
                self.crashed = true;
                Ok(match self.dice.below(3) {
                    0 => Moment::Before,
                    1 => Moment::Inside,
                    _ => Moment::After,
                })
            }
            Some(left) => {
                *left -= 1;
                Ok(Moment::Normal)
            }
        }
    }

    /// Lets unsynced writes of one file reach the disk: each whole, torn or not at all.
    fn settle(&mut self, inode: usize) {
        let mut inode_now = std::mem::take(&mut self.inodes[inode]);
        for (offset, bytes) in inode_now.dirty.drain(..) {
            match self.dice.below(4) {
                0 => {}
                1 => apply(&mut inode_now.durable, offset, &bytes),
                _ => {
                    let (a, b) = (self.dice.below(bytes.len() as u64 + 1), self.dice.below(bytes.len() as u64 + 1));
                    let (from, to) = (a.min(b) as usize, a.max(b) as usize);
                    if from == to {
                        continue;
                    }
                    self.torn += 1;
                    if self.tear == Tear::Garbage && self.dice.one_in(2) {
                        let garbage: Vec<u8> = (from..to).map(|_| self.dice.next() as u8).collect();
                        apply(&mut inode_now.durable, offset + from, &garbage);
                    } else {
                        apply(&mut inode_now.durable, offset + from, &bytes[from..to]);
                    }
                }
            }
        }
        self.inodes[inode] = inode_now;
    }

    fn inode(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl SimDisk {
    pub(crate) fn new(seed: u64, tear: Tear) -> Self {
        Self(Arc::new(Mutex::new(World {
            dice: Dice::new(seed),
            tear,
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending: Vec::new(),
            life: 0,
            handles: 0,
            fuse: None,
            crashed: false,
            failing_syncs: None,
            lies: false,
            torn: 0,
        })))
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// The machine goes off in the middle of the operation after the next `operations`.
    pub(crate) fn light_fuse(&self, operations: Option<u64>) {
        self.world().fuse = operations;
    }

    pub(crate) fn fail_syncs(&self, one_in: Option<u64>) {
        self.world().failing_syncs = one_in;
    }

    pub(crate) fn lie(&self) {
        self.world().lies = true;
    }

    /// The process dies; the machine stays on if it still is. Handles and locks are gone.
    pub(crate) fn kill(&self) {
        let mut world = self.world();
        world.life += 1;
        world.inodes.iter_mut().for_each(|inode| inode.holder = None);
        world.fuse = None;
        if !world.crashed {
            return;
        }
        world.crashed = false;
        for inode in 0..world.inodes.len() {
            world.settle(inode);
        }
        let pending = world.pending.len() as u64;
        let kept = world.dice.below(pending + 1) as usize;
        let kept: Vec<_> = world.pending.drain(..).take(kept).collect();
        for op in kept {
            apply_name(&mut world.durable_names, op);
        }
        world.names = world.durable_names.clone();
        for inode in &mut world.inodes {
            inode.cached = inode.durable.clone();
        }
    }

    /// The names of all files, as processes see them.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.world().names.keys().cloned().collect()
    }

    /// The content of a file as processes see it.
    pub(crate) fn copy(&self, path: &Path) -> Option<Vec<u8>> {
        let world = self.world();
        world.inode(path).ok().map(|inode| world.inodes[inode].cached.clone())
    }

    /// Puts content in place behind everyone's back, durably: a restored backup.
    pub(crate) fn restore(&self, path: &Path, content: Vec<u8>) {
        let mut world = self.world();
        let inode = world.inodes.len();
        world.inodes.push(Inode { durable: content.clone(), cached: content, ..Inode::default() });
        world.names.insert(path.to_path_buf(), inode);
        world.durable_names.insert(path.to_path_buf(), inode);
    }

    /// Changes one byte of a file at rest.
    pub(crate) fn rot(&self, path: &Path, offset: usize, flip: u8) {
        let mut world = self.world();
        let inode = world.inode(path).unwrap();
        world.inodes[inode].durable[offset] ^= flip;
        world.inodes[inode].cached[offset] ^= flip;
    }

    fn handle(&self, world: &mut World, inode: usize) -> Box<dyn DiskFile> {
        world.handles += 1;
        Box::new(SimFile { disk: self.clone(), inode, life: world.life, handle: world.handles })
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut world = self.world();
        if world.crashed {
            return Err(crash());
        }
        let inode = world.inode(path)?;
        Ok(self.handle(&mut world, inode))
    }

    fn create_new(&self, path: &Path, _private: bool) -> io::Result<Box<dyn DiskFile>> {
        let mut world = self.world();
        let moment = world.step()?;
        if world.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if matches!(moment, Moment::Before | Moment::Inside) {
            return Err(crash());
        }
        let inode = world.inodes.len();
        world.inodes.push(Inode::default());
        world.names.insert(path.to_path_buf(), inode);
        world.pending.push(DirOp::Create(path.to_path_buf(), inode));
        match moment {
            Moment::Normal => Ok(self.handle(&mut world, inode)),
            Moment::Before | Moment::Inside | Moment::After => Err(crash()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        let moment = world.step()?;
        world.inode(from)?;
        if matches!(moment, Moment::Normal | Moment::After) {
            let op = DirOp::Rename(from.to_path_buf(), to.to_path_buf());
            apply_name(&mut world.names, op.clone());
            world.pending.push(op);
        }
        if matches!(moment, Moment::Normal) { Ok(()) } else { Err(crash()) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        let moment = world.step()?;
        world.inode(path)?;
        if matches!(moment, Moment::Normal | Moment::After) {
            let op = DirOp::Remove(path.to_path_buf());
            apply_name(&mut world.names, op.clone());
            world.pending.push(op);
        }
        if matches!(moment, Moment::Normal) { Ok(()) } else { Err(crash()) }
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut world = self.world();
        let moment = world.step()?;
        let pending = world.pending.len() as u64;
        let fails = world.failing_syncs;
        if let (Moment::Normal, Some(one_in)) = (&moment, fails)
            && world.dice.one_in(one_in)
        {
            return Err(io::Error::other("sync failed"));
        }
        let kept = match moment {
            Moment::Before => 0,
            Moment::Inside => world.dice.below(pending + 1) as usize,
            Moment::Normal | Moment::After if world.lies => 0,
            Moment::Normal | Moment::After => pending as usize,
        };
        let done: Vec<_> = world.pending.drain(..kept).collect();
        for op in done {
            apply_name(&mut world.durable_names, op);
        }
        if matches!(moment, Moment::Normal) { Ok(()) } else { Err(crash()) }
    }

    fn names(&self, path: &Path, file: &dyn DiskFile) -> io::Result<bool> {
        let inode = self.world().inode(path)?;
        Ok(file.identity()? == (0, inode as u64))
    }
}

impl SimFile {
    fn world(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = self.disk.world();
        if world.life == self.life && !world.crashed { Ok(world) } else { Err(crash()) }
    }
}

impl DiskFile for SimFile {
    fn lock(&mut self, wait: bool) -> io::Result<bool> {
        let handle = self.handle;
        let mut world = self.world()?;
        let inode = &mut world.inodes[self.inode];
        match inode.holder {
            Some(holder) if holder != handle => {
                assert!(!wait, "one thread waits for a lock that it holds");
                Ok(false)
            }
            Some(_) | None => {
                inode.holder = Some(handle);
                Ok(true)
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.world()?.inodes[self.inode].cached.len() as u64)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let world = self.world()?;
        let content = &world.inodes[self.inode].cached;
        let part = content.get(offset as usize..offset as usize + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(part);
        Ok(())
    }

    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.world()?;
        let moment = world.step()?;
        let length = match moment {
            Moment::Before => 0,
            Moment::Inside => world.dice.below(bytes.len() as u64 + 1) as usize,
            Moment::Normal | Moment::After => bytes.len(),
        };
        let inode = &mut world.inodes[self.inode];
        apply(&mut inode.cached, offset as usize, &bytes[..length]);
        inode.dirty.push((offset as usize, bytes[..length].to_vec()));
        if matches!(moment, Moment::Normal) { Ok(()) } else { Err(crash()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut world = self.world()?;
        let moment = world.step()?;
        let fails = world.failing_syncs;
        if let (Moment::Normal, Some(one_in)) = (&moment, fails)
            && world.dice.one_in(one_in)
        {
            // As on Linux: the error is told once, the page cache keeps what the disk may not have.
            world.settle(self.inode);
            return Err(io::Error::other("sync failed"));
        }
        match moment {
            Moment::Before => {}
            Moment::Inside => world.settle(self.inode),
            Moment::Normal | Moment::After if world.lies => {}
            Moment::Normal | Moment::After => {
                let inode = &mut world.inodes[self.inode];
                for (offset, bytes) in std::mem::take(&mut inode.dirty) {
                    apply(&mut inode.durable, offset, &bytes);
                }
            }
        }
        if matches!(moment, Moment::Normal) { Ok(()) } else { Err(crash()) }
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        Ok((0, self.inode as u64))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut world = self.disk.world();
        let (life, handle) = (self.life, self.handle);
        if world.life == life && world.inodes[self.inode].holder == Some(handle) {
            world.inodes[self.inode].holder = None;
        }
    }
}
