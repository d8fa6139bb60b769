//! The card's own clock: a path's runs between two events, as a CUDA graph or launched one by
//! one. Called by `main.rs`, and by `cublas/` to choose among its kernels.

use std::sync::Arc;

use fused_lora::cuda::cudarc::driver::sys::{
    CUevent_flags, CUgraphInstantiate_flags, CUstreamCaptureMode,
};
use fused_lora::cuda::cudarc::driver::{CudaEvent, CudaGraph, CudaStream};

use super::common::measure::Outputs;
use super::common::{Path, Result};
use super::memory::Memory;

/// A lap (the runs of one graph) takes so long at least, seconds: launching it must be hidden
/// behind the one before.
const LAP: f64 = 300e-6;
/// And a timing so long.
const TIMING: f64 = 3e-3;
/// A graph of more runs takes long to make.
const MOST_RUNS: usize = 1024;
const MOST_LAPS: usize = 64;

/// How often a timing repeats: the same for every path of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length {
    /// Runs of a lap: every set of buffers, once or several times.
    pub runs: usize,
    /// Laps of a timing, after one that is not timed.
    pub laps: usize,
}

impl Length {
    /// The shortest: each set once.
    pub fn least(sets: usize) -> Length {
        Length { runs: sets, laps: 1 }
    }

    /// Long enough for runs of so many seconds.
    pub fn of(sets: usize, seconds: f64) -> Length {
        let seconds = seconds.max(1e-7);
        let times = (LAP / (seconds * sets as f64)).ceil().max(1.0) as usize;
        let runs = sets * times.min((MOST_RUNS / sets).max(1));
        let laps = (TIMING / (seconds * runs as f64)).ceil().max(1.0) as usize;
        Length { runs, laps: laps.min(MOST_LAPS) }
    }
}

/// Two events on the one stream.
pub struct Clock {
    stream: Arc<CudaStream>,
    start: CudaEvent,
    end: CudaEvent,
}

impl Clock {
    pub fn new(stream: &Arc<CudaStream>) -> Result<Clock> {
        let event = || stream.context().new_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
        Ok(Clock { stream: stream.clone(), start: event()?, end: event()? })
    }

    /// Seconds of a run. One lap goes ahead untimed, so that the card is at work when the first
    /// event comes, and the host is never what is timed, if it launches faster than the card runs.
    pub fn time(&self, length: Length, mut lap: impl FnMut() -> Result<()>) -> Result<f64> {
        lap()?;
        self.start.record(&self.stream)?;
        for _ in 0..length.laps {
            lap()?;
        }
        self.end.record(&self.stream)?;
        self.end.synchronize()?;
        let milliseconds = f64::from(self.start.elapsed_ms(&self.end)?);
        if milliseconds <= 0.0 {
            return Err("the card's clock stands still".into());
        }
        Ok(milliseconds * 1e-3 / (length.laps * length.runs) as f64)
    }
}

/// The graph of one lap of a path, and the path, whose kernels and workspace it uses.
pub struct Repeated<'a> {
    // Dropped first.
    graph: CudaGraph,
    length: Length,
    path: Box<dyn Path + 'a>,
}

impl<'a> Repeated<'a> {
    /// Captures a lap of `path`, which has run before.
    pub fn new(
        stream: &Arc<CudaStream>,
        mut path: Box<dyn Path + 'a>,
        length: Length,
    ) -> Result<Self> {
        stream.synchronize()?;
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED)?;
        let captured = (0..length.runs).try_for_each(|turn| path.run(turn));
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        // Ended in any case: the stream must not stay captured.
        let graph = stream.end_capture(flags);
        captured?;
        let graph = graph?.ok_or("the capture made no graph")?;
        graph.upload()?;
        Ok(Repeated { graph, length, path })
    }

    /// What one launch of the graph leaves in the first set, over outputs full of NaN.
    pub fn outputs(&self, memory: &Memory) -> Result<Outputs> {
        memory.poison()?;
        self.graph.launch()?;
        self.path.outputs()
    }

    /// Seconds of a run within the graph.
    pub fn in_graph(&mut self, clock: &Clock) -> Result<f64> {
        clock.time(self.length, || Ok(self.graph.launch()?))
    }
}

/// Seconds of a run of `path` when the host launches every kernel by itself.
pub fn one_by_one(path: &mut dyn Path, clock: &Clock, length: Length) -> Result<f64> {
    clock.time(length, || (0..length.runs).try_for_each(|turn| path.run(turn)))
}
