//! What a schema applies, and to what: its subschemas, with each `$ref` followed. Counted before anything is built.
//!
//! A few bytes of a schema can stand for an endless amount of work: thirty definitions that name the next one twice are
//! 2^30 paths, and the validator goes along each, some of them when it is built already. So the paths are counted here
//! first, each subschema once, and a schema with too many is refused.

use std::collections::HashMap;
use std::ptr::from_ref;

use jsonschema::{Draft, Registry, Retrieve, Uri};
use referencing::Resolver;
use serde_json::{Map, Value};

use super::pattern::Patterns;
use super::places::Places;

/// How many subschemas may be applied to one value, each within the one before. The validator calls itself for each.
const MAX_DEPTH: u32 = 64;
/// The longest list of base URIs (`$id`) by which a part may be reached, in bytes.
const MAX_SCOPE_BYTES: usize = 2048;
/// So many bytes of its place weigh as much as a subschema: the validator keeps the place with each.
const PLACE_BYTES: u64 = 128;
/// How often the validator may ask one `if` again to find out which properties were evaluated.
pub(super) const CONDITION_REPEATS: u64 = 64;

const IN_PLACE: &[&str] = &["not", "if", "then", "else"];
const IN_PLACE_LISTS: &[&str] = &["allOf", "anyOf", "oneOf"];
const IN_PLACE_MAPS: &[&str] = &["dependentSchemas", "dependencies"];
const EACH_ITEM: &[&str] = &["items", "contains", "additionalItems", "unevaluatedItems"];
const EACH_PROPERTY: &[&str] = &["additionalProperties", "unevaluatedProperties"];

/// The subschemas of a schema. The first one is the schema itself.
pub(super) struct Graph {
    pub(super) subschemas: Vec<Subschema>,
}

/// One subschema. The numbers are those of others in the graph.
#[derive(Default)]
pub(super) struct Subschema {
    /// Applied to the same value.
    pub(super) in_place: Vec<u32>,
    /// The `if` among them.
    pub(super) condition: Option<u32>,
    /// Applied to properties of these names.
    pub(super) properties: HashMap<Box<str>, u32>,
    /// Applied to properties whose names match; with what a byte of a name costs.
    pub(super) patterns: Vec<(u64, u32)>,
    /// Applied to any property, as far as the names alone say.
    pub(super) each_property: Vec<u32>,
    pub(super) property_names: Option<u32>,
    /// Applied to the items at these positions.
    pub(super) prefix: Vec<u32>,
    /// Applied to any item.
    pub(super) each_item: Vec<u32>,
    /// `unevaluatedProperties` and `unevaluatedItems`: what they apply. That they are there has the validator walk
    /// through all that is applied in place once more.
    pub(super) unevaluated: Vec<u32>,
    /// What a byte of a string costs that is matched with `pattern`.
    pub(super) pattern: u64,
    pub(super) unique_items: bool,
    /// Names and values that stand in keywords, which the value is compared with.
    pub(super) compared: u64,
    /// The length of its place in the schema.
    pub(super) place_bytes: u64,
}

impl Subschema {
    /// Whether it applies nothing else.
    pub(super) fn is_leaf(&self) -> bool {
        self.in_place.is_empty()
            && self.properties.is_empty()
            && self.patterns.is_empty()
            && self.each_property.is_empty()
            && self.property_names.is_none()
            && self.prefix.is_empty()
            && self.each_item.is_empty()
    }
}

/// How often the validator visits a subschema, with all that it applies in place.
#[derive(Clone, Copy, Default)]
struct Paths {
    /// To say whether a value is valid.
    valid: u64,
    /// To say which properties and items were evaluated.
    mark: u64,
    depth: u32,
}

#[derive(Clone, Copy)]
enum Counted {
    Not,
    Begun,
    Done(Paths),
}

