//! `backward_gain`: the launch that scales dy and forms a magnitude's gradient. Called by `work`.

use super::cost::{self, Step};
use super::job::Job;
use super::layer::{Bind, Buffers, Load, Output};
use super::limits::{self, fold};
use super::shader::parts::kernels;
use super::shader::{Shader, Size};
use super::{Launch, Refusal, WgpuCapabilities, Work};
use crate::problem::Scalars;
use crate::product::GainGradient;

/// Threads along the columns, four columns each, and along the tokens.
const LANES: [usize; 2] = [8, 8];

#[derive(Debug)]
pub(super) struct BackwardGain<'a> {
    pub(super) of: &'a GainGradient,
    pub(super) scalars: Scalars,
    pub(super) wgpu: &'a WgpuCapabilities,
}

impl BackwardGain<'_> {
    pub(super) fn work(&self, work: &mut Work<'_>) -> Result<(), Refusal> {
        for load in self.loads() {
            let load = Load::new(load);
            limits::whole(load.operand, &load.matrix, self.wgpu)?;
        }
        let scaled = Output::new(&self.of.scaled);
        limits::whole(scaled.operand, &scaled.matrix, self.wgpu)?;
        work.add(self)
    }

    fn loads(&self) -> impl Iterator<Item = &crate::product::Load> {
        let GainGradient { dy, y, bias, gain, magnitude, .. } = self.of;
        [dy, y, gain, magnitude].into_iter().chain(bias)
    }

    fn bind(&self, to: &mut impl Bind) {
        let of = self.of;
        // Without tokens there is nothing of dy and y to bind.
        if of.tokens > 0 {
            to.read("dy", &Load::new(&of.dy));
            to.read("y", &Load::new(&of.y));
            to.read("gain", &Load::new(&of.gain));
            if let Some(bias) = &of.bias {
                to.read("bias", &Load::new(bias));
            }
            to.write("scaled", &Output::new(&of.scaled));
        }
        to.read("magnitude", &Load::new(&of.magnitude));
        to.write("gradient", &Output::new(&of.gradient));
    }
}

impl Job for BackwardGain<'_> {
    fn size(&self) -> Size {
        let [columns, tokens] = LANES;
        let [x, y] = fold(self.of.columns.div_ceil(4 * columns), self.wgpu);
        let smem_bytes = (16 * columns * tokens) as u32;
        Size { grid: [x, y, 1], block: [columns as u32, tokens as u32, 1], smem_bytes }
    }

    fn buffers(&self) -> u32 {
        let mut buffers = Buffers::new(self.wgpu);
        self.bind(&mut buffers);
        buffers.count
    }

    fn step(&self) -> Step {
        let read: u64 = self.loads().map(|of| of.spec.bytes()).fold(0, u64::saturating_add);
        let [scaled, gradient] = [&self.of.scaled, &self.of.gradient].map(Output::new);
        let written = scaled.bytes_of(self.of.tokens).saturating_add(gradient.bytes_of(1));
        let bytes = read.saturating_add(written);
        let flops = 4 * self.of.tokens as u64 * self.of.columns as u64;
        Step {
            needed: flops,
            executed: flops,
            bytes,
            least_bytes: bytes,
            size: self.size(),
            waits: self.of.tokens.div_ceil(LANES[1]),
            rate: cost::REGISTERS,
        }
    }

    fn render(&self) -> crate::Result<Launch> {
        let (mut shader, size) = (Shader::new(self.wgpu), self.size());
        let [columns, tokens] = LANES;
        shader.constant("TILE_TOKENS", 1);
        shader.constant("TILE_FOURS", 1);
        shader.constant("LANES_M", 1);
        shader.constant("LANES_N", columns);
        shader.constant("LANES_K", tokens);
        shader.uint("tokens", self.of.tokens);
        shader.uint("groups_x", size.grid[0] as usize);
        shader.beta(self.of.old, self.scalars);
        // Read through a window dy is there, though not by its own name.
        shader.condition("dy", self.of.tokens > 0 && self.of.dy.window.is_some());
        self.bind(&mut shader);
        shader.launch(&kernels::BACKWARD_GAIN, size)
    }
}
