//! How full a card's multiprocessors are, by a discrete model without a clock: CTAs draw tickets in the order that the
//! kernel has, a tile takes as long as its steps, a leader longer by its ranks, and a follower waits at its border until its
//! row's leader has published. Leaders that walk x and `down` alone first take for that what the plan's price says, most of it
//! the way of a load: meanwhile others have the multiprocessor. CTAs of one multiprocessor share it. What a tile brings through L2 and shared memory for a
//! multiplication, which is most for small ones, is not in it: the plan's price is (`src/plan/cuda/sm80.rs`). The table is `waves.txt`; `FUSED_LORA_WAVES_BLESS=1` writes it anew.

use std::fmt::Write as _;
use std::mem::offset_of;
use std::path::Path;

use fused_lora::{Capabilities, Choice, CudaCapabilities, DType, Launch, Plan, Problem, Strategy};

#[path = "../../kernels/abi.rs"]
#[allow(dead_code, unreachable_pub)]
pub(crate) mod abi;

/// Tokens, in and out features.
const LAYERS: [(&str, [usize; 3]); 6] = [
    ("8192 x 4096²", [8192, 4096, 4096]),
    ("4096 x 1280²", [4096, 1280, 1280]),
    ("Llama k, v", [8192, 4096, 1024]),
    ("Llama gate, up", [8192, 4096, 14336]),
    ("Llama down", [8192, 14336, 4096]),
    ("Llama q, o, 512 tokens", [512, 4096, 4096]),
];
const RANKS: [usize; 2] = [16, 64];
/// Rows and columns of their tiles, and warps.
const PRESETS: [(&str, [usize; 3]); 3] =
    [("large", [128, 256, 8]), ("medium", [128, 128, 4]), ("small", [64, 64, 4])];
/// Compute capability, multiprocessors, shared bytes a block and a multiprocessor, of which there are cards; multiply-adds of
/// one multiprocessor in a cycle.
type Card = ((u32, u32), u32, u32, u32, f64);
const CARDS: [Card; 3] = [
    ((8, 0), 108, 166_912, 167_936, 1024.0),
    ((8, 9), 128, 101_376, 102_400, 512.0),
    ((9, 0), 132, 232_448, 233_472, 1330.0),
];

/// A launch of tiles. Work is counted in columns of 128 rows that go one step: what a multiprocessor does in a unit of time.
#[derive(Debug, Clone, Copy)]
struct Tiles {
    rows: usize,
    columns: usize,
    band: usize,
    ctas: usize,
    multiprocessors: usize,
    /// Of a tile's main loop, and of its border behind it.
    main: f64,
    border: f64,
    /// What a leader's ranks are beside its main loop.
    ranks: f64,
    /// Rows whose leaders walk alone first, and how long that takes one who has a multiprocessor for himself.
    alone: usize,
    walk: f64,
}

/// What a model of a launch comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Filled {
    /// Work of all tiles over what the multiprocessors do in the time of the launch.
    share: f64,
    /// The longest wait of the first wave, over the time of the launch.
    wait: f64,
}

/// What a CTA is about.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// So much is left of a walk alone; then the main loop.
    Alone(f64),
    Main(f64),
    /// Since when.
    Waits(f64),
    Border(f64),
    Done,
}

impl State {
    fn left(&self) -> Option<f64> {
        match *self {
            State::Alone(left) | State::Main(left) | State::Border(left) => Some(left),
            State::Waits(_) | State::Done => None,
        }
    }

    fn go_on(&mut self, by: f64) {
        if let State::Alone(left) | State::Main(left) | State::Border(left) = self {
            *left -= by;
        }
    }
}

