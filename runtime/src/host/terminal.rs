//! `weft:terminal/size`: how large the guest's terminal is now. See `wit/terminal/size.wit`.

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use crate::host::HostState;

pub(super) fn link(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    linker.instance("weft:terminal/size@0.1.0")?.func_wrap(
        "get",
        |store: StoreContextMut<'_, HostState>, (): ()| {
            let size = store.data().terminal.as_ref().map(|size| *size.borrow());
            let known = size.filter(|size| size.columns > 0 && size.lines > 0);
            Ok((known.map(|size| (size.columns, size.lines)),))
        },
    )
}
