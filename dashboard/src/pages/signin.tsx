/** Who are you? Shown in place of every page, and the page is still where it was when that is answered. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";

import { problem, signIn, type Session } from "../kube/session";
import { useTitle } from "../ui/hooks";
import { Said } from "../ui/words";

export function SignIn({ ways }: { ways: Session }): JSX.Element {
  const token = useSignal("");
  const busy = useSignal(false);
  useTitle("Sign in");
  const enter = async (by: Parameters<typeof signIn>[0]) => {
    busy.value = true;
    await signIn(by);
    token.value = "";
    busy.value = false;
  };
  return (
    <main class="sign-in" id="main">
      <h1>weft</h1>
      <p class="lead">
        The shortest way in: <code>weft dash</code> prints a link that works once.
      </p>
      {problem.value === "" ? null : (
        <p class="failure-line" role="alert">
          <Said text={problem.value} />
        </p>
      )}
      {ways.certificate === "" ? null : (
        <button type="button" class="button button-primary" disabled={busy.value} onClick={() => void enter({ certificate: true })}>
          Go on as <Said text={ways.certificate} />
        </button>
      )}
      {ways.issuers.map((issuer) => (
        <button key={issuer.path} type="button" class="button" onClick={() => location.assign(issuer.path)}>
          Sign in at <Said text={issuer.url} />
        </button>
      ))}
      <form
        class="form"
        onSubmit={(event) => {
          event.preventDefault();
          if (token.value.trim() !== "") void enter({ token: token.value.trim() });
        }}
      >
        <label>
          A bearer token
          <input type="password" name="token" autocomplete="off" spellcheck={false} value={token.value} onInput={(event) => (token.value = event.currentTarget.value)} />
          <span class="hint">
            As in a kubeconfig, or from <code>kubectl create token</code>
          </span>
        </label>
        <button type="submit" class="button" disabled={busy.value || token.value.trim() === ""}>
          Sign in
        </button>
      </form>
    </main>
  );
}
