//! Attribute macros of `weft-sdk`; use them through that crate.
//!
//! They read the item's tokens directly instead of through a parser crate, so that a guest's first build does not
//! have to compile one. What they accept is narrow, and everything else is refused with a sentence at the right place.

use proc_macro::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};

/// Makes an async function the component's HTTP handler.
///
/// The function takes one [`Request`](../weft_sdk/type.Request.html) and returns `Result<Response, E>` where `E` is
/// `Display`; anything else is refused with that sentence, natively too. It stays an ordinary function: call it from unit
/// tests as it is. On a Wasm target the macro adds the export of `wasi:http/incoming-handler`.
///
/// An `Err` is written to stderr and answered with 500 and a fixed text: error texts often name internals, so they
/// are for the log and not for the caller.
#[proc_macro_attribute]
pub fn http(attribute: TokenStream, item: TokenStream) -> TokenStream {
    if let Some(token) = attribute.into_iter().next() {
        return error(token.span(), "#[weft::http] takes no arguments");
    }
    let handler = match handler_name(&item) {
        Ok(handler) => handler,
        // The item stays, so that nothing else is reported than what is wrong.
        Err((span, message)) => {
            let mut expanded = error(span, message);
            expanded.extend(item);
            return expanded;
        }
    };
    let (sdk, name) = (sdk_path(), handler.to_string());
    // On the function's own name, for the compiler to point at when the types do not fit.
    let check = format!("const _: () = {sdk}::__private::check(&{name});");
    let check = spanned(parse(&check), handler.span());
    let export = format!(
        "#[cfg(target_family = \"wasm\")]
         const _: () = {{
             struct WeftHandler;
             impl {sdk}::__private::Guest for WeftHandler {{
                 fn handle(
                     request: {sdk}::__private::IncomingRequest,
                     out: {sdk}::__private::ResponseOutparam,
                 ) {{
                     {sdk}::__private::serve(request, out, {name})
                 }}
             }}
             {sdk}::__private::wasip2::http::proxy::export!(
                 WeftHandler with_types_in {sdk}::__private::wasip2
             );
         }};"
    );
    let mut expanded = item;
    expanded.extend(check);
    expanded.extend(parse(&export));
    expanded
}

/// The name of the function, or where and why the item is not a handler.
fn handler_name(item: &TokenStream) -> Result<Ident, (Span, &'static str)> {
    let mut is_async = false;
    let mut tokens = item.clone().into_iter().peekable();
    while let Some(token) = tokens.next() {
        let TokenTree::Ident(word) = &token else {
            continue;
        };
        match word.to_string().as_str() {
            "async" => is_async = true,
            "fn" => {
                if !is_async {
                    return Err((word.span(), "#[weft::http] needs an `async fn`"));
                }
                let Some(TokenTree::Ident(name)) = tokens.next() else {
                    return Err((word.span(), "#[weft::http] needs a function with a name"));
                };
                let Some(TokenTree::Group(arguments)) = tokens
                    .next()
                    .filter(|token| matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis))
                else {
                    return Err((
                        name.span(),
                        "#[weft::http] needs a function without type parameters",
                    ));
                };
                if count_arguments(arguments.stream()) != 1 {
                    return Err((
                        arguments.span(),
                        "#[weft::http] needs a function of one argument, the `Request`",
                    ));
                }
                return match tokens.next() {
                    Some(TokenTree::Punct(arrow)) if arrow.as_char() == '-' => Ok(name),
                    _ => Err((
                        name.span(),
                        "#[weft::http] needs a function that returns `Result<Response, E>`",
                    )),
                };
            }
            "struct" | "enum" | "impl" | "mod" | "trait" | "const" | "static" | "use" => break,
            _ => {}
        }
    }
    Err((
        Span::call_site(),
        "#[weft::http] belongs on an `async fn(Request) -> Result<Response, E>`",
    ))
}

/// How many arguments a function takes. A comma inside of `<…>` does not part two of them.
fn count_arguments(arguments: TokenStream) -> usize {
    let (mut count, mut pending, mut depth) = (0, false, 0_usize);
    let mut dash = false;
    for token in arguments {
        let punct = match &token {
            TokenTree::Punct(punct) => punct.as_char(),
            _ => ' ',
        };
        match punct {
            ',' if depth == 0 => {
                count += usize::from(pending);
                pending = false;
            }
            '<' => depth += 1,
            '>' if !dash => depth = depth.saturating_sub(1),
            _ => pending = true,
        }
        dash = punct == '-'; // the arrow of a function's type closes nothing
    }
    count + usize::from(pending)
}

/// The path under which the annotated crate knows the SDK.
///
/// An attribute cannot see the path it was called by. The name `weft` is the documented one; a manifest that depends
/// on `weft-sdk` under its own name has a line that begins with it.
fn sdk_path() -> &'static str {
    let own = std::env::var("CARGO_PKG_NAME").is_ok_and(|name| name == "weft-sdk");
    let manifest = std::env::var("CARGO_MANIFEST_DIR")
        .ok()
        .and_then(|dir| std::fs::read_to_string(std::path::Path::new(&dir).join("Cargo.toml")).ok())
        .unwrap_or_default();
    if own || depends_under_own_name(&manifest) {
        "::weft_sdk"
    } else {
        "::weft"
    }
}

fn depends_under_own_name(manifest: &str) -> bool {
    manifest.lines().any(|line| {
        let line = line.trim_start();
        ["weft-sdk", "weft_sdk"].iter().any(|name| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.trim_start().starts_with(['=', '.']))
        }) || line.trim_end().ends_with("dependencies.weft-sdk]")
    })
}

fn parse(code: &str) -> TokenStream {
    // The texts above are ours; the name inserted is an identifier the compiler already accepted.
    code.parse().expect("generated code is well formed")
}

fn error(span: Span, message: &str) -> TokenStream {
    spanned(
        parse(&format!("::core::compile_error!({message:?});")),
        span,
    )
}

/// The tokens as if they stood at `span`, inner ones too.
fn spanned(tokens: TokenStream, span: Span) -> TokenStream {
    tokens
        .into_iter()
        .map(|token| {
            let mut token = match token {
                TokenTree::Group(group) => {
                    let inner = spanned(group.stream(), span);
                    TokenTree::Group(Group::new(group.delimiter(), inner))
                }
                other => other,
            };
            token.set_span(span);
            token
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::depends_under_own_name;

    #[test]
    fn the_manifest_tells_the_name() {
        for (manifest, own) in [
            ("[dependencies]\nweft-sdk = \"0.1\"", true),
            ("weft-sdk.workspace = true", true),
            ("[dependencies.weft-sdk]\nversion = \"0.1\"", true),
            (
                "weft = { package = \"weft-sdk\", path = \"../sdk\" }",
                false,
            ),
            ("weft.workspace = true", false),
            ("weft-sdk-macros = \"0.1\"", false),
        ] {
            assert_eq!(depends_under_own_name(manifest), own, "{manifest}");
        }
    }
}
