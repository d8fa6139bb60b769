//! A cell's matrices on the card: one allocation, a set of all of them for each turn, filled
//! with numbers that every set has in common. Used by `ours.rs` and `cublas/`.

use std::sync::Arc;

use fused_lora::cuda::Raw;
use fused_lora::cuda::cudarc::driver::{CudaSlice, CudaStream, DevicePtr, result};
use fused_lora::{DType, Element};
use half::{bf16, f16};

use super::common::Result;
use super::common::shapes::{Cell, Direction};
use super::products::{Name, View, allocated, dtype, part};

/// Every matrix begins at a multiple of this.
const ALIGN: usize = 256;
/// Random numbers repeat after so many elements, an odd number, so that no two rows of a usual
/// length are the same: gigabytes need speed more than quality.
const PERIOD: usize = (1 << 20) + 1237;
/// Of an output of more elements some rows are compared, of about so many elements together.
const SAMPLE: usize = 1 << 20;
/// s.
pub const SCALE: f32 = 2.0;

/// Where a matrix lies in a set.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: usize,
    elements: usize,
}

/// The matrices of a cell.
pub struct Memory {
    pub cell: Cell,
    stream: Arc<CudaStream>,
    /// Kept for its bytes.
    _slab: CudaSlice<u8>,
    base: u64,
    places: [Option<Place>; Name::ALL.len()],
    set_bytes: usize,
    /// The outputs are the end of a set, from here on.
    outputs: usize,
    sets: usize,
}

impl Memory {
    /// `sets` times the matrices of `cell`, filled. Nothing else runs on other streams.
    pub fn new(stream: &Arc<CudaStream>, cell: Cell, sets: usize) -> Result<Memory> {
        let mut places = [None; Name::ALL.len()];
        let (mut end, mut outputs) = (0, 0);
        for name in Name::ALL {
            if name == Name::Out {
                outputs = end;
            }
            if let Some([rows, cols]) = allocated(cell, name) {
                places[name as usize] = Some(Place { start: end, elements: rows * cols });
                end += (rows * cols * dtype(cell, name).size()).next_multiple_of(ALIGN);
            }
        }
        let slab = stream.alloc_zeros::<u8>(end * sets)?;
        let (base, guard) = slab.device_ptr(stream);
        // One stream does everything, so there is nothing to be recorded.
        core::mem::forget(guard);
        let memory = Memory {
            cell,
            stream: stream.clone(),
            _slab: slab,
            base,
            places,
            set_bytes: end,
            outputs,
            sets,
        };
        memory.fill()?;
        stream.synchronize()?;
        Ok(memory)
    }

    #[cfg_attr(not(feature = "cublas"), allow(dead_code))]
    pub fn sets(&self) -> usize {
        self.sets
    }

    /// The address of a view's first element, in one of the sets.
    pub fn address(&self, view: View, set: usize) -> u64 {
        let size = dtype(self.cell, view.name).size();
        let start = self.place(view.name).start + view.offset * size;
        self.base + (set % self.sets * self.set_bytes + start) as u64
    }

    /// The same as an operand of the raw tier, to the end of its matrix.
    pub fn raw(&self, view: View, set: usize) -> Raw {
        let len = self.place(view.name).elements - view.offset;
        Raw::new(self.address(view, set), len, dtype(self.cell, view.name))
    }

    fn place(&self, name: Name) -> Place {
        self.places[name as usize].expect("a matrix of this direction")
    }

    /// Makes NaN of all outputs of the first set, so that a path which leaves one alone shows.
    pub fn poison(&self) -> Result<()> {
        let (from, bytes) = (self.base + self.outputs as u64, self.set_bytes - self.outputs);
        // SAFETY: the end of the first set, in the order of the one stream.
        unsafe { result::memset_d8_async(from, 0xff, bytes, self.stream.cu_stream()) }?;
        Ok(())
    }

    /// What `view` of the first set holds; of a large one some rows, the first and the last among
    /// them. Waits for the card.
    pub fn read(&self, view: View) -> Result<Vec<f32>> {
        match dtype(self.cell, view.name) {
            DType::F32 => self.read_as::<f32>(view),
            DType::F16 => self.read_as::<f16>(view),
            DType::Bf16 => self.read_as::<bf16>(view),
        }
    }

    fn read_as<T: Element>(&self, view: View) -> Result<Vec<f32>> {
        let View { rows, cols, stride, .. } = view;
        let Some(last) = rows.checked_sub(1) else { return Ok(Vec::new()) };
        let length = last * stride + cols;
        let step = (rows * cols).div_ceil(SAMPLE);
        // All at once, or row by row: small rows are many.
        let (copies, elements) = match step {
            1 => (vec![0], length),
            _ => ((0..last).step_by(step).chain([last]).collect(), cols),
        };
        let mut stored = vec![T::zeroed(); copies.len() * elements];
        for (to, row) in stored.chunks_exact_mut(elements).zip(copies) {
            let from = self.address(View { offset: view.offset + row * stride, ..view }, 0);
            // SAFETY: elements of a matrix of the first set, in the order of the one stream,
            // which is waited for before they are looked at.
            unsafe { result::memcpy_dtoh_async(to, from, self.stream.cu_stream()) }?;
        }
        self.stream.synchronize()?;
        let rows = stored.chunks(if step == 1 { stride } else { cols });
        Ok(rows.flat_map(|row| &row[..cols]).map(|value| value.to_f32()).collect())
    }

