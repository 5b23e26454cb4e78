//! Plan files: opened, verified, validated.
//!
//! A plan is not read into memory as a whole: constants are read one at a time by whoever needs them, straight from
//! the file, and verified as they come. The file is not mapped into memory, since one that is cut short while it is
//! in use would end the process, and one that is changed would change weights behind their verification.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use pponnx_plans::constant::{ConstStore, ReadAt};
use pponnx_plans::file::{self, PlanFile};
use pponnx_plans::footprint::footprint;
use pponnx_plans::valid::{self, ValidBundle};
use pponnx_plans::value::Role;

use crate::console::bytes;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, file_failure};
use crate::foreign::{format_failure, violation_failure};

/// A plan file that may be used.
pub struct Plan {
    /// Whose constants it holds.
    pub role: Role,
    /// All programs.
    pub bundle: Arc<ValidBundle>,
    /// The role's constants, in the file.
    pub constants: ConstStore,
}

/// A file that is read piecemeal.
struct OnDisk(File);

impl ReadAt for OnDisk {
    #[cfg(unix)]
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, buf, offset)
    }

    #[cfg(not(unix))]
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        use std::io::{Read, Seek, SeekFrom};
        // A handle of its own, since several readers would move one cursor.
        let mut file = self.0.try_clone()?;
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(buf)
    }
}

/// Reads a plan file of any role and verifies every byte of it.
pub fn read_any(path: &Path) -> Outcome<Plan> {
    let plan = open(path)?;
    plan.verify().map_err(|e| format_failure(path, &e))?;
    admit(path, plan)
}

fn open(path: &Path) -> Outcome<PlanFile> {
    let failed = |e: std::io::Error| Box::new(file_failure("read", path, &e));
    let handle = File::open(path).map_err(failed)?;
    let meta = handle.metadata().map_err(failed)?;
    if meta.is_dir() {
        return Err(failed(std::io::ErrorKind::IsADirectory.into()));
    }
    file::open(Arc::new(OnDisk(handle)), meta.len()).map_err(|e| format_failure(path, &e))
}

fn admit(path: &Path, plan: PlanFile) -> Outcome<Plan> {
    let bundle = valid::validate(plan.bundle).map_err(|v| violation_failure(path, &v))?;
    Ok(Plan { role: plan.role, bundle: Arc::new(bundle), constants: plan.constants })
}

/// Reads the plan file of a role and refuses that of another one. Constants are verified when they are loaded.
pub fn read_plan(path: &Path, role: Role) -> Outcome<Plan> {
    let plan = admit(path, open(path)?)?;
    if plan.role != role {
        let message = format!("`{}` is the plan of {}, expected that of {role}", path.display(), plan.role);
        return Err(Box::new(
            Failure::new(Exit::Configuration, "pponnx::plan::role", message)
                .help("each role's folder has its own plan: copy the folder whole"),
        ));
    }
    Ok(plan)
}

/// Refuses plans that together need more memory than the configuration allows, before any of it is allocated.
pub fn check_memory<'a>(plans: impl IntoIterator<Item = (&'a Path, &'a Plan)>, limit_mb: u64) -> Outcome<()> {
    let limit = limit_mb.saturating_mul(1_000_000);
    let (mut resident, mut moment) = (0u64, 0u64);
    for (path, plan) in plans {
        let found = footprint(&plan.bundle, plan.role);
        resident = resident.saturating_add(found.resident);
        moment = moment.max(found.largest.max(found.request));
        let need = resident.saturating_add(moment);
        if need > limit {
            let message = format!(
                "`{}` needs about {} of memory, {} of them for constants; the limit is {}",
                path.display(),
                bytes(need),
                bytes(resident),
                bytes(limit),
            );
            return Err(Box::new(Failure::new(Exit::Refused, "pponnx::plan::memory", message).help(
                "use a machine with more memory and raise max_memory_mb under [limits] in its configuration, or compile \
                 the model with smaller shapes",
            )));
        }
    }
    Ok(())
}

/// Whether a file begins like a plan file.
pub fn looks_like_plan(bytes: &[u8]) -> bool {
    bytes.starts_with(&file::MAGIC)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::args::ModelOptions;

    /// The plan of the bundled network for one role.
    fn digits(role: Role) -> Plan {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../onnx-models/digits/model.onnx");
        let options = crate::cmd::compile::options(&ModelOptions {
            scheme: Default::default(),
            precision: Default::default(),
            suite: Default::default(),
            shapes: Vec::new(),
        })
        .unwrap();
        let compiled =
            pponnx_compiler::pipeline::compile(&pponnx_compiler::source::ModelSource::Path(path.into()), &options);
        let compiled = compiled.unwrap();
        Plan { role, bundle: Arc::new(compiled.bundle), constants: compiled.constants }
    }

    #[test]
    fn memory_counts_all_plans_and_names_need_and_limit() {
        let (device, edge) = (digits(Role::Device), digits(Role::EdgeA));
        let path = Path::new("x.plan");
        assert!(check_memory([(path, &device), (path, &edge)], 1).is_ok());
        let failure = check_memory([(path, &device)], 0).unwrap_err();
        assert_eq!((failure.exit, failure.code.as_ref()), (Exit::Refused, "pponnx::plan::memory"));
        let many = 1 + 1_000_000 / footprint(&edge.bundle, Role::EdgeA).resident as usize;
        let failure = check_memory(std::iter::repeat_n((path, &edge), many), 1).unwrap_err();
        assert!(failure.message.contains("the limit is 1.0 MB"), "{}", failure.message);
    }
}
