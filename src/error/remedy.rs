//! What a caller can do about an error, where that depends on the operand. Called by the messages of
//! [`Error`](super::Error).

use crate::Operand;

/// Which option of a problem takes `operand` away, or brings it.
fn option(operand: Operand) -> Option<&'static str> {
    use Operand::*;
    match operand {
        Bias => Some("Problem::with_bias"),
        Shrunk | Dshrunk => Some("Problem::with_keep_shrunk"),
        Da | Db => Some("Problem::with_gradients"),
        A | B => Some("a rank that is not 0"),
        _ => None,
    }
}

/// Of an operand that is not there.
pub(super) fn missing(operand: Operand) -> String {
    match option(operand) {
        Some(of @ "a rank that is not 0") => format!("give it: the problem has {of}"),
        Some(option) => format!("give it, or plan without it: {option}"),
        None => "give it: the operation needs it".to_owned(),
    }
}

/// Of an operand too many.
pub(super) fn unexpected(operand: Operand) -> String {
    match option(operand) {
        Some(option) => format!("leave it out, or plan with it: {option}"),
        None => "leave it out: the operation does not have it".to_owned(),
    }
}

/// Which option of a problem says how `operand` is stored.
pub(super) fn dtype(operand: Operand) -> &'static str {
    use Operand::*;
    match operand {
        A | B => "Problem::with_adapter",
        Da | Db => "Problem::with_gradient",
        Y | Dx => "Problem::with_output",
        _ => "Problem::with_activation",
    }
}

/// Of a size that no layer has.
pub(super) fn size(what: &str) -> &'static str {
    match what {
        "in_features" | "out_features" => "a layer has features on either side; tokens may be 0",
        _ => "run fewer tokens at a time",
    }
}

/// Of a number that is none.
pub(super) fn scalar(what: &str) -> &'static str {
    match what {
        "scale" => "alpha / rank is none where the rank is 0: give 1",
        _ => "give 0 to replace old values",
    }
}
