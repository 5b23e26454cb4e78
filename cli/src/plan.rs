//! Plan files: read, verified, validated.

use std::path::Path;
use std::sync::Arc;

use pponnx_plans::constant::ConstStore;
use pponnx_plans::file;
use pponnx_plans::valid::{self, ValidBundle};
use pponnx_plans::value::Role;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome, file_failure};
use crate::foreign::{format_failure, violation_failure};

/// A plan file that may be used.
pub struct Plan {
    /// Whose constants it holds.
    pub role: Role,
    /// All programs.
    pub bundle: Arc<ValidBundle>,
    /// The role's constants.
    pub constants: ConstStore,
}

/// Reads a plan file of any role.
pub fn read_any(path: &Path) -> Outcome<Plan> {
    let bytes = std::fs::read(path).map_err(|e| Box::new(file_failure("read", path, &e)))?;
    let plan = file::read(&bytes).map_err(|e| format_failure(path, &e))?;
    let bundle = valid::validate(plan.bundle).map_err(|v| violation_failure(path, &v))?;
    Ok(Plan { role: plan.role, bundle: Arc::new(bundle), constants: plan.constants })
}

/// Reads the plan file of a role and refuses that of another one.
pub fn read_plan(path: &Path, role: Role) -> Outcome<Plan> {
    let plan = read_any(path)?;
    if plan.role != role {
        let message = format!("`{}` is the plan of {}, expected that of {role}", path.display(), plan.role);
        return Err(Box::new(
            Failure::new(Exit::Configuration, "pponnx::plan::role", message)
                .help("each role's folder has its own plan: copy the folder whole"),
        ));
    }
    Ok(plan)
}

/// Whether a file begins like a plan file.
pub fn looks_like_plan(bytes: &[u8]) -> bool {
    bytes.starts_with(&file::MAGIC)
}
