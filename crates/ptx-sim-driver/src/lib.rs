//! A stand-in for `libcuda` whose launches run in `ptx-sim`. Loaded by cudarc in the tests; empty so far.