impl Tiles {
    /// Of a launch of leaders on such tiles, where a column of 128 rows takes so many cycles.
    fn of(
        launch: &Launch,
        tile: [usize; 3],
        rank: usize,
        multiprocessors: u32,
        cycles: f64,
    ) -> Tiles {
        let word = |at: usize| {
            let bytes = launch.params[at..at + 4].try_into().expect("four bytes");
            u32::from_le_bytes(bytes) as usize
        };
        let [high, wide] = [tile[0] as f64 / 128.0, tile[1] as f64];
        let main = word(offset_of!(abi::Linear, main_steps)) as f64;
        let border = word(offset_of!(abi::Linear, border_steps)) as f64;
        // A step of x and `down` alone, in cycles: ranks whose fragments meet few others; x and ranks into shared memory,
        // and out of it, the ranks to each warp; the way of a load; what nobody hides behind the barrier.
        let ranks = rank.next_multiple_of(16);
        let multiplied = 1.2 * (tile[0] * ranks) as f64 / 128.0 * cycles;
        let exchanged = (2 * tile[0] + ranks * (tile[2] + 1)) as f64 * 64.0 / 128.0;
        let walk = multiplied.max(exchanged).max(250.0) + 60.0;
        Tiles {
            rows: word(offset_of!(abi::Linear, tile_rows)),
            columns: word(offset_of!(abi::Linear, tile_columns)),
            band: word(offset_of!(abi::Linear, band)),
            ctas: launch.grid[0] as usize,
            multiprocessors: multiprocessors as usize,
            main: main * high * wide,
            border: border * high * wide,
            ranks: main * high * ranks as f64,
            alone: word(offset_of!(abi::Linear, alone)),
            walk: (main + 5.0) * walk / cycles,
        }
    }

    /// Row and column of each ticket, as `parts/ticket.ptx` numbers them: leaders of band 0, of band 1, the rest of band 0, …
    fn tickets(&self) -> Vec<[usize; 2]> {
        let bands = self.rows.div_ceil(self.band);
        let rows = |band: usize| band * self.band..self.rows.min((band + 1) * self.band);
        let leaders = |band: usize| rows(band).map(|row| [row, 0]);
        let rest = |band: usize| {
            (1..self.columns).flat_map(move |column| rows(band).map(move |row| [row, column]))
        };
        let mut tickets: Vec<[usize; 2]> = leaders(0).collect();
        for band in 0..bands {
            if band + 1 < bands {
                tickets.extend(leaders(band + 1));
            }
            tickets.extend(rest(band));
        }
        tickets
    }

    /// CTAs lie on the multiprocessors in turn. Those of one multiprocessor share it evenly, but for who waits; a walk
    /// alone takes of it what its ranks are.
    fn filled(&self) -> Filled {
        let mut tickets = self.tickets().into_iter();
        let alone = |[row, column]: [usize; 2]| column == 0 && row < self.alone;
        let begin = |tile: Option<[usize; 2]>| match tile {
            None => State::Done,
            Some(tile) if alone(tile) => State::Alone(self.walk),
            Some([_, 0]) => State::Main(self.main + self.ranks),
            Some(_) => State::Main(self.main),
        };
        let mut tiles: Vec<_> = (0..self.ctas).map(|_| tickets.next()).collect();
        let mut states: Vec<State> = tiles.iter().map(|tile| begin(*tile)).collect();
        let mut first = vec![true; self.ctas];
        let mut published = vec![false; self.rows];
        let (mut now, mut wait) = (0.0f64, 0.0f64);
        loop {
            let mut working = vec![0.0f64; self.multiprocessors];
            for (cta, state) in states.iter().enumerate() {
                working[cta % self.multiprocessors] += match state {
                    State::Alone(_) => (self.ranks / self.walk).min(1.0),
                    State::Main(_) | State::Border(_) => 1.0,
                    State::Waits(_) | State::Done => 0.0,
                };
            }
            let slowness = |cta: usize| working[cta % self.multiprocessors].max(1.0);
            let until = states.iter().enumerate();
            let until = until.filter_map(|(cta, of)| Some(of.left()? * slowness(cta)));
            let next = until.fold(f64::INFINITY, f64::min);
            if next.is_infinite() {
                break;
            }
            now += next;
            for (cta, state) in states.iter_mut().enumerate() {
                let slowness = slowness(cta);
                if state.left().is_some() {
                    state.go_on(next / slowness);
                }
                // What ends at once is worked off at once: sums of fractions are not exact.
                if state.left().is_none_or(|left| left > 1e-6 * self.main) {
                    continue;
                }
                let Some([row, column]) = tiles[cta] else { continue };
                *state = match state {
                    State::Alone(_) => State::Main(self.main),
                    State::Main(_) if column == 0 => State::Border(self.border),
                    State::Main(_) => State::Waits(now),
                    _ => {
                        tiles[cta] = tickets.next();
                        first[cta] = false;
                        begin(tiles[cta])
                    }
                };
                // Only what had them beside its columns, or alone, comes here.
                published[row] |= column == 0;
            }
            for (cta, state) in states.iter_mut().enumerate() {
                let (State::Waits(since), Some([row, _])) = (*state, tiles[cta]) else { continue };
                if published[row] {
                    if first[cta] {
                        wait = wait.max(now - since);
                    }
                    *state = State::Border(self.border);
                }
            }
        }
        let tiles = (self.rows * self.columns) as f64;
        let work = tiles * (self.main + self.border) + self.rows as f64 * self.ranks;
        Filled { share: work / (self.multiprocessors as f64 * now), wait: wait / now }
    }
}

