//! What it costs to check a value, counted before it is done: the number of visits of subschemas to values, without any
//! short cut. A thread that checks can be given up and cannot be ended, so it must have an end of its own.

use std::collections::HashMap;
use std::ptr::from_ref;

use serde_json::Value;

use super::graph::{CONDITION_REPEATS, Graph, Subschema, size};

/// How deep the validator may call itself, over all levels of the value.
const MAX_DEPTH: u32 = 800;
/// How many pairs of a subschema and a value are remembered, with the memory that takes.
const MAX_PAIRS: usize = 400_000;
/// So many bytes of places in an error weigh as much as a visit.
const PLACE_BYTES: u64 = 64;

/// What checking costs, in visits.
#[derive(Clone, Copy, Default)]
pub(super) struct Cost {
    /// To say whether the value is valid.
    pub(super) valid: u64,
    /// To list what is wrong: a bound for time, and for the memory of the list.
    pub(super) errors: u64,
    /// To say which properties and items were evaluated.
    mark: u64,
    depth: u32,
}

/// It costs more than is allowed, or is nested too deep.
pub(super) struct TooMuch;

/// The cost of checking a value with the schema, when it is at most so much.
pub(super) fn of(graph: &Graph, value: &Value, most: u64) -> Result<Cost, TooMuch> {
    let mut counter = Counter {
        graph,
        most,
        spent: 0,
        known: HashMap::new(),
    };
    let cost = counter.cost(0, value, At::default())?;
    if cost.valid > most {
        return Err(TooMuch);
    }
    Ok(cost)
}

/// Where a visit takes place.
#[derive(Clone, Copy, Default)]
struct At {
    depth: u32,
    /// How long the place of the value is.
    place_bytes: u64,
    /// The value is made for this visit, and another one may be where it was.
    passing: bool,
}

struct Counter<'a> {
    graph: &'a Graph,
    most: u64,
    /// What counting itself has cost: each pair of a subschema and a value is counted once.
    spent: u64,
    known: HashMap<(u32, *const Value), Cost>,
}

impl Cost {
    fn add(&mut self, below: Self) {
        self.valid = self.valid.saturating_add(below.valid);
        // Some keywords ask first whether a value is valid, and list then what is not.
        self.errors = self.errors.saturating_add(below.valid).saturating_add(below.errors);
        self.depth = self.depth.max(below.depth + 1);
    }
}

impl Counter<'_> {
    fn spend(&mut self, amount: u64) -> Result<(), TooMuch> {
        self.spent = self.spent.saturating_add(amount);
        if self.spent > self.most { Err(TooMuch) } else { Ok(()) }
    }

    fn cost(&mut self, number: u32, value: &Value, at: At) -> Result<Cost, TooMuch> {
        self.spend(1)?;
        let graph = self.graph;
        let Some(subschema) = graph.subschemas.get(number as usize) else {
            return Ok(Cost::default());
        };
        let key = (number, from_ref(value));
        if let (false, Some(known)) = (at.passing, self.known.get(&key)) {
            return match at.depth + known.depth > MAX_DEPTH {
                true => Err(TooMuch),
                false => Ok(*known),
            };
        }
        if at.depth >= MAX_DEPTH {
            return Err(TooMuch);
        }
        let own = self.own(subschema, value)?;
        let mut cost = Cost {
            valid: own,
            errors: own + (subschema.place_bytes + at.place_bytes) / PLACE_BYTES,
            mark: own,
            depth: 1,
        };
        let below = At {
            depth: at.depth + 1,
            ..at
        };
        for one in &subschema.in_place {
            let applied = self.cost(*one, value, below)?;
            let repeats = match subschema.condition == Some(*one) {
                true => CONDITION_REPEATS,
                false => 1,
            };
            cost.add(applied);
            let marked = applied.valid.saturating_mul(repeats).saturating_add(applied.mark);
            cost.mark = cost.mark.saturating_add(marked);
        }
        match value {
            Value::Object(_) => self.properties(subschema, value, below, &mut cost)?,
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let below = At {
                        place_bytes: at.place_bytes + 4,
                        passing: false,
                        ..below
                    };
                    for one in subschema.prefix.get(index).into_iter().chain(&subschema.each_item) {
                        self.step(subschema, *one, item, below, &mut cost)?;
                    }
                }
            }
            _ => {}
        }
        if !subschema.unevaluated.is_empty() {
            cost.valid = cost.valid.saturating_add(cost.mark);
            cost.errors = cost.errors.saturating_add(cost.mark);
        }
        if !at.passing && !subschema.is_leaf() {
            if self.known.len() >= MAX_PAIRS {
                return Err(TooMuch);
            }
            self.known.insert(key, cost);
        }
        Ok(cost)
    }

    /// What the keywords cost that apply no subschema.
    fn own(&mut self, subschema: &Subschema, value: &Value) -> Result<u64, TooMuch> {
        let mut own = 1 + subschema.compared;
        match value {
            Value::String(text) => own += subschema.pattern.saturating_mul(text.len() as u64),
            Value::Array(_) if subschema.unique_items => {
                let items = size(value);
                self.spend(items)?;
                // Fewer than 16 items are compared each with each.
                own = own.saturating_add(items.saturating_mul(16));
            }
            _ => {}
        }
        Ok(own)
    }

    fn properties(&mut self, subschema: &Subschema, value: &Value, at: At, cost: &mut Cost) -> Result<(), TooMuch> {
        for (name, member) in value.as_object().into_iter().flatten() {
            let bytes = name.len() as u64;
            let below = At {
                place_bytes: at.place_bytes + 1 + bytes,
                passing: false,
                ..at
            };
            if let Some(one) = subschema.properties.get(name.as_str()) {
                self.step(subschema, *one, member, below, cost)?;
            }
            for (each_byte, one) in &subschema.patterns {
                let matching = each_byte.saturating_mul(bytes);
                cost.valid = cost.valid.saturating_add(matching);
                cost.errors = cost.errors.saturating_add(matching);
                cost.mark = cost.mark.saturating_add(matching);
                self.step(subschema, *one, member, below, cost)?;
            }
            for one in &subschema.each_property {
                self.step(subschema, *one, member, below, cost)?;
            }
            if let Some(one) = subschema.property_names {
                let passing = At { passing: true, ..below };
                cost.add(self.cost(one, &Value::String(name.clone()), passing)?);
            }
        }
        Ok(())
    }

    /// One subschema, applied to a property or an item.
    fn step(&mut self, of: &Subschema, one: u32, value: &Value, at: At, cost: &mut Cost) -> Result<(), TooMuch> {
        let applied = self.cost(one, value, at)?;
        cost.add(applied);
        if of.unevaluated.contains(&one) {
            cost.mark = cost.mark.saturating_add(applied.valid);
        }
        Ok(())
    }
}
