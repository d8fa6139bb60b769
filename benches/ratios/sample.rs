//! What is measured of a cell, over one opening of the device or several: the ratios, and which naive path they are of. Called by
//! `main.rs`.

use fused_lora::{DType, Device};

use super::common::measure::{Effort, agree, fastest, pairs};
use super::common::shapes::Cell;
use super::common::statistics::{Interval, median};
use super::common::{self, Cost, Layer, Path, Result, Weights, share};
use super::record::{Measured, Record};

/// A cell, and all that was measured of it so far.
pub struct Sample {
    pub cell: Cell,
    /// An opening gives one ratio, the median of its pairs: these have the opening in common, and are not independent.
    each_counts_once: bool,
    /// fused / naive and fused / plain: of every opening its pairs.
    openings: Vec<[Vec<f64>; 2]>,
    found: Option<Found>,
}

/// What was found the first time, and does not change with the clock.
struct Found {
    /// The naive path that was the faster one, and its name.
    taken: usize,
    name: &'static str,
    floor: f64,
    fused: Cost,
    naive: Cost,
    shares: Option<[f64; 2]>,
}

impl Sample {
    pub fn new(cell: Cell, each_counts_once: bool) -> Sample {
        Sample { cell, each_counts_once, openings: Vec::new(), found: None }
    }

    /// Measures the cell on a device just opened. The first time the paths are checked against each other, the faster naive one is
    /// picked, and the shares over `outputs` results are taken.
    pub fn add(
        &mut self,
        device: &Device,
        weights: &Weights,
        effort: Effort,
        outputs: usize,
    ) -> Result<()> {
        let cell = self.cell;
        let layer = Layer::new(device, weights, cell)?;
        let mut fused = common::fused(&layer)?;
        let mut plain = common::plain(&layer)?;
        let mut naive = common::naive(&layer)?;
        let mut turn = 0;
        let taken = match &self.found {
            Some(found) => found.taken,
            None => {
                for naive in &mut naive {
                    agree(&layer, &mut *fused, &mut **naive)?;
                }
                fastest(&mut naive, &mut turn)?
            }
        };
        let naive = &mut *naive[taken];
        let mut rivals: [&mut dyn Path; 2] = [&mut *naive, &mut *plain];
        // What is compiled first comes to lie elsewhere: in every other opening the rivals are.
        if self.openings.len() % 2 == 1 {
            for rival in &mut rivals {
                rival.run(0)?;
                rival.wait()?;
            }
        }
        let ratios = pairs(&mut *fused, &mut rivals, &mut turn, effort)?;
        let [over_naive, over_plain] = <[Vec<f64>; 2]>::try_from(ratios)
            .map_err(|_| "a list of ratios for each of two rivals")?;
        if self.found.is_none() {
            let shares = match cell.dtype {
                DType::F32 => None,
                _ => Some(share::shares(device, weights, cell, naive.name(), outputs)?),
            };
            self.found = Some(Found {
                taken,
                name: naive.name(),
                floor: fused.cost().least_flops as f64 / plain.cost().least_flops as f64,
                fused: fused.cost(),
                naive: naive.cost(),
                shares,
            });
        }
        self.openings.push([over_naive, over_plain]);
        Ok(())
    }

    /// The line of the table.
    pub fn record(&self) -> Result<Record> {
        let found = self.found.as_ref().ok_or("a cell that was not measured")?;
        Ok(Record::from(&Measured {
            cell: self.cell,
            taken: found.name,
            pairs: self.openings.iter().map(|[naive, _]| naive.len()).sum(),
            over_naive: self.interval(0),
            over_plain: self.interval(1),
            floor: found.floor,
            fused: found.fused,
            naive: found.naive,
            shares: found.shares,
        }))
    }

    pub fn is_not_slower(&self) -> bool {
        self.interval(0).not_slower()
    }

    fn interval(&self, rival: usize) -> Interval {
        let openings = self.openings.iter().map(|of| of[rival].clone());
        Interval::of(match self.each_counts_once {
            true => openings.map(median).collect(),
            false => openings.flatten().collect(),
        })
    }
}
