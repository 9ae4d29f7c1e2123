/** Keys that do something wherever the focus is, but for fields that text is typed into. */

import { useEffect, useRef } from "preact/hooks";

export type Keys = Record<string, (event: KeyboardEvent) => void>;

const FIELDS = "input:not([type=checkbox]):not([type=range]), textarea, select";

export function useKeys(keys: Keys): void {
  const current = useRef(keys);
  current.current = keys;
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      const target = event.target as Element;
      if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
      if (target.matches(FIELDS)) {
        if (event.key === "Escape") (target as HTMLElement).blur();
        return;
      }
      if (event.key === "Enter" && target.matches("button, a, summary")) return;
      const act = current.current[event.key];
      if (act) {
        event.preventDefault();
        act(event);
      }
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, []);
}
