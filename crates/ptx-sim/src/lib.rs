//! Runs handwritten PTX for sm_80 and sm_90a without a GPU and finds what is wrong with it: races, forgotten
//! waits, fences and barriers, bytes out of bounds or never written. Used by tests and by
//! `ptx-sim-driver`; `README.md` says what is modelled, checked and refused, and where.
//!
//! ```text
//! text    lexer, parser: a generic grammar with line and column
//! isa     strict decoder: registers become slots; what is not known is an error by name
//! exec    warps under a mask, barriers, the scheduler; Hopper's engines in exec::hopper
//! num     rounding, scalar floats, models of the tensor core
//! mem     allocations with exact bounds
//! check   vector clocks, shadow cells, and the one checked path to memory
//! ```
//!
//! [`run_launch`] runs one launch; a [`Machine`] runs several at a time, with copies and frees in
//! between, and holds the checks across all of them.
//!
//! Nothing is ignored silently: an opcode, modifier or state space that is not in the decoder's
//! tables is a [`PtxError`] that names file and line. `tests/decoder.rs` holds those tables to ptxas.
//! What is left to ptxas: whether `.version` is new enough for a form, and everything about registers.
//!
//! Differences that a reader should know: f64 is rounded to nearest only; `.approx` functions are
//! correctly rounded unless a launch asks for their documented error; `mul` and `add` without a rounding
//! are never contracted; division of integers by zero is a fault. Global and constant variables
//! start as zero where nothing is given; shared and local memory start uninitialised.
//!
//! ```
//! use ptx_sim::{Launch, Memory, Module, Options, run_launch};
//!
//! let ptx = "
//!     .version 7.0
//!     .target sm_80
//!     .address_size 64
//!     .visible .entry double(.param .u64 x) {
//!         .reg .b64 %p; .reg .b32 %i, %v;
//!         ld.param.u64 %p, [x];
//!         mov.u32 %i, %tid.x;
//!         mad.wide.u32 %p, %i, 4, %p;
//!         ld.global.u32 %v, [%p];
//!         add.u32 %v, %v, %v;
//!         st.global.u32 [%p], %v;
//!         ret;
//!     }";
//! let module = Module::parse("double.ptx", ptx).unwrap();
//! let mut memory = Memory::new();
//! let x = memory.alloc(32 * 4).unwrap();
//! memory.write(x, &[7, 0, 0, 0].repeat(32)).unwrap();
//! let launch = Launch::new("double", [1, 1, 1], [32, 1, 1]).ptr(x);
//! run_launch(&module, &mut memory, &launch, &Options::default()).unwrap();
//! assert_eq!(memory.read(x, 4).unwrap(), [14, 0, 0, 0]);
//!
//! // One thread too many: out of bounds, with the line.
//! let launch = Launch::new("double", [1, 1, 1], [33, 1, 1]).ptr(x);
//! let error = run_launch(&module, &mut memory, &launch, &Options::default()).unwrap_err();
//! assert!(error.to_string().starts_with("double.ptx:10: OutOfBounds"), "{error}");
//! ```

mod check;
mod chip;
mod counters;
mod error;
mod exec;
mod isa;
mod lanes;
mod launch;
mod machine;
mod mem;
mod num;
mod options;
mod plan;
mod report;
mod tensor;
mod text;

pub use check::past::Past;
pub use chip::Chip;
pub use counters::{Counters, LineCount};
pub use error::{LaunchError, PtxError};
pub use isa::Module;
pub use launch::{RunError, run_launch};
pub use machine::{Before, LaunchId, Machine, Progress};
pub use mem::{Memory, MemoryError};
pub use num::mma::MmaModel;
pub use options::{CopyTiming, Options, Schedule};
pub use plan::{Launch, check_launch};
pub use report::{Fault, FaultKind, Other, WarpState};
pub use tensor::{Swizzle, TENSOR_MAP_BYTES, TensorMap, TensorMapError, TensorType};
