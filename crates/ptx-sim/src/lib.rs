//! Runs PTX without a GPU: parser, interpreter and race checks. Used by `ptx-sim-driver`; empty so far.
