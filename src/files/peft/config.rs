//! `adapter_config.json`: what it must say for the adapter to be LoRA, DoRA, LoHa or LoKr, and what rank and
//! scale it gives each module. Read and written by `peft`.

use std::collections::HashSet;
use std::path::Path;

use super::super::{Method, Module, at, shown};
use super::json::{self, Fields, optional};
use super::refuse::refuse;
use super::target::{Target, modules};
use super::work::Work;
use super::{in_base, keys};
use crate::{Error, Result};

/// The settings of an adapter that bear on the mathematics. Fields of the file that do not
/// (the base model's name, dropout, …) are kept and written back.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AdapterConfig {
    /// LoRA, LoHa or LoKr (`peft_type`).
    pub method: Method,
    /// Whether every module has DoRA's magnitude (`use_dora`, LoRA alone).
    pub dora: bool,
    /// r, where `rank_pattern` does not say otherwise.
    pub rank: usize,
    /// alpha (`lora_alpha`; `alpha` of LoHa and LoKr), where `alpha_pattern` does not say otherwise.
    pub alpha: f64,
    /// Ranks by module. The first key that matches counts; a key is one of Python's regular expressions
    /// and matches the end of a path, from its start or behind a dot. What cannot be matched in
    /// linear time (lookaround, backreferences, …) is an error that names it.
    pub rank_pattern: Vec<(String, usize)>,
    /// Alphas by module, likewise.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Whether the scale is alpha / √r instead of alpha / r (LoRA alone).
    pub rslora: bool,
    /// Whether the base model keeps its weights as `[in_features, out_features]`: then give `w` as
    /// [`Major::Col`](crate::Major::Col). The adapter's factors are the same either way.
    pub fan_in_fan_out: bool,
    /// The modules that PEFT looks for in the base model.
    pub target_modules: TargetModules,
    others: Fields,
}

/// Which modules PEFT adapts, unless `exclude_modules`, `modules_to_save` or `layers_to_transform` of
/// the file take some of them out again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TargetModules {
    /// Those whose path is one of these or ends with a dot and one of these.
    Names(Vec<String>),
    /// Those whose whole path this one of Python's regular expressions matches; `all-linear`: every
    /// linear layer of the base model, which here is every module that the file has.
    Pattern(String),
    /// Those that PEFT adapts by default in a model of the base's architecture: the file does not say.
    OfArchitecture,
}

/// What PEFT expects to find beside what the adapter itself says.
const DEFAULTS: [(&str, &str); 4] = [
    ("base_model_name_or_path", "null"),
    ("inference_mode", "true"),
    ("modules_to_save", "null"),
    ("task_type", "null"),
];
/// The same for one method.
const OF_LORA: [(&str, &str); 3] =
    [("bias", "\"none\""), ("init_lora_weights", "true"), ("lora_dropout", "0.0")];
const OF_LOHA: [(&str, &str); 3] =
    [("init_weights", "true"), ("module_dropout", "0.0"), ("rank_dropout", "0.0")];

/// Fields that have a place of their own in [`AdapterConfig`].
const OWN: [&str; 5] = ["peft_type", "r", "rank_pattern", "alpha_pattern", "target_modules"];
/// Those of LoRA alone.
const OWN_LORA: [&str; 4] = ["lora_alpha", "use_rslora", "use_dora", "fan_in_fan_out"];

/// PEFT's name for a method.
fn peft_type(method: Method) -> &'static str {
    match method {
        Method::Lora => "\"LORA\"",
        Method::Loha => "\"LOHA\"",
        Method::Lokr => "\"LOKR\"",
    }
}

/// The field that has alpha.
fn alpha_field(method: Method) -> &'static str {
    if method == Method::Lora { "lora_alpha" } else { "alpha" }
}

impl AdapterConfig {
    /// Plain LoRA of one rank and alpha; [`AdapterFile::new`](super::AdapterFile::new) adds the
    /// modules.
    pub fn new(rank: usize, alpha: f64) -> AdapterConfig {
        AdapterConfig::of(Method::Lora, rank, alpha)
    }

