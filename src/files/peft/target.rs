//! Which modules of a base model an adapter's configuration means: `target_modules`, `exclude_modules`,
//! `modules_to_save`, `layers_to_transform` and `layers_pattern`, as PEFT's
//! `check_target_module_exists` reads them. Called by `config`.

use super::super::shown;
use super::config::{AdapterConfig, TargetModules};
use super::json::{Fields, is_off, optional, read, shown as shown_json};
use super::pattern::Pattern;
use super::suffixes::Suffixes;
use super::work::Work;

/// A layer's number in a module's path: the first that lies behind two names (`model.layers.7.`).
const NUMBER: &str = r".*?\.[^.]*\.(?P<idx>\d+)\.";
/// More names in `layers_pattern` than any model has lists of layers.
const MAX_PATTERNS: usize = 64;
const LIST_OR_PATTERN: &str = "a list of names or one pattern";

/// The configuration's choice, ready to match.
pub(super) struct Target<'a> {
    chosen: Chosen<'a>,
    excluded: Option<Chosen<'a>>,
    /// Of `modules_to_save`.
    saved: Option<Pattern>,
    layers: Option<Layers>,
    /// Which names of `chosen`, and which of `layers`, have met a module.
    met_names: Vec<bool>,
    met_layers: Vec<bool>,
}

/// Names or a pattern, of `target_modules` or of `exclude_modules`.
enum Chosen<'a> {
    /// Whatever the file has, because only the base model knows.
    All,
    Names(std::borrow::Cow<'a, [String]>, Suffixes),
    Pattern(Pattern),
}

/// `layers_to_transform`.
struct Layers {
    numbers: Vec<u64>,
    patterns: Vec<Pattern>,
}

