//! A plan as data, for a host in another language that launches kernels itself: JavaScript in a page, say.
//! One way alone: executors trust a plan's texts, so none may come from outside.

use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::Plan;

/// Of a [`Source`](super::Source).
pub(super) fn text<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// What a host needs to launch it: `operation`, `strategy`, `preset`, `workspace_len`, `workspace_zeroed`, `operands`
/// (a [`Spec`](crate::Spec) by name) and `launches` ([`Launch`](crate::Launch), where it is said how). Names of
/// enums are those of their [`Display`](core::fmt::Display), `row` and `col` for a major.
///
/// ```
/// use fused_lora::{Capabilities, Plan, Problem, WgpuCapabilities};
///
/// let problem = Problem::forward(8, 64, 32, 4);
/// let plan = Plan::new(&problem, &Capabilities::Wgpu(WgpuCapabilities::default()))?;
/// let json = serde_json::to_value(&plan)?;
/// assert_eq!(json["operation"], "forward");
/// assert_eq!(json["operands"]["x"]["cols"], 64);
/// assert!(json["launches"][0]["source"]["text"].as_str().is_some_and(|text| text.contains("@compute")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let operands: BTreeMap<_, _> = self.problem.specs().collect();
        let mut plan = serializer.serialize_struct("Plan", 7)?;
        plan.serialize_field("operation", &self.problem.operation())?;
        plan.serialize_field("strategy", &self.strategy)?;
        plan.serialize_field("preset", self.preset)?;
        plan.serialize_field("workspace_len", &self.workspace_len)?;
        plan.serialize_field("workspace_zeroed", &self.workspace_zeroed())?;
        plan.serialize_field("operands", &operands)?;
        plan.serialize_field("launches", &self.launches)?;
        plan.end()
    }
}