    /// The same of any method.
    pub(super) fn of(method: Method, rank: usize, alpha: f64) -> AdapterConfig {
        let own = if method == Method::Lora { OF_LORA } else { OF_LOHA };
        let others = DEFAULTS.iter().chain(&own);
        AdapterConfig {
            method,
            dora: false,
            rank,
            alpha,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            rslora: false,
            fan_in_fan_out: false,
            target_modules: TargetModules::Names(Vec::new()),
            others: others.map(|(name, raw)| ((*name).to_owned(), (*raw).to_owned())).collect(),
        }
    }

    /// Reads the contents of `adapter_config.json` alone; an [`AdapterFile`](super::AdapterFile) has it
    /// with its tensors.
    ///
    /// # Errors
    /// [`Error::Adapter`] for a file that is damaged, or means something that no method here is.
    pub fn from_bytes(config: &[u8]) -> Result<AdapterConfig> {
        AdapterConfig::from_json(config).map_err(of_file)
    }

    /// Those of `paths` that PEFT adapts under this configuration, in their order. With the paths of a
    /// base model's linear layers: what an [`AdapterFile`](super::AdapterFile) should have.
    ///
    /// # Errors
    /// [`Error::Adapter`] for a pattern that cannot be matched, or settings that contradict each other.
    pub fn targeted<'a>(&self, paths: impl IntoIterator<Item = &'a str>) -> Result<Vec<&'a str>> {
        let work = &mut Work::unlimited();
        let mut target = Target::new(self, work).map_err(of_file)?;
        let mut targeted = Vec::new();
        for path in paths {
            if target.refuses(path, work).map_err(of_file)?.is_none() {
                targeted.push(path);
            }
        }
        Ok(targeted)
    }

    /// Rank and scale that PEFT gives the module at `path`, with or without `base_model.model.` in front: for who has the
    /// tensors from elsewhere.
    ///
    /// # Errors
    /// [`Error::Adapter`] for a pattern that cannot be matched, and for a scale that is not finite.
    pub fn rank_and_scale(&self, path: &str) -> Result<(usize, f32)> {
        let found =
            self.ranks_and_scales(&[in_base(path)], &mut Work::unlimited()).map_err(of_file)?;
        found.first().copied().ok_or_else(|| of_file("no module".into()))
    }

    /// Rank and scale of the modules at `paths`, as PEFT computes them. Errors are reasons.
    pub(super) fn ranks_and_scales(
        &self,
        paths: &[&str],
        work: &mut Work,
    ) -> Result<Vec<(usize, f32)>, String> {
        let ranks = keys::first("rank_pattern", &self.rank_pattern, paths, work)?;
        let alphas = keys::first("alpha_pattern", &self.alpha_pattern, paths, work)?;
        let of = ranks.into_iter().zip(alphas).zip(paths).map(|((rank, alpha), path)| {
            let rank = rank.map_or(self.rank, |at| self.rank_pattern[at].1);
            let alpha = alpha.map_or(self.alpha, |at| self.alpha_pattern[at].1);
            let module = || format!("module `{}`", shown(path));
            if rank == 0 {
                return Err(format!("{}: expected a rank of at least 1, got 0", module()));
            }
            let divisor = if self.rslora { (rank as f64).sqrt() } else { rank as f64 };
            let scale = (alpha / divisor) as f32;
            if !scale.is_finite() {
                let expected = format!("expected a finite scale, {} is", alpha_field(self.method));
                return Err(format!("{}: {expected} {alpha}", module()));
            }
            Ok((rank, scale))
        });
        of.collect()
    }

    /// Adds what `rank_pattern` lacks for every module to have its rank.
    pub(super) fn patterns_for(&mut self, modules: &[(&str, usize)]) -> Result<(), String> {
        let found = |config: &AdapterConfig, paths: &[&str]| {
            let found = config.ranks_and_scales(paths, &mut Work::unlimited())?;
            Ok(found.into_iter().map(|(rank, _)| rank).collect())
        };
        self.complete(modules, "rank_pattern", found, |config| &mut config.rank_pattern)
    }

    /// Adds what `alpha_pattern` lacks for every module to have its alpha.
    pub(super) fn alphas_for(&mut self, modules: &[(&str, f64)]) -> Result<(), String> {
        let found = |config: &AdapterConfig, paths: &[&str]| {
            let work = &mut Work::unlimited();
            let found = keys::first("alpha_pattern", &config.alpha_pattern, paths, work)?;
            let alpha =
                |at: Option<usize>| at.map_or(config.alpha, |at| config.alpha_pattern[at].1);
            Ok(found.into_iter().map(alpha).collect())
        };
        self.complete(modules, "alpha_pattern", found, |config| &mut config.alpha_pattern)
    }

    /// Adds keys to a pattern until every module has its value.
    fn complete<T: Copy + PartialEq + core::fmt::Display>(
        &mut self,
        modules: &[(&str, T)],
        field: &str,
        found: impl Fn(&AdapterConfig, &[&str]) -> Result<Vec<T>, String>,
        pattern: impl Fn(&mut AdapterConfig) -> &mut Vec<(String, T)>,
    ) -> Result<(), String> {
        let paths: Vec<_> = modules.iter().map(|(path, _)| *path).collect();
        let mut added: HashSet<&str> = HashSet::new();
        loop {
            let found = found(self, &paths)?;
            let found = modules.iter().zip(found);
            let wrong: Vec<_> =
                found.filter(|((_, value), of)| value != of).map(|(of, _)| *of).collect();
            if wrong.is_empty() {
                return Ok(());
            }
            if let Some((path, value)) = wrong.iter().find(|(path, _)| !added.insert(path)) {
                return Err(format!("module `{path}`: {field} cannot give it {value}"));
            }
            // A key matches longer paths that end with it, so these must come before it.
            let wrong = wrong.iter().map(|(path, value)| (keys::key_of(path), *value));
            let pattern = pattern(self);
            pattern.splice(..0, wrong);
            pattern.sort_by_key(|(path, _)| core::cmp::Reverse(path.len()));
        }
    }

    /// Adds those of `paths` to the targets that are none.
    pub(super) fn target(&mut self, paths: &[&str]) -> Result<(), String> {
        let work = &mut Work::unlimited();
        let mut missing = Vec::new();
        let mut target = Target::new(self, work)?;
        for path in paths {
            if target.refuses(path, work)?.is_some() {
                missing.push((*path).to_owned());
            }
        }
        if let TargetModules::Names(names) = &mut self.target_modules {
            names.extend(missing);
        }
        Ok(())
    }

    /// Why a module is none of this configuration's method.
    pub(super) fn differs(&self, module: &Module) -> Option<String> {
        let named =
            |method: Method, dora| format!("{}{method}", if dora { "DoRA on " } else { "" });
        let expected = named(self.method, self.dora);
        let got = named(module.method(), module.magnitude.is_some());
        let fields = "peft_type and use_dora of";
        let remedy = "save both files again with PEFT";
        (expected != got).then(|| {
            format!("expected {expected} by {fields} {}, got {got}; {remedy}", super::CONFIG_FILE)
        })
    }

    /// The file's fields that have no place of their own.
    pub(super) fn others(&self) -> &Fields {
        &self.others
    }

    /// Sets one of those.
    pub(super) fn set(&mut self, name: &str, raw: String) {
        self.others.insert(name.to_owned(), raw);
    }

    /// The file's contents to a config. Errors are reasons, each with the field's name.
    pub(super) fn from_json(file: &[u8]) -> Result<AdapterConfig, String> {
        AdapterConfig::from_fields(json::fields(file)?)
    }

    /// The same of fields that stand elsewhere.
    pub(super) fn from_fields(mut fields: Fields) -> Result<AdapterConfig, String> {
        let Some(raw) = fields.get("peft_type") else {
            return Err("peft_type: expected \"LORA\", but the field is missing".into());
        };
        let methods = [Method::Lora, Method::Loha, Method::Lokr];
        let Some(method) = methods.into_iter().find(|&method| peft_type(method) == raw) else {
            let raw = json::shown(raw);
            return Err(format!(
                "peft_type: {raw} is not supported: only LORA, LOHA and LOKR are; merge the adapter with PEFT"
            ));
        };
        for (name, raw) in &fields {
            refuse(method, name, raw)?;
        }
        let flag = |name| {
            let flag = optional::<Option<bool>>(&fields, name, "true or false")?;
            Ok::<_, String>(flag.flatten().unwrap_or(false))
        };
        let alpha_field = alpha_field(method);
        let config = AdapterConfig {
            method,
            dora: flag("use_dora")?,
            rank: rank("r", fields.get("r").map(String::as_str))?,
            alpha: alpha(alpha_field, fields.get(alpha_field).map(String::as_str))?,
            rank_pattern: json::ordered(&fields, "rank_pattern", |name, raw| {
                rank(name, Some(raw))
            })?,
            alpha_pattern: json::ordered(&fields, "alpha_pattern", |name, raw| {
                alpha(name, Some(raw))
            })?,
            rslora: flag("use_rslora")?,
            fan_in_fan_out: flag("fan_in_fan_out")?,
            target_modules: modules(&fields, "target_modules")?
                .unwrap_or(TargetModules::OfArchitecture),
            others: Fields::new(),
        };
        fields.retain(|name, _| {
            let name = name.as_str();
            let of_method =
                method == Method::Lora && OWN_LORA.contains(&name) || name == alpha_field;
            !OWN.contains(&name) && !of_method
        });
        Ok(AdapterConfig { others: fields, ..config })
    }

    /// The contents of the file: fields by name, so that the same config gives the same bytes.
    pub(super) fn to_json(&self) -> Result<Vec<u8>, String> {
        if self.rank == 0 {
            return Err("r: expected at least 1, got 0".into());
        }
        let alphas = self.alpha_pattern.iter().map(|(key, alpha)| (key.as_str(), *alpha));
        for (name, alpha) in alphas.chain([(alpha_field(self.method), self.alpha)]) {
            if !alpha.is_finite() {
                return Err(format!("{name}: expected a finite number, got {alpha}"));
            }
        }
        let ranks = self.rank_pattern.iter().map(|(key, rank)| (key.as_str(), rank.to_string()));
        let alphas = self.alpha_pattern.iter().map(|(key, alpha)| (key.as_str(), number(*alpha)));
        let targets = match &self.target_modules {
            TargetModules::Names(names) => json::text(names)?,
            TargetModules::Pattern(pattern) => json::text(pattern)?,
            TargetModules::OfArchitecture => "null".to_owned(),
        };
        let mut fields = self.others.clone();
        let own = [
            peft_type(self.method).to_owned(),
            self.rank.to_string(),
            json::object(ranks)?,
            json::object(alphas)?,
            targets,
        ];
        fields.extend(OWN.map(str::to_owned).into_iter().zip(own));
        fields.insert(alpha_field(self.method).to_owned(), number(self.alpha));
        if self.method == Method::Lora {
            let flags = [self.rslora, self.dora, self.fan_in_fan_out];
            let flags = flags.iter().zip(&OWN_LORA[1..]);
            fields.extend(flags.map(|(flag, name)| ((*name).to_owned(), flag.to_string())));
        }
        json::whole(&fields)
    }
}

