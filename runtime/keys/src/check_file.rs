//! The check data of one device and bundle on disk: `check.bin`.
//!
//! Content: device (16 bytes), bundle digest (32), check secret (32), number of maps (u32), then for each map, in
//! rising order: map (u32), form (u8), number of inputs (u32), and for each input the number of elements (u64) and the
//! elements of F_p (u64 each). Secret: whoever knows it can make a wrong answer pass.

use std::path::Path;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::atomic::{read_kind, write_atomic_on};
use crate::check::{CheckSecret, P61};
use crate::container::{Builder, Parser};
use crate::disk::RealDisk;
use crate::error::{At, FileKind, StoreError};

/// Largest check file: 2 GiB (`c` in full for a network with 2^28 values a request).
const MAX_LENGTH: u64 = 1 << 31;

/// Everything the device needs to check answers. Neither `Clone` nor `Debug`; wiped when dropped.
pub struct CheckData {
    /// Identifier of the device.
    pub device: [u8; 16],
    /// Digest of the bundle.
    pub bundle: [u8; 32],
    /// The secret that `a` and `beta` expand from.
    pub secret: CheckSecret,
    /// Check vectors, by rising map number.
    pub maps: Vec<MapCheck>,
}

/// The stored check vectors of one linear map. Neither `Clone` nor `Debug`; wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct MapCheck {
    /// Map of the plan.
    pub map: u32,
    /// Which form the vectors have; the engine's number, kept as it is.
    pub form: u8,
    /// For each input of the map, elements of F_p (below [`P61`]); layout by the form.
    pub inputs: Vec<Vec<u64>>,
}

impl CheckData {
    /// Writes the file (mode 0600), replacing an older one.
    ///
    /// # Errors
    /// [`StoreError::Unwritable`] if the maps are not in rising order or an element is not below p, else as
    /// [`crate::atomic::write_atomic`].
    pub fn write(&self, path: &Path) -> Result<(), StoreError> {
        let at = At { path, kind: FileKind::Check };
        write_atomic_on(&RealDisk, at, &self.encode(at)?, true)
    }

    /// Reads the file and refuses that of another device or bundle.
    ///
    /// # Errors
    /// Any [`StoreError`] of a missing, foreign or damaged file.
    pub fn read(path: &Path, device: &[u8; 16], bundle: &[u8; 32]) -> Result<Self, StoreError> {
        let at = At { path, kind: FileKind::Check };
        let data = Self::decode(at, &read_kind(at, MAX_LENGTH)?)?;
        at.device(&data.device, device)?;
        at.bundle(&data.bundle, bundle)?;
        Ok(data)
    }

