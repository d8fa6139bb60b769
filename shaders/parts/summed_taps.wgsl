// summed_taps · NAME is BUFFER with a Kronecker product added, in f32, by stored rows and columns
//
// needs: BUFFER_at, summand
// gives: NAME_at

fn NAME_at(row: u32, col: u32) -> f32 { return BUFFER_at(row, col) + summand(row, col); }
