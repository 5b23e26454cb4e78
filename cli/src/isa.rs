//! Which kernels run.

use pponnx_kernels::{Isa, Kernels};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// Environment variable that forces an instruction set.
pub const VARIABLE: &str = "PPONNX_ISA";

/// The kernels that `PPONNX_ISA` names, else the fastest of this processor.
pub fn kernels() -> Outcome<Kernels> {
    match std::env::var(VARIABLE) {
        Ok(name) => choose(VARIABLE, &name),
        Err(std::env::VarError::NotPresent) => Ok(Kernels::detect()),
        Err(std::env::VarError::NotUnicode(name)) => choose(VARIABLE, &name.to_string_lossy()),
    }
}

/// The kernels of this name, which was given by way of `source`.
pub fn choose(source: &str, name: &str) -> Outcome<Kernels> {
    let here = Kernels::available().iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ");
    let refuse = |what: String| {
        Box::new(Failure::new(Exit::Usage, "pponnx::usage::isa", what).help(format!("this processor has {here}")))
    };
    let isa = Isa::from_name(name).ok_or_else(|| refuse(format!("{source}=`{name}` names no instruction set")))?;
    Kernels::with_isa(isa).ok_or_else(|| refuse(format!("{source}={name}: this processor lacks it")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn unknown_names_are_refused() {
        assert_eq!(choose(VARIABLE, "portable").unwrap().isa(), Isa::Portable);
        assert_eq!(choose(VARIABLE, "sse9").unwrap_err().exit, Exit::Usage);
    }
}