    /// The first set by the host, and the others as its copies.
    fn fill(&self) -> Result<()> {
        match self.cell.dtype {
            DType::F32 => self.fill_as::<f32>()?,
            DType::F16 => self.fill_as::<f16>()?,
            DType::Bf16 => self.fill_as::<bf16>()?,
        }
        for set in 1..self.sets {
            self.copy(self.base + (set * self.set_bytes) as u64, self.base, self.set_bytes)?;
        }
        Ok(())
    }

    fn fill_as<T: Element>(&self) -> Result<()> {
        let Cell { shape, tokens, rank, direction, .. } = self.cell;
        let (k, n, part) = (shape.in_features, shape.out_features, part(self.cell));
        let backward = direction == Direction::Backward;
        // x of ±1 makes a y of the order of 1, and the adapter's branch is as large, so that the
        // comparison of the paths would notice its absence.
        let unit = |of: usize| (3.0 / of as f32).sqrt();
        self.repeat::<T>(Name::W, 1, unit(k))?;
        self.repeat::<T>(Name::X, 2, 1.0)?;
        self.write(Name::A, 0, &random::<T>(4, rank * k, unit(k)))?;
        let b = random::<T>(5, n * rank, 0.5 * unit(rank));
        self.write(Name::B, 0, &b)?;
        // s is a power of two: no product is rounded.
        let scaled: Vec<T> = b.iter().map(|b| T::from_f32(SCALE * b.to_f32())).collect();
        self.write(Name::ScaledB, 0, &widened(&scaled, rank, part))?;
        let input = if backward { Name::Dy } else { Name::X };
        if backward {
            self.repeat::<T>(Name::Dy, 3, 1.0)?;
            let shrunk = random::<T>(6, tokens * rank, 1.0);
            self.write(Name::Shrunk, 0, &widened(&shrunk, rank, part))?;
        }
        // What the extended way was given: copies, row by row.
        let (from, size) = (if backward { n } else { k }, size_of::<T>());
        let [beside, input] = [Name::Beside, input].map(|name| self.place(name).start);
        self.copy_rows([beside, input], [from + part, from], tokens, size)?;
        let [bordered, w] = [Name::Bordered, Name::W].map(|name| self.place(name).start);
        if backward {
            self.copy_rows([bordered, w], [k, k], n, size)?;
            let [below, a] = [bordered + n * k * size, self.place(Name::A).start];
            self.copy_rows([below, a], [k, k], part, size)?;
        } else {
            self.copy_rows([bordered, w], [k + part, k], n, size)?;
            let [right, b] = [bordered + k * size, self.place(Name::ScaledB).start];
            self.copy_rows([right, b], [k + part, part], n, size)?;
        }
        Ok(())
    }

    /// Writes `values` into a matrix of the first set, from one of its elements on.
    fn write<T: Element>(&self, name: Name, offset: usize, values: &[T]) -> Result<()> {
        let place = self.place(name);
        assert!(offset + values.len() <= place.elements, "{name:?} is too short");
        let address = self.base + (place.start + offset * size_of::<T>()) as u64;
        // SAFETY: the elements lie in the matrix; the stream is waited for before `values` goes.
        unsafe { result::memcpy_htod_async(address, values, self.stream.cu_stream()) }?;
        self.stream.synchronize()?;
        Ok(())
    }

    /// Fills a matrix of the first set with a period of random numbers, again and again.
    fn repeat<T: Element>(&self, name: Name, seed: u64, size: f32) -> Result<()> {
        let Place { start, elements } = self.place(name);
        let mut filled = elements.min(PERIOD);
        self.write(name, 0, &random::<T>(seed, filled, size))?;
        let from = self.base + start as u64;
        while filled < elements {
            // As much as there is, which doubles it: the period stays.
            let more = filled.min(elements - filled);
            self.copy(from + (filled * size_of::<T>()) as u64, from, more * size_of::<T>())?;
            filled += more;
        }
        Ok(())
    }

    /// Copies `rows` rows in the first set: `starts` are bytes from its start, of the destination
    /// and the source, `strides` the elements from row to row; the source has no gaps.
    fn copy_rows(
        &self,
        starts: [usize; 2],
        strides: [usize; 2],
        rows: usize,
        size: usize,
    ) -> Result<()> {
        let [to, from] = starts.map(|start| self.base + start as u64);
        if strides[0] == strides[1] {
            return self.copy(to, from, rows * strides[1] * size);
        }
        for row in 0..rows {
            let [to_row, from_row] = strides.map(|stride| (row * stride * size) as u64);
            self.copy(to + to_row, from + from_row, strides[1] * size)?;
        }
        Ok(())
    }

    fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        // SAFETY: both lie in the slab and do not overlap; the copy is in the order of the one
        // stream.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream.cu_stream()) }?;
        Ok(())
    }
}

/// Uniform in ±`size`, rounded, the same for the same `seed`: xorshift64.
fn random<T: Element>(seed: u64, len: usize, size: f32) -> Vec<T> {
    super::common::random(seed, len, size).into_iter().map(T::from_f32).collect()
}

/// Rows of `cols` elements, with zeros after each up to `stride`.
fn widened<T: Element>(values: &[T], cols: usize, stride: usize) -> Vec<T> {
    let mut wide = vec![T::zeroed(); values.len() / cols * stride];
    for (to, from) in wide.chunks_exact_mut(stride).zip(values.chunks_exact(cols)) {
        to[..cols].copy_from_slice(from);
    }
    wide
}
