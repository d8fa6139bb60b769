//! What a caller can do about an error, where that depends on the operand. Called by the messages of
//! [`Error`](super::Error).

use crate::Operand;

/// Which option of a problem takes `operand` away, or brings it.
fn option(operand: Operand) -> Option<&'static str> {
    use Operand::*;
    match operand {
        Bias => Some("Problem::with_bias"),
        Gain => Some("Problem::with_gain"),
        Shrunk | Dshrunk => Some("Problem::with_keep_shrunk"),
        Da | Db => Some("Problem::with_gradients"),
        A | B => Some("a rank that is not 0"),
        Dw1 | Dw1a | Dw1b | Dw2 | Dw2a | Dw2b => Some("Problem::with_gradients"),
        Ddown | Dcore | Dup => Some("Problem::with_gradients"),
        _ => None,
    }
}

/// Of an operand that is not there.
pub(super) fn missing(operand: Operand) -> String {
    match option(operand) {
        Some(of @ "a rank that is not 0") => format!("give both factors: there is {of}"),
        Some(option) => format!("give it, or plan without it: {option}"),
        None => "give it: the operation needs it".to_owned(),
    }
}

/// Of an operand too many.
pub(super) fn unexpected(operand: Operand) -> String {
    use Operand::*;
    if let W1 | W1a | W1b | W2a | W2b | Down | Core | Up = operand {
        return "compose a and b of it first (Operation::Compose), as calls do".to_owned();
    }
    match option(operand) {
        Some(option) => format!("leave it out, or plan with it: {option}"),
        None => "leave it out: the operation does not have it".to_owned(),
    }
}

/// Which operands share the type of `operand`, and which option of a problem says it.
pub(super) fn dtype(operand: Operand) -> &'static str {
    use Operand::*;
    match operand {
        A | B => "a and b have one type (Problem::with_adapter; f32 where they are composed)",
        Da | Db => "da and db have one type (Problem::with_gradient); of factors, f32",
        W1 | W1a | W1b | W2 | W2a | W2b | Down | Core | Up => {
            "factors have one type (Problem::with_adapter)"
        }
        Dw1 | Dw1a | Dw1b | Dw2 | Dw2a | Dw2b | Ddown | Dcore | Dup => {
            "gradients of factors have one type (Problem::with_gradient)"
        }
        Gain | Magnitude => "gain and magnitude are f32, whatever the other types are",
        Dmagnitude => "the gradients have one type (Problem::with_gradient)",
        Y | Dx => "y and dx have the type of the activations, or f32 (Problem::with_output)",
        _ => "x, w, bias, dy and shrunk have one type (Problem::with_activation)",
    }
}

/// What the shape of `operand` is made of.
pub(super) fn shape(operand: Operand) -> &'static str {
    use Operand::*;
    match operand {
        X | Dx => "it is [tokens, in_features]; of images what Channels says",
        Y | Dy | ScaledDy => "it is [tokens, out_features]; of images what Channels says",
        W => "it is [out_features, in_features]; a buffer with the transpose is Matrix::transposed",
        Bias | Gain | Magnitude | Dmagnitude => "it is [1, out_features]",
        A => "lora_A is [rank, in_features]: exchanged with b, or transposed (Matrix::transposed)?",
        B => {
            "lora_B is [out_features, rank]: exchanged with a, or transposed (Matrix::transposed)?"
        }
        Shrunk | Dshrunk => {
            "it is [tokens, shrunk_stride(rank)], the rank rounded up to 8; twice that if precise"
        }
        Da => "it is [rank, in_features], as lora_A",
        Db => "it is [out_features, rank], as lora_B",
        W1 | Dw1 => "LoKr: its rows divide out_features, its columns in_features",
        W1a | Dw1a => "LoHa: [out_features, rank]; LoKr: [rows of w1, rank]",
        W1b | Dw1b => "LoHa: [rank, in_features]; LoKr: [rank, columns of w1]",
        W2 | Dw2 => "LoKr: [out_features / rows of w1, in_features / columns of w1]",
        W2a | Dw2a => "LoHa: [out_features, rank]; LoKr: [out_features / rows of w1, rank]",
        Down | Ddown => "lora_down is [rank, channels]",
        Core | Dcore => "lora_mid is [rank, rank · elements of the kernel]",
        Up | Dup => "lora_up is [out_features, rank]",
        W2b | Dw2b => "LoHa: [rank, in_features]; LoKr: [rank, in_features / columns of w1]",
    }
}

/// Of a convolution that there is not.
pub(super) fn convolution(what: &str) -> &'static str {
    match what {
        "tokens and pixels of all outputs" => "tokens are Convolution::tokens",
        "in_features and kernel" => "w is [out_features, channels · kernel height · kernel width]",
        "kernel and padded image" => "pad more, or dilate less",
        "backward_gain" => "keep images channels last",
        "LoKr" => "keep images channels first, or make LoRA of it",
        _ => "see Convolution",
    }
}

/// Of a size that no layer has.
pub(super) fn size(what: &str) -> &'static str {
    match what {
        "in_features" | "out_features" => "a layer has features on either side; tokens may be 0",
        "inner rank" => "merge the adapter, which is larger than the layer",
        _ => "run fewer tokens at a time",
    }
}

/// Of a number that is none.
pub(super) fn scalar(what: &str) -> &'static str {
    match what {
        "scale" => "alpha / rank is not finite where the rank is 0",
        _ => "give 0 to replace old values",
    }
}

/// Of an element that the operation cannot use.
pub(super) fn value(operand: Operand) -> &'static str {
    match operand {
        Operand::Magnitude => "begin with the norms of w's rows, as PEFT does",
        _ => "give another",
    }
}
