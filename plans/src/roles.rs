//! Which constants each role reads.

use std::collections::BTreeSet;

use crate::field::Attr;
use crate::op::Op;
use crate::plan::Bundle;
use crate::value::{ConstId, Role};

impl Bundle {
    /// The constants that a role reads, in ascending order: the weights of the maps it applies or makes check vectors
    /// of, and what its own operations name (scales, biases, groups and sub-models on the device). The device checks
    /// maps without holding their weights. Handles outside the tables are left to the validator.
    pub fn constants_of(&self, role: Role) -> Vec<ConstId> {
        let mut ids = BTreeSet::new();
        let steps = self.programs.iter().filter(|p| p.role == role).flat_map(|p| &p.steps);
        for step in steps {
            let reads_weights = matches!(step.op, Op::Apply { .. } | Op::DealCheck { .. });
            for (_, attr) in step.op.fields() {
                match attr {
                    Attr::Const(id) => ids.extend([id]),
                    Attr::MaybeConst(id) => ids.extend(id),
                    Attr::Map(map) if reads_weights => {
                        let ops = self.maps.get(map.index()).into_iter().flat_map(|m| &m.ops);
                        ids.extend(ops.filter_map(|op| op.constant()));
                    }
                    Attr::Map(_) | Attr::Value(_) | Attr::Values(_) | Attr::Slot(_) | Attr::Role(_) => {}
                    Attr::Int(_) | Attr::Ints(_) => {}
                }
            }
        }
        ids.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::op::Op;
    use crate::sample;
    use crate::value::{ConstId, Role};

    /// `@0` weights, `@1` scale, `@2` bias, `@3` sub-model.
    #[test]
    fn each_role_reads_its_own_constants() {
        let (bundle, _) = sample::relay();
        let ids = |list: &[u32]| list.iter().map(|i| ConstId(*i)).collect::<Vec<_>>();
        assert_eq!(bundle.constants_of(Role::Offline), ids(&[0]));
        assert_eq!(bundle.constants_of(Role::Device), ids(&[1, 2, 3]));
        assert_eq!(bundle.constants_of(Role::EdgeA), ids(&[0]));
        assert_eq!(bundle.constants_of(Role::EdgeB), ids(&[0]));
    }

    #[test]
    fn what_is_not_applied_or_not_there_is_left_out() {
        let (mut bundle, _) = sample::relay();
        bundle.programs.iter_mut().filter(|p| p.role == Role::EdgeB).for_each(|p| p.steps.truncate(1));
        assert_eq!(bundle.constants_of(Role::EdgeB), Vec::new());
        bundle.maps.clear();
        assert_eq!(bundle.constants_of(Role::EdgeA), Vec::new());
        bundle.programs.clear();
        assert_eq!(bundle.constants_of(Role::Device), Vec::new());
    }

    #[test]
    fn an_optional_constant_counts_when_it_is_there() {
        let (mut bundle, _) = sample::relay();
        for step in bundle.programs.iter_mut().flat_map(|p| &mut p.steps) {
            if let Op::Decode { group, .. } = &mut step.op {
                *group = Some(ConstId(9));
            }
        }
        assert!(bundle.constants_of(Role::Device).contains(&ConstId(9)));
    }
}