impl<'a> Target<'a> {
    pub(super) fn new(config: &'a AdapterConfig, work: &mut Work) -> Result<Target<'a>, String> {
        let whole = |field: &str, pattern: &str, work: &mut Work| {
            Pattern::whole(pattern, work)
                .map_err(|reason| format!("{field}, pattern `{}`: {reason}", shown(pattern)))
        };
        let chosen = match &config.target_modules {
            TargetModules::OfArchitecture => Chosen::All,
            // PEFT writes out which these are when it saves; other programs do not.
            TargetModules::Pattern(pattern) if pattern.to_lowercase() == "all-linear" => {
                Chosen::All
            }
            TargetModules::Pattern(pattern) => {
                Chosen::Pattern(whole("target_modules", pattern, work)?)
            }
            TargetModules::Names(names) => Chosen::names(names.into()),
        };
        let fields = config.others();
        let excluded = match modules(fields, "exclude_modules")? {
            None => None,
            Some(TargetModules::Pattern(pattern)) if pattern.is_empty() => None,
            Some(TargetModules::Pattern(pattern)) => {
                Some(Chosen::Pattern(whole("exclude_modules", &pattern, work)?))
            }
            Some(TargetModules::Names(names)) => Some(Chosen::names(names.into())),
            Some(TargetModules::OfArchitecture) => None,
        };
        let saved = modules_to_save(fields)?;
        let saved = match saved.is_empty() {
            true => None,
            false => {
                let any = format!(r"(^|.*\.)({})($|\..*)", saved.join("|"));
                Some(whole("modules_to_save", &any, work)?)
            }
        };
        let layers =
            Layers::of(fields, matches!(config.target_modules, TargetModules::Pattern(_)), work)?;
        let met_names = match &chosen {
            Chosen::Names(names, _) => vec![false; names.len()],
            _ => Vec::new(),
        };
        let met_layers = vec![false; layers.as_ref().map_or(0, |layers| layers.numbers.len())];
        Ok(Target { chosen, excluded, saved, layers, met_names, met_layers })
    }

    /// Why PEFT would leave the module at `path` alone; `None`: it adapts it.
    pub(super) fn refuses(
        &mut self,
        path: &str,
        work: &mut Work,
    ) -> Result<Option<String>, String> {
        if let Some(excluded) = &self.excluded
            && excluded.meets(path, work, |_| {})?
        {
            return Ok(Some(format!("exclude_modules takes module `{}` out", shown(path))));
        }
        if let Some(saved) = &self.saved
            && saved.matches(path, work)?
        {
            let reason = "modules_to_save replaces it whole, so PEFT adapts nothing there";
            return Ok(Some(format!("module `{}`: {reason}", shown(path))));
        }
        let (mut exact, met) = (false, &mut self.met_names);
        let names = match &self.chosen {
            Chosen::Names(names, _) => &names[..],
            _ => &[],
        };
        let found = self.chosen.meets(path, work, |at| {
            met[at] = true;
            exact |= names[at].len() == path.len();
        })?;
        if !found {
            return Ok(Some(format!("target_modules does not name module `{}`", shown(path))));
        }
        let Some(layers) = &self.layers else { return Ok(None) };
        match layers.find(path, work)? {
            Some(at) => self.met_layers[at] = true,
            // A whole path in target_modules stands above the layers.
            None if exact => {}
            None => {
                return Ok(Some(format!(
                    "layers_to_transform leaves module `{}` out",
                    shown(path)
                )));
            }
        }
        Ok(None)
    }

    /// What the configuration names and none of the paths so far was: the file does less than it says.
    pub(super) fn unmet(&self, work: &mut Work) -> Result<Option<String>, String> {
        let remedy = "its tensors were left out of the file; or, where the base model has no such \
                      module, take the entry out";
        if let Chosen::Names(names, _) = &self.chosen {
            for (name, _) in names.iter().zip(&self.met_names).filter(|(_, met)| !**met) {
                // What is taken out again cannot be in the file; a pattern may take out longer paths alone.
                let out = match &self.excluded {
                    Some(Chosen::Pattern(_)) => true,
                    Some(excluded) => excluded.meets(name, work, |_| {})?,
                    None => false,
                };
                let out = out
                    || self.layers.is_some()
                    || match &self.saved {
                        Some(saved) => saved.matches(name, work)?,
                        None => false,
                    };
                if !out {
                    let name = shown(name);
                    let reason =
                        format!("target_modules names `{name}`, and the file has no such module");
                    return Ok(Some(format!("{reason}: {remedy}")));
                }
            }
        }
        if let Some(layers) = &self.layers
            && let Some(at) = self.met_layers.iter().position(|met| !met)
        {
            let number = layers.numbers[at];
            let reason =
                format!("layers_to_transform names layer {number}, of which the file has none");
            return Ok(Some(format!("{reason}: {remedy}")));
        }
        Ok(None)
    }
}

impl<'a> Chosen<'a> {
    fn names(names: std::borrow::Cow<'a, [String]>) -> Chosen<'a> {
        let suffixes = Suffixes::new(names.iter().map(String::as_bytes).enumerate());
        Chosen::Names(names, suffixes)
    }

    fn meets(
        &self,
        path: &str,
        work: &mut Work,
        mut found: impl FnMut(usize),
    ) -> Result<bool, String> {
        match self {
            Chosen::All => Ok(true),
            Chosen::Pattern(pattern) => pattern.matches(path, work),
            Chosen::Names(_, names) => {
                let mut any = false;
                names.each(path, work, |at| {
                    any = true;
                    found(at);
                })?;
                Ok(any)
            }
        }
    }
}

impl Layers {
    /// `pattern`: whether `target_modules` is one, beside which PEFT allows no layers.
    fn of(fields: &Fields, pattern: bool, work: &mut Work) -> Result<Option<Layers>, String> {
        let given = |name: &str| fields.get(name).filter(|raw| !is_off(raw) && *raw != "\"\"");
        let (field, expected) = ("layers_to_transform", "a whole number or a list of them");
        let mut numbers: Vec<u64> = match given(field) {
            None => Vec::new(),
            Some(raw) if raw.starts_with('[') => read(field, raw, expected)?,
            Some(raw) => vec![read(field, raw, expected)?],
        };
        numbers.sort_unstable();
        numbers.dedup();
        let names = match modules(fields, "layers_pattern")?
            .filter(|_| given("layers_pattern").is_some())
        {
            Some(TargetModules::Names(names)) => names,
            Some(TargetModules::Pattern(name)) => vec![name],
            _ => Vec::new(),
        };
        for (field, given) in [(field, !numbers.is_empty()), ("layers_pattern", !names.is_empty())]
        {
            if given && pattern {
                let why =
                    "PEFT allows it only beside a list in target_modules; take one of them out";
                return Err(format!("{field}: {why}"));
            }
        }
        if numbers.is_empty() && !names.is_empty() {
            return Err("layers_pattern: layers_to_transform is missing; PEFT needs both".into());
        }
        if numbers.is_empty() {
            return Ok(None);
        }
        if names.len() > MAX_PATTERNS {
            return Err(format!(
                "layers_pattern: expected at most {MAX_PATTERNS} names, got {}",
                names.len()
            ));
        }
        let mut patterns = Vec::new();
        for name in &names {
            let pattern = Pattern::begin(&format!(r"(?:^|.*?\.){name}\.(?P<idx>\d+)\."), work);
            patterns.push(
                pattern.map_err(|reason| format!("layers_pattern, `{}`: {reason}", shown(name)))?,
            );
        }
        if names.is_empty() {
            patterns.push(Pattern::begin(NUMBER, work)?);
        }
        Ok(Some(Layers { numbers, patterns }))
    }

    /// The place in the list of the layer that the module at `path` lies in.
    fn find(&self, path: &str, work: &mut Work) -> Result<Option<usize>, String> {
        for pattern in &self.patterns {
            let Some(number) = pattern.index(path, work)? else { continue };
            if !number.is_ascii() {
                let why = "expected the layer's number in digits of ASCII";
                return Err(format!("layers_to_transform: module `{}`: {why}", shown(path)));
            }
            let digits = number.trim_start_matches('0');
            let number: Option<u64> = match number.is_empty() || !digits.is_empty() {
                true => digits.parse().ok(),
                false => Some(0),
            };
            return Ok(number.and_then(|number| self.numbers.binary_search(&number).ok()));
        }
        Ok(None)
    }
}

/// A field that is a list of names or a pattern; `None` where it is absent or null.
pub(super) fn modules(fields: &Fields, field: &str) -> Result<Option<TargetModules>, String> {
    let Some(raw) = fields.get(field).filter(|raw| *raw != "null") else { return Ok(None) };
    let modules = match raw.starts_with('"') {
        true => serde_json::from_str(raw).map(TargetModules::Pattern),
        false => serde_json::from_str(raw).map(TargetModules::Names),
    };
    let got = |_| format!("{field}: expected {LIST_OR_PATTERN}, got {}", shown_json(raw));
    modules.map(Some).map_err(got)
}

/// Names of modules that the file replaces whole.
pub(super) fn modules_to_save(fields: &Fields) -> Result<Vec<String>, String> {
    let names = optional::<Option<Vec<String>>>(fields, "modules_to_save", "a list of names")?;
    Ok(names.flatten().unwrap_or_default())
}