/// Every tile once, and no follower before its leader: nobody can wait for a ticket that nobody has drawn.
#[test]
fn a_leader_is_drawn_before_who_waits_for_it() {
    for (rows, columns, band) in [(1, 1, 1), (7, 5, 2), (8, 3, 8), (64, 16, 16), (33, 2, 7)] {
        let tiles = Tiles { rows, columns, band, ..SOME };
        let tickets = tiles.tickets();
        let mut sorted = tickets.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!((tickets.len(), sorted.len()), (rows * columns, rows * columns));
        for (at, [row, _]) in tickets.iter().enumerate() {
            assert!(tickets[..=at].contains(&[*row, 0]), "{row} of {tiles:?}");
        }
    }
    // One wave of a leader and followers: those wait for its ranks.
    let one = Tiles { rows: 1, columns: 4, ..SOME };
    let filled = one.filled();
    assert_eq!(filled.wait, 5.0 / 17.0);
    assert_eq!(filled.share, (3.0 * 12.0 + 17.0) / (4.0 * 17.0));
    // Two rows, whose first leader walks alone for longer than it carries: nobody waits for that one.
    let two = Tiles { rows: 2, columns: 2, band: 1, alone: 1, walk: 6.0, ..SOME };
    assert_eq!(
        (two.filled().wait, Tiles { alone: 0, ..two }.filled().wait),
        (5.0 / 18.0, 5.0 / 17.0)
    );
    assert_eq!(Tiles { alone: 1, ..one }.filled().wait, 0.0);
    // Two to a multiprocessor: while its neighbour waits, and behind its end, a CTA has it alone. The pair of the leader
    // has worked 20 when the follower waits, and then 5 more; 2 each for the borders.
    let shared = Tiles { multiprocessors: 2, ..one }.filled();
    assert_eq!((shared.wait, shared.share), (5.0 / 29.0, (3.0 * 12.0 + 17.0) / (2.0 * 29.0)));
}

/// Of one leader and three followers.
const SOME: Tiles = Tiles {
    rows: 1,
    columns: 4,
    band: 1,
    ctas: 4,
    multiprocessors: 4,
    main: 10.0,
    border: 2.0,
    ranks: 5.0,
    alone: 0,
    walk: 5.0,
};

/// Leaders walk alone where followers wait for them, and the launch does not end with their own last tile all the same.
#[test]
fn leaders_walk_alone_where_it_pays() {
    let card = |multiprocessors| {
        let mut cuda = CudaCapabilities::default();
        cuda.multiprocessors = multiprocessors;
        Capabilities::Cuda(cuda)
    };
    // Rows and columns of large tiles, rank.
    let layer = |rows: usize, columns: usize, rank| {
        Problem::forward(128 * rows, 4096, 256 * columns, rank).with_dtype(DType::Bf16)
    };
    for (choice, problem, multiprocessors, expected) in [
        ("leader/large", layer(64, 16, 64), 108, 16),
        // Of a pair both parts are carried: 128 ranks, which have no walk.
        ("leader/large", layer(64, 16, 64).with_adapter(DType::F32), 108, 0),
        ("leader/large", layer(64, 16, 32).with_adapter(DType::F32), 108, 16),
        // Ten waves of few ranks, a wave and a half, two that are full, one, and one multiprocessor.
        ("leader/large", layer(64, 16, 16), 108, 16),
        ("leader/large", layer(20, 8, 64), 108, 16),
        ("leader/large", layer(27, 8, 64), 108, 0),
        ("leader/large", layer(10, 10, 64), 108, 0),
        ("leader/large", layer(64, 16, 64), 1, 0),
        // What has no walk.
        ("leader/medium", layer(64, 16, 32), 108, 0),
        ("leader/small", layer(64, 16, 16), 108, 0),
        ("leader/small", layer(64, 16, 64), 108, 0),
        ("leader/large", layer(64, 16, 64).with_dtype(DType::F32), 108, 0),
    ] {
        let plan =
            Plan::choose(&problem, &card(multiprocessors), &choice.parse().unwrap()).unwrap();
        let launch = plan.launches().last().unwrap();
        let at = offset_of!(abi::Linear, alone);
        let alone = u32::from_le_bytes(launch.params[at..at + 4].try_into().unwrap());
        assert_eq!(alone, expected, "{choice} on {multiprocessors}: {problem:?}");
    }
}

