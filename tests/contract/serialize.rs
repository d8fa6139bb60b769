//! Plans as data for hosts in other languages: names are those that are printed, and what a launch needs is all
//! there.

use fused_lora::{
    Access, Capabilities, DType, Language, Operand, Operation, Plan, Problem, Scaled, Strategy,
    WgpuCapabilities,
};
use serde_json::{Value, json};

fn json(of: impl serde::Serialize) -> Value {
    serde_json::to_value(of).unwrap()
}

#[test]
fn names_are_those_that_are_printed() {
    for operand in Operand::ALL {
        assert_eq!(json(operand), operand.to_string());
    }
    for strategy in Strategy::ALL {
        assert_eq!(json(strategy), strategy.to_string());
    }
    for operation in Operation::ALL {
        assert_eq!(json(operation), operation.to_string());
    }
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        assert_eq!(json(dtype), dtype.to_string());
    }
    assert_eq!(
        json([Access::Read, Access::Write, Access::Update]),
        json!(["read", "write", "update"])
    );
    assert_eq!(json([Language::Ptx, Language::Wgsl]), json!(["ptx", "wgsl"]));
}

#[test]
fn a_plan_has_all_that_a_launch_needs() {
    let problem = Problem::forward(40, 64, 48, 8).with_scale(0.5).with_bias(true);
    let plan = Plan::new(&problem, &Capabilities::Wgpu(WgpuCapabilities::default())).unwrap();
    let written = json(&plan);
    assert_eq!(written["workspace_len"], plan.workspace_len());
    assert_eq!(written["workspace_zeroed"], 0);
    for (operand, spec) in problem.specs() {
        let of = &written["operands"][operand.to_string()];
        assert_eq!((&of["rows"], &of["cols"]), (&json(spec.rows), &json(spec.cols)), "{operand}");
        assert_eq!(of["stride"], spec.stride, "{operand}");
    }
    assert_eq!(written["operands"].as_object().unwrap().len(), problem.specs().count());
    let launches = written["launches"].as_array().unwrap();
    assert_eq!(launches.len(), plan.launches().len());
    for (written, launch) in launches.iter().zip(plan.launches()) {
        let source = launch.source.as_ref().unwrap();
        assert_eq!(written["source"]["text"], *source.text);
        assert_eq!(written["source"]["entry"], source.entry);
        assert_eq!(written["grid"], json(launch.grid));
        assert_eq!(written["params"], json(&launch.params));
        assert_eq!(written["scale_at"], json(launch.scale_at));
        let (mut params, mut bound) = (Vec::new(), Vec::new());
        Scaled::from(&plan).bind(launch, |_| 0, &mut params, &mut bound);
        for (written, of) in written["bindings"].as_array().unwrap().iter().zip(&bound) {
            assert_eq!(written["operand"], json(of.operand));
        }
        assert_eq!(json(&bound[0])["bytes"], json!({"start": 0, "end": bound[0].bytes.end}));
    }
}
