//! `adapter_config.json`: what it must say for the adapter to be plain LoRA, and what rank and
//! scale it gives each module. Read and written by `peft`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::json::{Field, Ordered, Patterns, not_json};
use super::pattern::Pattern;
use super::refuse::refuse;

/// The settings of an adapter that bear on the mathematics. Fields of the file that do not
/// (the base model's name, dropout, …) are kept and written back.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AdapterConfig {
    /// r, where `rank_pattern` does not say otherwise.
    pub rank: usize,
    /// alpha (`lora_alpha`), where `alpha_pattern` does not say otherwise.
    pub alpha: f64,
    /// Ranks by module. The first key that matches counts; a key matches the end of a path, from
    /// its start or behind a dot. In keys `.`, `.*`, `\.` and a leading `^` are PEFT's regular
    /// expressions; any other special character is an error.
    pub rank_pattern: Vec<(String, usize)>,
    /// Alphas by module, likewise.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Whether the scale is alpha / √r instead of alpha / r.
    pub rslora: bool,
    /// Whether the base model keeps its weights as `[in_features, out_features]`: then give `w` as
    /// [`Major::Col`](crate::Major::Col). The adapter's factors are the same either way.
    pub fan_in_fan_out: bool,
    /// The modules that PEFT looks for in the base model.
    pub target_modules: TargetModules,
    others: BTreeMap<String, Value>,
}

/// Which modules PEFT adapts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetModules {
    /// Those whose path is one of these or ends with a dot and one of these.
    Names(Vec<String>),
    /// Those whose path this regular expression matches. Kept, never evaluated.
    Pattern(String),
}

