//! A figure and its bound.

use serde::Serialize;

/// A figure that the product has to reach.
#[derive(Clone, Debug, Serialize)]
pub struct Bar {
    pub what: &'static str,
    pub value: f64,
    pub bound: Bound,
    pub holds: bool,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bar {
    pub fn new(what: &'static str, value: f64, bound: Bound) -> Bar {
        // NaN, which is what was not measured, is within no bound.
        let holds = match bound {
            Bound::AtLeast(bound) => value >= bound,
            Bound::AtMost(bound) => value <= bound,
        };
        Bar {
            what,
            value,
            bound,
            holds,
        }
    }
}