    fn encode(&self, at: At<'_>) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        if !self.maps.is_sorted_by(|a, b| a.map < b.map) {
            return Err(at.unwritable("the maps are not in rising order"));
        }
        if self.maps.iter().flat_map(|map| &map.inputs).flatten().any(|&element| element >= P61) {
            return Err(at.unwritable("an element is not below 2^61 - 1"));
        }
        let vectors: usize = self.maps.iter().flat_map(|m| &m.inputs).map(|i| 8 + i.len().saturating_mul(8)).sum();
        let content = 84 + 9 * self.maps.len() + vectors;
        if content as u64 > MAX_LENGTH {
            return Err(at.too_large(MAX_LENGTH));
        }
        let count = |n: usize| u32::try_from(n).map_err(|_| at.too_large(MAX_LENGTH));
        let mut builder = Builder::new(at.kind.magic(), content);
        builder.bytes(&self.device);
        builder.bytes(&self.bundle);
        builder.bytes(self.secret.bytes());
        builder.u32(count(self.maps.len())?);
        for map in &self.maps {
            builder.u32(map.map);
            builder.bytes(&[map.form]);
            builder.u32(count(map.inputs.len())?);
            for input in &map.inputs {
                builder.u64(input.len() as u64);
                input.iter().for_each(|element| builder.u64(*element));
            }
        }
        Ok(builder.finish())
    }

    fn decode(at: At<'_>, bytes: &[u8]) -> Result<Self, StoreError> {
        let mut parser = Parser::open(at, bytes)?;
        let (device, bundle) = (parser.array()?, parser.array()?);
        let secret = CheckSecret::new(parser.secret()?);
        let mut data = Self { device, bundle, secret, maps: Vec::new() };
        for _ in 0..parser.u32()? {
            let map = parser.u32()?;
            if data.maps.last().is_some_and(|last| last.map >= map) {
                return Err(at.corrupt("the maps are not in rising order"));
            }
            let mut check = MapCheck { map, form: parser.u8()?, inputs: Vec::new() };
            for _ in 0..parser.u32()? {
                let count = parser.u64()?;
                let input: Vec<u64> = parser.arrays(count)?.iter().map(|b| u64::from_le_bytes(*b)).collect();
                check.inputs.push(input);
            }
            if check.inputs.iter().flatten().any(|&element| element >= P61) {
                return Err(at.corrupt("an element is not below 2^61 - 1"));
            }
            data.maps.push(check);
        }
        parser.finish()?;
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const DEVICE: [u8; 16] = [1; 16];
    const BUNDLE: [u8; 32] = [2; 32];

    fn sample() -> CheckData {
        let maps = vec![
            MapCheck { map: 0, form: 1, inputs: vec![vec![0, 1, P61 - 1]] },
            MapCheck { map: 7, form: 0, inputs: vec![vec![], vec![5; 9]] },
        ];
        CheckData { device: DEVICE, bundle: BUNDLE, secret: CheckSecret::new(&[3; 32]), maps }
    }

    fn refuses(path: &Path, bytes: &[u8]) -> Option<StoreError> {
        std::fs::write(path, bytes).unwrap();
        CheckData::read(path, &DEVICE, &BUNDLE).err()
    }

    /// Made by `reference/keys_reference.py`.
    #[test]
    fn known_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("check.bin");
        let maps = vec![MapCheck { map: 6, form: 1, inputs: vec![vec![P61 - 1]] }];
        let secret = CheckSecret::new(&[0x33; 32]);
        CheckData { device: [0x11; 16], bundle: [0x22; 32], secret, maps }.write(&path).unwrap();
        let expected = "70706f6e6e782d4301000000\
            11111111111111111111111111111111\
            2222222222222222222222222222222222222222222222222222222222222222\
            3333333333333333333333333333333333333333333333333333333333333333\
            010000000600000001010000000100000000000000feffffffffffff1f\
            25707e174b8e070471e460165931d4b5bd8ad1accdb39078667b7d31e398e992";
        assert_eq!(crate::prf::Hex(&std::fs::read(&path).unwrap()).to_string(), expected);
    }

    #[test]
    fn round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("check.bin");
        sample().write(&path).unwrap();
        let read = CheckData::read(&path, &DEVICE, &BUNDLE).unwrap();
        assert_eq!(read.secret.bytes(), &[3; 32]);
        assert_eq!(read.maps.len(), 2);
        for (got, want) in read.maps.iter().zip(&sample().maps) {
            assert_eq!((got.map, got.form, &got.inputs), (want.map, want.form, &want.inputs));
        }
        assert!(!crate::atomic::readable_by_others(&path).unwrap());
        let foreign = CheckData::read(&path, &[9; 16], &BUNDLE);
        assert!(matches!(foreign, Err(StoreError::WrongDevice { .. })));
        let foreign = CheckData::read(&path, &DEVICE, &[9; 32]);
        assert!(matches!(foreign, Err(StoreError::WrongBundle { .. })));
    }

    #[test]
    fn every_cut_and_every_flip_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("check.bin");
        sample().write(&path).unwrap();
        let good = std::fs::read(&path).unwrap();
        assert!(refuses(&path, &good).is_none());
        for cut in 0..good.len() {
            assert!(refuses(&path, &good[..cut]).is_some(), "cut at {cut}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            assert!(refuses(&path, &bad).is_some(), "flip at {at}");
        }
        let longer = [good.as_slice(), &[0]].concat();
        assert!(refuses(&path, &longer).is_some());
    }

    /// Content that is wrong under a right checksum: counts that promise more than there is, and bad elements.
    #[test]
    fn lying_counts_allocate_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("check.bin");
        sample().write(&path).unwrap();
        let good = std::fs::read(&path).unwrap();
        let (maps, elements) = (12 + 80, 12 + 80 + 4 + 9);
        let with = |offset: usize, value: &[u8]| {
            let mut bad = good[..good.len() - 32].to_vec();
            bad[offset..offset + value.len()].copy_from_slice(value);
            let checksum = blake3::hash(&bad);
            bad.extend_from_slice(checksum.as_bytes());
            bad
        };
        let truncated = |e: Option<StoreError>| matches!(e, Some(StoreError::Truncated { .. }));
        let corrupt = |e: Option<StoreError>| matches!(e, Some(StoreError::Corrupt { .. }));
        assert!(truncated(refuses(&path, &with(maps, &u32::MAX.to_le_bytes()))));
        assert!(truncated(refuses(&path, &with(elements, &u64::MAX.to_le_bytes()))));
        assert!(truncated(refuses(&path, &with(elements, &(u64::MAX / 8 + 1).to_le_bytes()))));
        assert!(corrupt(refuses(&path, &with(elements + 8, &P61.to_le_bytes()))));
        assert!(corrupt(refuses(&path, &with(maps, &1u32.to_le_bytes()))));
        assert!(corrupt(refuses(&path, &with(maps + 4, &7u32.to_le_bytes()))));
        let version = refuses(&path, &with(8, &2u32.to_le_bytes()));
        assert!(matches!(version, Some(StoreError::Version { found: 2, known: 1, .. })));
        let kind = refuses(&path, &with(0, b"pponnx-K"));
        assert!(matches!(kind, Some(StoreError::NotThisKind { .. })));
    }

    #[test]
    fn bad_content_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("check.bin");
        let mut data = sample();
        data.maps.swap(0, 1);
        assert!(matches!(data.write(&path), Err(StoreError::Unwritable { .. })));
        data.maps.swap(0, 1);
        data.maps[0].inputs[0][0] = P61;
        assert!(matches!(data.write(&path), Err(StoreError::Unwritable { .. })));
        assert!(!path.exists());
    }
}
