//! Factors and gradients that no layer has, and methods beside operations that have none.

use fused_lora::{
    Adapter, Backward, DType, Error, Factor, Forward, Method, Operand, Operation, Problem, Tensor,
};

use super::{bits, devices};

/// What no layer has: the error names it, and nothing has been written.
#[test]
fn what_does_not_fit_is_refused() {
    for device in devices() {
        let zeros = |rows, cols| device.zeros(rows, cols, DType::F32).unwrap();
        let (x, w) = (zeros(5, 12), zeros(20, 12));
        let refused = |adapter: Adapter<&Tensor>| {
            let mut y = device.tensor(5, 20, DType::F32, &[7.0; 100]).unwrap();
            let call = Forward::new(&x, &w, &mut y).with_adapter(Some(adapter));
            let error = device.forward(call).expect_err("what does not fit");
            assert!(y.to_f32().unwrap().iter().all(|of| *of == 7.0), "{error}");
            error.cause().clone()
        };
        let shape_of = |error: Error| match error {
            Error::Shape { operand, .. } => operand,
            other => panic!("{other}"),
        };
        let (a, b) = (zeros(20, 3), zeros(3, 12));
        let four = |at: usize, wrong: &Tensor| {
            let of = |here, right| if at == here { wrong.clone() } else { right };
            [of(0, a.clone()), of(1, b.clone()), of(2, a.clone()), of(3, b.clone())]
        };
        let names = [Operand::W1a, Operand::W1b, Operand::W2a, Operand::W2b];
        for (at, wrong) in
            [zeros(19, 3), zeros(3, 11), zeros(20, 2), zeros(3, 13)].iter().enumerate()
        {
            let [w1a, w1b, w2a, w2b] = four(at, wrong);
            assert_eq!(shape_of(refused(Adapter::loha(&w1a, &w1b, &w2a, &w2b))), names[at]);
        }
        // An inner rank beyond 4096.
        let (wide, tall) = (zeros(20, 65), zeros(65, 12));
        let error = refused(Adapter::loha(&wide, &tall, &wide, &tall));
        assert!(matches!(error, Error::Size { what: "inner rank", got: 4225, .. }), "{error}");
        // Kronecker factors that do not divide, and those of another layer.
        let lokr = |w1: &Tensor, [w2a, w2b]: [&Tensor; 2]| {
            refused(Adapter::lokr(Factor::whole(w1), Factor::low(w2a, w2b)))
        };
        for w1 in [zeros(3, 3), zeros(4, 5), zeros(0, 3), zeros(40, 3)] {
            let error = lokr(&w1, [&zeros(5, 3), &zeros(3, 4)]);
            let is_w1 = matches!(error, Error::Factor { operand: Operand::W1, .. });
            assert!(is_w1, "{error}");
        }
        assert_eq!(shape_of(lokr(&zeros(4, 3), [&zeros(6, 3), &zeros(3, 4)])), Operand::W2a);
        assert_eq!(shape_of(lokr(&zeros(4, 3), [&zeros(5, 3), &zeros(3, 5)])), Operand::W2b);
        // A core of another kernel, and one of a kernel that no weight has.
        let tucker = |core: &Tensor| refused(Adapter::tucker(&zeros(3, 4), core, &a));
        assert_eq!(shape_of(tucker(&zeros(3, 6))), Operand::Down);
        assert_eq!(shape_of(tucker(&zeros(2, 9))), Operand::Core);
        let error = tucker(&zeros(3, 15));
        assert!(matches!(error, Error::Factor { operand: Operand::Core, .. }), "{error}");
        let (down, core, up) = (zeros(3, 4), zeros(3, 9), zeros(19, 3));
        assert_eq!(shape_of(refused(Adapter::tucker(&down, &core, &up))), Operand::Up);
        // Gradients of another method, and one of two that go together.
        let dy = zeros(5, 20);
        let old = || device.tensor(20, 3, DType::F32, &[7.0; 60]).unwrap();
        let mut gradient = old();
        let call = || Backward::new(&x, &w, &dy).loha(&a, &b, &a, &b);
        let error = device.backward(call().db(&mut gradient)).expect_err("another method's");
        assert!(matches!(error.cause(), Error::Unexpected { operand: Operand::Db }), "{error}");
        let error = device.backward(call().dw1a(&mut gradient)).expect_err("one of two");
        assert!(matches!(error.cause(), Error::Missing { operand: Operand::Dw2a }), "{error}");
        let locon = Backward::new(&x, &w, &dy).tucker(&down, &core, &a).dcore(&mut gradient);
        let error = device.backward(locon).expect_err("one of two");
        assert!(matches!(error.cause(), Error::Missing { operand: Operand::Ddown }), "{error}");
        let lora = Backward::new(&x, &w, &dy).adapter(&b, &a).dw1a(&mut gradient);
        let error = device.backward(lora).expect_err("another method's");
        assert!(matches!(error.cause(), Error::Unexpected { operand: Operand::Dw1a }), "{error}");
        assert_eq!(bits(&gradient), bits(&old()));
    }
}

/// A plan of the layer itself has no factors, and one of the factors no LoRA.
#[test]
fn methods_belong_to_their_operations() {
    let compose = Problem::new(Operation::Compose, 0, 12, 20, 3).with_method(Method::Loha);
    assert_eq!(compose.validate(), Ok(()));
    for problem in [
        compose.with_operation(Operation::Forward),
        compose.with_operation(Operation::Merge),
        compose.with_method(Method::Lora),
    ] {
        assert!(matches!(problem.validate(), Err(Error::Method { .. })), "{problem:?}");
    }
    assert_eq!(compose.composed().with_operation(Operation::Forward).validate(), Ok(()));
    assert_eq!(compose.composed().rank(), 9);
}
