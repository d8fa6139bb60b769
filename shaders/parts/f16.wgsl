// f16 · five bits of exponent, ten of mantissa
//
// gives: widen_f16, widen_low_f16, narrow_f16, round_f16

// The low and the high half of a word.
fn widen_f16(word: u32) -> vec2<f32> { return unpack2x16float(word); }
// The low halves of four words.
fn widen_low_f16(words: vec4<u32>) -> vec4<f32> {
    return vec4(
        unpack2x16float(words.x).x, unpack2x16float(words.y).x,
        unpack2x16float(words.z).x, unpack2x16float(words.w).x,
    );
}
// To nearest even, in integers, because a conversion may round either way; a NaN stays one,
// and from 65520 on it is infinity. The bits stand in the low halves.
fn narrow_f16(value: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(value);
    let sign = (bits >> vec4(16u)) & vec4(0x8000u);
    let size = bits & vec4(0x7fffffffu);
    // Normal: the exponent's bias goes from 127 to 15, then 13 bits are rounded off.
    let odd = (size >> vec4(13u)) & vec4(1u);
    let normal = (size - 0x38000000u + 0xfffu + odd) >> vec4(13u);
    // Subnormal: a number of 2⁻²⁴; from 2⁻²⁵ downwards it is none.
    let shift = clamp(vec4(126u) - (size >> vec4(23u)), vec4(1u), vec4(25u));
    let mantissa = (size & vec4(0x7fffffu)) | vec4(0x800000u);
    let floor = mantissa >> shift;
    let rest = mantissa & ((vec4(1u) << shift) - 1u);
    let tie = vec4(1u) << (shift - 1u);
    let up = (rest > tie) | ((rest == tie) & ((floor & vec4(1u)) == vec4(1u)));
    let subnormal = floor + select(vec4(0u), vec4(1u), up);
    var rounded = select(normal, subnormal, size < vec4(0x38800000u));
    rounded = select(rounded, vec4(0u), size <= vec4(0x33000000u));
    rounded = select(rounded, vec4(0x7c00u), size >= vec4(0x477ff000u));
    rounded = select(rounded, vec4(0x7e00u), size > vec4(0x7f800000u));
    return sign | rounded;
}
fn round_f16(value: vec4<f32>) -> vec4<f32> {
    let bits = narrow_f16(value);
    return vec4(
        unpack2x16float(bits.x | (bits.y << 16u)), unpack2x16float(bits.z | (bits.w << 16u)),
    );
}