impl Graph {
    /// Reads and counts. The error is the end of "the input schema …".
    pub(super) fn read(schema: &Value, max_paths: u64) -> Result<Self, String> {
        let places = Places::of(schema);
        let invalid = |error: &dyn std::fmt::Display| format!("is no JSON Schema of draft 2020-12: {error}");
        // As the validator reads it, so that a reference means the same to both.
        let draft = Draft::Draft202012;
        let resource = draft.create_resource_ref(schema);
        let base = resource.id().unwrap_or("json-schema:///").to_owned();
        let registry = Registry::new()
            .retriever(Nothing)
            .draft(draft)
            .retrieve_known_draft_meta_schemas(false)
            .add(&base, resource)
            .and_then(jsonschema::RegistryBuilder::prepare)
            .map_err(|error| invalid(&error))?;
        let base = jsonschema::uri::from_str(base.trim_end_matches('#')).map_err(|error| invalid(&error))?;
        let mut reader = Reader {
            max_paths,
            places: &places,
            root: schema,
            found: HashMap::new(),
            scopes: HashMap::new(),
            patterns: Patterns::default(),
            waiting: Vec::new(),
            values: Vec::new(),
            subschemas: Vec::new(),
        };
        let resolver = registry.resolver(base);
        let scope = reader.scope(&resolver, draft, schema)?;
        reader.enter(Part {
            contents: schema,
            resolver,
            draft,
            scope,
        })?;
        while let Some((number, part)) = reader.waiting.pop() {
            let read = reader.read(&part)?;
            if let Some(slot) = reader.subschemas.get_mut(number as usize) {
                *slot = read;
            }
        }
        reader.count()?;
        Ok(Self {
            subschemas: reader.subschemas,
        })
    }
}

/// Fetches nothing: the schema is the plugin's.
struct Nothing;

impl Retrieve for Nothing {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err(format!("{uri} is not in it, and nothing is fetched").into())
    }
}

/// A subschema with what its references are relative to.
struct Part<'a> {
    contents: &'a Value,
    resolver: Resolver<'a>,
    draft: Draft,
    /// The number of the two, in [`Reader::scopes`].
    scope: u32,
}

struct Reader<'a> {
    max_paths: u64,
    places: &'a Places<'a>,
    root: &'a Value,
    /// A subschema is another one where its references are relative to something else.
    found: HashMap<(*const Value, u32), u32>,
    scopes: HashMap<String, u32>,
    patterns: Patterns,
    waiting: Vec<(u32, Part<'a>)>,
    values: Vec<&'a Value>,
    subschemas: Vec<Subschema>,
}

impl<'a> Reader<'a> {
    fn too_many(&self, contents: &Value) -> String {
        format!(
            "leads along more than {} paths of subschemas (limit `schema_paths`), among them those of {}; \
             a `$ref` counts as all that it names",
            self.max_paths,
            self.places.show(contents)
        )
    }

    /// The number of a base URI and of the way to it, by which `$dynamicRef` and the validator tell parts apart.
    fn scope(&mut self, resolver: &Resolver<'_>, draft: Draft, at: &Value) -> Result<u32, String> {
        let mut key = format!("{draft:?} {}", resolver.base_uri().as_str());
        for uri in &resolver.dynamic_scope() {
            if key.len() > MAX_SCOPE_BYTES {
                break;
            }
            key.push(' ');
            key.push_str(uri.as_str());
        }
        if key.len() > MAX_SCOPE_BYTES {
            return Err(format!(
                "reaches {} through too many or too long `$id`s: together they may have {MAX_SCOPE_BYTES} bytes",
                self.places.show(at)
            ));
        }
        let next = self.scopes.len() as u32;
        Ok(*self.scopes.entry(key).or_insert(next))
    }

    /// The number of a subschema, which is read later when it is new.
    fn enter(&mut self, part: Part<'a>) -> Result<u32, String> {
        let next = self.subschemas.len() as u32;
        if let Some(known) = self.found.get(&(from_ref(part.contents), part.scope)) {
            return Ok(*known);
        }
        if u64::from(next) >= self.max_paths {
            return Err(self.too_many(part.contents));
        }
        self.found.insert((from_ref(part.contents), part.scope), next);
        self.subschemas.push(Subschema::default());
        self.values.push(part.contents);
        self.waiting.push((next, part));
        Ok(next)
    }

    /// A subschema that stands in another one; `None` for what is none, which the validator will refuse.
    fn child(&mut self, parent: &Part<'a>, contents: &'a Value) -> Result<Option<u32>, String> {
        if !contents.is_object() && !contents.is_boolean() {
            return Ok(None);
        }
        let draft = parent.draft.detect(contents);
        let resource = draft.create_resource_ref(contents);
        let resolver = parent.resolver.in_subresource(resource).map_err(|error| {
            format!(
                "is no JSON Schema of draft 2020-12: {error} (at {:?})",
                self.places.show(contents)
            )
        })?;
        let same = resource.id().is_none() && draft == parent.draft;
        let scope = if same {
            parent.scope
        } else {
            self.scope(&resolver, draft, contents)?
        };
        let part = Part {
            contents,
            resolver,
            draft,
            scope,
        };
        self.enter(part).map(Some)
    }

