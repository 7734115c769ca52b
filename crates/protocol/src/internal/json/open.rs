//! [`Open`]: the stack of open objects and arrays of a scan.

/// The open objects and arrays: one bit each, set for an object, with the innermost in the lowest bit.
#[derive(Debug, Default)]
pub(super) struct Open {
    innermost: u128,
    depth: usize,
    /// The outer levels, 128 in each number.
    outer: Vec<u128>,
}

/// The levels of one number.
const LEVELS_PER_WORD: usize = 128;

impl Open {
    pub(super) fn push(&mut self, object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(LEVELS_PER_WORD) {
            self.outer.push(self.innermost);
        }
        self.innermost = self.innermost << 1 | u128::from(object);
        self.depth += 1;
    }

    pub(super) fn pop(&mut self) {
        self.innermost >>= 1;
        self.depth = self.depth.saturating_sub(1);
        if self.depth > 0 && self.depth.is_multiple_of(LEVELS_PER_WORD) {
            self.innermost = self.outer.pop().unwrap_or_default();
        }
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Returns whether the innermost level is an object; `None` if nothing is open.
    pub(super) fn innermost(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.innermost & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_depth_is_remembered() {
        let mut open = Open::default();
        let is_object = |depth: usize| depth.is_multiple_of(3);
        (0..1000).for_each(|depth| open.push(is_object(depth)));
        for depth in (0..1000).rev() {
            assert_eq!((open.depth(), open.innermost()), (depth + 1, Some(is_object(depth))));
            open.pop();
            if depth > 0 {
                // A closed level leaves nothing behind.
                open.push(!is_object(depth));
                open.pop();
            }
        }
        assert_eq!((open.depth(), open.innermost()), (0, None));
    }
}
