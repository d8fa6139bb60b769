//! A launch before there is a text: what it takes and costs, and then how it is rendered. One in
//! each kernel's file; asked by `Work`.

use super::Launch;
use super::cost::Step;
use super::shader::Size;
use crate::Result;

pub(super) trait Job {
    fn size(&self) -> Size;
    /// Storage buffers that it binds.
    fn buffers(&self) -> u32;
    fn step(&self) -> Step;
    fn render(&self) -> Result<Launch>;
}
