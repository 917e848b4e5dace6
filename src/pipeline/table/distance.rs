//! The distances of pgvector: its operators, and the operator classes with which an index serves them.

/// How far two vectors are apart.
///
/// The models' vectors have the length 1 unless `normalize` is off. Then all of these but [`L1`](Self::L1) order rows
/// alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Distance {
    /// 1 minus the cosine of the angle.
    Cosine,
    /// The inner product with its sign changed, because an index scans from the smallest value on.
    InnerProduct,
    /// The Euclidean distance.
    L2,
    /// The sum of the differences of the elements.
    L1,
}

impl Distance {
    /// All of them. The first ones are preferred where several indexes fit.
    pub const ALL: [Distance; 4] = [
        Distance::Cosine,
        Distance::InnerProduct,
        Distance::L2,
        Distance::L1,
    ];

    /// The name of the operator, without its schema.
    pub fn operator(self) -> &'static str {
        match self {
            Distance::Cosine => "<=>",
            Distance::InnerProduct => "<#>",
            Distance::L2 => "<->",
            Distance::L1 => "<+>",
        }
    }

    /// The distance of this operator.
    pub fn from_operator(name: &str) -> Option<Distance> {
        Self::ALL.into_iter().find(|it| it.operator() == name)
    }

    /// The name in options and messages.
    pub fn name(self) -> &'static str {
        match self {
            Distance::Cosine => "cosine",
            Distance::InnerProduct => "inner_product",
            Distance::L2 => "l2",
            Distance::L1 => "l1",
        }
    }

    /// The distance of this name.
    pub fn from_name(name: &str) -> Option<Distance> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    /// The name of the operator class for `vector` or `halfvec`, without its schema.
    pub fn operator_class(self, vector_type: &str) -> String {
        let distance = match self {
            Distance::Cosine => "cosine",
            Distance::InnerProduct => "ip",
            Distance::L2 => "l2",
            Distance::L1 => "l1",
        };
        format!("{vector_type}_{distance}_ops")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_operators_lead_back_to_their_distance() {
        for distance in Distance::ALL {
            assert_eq!(Distance::from_name(distance.name()), Some(distance));
            assert_eq!(Distance::from_operator(distance.operator()), Some(distance));
        }
        assert_eq!(Distance::from_operator("<~>"), None);
        assert_eq!(Distance::from_name("Cosine"), None);
    }
}