fn of_file(reason: String) -> Error {
    at(Path::new(super::CONFIG_FILE), reason)
}

/// An alpha as PEFT writes it: without a fraction where it has none.
fn number(alpha: f64) -> String {
    match alpha.fract() == 0.0 && alpha.abs() < 2f64.powi(53) {
        true => format!("{}", alpha as i64),
        false => format!("{alpha:?}"),
    }
}

fn rank(name: &str, raw: Option<&str>) -> Result<usize, String> {
    let expected = "a whole number of at least 1";
    let Some(raw) = raw else {
        return Err(format!("{name}: expected {expected}, but the field is missing"));
    };
    match json::read::<usize>(name, raw, expected)? {
        0 => Err(format!("{name}: expected {expected}, got 0")),
        rank => Ok(rank),
    }
}

/// Through the standard library, which rounds correctly as Python does; serde_json may be a bit off.
fn alpha(name: &str, raw: Option<&str>) -> Result<f64, String> {
    let expected = "a number";
    let Some(raw) = raw else {
        return Err(format!("{name}: expected {expected}, but the field is missing"));
    };
    let number = raw.starts_with(|sign: char| sign == '-' || sign.is_ascii_digit());
    let alpha = raw.parse().ok().filter(|alpha: &f64| number && alpha.is_finite());
    alpha.ok_or_else(|| format!("{name}: expected {expected}, got {}", json::shown(raw)))
}