/// What the plans of real layers come to on real cards.
#[test]
fn waves_are_those_of_the_table() {
    let mut table = "layer, rank, multiprocessors: the plan's choice; leaders of each preset: tiles on CTAs, share of all \
         multiprocessors' work that the tiles take, first wave's wait over the launch; behind > what they become where the plan's \
         leaders of band 0 walk alone first\n\n"
        .to_owned();
    let (mut walks, mut won, mut worst) = (0, 0.0, 0.0f64);
    for (name, [tokens, k, n]) in LAYERS {
        for rank in RANKS {
            for (compute_capability, multiprocessors, shared, of_multiprocessor, rate) in CARDS {
                let mut card = CudaCapabilities::default();
                card.compute_capability = compute_capability;
                card.multiprocessors = multiprocessors;
                card.shared_bytes = shared;
                card.shared_bytes_per_multiprocessor = of_multiprocessor;
                let problem = Problem::forward(tokens, k, n, rank).with_dtype(DType::Bf16);
                let card = Capabilities::Cuda(card);
                let chosen = Plan::new(&problem, &card).unwrap();
                write!(table, "{name:<24} r{rank:<3} {multiprocessors}: {:<17}", chosen.choice())
                    .unwrap();
                for (preset, tile) in PRESETS {
                    let leader = Choice {
                        strategy: Some(Strategy::Leader),
                        preset: Some(preset.to_owned()),
                    };
                    let Ok(plan) = Plan::choose(&problem, &card, &leader) else {
                        write!(table, "; {preset} none").unwrap();
                        continue;
                    };
                    let cycles = 128.0 * 32.0 / (0.85 * rate);
                    let tiles = Tiles::of(&plan.launches()[0], tile, rank, multiprocessors, cycles);
                    let before = Tiles { alone: 0, ..tiles }.filled();
                    let Filled { share, wait } = before;
                    let (all, on) = (tiles.rows * tiles.columns, tiles.ctas);
                    write!(table, "; {preset} {all} on {on}, {share:.3} {wait:.3}").unwrap();
                    assert!(share > 0.0 && share <= 1.0 && wait < 1.0);
                    if tiles.alone > 0 {
                        assert_eq!(tiles.alone, tiles.band, "those of band 0");
                        let after = tiles.filled();
                        write!(table, " > {:.3} {:.3}", after.share, after.wait).unwrap();
                        walks += 1;
                        won += after.share / share - 1.0;
                        worst = worst.min(after.share / share - 1.0);
                    }
                }
                writeln!(table).unwrap();
            }
        }
    }
    let mean = won / f64::from(walks);
    writeln!(
        table,
        "\n{walks} leaders walk alone: {:.2} % of the launch are won on average, {:.2} % at worst",
        100.0 * mean,
        100.0 * worst,
    )
    .unwrap();
    // The ends of launches are luck, half a tile more or less; the mean is not.
    assert!(mean > 0.003 && worst > -0.01, "{table}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels/waves.txt");
    if std::env::var_os("FUSED_LORA_WAVES_BLESS").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    assert_eq!(table, std::fs::read_to_string(path).unwrap(), "FUSED_LORA_WAVES_BLESS=1 writes it");
}
