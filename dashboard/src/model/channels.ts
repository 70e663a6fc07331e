/**
 * Frames of `v5.channel.k8s.io`: the first byte says of which channel the rest is.
 */

export const PROTOCOLS = ["v5.channel.k8s.io", "v4.channel.k8s.io"] as const;

export const STDIN = 0;
export const STDOUT = 1;
export const STDERR = 2;
export const ERROR = 3;
export const RESIZE = 4;
/** Of version 5: a channel has ended. */
export const CLOSE = 255;

export function frame(channel: number, text: string): Uint8Array<ArrayBuffer> {
  const body = new TextEncoder().encode(text);
  const whole = new Uint8Array(body.length + 1);
  whole[0] = channel;
  whole.set(body, 1);
  return whole;
}

export function closing(channel: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array([CLOSE, channel]);
}

export interface Ended {
  readonly ok: boolean;
  readonly code: number;
  readonly message: string;
}

/** The Status that ends a session. */
export function ended(said: string): Ended {
  try {
    const status = JSON.parse(said) as { status?: unknown; message?: unknown; details?: { causes?: { reason?: unknown; message?: unknown }[] } };
    if (status.status === "Success") return { ok: true, code: 0, message: "" };
    const cause = status.details?.causes?.find((one) => one.reason === "ExitCode");
    const code = Number(cause?.message);
    return { ok: false, code: Number.isInteger(code) ? code : -1, message: typeof status.message === "string" ? status.message : "it ended" };
  } catch {
    return { ok: false, code: -1, message: said };
  }
}
