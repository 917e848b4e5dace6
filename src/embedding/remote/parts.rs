//! Texts of a call dealt among requests, and tokens of a request among its texts.

/// Divides texts by the limits of a request, the first ones last: parts are taken from the end.
pub(super) fn parts(tokens_of: &[usize], max_inputs: usize, max_tokens: usize) -> Vec<Vec<usize>> {
    let mut parts: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0;
    for (place, more) in tokens_of.iter().copied().enumerate() {
        match parts.last_mut() {
            Some(part) if part.len() < max_inputs && tokens + more <= max_tokens => {
                part.push(place);
                tokens += more;
            }
            _ => {
                parts.push(vec![place]);
                tokens = more;
            }
        }
    }
    parts.reverse();
    parts
}

/// The tokens of each text, of those that the provider counted for all.
pub(super) fn shares(counted: Option<u64>, estimates: &[u64]) -> Vec<u64> {
    let Some(counted) = counted else {
        return estimates.to_vec();
    };
    let total: u64 = estimates.iter().sum();
    let mut before = 0;
    let mut given = 0;
    let share = |estimate: &u64| {
        before += estimate;
        let until = (u128::from(counted) * u128::from(before) / u128::from(total.max(1))) as u64;
        let share = until - given;
        given = until;
        share
    };
    estimates.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_keep_the_limits_of_a_request() {
        let lengths = |max_inputs, max_tokens| {
            let parts = parts(&[4; 7], max_inputs, max_tokens);
            let texts: Vec<_> = parts.iter().rev().flatten().copied().collect();
            assert_eq!(texts, [0, 1, 2, 3, 4, 5, 6]);
            parts.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(lengths(3, usize::MAX), [1, 3, 3]);
        assert_eq!(lengths(9, 8), [1, 2, 2, 2]);
        // A text is sent, however long it is.
        assert_eq!(lengths(9, 1), [1; 7]);
    }

    #[test]
    fn shares_of_tokens_add_up() {
        assert_eq!(shares(None, &[3, 4]), [3, 4]);
        assert_eq!(shares(Some(10), &[1, 1, 1]).iter().sum::<u64>(), 10);
        assert_eq!(shares(Some(9), &[1, 2]), [3, 6]);
        assert_eq!(shares(Some(u64::MAX), &[5]), [u64::MAX]);
        assert_eq!(shares(Some(3), &[]), [0; 0]);
    }
}
