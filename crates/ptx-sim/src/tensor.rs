//! Tensor maps: what `cuTensorMapEncodeTiled` takes, its documented limits, and the 128 bytes that a
//! kernel is given. The bytes are this simulator's own; a real driver's are opaque and mean nothing
//! here. Encoded by the driver stand-in and by tests, read by the TMA engine.

use thiserror::Error;

/// Bytes of a tensor map.
pub const TENSOR_MAP_BYTES: usize = 128;
const MAGIC: u64 = 0x3150_414D_4D49_5350;

/// Element types, in the order of `CUtensorMapDataType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum TensorType {
    U8,
    U16,
    U32,
    I32,
    U64,
    I64,
    F16,
    F32,
    F64,
    Bf16,
    F32Ftz,
    Tf32,
    Tf32Ftz,
}

impl TensorType {
    const ALL: [TensorType; 13] = [
        TensorType::U8,
        TensorType::U16,
        TensorType::U32,
        TensorType::I32,
        TensorType::U64,
        TensorType::I64,
        TensorType::F16,
        TensorType::F32,
        TensorType::F64,
        TensorType::Bf16,
        TensorType::F32Ftz,
        TensorType::Tf32,
        TensorType::Tf32Ftz,
    ];

    /// By the driver's number.
    pub fn from_number(n: u32) -> Option<TensorType> {
        TensorType::ALL.get(n as usize).copied()
    }

    /// Bytes of an element.
    pub fn bytes(self) -> u32 {
        match self {
            TensorType::U8 => 1,
            TensorType::U16 | TensorType::F16 | TensorType::Bf16 => 2,
            TensorType::U64 | TensorType::I64 | TensorType::F64 => 8,
            _ => 4,
        }
    }

    fn is_float(self) -> bool {
        !matches!(
            self,
            TensorType::U8
                | TensorType::U16
                | TensorType::U32
                | TensorType::I32
                | TensorType::U64
                | TensorType::I64
        )
    }
}

/// How 16-byte chunks are exchanged in shared memory, in the order of `CUtensorMapSwizzle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swizzle {
    /// Rows lie one behind the other.
    None,
    /// Address bit 4 is changed by bit 7.
    B32,
    /// Bits 4 and 5 by bits 7 and 8.
    B64,
    /// Bits 4 to 6 by bits 7 to 9.
    B128,
}

impl Swizzle {
    /// By the driver's number.
    pub fn from_number(n: u32) -> Option<Swizzle> {
        [Swizzle::None, Swizzle::B32, Swizzle::B64, Swizzle::B128].get(n as usize).copied()
    }

    /// Bytes of a row, 0 without a swizzle.
    pub fn span(self) -> u32 {
        match self {
            Swizzle::None => 0,
            Swizzle::B32 => 32,
            Swizzle::B64 => 64,
            Swizzle::B128 => 128,
        }
    }

    /// Where the chunk that a plain layout puts at `address` lies.
    pub(crate) fn apply(self, address: u32) -> u32 {
        let mask = match self {
            Swizzle::None => 0,
            Swizzle::B32 => 1,
            Swizzle::B64 => 3,
            Swizzle::B128 => 7,
        };
        address ^ (address >> 7 & mask) << 4
    }

    /// Bytes after which the pattern repeats.
    pub(crate) fn period(self) -> u32 {
        self.span() * 8
    }
}

/// A tiled tensor, innermost dimension first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMap {
    /// Element type.
    pub ty: TensorType,
    /// Global address of the first element.
    pub address: u64,
    /// Elements in each dimension; their number is the rank.
    pub dims: Vec<u64>,
    /// Bytes from one element to the next in each dimension but the first.
    pub strides: Vec<u64>,
    /// Elements of a box in each dimension.
    pub box_dims: Vec<u32>,
    /// Every how many elements one is taken.
    pub element_strides: Vec<u32>,
    /// `CUtensorMapInterleave`: 0, 16 or 32 bytes.
    pub interleave: u32,
    /// The exchange of chunks in shared memory.
    pub swizzle: Swizzle,
    /// Elements outside become NaN instead of zero.
    pub nan_fill: bool,
}

/// A limit of `cuTensorMapEncodeTiled` that is not kept.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct TensorMapError(pub String);

fn need(fine: bool, message: impl FnOnce() -> String) -> Result<(), TensorMapError> {
    if fine { Ok(()) } else { Err(TensorMapError(message())) }
}

