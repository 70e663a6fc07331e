//! Host functions of ours in the place of wasmtime's.
//!
//! They are linked by name, and the name has the version of the interface in it. Where a newer wasmtime links the interface by
//! another version, a function of ours beside it would be used by nobody, and what it holds guests to by nobody kept. So a name that
//! is not there already is an error.

use std::future::Future;
use std::pin::Pin;

use wasmtime::StoreContextMut;
use wasmtime::component::{Accessor, ComponentNamedList, Lift, Linker, LinkerInstance, Lower};

use crate::host::HostState;

/// An interface some functions of which are linked anew.
pub(super) struct Shadow<'a> {
    linker: &'a mut Linker<HostState>,
    interface: &'static str,
}

impl<'a> Shadow<'a> {
    pub(super) fn new(linker: &'a mut Linker<HostState>, interface: &'static str) -> Shadow<'a> {
        Shadow { linker, interface }
    }

    /// The interface, for replacing its function `name`.
    fn replacing(&mut self, name: &str) -> wasmtime::Result<LinkerInstance<'_, HostState>> {
        let Shadow { linker, interface } = self;
        linker.allow_shadowing(false);
        // There is no question but this: what exists cannot be linked a second time.
        let added = linker
            .instance(interface)?
            .func_wrap(name, |_: StoreContextMut<'_, HostState>, (): ()| Ok(()));
        if added.is_ok() {
            return Err(wasmtime::Error::msg(format!(
                "wasmtime links no {interface}.{name} that could be replaced; it may have another version of the interface"
            )));
        }
        linker.allow_shadowing(true);
        linker.instance(interface)
    }

    pub(super) fn func_wrap<F, Params, Return>(&mut self, name: &str, f: F) -> wasmtime::Result<()>
    where
        F: Fn(StoreContextMut<'_, HostState>, Params) -> wasmtime::Result<Return>
            + Send
            + Sync
            + 'static,
        Params: ComponentNamedList + Lift + 'static,
        Return: ComponentNamedList + Lower + 'static,
    {
        self.replacing(name)?.func_wrap(name, f)
    }

    pub(super) fn func_wrap_async<Params, Return, F>(
        &mut self,
        name: &str,
        f: F,
    ) -> wasmtime::Result<()>
    where
        F: Fn(
                StoreContextMut<'_, HostState>,
                Params,
            ) -> Box<dyn Future<Output = wasmtime::Result<Return>> + Send + '_>
            + Send
            + Sync
            + 'static,
        Params: ComponentNamedList + Lift + 'static,
        Return: ComponentNamedList + Lower + 'static,
    {
        self.replacing(name)?.func_wrap_async(name, f)
    }

    pub(super) fn func_wrap_concurrent<Params, Return, F>(
        &mut self,
        name: &str,
        f: F,
    ) -> wasmtime::Result<()>
    where
        F: Fn(
                &Accessor<HostState>,
                Params,
            ) -> Pin<Box<dyn Future<Output = wasmtime::Result<Return>> + Send + '_>>
            + Send
            + Sync
            + 'static,
        Params: ComponentNamedList + Lift + 'static,
        Return: ComponentNamedList + Lower + 'static,
    {
        self.replacing(name)?.func_wrap_concurrent(name, f)
    }
}

impl Drop for Shadow<'_> {
    fn drop(&mut self) {
        self.linker.allow_shadowing(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Calls, compiler_config};

    #[test]
    fn what_is_not_there_cannot_be_replaced() {
        let engine = wasmtime::Engine::new(&compiler_config(Calls::Serial)).unwrap();
        let mut linker = Linker::new(&engine);
        let mut exit = linker.instance("wasi:cli/exit@0.2.12").unwrap();
        exit.func_wrap("exit", |_, (): ()| Ok(())).unwrap();
        let mut replace = |interface, name| {
            let mut shadow = Shadow::new(&mut linker, interface);
            let replaced = shadow.func_wrap(name, |_, (): ()| Ok(()));
            replaced.map_err(|error| error.to_string())
        };
        assert_eq!(replace("wasi:cli/exit@0.2.12", "exit"), Ok(()));
        // As often as there is something to replace.
        assert_eq!(replace("wasi:cli/exit@0.2.12", "exit"), Ok(()));
        for (interface, name) in [
            ("wasi:cli/exit@0.2.12", "exit-with-code"),
            ("wasi:cli/exit@0.2.13", "exit"),
        ] {
            let error = replace(interface, name).unwrap_err();
            assert_eq!(
                error,
                format!(
                    "wasmtime links no {interface}.{name} that could be replaced; it may have another version of the interface"
                )
            );
        }
    }
}
