//! Strategy `merged`: w' = w + ΔW in the workspace, in w's own type, and the plain layer on it. w' is formed in every run,
//! since nothing says when w or the adapter has changed.

use super::address::{Address, VECTOR};
use super::contract::{Strided, Sum, steps};
use super::linear::variant;
use super::numbers::{Kind, Tile};
use super::params::word;
use super::scratch::ScratchLayout;
use super::{Building, Refusal, reason};
use crate::product::{
    Body, Border, Bordered, Finish, INDICES, Load, Multiplier, Old, Store, Summand,
};
use crate::{DType, Major};

impl Building<'_> {
    /// Adds the launches; bytes of workspace.
    pub(super) fn merged(
        &mut self,
        tile: Tile,
        aligned: bool,
        of: &Bordered,
    ) -> Result<usize, Refusal> {
        let Some(body) = &of.body else { return Err(reason("a layer without w".to_owned())) };
        let x = Address::of_load(&of.left)?;
        if aligned {
            x.check_aligned()?;
        }
        let k_major = body.right.k_major;
        let variant = variant(Kind::Plain, tile, self.activation, None, k_major, aligned, false)?;
        let mut scratch = ScratchLayout::new(false);
        let w = match (&body.summand, &of.border) {
            (Some(of), _) => self.with_summand(&body.right, of, self.activation, &mut scratch)?,
            (None, Some(border)) => self.with_border(body, of.depth, border, &mut scratch)?,
            (None, None) => return Err(reason("there is no adapter".to_owned())),
        };
        let plain = Bordered { border: None, ..of.clone() };
        self.layer_itself(variant, &plain, body, [x, w], None)?;
        Ok(scratch.finish())
    }

    /// Room for what w becomes, stored as w is but for the type, in rows of whole 16 bytes.
    fn like(&self, w: &Load, dtype: DType, scratch: &mut ScratchLayout) -> (Address, usize) {
        let (outer, inner) = w.spec.stored();
        let pitch = inner.next_multiple_of(VECTOR / dtype.size());
        let bytes = outer.saturating_mul(pitch).saturating_mul(dtype.size());
        let stride = word(pitch.saturating_mul(dtype.size()));
        (Address::in_scratch(scratch.take(bytes), stride), pitch)
    }

    /// `w + s·w1 ⊗ w2` there, rounded to `dtype`.
    pub(super) fn with_summand(
        &mut self,
        w: &Load,
        summand: &Summand,
        dtype: DType,
        scratch: &mut ScratchLayout,
    ) -> Result<Address, Refusal> {
        let (address, pitch) = self.like(w, dtype, scratch);
        let Summand { w1, w2, taps, .. } = summand;
        // By stored rows and columns, so that neighbours in a warp lie beside each other; but x has no third
        // index, which columns of w are that count taps.
        let turns = w.spec.major == Major::Col && *taps == 1;
        let turned = |[row, col]: [usize; 2]| if turns { [col, row] } else { [row, col] };
        let (of_w1, of_w2) = (&w1.spec, &w2.spec);
        let width = of_w2.cols / taps;
        let outer = turned([of_w1.rows, of_w1.cols]);
        let inner = turned([of_w2.rows, width]);
        let tap = width * steps(of_w2)[1];
        let [of_w1, of_w2] = [of_w1, of_w2].map(|of| turned(steps(of)));
        let lines =
            |stride| turned(if w.spec.major == Major::Row { [stride, 1] } else { [1, stride] });
        let side = |load: &Load, steps: [usize; INDICES]| Some(Strided::of_operand(load, steps));
        let written = pitch.saturating_mul(w.spec.stored().0).saturating_mul(dtype.size());
        self.sum(&Sum {
            sizes: [outer[0], inner[0], *taps, outer[1], inner[1], 1, 1],
            left: side(w1, [of_w1[0], 0, 0, of_w1[1], 0, 0, 0]),
            right: side(w2, [0, of_w2[0], tap, 0, of_w2[1], 0, 0]),
            diagonal: false,
            factor: Multiplier::Scale,
            addend: Some(Strided::of_operand(w, lines(w.spec.stride))),
            gain: None,
            bias: None,
            old: Old::Replaced,
            out: Strided::in_scratch(address.offset, dtype, lines(pitch)),
            low_offset: 0,
            shares: false,
            bytes: w.spec.bytes().saturating_add(written as u64),
        })?;
        Ok(address)
    }

    /// `w + s·up·down` there: a copy, and the merge onto it.
    fn with_border(
        &mut self,
        body: &Body,
        depth: usize,
        border: &Border,
        scratch: &mut ScratchLayout,
    ) -> Result<Address, Refusal> {
        let (w, columns) = (&body.right, body.columns);
        if border.shrunk.kept.is_some() {
            return Err(reason("does not form the shrunk that is kept".to_owned()));
        }
        let Some(up) = &border.up else { return Err(reason("a layer without w".to_owned())) };
        let (address, pitch) = self.like(w, self.activation, scratch);
        let (outer, inner) = w.spec.stored();
        let from = Strided::of_operand(w, [0, w.spec.stride, 0, 0, 1, 0, 0]);
        let to = Strided::in_scratch(address.offset, self.activation, [pitch, 1]);
        self.sum(&Sum::copy(from, to, [1, outer, 1, inner]))?;
        // The sum runs over the ranks: of down, across what runs along it in a layer.
        let down = Load { k_major: !border.down.k_major, ..border.down };
        let (factors, sizes) = match w.k_major {
            true => ([up, &down], [columns, depth, border.rank]),
            false => ([&down, up], [depth, columns, border.rank]),
        };
        let out = Store { operand: w.operand, spec: w.spec, major: w.spec.major, planes: None };
        let finish = Finish { factor: Multiplier::Scale, old: Old::Added, ..Finish::of(out) };
        self.merge_onto(address, factors, sizes, &finish, scratch)?;
        Ok(address)
    }
}