impl TensorMap {
    /// A map without gaps, interleaving, element strides and NaN: `dims` lie densely.
    pub fn dense(ty: TensorType, address: u64, dims: &[u64], box_dims: &[u32]) -> TensorMap {
        let mut strides = Vec::new();
        let mut stride = u64::from(ty.bytes());
        for dim in &dims[..dims.len().saturating_sub(1)] {
            stride *= dim;
            strides.push(stride);
        }
        TensorMap {
            ty,
            address,
            dims: dims.into(),
            strides,
            box_dims: box_dims.into(),
            element_strides: vec![1; dims.len()],
            interleave: 0,
            swizzle: Swizzle::None,
            nan_fill: false,
        }
    }

    /// The same with a swizzle.
    #[must_use]
    pub fn swizzled(mut self, swizzle: Swizzle) -> TensorMap {
        self.swizzle = swizzle;
        self
    }

    /// Whether the documented limits are kept.
    ///
    /// # Errors
    /// The first that is not, by name and number.
    pub fn check(&self) -> Result<(), TensorMapError> {
        let rank = self.dims.len();
        need((1..=5).contains(&rank), || format!("tensorRank {rank} is outside 1..=5"))?;
        need(self.interleave == 0 || rank >= 3, || {
            format!("tensorRank {rank}: interleaving needs 3 dimensions")
        })?;
        let (n, all) = (self.strides.len(), [self.box_dims.len(), self.element_strides.len()]);
        need(n + 1 == rank && all == [rank, rank], || {
            format!("a tensor of rank {rank} has {n} strides, {all:?} box sizes and steps")
        })?;
        let wide = if self.interleave == 32 { 32 } else { 16 };
        need(self.address != 0 && self.address.is_multiple_of(wide), || {
            format!("globalAddress {:#x} is no multiple of {wide}", self.address)
        })?;
        for (i, &dim) in self.dims.iter().enumerate() {
            need(dim > 0 && dim <= 1 << 32, || {
                format!("globalDim[{i}] {dim} is outside 1..=2^32")
            })?;
        }
        for (i, &stride) in self.strides.iter().enumerate() {
            need(stride.is_multiple_of(wide) && stride < 1 << 40, || {
                format!("globalStrides[{i}] {stride} is no multiple of {wide} below 2^40")
            })?;
        }
        for (i, &size) in self.box_dims.iter().enumerate() {
            need((1..=256).contains(&size), || format!("boxDim[{i}] {size} is outside 1..=256"))?;
        }
        for (i, &step) in self.element_strides.iter().enumerate() {
            need((1..=8).contains(&step), || {
                format!("elementStrides[{i}] {step} is outside 1..=8")
            })?;
        }
        let inner = self.box_dims[0] * self.ty.bytes();
        if self.interleave == 0 {
            need(inner.is_multiple_of(16), || {
                format!("boxDim[0] has {inner} bytes, no multiple of 16")
            })?;
            let span = self.swizzle.span();
            need(span == 0 || inner <= span, || {
                format!("boxDim[0] has {inner} bytes, the swizzle spans {span}")
            })?;
        }
        need(self.interleave != 32 || self.swizzle == Swizzle::B32, || {
            "an interleave of 32 bytes needs CU_TENSOR_MAP_SWIZZLE_32B".into()
        })?;
        need(!self.nan_fill || self.ty.is_float(), || {
            format!("oobFill NAN_REQUEST_ZERO_FMA needs a floating-point type, not {:?}", self.ty)
        })
    }

