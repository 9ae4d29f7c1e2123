/** Where in the page one is: the part of the address behind #, which no server sees. */

import { useEffect, useState } from "preact/hooks";

export type Route =
  | { page: "worklist" }
  | { page: "job"; id: string }
  | { page: "models"; name?: string }
  | { page: "quality" };

export function parse(hash: string): Route {
  const [page, rest] = hash.replace(/^#\/?/, "").split("/");
  if (page === "jobs" && rest && /^[0-9a-f]{32}$/.test(rest)) return { page: "job", id: rest };
  if (page === "models") return rest ? { page: "models", name: decodeURIComponent(rest) } : { page: "models" };
  if (page === "quality") return { page: "quality" };
  return { page: "worklist" };
}

export function go(hash: string): void {
  location.hash = hash;
}

export function useRoute(): Route {
  const [route, setRoute] = useState(() => parse(location.hash));
  useEffect(() => {
    const changed = () => setRoute(parse(location.hash));
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}