/// What PEFT expects to find beside what the adapter itself says.
fn defaults() -> [(&'static str, Value); 7] {
    [
        ("base_model_name_or_path", Value::Null),
        ("bias", json!("none")),
        ("inference_mode", json!(true)),
        ("init_lora_weights", json!(true)),
        ("lora_dropout", json!(0.0)),
        ("peft_type", json!("LORA")),
        ("task_type", Value::Null),
    ]
}

impl AdapterConfig {
    /// Plain LoRA of one rank and alpha; [`AdapterFile::new`](super::AdapterFile::new) adds the
    /// modules.
    pub fn new(rank: usize, alpha: f64) -> AdapterConfig {
        AdapterConfig {
            rank,
            alpha,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            rslora: false,
            fan_in_fan_out: false,
            target_modules: TargetModules::Names(Vec::new()),
            others: defaults().map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }

    /// Rank and scale of the module at `path`, as PEFT computes them. Errors are reasons.
    pub(super) fn rank_and_scale(&self, path: &str) -> Result<(usize, f32), String> {
        let rank = lookup("rank_pattern", &self.rank_pattern, path)?.unwrap_or(self.rank);
        let alpha = lookup("alpha_pattern", &self.alpha_pattern, path)?.unwrap_or(self.alpha);
        if rank == 0 {
            return Err(format!("module `{path}`: expected a rank of at least 1, got 0"));
        }
        let divisor = if self.rslora { (rank as f64).sqrt() } else { rank as f64 };
        let scale = (alpha / divisor) as f32;
        if !scale.is_finite() {
            return Err(format!("module `{path}`: expected a finite scale, lora_alpha is {alpha}"));
        }
        Ok((rank, scale))
    }

    /// Adds what `rank_pattern` lacks for every module to have its rank.
    pub(super) fn patterns_for(&mut self, modules: &[(&str, usize)]) -> Result<(), String> {
        loop {
            let mut wrong = Vec::new();
            for &(path, rank) in modules {
                if self.rank_and_scale(path)?.0 != rank {
                    wrong.push((path.to_owned(), rank));
                }
            }
            if wrong.is_empty() {
                return Ok(());
            }
            if let Some((path, rank)) = wrong.iter().find(|of| self.rank_pattern.contains(of)) {
                return Err(format!("module `{path}`: rank_pattern cannot give it rank {rank}"));
            }
            // A key matches longer paths that end with it, so these must come before it.
            self.rank_pattern.splice(..0, wrong);
            self.rank_pattern.sort_by_key(|(path, _)| core::cmp::Reverse(path.len()));
        }
    }

    /// Adds `path` to the targets where it is not one.
    pub(super) fn target(&mut self, path: &str) {
        if !self.targets(path)
            && let TargetModules::Names(names) = &mut self.target_modules
        {
            names.push(path.to_owned());
        }
    }

    /// Whether PEFT adapts the module at `path`; a pattern is trusted to.
    pub(super) fn targets(&self, path: &str) -> bool {
        let named = |name: &String| {
            path.strip_suffix(name.as_str()).is_some_and(|of| of.is_empty() || of.ends_with('.'))
        };
        match &self.target_modules {
            TargetModules::Names(names) => names.iter().any(named),
            TargetModules::Pattern(_) => true,
        }
    }

    /// The file's contents to a config. Errors are reasons, each with the field's name.
    pub(super) fn from_json(file: &[u8]) -> Result<AdapterConfig, String> {
        let mut fields: BTreeMap<String, Value> =
            serde_json::from_slice(file).map_err(|error| not_json(file, &error))?;
        if !fields.contains_key("peft_type") {
            return Err("peft_type: expected \"LORA\", but the field is missing".into());
        }
        for (name, value) in &fields {
            refuse(name, value)?;
        }
        // Once more, because the order of the patterns counts and `Value` does not keep it.
        let patterns: Patterns = serde_json::from_slice(file)
            .map_err(|error| format!("rank_pattern or alpha_pattern: {error}"))?;

        let mut take = |name: &str| fields.remove(name).unwrap_or(Value::Null);
        let flag = |name: &str, value: Value| match value {
            Value::Null => Ok(false),
            Value::Bool(flag) => Ok(flag),
            other => Err(format!("{name}: expected true or false, got {other}")),
        };
        let config = AdapterConfig {
            rank: rank("r", &take("r"))?,
            alpha: alpha("lora_alpha", &take("lora_alpha"))?,
            rank_pattern: patterns.rank_pattern.each("rank_pattern", rank)?,
            alpha_pattern: patterns.alpha_pattern.each("alpha_pattern", alpha)?,
            rslora: flag("use_rslora", take("use_rslora"))?,
            fan_in_fan_out: flag("fan_in_fan_out", take("fan_in_fan_out"))?,
            target_modules: targets(take("target_modules"))?,
            others: {
                fields.retain(|name, _| !["rank_pattern", "alpha_pattern"].contains(&&**name));
                fields
            },
        };
        // A key that cannot be matched is an error even where no module would meet it.
        lookup("rank_pattern", &config.rank_pattern, "")?;
        lookup("alpha_pattern", &config.alpha_pattern, "")?;
        Ok(config)
    }

    /// The contents of the file: fields by name, so that the same config gives the same bytes.
    pub(super) fn to_json(&self) -> Result<Vec<u8>, String> {
        if self.rank == 0 {
            return Err("r: expected at least 1, got 0".into());
        }
        let alphas = self.alpha_pattern.iter().map(|(key, alpha)| (key.clone(), *alpha));
        for (name, alpha) in alphas.chain([("lora_alpha".to_owned(), self.alpha)]) {
            if !alpha.is_finite() {
                return Err(format!("{name}: expected a finite number, got {alpha}"));
            }
        }
        let ranks = self.rank_pattern.iter().map(|(key, rank)| (key.clone(), json!(rank)));
        let alphas = self.alpha_pattern.iter().map(|(key, alpha)| (key.clone(), number(*alpha)));
        let targets = match &self.target_modules {
            TargetModules::Names(names) => json!(names),
            TargetModules::Pattern(pattern) => json!(pattern),
        };
        let mut fields: BTreeMap<&str, Field<'_>> =
            self.others.iter().map(|(name, value)| (name.as_str(), Field::Kept(value))).collect();
        fields.insert("r", Field::Own(json!(self.rank)));
        fields.insert("lora_alpha", Field::Own(number(self.alpha)));
        fields.insert("rank_pattern", Field::Ordered(Ordered(ranks.collect())));
        fields.insert("alpha_pattern", Field::Ordered(Ordered(alphas.collect())));
        fields.insert("use_rslora", Field::Own(json!(self.rslora)));
        fields.insert("fan_in_fan_out", Field::Own(json!(self.fan_in_fan_out)));
        fields.insert("target_modules", Field::Own(targets));
        serde_json::to_vec_pretty(&fields).map_err(|error| error.to_string())
    }
}

/// The value of the first key that matches `path`. Every key is looked at, for its errors.
fn lookup<T: Copy>(field: &str, of: &[(String, T)], path: &str) -> Result<Option<T>, String> {
    let mut found = None;
    for (key, value) in of {
        let pattern = Pattern::new(key).map_err(|reason| format!("{field}: {reason}"))?;
        if found.is_none() && pattern.matches(path) {
            found = Some(*value);
        }
    }
    Ok(found)
}

/// An alpha as PEFT writes it: without a fraction where it has none.
fn number(alpha: f64) -> Value {
    match alpha.fract() == 0.0 && alpha.abs() < 2f64.powi(53) {
        true => json!(alpha as i64),
        false => json!(alpha),
    }
}

fn rank(name: &str, value: &Value) -> Result<usize, String> {
    let rank = value.as_u64().and_then(|rank| usize::try_from(rank).ok());
    rank.filter(|&rank| rank > 0)
        .ok_or_else(|| format!("{name}: expected a whole number of at least 1, got {value}"))
}

fn alpha(name: &str, value: &Value) -> Result<f64, String> {
    value.as_f64().ok_or_else(|| format!("{name}: expected a number, got {value}"))
}

fn targets(value: Value) -> Result<TargetModules, String> {
    let wrong =
        |value| format!("target_modules: expected a list of names or one pattern, got {value}");
    match value {
        Value::Null => Ok(TargetModules::Names(Vec::new())),
        Value::String(pattern) => Ok(TargetModules::Pattern(pattern)),
        Value::Array(names) => {
            let names = names.into_iter().map(|name| match name {
                Value::String(name) => Ok(name),
                other => Err(wrong(other)),
            });
            Ok(TargetModules::Names(names.collect::<Result<_, _>>()?))
        }
        other => Err(wrong(other)),
    }
}
