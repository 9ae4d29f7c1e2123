/** Requests to the gateway. The key lives in this tab's session storage, goes into a header and into no address. */

import type { Job } from "./types";

const KEY = "ncagate-key";
const listeners = new Set<() => void>();

/** An answer that is a problem (RFC 9457). */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
  ) {
    super(detail);
  }
}

export function hasKey(): boolean {
  return sessionStorage.getItem(KEY) !== null;
}

export function setKey(key: string | null): void {
  if (key === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, key);
}

/** Call this where a request is refused for want of a key. Returns how to stop. */
export function onUnauthenticated(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function authorization(): Record<string, string> {
  const key = sessionStorage.getItem(KEY);
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

/** What a failed answer says; a 401 is told to whoever asks people for their keys. */
export function problemOf(status: number, text: string): Problem {
  if (status === 401) for (const listener of listeners) listener();
  try {
    const body = JSON.parse(text) as { code?: string; detail?: string; title?: string };
    return new Problem(status, body.code ?? "error", body.detail ?? body.title ?? `status ${status}`);
  } catch {
    return new Problem(status, "error", `the gateway answered ${status}`);
  }
}

async function ask(path: string, options: RequestInit = {}): Promise<Response> {
  const headers = { ...authorization(), ...(options.headers as Record<string, string> | undefined) };
  let answer: Response;
  try {
    answer = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Problem(0, "unreachable", "the gateway does not answer");
  }
  if (!answer.ok && answer.status !== 304) throw problemOf(answer.status, await answer.text());
  return answer;
}

export async function getJson<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await ask(path, signal ? { signal } : {})).json() as Promise<T>;
}

export async function sendJson<T>(method: "POST" | "PUT", path: string, body?: unknown): Promise<T> {
  const options: RequestInit =
    body === undefined
      ? { method }
      : { method, body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  return (await ask(path, options)).json() as Promise<T>;
}

export async function getBytes(path: string, accept = "*/*", signal?: AbortSignal): Promise<ArrayBuffer> {
  const answer = await ask(path, { headers: { Accept: accept }, ...(signal ? { signal } : {}) });
  return answer.arrayBuffer();
}

/** A page that is asked for again and again, and only sent where it has changed. */
export class Polled<T> {
  private etag = "";

  constructor(private readonly path: string) {}

  /** The page, or null where it is as it was. */
  async get(signal: AbortSignal): Promise<T | null> {
    const answer = await ask(this.path, { signal, headers: this.etag ? { "If-None-Match": this.etag } : {} });
    if (answer.status === 304) return null;
    this.etag = answer.headers.get("ETag") ?? "";
    return answer.json() as Promise<T>;
  }
}

/** Follow a job by its server-sent events until it ends; fetched by hand, as EventSource sends no headers. */
export async function follow(id: string, onJob: (job: Job) => void, signal: AbortSignal): Promise<void> {
  const answer = await ask(`/jobs/${id}/events`, { signal });
  const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
  if (!reader) return;
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop() ?? "";
    for (const event of events) {
      const kind = /^event: (.*)$/m.exec(event)?.[1];
      const data = /^data: (.*)$/m.exec(event)?.[1];
      if (data && (kind === "job" || kind === "end")) onJob(JSON.parse(data) as Job);
    }
  }
}

/** Let the browser save bytes under a name. */
export function save(bytes: ArrayBuffer, name: string): void {
  const url = URL.createObjectURL(new Blob([bytes]));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