    fn referenced(&mut self, parent: &Part<'a>, keyword: &str, reference: &str) -> Result<u32, String> {
        let resolved = match keyword {
            "$recursiveRef" => parent.resolver.lookup_recursive_ref(),
            _ => parent.resolver.lookup(reference),
        };
        let resolved = resolved.map_err(|error| {
            let place = self.places.show(parent.contents);
            format!("is no JSON Schema of draft 2020-12: {error} (at {place:?})")
        })?;
        let (contents, resolver, draft) = resolved.into_inner();
        let scope = self.scope(&resolver, draft, contents)?;
        self.enter(Part {
            contents,
            resolver,
            draft,
            scope,
        })
    }

    fn read(&mut self, part: &Part<'a>) -> Result<Subschema, String> {
        let mut read = Subschema {
            place_bytes: self.places.bytes(part.contents),
            ..Subschema::default()
        };
        let Value::Object(schema) = part.contents else {
            return Ok(read);
        };
        let below_the_root = !std::ptr::eq(part.contents, self.root) && self.places.has(part.contents);
        if below_the_root && schema.contains_key("$schema") {
            return Err(format!(
                "has a `$schema` of its own at {}: all of it is of one draft, 2020-12",
                self.places.show(part.contents)
            ));
        }
        self.read_in_place(part, schema, &mut read)?;
        self.read_properties(part, schema, &mut read)?;
        self.read_items(part, schema, &mut read)?;
        if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
            read.pattern = self.pattern(pattern, part.contents)?;
        }
        read.unique_items = schema.get("uniqueItems") == Some(&Value::Bool(true));
        for keyword in ["enum", "const", "required", "dependentRequired", "type"] {
            read.compared += schema.get(keyword).map_or(0, size);
        }
        read.compared += (read.properties.len() + read.in_place.len()) as u64;
        Ok(read)
    }

    fn read_in_place(&mut self, part: &Part<'a>, schema: &'a Map<String, Value>, read: &mut Subschema) -> Read {
        for keyword in ["$ref", "$dynamicRef", "$recursiveRef"] {
            if let Some(reference) = schema.get(keyword).and_then(Value::as_str) {
                read.in_place.push(self.referenced(part, keyword, reference)?);
            }
        }
        for keyword in IN_PLACE {
            if let Some(one) = schema.get(*keyword) {
                let number = self.child(part, one)?;
                read.in_place.extend(number);
                if *keyword == "if" {
                    read.condition = number;
                }
            }
        }
        for keyword in IN_PLACE_LISTS {
            for one in schema.get(*keyword).and_then(Value::as_array).into_iter().flatten() {
                read.in_place.extend(self.child(part, one)?);
            }
        }
        for keyword in IN_PLACE_MAPS {
            for one in members(schema, keyword) {
                read.in_place.extend(self.child(part, one.1)?);
            }
        }
        Ok(())
    }

    fn read_properties(&mut self, part: &Part<'a>, schema: &'a Map<String, Value>, read: &mut Subschema) -> Read {
        for (name, one) in members(schema, "properties") {
            if let Some(number) = self.child(part, one)? {
                read.properties.insert(name.as_str().into(), number);
            }
        }
        for (name, one) in members(schema, "patternProperties") {
            let cost = self.pattern(name, part.contents)?;
            let number = self.child(part, one)?;
            read.patterns.extend(number.map(|number| (cost, number)));
        }
        for keyword in EACH_PROPERTY {
            if let Some(one) = schema.get(*keyword) {
                let number = self.child(part, one)?;
                read.each_property.extend(number);
                if *keyword == "unevaluatedProperties" {
                    read.unevaluated.extend(number);
                }
            }
        }
        if let Some(one) = schema.get("propertyNames") {
            read.property_names = self.child(part, one)?;
        }
        Ok(())
    }

    fn read_items(&mut self, part: &Part<'a>, schema: &'a Map<String, Value>, read: &mut Subschema) -> Read {
        for keyword in EACH_ITEM {
            if let Some(one) = schema.get(*keyword) {
                let number = self.child(part, one)?;
                read.each_item.extend(number);
                if *keyword == "unevaluatedItems" {
                    read.unevaluated.extend(number);
                }
            }
        }
        // Before draft 2020-12 `items` may be a list, too.
        for keyword in ["prefixItems", "items"] {
            for one in schema.get(keyword).and_then(Value::as_array).into_iter().flatten() {
                read.prefix.extend(self.child(part, one)?);
            }
        }
        Ok(())
    }

    fn pattern(&mut self, pattern: &str, at: &Value) -> Result<u64, String> {
        self.patterns
            .cost(pattern)
            .map_err(|problem| format!("{problem} (at {})", self.places.show(at)))
    }

    /// Counts the paths in place of each subschema, and all of them together.
    fn count(&self) -> Result<(), String> {
        let mut counted = vec![Counted::Not; self.subschemas.len()];
        let mut sum: u64 = 0;
        for number in 0..self.subschemas.len() as u32 {
            let paths = self.paths(number, 0, &mut counted)?;
            sum = sum.saturating_add(paths.valid);
            if sum > self.max_paths {
                return Err(self.too_many(self.value(self.innermost(number, &counted))));
            }
        }
        Ok(())
    }

    /// Of a subschema and those within it the last one that has too many paths alone, if there is one: the place to
    /// look at.
    fn innermost(&self, number: u32, counted: &[Counted]) -> u32 {
        let has_too_many = |one: &&u32| match counted.get(**one as usize) {
            Some(Counted::Done(paths)) => paths.valid > self.max_paths,
            _ => false,
        };
        let mut at = number;
        while let Some(within) = self
            .subschemas
            .get(at as usize)
            .and_then(|subschema| subschema.in_place.iter().find(has_too_many))
        {
            at = *within;
        }
        at
    }

    fn value(&self, number: u32) -> &'a Value {
        self.values.get(number as usize).copied().unwrap_or(self.root)
    }

    fn paths(&self, number: u32, above: u32, counted: &mut [Counted]) -> Result<Paths, String> {
        let (index, place) = (number as usize, || self.places.show(self.value(number)));
        match counted.get(index) {
            Some(Counted::Done(paths)) => return Ok(*paths),
            Some(Counted::Begun) => {
                return Err(format!(
                    "names itself at {}, without a step to a property or an item between: a check would have no end",
                    place()
                ));
            }
            _ => {}
        }
        let too_deep = || format!("is more than {MAX_DEPTH} subschemas deep at {}, for one value", place());
        if above >= MAX_DEPTH {
            return Err(too_deep());
        }
        let Some(subschema) = self.subschemas.get(index) else {
            return Ok(Paths::default());
        };
        if let Some(slot) = counted.get_mut(index) {
            *slot = Counted::Begun;
        }
        let own = 1 + subschema.place_bytes / PLACE_BYTES;
        let names = subschema.properties.len() + subschema.patterns.len();
        let mut paths = Paths {
            valid: own,
            mark: own + names as u64,
            depth: 1,
        };
        for one in &subschema.in_place {
            let below = self.paths(*one, above + 1, counted)?;
            let repeats = match subschema.condition == Some(*one) {
                true => CONDITION_REPEATS,
                false => 1,
            };
            paths.valid = paths.valid.saturating_add(below.valid);
            let marked = below.valid.saturating_mul(repeats).saturating_add(below.mark);
            paths.mark = paths.mark.saturating_add(marked);
            paths.depth = paths.depth.max(below.depth + 1);
        }
        if paths.depth > MAX_DEPTH {
            return Err(too_deep());
        }
        if !subschema.unevaluated.is_empty() {
            paths.valid = paths.valid.saturating_add(paths.mark);
        }
        if let Some(slot) = counted.get_mut(index) {
            *slot = Counted::Done(paths);
        }
        Ok(paths)
    }
}

type Read = Result<(), String>;

fn members<'a>(
    schema: &'a Map<String, Value>,
    keyword: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
    schema.get(keyword).and_then(Value::as_object).into_iter().flatten()
}

/// What it costs to compare something with a value, or to hash it.
pub(super) fn size(value: &Value) -> u64 {
    const BYTES: usize = 64;
    match value {
        Value::String(text) => 1 + (text.len() / BYTES) as u64,
        Value::Array(items) => 1 + items.iter().map(size).sum::<u64>(),
        Value::Object(members) => {
            let one = |(key, value): (&String, &Value)| (key.len() / BYTES) as u64 + size(value);
            1 + members.iter().map(one).sum::<u64>()
        }
        _ => 1,
    }
}