    /// The bytes that a kernel is given.
    ///
    /// # Errors
    /// As for [`check`](Self::check).
    pub fn encode(&self) -> Result<[u8; TENSOR_MAP_BYTES], TensorMapError> {
        self.check()?;
        let mut words = [0u32; 32];
        let wide = |words: &mut [u32; 32], at: usize, v: u64| {
            (words[at], words[at + 1]) = (v as u32, (v >> 32) as u32);
        };
        wide(&mut words, 0, MAGIC);
        words[2] = self.ty as u32 | (self.dims.len() as u32) << 8 | self.interleave << 16;
        words[3] = self.swizzle as u32 | u32::from(self.nan_fill) << 8;
        wide(&mut words, 4, self.address);
        for i in 0..self.dims.len() {
            // 2^32 elements fit as one less.
            words[6 + i] = (self.dims[i] - 1) as u32;
            words[19 + i] = self.box_dims[i] | self.element_strides[i] << 16;
        }
        for (i, &stride) in self.strides.iter().enumerate() {
            wide(&mut words, 11 + 2 * i, stride);
        }
        words[31] = digest(&words);
        let mut bytes = [0; TENSOR_MAP_BYTES];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        Ok(bytes)
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(bytes: &[u8]) -> Option<TensorMap> {
        let mut words = [0u32; 32];
        for (word, part) in words.iter_mut().zip(bytes.get(..TENSOR_MAP_BYTES)?.chunks_exact(4)) {
            *word = u32::from_le_bytes(part.try_into().ok()?);
        }
        let wide = |at: usize| u64::from(words[at]) | u64::from(words[at + 1]) << 32;
        if wide(0) != MAGIC || words[31] != digest(&words) {
            return None;
        }
        let rank = (words[2] >> 8 & 0xFF) as usize;
        Some(TensorMap {
            ty: TensorType::from_number(words[2] & 0xFF)?,
            address: wide(4),
            dims: (0..rank).map(|i| u64::from(words[6 + i]) + 1).collect(),
            strides: (1..rank).map(|i| wide(9 + 2 * i)).collect(),
            box_dims: (0..rank).map(|i| words[19 + i] & 0xFFFF).collect(),
            element_strides: (0..rank).map(|i| words[19 + i] >> 16).collect(),
            interleave: words[2] >> 16,
            swizzle: Swizzle::from_number(words[3] & 0xFF)?,
            nan_fill: words[3] >> 8 & 1 == 1,
        })
    }

    /// The same tensor elsewhere.
    ///
    /// # Errors
    /// The address is not aligned as the map needs it.
    pub fn at(mut self, address: u64) -> Result<TensorMap, TensorMapError> {
        self.address = address;
        self.check()?;
        Ok(self)
    }

    /// Bytes of a whole box.
    pub(crate) fn box_bytes(&self) -> u32 {
        // The largest box has 2^40 elements; none above 256 KiB fits anywhere.
        let bytes = self.box_dims.iter().map(|&n| u64::from(n)).product::<u64>()
            * u64::from(self.ty.bytes());
        bytes.min(u64::from(u32::MAX)) as u32
    }

    /// Bytes of a box's innermost row.
    pub(crate) fn row_bytes(&self) -> u32 {
        self.box_dims[0] * self.ty.bytes()
    }

    /// The rows of the box whose first element is at `from`.
    pub(crate) fn rows(&self, from: [i32; 5]) -> impl Iterator<Item = Row> + '_ {
        let element = i64::from(self.ty.bytes());
        let first = i64::from(from[0]);
        let low = (-first).clamp(0, i64::from(self.box_dims[0]));
        let high = (self.dims[0] as i64 - first).clamp(low, i64::from(self.box_dims[0]));
        let count: u32 = self.box_dims[1..].iter().product();
        (0..count).map(move |index| {
            let (mut left, mut inside) = (index, high > low);
            let mut address = self.address as i64 + (first + low) * element;
            let outer = self.dims.iter().zip(&self.box_dims).zip(from).skip(1);
            for (((&dim, &size), from), &stride) in outer.zip(&self.strides) {
                let at = i64::from(from) + i64::from(left % size);
                left /= size;
                inside &= at >= 0 && (at as u64) < dim;
                address = address.wrapping_add(at.wrapping_mul(stride as i64));
            }
            Row {
                at: index * self.row_bytes(),
                skip: (low * element) as u32,
                bytes: if inside { ((high - low) * element) as u32 } else { 0 },
                address: address as u64,
            }
        })
    }

    /// An element outside of the tensor.
    pub(crate) fn fill(&self) -> [u8; 8] {
        let bits: u64 = match (self.nan_fill, self.ty) {
            (false, _) => 0,
            (_, TensorType::F16) => 0x7FFF,
            (_, TensorType::Bf16) => 0x7FFF,
            (_, TensorType::F64) => 0x7FFF_FFFF_FFFF_FFFF,
            _ => 0x7FFF_FFFF,
        };
        bits.to_le_bytes()
    }
}

/// One row of a box: what of it lies in the tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Offset in the box, and bytes before the first that lies in the tensor.
    pub(crate) at: u32,
    pub(crate) skip: u32,
    /// Bytes that lie in the tensor, and where.
    pub(crate) bytes: u32,
    pub(crate) address: u64,
}

fn digest(words: &[u32; 32]) -> u32 {
    let state = words[..31].iter().fold(0x811C_9DC5u64, |h, &w| crate::num::mix(h, u64::from(w)));
    state as u32 ^ (state >> 32) as u32
}
