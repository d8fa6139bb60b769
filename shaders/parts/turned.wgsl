// turned · NAME is BUFFER by taps, for the way back: a row is one tap of one of its rows, a column
// a channel
//
// needs: p.NAME_depth, p.NAME_channel, p.NAME_tap, NAME_ROWS, BUFFER_at
// gives: NAME_at, NAME_four
//
// BUFFER has a column for each channel and tap, `channel` and `tap` apart; NAME_ROWS: its rows are
// stored rows. Rows of NAME count taps first, and `depth` in each.

fn NAME_at(row: u32, col: u32) -> f32 {
    let column = row / p.NAME_depth * p.NAME_tap + col * p.NAME_channel;
    if (NAME_ROWS) { return BUFFER_at(row % p.NAME_depth, column); }
    return BUFFER_at(column, row % p.NAME_depth);
}
fn NAME_four(row: u32, col: u32) -> vec4<f32> {
    return vec4(
        NAME_at(row, col), NAME_at(row, col + 1u), NAME_at(row, col + 2u), NAME_at(row, col + 3u),
    );
}
