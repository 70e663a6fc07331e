//! A Deployment that is scaled in the middle of a rollout: what each of its sets gets of the new size, in proportion to what it has.
//!
//! Kubernetes' arithmetic: each share is rounded to the nearest whole, halves up; who is larger is served first, of equals the newer one where
//! there is more to have, and the older one where there is less; what rounding leaves over goes to the first.
//!
//! Invariant: the sizes come to `replicas + surge` in the end, as far as none has to go below zero for it.

/// A set that has pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub size: i64,
    /// What all sets were to have at most when this one was sized last; 0: nobody knows.
    pub most_before: i64,
}

/// The sizes that `parts`, oldest first, are to have.
pub fn shared(parts: &[Part], replicas: i64, surge: i64) -> Vec<i64> {
    let most = if replicas > 0 { replicas + surge } else { 0 };
    let to_add = most - parts.iter().map(|part| part.size).sum::<i64>();
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|at| {
        let age = i64::try_from(*at).unwrap_or(i64::MAX);
        let size = parts.get(*at).map_or(0, |part| part.size);
        (-size, if to_add > 0 { -age } else { age })
    });
    let mut sizes: Vec<i64> = parts.iter().map(|part| part.size).collect();
    let mut added = 0;
    for at in &order {
        let (Some(part), Some(size)) = (parts.get(*at), sizes.get_mut(*at)) else {
            continue;
        };
        let left = to_add - added;
        let wished = gain(*part, replicas, most);
        let share = match to_add.signum() {
            1 => wished.min(left),
            -1 => wished.max(left),
            _ => 0,
        };
        // Nothing is left over to give: a share of the other sign would only be taken back.
        let share = if left == 0 { 0 } else { share };
        added += share;
        *size += share;
    }
    if let Some(first) = order.first().and_then(|at| sizes.get_mut(*at)) {
        *first = (*first + to_add - added).max(0);
    }
    sizes
}

/// What a set would gain, or lose, to keep its share.
fn gain(part: Part, replicas: i64, most: i64) -> i64 {
    if replicas == 0 {
        return -part.size;
    }
    if part.most_before <= 0 {
        return 0;
    }
    // Twice the product of two numbers of pods needs a bit more than an i64 has.
    let [size, most, before] = [part.size, most, part.most_before].map(i128::from);
    let rounded = (2 * size * most + before) / (2 * before);
    i64::try_from(rounded).unwrap_or(i64::MAX) - part.size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shared_out_as_kubernetes_does() {
        // Sizes oldest first, what they were sized for, what is wanted, and the surge; then the sizes that come of it.
        for (sizes, before, replicas, surge, expected) in [
            (&[3, 2][..], 5, 10, 0, &[6, 4][..]),
            (&[3, 2], 5, 3, 0, &[2, 1]),
            (&[1, 8], 9, 4, 0, &[0, 4]),
            (&[2, 3, 2], 7, 10, 0, &[3, 4, 3]),
            (&[3, 8, 2], 13, 8, 0, &[2, 5, 1]),
            // What is left over goes to the newest of equals, and is taken of the oldest.
            (&[1, 1, 1], 3, 4, 0, &[1, 1, 2]),
            (&[1, 1, 1], 3, 2, 0, &[0, 1, 1]),
            (&[2, 2], 4, 5, 0, &[2, 3]),
            (&[1, 2, 3], 6, 0, 0, &[0, 0, 0]),
            (&[6, 6], 12, 20, 2, &[11, 11]),
            // Size and surge at once: 13 for 10 and 3, now 50 and 6.
            (&[8, 5], 13, 50, 6, &[34, 22]),
            (&[3, 7], 10, 14, 0, &[4, 10]),
            // The same size: nothing moves.
            (&[4, 6], 10, 10, 0, &[4, 6]),
            // To zero, whatever the surge.
            (&[1, 2], 5, 0, 2, &[0, 0]),
            // Of sets that nobody sized, the larger one has it all.
            (&[2, 3], 0, 9, 0, &[2, 7]),
            (&[i64::from(i32::MAX)], i64::from(i32::MAX), 1, 1, &[2]),
            (&[], 3, 4, 1, &[]),
        ] {
            let part = |size: &i64| Part {
                size: *size,
                most_before: before,
            };
            let parts: Vec<Part> = sizes.iter().map(part).collect();
            let told = format!("{sizes:?} for {before} to {replicas}+{surge}");
            assert_eq!(shared(&parts, replicas, surge), expected, "{told}");
        }
    }

    #[test]
    fn whatever_the_sizes_they_come_to_what_is_wanted() {
        for seed in 0..2_000_i64 {
            let draw = |salt: i64, most: i64| (seed * 7919 + salt * 104_729) % most;
            let count = 1 + draw(1, 4);
            let part = |at: i64| Part {
                size: 1 + draw(2 + at, 40),
                most_before: draw(9 + at, 90),
            };
            let parts: Vec<Part> = (0..count).map(part).collect();
            let (replicas, surge) = (draw(20, 60), draw(21, 9));
            let sizes = shared(&parts, replicas, surge);
            let told = format!("{parts:?} to {replicas}+{surge}: {sizes:?}");
            assert!(sizes.iter().all(|size| *size >= 0), "{told}");
            let most = if replicas > 0 { replicas + surge } else { 0 };
            let sum: i64 = sizes.iter().sum();
            // More than that only where the first has none left to give.
            assert!(sum == most || sum > most && sizes.contains(&0), "{told}");
        }
    }
}
