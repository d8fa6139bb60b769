//! The settings from which PEFT builds factors of the shapes that modules have: it makes them anew before it loads a
//! file, so that a file with others does not load. Called by `write` for modules of another layout.

use super::super::factors::{Factors, Side};
use super::super::{Method, Module, shown};

/// Fields of the configuration, and each module's rank.
pub(super) struct Settings {
    pub(super) fields: Vec<(&'static str, String)>,
    pub(super) ranks: Vec<usize>,
}

/// For modules of one method.
pub(super) fn settings(modules: &[(String, Module)]) -> Result<Settings, String> {
    let ranks = || modules.iter().map(|(_, module)| module.rank()).collect();
    match modules.first().map(|(_, module)| module.method()) {
        Some(Method::Loha) => {
            let cores = cores(modules)?;
            Ok(Settings {
                fields: vec![("use_effective_conv2d", cores.to_string())],
                ranks: ranks(),
            })
        }
        Some(Method::Lokr) => lokr(modules),
        _ => Ok(Settings { fields: Vec::new(), ranks: ranks() }),
    }
}

/// Whether PEFT is to give convolutions cores: all of those larger than 1×1, or none.
fn cores(modules: &[(String, Module)]) -> Result<bool, String> {
    let able = modules.iter().filter(|(_, module)| {
        let full = matches!(&module.factors, Factors::Lokr { w2: Side::Full(_), .. });
        module.kernel.iter().any(|&size| size != 1) && !full
    });
    let mut cored = able.map(|(path, module)| (path, module.factors.core().is_some()));
    let Some((_, first)) = cored.next() else { return Ok(false) };
    match cored.find(|(_, cored)| *cored != first) {
        None => Ok(first),
        Some((path, _)) => {
            let path = shown(path);
            Err(format!(
                "module `{path}`: PEFT gives all convolutions a Tucker core, or none; write two"
            ))
        }
    }
}

/// PEFT's `factorization`: the pair whose first is `factor`, where that divides; else the most even pair whose first is at
/// most `factor` (-1: any).
fn factorization(dimension: usize, factor: Option<usize>) -> (usize, usize) {
    if let Some(factor) = factor
        && factor > 0
        && dimension.is_multiple_of(factor)
    {
        return (factor, dimension / factor);
    }
    let most = factor.unwrap_or(dimension);
    let (mut m, mut n) = (1, dimension);
    let mut length = m + n;
    while m < n {
        let mut next = m + 1;
        while !dimension.is_multiple_of(next) {
            next += 1;
        }
        let other = dimension / next;
        if next + other > length || next > most {
            break;
        }
        (m, n) = (next, other);
        length = m + n;
    }
    if m > n { (n, m) } else { (m, n) }
}

fn lokr(modules: &[(String, Module)]) -> Result<Settings, String> {
    let sides = |module: &Module| match &module.factors {
        Factors::Lokr { w1, w2, .. } => Some((w1.clone(), w2.clone())),
        _ => None,
    };
    // As many candidates as there are shapes of w1.
    let mut factors: Vec<Option<usize>> = vec![None];
    for (_, module) in modules {
        let of = sides(module).map_or([1, 1], |(w1, _)| w1.shape());
        for factor in of {
            if !factors.contains(&Some(factor)) && factors.len() < 64 {
                factors.push(Some(factor));
            }
        }
    }
    let low = |module: &Module, nth: usize| match &module.factors {
        Factors::Lokr { w1, w2, .. } => matches!([w1, w2][nth], Side::Low(..)),
        _ => false,
    };
    let both = modules.iter().any(|(_, module)| low(module, 0));
    let cores = cores(modules)?;
    let mut first = None;
    for factor in factors {
        let ranks: Result<Vec<_>, _> =
            modules.iter().map(|(path, module)| rank(path, module, factor, both)).collect();
        match ranks {
            Ok(ranks) => {
                let factor = factor.map_or("-1".to_owned(), |factor| factor.to_string());
                let fields = vec![
                    ("decompose_factor", factor),
                    ("decompose_both", both.to_string()),
                    ("use_effective_conv2d", cores.to_string()),
                ];
                return Ok(Settings { fields, ranks });
            }
            Err(reason) => first = first.or(Some(reason)),
        }
    }
    Err(first.unwrap_or_else(|| "no module".into()))
}

/// The rank for which PEFT builds this module's factors with this `decompose_factor`; the reason where there is none.
fn rank(path: &str, module: &Module, factor: Option<usize>, both: bool) -> Result<usize, String> {
    let Factors::Lokr { w1, w2, .. } = &module.factors else { return Err("no LoKr".into()) };
    let taps: usize = module.kernel.iter().product();
    let (n, i) = (module.out_features(), module.in_features() / taps.max(1));
    let ((a, c), (b, d)) = (factorization(n, factor), factorization(i, factor));
    let refuse = |why: String| {
        let expected = format!("PEFT builds w1 [{a}, {b}] and w2 [{c}, {d}] from decompose_factor");
        Err(format!("module `{}`: {expected}; {why}", shown(path)))
    };
    if w1.shape() != [a, b] {
        return refuse(format!("expected such a w1, got {:?}", w1.shape()));
    }
    // Low-rank is a side whose rank is below half its larger size; w1 only with decompose_both.
    let (left, right) = (a.max(b), c.max(d));
    let w1_low = |rank: usize| both && 2 * rank < left;
    let w2_low = |rank: usize| 2 * rank < right;
    let rank = match module.rank() {
        0 => right.max(if both { left } else { 1 }).div_ceil(2),
        rank => rank,
    };
    let is = |side: &Side| matches!(side, Side::Low(..));
    match (w1_low(rank), w2_low(rank)) == (is(w1), is(w2)) {
        true => Ok(rank),
        false => refuse(format!(
            "at rank {rank} its w1 is {}, its w2 {}",
            if w1_low(rank) { "low-rank" } else { "full" },
            if w2_low(rank) { "low-rank" } else { "full" }
        )),
    }
}
